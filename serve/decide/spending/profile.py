"""An account's profile: what it pays again and again, what it earns, what comes next, and what was unusual."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from serve.decide.spending.crowd import Crowd
from serve.decide.spending.forecast import Forecast, forecast
from serve.decide.spending.past import DAY_US, Past
from serve.decide.spending.recurring import Recurring, recurring
from serve.decide.spending.unusual import Unusual, unusual

LOOK_BACK: Final = 60 * DAY_US  # for unusual payments
MONTH: Final = 30.44  # days
MONTHS: Final = 6  # that a usual flow is measured over


@dataclass(frozen=True)
class Flow:
    """Money in one currency, minor units a month.

    Attributes:
        currency: ISO 4217.
        income: What regular income brings.
        other_inflow: What else came in, on average over the last months.
        bills: What regular payments take.
        other_outflow: What else went out, likewise.
    """

    currency: str
    income: int
    other_inflow: int
    bills: int
    other_outflow: int


@dataclass(frozen=True)
class Profile:
    """What is known of an account's spending as of a moment.

    Attributes:
        account: Whose.
        as_of: The moment, us.
        payments: How many payments this rests on; known frauds are not among them.
        since: Moment of the first of them, us; None where there is none.
        recurring: What it pays again and again, due next first.
        income: What it is paid again and again.
        forecast: Its next payment; None where it has made none.
        flows: By currency.
        unusual: Payments of the last sixty days that were not to be expected, newest first.
    """

    account: str
    as_of: int
    payments: int
    since: int | None
    recurring: tuple[Recurring, ...]
    income: tuple[Recurring, ...]
    forecast: Forecast | None
    flows: tuple[Flow, ...]
    unusual: tuple[Unusual, ...]


def profile(past: Past, crowd: Crowd) -> Profile:
    """What an account's past says of it.

    Args:
        past: As of the moment that is asked for.
        crowd: What accounts in general do.

    Example:
        >>> from graph.rings.records import RING_PAYMENTS
        >>> profile(Past.of("anna", RING_PAYMENTS.empty_table(), as_of=0), Crowd()).payments
        0
    """
    found = recurring(past)
    return Profile(
        account=past.account,
        as_of=past.as_of,
        payments=len(past),
        since=int(past.time[0]) if len(past) else None,
        recurring=tuple(one for one in found if one.paid),
        income=tuple(one for one in found if not one.paid),
        forecast=forecast(past, crowd),
        flows=_flows(past, found),
        unusual=unusual(past, past.as_of - LOOK_BACK),
    )


def _flows(past: Past, found: tuple[Recurring, ...]) -> tuple[Flow, ...]:
    if not len(past):
        return ()
    known = {name for one in found for name in one.transaction_ids}
    days = max(1.0, min(MONTHS * MONTH, (past.as_of - int(past.time[0])) / DAY_US))
    recent = past.time >= past.as_of - int(MONTHS * MONTH * DAY_US)
    free = recent & np.array([name not in known for name in past.ids])
    flows = []
    for currency in sorted(set(past.currency)):
        here = free & np.array([code == currency for code in past.currency])
        regular = [one for one in found if one.currency == currency and not one.ended]
        flows.append(
            Flow(
                currency=currency,
                income=round(sum(monthly(one) for one in regular if not one.paid)),
                other_inflow=round(past.amount[here & ~past.paid].sum() * MONTH / days),
                bills=round(sum(monthly(one) for one in regular if one.paid)),
                other_outflow=round(past.amount[here & past.paid].sum() * MONTH / days),
            )
        )
    return tuple(flows)


def monthly(one: Recurring) -> float:
    """What a contract costs, or an income brings, in a month."""
    days = {"weekly": 7.0, "biweekly": 14.0, "monthly": MONTH, "quarterly": 3 * MONTH, "yearly": 12 * MONTH}
    return one.amount * MONTH / days[one.period]
