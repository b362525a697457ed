"""An account's next payment: when, where and how much, as quantiles whose coverage was checked on other accounts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serve.decide.spending.crowd import ALL, Crowd, count_class
from serve.decide.spending.past import DAY_US, Past
from serve.decide.spending.quantiles import LEVELS
from serve.decide.spending.spent import Amounts, Gaps

PLACES: Final = 5  # named, the likeliest first
HALVES: Final = 30  # payments after which one counts half for where the next will be
NOVEL: Final = 5.0  # own payments that the crowd's share of new counterparties is worth


@dataclass(frozen=True)
class Place:
    """Somebody who may be paid next.

    Attributes:
        role: payee or merchant; category for a merchant category.
        name: Its identifier.
        probability: That it is the next.
    """

    role: str
    name: str
    probability: float


@dataclass(frozen=True)
class NextAmount:
    """What the next payment amounts to, if it is in this currency.

    Attributes:
        currency: ISO 4217.
        probability: That it is in this currency.
        low: Lower bound of the 80 % interval, minor units.
        middle: Median.
        high: Upper bound.
    """

    currency: str
    probability: float
    low: int
    middle: int
    high: int


@dataclass(frozen=True)
class Forecast:
    """The next payment that an account makes.

    Attributes:
        horizon_days: How far ahead this looks.
        chance: Probability that there is a payment within the horizon.
        earliest: Lower bound of the 80 % interval of when, given that there is one, us.
        likely: Median.
        latest: Upper bound.
        amounts: By currency, the likeliest first.
        places: Who is paid, the likeliest first.
        categories: Of merchants, likewise; empty where they are not known.
        somewhere_new: Probability that it goes to somebody whom the account has not paid.
        calibrated: Whether enough other accounts were there to check the intervals; if not, they are a guess.
    """

    horizon_days: float
    chance: float
    earliest: int
    likely: int
    latest: int
    amounts: tuple[NextAmount, ...]
    places: tuple[Place, ...]
    categories: tuple[Place, ...]
    somewhere_new: float
    calibrated: bool


def forecast(past: Past, crowd: Crowd) -> Forecast | None:
    """What an account pays next, as of the moment of its past.

    Args:
        past: Of the account.
        crowd: What accounts in general do.

    Returns:
        The forecast; None where the account has not paid yet.
    """
    paid = np.flatnonzero(past.paid)
    if not len(paid):
        return None
    chance, when = time_quantiles(Gaps.of(past.time[paid], past.as_of, crowd.clock), crowd, past.as_of)
    now = crowd.clock.days(past.as_of)
    moments = [crowd.clock.moment(now + days) for days in when[[1, 3, 5]]]
    new = _new(past, paid, crowd)
    return Forecast(
        horizon_days=crowd.horizon,
        chance=chance,
        earliest=max(moments[0], past.as_of),
        likely=max(moments[1], past.as_of),
        latest=max(moments[2], past.as_of),
        amounts=_amounts(past, paid, crowd),
        places=_places([past.other[i] for i in paid.tolist()], 1 - new),
        categories=_places([("category", past.category[i]) for i in paid.tolist() if past.category[i]], 1.0),
        somewhere_new=new,
        calibrated=crowd.calibrated,
    )


def time_quantiles(
    gaps: Gaps, crowd: Crowd, now: int, levels: NDArray[np.float64] = LEVELS
) -> tuple[float, NDArray[np.float64]]:
    """The chance of a payment within the horizon, and quantiles of when, given that there is one.

    Args:
        gaps: What is known of the account.
        crowd: Of what accounts do.
        now: us.
        levels: Of the quantiles, float64 [q].

    Returns:
        The chance; days of the crowd's clock from now, float64 [q].
    """
    horizon = crowd.clock.days(now + int(crowd.horizon * DAY_US)) - crowd.clock.days(now)
    chance, there = crowd.time(gaps).within(horizon)
    chance = crowd.chance.of(chance, gaps)
    if not len(there.values):
        return chance, np.full(len(levels), horizon)
    ends = np.concatenate([[0.0], LEVELS, [1.0]])
    real = np.concatenate([[0.0], levels_of(crowd.time_levels, gaps.n), [1.0]])
    return chance, there.quantiles(np.interp(levels, ends, real))


def amount_quantiles(amounts: Amounts, crowd: Crowd) -> NDArray[np.float64]:
    """Quantiles (`LEVELS`) of the next amount in a currency, log1p of minor units; NaN where nothing is known of it."""
    return crowd.amount(amounts).quantiles(levels_of(crowd.amount_levels, len(amounts.logs)))


def levels_of(table: Mapping[int, NDArray[np.float64]], n: int) -> NDArray[np.float64]:
    """Calibrated levels of an account with n payments."""
    return table.get(count_class(n), table.get(ALL, LEVELS))


def _amounts(past: Past, paid: NDArray[np.int64], crowd: Crowd) -> tuple[NextAmount, ...]:
    weights = _weights(len(paid))
    codes = [past.currency[i] for i in paid.tolist()]
    shares: dict[str, float] = {}
    for code, weight in zip(codes, weights, strict=True):
        shares[code] = shares.get(code, 0.0) + float(weight)
    total, found = sum(shares.values()), []
    for currency, share in sorted(shares.items(), key=lambda pair: (-pair[1], pair[0]))[:PLACES]:
        logs = amount_quantiles(Amounts.of(past.amount[paid], codes, currency), crowd)
        low, middle, high = (max(0, round(float(np.expm1(x)))) for x in logs[[1, 3, 5]])
        found.append(NextAmount(currency, share / total, low, middle, high))
    return tuple(found)


def _new(past: Past, paid: NDArray[np.int64], crowd: Crowd) -> float:
    """The probability that the next payment goes to somebody new."""
    seen: set[tuple[str, str]] = set()
    fresh = []
    for i in paid.tolist():
        fresh.append(past.other[i] not in seen)
        seen.add(past.other[i])
    newest = fresh[1:][-HALVES:]  # the first one is always new
    usual = crowd.novelty.get(count_class(len(fresh)), 0.3)
    return (NOVEL * usual + sum(newest)) / (NOVEL + len(newest))


def _places(paid: list[tuple[str, str]], total: float) -> tuple[Place, ...]:
    weights: dict[tuple[str, str], float] = {}
    for other, weight in zip(paid, _weights(len(paid)), strict=True):
        weights[other] = weights.get(other, 0.0) + float(weight)
    whole = sum(weights.values())
    best = sorted(weights.items(), key=lambda pair: (-pair[1], pair[0]))[:PLACES]
    return tuple(Place(role, name, total * weight / whole) for (role, name), weight in best)


def _weights(n: int) -> NDArray[np.float64]:
    found: NDArray[np.float64] = 0.5 ** (np.arange(n)[::-1] / HALVES)
    return found
