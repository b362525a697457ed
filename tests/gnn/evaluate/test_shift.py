"""Probabilities under another base rate: what the correction estimates, what it mends, and where it does no harm."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from gnn.evaluate.shift import (
    CalibratedOn,
    calibration_error,
    estimated_rate,
    moved,
    prior_shift,
    rate_interval,
    reliability,
)
from gnn.model.calibration import PlattScaling, calibration_covariance


def scored(rate: float, calibrated_for: float, n: int = 200_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Payments of which `rate` are frauds, scored as a calibrated model would for another base rate (two Gaussians)."""
    rng = np.random.default_rng(seed)
    fraud = rng.random(n) < rate
    x = rng.normal(2.0 * fraud, 1.0)
    likelihood = np.exp(2.0 * x - 2.0)  # of fraud against the rest
    return calibrated_for * likelihood / (calibrated_for * likelihood + 1 - calibrated_for), fraud


@pytest.mark.parametrize("rate", [0.003, 0.01, 0.04, 0.2])
def test_the_base_rate_is_found_without_a_label_and_calibration_comes_back(rate: float) -> None:
    probability, fraud = scored(rate, calibrated_for=0.01)
    found = prior_shift(probability, fraud, CalibratedOn(0.01))
    assert found.estimated is not None
    assert found.error_corrected is not None
    assert found.low < found.estimated < found.high < 2 * found.low
    assert found.estimated == pytest.approx(rate, rel=0.12)
    assert found.error_corrected < 0.002
    if rate != 0.01:
        assert found.error_corrected < 0.5 * found.error
    assert found.observed == pytest.approx(fraud.mean())


def test_without_a_shift_it_changes_next_to_nothing() -> None:
    probability, fraud = scored(0.05, calibrated_for=0.05)
    assert estimated_rate(probability, 0.05) == pytest.approx(0.05, rel=0.05)
    assert calibration_error(moved(probability, 0.05, 0.05), fraud) == pytest.approx(
        calibration_error(probability, fraud), abs=1e-9
    )


@settings(max_examples=30, deadline=None)
@given(st.floats(0.001, 0.5), st.floats(0.001, 0.5), st.integers(0, 1000))
def test_moving_keeps_the_order_and_can_be_undone(before: float, after: float, seed: int) -> None:
    probability = np.random.default_rng(seed).uniform(1e-6, 1 - 1e-6, 200)
    there = moved(probability, before, after)
    np.testing.assert_array_equal(np.argsort(there, kind="stable"), np.argsort(probability, kind="stable"))
    np.testing.assert_allclose(moved(there, after, before), probability, rtol=1e-6)


def test_scores_of_nought_and_one_stay_finite() -> None:
    probability = np.array([0.0, 1.0, 0.5])
    assert np.isfinite(moved(probability, 0.01, 0.2)).all()
    assert 0 < estimated_rate(np.zeros(10), 0.01) < 0.01


def test_few_payments_have_few_bins() -> None:
    curve = reliability(np.array([0.2, 0.1, 0.9]), np.array([False, False, True]))
    assert [(b.payments, b.frauds, b.predicted) for b in curve] == [(1, 0, 0.1), (1, 0, 0.2), (1, 1, 0.9)]


def calibrated(
    rng: np.random.Generator, apart: float, rate: float, frauds: int = 60, before: float = 0.05, drift: float = 0.0
) -> tuple[np.ndarray, np.ndarray, CalibratedOn]:
    """Payments of which `rate` are frauds, scored by a model that `frauds` frauds calibrated (two Gaussians).

    Args:
        rng: Of the draws.
        apart: How far the scores of frauds and of the rest lie apart.
        rate: Share of frauds among the payments scored.
        frauds: Among the payments that calibrated.
        before: Their share there.
        drift: How far all scores have moved since.
    """

    def drawn(n: int, share: float) -> tuple[np.ndarray, np.ndarray]:
        fraud = rng.random(n) < share
        return rng.normal(apart * fraud, 1.0), fraud

    x, fraud = drawn(round(frauds / before), before)
    scaling = PlattScaling.fit(x, fraud)
    covariance = calibration_covariance(scaling.slope * x + scaling.intercept, fraud, np.arange(len(x)))
    score, truth = drawn(20_000, rate)
    return scaling.probability(score + drift), truth, CalibratedOn(float(fraud.mean()), covariance.tolist())


@pytest.mark.parametrize("seed", range(8))
def test_scores_that_say_nothing_are_silent_and_were_not(seed: int) -> None:
    """Frauds that no score tells apart: the estimate alone runs to nothing or to everything."""
    rng = np.random.default_rng(seed)
    probability, fraud, on = calibrated(rng, 0.0, 0.044, drift=1.0)
    found = prior_shift(probability, fraud, on)
    assert found.estimated is None
    assert found.error_corrected is None
    assert found.low < 0.044 < found.high
    assert "cannot tell" in str(found)


def test_the_estimate_alone_claims_nearly_all_where_hardly_any_are_frauds() -> None:
    claims = [
        estimated_rate(p, on.base_rate)
        for p, _, on in (calibrated(np.random.default_rng(s), 0.0, 0.044, drift=1.0) for s in range(8))
    ]
    assert max(claims) > 0.9


@pytest.mark.parametrize(("apart", "rate"), [(1.0, 0.18), (2.0, 0.01), (3.0, 0.18), (2.0, 0.05)])
def test_intervals_hold_the_true_rate_in_about_95_of_100_calibrations(apart: float, rate: float) -> None:
    inside = 0
    for seed in range(20):
        probability, _, on = calibrated(np.random.default_rng(seed), apart, rate)
        low, high = rate_interval(probability, on)
        inside += low <= rate <= high
    assert inside >= binom.ppf(0.01, 20, 0.95)


def test_frauds_of_one_account_leave_a_calibration_less_sure() -> None:
    rng = np.random.default_rng(0)
    fraud = np.repeat(rng.random(200) < 0.1, 10)
    score = np.repeat(rng.normal(size=200), 10) + fraud - 3
    apart, together = (
        calibration_covariance(score, fraud, of) for of in (np.arange(2000), np.repeat(np.arange(200), 10))
    )
    assert (np.diag(together) > 4 * np.diag(apart)).all()
    alike = calibration_covariance(np.full(2000, -2.0), fraud, np.arange(2000))
    assert np.diag(alike).max() > 1e4
