"""What a category's code stands for: currencies are named, and amounts of several are never added up."""

from itertools import combinations

import numpy as np
import pyarrow as pa

from data.currency import exponent, format_amount
from graph.dag.categories import CurrencyNames, category_code, category_codes

CODES = [
    "EUR",
    "USD",
    "GBP",
    "JPY",
    "BHD",
    "KWD",
    "CHF",
    "PLN",
    "SEK",
    "NOK",
    "DKK",
    "CZK",
    "HUF",
    "RON",
    "BGN",
    "TRY",
    "AUD",
    "NZD",
    "CAD",
    "MXN",
    "BRL",
    "CLP",
    "KRW",
    "INR",
    "CNY",
]


def test_sums_are_kept_by_currency() -> None:
    names = CurrencyNames()
    column = pa.array(["EUR", "JPY", "EUR", None])
    names.see(column.drop_null())
    totals = names.totals(category_codes(column), np.array([1, 20, 300, 4000]))
    assert totals == {"EUR": 301, "JPY": 20, "": 4000}


def test_currencies_that_share_a_code_are_all_named_and_never_scaled_wrongly() -> None:
    by_code: dict[int, list[str]] = {}
    for a, b, c in combinations("ABCDEFGHIJKLM", 3):
        by_code.setdefault(category_code(a + b + c), []).append(a + b + c)
    one, other = next(names for names in by_code.values() if len(names) > 1)[:2]
    names = CurrencyNames()
    names.see(pa.array([other, one]))
    [both] = names.of([category_code(one)])
    assert both == "/".join(sorted([one, other]))
    assert format_amount(1234, both) == f"12.34 {both}"
    assert format_amount(1234, "EUR/JPY") == "1,234 minor units of EUR/JPY"
    assert exponent("JPY") == 0


def test_names_outlast_a_snapshot() -> None:
    names, restored = CurrencyNames(), CurrencyNames()
    names.see(pa.array(CODES))
    restored.adopt(names.facts())
    codes = [category_code(code) for code in CODES]
    assert restored.of(codes) == names.of(codes)
    assert names.of([0]) == [""]
