"""Fees by risk: bounds, order, explanation; and who pays them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.decide.costs import Costs, CostsError, payments_of
from serve.decide.pricing import Pricing, fairness

COSTS = Costs()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=20),
    st.integers(0, 10**9),
    st.floats(0, 5),
    st.floats(0, 100),
    st.floats(0, 1000),
)
def test_more_risk_never_lowers_the_fee_and_floor_and_cap_hold(
    risks: list[float], amount: int, loading: float, floor: float, above: float
) -> None:
    p = np.sort(np.array(risks))
    pricing = Pricing(base_bps=15, loading=loading, floor_bps=floor, cap_bps=floor + above)
    fees = pricing.fees(COSTS, payments_of(COSTS, p, np.full(len(p), amount)))
    assert (np.diff(fees) >= 0).all()
    assert (fees >= round(floor, 2)).all()
    assert (fees <= round(floor + above, 2)).all()


def test_an_explanation_gives_the_parts_of_the_fee_and_what_bounds_it() -> None:
    said = Pricing().explain(COSTS, payments_of(COSTS, np.array([0.01, 0.9]), np.array([10_000, 10_000])))
    assert said == [
        "140 bps: 20 base and 120.00 for an expected loss at 1.0000% risk of fraud",
        "300 bps: 20 base and 10800.00 for an expected loss at 90.0000% risk of fraud; held at the cap of 300",
    ]


def test_fairness_shows_a_segment_that_pays_for_more_than_its_risk() -> None:
    payments = payments_of(COSTS, np.array([0.01, 0.01, 0.01]), np.array([100_000, 100_000, 50_000]))
    report = fairness(np.array([50.0, 50.0, 100.0]), COSTS, payments, ["north", "north", "south"])
    assert [s.segment for s in report] == ["north", "south"]
    north, south = report
    assert (north.fees, south.fees) == (1000, 500)
    assert south.mean_bps == 100
    assert north.against_expected is not None
    assert south.against_expected is not None
    assert north.against_expected < 1 < south.against_expected
    assert south.lost is None


def test_fairness_compares_with_what_was_lost_where_labels_are_known() -> None:
    payments = payments_of(COSTS, np.array([0.5, 0.5]), np.array([10_000, 10_000]))
    fees = np.array([100.0, 100.0])
    mild, hard = sorted(
        fairness(fees, COSTS, payments, ["a", "b"], np.array([True, False])), key=lambda s: -(s.lost or 0)
    )
    assert mild.lost == 12_000
    assert mild.against_lost == 0.5
    assert hard.against_lost is None


def test_money_of_several_currencies_is_added_in_one() -> None:
    costs = Costs(rates={"JPY": 0.01})
    payments = payments_of(costs, np.array([0.1, 0.1]), np.array([10_000, 10_000]), ["EUR", "JPY"])
    found = {s.segment: s for s in fairness(np.array([100.0, 100.0]), costs, payments, ["EUR", "JPY"])}
    assert found["EUR"].amount == found["JPY"].amount == 10_000


@pytest.mark.parametrize(("name", "value"), [("base_bps", -1.0), ("loading", float("nan")), ("cap_bps", 5.0)])
def test_a_bad_price_is_refused_by_its_name(name: str, value: float) -> None:
    with pytest.raises(CostsError, match="give") as refused:
        Pricing(**{name: value})
    assert refused.value.field == name
