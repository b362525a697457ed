"""What an owner is told, and what looks like it and is not."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest

from serve.decide.spending.crowd import Crowd
from serve.decide.spending.guidance import Advice, Around, guidance
from serve.decide.spending.past import Past
from serve.decide.spending.profile import profile
from tests.serve.decide.spending.made import Row, groceries, monthly, past

NOW = date(2026, 7, 20)
DAILY = groceries(np.random.default_rng(1), "market", date(2026, 1, 3), 28)


def told(held: Past, **around: object) -> list[Advice]:
    return list(guidance(held, profile(held, Crowd()), Around(**around)))  # type: ignore[arg-type]


def kinds(found: Sequence[Advice]) -> list[str]:
    return [one.kind for one in found]


def twice(rows: list[Row], minutes: int = 5) -> Past:
    """A past whose last payment was made again some minutes later."""
    held = past(rows, NOW)
    again = replace(
        held,
        ids=[*held.ids, "again"],
        time=np.append(held.time, held.time[-1] + minutes * 60_000_000),
        paid=np.append(held.paid, True),
        amount=np.append(held.amount, held.amount[-1]),
        probability=np.append(held.probability, np.nan),
    )
    more = {
        name: [*getattr(held, name), getattr(held, name)[-1]] for name in ("other", "merchant", "category", "currency")
    }
    return replace(again, **more)


def prices(*amounts: int) -> dict[str, object]:
    return {"prices": lambda role, name, currency: np.array(amounts, np.int64)}


def test_a_charge_made_twice_is_told_with_both() -> None:
    (one,) = told(twice([*DAILY, (date(2026, 7, 19), "shop", 4_321)]), **prices(1_000, 2_500, 999, 780, 4_000))
    assert (one.kind, one.amount, one.transaction_ids[-1]) == ("duplicate_charge", 4_321, "again")
    assert one.confidence >= 0.8


def test_two_tickets_at_the_price_of_the_list_are_no_duplicate() -> None:
    assert told(twice([*DAILY, (date(2026, 7, 19), "cinema", 1_250)]), **prices(1_250, 1_250, 1_250, 980, 1_250)) == []


def test_where_nobody_else_pays_a_duplicate_is_not_certain_enough() -> None:
    assert told(twice([*DAILY, (date(2026, 7, 19), "shop", 4_321)])) == []


def test_two_contracts_at_one_price_on_one_day_are_no_duplicate() -> None:
    rows = monthly("insurer", 16, 4_500, range(1, 8)) + monthly("insurer", 16, 4_500, range(1, 8))
    assert "duplicate_charge" not in kinds(told(past(rows, NOW), **prices(1, 2, 3, 4, 5)))


def test_a_charge_out_of_all_proportion_is_told_against_what_was_expected_before_it() -> None:
    held = past([*DAILY, (date(2026, 7, 18), "far away", 240_000)], NOW)
    (one,) = told(held)
    assert (one.kind, one.name) == ("unusual_charge", "far away")
    (unusual,) = profile(held, Crowd()).unusual
    assert unusual.expected < 20_000 < one.amount
    later = past([*DAILY, (date(2026, 7, 18), "far away", 240_000), (date(2026, 7, 19), "again", 900_000)], NOW)
    assert profile(later, Crowd()).unusual[-1] == unusual  # what came after changes nothing


@pytest.mark.parametrize(
    "rows",
    [
        [(date(2025, 7, 18), "car tax", 240_000), (date(2026, 7, 18), "car tax", 245_000)],
        [(date(2026, 4, 18), "savings", 200_000), (date(2026, 7, 18), "savings", 240_000)],
        monthly("flat", 1, 240_000, range(1, 8)),
    ],
    ids=["a yearly bill", "somebody paid as much before", "a rent"],
)
def test_large_payments_that_were_to_be_expected_are_not_unusual(rows: list[Row]) -> None:
    assert "unusual_charge" not in kinds(told(past([*DAILY, *rows], NOW)))


def test_a_price_rise_is_told_once_it_is_one() -> None:
    rows = monthly("films", 12, 1_299, range(1, 7)) + monthly("films", 12, 1_499, (7,))
    assert kinds(told(past(rows, NOW))) == ["price_rise", "upcoming_bills"]
    fell = monthly("films", 12, 1_499, range(1, 7)) + monthly("films", 12, 1_299, (7,))
    assert kinds(told(past(fell, NOW))) == ["upcoming_bills"]
    discount = (
        monthly("films", 12, 1_299, range(1, 6)) + monthly("films", 12, 699, (6,)) + monthly("films", 12, 1_299, (7,))
    )
    assert "price_rise" not in kinds(told(past(discount, NOW)))


def test_a_trial_that_became_a_fee_is_told_with_the_trial_as_evidence() -> None:
    rows = [(date(2026, 5, 29), "films", 100), *monthly("films", 12, 1_999, (6, 7))]
    one = next(a for a in told(past(rows, NOW)) if a.kind == "trial_became_fee")
    assert one.transaction_ids == ("t0", "t1", "t2")
    bought = [
        (date(2026, 5, 29), "films", 100),
        (date(2026, 6, 12), "films", 1_999),
        (date(2026, 7, 3), "films", 2_400),
    ]
    assert "trial_became_fee" not in kinds(told(past(bought, NOW)))


def test_a_shop_in_a_ring_is_told_to_those_who_paid_it_of_late() -> None:
    def rings(role: str, name: str) -> list[tuple[str, float]]:
        return [("K-7", 0.9)] if name == "shop" else []

    (one,) = told(past([*DAILY, (date(2026, 7, 1), "shop", 700)], NOW), rings=rings)
    assert (one.ring_id, one.confidence, one.name) == ("K-7", 0.9, "shop")
    assert told(past([*DAILY, (date(2026, 2, 1), "shop", 700)], NOW), rings=rings) == []


def test_bills_ahead_are_told_against_income_and_a_balance_that_will_not_do() -> None:
    pay = monthly("works", 28, 250_000, range(1, 7))
    held = past([*DAILY, *monthly("flat", 25, 90_000, range(1, 7))], NOW, received=pay)
    (bills,) = told(held)
    assert (bills.kind, bills.amount) == ("upcoming_bills", 90_000)
    assert "2,500.00 EUR" in bills.text
    short = next(a for a in told(held, balance={"EUR": 50_000}) if a.kind == "shortfall")
    assert datetime.fromtimestamp(short.at / 1e6, UTC).date() == date(2026, 7, 25)  # the rent, before the salary
    assert kinds(told(held, balance={"EUR": 200_000})) == ["upcoming_bills"]
    assert timedelta(0) < timedelta(microseconds=short.at - held.as_of)


def test_known_frauds_say_nothing_of_habits() -> None:
    from tests.serve.cases.fake import FakeInvestigation, paid

    world = FakeInvestigation()
    world.payments = [paid(f"f{k}", "anna", k, merchant="films", fraud=k == 3) for k in range(5)]
    known = world.profile("anna", as_of=world.clock)
    assert known is not None
    assert known.payments == 4
