"""A score without a model: a few rules that any fraud team would begin with, for when no model can answer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.currency import format_amount
from data.schema import role
from gnn.score.reasons import MAX_REASONS, Explanation, Reason, build_explanation
from graph.dag.features import feature_names
from graph.state import GraphState

BASE_LOG_ODDS: Final = -4.0  # of a payment to which no rule applies
LARGE_AMOUNT: Final = 100_000  # minor units, from which on the amount itself is a reason
RECENT: Final = 64  # payments of an entity that are looked at, at most
HOUR_US, MONTH_US = 3_600_000_000, 30 * 86_400_000_000


@dataclass
class _Evidence:
    """What the graph knows of the entities of a payment, by role."""

    frauds: dict[str, int] = field(default_factory=dict)  # known, in 30 days
    last_hour: dict[str, int] = field(default_factory=dict)  # payments
    new_device: bool = False  # of an account that paid from others in 30 days
    ring_frauds: int = 0  # known in the account's ring


def rules_score(state: GraphState, rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], list[Explanation | None]]:
    """A plain score from the graph's features, without a model. Where even these fail, the amount alone speaks.

    Args:
        state: The graph.
        rows: Rows in the buffer, int64 [n].

    Returns:
        Probabilities, float64 [n], and the rules that applied; with `BASE_LOG_ODDS` they add up to the log-odds.
    """
    amounts, currencies = state.store.column("amount", rows), state.currencies_of(rows)
    try:
        x = np.expm1(state.store.features(rows))
    except Exception:  # the last resort: whatever broke the features must not leave a payment unanswered
        return request_score(amounts, currencies)
    at = {name: i for i, name in enumerate(feature_names(state.store.roles))}
    roles = state.store.roles
    return _scored(
        [
            _amount_rule(int(a), currency) + _graph_rules(_of_row(roles, v, at))
            for a, currency, v in zip(amounts, currencies, x, strict=True)
        ]
    )


def prospect_score(state: GraphState, batch: pa.RecordBatch) -> tuple[NDArray[np.float64], list[Explanation | None]]:
    """A plain score of payments that are not in the graph, from what it knows of their entities; as `rules_score`.

    Nothing is added to the graph. Of each entity the newest `RECENT` payments are looked at.

    Args:
        state: The graph; nobody may change it meanwhile.
        batch: Payments of `TRANSACTION_SCHEMA`, [n].
    """
    return _scored(
        [
            _amount_rule(payment["amount"], payment["currency"]) + _graph_rules(_of_prospect(state, payment))
            for payment in batch.to_pylist()
        ]
    )


def request_score(
    amounts: NDArray[np.int64], currencies: Sequence[str]
) -> tuple[NDArray[np.float64], list[Explanation | None]]:
    """A plain score from what a request says by itself, for payments that no graph holds; as `rules_score`.

    Args:
        amounts: Minor units, int64 [n].
        currencies: Their currencies, [n].
    """
    return _scored([_amount_rule(*paid) for paid in zip(amounts.tolist(), currencies, strict=True)])


def _scored(applied: list[list[Reason]]) -> tuple[NDArray[np.float64], list[Explanation | None]]:
    """Scores of payments by the rules that applied to each."""
    probabilities = np.empty(len(applied))
    explanations: list[Explanation | None] = []
    for b, found in enumerate(applied):
        log_odds = BASE_LOG_ODDS + sum(r.contribution for r in found)
        probabilities[b] = 1 / (1 + math.exp(-log_odds))
        named = sorted(found, key=lambda r: -r.contribution)
        if len(named) > MAX_REASONS:
            named = named[: MAX_REASONS - 1]
        rest = f"{len(found) - len(named)} more rules together"
        explanations.append(build_explanation(BASE_LOG_ODDS, named, log_odds, rest))
    return probabilities, explanations


def _amount_rule(amount: int, currency: str) -> list[Reason]:
    if amount < LARGE_AMOUNT:
        return []
    return [Reason("RULE_AMOUNT", f"amount {format_amount(amount, currency)} is high", 1.0)]


def _of_row(roles: tuple[str, ...], x: NDArray[np.float32], at: dict[str, int]) -> _Evidence:
    """From the features of a payment in the graph."""

    def value(name: str) -> float:
        return float(x[at[name]]) if name in at else 0.0

    return _Evidence(
        frauds={name: round(value(f"{name}.fraud.30d")) for name in roles},
        last_hour={name: round(value(f"{name}.count.1h")) for name in roles},
        new_device=value("account.count.30d") > 0
        and value("device.present") > 0.5
        and value("account.met_device") < 0.5,
        ring_frauds=round(value("ring.frauds")),
    )


def _of_prospect(state: GraphState, payment: dict[str, object]) -> _Evidence:
    """From the newest payments of the entities of one that is not in the graph."""
    store, found = state.store, _Evidence()
    devices = np.empty((0, len(store.roles)), np.int32)  # of the account's payments
    now = int(payment["timestamp"].timestamp() * 1e6)  # type: ignore[attr-defined]
    for r, name in enumerate(store.roles):
        text = payment[role(name).column]
        node = store.ids.get(int(store.role_type[r]), str(text)) if text is not None else -1
        rows = store.history(node, RECENT) if node >= 0 else np.empty(0, np.int64)
        if name == "account" and len(rows):
            found.ring_frauds = int(store.column("ring", rows[:1])[0, 2])
        age = now - store.raw_time(rows)
        rows, age = rows[age <= MONTH_US], age[age <= MONTH_US]
        found.frauds[name] = int((store.believed(rows) == 1).sum())
        found.last_hour[name] = int((age <= HOUR_US).sum())
        if name == "account":
            devices = store.column("entity", rows)
        elif name == "device" and text is not None and len(devices):
            found.new_device = node < 0 or node not in devices[:, r]
    return found


def _graph_rules(evidence: _Evidence) -> list[Reason]:
    found = []
    for name, frauds in evidence.frauds.items():
        if frauds:
            found.append(Reason("RULE_KNOWN_FRAUD", f"{frauds} known fraud payments of this {name} in 30 days", 2.0))
        count = evidence.last_hour[name]
        if name != "merchant" and count >= 5:
            found.append(Reason("RULE_VELOCITY", f"{count} payments of this {name} within an hour", 1.5))
    if evidence.new_device:
        found.append(Reason("RULE_NEW_DEVICE", "first payment of this account from this device", 0.7))
    if evidence.ring_frauds:
        found.append(Reason("RULE_RING", "the account is tied to a known fraud by what it shares", 1.5))
    return found
