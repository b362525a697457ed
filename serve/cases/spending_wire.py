"""Profiles and guidance over HTTP: what the API answers, and how a client reads it back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel, Field

from serve.decide.spending.forecast import Forecast, NextAmount, Place
from serve.decide.spending.guidance import Advice, Kind
from serve.decide.spending.periods import PeriodName
from serve.decide.spending.profile import Flow, Profile
from serve.decide.spending.recurring import Recurring, Rise
from serve.decide.spending.unusual import Unusual
from serve.http.values import EPOCH, TICK

_MOMENTS: Final = frozenset(
    ("as_of", "since", "at", "first_seen", "last_seen", "next_due", "earliest", "likely", "latest", "missed")
)
"""Fields that are microseconds in the process and moments on the wire."""


class RiseOut(BaseModel):
    """A change of price, up or down; minor units."""

    before: int
    after: int
    paid_before: int = Field(description="how often the price before was paid")
    transaction_id: str
    at: datetime


class RecurringOut(BaseModel):
    """Something that is paid again and again: a contract, or an income. Amounts are in minor units."""

    paid: bool = Field(description="whether the account pays it; false: it is paid")
    role: str
    name: str
    currency: str
    period: PeriodName
    fixed: bool = Field(description="whether it costs the same each time, but for changes of price")
    amount: int
    low: int = Field(description="least that the next one is likely to be")
    high: int
    first_seen: datetime
    last_seen: datetime
    next_due: datetime | None = Field(description="day on which the next is due; null where it has ended")
    earliest: datetime | None
    latest: datetime | None
    missed: list[datetime] = Field(description="days on which one was due and none came")
    ended: bool
    rises: list[RiseOut]
    trial: str | None = Field(description="transaction id of the trial that it began with")
    confidence: float = Field(ge=0, le=1)
    transaction_ids: list[str]


class NextAmountOut(BaseModel):
    """What the next payment amounts to if it is in this currency: an 80 % interval, minor units."""

    currency: str
    probability: float
    low: int
    middle: int
    high: int


class PlaceOut(BaseModel):
    """Who may be paid next."""

    role: str
    name: str
    probability: float


class ForecastOut(BaseModel):
    """The next payment that the account makes."""

    horizon_days: float
    chance: float = Field(description="probability of a payment within the horizon")
    earliest: datetime = Field(description="lower bound of the 80 % interval, given that there is one")
    likely: datetime
    latest: datetime
    amounts: list[NextAmountOut]
    places: list[PlaceOut]
    categories: list[PlaceOut]
    somewhere_new: float = Field(description="probability that it goes to somebody new")
    calibrated: bool = Field(description="whether the intervals were checked on enough other accounts")


class FlowOut(BaseModel):
    """Money in one currency, minor units a month."""

    currency: str
    income: int
    other_inflow: int
    bills: int
    other_outflow: int


class UnusualOut(BaseModel):
    """A payment that the account's past did not lead one to expect."""

    transaction_id: str
    at: datetime
    role: str
    name: str
    amount: int
    currency: str
    expected: int = Field(description="what 99 of 100 payments were expected to stay below, before this one")
    first: bool = Field(description="whether the account had never paid there")
    reason: str


class ProfileOut(BaseModel):
    """What is known of an account's spending."""

    account: str
    as_of: datetime
    payments: int = Field(description="that this rests on; known frauds are not among them")
    since: datetime | None
    recurring: list[RecurringOut]
    income: list[RecurringOut]
    forecast: ForecastOut | None
    flows: list[FlowOut]
    unusual: list[UnusualOut]


class AdviceOut(BaseModel):
    """Something to tell an account's owner."""

    kind: Kind
    text: str
    confidence: float = Field(ge=0, le=1)
    transaction_ids: list[str] = Field(description="the payments that say so")
    role: str | None
    name: str | None
    amount: int
    currency: str
    at: datetime
    ring_id: str | None


class GuidanceOut(BaseModel):
    """What to tell an account's owner, the most certain first; empty where nothing is certain enough."""

    account: str
    advice: list[AdviceOut]


def profile_out(profile: Profile) -> ProfileOut:
    """A profile for JSON."""
    return ProfileOut.model_validate(_out(asdict(profile)))


def guidance_out(account: str, advice: Sequence[Advice]) -> GuidanceOut:
    """Guidance for JSON."""
    return GuidanceOut.model_validate({"account": account, "advice": [_out(asdict(one)) for one in advice]})


def profile_in(found: ProfileOut) -> Profile:
    """A profile as a client reads it."""
    held = _in(found.model_dump())
    forecast = held["forecast"]
    if forecast is not None:
        amounts = tuple(NextAmount(**one) for one in forecast["amounts"])
        places = {name: tuple(Place(**one) for one in forecast[name]) for name in ("places", "categories")}
        forecast = Forecast(**{**forecast, "amounts": amounts, **places})
    lists: dict[str, Any] = {name: tuple(_recurring(one) for one in held[name]) for name in ("recurring", "income")}
    lists["flows"] = tuple(Flow(**one) for one in held["flows"])
    lists["unusual"] = tuple(Unusual(**one) for one in held["unusual"])
    return Profile(**{**held, **lists, "forecast": forecast})


def guidance_in(found: GuidanceOut) -> tuple[Advice, ...]:
    """Guidance as a client reads it."""
    rows = [_in(one.model_dump()) for one in found.advice]
    return tuple(Advice(**{**row, "transaction_ids": tuple(row["transaction_ids"])}) for row in rows)


def _recurring(row: Mapping[str, Any]) -> Recurring:
    lists = {name: tuple(row[name]) for name in ("missed", "transaction_ids")}
    return Recurring(**{**row, **lists, "rises": tuple(Rise(**one) for one in row["rises"])})


def _out(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _out(part, key) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_out(part, name) for part in value]
    return EPOCH + value * TICK if name in _MOMENTS and value is not None else value


def _in(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _in(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_in(part) for part in value]
    return (value - EPOCH) // TICK if isinstance(value, datetime) else value
