"""Yes or no."""

import pyarrow as pa
import pyarrow.compute as pc

from data.columns.column import Column, is_text, plain, refuse, shown, text_of, without

YES = ("true", "t", "yes", "y", "1", "1.0")
NO = ("false", "f", "no", "n", "0", "0.0")


def flags(raw: pa.Array) -> Column:
    """Yes or no: booleans, the numbers 0 and 1 of any type, or their text, true, false, yes, no and first letters.

    Raises:
        TypeError: The type is none of these.
    """
    raw = plain(raw)
    kind = raw.type
    if pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return Column(raw.cast(pa.bool_()))
    reasons: dict[int, str] = {}
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        numbers = raw.cast(pa.float64())
        yes, good = pc.equal(numbers, 1.0), pc.or_(pc.equal(numbers, 0.0), pc.equal(numbers, 1.0))
    elif is_text(kind):
        values, reasons = text_of(raw)
        tidy = pc.utf8_lower(pc.utf8_trim_whitespace(values))
        yes = pc.is_in(tidy, value_set=pa.array(YES))
        good = pc.or_(yes, pc.is_in(tidy, value_set=pa.array(NO)))
        raw = values
    else:
        raise TypeError(f"{kind} is neither true nor false")
    bad = pc.and_(pc.invert(good), raw.is_valid())
    refuse(reasons, bad, lambda row: f"{shown(raw[row])} is not true or false")
    yes = pc.if_else(raw.is_valid(), yes, pa.scalar(None, pa.bool_()))
    return Column(without(yes, reasons), reasons)
