"""Metrics against plain definitions, calibration, and the book's figures reproduced by our split and metrics."""

import json
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnn.errors import ModelError
from gnn.evaluate.metrics import DAY_US, card_precision, measure, reliability_table, to_dict
from gnn.evaluate.shift import CalibratedOn, calibration_error
from gnn.model.calibration import PlattScaling
from gnn.rivals.book import reproduce

DATASETS = Path(os.environ.get("RINGWATCH_DATASETS", Path(__file__).parents[4] / "shared" / "datasets"))
TRANSFORMED = DATASETS / "handbook" / "transactions_transformed_2018-06_to_08.parquet"


def world(seed: int, n: int = 300) -> tuple:
    rng = np.random.default_rng(seed)
    fraud = rng.random(n) < 0.1
    fraud[:2] = [True, False]
    probability = np.clip(rng.random(n) * 0.5 + 0.4 * fraud, 0, 1)
    return probability, fraud, rng.integers(1, 1000, n), rng.integers(0, 40, n), np.sort(rng.integers(0, 5 * DAY_US, n))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_metrics_equal_their_definitions(seed):
    probability, fraud, amount, account, time = world(seed)
    m = measure(probability, fraud, amount, account, time, budget=0.1)
    pairs = probability[fraud][:, None] - probability[~fraud][None]
    assert m.roc_auc == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    order = np.argsort(-probability)
    precision = np.cumsum(fraud[order]) / np.arange(1, len(order) + 1)
    assert m.average_precision == pytest.approx(precision[fraud[order]].mean())
    top = order[:30]
    assert m.recall_at_budget == pytest.approx(fraud[top].sum() / fraud.sum())
    assert m.fraud_money_caught == pytest.approx(amount[top][fraud[top]].sum() / amount[fraud].sum())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30))
def test_card_precision_equals_a_plain_reference(seed, cards):
    probability, fraud, _, account, time = world(seed)
    detected: set[int] = set()
    shares = []
    for day in sorted(set((time // DAY_US).tolist())):
        best: dict[int, float] = {}
        bad: set[int] = set()
        for p, f, a, t in zip(probability, fraud, account, time, strict=True):
            if t // DAY_US == day and a not in detected:
                best[a] = max(best.get(a, -1.0), p)
                bad |= {a} if f else set()
        hits = [a for a in sorted(best, key=best.get, reverse=True)[:cards] if a in bad]
        shares.append(len(hits) / cards)
        detected |= set(hits)
    assert card_precision(probability, fraud, account, time, cards) == pytest.approx(np.mean(shares))


def test_calibration_finds_the_slope_and_brings_the_error_down():
    rng = np.random.default_rng(0)
    logit = rng.normal(0, 2, 200_000)
    fraud = rng.random(len(logit)) < 1 / (1 + np.exp(-(0.7 * logit - 3)))
    scaling = PlattScaling.fit(logit, fraud)
    assert scaling.slope == pytest.approx(0.7, abs=0.03)
    assert scaling.intercept == pytest.approx(-3, abs=0.05)
    probability = scaling.probability(logit)
    assert calibration_error(probability, fraud) < 0.005 < calibration_error(1 / (1 + np.exp(-logit)), fraud)
    np.testing.assert_allclose(scaling.logit(probability), logit, atol=1e-6)


def test_the_reliability_curve_is_in_the_report():
    probability, fraud, amount, account, time = world(5)
    m = measure(probability, fraud, amount, account, time, calibrated=CalibratedOn(0.1))
    assert sum(b.payments for b in m.reliability) == len(fraud)
    assert sum(b.frauds for b in m.reliability) == fraud.sum()
    assert all(a.highest <= b.lowest for a, b in pairwise(m.reliability))
    plain = sum(b.payments * abs(b.predicted - b.observed) for b in m.reliability) / len(fraud)
    assert m.expected_calibration_error == pytest.approx(plain)
    assert reliability_table(m).row_count == 20
    assert json.loads(json.dumps(to_dict(m)))["prior_shift"]["observed"] == pytest.approx(fraud.mean())
    assert measure(probability, fraud, amount, account, time).prior_shift is None


def test_one_class_is_refused():
    probability, _, amount, account, time = world(0)
    with pytest.raises(ModelError, match="both classes"):
        measure(probability, np.zeros(len(probability), bool), amount, account, time)
    with pytest.raises(ModelError, match="both classes"):
        PlattScaling.fit(probability, np.ones(len(probability), bool))


@pytest.mark.skipif(not TRANSFORMED.exists(), reason="the Handbook's data is not here (set RINGWATCH_DATASETS)")
def test_the_books_figures_are_reproduced():
    found = reproduce(TRANSFORMED)
    published = {"logistic": (0.871, 0.606, 0.291), "random_forest": (0.867, 0.658, 0.287)}
    for name, (auc, precision, cards) in published.items():
        m = found[name]
        assert (m.payments, m.frauds) == (58_264, 385)
        assert m.roc_auc == pytest.approx(auc, abs=0.005)
        assert m.average_precision == pytest.approx(precision, abs=0.005)
        assert m.card_precision_at_100 == pytest.approx(cards, abs=0.005)
