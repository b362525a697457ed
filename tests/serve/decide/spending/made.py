"""Pasts of accounts made by hand, for tests of their spending."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import numpy as np

from serve.decide.spending.past import Past

Row = tuple[date, str, int]  # day, who is paid, minor units


def us(day: date, hour: float = 12.0) -> int:
    return int((datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(hours=hour)).timestamp() * 1e6)


def past(
    rows: Sequence[Row], as_of: date, *, received: Sequence[Row] = (), category: dict[str, str] | None = None
) -> Past:
    """What an account paid merchants, and received from others, as of a day's noon."""
    every = sorted(
        [(us(day), True, name, amount) for day, name, amount in rows if day <= as_of]
        + [(us(day), False, name, amount) for day, name, amount in received if day <= as_of]
    )
    n = len(every)
    return Past(
        account="anna",
        as_of=us(as_of, 13),
        ids=[f"t{i}" for i in range(n)],
        time=np.array([e[0] for e in every], np.int64),
        paid=np.array([e[1] for e in every], np.bool_),
        other=[("merchant" if e[1] else "account", e[2]) for e in every],
        merchant=[e[2] for e in every],
        category=[(category or {}).get(e[2], "") for e in every],
        amount=np.array([e[3] for e in every], np.int64),
        currency=["EUR"] * n,
        probability=np.full(n, np.nan),
    )


def monthly(name: str, day: int, amount: int, months: Sequence[int], year: int = 2026) -> list[Row]:
    """Something paid each month, on the last day where the month is shorter; month 13 is next January."""
    return [(_in_month(year, month, day), name, amount) for month in months]


def _in_month(year: int, month: int, day: int) -> date:
    year, month = year + (month - 1) // 12, (month - 1) % 12 + 1
    after = date(year + month // 12, month % 12 + 1, 1)
    return min(date(year, month, 1) + timedelta(day - 1), after - timedelta(1))


def business(day: date, back: bool) -> date:
    """The nearest day on which banks work, before or after."""
    while day.weekday() > 4:
        day += timedelta(-1 if back else 1)
    return day


def groceries(rng: np.random.Generator, name: str, begin: date, weeks: int) -> list[Row]:
    """A run on every Saturday, of whatever is needed."""
    return [(begin + timedelta(7 * k), name, int(rng.uniform(3_000, 9_000))) for k in range(weeks)]
