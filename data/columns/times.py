"""Points in time."""

from datetime import datetime
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from data.columns.column import Column, is_text, plain, refuse, shown, text_of, without
from data.columns.notation import TimeUnit

_ISO: Final = r"^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d(:?\d\d)?)?)?$"
_ZONE: Final = r":\d\d(\.\d+)?(Z|[+-]\d\d(:?\d\d)?)$"
_PER_SECOND: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_NUMBER: Final = r"^[+-]?\d{1,18}(\.\d*)?([eE][+-]?\d{1,2})?$"
# What other programs write, step by step to the form above. Blanks and case are dealt with before.
_REWRITES: Final = (
    (r" ?([+-]\d\d:?\d\d) (UTC|GMT|Z)$", r"\1"),  # Go: 2020-01-31 12:00:00 +0000 UTC
    (r" ?(UTC|GMT|Z)$", "Z"),
    (r" ([+-]\d\d(:?\d\d)?)$", r"\1"),
    (r"(:\d\d),(\d+)", r"\1.\2"),  # ISO 8601 has a comma for the decimal sign, as has Python's logging
    (r"^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)", r"\1-\2-\3T\4:\5:\6"),  # the basic format
    (r"^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(Z|[+-]|$)", r"\1-\2-\3T\4:\5\6"),
    (r"^(\d{4}-\d\d-\d\d[T ]\d\d)(Z|[+-]|$)", r"\1:00\2"),  # hours alone
)


def times(raw: pa.Array, earliest: datetime, latest: datetime, unit: TimeUnit | None = None) -> Column:
    """Points in time in [earliest, latest), to UTC microseconds, finer parts cut off; without a zone they are UTC.

    Args:
        raw: Timestamps, dates (midnight), ISO 8601 text; with a `unit`, numbers and their text, or text of its pattern.
        earliest: The first moment that is allowed.
        latest: The first moment after those.
        unit: What numbers count.

    Raises:
        TypeError: The type is none of these, or holds numbers of which no unit is named.
    """
    raw = plain(raw)
    reasons: dict[int, str] = {}
    outside = f"is outside [{earliest:%Y-%m-%d}, {latest:%Y-%m-%d})"
    low, high = _us(earliest), _us(latest)
    kind = raw.type
    if is_text(kind):
        text, reasons = text_of(raw)
        raw = _of_text(text, reasons, unit, low, high, outside)
    elif pa.types.is_null(kind):
        raw = raw.cast(pa.timestamp("us"))
    elif pa.types.is_date(kind):
        raw = raw.cast(pa.timestamp("s" if kind == pa.date32() else "ms"))
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        if unit is None or unit.pattern is not None:
            raise TypeError(_no_unit(raw))
        raw = _counted(raw, reasons, unit, low, high, outside)
    if not pa.types.is_timestamp(raw.type):
        raise TypeError(f"{raw.type} is not a timestamp")
    per = _PER_SECOND[raw.type.unit]
    ticks = raw.cast(pa.int64())
    # Judged in the unit it came in: a cast of seconds to microseconds could overflow.
    first, end = low // 10**6 * per, high // 10**6 * per
    refuse(reasons, pc.or_(pc.less(ticks, first), pc.greater_equal(ticks, end)), lambda _: outside)
    ticks = without(ticks, reasons)
    if per < 10**6:
        ticks = pc.multiply(ticks, 10**6 // per)
    elif per > 10**6:
        ticks = pc.divide(ticks, per // 10**6)
    return Column(ticks.cast(pa.timestamp("us", tz="UTC")), reasons)


def _us(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**6


def _no_unit(raw: pa.Array) -> str:
    held = raw.drop_null()
    example = f", such as {held[0].as_py()}" if len(held) else ""
    guess = guessed_unit(float(held[0].as_py())) if len(held) else None
    more = f"; these look like {guess} since 1970" if guess else ""
    return (
        f"{raw.type} is not a timestamp{example}: name what it counts, s, ms, us or ns behind the column in --map "
        f"(--map timestamp=COLUMN:{guess or 's'}){more}"
    )


def guessed_unit(value: float) -> str | None:
    """The unit in which a number is a moment from 2000 to 2100: there is one at most. For messages only."""
    for name, per in _PER_SECOND.items():
        if 946_684_800 * per <= value < 4_102_444_800 * per:
            return name
    return None


def _counted(raw: pa.Array, reasons: dict[int, str], unit: TimeUnit, low: int, high: int, outside: str) -> pa.Array:
    """Numbers as moments."""
    top, bottom = unit.ratio
    # The moments allowed, in the number's own unit: what is outside never reaches a multiplication.
    first, end = -(-(low - unit.origin_us) * bottom // top), -(-(high - unit.origin_us) * bottom // top)
    if pa.types.is_integer(raw.type):
        bad = pc.greater_equal(raw, pa.scalar(end, raw.type)) if end < 2**63 and _fits(end, raw.type) else None
        if bad is not None:
            refuse(reasons, bad, lambda _: outside)
        if _fits(first, raw.type):
            refuse(reasons, pc.less(raw, pa.scalar(first, raw.type)), lambda _: outside)
        good = without(raw, reasons).cast(pa.int64())
        ticks = pc.divide(good, bottom) if bottom > 1 else pc.multiply(good, top)
        return pc.add(ticks, unit.origin_us).cast(pa.timestamp("us"))
    figures = raw.cast(pa.float64())
    refuse(reasons, pc.invert(pc.is_finite(figures)), lambda row: f"{raw[row].as_py()} is not a number")
    refuse(reasons, pc.or_(pc.less(figures, float(first)), pc.greater_equal(figures, float(end))), lambda _: outside)
    good = without(figures, reasons)
    ticks = pc.round(pc.multiply(good, top / bottom)).cast(pa.int64())
    return pc.add(ticks, unit.origin_us).cast(pa.timestamp("us"))


def _fits(value: int, kind: pa.DataType) -> bool:
    try:
        pa.scalar(value, kind)
    except (OverflowError, pa.ArrowInvalid):
        return False
    return True


def _of_text(
    text: pa.Array, reasons: dict[int, str], unit: TimeUnit | None, low: int, high: int, outside: str
) -> pa.Array:
    """Text as moments; null with a reason where it is none."""
    if unit is not None and unit.pattern is not None:
        tidy = pc.utf8_trim_whitespace(text)
        raw = pc.strptime(tidy, format=unit.pattern, unit="us", error_is_null=True)
        bad = pc.and_(raw.is_null(), text.is_valid())
        refuse(reasons, bad, lambda row: f"{shown(text[row])} is not written as {unit.pattern}")
        return raw
    good = pc.match_substring_regex(text, _ISO).fill_null(True)
    if pc.all(good, min_count=0).as_py():
        raw = _parsed(without(text, reasons))
    else:
        raw = _rewritten(text, reasons, good, unit, low, high, outside)
    refuse(reasons, pc.and_(raw.is_null(), text.is_valid()), lambda row: not_time(text[row].as_py()))
    return raw


def _rewritten(
    text: pa.Array, reasons: dict[int, str], good: pa.Array, unit: TimeUnit | None, low: int, high: int, outside: str
) -> pa.Array:
    """As `_parsed`, with the forms that are not quite ISO 8601 and, with a unit, the text of numbers."""
    none = pa.scalar(None, pa.string())
    tidy = pc.utf8_upper(pc.utf8_trim_whitespace(pc.if_else(good, none, text)))
    for pattern, by in _REWRITES:
        tidy = pc.replace_substring_regex(tidy, pattern, by)
    iso = pc.match_substring_regex(tidy, _ISO)
    parsed = _parsed(without(pc.if_else(good, text, pc.if_else(iso, tidy, none)), reasons))
    if unit is None:
        return parsed
    number = pc.if_else(pc.match_substring_regex(tidy, _NUMBER), tidy, none)
    whole = pc.all(pc.match_substring_regex(number, r"^[+-]?\d+$"), min_count=0).as_py()
    figures = pc.replace_substring_regex(number, r"^\+", "").cast(pa.int64() if whole else pa.float64())
    counted = _counted(figures, reasons, unit, low, high, outside)
    return pc.coalesce(parsed.cast(pa.int64()), counted.cast(pa.int64())).cast(pa.timestamp("us"))


def _parsed(text: pa.Array) -> pa.Array:
    """ISO 8601 to microseconds; null where a date does not exist, however well it is written."""
    text = pc.replace_substring_regex(text, r"(\.\d{6})\d+", r"\1")
    zoned = pc.match_substring_regex(text, _ZONE)
    utc, naive = pa.timestamp("us", tz="UTC"), pa.timestamp("us")
    none = pa.scalar(None, pa.string())
    if not pc.any(zoned).as_py():
        return _cast(text, naive)
    return pc.coalesce(
        _cast(pc.if_else(zoned, text, none), utc).cast(pa.int64()),
        _cast(pc.if_else(zoned, none, text), naive).cast(pa.int64()),
    ).cast(naive)


def _cast(text: pa.Array, kind: pa.DataType) -> pa.Array:
    """Cast, with null for what cannot be; bisects, since Arrow does not say which value failed."""
    try:
        return text.cast(kind)
    except pa.ArrowInvalid:
        if len(text) == 1:
            return pa.nulls(1, kind)
        half = len(text) // 2
        return pa.concat_arrays([_cast(text[:half], kind), _cast(text[half:], kind)])


def not_time(value: str) -> str:
    """Why a text is no moment, with what helps where the mistake is a common one."""
    bare, why = value.strip(), f"{shown(value)} is not an ISO 8601 timestamp"
    try:
        number = float(bare)
    except ValueError:
        number = float("nan")
    if unit := guessed_unit(number):
        return f"{why}: where it counts since 1970, name the unit (--map timestamp=COLUMN:{unit})"
    date = bare.replace(".", "/").replace("-", "/").split(" ")[0].split("T")[0].split("/")
    if len(date) == 3 and all(part.isdigit() for part in date):
        if len(date[0]) < 3:
            return f"{why}: write 2020-01-31, or name the pattern (--map timestamp=COLUMN:%d/%m/%Y)"
        if "/" in bare:
            return f"{why}: write 2020-01-31, or name the pattern (--map timestamp=COLUMN:%Y/%m/%d)"
    return why
