"""Chains: payments to one counterparty that are one period apart and cost about the same, and which of them count."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import numpy as np

from serve.decide.spending.periods import EPOCH, Period, anchors, due, nearest, off

EVERYDAY: Final = frozenset(
    (
        *("5411", "5412", "5422", "5441", "5451", "5462", "5499", "5300", "5310", "5311", "5331", "5541", "5542"),
        *("5811", "5812", "5813", "5814", "5912", "5921", "5993", "5994", "6010", "6011", "4111", "4112", "4121"),
        *("4131", "7523"),
    )
)
"""Category codes of groceries, fuel, meals, transport and cash: bought as often as needed, whatever the rhythm."""
REACH: Final = 5  # days off the day due within which a payment of months may go on with a chain
CHANGE: Final = 0.01  # of an amount: less is no change of price
FALL, RISE = -0.45, 0.6  # of the log amount, from one payment of a chain to the next
VARIES: Final = 0.4  # standard deviation of the log amounts of a bill, at most
SKIPPED: Final = 2  # periods in a row that a chain may miss


@dataclass(frozen=True)
class Item:
    """A payment to a counterparty.

    Attributes:
        at: Its position in the account's past.
        day: Since 1970.
        amount: Minor units.
        category: Merchant category code, "" where unknown.
    """

    at: int
    day: int
    amount: int
    category: str = ""


@dataclass
class Chain:
    """Payments one period apart.

    Attributes:
        period: How far.
        items: The payments, oldest first.
        fixed: Whether they cost the same, but for a few changes of price.
        anchor: Day of the month, 0 for periods of days.
        spread: Days that the next one may be off, beside a weekend.
        confidence: How certain it is that this is a contract, 0 to 1.
    """

    period: Period
    items: list[Item] = field(default_factory=list)
    fixed: bool = False
    anchor: int = 0
    spread: int = 0
    confidence: float = 0.0

    def cost(self, item: Item) -> float | None:
        """How badly a payment goes on with this chain; None where it does not."""
        last = self.items[-1]
        step = float(np.log1p(item.amount) - np.log1p(last.amount))
        reach, gone = max(REACH, self.period.slack) + 3, item.day - last.day
        if not self.period.usual_days - reach <= gone <= SKIPPED * (self.period.usual_days + 1) + reach:
            return None  # far from any day due: seen at once
        if not FALL <= step <= RISE:
            return None
        best = None
        for k in range(1, SKIPPED + 1):
            if self.period.days:
                away, reach = off(item.day, last.day + k * self.period.days), self.period.slack
            else:
                days = {(EPOCH + timedelta(i.day)).day for i in self.items[-3:]}
                away = min(off(item.day, due(d, last.day, self.period, k)) for d in days)
                reach = max(REACH, self.period.slack)
            if away <= reach:
                cost = away / reach + 3 * abs(step) + (k - 1)
                best = cost if best is None else min(best, cost)
        return best

    def on_lattice(self, day: int) -> int:
        """The day on which a payment was due, where it came on a day, for periods of days."""
        phase = np.array([i.day for i in self.items[-6:]])
        beside = (phase - day + self.period.days // 2) % self.period.days - self.period.days // 2
        return day + int(np.median(beside))


def accepted(items: Sequence[Item], period: Period) -> list[Chain]:
    """The chains of a period that count.

    Args:
        items: Payments to one counterparty in one currency, oldest first, that are in no chain yet.
        period: How far apart.
    """
    if len(items) < 2:
        return []
    likely = [chain for chain in _chains(items, period) if _regular(chain, items[0])]
    inside = {item.at for chain in likely for item in chain.items}
    return [chain for chain in likely if _explains(chain, items, inside)]


def _chains(items: Sequence[Item], period: Period) -> list[Chain]:
    """Every payment in the chain that it goes on with best, or at the beginning of a new one."""
    chains: list[Chain] = []
    for item in items:
        costs = [(cost, n) for n, chain in enumerate(chains) if (cost := chain.cost(item)) is not None]
        if costs:
            chains[min(costs)[1]].items.append(item)
        else:
            chains.append(Chain(period, [item]))
    return chains


def _regular(chain: Chain, first: Item) -> bool:
    """Whether a chain keeps to dates and to a price; says so in it."""
    n, period = len(chain.items), chain.period
    trial = first.at < chain.items[0].at and first.amount <= 0.2 * chain.items[0].amount
    if n < period.least - (trial and period.least > 2):
        return False
    days = [item.day for item in chain.items]
    if period.days:
        misses = sum(off(day, chain.on_lattice(day)) > period.slack for day in days)
        away = [off(day, chain.on_lattice(day)) for day in days]
    else:
        chain.anchor, misses = anchors(days, period)
        away = [nearest(chain.anchor, day)[1] for day in days]
        if max(away) > REACH and period.name != "yearly":
            return False
    chain.spread = min(period.slack, max(away[-6:]))
    cycles = round((days[-1] - days[0]) / period.usual_days) + 1
    skipped = cycles - n
    if misses > 0.2 * n or skipped > 0.25 * cycles:
        return False
    return _priced(chain, misses, skipped)


def _priced(chain: Chain, misses: int, skipped: int) -> bool:
    """Whether a chain's amounts keep to a price, or vary as a bill does; sets its confidence."""
    amounts = np.array([item.amount for item in chain.items], float)
    n, period = len(amounts), chain.period
    changes = int((np.abs(np.diff(amounts)) > CHANGE * amounts[:-1]).sum())
    chain.fixed = changes <= (n > 2) + n // 8
    everyday = chain.items[-1].category in EVERYDAY
    if everyday and (not chain.fixed or not period.months or n <= period.least):
        return False
    if not chain.fixed:
        if not period.months or float(np.log1p(amounts).std()) > VARIES:
            return False
        if n < period.least + (period.months == 1) or (
            period.months == 12 and abs(np.log(amounts[-1] / amounts[-2])) > 0.15
        ):
            return False
    doubt = (0.2 if chain.fixed else 0.25) * 0.65 ** (n - period.least)
    chain.confidence = float(np.clip(1 - doubt - 0.04 * misses - 0.04 * skipped, 0.05, 0.99))
    return True


def _explains(chain: Chain, items: Sequence[Item], inside: set[int]) -> bool:
    """Whether a chain is what is paid there, and not picked out of many purchases."""
    first, last = chain.items[0].day, chain.items[-1].day
    own = {item.at for item in chain.items}
    # What is bought several times a week at one price falls into chains of weeks that explain each other: none counts.
    known = own if chain.period.days else inside
    others = [i for i in items if first <= i.day <= last and i.at not in known]
    n = len(chain.items)
    if not chain.fixed or chain.period.months == 12:
        return len(others) <= 0.25 * n
    price = chain.items[-1].amount
    alike = sum(abs(i.amount - price) <= CHANGE * price for i in others)
    if alike > 0.2 * n:
        return False
    # One at a fixed price among other purchases has to be seen once more.
    return len(others) <= 0.25 * n or n > chain.period.least
