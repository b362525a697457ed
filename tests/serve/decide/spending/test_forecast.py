"""A forecast covers what it says, reads nothing later, and is fitted as published."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest

from serve.decide.spending.buying import Buying
from serve.decide.spending.chance import Chance, as_said
from serve.decide.spending.clock import Clock, usual_clock
from serve.decide.spending.crowd import Crowd
from serve.decide.spending.forecast import forecast
from serve.decide.spending.past import DAY_US, Past
from serve.decide.spending.quantiles import Sample, pinball
from serve.decide.spending.spent import Gaps
from tests.serve.decide.spending.made import past, us

BEGIN = us(date(2026, 1, 1), 0)
DAYS = 120


def account(rng: np.random.Generator, name: str, days: float = DAYS) -> Past:
    """One that pays by day, at a rate and of amounts of its own."""
    rate, level = rng.gamma(2.0, 0.5), rng.normal(7.5, 0.6)
    n = rng.poisson(rate * days)
    time = np.sort(BEGIN + (rng.integers(0, int(days), n) * DAY_US) + (rng.normal(14, 3, n) * 3_600e6).astype(np.int64))
    return Past(
        account=name,
        as_of=BEGIN + int(days * DAY_US),
        ids=[f"{name}-{i}" for i in range(n)],
        time=time,
        paid=np.ones(n, np.bool_),
        other=[("merchant", f"m{k}") for k in rng.integers(0, 12, n)],
        merchant=["m"] * n,
        category=["5732"] * n,
        amount=np.exp(rng.normal(level, 0.5, n)).astype(np.int64),
        currency=["EUR"] * n,
        probability=np.full(n, np.nan),
    )


@pytest.fixture(scope="module")
def accounts() -> list[Past]:
    rng = np.random.default_rng(0)
    found = [account(rng, f"a{i}") for i in range(260)]
    return [one for one in found if len(one) > 3]


@pytest.fixture(scope="module")
def crowd(accounts: list[Past]) -> Crowd:
    return Crowd.of([cut(one, 90) for one in accounts[:130]], horizon=7.0)


def cut(one: Past, day: float) -> Past:
    at = BEGIN + int(day * DAY_US)
    n = int(np.searchsorted(one.time, at, side="right"))
    return replace(one.before(n) if n < len(one) else one, as_of=at)


def test_intervals_of_accounts_that_taught_nothing_cover_about_four_in_five(accounts: list[Past], crowd: Crowd) -> None:
    when, amounts = [], []
    rng = np.random.default_rng(3)
    for one in accounts[130:]:
        for day in rng.uniform(90, 110, 6):
            held = cut(one, float(day))
            n = len(held)
            if not n or n == len(one):
                continue
            found = forecast(held, crowd)
            assert found is not None
            if one.time[n] <= held.as_of + found.horizon_days * DAY_US:
                when.append(found.earliest <= one.time[n] <= found.latest)
                amounts.append(found.amounts[0].low <= one.amount[n] <= found.amounts[0].high)
    assert crowd.calibrated
    assert len(when) > 400
    assert 0.74 < np.mean(when) < 0.86  # of what was seen three times a standard error
    assert 0.74 < np.mean(amounts) < 0.86


def test_a_forecast_reads_nothing_later(accounts: list[Past], crowd: Crowd) -> None:
    one = max(accounts, key=len)
    later = replace(one, amount=np.concatenate([one.amount[:40], one.amount[40:] * 50]))
    day = (int(one.time[39]) - BEGIN) / DAY_US + 1e-6
    assert forecast(cut(one, day), crowd) == forecast(cut(later, day), crowd)


def test_a_night_is_short_on_the_clock_of_the_crowd(accounts: list[Past]) -> None:
    clock = Clock.of([one.time for one in accounts])
    night = clock.days(BEGIN + int(1.2 * DAY_US)) - clock.days(BEGIN + int(1.0 * DAY_US))
    noon = clock.days(BEGIN + int(1.7 * DAY_US)) - clock.days(BEGIN + int(1.5 * DAY_US))
    assert 10 * night < noon
    for us_ in (BEGIN, BEGIN + 12_345_678_901):
        assert abs(clock.moment(clock.days(us_)) - us_) < 2_000


def test_without_others_a_forecast_is_given_and_called_a_guess() -> None:
    rows = [(date(2026, 1, 1) + timedelta(3 * k), f"shop {k % 3}", 1_000 + k) for k in range(30)]
    found = forecast(past(rows, date(2026, 3, 31)), Crowd())
    assert found is not None
    assert not found.calibrated
    assert found.earliest <= found.likely <= found.latest
    assert found.likely == pytest.approx(us(date(2026, 4, 1)), abs=DAY_US)  # it paid every third day
    assert found.amounts[0].low <= 1_015 <= found.amounts[0].high
    assert sum(place.probability for place in found.places) + found.somewhere_new == pytest.approx(1.0)
    assert forecast(past([], date(2026, 3, 31)), Crowd()) is None


def test_a_silent_account_is_less_likely_to_pay_again() -> None:
    rows = [(date(2026, 1, 1) + timedelta(2 * k), "shop", 1_000) for k in range(20)]
    soon, late = (forecast(past(rows, day), Crowd()) for day in (date(2026, 2, 10), date(2026, 9, 10)))
    assert soon is not None
    assert late is not None
    assert late.chance < 0.5 < soon.chance


def test_buying_is_fitted_to_what_made_the_data() -> None:
    rng = np.random.default_rng(2)
    known = []
    for _ in range(3_000):
        rate, leaves, at, n, last = rng.gamma(1.2, 0.5), rng.beta(0.8, 2.5), 0.0, 1, 0.0
        age = float(rng.uniform(30, 60))
        while True:
            at += rng.exponential(1 / rate)
            if at > age:
                break
            n, last = n + 1, at
            if rng.random() < leaves:
                break
        known.append(Gaps(n, np.empty(0), age - last, age))
    found = Buying.fit(known)
    assert found.r == pytest.approx(1.2, rel=0.15)
    assert found.r / found.alpha == pytest.approx(0.6, rel=0.15)
    assert found.a / (found.a + found.b) == pytest.approx(0.8 / 3.3, rel=0.15)


def test_chances_are_corrected_where_they_were_wrong() -> None:
    rng = np.random.default_rng(1)
    known = [Gaps(3, np.array([1.0, 1.0]), float(s), 10.0) for s in rng.uniform(0, 5, 2_000)]
    came = [bool(rng.random() < 0.2) for _ in known]
    found = Chance.fit([0.6] * len(known), known, came)
    assert np.mean([found.of(0.6, gaps) for gaps in known]) == pytest.approx(0.2, abs=0.03)
    assert as_said().of(0.6, known[0]) == pytest.approx(0.6)


def test_pinball_loss_is_least_at_the_quantile() -> None:
    rng = np.random.default_rng(0)
    values = rng.exponential(1, 4_000)
    sample = Sample.mix((values, np.ones(len(values))))
    level = np.array([0.9])
    right, off = sample.quantiles(level), sample.quantiles(np.array([0.8]))
    loss = [np.mean([pinball(v, q, level) for v in values]) for q in (right, off)]
    assert loss[0] < loss[1]
    assert usual_clock().days(0) == 0
