"""A score without a model: a few rules that any fraud team would begin with, for when no model can answer."""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gnn.score.reasons import MAX_REASONS, Explanation, Reason, build_explanation
from graph.dag.features import feature_names
from graph.state import GraphState

BASE_LOG_ODDS: Final = -4.0  # of a payment to which no rule applies


def rules_score(state: GraphState, rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], list[Explanation | None]]:
    """A plain score from the graph's features, without a model. Where even these fail, the amount alone speaks.

    Args:
        state: The graph.
        rows: Rows in the buffer, int64 [n].

    Returns:
        Probabilities, float64 [n], and the rules that applied; with `BASE_LOG_ODDS` they add up to the log-odds.
    """
    amounts = state.store.column("amount", rows)
    try:
        x = np.expm1(state.store.features(rows))
    except Exception:  # the last resort: whatever broke the features must not leave a payment unanswered
        return request_score(amounts)
    at = {name: i for i, name in enumerate(feature_names(state.store.roles))}
    return _scored([_amount_rule(int(a)) + _graph_rules(state, v, at) for a, v in zip(amounts, x, strict=True)])


def request_score(amounts: NDArray[np.int64]) -> tuple[NDArray[np.float64], list[Explanation | None]]:
    """A plain score from what a request says by itself, for payments that no graph holds; as `rules_score`.

    Args:
        amounts: Minor units, int64 [n].
    """
    return _scored([_amount_rule(amount) for amount in amounts.tolist()])


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


def _amount_rule(amount: int) -> list[Reason]:
    return [Reason("RULE_AMOUNT", f"amount {amount / 100:,.2f} is high", 1.0)] if amount >= 100_000 else []


def _graph_rules(state: GraphState, x: NDArray[np.float32], at: dict[str, int]) -> list[Reason]:
    def value(name: str) -> float:
        return float(x[at[name]]) if name in at else 0.0

    found = []
    for role in state.store.roles:
        frauds = round(value(f"{role}.fraud.30d"))
        if frauds:
            found.append(Reason("RULE_KNOWN_FRAUD", f"{frauds} known fraud payments of this {role} in 30 days", 2.0))
        count = round(value(f"{role}.count.1h"))
        if role != "merchant" and count >= 5:
            found.append(Reason("RULE_VELOCITY", f"{count} payments of this {role} within an hour", 1.5))
    if value("account.count.30d") > 0 and value("device.present") > 0.5 and value("account.met_device") < 0.5:
        found.append(Reason("RULE_NEW_DEVICE", "first payment of this account from this device", 0.7))
    if value("ring.frauds") >= 0.5:
        found.append(Reason("RULE_RING", "the account is tied to a known fraud by what it shares", 1.5))
    return found
