"""From a probability to a decision, and rules for when no model can answer."""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gnn.explain import Reason
from graph.features import feature_names
from graph.state import GraphState
from serve.settings import Settings

Decision = Literal["approve", "challenge", "review", "decline"]
BASE = -4.0  # log-odds of fraud that nothing speaks for


def decide(probability: float, settings: Settings) -> Decision:
    """The decision that the thresholds give a probability."""
    if probability >= settings.decline:
        return "decline"
    if probability >= settings.review:
        return "review"
    return "challenge" if probability >= settings.challenge else "approve"


def rules_score(state: GraphState, rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], list[list[Reason]]]:
    """A plain score without a model: a few rules that any fraud team would begin with.

    Where even the graph's features fail, the amount alone speaks.

    Args:
        state: The graph.
        rows: int64 [n].

    Returns:
        Probabilities [n], and the rules that applied to each.
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
        probabilities[b] = 1 / (1 + math.exp(-(BASE + sum(r.contribution for r in found))))
        said.append(sorted(found, key=lambda r: -r.contribution)[:5])
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
