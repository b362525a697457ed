"""Seeded households with planted things to be told, and traps: what guidance is measured on.

A household has a salary, a rent, bills that vary, subscriptions, two contracts with one insurer, a yearly bill,
groceries every Saturday, tickets, and daily purchases. Planted in its last weeks, each with probability `PLANTED`: a
charge made twice, a charge out of all proportion, a dearer subscription, a trial that became a fee, a shop that
joined a ring.

Traps, which must not be told of: two tickets at one price within minutes, two insurance contracts at one price on one
day, a discount of one month, a dearer power bill, a yearly bill, a large transfer to savings, a small purchase before
larger ones at one shop, a subscription without a trial, and rings at shops where the household never paid.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serve.decide.spending.guidance import Around
from serve.decide.spending.past import Past

START: Final = date(2025, 1, 1)
NOW: Final = date(2026, 3, 20)
AFTER: Final = 30  # days of what comes next
PLANTED: Final = 0.3
SHOPS: Final = 60
TICKET: Final = 290  # a price on a list

Plan = Callable[["House", np.random.Generator], None]


@dataclass
class House:
    """A household while it is made.

    Attributes:
        name: Of its account.
        rows: Moment (us), whether it pays, the other end, minor units, category.
        planted: What must be told: kind and moment of the payment that says so.
        due: Bills and pay: other end, day.
    """

    name: str
    rows: list[tuple[int, bool, tuple[str, str], int, str]] = field(default_factory=list)
    planted: list[tuple[str, int]] = field(default_factory=list)
    due: list[tuple[str, date]] = field(default_factory=list)

    def pay(self, day: date, to: str, amount: int, hour: float, category: str = "", role: str = "merchant") -> int:
        at = moment(day, hour)
        self.rows.append((at, True, (role, to), amount, category))
        return at

    def bill(self, day: date, to: str, amount: int, rng: np.random.Generator, **given: str) -> int:
        moved = business(day, back=False)
        self.due.append((to, moved))
        return self.pay(moved, to, amount, 3 + 4 * rng.random(), **given)


def moment(day: date, hour: float) -> int:
    return int((datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(hours=hour)).timestamp() * 1e6)


def business(day: date, back: bool) -> date:
    while day.weekday() > 4:
        day += timedelta(-1 if back else 1)
    return day


def months(day: int) -> list[date]:
    """A day of every month, the last one where the month is shorter."""
    found, at = [], START.replace(day=1)
    while at <= NOW + timedelta(AFTER + 7):
        after = (at + timedelta(32)).replace(day=1)
        found.append(min(at + timedelta(day - 1), after - timedelta(1)))
        at = after
    return found


def salary(house: House, rng: np.random.Generator) -> None:
    amount, day = int(rng.integers(1_800, 4_200)) * 100, int(rng.choice([15, 25, 31]))
    for due in months(day):
        paid = business(due, back=True)
        house.due.append((f"works of {house.name}", paid))
        bonus = 1.5 if due.month == 12 and rng.random() < 0.3 else 1.0
        house.rows.append((moment(paid, 6), False, ("account", f"works of {house.name}"), int(amount * bonus), ""))


def bills(house: House, rng: np.random.Generator) -> None:
    rent = int(rng.integers(600, 1_500)) * 100
    for due in months(1):
        house.bill(due, f"landlord of {house.name}", rent, rng, role="payee")
    power = float(rng.uniform(5_000, 12_000))
    for due in months(int(rng.integers(5, 28))):
        season = 1 + 0.25 * np.cos(2 * np.pi * (due.month - 1) / 12)
        house.bill(due, "power", int(power * season * rng.uniform(0.92, 1.08)), rng)
    price, day = int(rng.integers(15, 45)) * 100, int(rng.integers(2, 28))
    for due in months(day):
        house.bill(due, "insurer", price, rng)
    other = price if rng.random() < 0.3 else int(price * rng.uniform(1.2, 1.4))  # of one price: two, and no duplicate
    for due in months(day if rng.random() < 0.5 else (day + 9) % 27 + 1):
        house.bill(due, "insurer", other, rng)
    if rng.random() < 0.6:
        yearly = START + timedelta(int(rng.integers(10, 75)))
        price = int(rng.integers(250, 700)) * 100
        house.bill(yearly, "car tax", price, rng)
        house.bill(yearly + timedelta(365), "car tax", int(price * 1.02), rng)


def subscriptions(house: House, rng: np.random.Generator) -> None:
    names = ["films", "music", "news", "gym", "cloud", "games"]
    for k, name in enumerate(rng.permutation(names)[: int(rng.integers(2, 5))].tolist()):
        price, day = int(rng.integers(5, 30)) * 100 + 99, int(rng.integers(1, 31))
        dues = [d for d in months(day) if d >= START + timedelta(int(rng.integers(0, 200)))]
        rises = k == 0 and rng.random() < PLANTED
        cut = int(rng.integers(2, len(dues) - 3))
        cheap = dues[cut] if k == 1 and rng.random() < PLANTED else None  # one month at half price: no rise after it
        raw = rng.random() < 0.3  # a reference in each description
        # A rise in the last four weeks, on a day that has come.
        new = max((i for i, d in enumerate(dues) if business(d, back=False) <= NOW), default=0)
        for i, due in enumerate(dues):
            amount = price // 2 if due == cheap else int(price * 1.15) if rises and i >= new else price
            to = f"{name.upper()} {rng.integers(10**6):06d}X" if raw else name
            at = house.bill(due, to, amount, rng)
            house.due[-1] = name.upper() if raw else name, house.due[-1][1]
            if rises and i == new:
                house.planted.append(("price_rise", at))


def trials(house: House, rng: np.random.Generator) -> None:
    fee = int(rng.integers(8, 30)) * 100 + 99
    if rng.random() < PLANTED:
        first = NOW - timedelta(int(rng.integers(33, 50)))
        house.pay(first - timedelta(int(rng.choice([7, 14, 30]))), "try me", int(rng.choice([0, 1, 100])), 20)
        house.bill(first, "try me", fee, rng)
        at = house.bill(_month_later(first), "try me", fee, rng)
        house.bill(_month_later(_month_later(first)), "try me", fee, rng)
        house.planted.append(("trial_became_fee", at))
    elif rng.random() < 0.5:  # a small purchase, then larger ones: no trial
        first = NOW - timedelta(int(rng.integers(60, 90)))
        house.pay(first, "try me", 150, 18)
        for days in rng.integers(7, 58, 3).tolist():
            house.pay(first + timedelta(days), "try me", int(rng.integers(1_000, 6_000)), 18)
    else:  # a subscription that never had one
        for due in [d for d in months(9) if d > NOW - timedelta(100)]:
            house.bill(due, "try me", fee, rng)


def _month_later(day: date) -> date:
    after = (day.replace(day=1) + timedelta(32)).replace(day=1)
    end = (after + timedelta(32)).replace(day=1) - timedelta(1)
    return min(after + timedelta(day.day - 1), end)


def daily(house: House, rng: np.random.Generator) -> None:
    begin = START + timedelta((5 - START.weekday()) % 7)
    for week in range((NOW - begin).days // 7 + 1):
        house.pay(begin + timedelta(7 * week), "market", int(rng.uniform(3_000, 11_000)), 10 + rng.random(), "5411")
    shops = rng.permutation(SHOPS)[:18]
    level = float(rng.normal(7.6, 0.3))
    for day in range((NOW - START).days):
        for _ in range(rng.poisson(0.9)):
            amount = int(np.exp(rng.normal(level, 0.7)))
            house.pay(START + timedelta(day), f"shop {rng.choice(shops)}", max(amount, 100), float(rng.uniform(8, 21)))
        if rng.random() < 0.1:
            hour = float(rng.uniform(8, 20))
            house.pay(START + timedelta(day), "tickets", TICKET, hour, "4111")
            if rng.random() < 0.05:  # for two
                house.pay(START + timedelta(day), "tickets", TICKET, hour + 0.03, "4111")
    if rng.random() < 0.4:  # now and then, and in the last month, much goes to savings
        for days in (300, 200, 110, 20):
            house.pay(NOW - timedelta(days), f"savings of {house.name}", 300_000, 12, role="payee")


def planted(house: House, rng: np.random.Generator) -> None:
    house.rows.sort()
    recent = [r for r in house.rows if r[1] and r[2][1].startswith("shop") and r[0] > moment(NOW - timedelta(35), 0)]
    if rng.random() < PLANTED and recent:
        at, _, other, amount, category = recent[int(rng.integers(len(recent)))]
        again = at + int(rng.integers(20, 1_200)) * 1_000_000
        house.rows.append((again, True, other, amount, category))
        house.planted.append(("duplicate_charge", again))
    if rng.random() < PLANTED:
        spent = [r[3] for r in house.rows if r[1] and r[2][1].startswith("shop")]
        amount = int(np.quantile(spent, 0.99) * rng.uniform(4, 12))
        at = house.pay(NOW - timedelta(int(rng.integers(1, 35))), f"far away {house.name}", amount, 22)
        house.planted.append(("unusual_charge", at))


PLANS: Final[tuple[Plan, ...]] = (salary, bills, subscriptions, trials, daily, planted)


@dataclass(frozen=True)
class World:
    """Households as of `NOW`, and what follows.

    Attributes:
        pasts: Of the accounts.
        around: What is known beside each.
        planted: For each account, what must be told: kind and transaction id.
        due: For each account, bills and pay of the days after `NOW`: other end and day.
        known: For each account, whom it pays or is paid by under a contract.
    """

    pasts: list[Past]
    around: list[Around]
    planted: list[list[tuple[str, str]]]
    due: list[list[tuple[str, date]]]


def households(seed: int, count: int = 120) -> World:
    """So many households; the same seed gives the same ones."""
    rng = np.random.default_rng(seed)
    houses = []
    for n in range(count):
        house = House(f"h{n}")
        for plan in PLANS:
            plan(house, rng)
        houses.append(house)
    ringed = {f"shop {k}": ("K-1", 0.93) for k in rng.permutation(SHOPS)[:3].tolist()} | {"nobody": ("K-2", 0.95)}
    pasts = [past_of(house) for house in houses]
    prices = _prices(pasts)
    told, around = [], []
    for house, past in zip(houses, pasts, strict=True):
        at = dict(zip(past.time.tolist(), past.ids, strict=True))
        marks = [(kind, at[us]) for kind, us in house.planted if us in at]
        since = moment(NOW - timedelta(89), 12)
        paid = {o[1] for o, t in zip(past.other, past.time.tolist(), strict=True) if t >= since}
        marks += [("ring", shop) for shop in ringed if shop in paid]
        told.append(marks)
        around.append(_around(past.account, prices, ringed))
    days = [[(to, day) for to, day in h.due if NOW < day <= NOW + timedelta(AFTER + 7)] for h in houses]
    return World(pasts, around, told, days)


def past_of(house: House) -> Past:
    rows = sorted(r for r in house.rows if r[0] <= moment(NOW, 24))
    n = len(rows)
    return Past(
        account=house.name,
        as_of=moment(NOW, 24),
        ids=[f"{house.name}-{i}" for i in range(n)],
        time=np.array([r[0] for r in rows], np.int64),
        paid=np.array([r[1] for r in rows], np.bool_),
        other=[r[2] for r in rows],
        merchant=[r[2][1] for r in rows],
        category=[r[4] for r in rows],
        amount=np.array([r[3] for r in rows], np.int64),
        currency=["EUR"] * n,
        probability=np.full(n, np.nan),
    )


def _prices(pasts: list[Past]) -> dict[str, list[tuple[int, str, int]]]:
    """Newest payments of each merchant: moment, account, amount."""
    found: dict[str, list[tuple[int, str, int]]] = {}
    for past in pasts:
        rows = zip(past.time.tolist(), past.other, past.amount.tolist(), past.paid.tolist(), strict=True)
        for time, other, amount, paid in rows:
            if paid:
                found.setdefault(other[1], []).append((time, past.account, amount))
    return {name: sorted(rows, reverse=True)[:60] for name, rows in found.items()}


def _around(
    account: str, prices: dict[str, list[tuple[int, str, int]]], ringed: dict[str, tuple[str, float]]
) -> Around:
    def listed(role: str, name: str, currency: str) -> NDArray[np.int64]:
        return np.array([amount for _, who, amount in prices.get(name, []) if who != account], np.int64)

    def rings(role: str, name: str) -> list[tuple[str, float]]:
        return [ringed[name]] if name in ringed else []

    return replace(Around(), prices=listed, rings=rings)
