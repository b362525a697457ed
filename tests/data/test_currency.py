"""Amounts are shown with the decimals of their currency, and never added up across currencies."""

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
