"""A score without a model: a few rules that any fraud team would begin with, for when no model can answer."""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gnn.score.reasons import MOST, Explanation, Reason, put_together
from graph.dag.features import feature_names
from graph.state import GraphState

BASE: Final = -4.0  # log-odds of fraud that nothing speaks for


def rules_score(state: GraphState, rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], list[Explanation]]:
    """A plain score without a model: a few rules that any fraud team would begin with.

    Where even the graph's features fail, the amount alone speaks.

    Args:
        state: The graph.
        rows: int64 [n].

    Returns:
        Probabilities [n], and the rules that applied to each; with `BASE` they add up to the log-odds.
    """
    try:
        x = np.expm1(state.store.features(rows))
        at = {name: i for i, name in enumerate(feature_names(state.store.roles))}
    except Exception:  # whatever broke the graph must not take the last answer with it
        x, at = np.zeros((len(rows), 0), np.float32), {}
    amount = state.store.column("amount", rows)
    probabilities, said = np.empty(len(rows)), []
    for b in range(len(rows)):
        found = _rules(state, x[b], at, float(amount[b]))
        log_odds = BASE + sum(r.contribution for r in found)
        probabilities[b] = 1 / (1 + math.exp(-log_odds))
        named = sorted(found, key=lambda r: -r.contribution)
        if len(named) > MOST:
            named = named[: MOST - 1]
        said.append(put_together(BASE, named, log_odds, f"{len(found) - len(named)} more rules together"))
    return probabilities, said


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
