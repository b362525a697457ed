"""Payments that are unusual for their account, measured against what was expected right before each."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from data.currency import format_amount
from serve.decide.spending.past import Past
from serve.decide.spending.recurring import recurring

DEVIATIONS: Final = 2.33  # above the mean log amount: 99 of 100 are below
TIMES: Final = 2.0  # that amount, from which on one is unusual
LEAST: Final = 20  # payments in its currency, bills aside, before one can be unusual
USED_TO: Final = 1.5  # times the most that was paid there before, up to which an amount is nothing new


@dataclass(frozen=True)
class Unusual:
    """A payment that its account's past did not lead one to expect.

    Attributes:
        transaction_id: Which.
        at: Its moment, us.
        role: Role of who was paid.
        name: Who was paid.
        amount: Minor units.
        currency: Of the amounts.
        expected: What 99 of 100 payments were expected to stay below, before this one.
        first: Whether the account had never paid there.
        reason: The same as a sentence.
    """

    transaction_id: str
    at: int
    role: str
    name: str
    amount: int
    currency: str
    expected: int
    first: bool
    reason: str


def unusual(past: Past, since: int) -> tuple[Unusual, ...]:
    """The unusual payments that an account made, newest first.

    Bills and other contracts that were known before a payment do not count towards what was expected of it: a rent
    would make everything look small. A payment to somebody who was paid about as much before is never unusual.

    Args:
        past: Of the account.
        since: Earlier payments are not looked at, us.
    """
    found = []
    for i in np.flatnonzero(past.paid & (past.time >= since))[::-1].tolist():
        if (one := _judged(past, i)) is not None:
            found.append(one)
    return tuple(found)


def _judged(past: Past, i: int) -> Unusual | None:
    currency, amount = past.currency[i], int(past.amount[i])
    alike = [j for j in range(i) if past.paid[j] and past.currency[j] == currency]
    there = [int(past.amount[j]) for j in alike if past.other[j] == past.other[i]]
    if len(alike) < LEAST or (there and amount <= USED_TO * max(there)):
        return None
    if amount <= TIMES * float(np.median(past.amount[alike])):  # far from it, and quick to see
        return None
    before = past.before(i)
    bills = {name for contract in recurring(before) for name in contract.transaction_ids}
    free = [j for j in alike if past.ids[j] not in bills]
    if len(free) < LEAST:
        return None
    logs = np.log1p(past.amount[free].astype(float))
    expected = round(float(np.expm1(logs.mean() + DEVIATIONS * max(float(logs.std(ddof=1)), 0.1))))
    if amount < TIMES * expected:
        return None
    role, name = past.other[i]
    shown = format_amount(amount, currency)
    where = "somebody new" if not there else "somebody paid before"
    reason = (
        f"{shown} to {where}; before it, 99 of 100 payments were expected below {format_amount(expected, currency)}."
    )
    return Unusual(past.ids[i], int(past.time[i]), role, name, amount, currency, expected, not there, reason)
