"""ISO 4217: how many decimals a currency has, and how an amount in its minor unit is shown to people."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

USUAL: Final = 2  # decimals of every currency that is not in the table
# Active codes with another number of decimals (ISO 4217 list one, "minor unit").
_EXPONENTS: Final[dict[str, int]] = {
    **dict.fromkeys(("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND"), 0),
    **dict.fromkeys(("VUV", "XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}


def exponent(currency: str | None) -> int:
    """Decimals of a currency: 0 for JPY, 3 for BHD, 2 for EUR and for any code without a known number of its own."""
    return _EXPONENTS.get(currency or "", USUAL)


def format_amount(minor: int, currency: str | None = None) -> str:
    """An amount for people, such as `1,234.50 EUR`, `1,234 JPY` or `1.234 BHD`.

    Args:
        minor: Minor units.
        currency: ISO 4217 code; without one, hundredths are assumed and no code is shown. Several, as `EUR/USD`, where
            it is one of these.
    """
    places = {exponent(code) for code in (currency or "").split("/")}
    if len(places) > 1:
        return f"{int(minor):,} minor units of {currency}"
    decimals = places.pop()
    figure = f"{Decimal(int(minor)).scaleb(-decimals):,.{decimals}f}"
    return f"{figure} {currency}" if currency else figure


def format_totals(totals: Mapping[str, int]) -> str:
    """Sums by currency for people, the largest figure first: amounts of different currencies are never added up."""
    if not totals:
        return "0"
    order = sorted(totals, key=lambda code: (-Decimal(int(totals[code])).scaleb(-exponent(code)), code))
    return " + ".join(format_amount(totals[code], code) for code in order)
