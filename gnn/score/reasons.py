"""Reasons for a score: what each part of the evidence adds to the log-odds, in an investigator's words.

Contributions are Shapley values over the groups of `gnn.model.groups` (see `gnn.score.shapley`): they are computed from
the score itself, and the baseline and all contributions together are the score's log-odds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

import numpy as np
from numpy.typing import NDArray

from data.currency import format_amount
from gnn.model.groups import OWN_GROUPS, group_names
from graph.dag.features import NEVER_S, feature_names
from graph.state import GraphState

MAX_REASONS = 5  # for one score
MIN_CONTRIBUTION = 0.01  # log-odds: evidence that moves a score by less is no reason of its own
DECIMALS = 4  # to which log-odds are rounded
MONTH_S = 30 * 86_400
OTHER = "OTHER"
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
GROUP_PHRASES = ("amount", "time", "currency, channel and country", "known labels", "ring")  # of OWN_GROUPS
# What a role has to do with accounts; any other role is "used by" them.
COUNTERPART_PHRASES = {"merchant": "paid by", "payee": "exchanging money with", "location": "seen with"}


@dataclass(frozen=True)
class Reason:
    """One reason.

    Attributes:
        code: Stable, for machines: `AMOUNT`, `TIME`, `CONTEXT`, `LABELS`, `RING`, `HISTORY_<ROLE>`, or `OTHER` for the
            sum of all that has no reason of its own.
        message: For people.
        contribution: Log-odds that this evidence adds (positive: towards fraud).
    """

    code: str
    message: str
    contribution: float


@dataclass(frozen=True)
class Explanation:
    """Why a payment got its score.

    Attributes:
        baseline: Log-odds of a payment of which nothing is known.
        reasons: At most five, the weightiest first, `OTHER` last. Their contributions and the baseline add up to the
            log-odds of the score, to half a unit of the fourth decimal.
    """

    baseline: float
    reasons: list[Reason]


def build_explanation(baseline: float, named: Sequence[Reason], log_odds: float, rest: str) -> Explanation:
    """Round reasons, and add one for all evidence that has no reason of its own, so that they add up exactly.

    Args:
        baseline: Log-odds without any evidence.
        named: The weightiest reasons, the weightiest first.
        log_odds: Of the score: the baseline and all evidence.
        rest: The message of the reason for all other evidence, where that adds anything.
    """
    baseline = round(baseline, DECIMALS)
    shown = [Reason(r.code, r.message, round(r.contribution, DECIMALS)) for r in named]
    left = round(log_odds - baseline - sum(r.contribution for r in shown), DECIMALS)
    return Explanation(baseline, [*shown, Reason(OTHER, rest, left)] if left else shown)


def explain_contributions(
    state: GraphState,
    rows: NDArray[np.int64],
    x: NDArray[np.float32],
    baseline: NDArray[np.float64],
    contribution: NDArray[np.float64],
) -> list[Explanation]:
    """Put contributions into words: the four weightiest, and all others as one.

    Args:
        state: The graph.
        rows: int64 [B].
        x: Their features, float32 [B, F].
        baseline: Log-odds without any evidence, float64 [B].
        contribution: Log-odds that each group of `gnn.model.groups` adds to it, float64 [B, G].
    """
    store = state.store
    names, codes, briefly = _vocabulary(store.roles)
    times, amounts, rings = store.raw_time(rows), store.column("amount", rows), store.column("ring", rows)
    money = [format_amount(*paid) for paid in zip(amounts.tolist(), state.currencies_of(rows), strict=True)]
    found = []
    for b in range(len(rows)):
        words = _PaymentWords(store.roles, int(times[b]), money[b], rings[b, :3].tolist(), x[b], names)
        parts: list[float] = contribution[b].tolist()
        by_weight = sorted(range(len(codes)), key=lambda g: (-abs(parts[g]), g))
        order = [g for g in by_weight if abs(parts[g]) >= MIN_CONTRIBUTION]
        named = [Reason(codes[g], words.say(g), parts[g]) for g in order[: MAX_REASONS - 1]]
        others = ", ".join(briefly[g] for g in order[MAX_REASONS - 1 :])
        rest = f"all other evidence together: {others or 'next to nothing'}"
        found.append(build_explanation(float(baseline[b]), named, float(baseline[b]) + math.fsum(parts), rest))
    return found


@cache
def _vocabulary(roles: tuple[str, ...]) -> tuple[dict[str, int], list[str], list[str]]:
    """The place of each feature, and the codes of the groups and their names for people.

    They are the same for every payment and expensive to make, so they are made once.
    """
    codes = [code.upper() for code in group_names(roles)]
    return {name: i for i, name in enumerate(feature_names(roles))}, codes, [*GROUP_PHRASES, *roles]


class _PaymentWords:
    """The wording of each reason for one payment.

    Args:
        roles: The store's roles.
        raw_time: Timestamp as sent, us.
        amount: As people write it.
        ring: Accounts, tying entities and known frauds of its ring.
        x: Its features, float32 [F].
        names: Place of each feature in `x`.
    """

    def __init__(
        self,
        roles: tuple[str, ...],
        raw_time: int,
        amount: str,
        ring: list[int],
        x: NDArray[np.float32],
        names: dict[str, int],
    ) -> None:
        self._roles, self._raw_time, self._paid, self._size = roles, raw_time, amount, ring
        self._x, self._names = x, names

    def say(self, group: int) -> str:
        """The message for a group of `gnn.model.groups`."""
        if group < len(OWN_GROUPS):
            return str(getattr(self, f"_{OWN_GROUPS[group]}")())
        return self._history(self._roles[group - len(OWN_GROUPS)])

    def _value(self, name: str) -> float:
        """The feature as it was before its logarithm."""
        at = self._names.get(name)
        return 0.0 if at is None else math.expm1(float(self._x[at]))

    def _amount(self) -> str:
        amount = f"amount {self._paid}"
        if self._value("account.count.30d") < 0.5:
            return f"{amount}, the account's first payment in 30 days"
        ratio = math.exp(float(self._x[self._names["account.amount_ratio"]]))
        return f"{amount}, {ratio:,.1f} times the account's mean of 30 days"

    def _time(self) -> str:
        at = datetime.fromtimestamp(self._raw_time / 1e6, UTC)
        late = self._value("payment.lateness")
        told = f", received {_span(late)} late" if late >= 60 else ""
        return f"made at {at:%H:%M} UTC on a {WEEKDAYS[at.weekday()]}{told}"

    def _context(self) -> str:
        return "its currency, channel, merchant category and country"

    def _labels(self) -> str:
        frauds = {name: self._value(f"{name}.fraud.30d") for name in self._roles}
        newest = min(self._value(f"{name}.fraud_newest") for name in self._roles if self._present(name))
        made = f"the newest made {_span(newest)} ago"
        if any(n >= 0.5 for n in frauds.values()):
            return f"confirmed fraud in 30 days: {self._listed(frauds)}; {made}"
        if newest < NEVER_S / 2:
            return f"earlier payments of its entities were confirmed fraud, {made}"
        labelled = {name: self._value(f"{name}.labelled.30d") for name in self._roles}
        if any(n >= 0.5 for n in labelled.values()):
            return f"reported in 30 days and none of them fraud: {self._listed(labelled)}"
        return "no earlier payment of its account, merchant or other entities is known as fraud"

    def _listed(self, payments: dict[str, float]) -> str:
        some = [(n, name) for name, n in payments.items() if n >= 0.5]
        said = [f"{_count(n, 'payment') if i == 0 else round(n)} of this {name}" for i, (n, name) in enumerate(some)]
        return ", ".join(said)

    def _present(self, name: str) -> bool:
        return self._value(f"{name}.present") >= 0.5

    def _ring(self) -> str:
        accounts, shared, frauds = self._size
        if accounts < 2:
            return "the account is tied to no other through a rare shared entity"
        known = f", {_count(frauds, 'known fraud')} among them" if frauds >= 0.5 else ""
        return f"{_count(accounts, 'account')} tied through {_count(shared, 'shared entity', 'shared entities')}{known}"

    def _history(self, name: str) -> str:
        if not self._present(name):
            return f"no {name} given"
        gap = self._value(f"{name}.gap")
        if gap > NEVER_S / 2:
            return f"{name} never seen before"
        age, month = self._value(f"{name}.age"), []
        if name == "account":
            other = "device" if "device" in self._roles else "merchant"
            distinct = self._value(f"account.distinct_{other}.30d")
            if distinct >= 0.5:
                month.append(f"{'using' if other == 'device' else 'paying'} {_count(distinct, other)}")
        else:
            mine = self._value(f"{name}.met_account") >= 0.5
            others = self._value(f"{name}.distinct_account.30d") - mine
            if others >= 0.5:
                month.append(f"{COUNTERPART_PHRASES.get(name, 'used by')} {_count(others, 'other account')}")
            if not mine:
                month.append("new to this account" if age < MONTH_S else "never with this account")
            elif others < 0.5:
                month.append("with this account only")
        frauds = self._value(f"{name}.fraud.30d")
        if frauds >= 0.5:
            month.append(f"{_count(frauds, 'payment')} confirmed fraud")
        count = self._value(f"{name}.count.24h")
        lately = f"{_count(count, 'payment')} in 24 hours" if count >= 0.5 else f"last seen {_span(gap)} ago"
        # Counts are of the last month. Of an older entity the window may hide when it was really first seen.
        if age < MONTH_S:
            return ", ".join([f"{name} first seen {_span(age)} ago", *month, lately])
        within = [f"in 30 days {', '.join(month)}"] if month else []
        return "; ".join([f"{name} known for {_span(age)}", *within, lately])


def _count(number: float, noun: str, plural: str | None = None) -> str:
    n = round(number)
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def _span(seconds: float) -> str:
    seconds = round(seconds * (1 + 4e-6))  # the float32 logarithm lost some: without this, 3 minutes read as 2
    for size, noun in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            return _count(seconds // size, noun)
    return _count(seconds, "second")
