"""Amounts are shown with the decimals of their currency, and never added up across currencies."""

import numpy as np
import pyarrow as pa
import pytest

from data.currency import exponent, format_amount, format_totals


@pytest.mark.parametrize(
    ("minor", "currency", "shown"),
    [
        (123_450, "EUR", "1,234.50 EUR"),
        (1_234, "JPY", "1,234 JPY"),
        (1_234, "BHD", "1.234 BHD"),
        (1, "CLF", "0.0001 CLF"),
        (10**15, "USD", "10,000,000,000,000.00 USD"),
        (0, "KWD", "0.000 KWD"),
        (123_450, None, "1,234.50"),
        (5, "XYZ", "0.05 XYZ"),
    ],
)
def test_an_amount_has_the_decimals_of_its_currency(minor: int, currency: str | None, shown: str) -> None:
    assert format_amount(minor, currency) == shown


def test_totals_are_kept_apart_by_currency_largest_first() -> None:
    assert format_totals({"EUR": 100, "JPY": 100, "USD": 250}) == "100 JPY + 2.50 USD + 1.00 EUR"
    assert format_totals({}) == "0"
    assert [exponent(code) for code in ("ISK", "UGX", "TND", "LYD", "UYW", "CHF", None)] == [0, 0, 3, 3, 4, 2, 2]


def test_totals_of_payments_are_kept_apart_by_currency() -> None:
    from serve.cli.demo import totals

    payments = pa.table({"currency": ["EUR", "JPY", "EUR", "USD"], "amount": [100, 100, 250, 9]})
    assert totals(payments, np.array([True, True, True, False])) == {"EUR": 350, "JPY": 100}


def test_quarters_by_amount_are_within_one_currency() -> None:
    from gnn.quality.card import _quarters

    amount = np.array([100, 200, 300, 400, 7])
    found = _quarters(amount, np.array([True] * 4 + [False]), "JPY")
    assert list(found) == [
        "amount below 175 JPY",
        "amount 175 JPY to 250 JPY",
        "amount 250 JPY to 325 JPY",
        "amount from 325 JPY",
    ]
    assert [mask.tolist().index(True) for mask in found.values()] == [0, 1, 2, 3]
    assert not any(mask[4] for mask in found.values())
