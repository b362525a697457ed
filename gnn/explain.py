"""Reasons for a score: what each part of the evidence adds to the log-odds, in an investigator's words.

A contribution is the score's log-odds less the log-odds of the same payment with that part left out (occlusion, Zeiler
and Fergus 2014), so reasons come from the score itself and not from a story beside it.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

import numpy as np
from numpy.typing import NDArray

from gnn.groups import OWN_GROUPS, group_names
from graph.features import NEVER_S, feature_names
from graph.state import GraphState

MOST = 5  # reasons for one score
NEGLIGIBLE = 0.01  # log-odds
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True)
class Reason:
    """One reason.

    Attributes:
        code: Stable, for machines: `AMOUNT`, `TIME`, `CONTEXT`, `LABELS`, `RING`, `HISTORY_<ROLE>`.
        message: For people.
        contribution: Log-odds that this evidence adds (positive: towards fraud).
    """

    code: str
    message: str
    contribution: float


def reasons(
    state: GraphState, rows: NDArray[np.int64], x: NDArray[np.float32], contribution: NDArray[np.float64]
) -> list[list[Reason]]:
    """Put contributions into words.

    Args:
        state: The graph.
        rows: int64 [B].
        x: Their features, float32 [B, F].
        contribution: Log-odds of each group of `gnn.groups`, [B, G].

    Returns:
        For each row its weightiest reasons, at most five, the weightiest first.
    """
    store = state.store
    names, codes = _vocabulary(store.roles)
    times, amounts, rings = store.raw_time(rows), store.column("amount", rows), store.column("ring", rows)
    found = []
    for b in range(len(rows)):
        words = _Words(store.roles, int(times[b]), int(amounts[b]), rings[b, :3].tolist(), x[b], names)
        order = sorted(range(len(codes)), key=lambda g: (-abs(contribution[b, g]), g))[:MOST]
        found.append(
            [
                Reason(codes[g], words.say(g), round(float(contribution[b, g]), 4))
                for g in order
                if abs(contribution[b, g]) >= NEGLIGIBLE
            ]
        )
    return found


@cache
def _vocabulary(roles: tuple[str, ...]) -> tuple[dict[str, int], list[str]]:
    """Where each feature is, and the codes of the groups: the same for every payment, and dear to make."""
    return {name: i for i, name in enumerate(feature_names(roles))}, [code.upper() for code in group_names(roles)]


class _Words:
    """Speaks about one payment."""

    def __init__(
        self,
        roles: tuple[str, ...],
        raw_time: int,
        amount: int,
        ring: list[int],
        x: NDArray[np.float32],
        names: dict[str, int],
    ) -> None:
        self._roles, self._raw_time, self._paid, self._size = roles, raw_time, amount, ring
        self._x, self._names = x, names

    def say(self, group: int) -> str:
        if group < len(OWN_GROUPS):
            return str(getattr(self, f"_{OWN_GROUPS[group]}")())
        return self._history(self._roles[group - len(OWN_GROUPS)])

    def _value(self, name: str) -> float:
        """The feature as it was before its logarithm."""
        at = self._names.get(name)
        return 0.0 if at is None else math.expm1(float(self._x[at]))

    def _amount(self) -> str:
        amount = f"amount {self._paid / 100:,.2f}"
        if self._value("account.count.30d") < 0.5:
            return f"{amount}, the account's first payment in 30 days"
        ratio = math.exp(float(self._x[self._names["account.amount_ratio"]]))
        return f"{amount}, {ratio:,.1f} times the account's mean of 30 days"

    def _time(self) -> str:
        at = datetime.fromtimestamp(self._raw_time / 1e6, UTC)
        return f"made at {at:%H:%M} UTC on a {DAYS[at.weekday()]}"

    def _context(self) -> str:
        return "its currency, channel, merchant category and country"

    def _labels(self) -> str:
        said = []
        for name in self._roles:
            frauds, labelled = self._value(f"{name}.fraud.30d"), self._value(f"{name}.labelled.30d")
            if frauds >= 0.5:
                known = f"{_count(frauds, 'payment')} of this {name} confirmed fraud in 30 days"
                said.append(f"{known}, the newest made {_span(self._value(f'{name}.fraud_newest'))} ago")
            elif labelled >= 0.5:
                said.append(f"none of {_count(labelled, 'reported payment')} of this {name} was fraud in 30 days")
        return "; ".join(said) or "no earlier payment of its account, merchant or other entities is known as fraud"

    def _ring(self) -> str:
        accounts, shared, frauds = self._size
        if accounts < 2:
            return "the account is tied to no other through a rare shared entity"
        known = f", {_count(frauds, 'known fraud')} among them" if frauds >= 0.5 else ""
        return f"{_count(accounts, 'account')} tied through {_count(shared, 'shared entity', 'shared entities')}{known}"

    def _history(self, name: str) -> str:
        if self._value(f"{name}.present") < 0.5:
            return f"no {name} given"
        gap = self._value(f"{name}.gap")
        if gap > NEVER_S / 2:
            return f"{name} never seen before"
        count = self._value(f"{name}.count.24h")
        said = f"{name} first seen {_span(self._value(f'{name}.age'))} ago, {_count(count, 'payment')} in 24 hours"
        other = "account" if name != "account" else ("device" if "device" in self._roles else "merchant")
        distinct = self._value(f"{name}.distinct_{other}.30d")
        if distinct >= 0.5:
            said += f", {_count(distinct, other)} in 30 days"
        if name != "account" and self._value(f"account.met_{name}") < 0.5:
            said += ", new to this account"
        return said


def _count(number: float, noun: str, plural: str | None = None) -> str:
    n = round(number)
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def _span(seconds: float) -> str:
    for size, noun in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            return _count(seconds // size, noun)
    return _count(seconds, "second")
