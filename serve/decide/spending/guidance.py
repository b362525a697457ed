"""What an account's owner should be told, each with its evidence, and only where it is certain enough.

Saying nothing is better than saying something wrong: an item below `CERTAIN` is not given.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from data.currency import format_amount
from serve.decide.spending.past import DAY_US, Past
from serve.decide.spending.profile import Profile
from serve.decide.spending.recurring import Recurring

Kind = Literal[
    "upcoming_bills", "shortfall", "unusual_charge", "duplicate_charge", "price_rise", "trial_became_fee", "ring"
]
CERTAIN: Final = 0.8
AHEAD_DAYS: Final = 30  # bills that are told of
NEWS_DAYS: Final = 45  # what is older is no news
RING_DAYS: Final = 90  # of payments to somebody who is now tied to a ring
TWICE_US: Final = 6 * 3_600_000_000  # between a charge and its duplicate, at most
COMMON: Final = 0.2  # share of a merchant's payments at one price from which that price is on its list
SEEN: Final = 5  # payments of a merchant from which its prices are known
UNUSUAL: Final = 3.0  # times what was expected, from which an owner is told


@dataclass(frozen=True)
class Around:
    """What is known beside an account's own payments.

    Attributes:
        prices: Amounts that others paid to somebody of late, by role, name and currency: minor units, int64 [n].
        rings: Rings that somebody belongs to now, by role and name: their ids and confidences.
        balance: What the account holds, by currency, minor units.
    """

    prices: Callable[[str, str, str], NDArray[np.int64]] = lambda role, name, currency: np.empty(0, np.int64)
    rings: Callable[[str, str], Sequence[tuple[str, float]]] = lambda role, name: ()
    balance: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Advice:
    """Something to tell an account's owner.

    Attributes:
        kind: What about.
        text: A sentence or two.
        confidence: That it is so, 0 to 1.
        transaction_ids: The payments that say so.
        role: Role of whom it is about; None where it is about several.
        name: Their identifier.
        amount: Minor units that it is about.
        currency: Of the amount.
        at: Moment that it is about, us.
        ring_id: The ring, where it is about one.
    """

    kind: Kind
    text: str
    confidence: float
    transaction_ids: tuple[str, ...]
    role: str | None
    name: str | None
    amount: int
    currency: str
    at: int
    ring_id: str | None = None


def guidance(past: Past, known: Profile, around: Around | None = None) -> tuple[Advice, ...]:
    """What to tell an account's owner, the most certain first.

    Args:
        past: Of the account.
        known: Its profile, as of the same moment.
        around: What is known beside it; without it, nothing is said of rings and balances, and less is certain.
    """
    around = around or Around()
    found = [
        *_bills(known, around),
        *_unusual(known),
        *_duplicates(past, known, around),
        *_rises(known),
        *_trials(past, known),
        *_rings(past, around),
    ]
    certain = [one for one in found if one.confidence >= CERTAIN]
    return tuple(sorted(certain, key=lambda a: (-a.confidence, -a.at, a.kind, a.transaction_ids)))


def upcoming(contracts: Sequence[Recurring], as_of: int, days: int = AHEAD_DAYS) -> list[tuple[Recurring, int]]:
    """Contracts that are due in the days ahead, and the days on which they are (us), the next one first."""
    end, found = as_of + days * DAY_US, []
    for one in contracts:
        if one.next_due is not None and one.confidence >= CERTAIN and one.next_due <= end:
            step = {"weekly": 7, "biweekly": 14}.get(one.period, days + 1) * DAY_US
            found += [(one, at) for at in range(one.next_due, end + 1, step)]
    return sorted(found, key=lambda pair: (pair[1], pair[0].name))


def _bills(known: Profile, around: Around) -> list[Advice]:
    found = []
    for flow in known.flows:
        code = flow.currency
        bills = [(one, at) for one, at in upcoming(known.recurring, known.as_of) if one.currency == code]
        if not bills:
            continue
        pay = [(one, at) for one, at in upcoming(known.income, known.as_of) if one.currency == code]
        due, earned = sum(one.amount for one, _ in bills), sum(one.amount for one, _ in pay)
        confidence = float(np.mean([one.confidence for one, _ in bills]))
        ids = tuple(dict.fromkeys(one.transaction_ids[-1] for one, _ in [*bills, *pay]))
        income = (
            f"income due in that time is {format_amount(earned, code)}"
            if pay
            else f"what came in of late is {format_amount(flow.income + flow.other_inflow, code)} a month"
        )
        text = (
            f"{len(bills)} bill{'s' * (len(bills) > 1)} of {format_amount(due, code)} in all fall due within "
            f"{AHEAD_DAYS} days; {income}, and other spending is {format_amount(flow.other_outflow, code)} a month."
        )
        first = bills[0][1]
        found.append(Advice("upcoming_bills", text, confidence, ids, None, None, due, code, first))
        if code in around.balance:
            found += _shortfall(known, bills, pay, flow.other_outflow, code, around.balance[code], ids)
    return found


def _shortfall(
    known: Profile,
    bills: Sequence[tuple[Recurring, int]],
    pay: Sequence[tuple[Recurring, int]],
    spending: int,
    code: str,
    balance: int,
    ids: tuple[str, ...],
) -> list[Advice]:
    """The first day on which bills, and half of the usual spending, take more than there is and comes in."""
    events = sorted([(at, -one.low) for one, at in bills] + [(at, one.high) for one, at in pay])
    left = balance
    for at, change in events:
        left += change
        spent = round(spending / 2 * max(0, at - known.as_of) / (30.44 * DAY_US))
        if left - spent < 0:
            short = spent - left
            text = (
                f"With {format_amount(balance, code)} now, bills that fall due until then and half of the usual "
                f"spending leave it {format_amount(short, code)} short, income counted in."
            )
            return [Advice("shortfall", text, 0.85, ids, None, None, short, code, at)]
    return []


def _unusual(known: Profile) -> list[Advice]:
    found = []
    contracts = {name for one in known.recurring for name in one.transaction_ids}
    for one in known.unusual:
        old = known.as_of - one.at > NEWS_DAYS * DAY_US
        if old or one.role != "merchant" or not one.first or one.transaction_id in contracts:
            continue
        times = one.amount / max(one.expected, 1)
        if times >= UNUSUAL:
            confidence = min(0.99, 0.85 + 0.02 * (times - UNUSUAL))
            ids = (one.transaction_id,)
            found.append(
                Advice(
                    "unusual_charge", one.reason, confidence, ids, one.role, one.name, one.amount, one.currency, one.at
                )
            )
    return found


def _duplicates(past: Past, known: Profile, around: Around) -> list[Advice]:
    contracts = {name: n for n, one in enumerate(known.recurring) for name in one.transaction_ids}
    by_charge: dict[tuple[tuple[str, str], str, int], list[int]] = {}
    for i in np.flatnonzero(past.paid).tolist():
        by_charge.setdefault((past.other[i], past.currency[i], int(past.amount[i])), []).append(i)
    found = []
    for (other, code, amount), rows in by_charge.items():
        pairs = [(a, b) for a, b in pairwise(rows) if past.time[b] - past.time[a] <= TWICE_US]
        # Somebody who pays the same there again and again, or at once, does so on purpose.
        if len(pairs) != 1 or past.as_of - int(past.time[pairs[0][1]]) > NEWS_DAYS * DAY_US or not amount:
            continue
        first, again = pairs[0]
        two = contracts.get(past.ids[first]), contracts.get(past.ids[again])
        if None not in two and two[0] != two[1]:  # two contracts that cost the same
            continue
        others = [i for i in rows if i not in pairs[0] and past.ids[i] not in contracts]
        listed = around.prices(*other, code)
        common = len(listed) >= SEEN and float((np.abs(listed - amount) <= 0).mean()) >= COMMON
        if others or (common and two == (None, None)):
            continue
        confidence = 0.9 if len(listed) >= SEEN or two != (None, None) else 0.7
        minutes = round((int(past.time[again]) - int(past.time[first])) / 60e6)
        text = (
            f"{format_amount(amount, code)} was charged twice within {minutes} minutes; no contract and no price that "
            "others pay there explains it."
        )
        ids = (past.ids[first], past.ids[again])
        found.append(Advice("duplicate_charge", text, confidence, ids, *other, amount, code, int(past.time[again])))
    return found


def _rises(known: Profile) -> list[Advice]:
    found = []
    for one in known.recurring:
        if not one.fixed or not one.rises or one.ended:
            continue
        rise = one.rises[-1]
        if rise.after <= rise.before or rise.paid_before < 2 or known.as_of - rise.at > NEWS_DAYS * DAY_US:
            continue
        sure = min(0.98, one.confidence + 0.03 * (rise.paid_before - 2))
        text = (
            f"The {one.period} price rose from {format_amount(rise.before, one.currency)}, paid {rise.paid_before} "
            f"times, to {format_amount(rise.after, one.currency)}."
        )
        found.append(
            Advice("price_rise", text, sure, one.transaction_ids, one.role, one.name, rise.after, one.currency, rise.at)
        )
    return found


def _trials(past: Past, known: Profile) -> list[Advice]:
    found = []
    when = dict(zip(past.ids, past.time.tolist(), strict=True))
    for one in known.recurring:
        if one.trial is None or one.ended or known.as_of - one.last_seen > NEWS_DAYS * DAY_US:
            continue
        if known.as_of - one.first_seen > 2 * NEWS_DAYS * DAY_US:  # its owner knows by now
            continue
        ids = (one.trial, *one.transaction_ids)
        days = round((one.first_seen - when[one.trial]) / DAY_US)
        text = (
            f"What began {days} days before for next to nothing now costs "
            f"{format_amount(one.amount, one.currency)}, {one.period}."
        )
        sure = max(one.confidence, 0.85)
        found.append(
            Advice("trial_became_fee", text, sure, ids, one.role, one.name, one.amount, one.currency, one.first_seen)
        )
    return found


def _rings(past: Past, around: Around) -> list[Advice]:
    found = []
    paid: dict[tuple[str, str], list[int]] = {}
    for i in np.flatnonzero(past.paid & (past.time >= past.as_of - RING_DAYS * DAY_US)).tolist():
        paid.setdefault(past.other[i], []).append(i)
    for (role, name), rows in paid.items():
        rings = around.rings(role, name)
        if rings:
            ring_id, confidence = max(rings, key=lambda ring: (ring[1], ring[0]))
            last, often = rows[-1], f"{len(rows)} time{'s' * (len(rows) > 1)}"
            newest = format_amount(int(past.amount[last]), past.currency[last])
            text = (
                f"This {role} is now tied to ring {ring_id}; the account paid it {often} in {RING_DAYS} days, "
                f"last {newest}."
            )
            ids = tuple(past.ids[i] for i in rows)
            found.append(
                Advice(
                    "ring",
                    text,
                    confidence,
                    ids,
                    role,
                    name,
                    int(past.amount[last]),
                    past.currency[last],
                    int(past.time[last]),
                    ring_id,
                )
            )
    return found
