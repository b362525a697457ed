"""Amounts in minor units.

A decimal among amounts is the mark of major units: 12.34 beside 2826.00 is money, and 2826.00 taken for 2,826 cents
would be a hundred times too little. So one decimal refuses a whole column, unless its unit is named.
"""

from dataclasses import replace
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data.columns.column import Column, is_text, plain, refuse, shown, text_of, without
from data.columns.notation import CANONICAL, NUMBER, Notation
from data.currency import USUAL

_WAY_OUT: Final = (
    "amounts are whole numbers of minor units (12.34 EUR is 1234). For files, name the unit: --amount-unit major where "
    "12.34 means 12.34 EUR, or --amount-unit minor where 4200.0 means 42.00 EUR"
)
_NOISE: Final = 1e-6  # minor units that arithmetic with floats may have added: 85.64999999999999 is 85.65
_DIGITS: Final = 15  # of a text, above which it is that of a float
_EASY: Final = 13  # digits before the point that, with three behind it, a float64 holds exactly enough


def amounts(raw: pa.Array, limit: int, notation: Notation = CANONICAL) -> Column:
    """Amounts in minor units, 0 to `limit`.

    Integers, and text that is a whole number without a decimal point (`4200`, ` 12`, `3e3`, `1.5e+07`), need no unit.
    Floats, decimals and text with a point do. In major units a value is converted exactly; one with more decimals than
    its currency has is refused, but for what the arithmetic of floats adds (a millionth of a minor unit).

    Args:
        raw: The values.
        limit: Minor units, at most.
        notation: Which unit, whether the decimal point is a comma, and the decimals of each row's currency.

    Raises:
        TypeError: The type holds no numbers, or the column holds decimals and no unit is named.
    """
    raw = plain(raw)
    kind = raw.type
    if pa.types.is_decimal(kind):
        if kind.scale > 0 and notation.amount_unit is None:
            _refuse_column(raw)
        raw = raw.cast(pa.string())
        notation = replace(notation, decimal_comma=False)  # that is how text is written, not numbers
    powers = None
    if notation.amount_unit == "major":
        powers = np.full(len(raw), USUAL) if notation.exponents is None else notation.exponents
    if is_text(raw.type):
        return _of_text(raw, limit, notation, powers)
    if pa.types.is_floating(kind):
        if notation.amount_unit is None:
            _refuse_column(raw)
        return _of_floats(raw, limit, powers)
    if pa.types.is_integer(kind) or pa.types.is_null(kind):
        return _bounded(raw, {}, limit, powers)
    raise TypeError(f"{kind} is not a number of minor units (int64)")


def _refuse_column(raw: pa.Array) -> None:
    """Raise for a column of decimals, unless it holds no value at all."""
    held = raw.drop_null()
    if len(held):
        raise TypeError(f"holds decimals, such as {held[0].as_py()}: {_WAY_OUT}")


def _bounded(values: pa.Array, reasons: dict[int, str], limit: int, powers: NDArray[np.int64] | None = None) -> Column:
    """Integers in [0, limit] once converted."""
    if pa.types.is_null(values.type):
        values = values.cast(pa.int64())
    if values.type != pa.uint64():
        values = values.cast(pa.int64())
        refuse(reasons, pc.less(values, 0), lambda row: f"{values[row].as_py()} is negative")
    tops = np.full(len(values), limit) if powers is None else limit // 10**powers
    top = pa.array(tops, values.type)
    refuse(reasons, pc.greater(values, top), lambda row: f"{values[row].as_py()} is more than {tops[row]}")
    good = without(values, reasons).cast(pa.int64())
    return Column(good if powers is None else pc.multiply(good, pa.array(10**powers)), reasons)


def _of_floats(raw: pa.Array, limit: int, powers: NDArray[np.int64] | None) -> Column:
    reasons: dict[int, str] = {}
    valid = raw.is_valid().to_numpy(zero_copy_only=False)
    # In the width it came in: the float32 nearest to 12.34 is another number than the float64.
    given = raw.fill_null(0).to_numpy(zero_copy_only=False)
    given = given.astype(np.float32) if given.dtype == np.float16 else given
    scale = np.float64(1) if powers is None else 10.0**powers
    with np.errstate(over="ignore", invalid="ignore"):
        units = np.rint(given.astype(np.float64) * scale)
        apart = np.spacing(np.abs(given)).astype(np.float64) * scale  # minor units from one float to the next
        lost = np.abs(given.astype(np.float64) * scale - units)
        exact = lost <= (0 if powers is None else np.maximum(_NOISE, apart))
        fine = apart < 1 / 4  # else neighbouring minor units look alike
    for row in np.flatnonzero(valid & ~(np.isfinite(given) & exact & (fine | (units > limit)))).tolist():
        value = given[row]
        if not np.isfinite(value):
            reasons[row] = f"{value} is not a number"
        elif powers is None:
            reasons[row] = f"{value} is not a whole number of minor units"
        else:
            why = "has more decimals than its currency" if not exact[row] else f"is too large for a {raw.type}"
            reasons[row] = f"{value} {why}" + (f" ({powers[row]})" if not exact[row] else " to hold minor units")
    for row in np.flatnonzero(valid & (units < 0)).tolist():
        reasons.setdefault(row, f"{given[row]} is negative")
    for row in np.flatnonzero(valid & (units > limit)).tolist():
        reasons.setdefault(row, f"{given[row]} is more than {limit} minor units")
    good = valid.copy()
    good[list(reasons)] = False
    return Column(pa.array(np.where(good, units, 0).astype(np.int64), mask=~good), reasons)


def _of_text(raw: pa.Array, limit: int, notation: Notation, powers: NDArray[np.int64] | None) -> Column:
    text, reasons = text_of(raw)
    if powers is None:
        easy = pc.match_substring_regex(text, r"^\d{1,18}$")
        if not text.null_count and pc.all(easy, min_count=0).as_py():
            return _bounded(text.cast(pa.int64()), reasons, limit)
        easy = easy.fill_null(False).to_numpy(zero_copy_only=False)
        values = pc.if_else(pa.array(easy), text, pa.scalar(None, pa.string())).cast(pa.int64())
    else:
        easy, values = _easy_decimals(text, powers, "," if notation.decimal_comma else r"\.")
    hard = np.flatnonzero(text.is_valid().to_numpy(zero_copy_only=False) & ~easy).tolist()
    if hard:
        held = values.to_pylist()
        for row in hard:
            found = _exact(text[row].as_py(), notation, None if powers is None else int(powers[row]), limit)
            if isinstance(found, str):
                reasons[row] = found
            else:
                held[row] = found
        values = pa.array(held, pa.int64())
    return _bounded(values, reasons, limit)


def _easy_decimals(text: pa.Array, powers: NDArray[np.int64], point: str) -> tuple[NDArray[np.bool_], pa.Array]:
    """Those in plain notation with at most as many decimals as their currency: a mask, and their minor units."""
    easy = np.zeros(len(text), bool)
    for power in np.unique(powers).tolist():
        fraction = rf"({point}\d{{1,{power}}})?" if power else ""
        good = pc.match_substring_regex(text, rf"^\d{{1,{_EASY}}}{fraction}$").fill_null(False)
        easy |= good.to_numpy(zero_copy_only=False) & (powers == power)
    figures = pc.if_else(pa.array(easy), text, pa.scalar("0"))
    figures = pc.replace_substring(figures, ",", ".").cast(pa.float64()).to_numpy()
    units = np.rint(figures * 10.0**powers).astype(np.int64)
    return easy, pa.array(units, mask=~easy)


def _exact(value: str, notation: Notation, power: int | None, limit: int) -> int | str:
    """Minor units of one text, or what is wrong with it.

    Raises:
        TypeError: It is a decimal, and no unit is named.
    """
    written = value.strip()
    if notation.decimal_comma and "." not in written:
        written = written.replace(",", ".")
    if not NUMBER.fullmatch(written):
        return not_number(value)
    with localcontext() as context:
        context.prec = 1100  # exponents have at most three digits: nothing is rounded
        number = Decimal(written)
        if notation.amount_unit is None and (("." in written and "e" not in written.lower()) or number % 1):
            raise TypeError(f"holds decimals, such as {value.strip()[:40]}: {_WAY_OUT}")
        if number.adjusted() > 30:
            return f"{written[:40]} is too large"
        units = number if power is None else number.scaleb(power)
        whole = units.to_integral_value(ROUND_HALF_EVEN)
        if power is not None and len(number.as_tuple().digits) >= _DIGITS and abs(units - whole) <= Decimal(_NOISE):
            units = whole
        if whole != units:
            more = "is not a whole number of minor units" if power is None else "has more decimals than its currency"
            return f"{written[:40]} {more}" + ("" if power is None else f" ({power})")
        if whole < 0:
            return f"{written[:40]} is negative"
        return int(whole) if whole <= limit else f"{written[:40]} is more than {limit} minor units"


def not_number(value: str) -> str:
    """Why a text is no number, with what helps where the mistake is a common one."""
    bare = value.strip()
    why = f"{shown(value)} is not a number"
    if not bare:
        return why
    if bare.strip("-+").lower() in ("nan", "inf", "infinity"):
        return f"{bare} is not a number"
    figure = bare.strip("$€£¥₹ \u00a0").removesuffix(bare[-3:] if bare[-3:].isalpha() else "").strip()
    figure = figure.removeprefix(figure[:3] if figure[:3].isalpha() else "").strip()
    if figure != bare and figure[:1].isdigit():
        return f"{why}: leave out the currency sign"
    if "," in figure and figure.replace(",", "").replace(".", "").isdigit():
        if "." in figure or figure.count(",") > 1:
            return f"{why}: leave out the separator of thousands"
        return f"{why}: a decimal comma is read with --decimal-comma"
    return why
