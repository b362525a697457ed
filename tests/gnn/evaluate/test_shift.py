"""Probabilities under another base rate: what the correction estimates, what it mends, and where it does no harm."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnn.evaluate.shift import calibration_error, estimated_rate, moved, prior_shift, reliability


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
    found = prior_shift(probability, fraud, 0.01)
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
