"""Periods of regular payments, counted on the calendar: months have ends, and banks close at weekends."""

from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from typing import Final, Literal

PeriodName = Literal["weekly", "biweekly", "monthly", "quarterly", "yearly"]
EPOCH: Final = date(1970, 1, 1)


@dataclass(frozen=True)
class Period:
    """How often something is paid.

    Attributes:
        name: For people.
        days: Of one period without a calendar, 0 for one of months.
        months: Of one period on the calendar, 0 for one of days.
        slack: Days that a payment may be early or late, beside a weekend.
        least: How often it must have been seen.
        missed: Periods in a row without a payment after which it has ended.
    """

    name: PeriodName
    days: int
    months: int
    slack: int
    least: int
    missed: int = 2

    @property
    def usual_days(self) -> float:
        """Days from one payment to the next, about."""
        return self.days or self.months * 30.44


PERIODS: Final = (
    Period("weekly", 7, 0, 1, 5),
    Period("biweekly", 14, 0, 2, 4),
    Period("monthly", 0, 1, 2, 3),
    Period("quarterly", 0, 3, 4, 3),
    Period("yearly", 0, 12, 6, 2, 1),
)


def day_of(us: int) -> int:
    """Days since 1970 of a moment, UTC."""
    return us // 86_400_000_000


def due(anchor: int, first: int, period: Period, k: int) -> int:
    """The day, since 1970, on which the k-th payment after one falls due by the calendar.

    Args:
        anchor: Day of the month that it is paid on, 1 to 31; the last of a month that is shorter. Of no use to periods
            of days.
        first: A day in the month (or the day itself, for periods of days) from which periods are counted.
        period: How often.
        k: How many periods later.

    Example:
        >>> from datetime import date
        >>> monthly = PERIODS[2]
        >>> EPOCH + timedelta(due(31, (date(2026, 1, 31) - EPOCH).days, monthly, 1))
        datetime.date(2026, 2, 28)
    """
    if period.days:
        return first + k * period.days
    start = EPOCH + timedelta(first)
    month = start.year * 12 + start.month - 1 + k * period.months
    return _day_in_month(month, anchor)


@cache
def _day_in_month(month: int, anchor: int) -> int:
    """Day since 1970 of a day in a month (years x 12 + months), the last one where the month is shorter."""
    begin = date(month // 12, month % 12 + 1, 1)
    after = date((month + 1) // 12, (month + 1) % 12 + 1, 1)
    return (begin - EPOCH).days + min(anchor, (after - begin).days) - 1


def off(day: int, expected: int) -> int:
    """Days that a payment is away from the day it was due, 0 where a weekend explains it.

    A bill that falls due at a weekend is taken on the Monday or Tuesday after it, a salary is paid the Friday before.

    Example:
        >>> saturday = (date(2026, 1, 31) - EPOCH).days
        >>> off(saturday + 2, saturday), off(saturday - 1, saturday), off(saturday + 5, saturday)
        (0, 0, 5)
    """
    weekday = (expected + 3) % 7  # 1 January 1970 was a Thursday
    if weekday == 5 and -1 <= day - expected <= 3:
        return 0
    if weekday == 6 and -2 <= day - expected <= 2:
        return 0
    return abs(day - expected)


def window(expected: int) -> tuple[int, int]:
    """The first and the last day on which a payment due on a day is likely to come, weekends counted in."""
    weekday = (EPOCH + timedelta(expected)).weekday()
    return expected - {5: 1, 6: 2}.get(weekday, 0), expected + {5: 2, 6: 1}.get(weekday, 0)


def anchors(days: list[int], period: Period) -> tuple[int, int]:
    """The day of the month that fits days best, and how many of these are off it by more than a day.

    Args:
        days: On which it was paid, since 1970, ascending.
        period: Of months.
    """
    best = (len(days) + 1, 1 << 30, 0)
    for anchor in range(1, 32):
        misses, total = 0, 0
        for day in days:
            away = nearest(anchor, day)[1]
            misses += away > 1
            total += away
        # Of two that fit alike, the later one: 31 stands for the month's end, where 30 and 28 fit, too.
        best = min(best, (misses, total, -anchor))
    return -best[2], best[0]


def nearest(anchor: int, day: int) -> tuple[int, int]:
    """The due day (since 1970) closest to a day, by the day of the month, and how far the day is off it."""
    at = EPOCH + timedelta(day)
    month = at.year * 12 + at.month - 1
    found = [_day_in_month(m, anchor) for m in (month - 1, month, month + 1)]
    return min(((f, off(day, f)) for f in found), key=lambda pair: (pair[1], abs(day - pair[0])))
