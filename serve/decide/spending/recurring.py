"""Recurring payments and income of an account: contracts told apart by what they cost and when they fall due.

A counterparty is no contract: one insurer may be paid for two, and a shop for a subscription and for groceries. So the
payments to each counterparty are laid out as *chains*: payments one period apart, of about the same amount. A chain
counts where its dates keep to the calendar, its amounts to a price, and where it explains what is paid there.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from serve.decide.spending.chains import Chain, Item, accepted
from serve.decide.spending.past import DAY_US, Past
from serve.decide.spending.periods import PERIODS, PeriodName, day_of, due, nearest, window

TRIAL: Final = 0.2  # of the fee that a trial costs, at most
TRIAL_DAYS: Final = (3, 100)  # from a trial to the first fee
STEM: Final = 4  # letters in a row of which a description must have some, to be known without its references
STEM_SHARE: Final = 0.3  # of the account's merchants that may share a description; more is how ids are written


@dataclass(frozen=True)
class Rise:
    """A change of price.

    Attributes:
        before: What was paid until then, minor units.
        after: What has been paid since.
        paid_before: How often the price before was paid.
        transaction_id: Of the first payment of the new price.
        at: Its moment, us.
    """

    before: int
    after: int
    paid_before: int
    transaction_id: str
    at: int


@dataclass(frozen=True)
class Recurring:
    """A contract, or an income: something that is paid again and again.

    Attributes:
        paid: Whether the account pays it (False: it is paid).
        role: Role of the other end: payee or merchant where the account pays, account where it is paid.
        name: Its identifier; the newest one where each payment has a description of its own.
        currency: Of the amounts.
        period: How often.
        fixed: Whether it costs the same each time, but for changes of price.
        amount: What it costs now, minor units: the newest price, or the median of the newest six.
        low: The least that the next one is likely to be.
        high: The most.
        first_seen: Moment of the first payment, us.
        last_seen: Of the newest.
        next_due: Day on which the next is due, us (midnight, UTC); None where it has ended.
        earliest: First day on which it is likely to come, as `next_due`.
        latest: Last day on which it is.
        missed: Days on which one was due and none came, us.
        ended: Whether so many are missing that there will be no more.
        rises: Changes of price, oldest first; falls, too.
        trial: Transaction id of the trial that it began with, None without one.
        confidence: How certain it is that this is a contract, 0 to 1.
        transaction_ids: The payments, oldest first, without the trial.
    """

    paid: bool
    role: str
    name: str
    currency: str
    period: PeriodName
    fixed: bool
    amount: int
    low: int
    high: int
    first_seen: int
    last_seen: int
    next_due: int | None
    earliest: int | None
    latest: int | None
    missed: tuple[int, ...]
    ended: bool
    rises: tuple[Rise, ...]
    trial: str | None
    confidence: float
    transaction_ids: tuple[str, ...]


def recurring(past: Past) -> tuple[Recurring, ...]:
    """The contracts and incomes in an account's past, those that are due next first, ended ones last.

    Args:
        past: Of the account.

    Example:
        >>> from graph.rings.records import RING_PAYMENTS
        >>> recurring(Past.of("anna", RING_PAYMENTS.empty_table(), as_of=0))
        ()
    """
    groups: dict[tuple[bool, tuple[str, str], str], list[Item]] = defaultdict(list)
    for i, day in enumerate(day_of(t) for t in past.time.tolist()):
        item = Item(i, day, int(past.amount[i]), past.category[i])
        groups[bool(past.paid[i]), past.other[i], past.currency[i]].append(item)
    found, left = [], []
    for (paid, other, currency), items in groups.items():
        chains = _contracts(items)
        found += [_told(past, paid, other, currency, chain, items) for chain in chains]
        if paid and other[0] == "merchant" and not chains and len(items) <= 2:
            left += [(other[1], currency, item) for item in items]
    for items in _by_description(past, left):
        newest = items[-1].at
        other, currency = past.other[newest], past.currency[newest]
        found += [
            _told(past, True, other, currency, chain, items)
            for chain in _contracts(items)
            if chain.fixed and len(chain.items) > chain.period.least
        ]
    return tuple(sorted(found, key=lambda r: (r.ended, r.next_due or 0, r.role, r.name, r.amount)))


def _contracts(items: list[Item]) -> list[Chain]:
    """The chains of one counterparty that count; a payment is in one of them at most."""
    found: list[Chain] = []
    taken: set[int] = set()
    for period in PERIODS:
        free = [item for item in items if item.at not in taken]
        for chain in accepted(free, period):
            found.append(chain)
            taken.update(item.at for item in chain.items)
    return found


def _by_description(past: Past, left: Iterable[tuple[str, str, Item]]) -> list[list[Item]]:
    """Payments whose merchant is a description with a reference, such as `SPOTIFY P1A2B3`, by what is left of it.

    Only merchants that were paid once or twice come here: one that is paid often under one name needs no help.
    """
    groups: dict[tuple[str, str], list[Item]] = defaultdict(list)
    names: dict[tuple[str, str], set[str]] = defaultdict(set)
    for name, currency, item in left:
        if stem := stem_of(name):
            groups[stem, currency].append(item)
            names[stem, currency].add(name)
    every = len({m for m, o in zip(past.merchant, past.other, strict=True) if o[0] == "merchant"})
    return [
        sorted(items, key=lambda item: item.at)
        for key, items in groups.items()
        if len(names[key]) > 1 and (len(names[key]) <= STEM_SHARE * every or all(" " in name for name in names[key]))
    ]


def stem_of(description: str) -> str:
    """A description without its references: words that have letters only.

    Example:
        >>> stem_of("SPOTIFY P1A2B3 Stockholm"), stem_of("merchant-77"), stem_of("4711")
        ('spotify stockholm', 'merchant', '')
    """
    words = [word for word in re.split(r"[^\w]+|_", description.casefold()) if word.isalpha()]
    return " ".join(words) if any(len(word) >= STEM for word in words) else ""


def _told(past: Past, paid: bool, other: tuple[str, str], currency: str, chain: Chain, items: list[Item]) -> Recurring:
    amounts = [item.amount for item in chain.items]
    newest = amounts[-6:]
    low, high = _range(chain.fixed, newest)
    following, missed, ended = _next(chain, day_of(past.as_of))
    early, late = window(following)
    times = past.time[[item.at for item in chain.items]]
    return Recurring(
        paid=paid,
        role=other[0],
        name=other[1],
        currency=currency,
        period=chain.period.name,
        fixed=chain.fixed,
        amount=newest[-1] if chain.fixed else int(np.median(newest)),
        low=low,
        high=high,
        first_seen=int(times[0]),
        last_seen=int(times[-1]),
        next_due=None if ended else following * DAY_US,
        earliest=None if ended else (early - chain.spread) * DAY_US,
        latest=None if ended else (late + chain.spread) * DAY_US,
        missed=tuple(day * DAY_US for day in missed),
        ended=ended,
        rises=_rises(past, chain) if chain.fixed else (),
        trial=_trial(past, chain, items),
        confidence=chain.confidence,
        transaction_ids=tuple(past.ids[item.at] for item in chain.items),
    )


def _range(fixed: bool, newest: Sequence[int]) -> tuple[int, int]:
    if fixed:
        return newest[-1], newest[-1]
    log = np.log1p(np.array(newest, float))
    wide = 1.5 * max(float(log.std()), 0.02)
    middle = float(np.median(log))
    return int(np.expm1(middle - wide)), int(np.expm1(middle + wide)) + 1


def _next(chain: Chain, today: int) -> tuple[int, list[int], bool]:
    """The day that the next payment is due, the days on which one was missed, and whether it has ended."""
    period, days = chain.period, [item.day for item in chain.items]
    missed = []
    for day, later in pairwise(days):
        expected = _after(chain, day)
        while expected + period.usual_days / 2 < later:
            missed.append(expected)
            expected = _after(chain, expected)
    expected, silent = _after(chain, days[-1]), 0
    while window(expected)[1] + period.slack + 1 < today:
        silent += 1
        if silent >= period.missed:
            return expected, [*missed, expected], True
        missed.append(expected)
        expected = _after(chain, expected)
    return expected, missed, False


def _after(chain: Chain, day: int) -> int:
    """The next day that a payment is due, after one on a day."""
    if chain.period.days:
        return chain.on_lattice(day) + chain.period.days
    return due(chain.anchor, nearest(chain.anchor, day)[0], chain.period, 1)


def _rises(past: Past, chain: Chain) -> tuple[Rise, ...]:
    found, since = [], 0
    for i in range(1, len(chain.items)):
        before, after = chain.items[i - 1], chain.items[i]
        if abs(after.amount - before.amount) > 0.01 * before.amount:
            found.append(Rise(before.amount, after.amount, i - since, past.ids[after.at], int(past.time[after.at])))
            since = i
    return tuple(found)


def _trial(past: Past, chain: Chain, items: list[Item]) -> str | None:
    """The first payment of all to a counterparty, where it cost next to nothing and came shortly before the fee."""
    first, fee = items[0], chain.items[0]
    if first.at >= fee.at or not chain.fixed or first.amount > TRIAL * fee.amount:
        return None
    between = [item for item in items if first.at < item.at < fee.at]
    return past.ids[first.at] if not between and TRIAL_DAYS[0] <= fee.day - first.day <= TRIAL_DAYS[1] else None
