"""How a file writes amounts, times and identifiers: units, decimal commas, integers that are ids."""

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.columns.notation import Notation, TimeUnit
from data.errors import DataError, SchemaError
from data.schema import MAX_AMOUNT, check_transactions
from tests.data.test_schema import NOON, rows


def major(amount: pa.Array, currencies: list[str | None], **more: Any) -> tuple[list[int], list[tuple[int, str, str]]]:
    """Amounts read in major units, and what was refused."""
    table = rows("amount", amount).set_column(6, "currency", pa.array(currencies, pa.string()))
    batch, refusals = check_transactions(table, notation=Notation("major", **more))
    return batch.column("amount").to_pylist(), [(r.row, r.column, r.reason) for r in refusals]


@pytest.mark.parametrize("kind", ["text", "float", "decimal", "integer text"])
def test_major_units_are_converted_by_the_exponent_of_each_currency(kind: str) -> None:
    currencies = ["EUR", "JPY", "BHD", "CLF"]
    values = ["12.34", "1234", "1.234", "0.0001"]
    column = {
        "text": pa.array(values),
        "float": pa.array([float(v) for v in values]),
        "decimal": pa.array([Decimal(v) for v in values], pa.decimal128(20, 4)),
        "integer text": pa.array(["12", "1234", "1", "3e3"]),
    }[kind]
    found, refused = major(column, currencies)
    assert not refused
    assert found == ([1200, 1234, 1000, 30_000_000] if kind == "integer text" else [1234, 1234, 1234, 1])


@pytest.mark.parametrize("make", [pa.array, lambda values: pa.array([float(v) for v in values])])
def test_fractions_of_a_minor_unit_are_refused_by_row(make: Any) -> None:
    found, refused = major(make(["1.005", "12.30", "12.5", "0.1"]), ["EUR", "EUR", "JPY", "EUR"])
    assert found == [1230, 10]
    assert refused == [
        (0, "amount", "1.005 has more decimals than its currency (2)"),
        (2, "amount", "12.5 has more decimals than its currency (0)"),
    ]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, MAX_AMOUNT), min_size=1, max_size=8), st.sampled_from(["EUR", "JPY", "BHD", "CLF"]))
def test_every_minor_unit_survives_its_way_through_major_units(units: list[int], currency: str) -> None:
    places = {"EUR": 2, "JPY": 0, "BHD": 3, "CLF": 4}[currency]
    exact = [Decimal(u).scaleb(-places) for u in units]
    for column in (pa.array([str(v) for v in exact]), pa.array([float(v) for v in exact])):
        assert major(column, [currency] * len(units)) == (units, [])


def test_what_arithmetic_with_floats_adds_is_rounded_off() -> None:
    noisy = ["85.64999999999999", "0.30000000000000004", "1.0000001"]
    for column in (pa.array(noisy), pa.array([float(v) for v in noisy])):
        found, refused = major(column, ["EUR"] * 3)
        assert found == [8565, 30]
        assert refused == [(2, "amount", "1.0000001 has more decimals than its currency (2)")]


def test_major_units_beyond_the_limit_or_below_zero_are_refused() -> None:
    for column in (pa.array(["1e14", "-0.01", "5"]), pa.array([1e14, -0.01, 5]), pa.array([10**14, -1, 5])):
        found, refused = major(column, ["EUR"] * 3)
        assert found == [500]
        assert "more than" in refused[0][2]
        assert "negative" in refused[1][2]


def test_a_float32_that_cannot_hold_minor_units_is_refused() -> None:
    found, refused = major(pa.array([12.34, 200_000.10], pa.float32()), ["EUR"] * 2)
    assert found == [1234]
    assert "too large for a float" in refused[0][2]


def test_a_bad_currency_is_named_and_not_the_amount() -> None:
    assert major(pa.array(["1.5", "1.5"]), ["euro", None])[1] == [
        (0, "currency", "'euro' is not three upper-case letters"),
        (1, "currency", "is missing"),
    ]


def test_named_minor_units_may_be_floats_and_decimals() -> None:
    for column in (
        pa.array([4200.0, 1.5]),
        pa.array([Decimal("4200.00"), Decimal("1.50")]),
        pa.array(["4200.0", "1.5"]),
    ):
        batch, refusals = check_transactions(rows("amount", column), notation=Notation("minor"))
        assert batch.column("amount").to_pylist() == [4200]
        assert [r.reason for r in refusals] == [f"{column[1].as_py()} is not a whole number of minor units"]


def test_a_decimal_comma_is_read_where_it_is_named() -> None:
    assert major(pa.array(["12,34", "1.234,5", "7"]), ["EUR"] * 3, decimal_comma=True) == (
        [1234, 700],
        [(1, "amount", "'1.234,5' is not a number: leave out the separator of thousands")],
    )
    with pytest.raises(SchemaError, match="holds decimals, such as 12,34"):
        check_transactions(rows("amount", ["12,34"]), notation=Notation(decimal_comma=True))


@pytest.mark.parametrize(
    ("unit", "values"),
    [
        ("s", pa.array([1_577_880_000])),
        ("s", pa.array([1_577_880_000], pa.uint32())),
        ("s", pa.array([1_577_880_000.0])),
        ("ms", pa.array(["1577880000000"])),
        ("us", pa.array([1_577_880_000_000_000])),
        ("ns", pa.array([1_577_880_000_000_000_000])),
        ("s", pa.array([Decimal("1577880000.000")])),
        ("s", pa.array(["1.57788e9"])),
        ("s", pa.array(["2020-01-01T12:00:00Z"])),
        ("h@2019-12-31", pa.array([36], pa.int8())),
        ("min@2020-01-01", pa.array(["720"])),
        ("d@2020-01-01", pa.array([0.5])),
        ("%d/%m/%Y %H:%M", pa.array(["01/01/2020 12:00"])),
    ],
)
def test_an_epoch_is_taken_where_its_unit_is_named(unit: str, values: pa.Array) -> None:
    notation = Notation(times={"timestamp": TimeUnit.of(unit)})
    batch, refusals = check_transactions(rows("timestamp", values), notation=notation)
    assert not refusals
    assert batch.column("timestamp").to_pylist() == [NOON]


def test_an_epoch_outside_the_calendar_is_refused_by_row() -> None:
    notation = Notation(times={"timestamp": TimeUnit.of("s")})
    for values in ([2**63 - 1, 5, -(2**63)], [1e300, 5.0, -1e300], ["9" * 18, "5", "-1"]):
        _, refusals = check_transactions(rows("timestamp", values), notation=notation)
        assert [(r.row, r.reason[:10]) for r in refusals] == [(i, "is outside") for i in range(3)]
    for bad in ("fortnight", "s@noon"):
        with pytest.raises(DataError, match=r"unit of time|ISO 8601 date"):
            TimeUnit.of(bad)


def test_identifiers_that_are_named_integers_lose_their_point() -> None:
    notation = Notation(integers=frozenset({"device_id"}))
    for values in (pa.array([17.0, None]), pa.array(["17.0", None]), pa.array([Decimal("17.00"), None])):
        batch, refusals = check_transactions(rows("device_id", values), notation=notation)
        assert not refusals
        assert batch.column("device_id").to_pylist() == ["17", None]
    assert "not an integer" in check_transactions(rows("device_id", [1.5, 2.0**60]), notation=notation)[1][1].reason
