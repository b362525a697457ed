"""Expected costs and the least of them: sums by hand, orders that must hold, currencies, the review budget."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.decide.costs import (
    ACTIONS,
    APPROVE,
    DECLINE,
    REVIEW,
    STEP_UP_3DS,
    STEP_UP_BIOMETRICS,
    Costs,
    CostsError,
    Payments,
    expected_costs,
    expected_loss,
    least_cost,
    payments_of,
    review_gain,
    review_price,
    spent_of,
)

COSTS = Costs()


def one(probability: float, amount: int, currency: str = "EUR", spent: float = 0.0, **more: object) -> Payments:
    return payments_of(
        COSTS,
        np.array([probability]),
        np.array([amount]),
        [currency],
        np.array([spent]),
        **more,  # type: ignore[arg-type]
    )


def test_costs_are_those_of_a_sum_by_hand() -> None:
    # 100 EUR at 10 %, of a customer who spent 1,000 EUR: loss 120 EUR, margin 3 EUR, value .03 * 12 * 1,000 = 360 EUR.
    found = expected_costs(COSTS, one(0.1, 10_000, spent=100_000))[0]
    assert found[APPROVE] == pytest.approx(1200)
    assert found[STEP_UP_3DS] == pytest.approx(8 + 0.2 * 1200 + 0.9 * 0.1 * (300 + 0.05 * 36_000))
    assert found[REVIEW] == pytest.approx(400 + 0.1 * 1200 + 0.9 * 0.05 * (300 + 0.2 * 36_000))
    assert found[DECLINE] == pytest.approx(0.9 * (300 + 0.2 * 36_000))
    assert expected_loss(COSTS, one(0.1, 10_000)).tolist() == [1200]


def test_biometrics_are_only_for_an_account_that_passed_them_before() -> None:
    assert expected_costs(COSTS, one(0.1, 10_000))[0, STEP_UP_BIOMETRICS] == np.inf
    found = expected_costs(COSTS, one(0.1, 10_000, passed=np.array([[0, 3]]), failed=np.array([[0, 0]])))
    assert ACTIONS[least_cost(found)[0]] == "step_up_biometrics"


def test_an_account_that_keeps_failing_a_challenge_makes_it_dearer() -> None:
    def cost(passed: int, failed: int) -> float:
        payments = one(0.05, 10_000, passed=np.array([[passed, 0]]), failed=np.array([[failed, 0]]))
        return float(expected_costs(COSTS, payments)[0, STEP_UP_3DS])

    assert cost(10, 0) < cost(0, 0) < cost(0, 5)


def test_the_same_payment_in_another_currency_costs_the_same() -> None:
    costs = Costs(rates={"JPY": 0.006, "BHD": 2.5})
    base = expected_costs(costs, payments_of(costs, np.array([0.2]), np.array([6_000]), ["EUR"], np.array([30_000.0])))
    yen = payments_of(costs, np.array([0.2]), np.array([10_000]), ["JPY"], np.array([50_000.0]))
    dinar = payments_of(costs, np.array([0.2]), np.array([24_000]), ["BHD"], np.array([120_000.0]))
    for payments in (yen, dinar):
        np.testing.assert_allclose(expected_costs(costs, payments) / payments.scale[:, None], base)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=30),
    st.integers(1, 10**9),
    st.floats(0, 1e9),
)
def test_more_risk_never_makes_approving_cheaper_nor_declining_dearer(
    risks: list[float], amount: int, spent: float
) -> None:
    p = np.sort(np.array(risks))
    n = len(p)
    found = expected_costs(COSTS, payments_of(COSTS, p, np.full(n, amount), None, np.full(n, spent)))
    assert (np.diff(found[:, APPROVE]) >= 0).all()
    assert (np.diff(found[:, DECLINE]) <= 0).all()
    chosen = least_cost(found)
    np.testing.assert_array_equal(found[np.arange(n), chosen], found.min(1))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_the_price_of_reviews_keeps_their_budget_and_leaves_no_room_that_would_pay(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    n = 500
    payments = payments_of(COSTS, rng.beta(0.2, 2, n), rng.integers(100, 200_000, n), None, rng.random(n) * 1e6)
    expected = expected_costs(COSTS, payments)
    gains = review_gain(expected)
    price = review_price(gains, share)
    reviewed = (least_cost(expected, price) == REVIEW).sum()
    wanted = (gains > 0).sum()
    assert reviewed == min(int(share * n), wanted)


def test_a_forbidden_action_is_not_taken() -> None:
    found = expected_costs(COSTS, one(0.9, 90_000))
    allowed = np.ones(len(ACTIONS), bool)
    best = least_cost(found)[0]
    allowed[best] = False
    assert least_cost(found, allowed=allowed)[0] != best


def test_spending_is_read_from_the_graphs_logarithm() -> None:
    np.testing.assert_allclose(spent_of(np.log1p(np.array([0.0, 123_456.0], np.float32))), [0, 123_456], rtol=1e-5)


@pytest.mark.parametrize("name", [f.name for f in fields(Costs) if f.name not in ("currency", "rates")])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_bad_cost_is_refused_by_its_name(name: str, value: float) -> None:
    with pytest.raises(CostsError, match=name) as refused:
        Costs(**{name: value})
    assert refused.value.field == name


def test_a_share_above_one_a_bad_rate_and_a_bad_currency_are_refused() -> None:
    for bad in ({"review_catch": 1.5}, {"rates": {"USD": 0.0}}, {"currency": "euro"}):
        with pytest.raises(CostsError, match="give"):
            Costs(**bad)  # type: ignore[arg-type]
    with pytest.raises(CostsError, match="review_share"):
        review_price(np.zeros(3), 1.5)
