"""Contracts and incomes are found, and what only looks like one is not."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.decide.spending.periods import PERIODS, due, nearest, off
from serve.decide.spending.recurring import Recurring, recurring, stem_of
from tests.serve.decide.spending.made import business, groceries, monthly, past


def days(*found: int | None) -> list[date]:
    return [datetime.fromtimestamp((us or 0) / 1e6, UTC).date() for us in found]


def only(found: tuple[Recurring, ...]) -> Recurring:
    (one,) = found
    return one


def test_a_monthly_bill_is_found_with_its_next_day_and_price() -> None:
    one = only(recurring(past(monthly("flat", 5, 90_000, range(1, 7)), date(2026, 6, 20))))
    assert (one.period, one.fixed, one.amount, one.ended, one.missed) == ("monthly", True, 90_000, False, ())
    assert days(one.next_due) == [date(2026, 7, 5)]  # a Sunday: it may come on the Monday
    assert days(one.earliest, one.latest) == [date(2026, 7, 3), date(2026, 7, 6)]
    assert len(one.transaction_ids) == 6


def test_two_contracts_with_one_insurer_are_two() -> None:
    rows = monthly("insurer", 5, 4_500, range(1, 7)) + monthly("insurer", 5, 5_200, range(1, 7))
    assert sorted(one.amount for one in recurring(past(rows, date(2026, 6, 20)))) == [4_500, 5_200]


def test_two_contracts_of_one_price_on_two_days_are_two() -> None:
    rows = monthly("insurer", 3, 4_500, range(1, 7)) + monthly("insurer", 18, 4_500, range(1, 7))
    found = recurring(past(rows, date(2026, 6, 20)))
    assert [one.amount for one in found] == [4_500, 4_500]
    assert days(*(one.next_due for one in found)) == [date(2026, 7, 3), date(2026, 7, 18)]


def test_a_description_with_references_is_one_contract() -> None:
    rows = [
        (day, f"SPOTIFY P{7919 * i % 999}X", amount)
        for i, (day, _, amount) in enumerate(monthly("", 8, 999, range(1, 7)))
    ]
    one = only(recurring(past(rows, date(2026, 6, 20))))
    assert (one.amount, one.name) == (999, rows[-1][1])


def test_merchants_whose_ids_differ_in_a_number_are_no_contract() -> None:
    rows = [(day, f"merchant-{i}", 999) for i, (day, *_) in enumerate(monthly("", 8, 999, range(1, 7)))]
    assert recurring(past(rows, date(2026, 6, 20))) == ()


def test_a_description_that_many_contracts_share_is_no_key() -> None:
    rows = monthly("DIRECT DEBIT", 3, 4_500, range(1, 7)) + monthly("DIRECT DEBIT", 20, 1_299, range(1, 7))
    assert sorted(one.amount for one in recurring(past(rows, date(2026, 6, 25)))) == [1_299, 4_500]


@pytest.mark.parametrize("category", ["", "5411"])
def test_a_weekly_grocery_run_is_no_subscription(category: str) -> None:
    rows = groceries(np.random.default_rng(4), "market", date(2026, 1, 3), 26)
    assert recurring(past(rows, date(2026, 6, 30), category={"market": category})) == ()


def test_lunch_at_one_price_on_every_working_day_is_no_subscription() -> None:
    begin = date(2026, 1, 5)
    rows = [(begin + timedelta(d), "canteen", 850) for d in range(120) if (begin + timedelta(d)).weekday() < 5]
    assert recurring(past(rows, date(2026, 5, 10))) == ()


def test_a_subscription_among_purchases_at_the_same_shop_is_found() -> None:
    rng = np.random.default_rng(1)
    rows = monthly("shop", 12, 899, range(1, 8))
    rows += [
        (date(2026, 1, 1) + timedelta(int(d)), "shop", int(a))
        for d, a in zip(rng.integers(0, 200, 9), rng.uniform(2_000, 9_000, 9), strict=True)
    ]
    assert only(recurring(past(rows, date(2026, 7, 20)))).amount == 899


def test_a_trial_that_turned_into_a_fee_is_told_with_its_trial() -> None:
    rows = [(date(2026, 3, 1), "films", 100), *monthly("films", 31, 1_999, (3, 4, 5))]
    one = only(recurring(past(rows, date(2026, 6, 5))))
    assert (one.amount, one.trial) == (1_999, "t0")
    assert recurring(past(rows[:2], date(2026, 4, 5))) == ()  # one fee alone says nothing


def test_a_small_purchase_long_ago_is_no_trial() -> None:
    rows = [(date(2025, 9, 1), "films", 100), *monthly("films", 15, 1_999, (2, 3, 4, 5))]
    assert only(recurring(past(rows, date(2026, 6, 5)))).trial is None


def test_a_yearly_bill_is_found_by_its_second_payment() -> None:
    rows = [(date(2025, 3, 10), "car tax", 32_000), (date(2026, 3, 10), "car tax", 32_800)]
    one = only(recurring(past(rows, date(2026, 12, 1))))
    assert (one.period, days(one.next_due)) == ("yearly", [date(2027, 3, 10)])


def test_a_quarterly_bill_is_found() -> None:
    rows = monthly("water", 15, 6_000, (2, 5, 8, 11))
    assert only(recurring(past(rows, date(2026, 12, 1)))).period == "quarterly"


@pytest.mark.parametrize(("step", "name"), [(7, "weekly"), (14, "biweekly")])
def test_a_fee_by_the_week_is_found(step: int, name: str) -> None:
    rows = [(date(2026, 1, 7) + timedelta(step * k), "gym", 1_500) for k in range(9)]
    one = only(recurring(past(rows, rows[-1][0] + timedelta(2))))
    assert (one.period, days(one.next_due)) == (name, [rows[-1][0] + timedelta(step)])


def test_weekends_move_a_bill_and_do_not_hide_it() -> None:
    rows = [(business(day, back=False), name, amount) for day, name, amount in monthly("flat", 1, 90_000, range(1, 13))]
    one = only(recurring(past(rows, date(2026, 12, 20))))
    assert (len(one.transaction_ids), one.missed) == (12, ())
    assert days(one.next_due)[0] in (date(2027, 1, 1), date(2027, 1, 2))


def test_a_payday_at_the_end_of_months_is_one_income() -> None:
    pay = [
        (business(day, back=True), name, amount) for day, name, amount in monthly("employer", 31, 250_000, range(1, 10))
    ]
    one = only(recurring(past([], date(2026, 10, 10), received=pay)))
    assert (one.paid, one.role, one.period, len(one.transaction_ids)) == (False, "account", "monthly", 9)
    assert days(one.next_due, one.earliest) == [date(2026, 10, 31), date(2026, 10, 30)]


def test_a_price_rise_is_told_with_both_prices() -> None:
    rows = monthly("films", 12, 1_299, range(1, 6)) + monthly("films", 12, 1_499, (6, 7))
    one = only(recurring(past(rows, date(2026, 7, 20))))
    (rise,) = one.rises
    assert (rise.before, rise.after, rise.paid_before, one.amount) == (1_299, 1_499, 5, 1_499)


def test_a_bill_that_varies_is_found_with_a_range() -> None:
    amounts = (6_100, 7_400, 6_800, 5_900, 7_900, 6_500)
    rows = [(day, "power", a) for (day, *_), a in zip(monthly("", 20, 0, range(1, 7)), amounts, strict=True)]
    one = only(recurring(past(rows, date(2026, 6, 25))))
    assert not one.fixed
    assert one.low < 6_100 < 7_400 < one.high


def test_a_contract_that_stopped_has_ended_and_one_missed_has_not() -> None:
    rows = monthly("gym", 10, 3_000, range(1, 7))
    missed = only(recurring(past(rows, date(2026, 7, 25))))
    assert (missed.ended, days(*missed.missed)) == (False, [date(2026, 7, 10)])
    ended = only(recurring(past(rows, date(2026, 9, 1))))
    assert (ended.ended, ended.next_due) == (True, None)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 31), st.integers(0, 20), st.integers(0, 11))
def test_a_due_day_is_nearest_to_itself_whatever_the_month(anchor: int, year: int, month: int) -> None:
    start = (date(2010 + year, month + 1, 1) - date(1970, 1, 1)).days
    day = due(anchor, start, PERIODS[2], 1)
    assert nearest(anchor, day) == (day, 0)
    assert off(day, day) == 0


def test_random_purchases_are_hardly_ever_a_contract() -> None:
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(60):
        rows = [
            (date(2026, 1, 1) + timedelta(int(d)), f"shop {rng.integers(12)}", int(np.exp(rng.normal(8, 0.8))))
            for d in rng.integers(0, 240, 150)
        ]
        found += len(recurring(past(rows, date(2026, 8, 30))))
    assert found <= 2


@pytest.mark.parametrize(
    ("text", "stem"), [("SPOTIFY P1A2B3", "spotify"), ("m-17", ""), ("PAYPAL *NETFLIX 0231", "paypal netflix")]
)
def test_a_description_loses_its_references(text: str, stem: str) -> None:
    assert stem_of(text) == stem
