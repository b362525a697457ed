"""A score without a model: a few rules that any fraud team would begin with, for when no model can answer."""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gnn.score.reasons import MAX_REASONS, Explanation, Reason, build_explanation
from graph.dag.features import feature_names
from graph.state import GraphState

BASE_LOG_ODDS: Final = -4.0  # of a payment to which no rule applies


def rules_score(state: GraphState, rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], list[Explanation]]:
    """Score payments by rules on the graph's features; by the amount alone, where even those cannot be computed.

    Args:
        state: The graph.
        rows: int64 [n].

    Returns:
        Probabilities [n], and the rules that applied to each; with `BASE_LOG_ODDS` they add up to the log-odds.
    """
    try:
        x = np.expm1(state.store.features(rows))
        at = {name: i for i, name in enumerate(feature_names(state.store.roles))}
    except Exception:  # this is the last resort: whatever broke the features must not leave a payment unanswered
        x, at = np.zeros((len(rows), 0), np.float32), {}
    amount = state.store.column("amount", rows)
    probabilities, explanations = np.empty(len(rows)), []
    for b in range(len(rows)):
        found = _rules(state, x[b], at, float(amount[b]))
        log_odds = BASE_LOG_ODDS + sum(r.contribution for r in found)
        probabilities[b] = 1 / (1 + math.exp(-log_odds))
        named = sorted(found, key=lambda r: -r.contribution)
        if len(named) > MAX_REASONS:
            named = named[: MAX_REASONS - 1]
        explanations.append(
            build_explanation(BASE_LOG_ODDS, named, log_odds, f"{len(found) - len(named)} more rules together")
        )
    return probabilities, explanations


def _rules(state: GraphState, x: NDArray[np.float32], at: dict[str, int], amount: float) -> list[Reason]:
    def value(name: str) -> float:
        return float(x[at[name]]) if name in at else 0.0

    found = []
    if amount >= 100_000:
        found.append(Reason("RULE_AMOUNT", f"amount {amount / 100:,.2f} is high", 1.0))
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
