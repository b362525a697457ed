"""Check and cast one column: vectorised over the good values, a reason for each bad one.

A bad value is null in the result, so that no later step sees it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
_ISO = r"^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d(:?\d\d)?)?)?$"
_ZONE = r":\d\d(\.\d{1,9})?(Z|[+-]\d\d(:?\d\d)?)$"
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@dataclass(frozen=True)
class Column:
    """One checked column.

    Attributes:
        values: Arrow array of the canonical type; null where the value was null or bad.
        reasons: Row of each bad value -> what is wrong with it.
    """

    values: pa.Array
    reasons: dict[int, str] = field(default_factory=dict)


def names(raw: pa.Array, limit: int) -> Column:
    """Identifiers and other text: 1 to `limit` characters, no control characters. Integers become decimal text.

    Raises:
        TypeError: The type is neither text nor integer.
    """
    values, reasons = _text(raw)
    # Bytes are never fewer than characters: one pass over the lengths settles nearly every batch.
    size = pc.min_max(pc.binary_length(values))
    shortest, longest = size["min"].as_py(), size["max"].as_py()
    if shortest == 0:
        _refuse(reasons, pc.equal(pc.binary_length(values), 0), lambda _: "is empty")
    if longest is not None and longest > limit:
        _refuse(reasons, pc.greater(pc.utf8_length(values), limit), lambda _: f"is longer than {limit} characters")
    if _may_hold_controls(values):
        _refuse(reasons, pc.match_substring_regex(values, r"\p{Cc}"), lambda _: "holds a control character")
    return Column(_without(values, reasons), reasons)


def codes(raw: pa.Array) -> Column:
    """Currency codes: three upper-case letters.

    Raises:
        TypeError: The type is not text.
    """
    if pa.types.is_integer(_plain(raw).type):
        raise TypeError(f"{raw.type} is not text")
    values, reasons = _text(raw)
    size, octets = pc.min_max(pc.binary_length(values)).as_py(), _octets(values)
    # As with names, a pass over lengths and bytes settles nearly every batch, far cheaper than the expression.
    if size != {"min": 3, "max": 3} or octets.min() < ord("A") or octets.max() > ord("Z"):
        good = pc.match_substring_regex(values, "^[A-Z]{3}$")
        _refuse(reasons, pc.invert(good), lambda row: f"{_shown(values, row)} is not three upper-case letters")
    return Column(_without(values, reasons), reasons)


def amounts(raw: pa.Array, limit: int) -> Column:
    """Amounts in minor units, 0 to `limit`: integers, or floats, decimals and text that are whole.

    Raises:
        TypeError: The type holds no numbers.
    """
    raw = _plain(raw)
    reasons: dict[int, str] = {}
    if pa.types.is_decimal(raw.type):
        raw = raw.cast(pa.string())
    if _is(raw.type, _TEXT) or _is(raw.type, _BYTES):
        text, reasons = _text(raw)
        whole = pc.match_substring_regex(text, r"^[+-]?0*\d{1,18}(\.0*)?$")
        _refuse(reasons, pc.invert(whole), lambda row: _not_whole(text[row].as_py()))
        values = pc.replace_substring_regex(_without(text, reasons), r"^\+|\.0*$", "").cast(pa.int64())
    elif pa.types.is_floating(raw.type):
        values = raw.cast(pa.float64())
        _refuse(reasons, pc.invert(pc.is_finite(values)), lambda row: _not_whole(str(values[row].as_py())))
        _refuse(reasons, pc.not_equal(pc.floor(values), values), lambda row: _not_whole(str(values[row].as_py())))
    elif pa.types.is_integer(raw.type) or pa.types.is_null(raw.type):
        values = raw.cast(pa.int64()) if raw.type != pa.uint64() else raw
    else:
        raise TypeError(f"{raw.type} is not a number of minor units (int64)")
    shown = values
    if values.type != pa.uint64():
        _refuse(reasons, pc.less(values, 0), lambda row: f"{shown[row].as_py():.0f} is negative")
    top = pa.scalar(limit, values.type)
    _refuse(reasons, pc.greater(values, top), lambda row: f"{shown[row].as_py():.0f} is more than {limit}")
    return Column(_without(values, reasons).cast(pa.int64()), reasons)


def times(raw: pa.Array, earliest: datetime, latest: datetime) -> Column:
    """Points in time in [earliest, latest), to UTC microseconds; a value without a zone is UTC.

    Raises:
        TypeError: The type is neither a timestamp nor text.
    """
    raw = _plain(raw)
    reasons: dict[int, str] = {}
    if _is(raw.type, _TEXT) or _is(raw.type, _BYTES):
        text, reasons = _text(raw)
        _refuse(reasons, pc.invert(pc.match_substring_regex(text, _ISO)), lambda row: _not_time(text, row))
        raw = _parse_times(_without(text, reasons))
        _refuse(reasons, pc.and_(raw.is_null(), text.is_valid()), lambda row: _not_time(text, row))
    if pa.types.is_null(raw.type):
        raw = raw.cast(pa.timestamp("us"))
    if not pa.types.is_timestamp(raw.type):
        raise TypeError(f"{raw.type} is not a timestamp")
    unit = _PER_SECOND[raw.type.unit]
    ticks = raw.cast(pa.int64())
    # Judged in the unit it came in: a cast of seconds to microseconds could overflow.
    low, high = int(earliest.timestamp()) * unit, int(latest.timestamp()) * unit
    outside = pc.or_(pc.less(ticks, low), pc.greater_equal(ticks, high))
    _refuse(reasons, outside, lambda _: f"is outside [{earliest:%Y-%m-%d}, {latest:%Y-%m-%d})")
    ticks = _without(ticks, reasons)
    if unit < 10**6:
        ticks = pc.multiply(ticks, 10**6 // unit)
    elif unit > 10**6:
        ticks = pc.divide(ticks, unit // 10**6)
    return Column(ticks.cast(pa.timestamp("us", tz="UTC")), reasons)


def flags(raw: pa.Array) -> Column:
    """Yes or no: booleans, integers 0 and 1, or the text true, false, 0 and 1.

    Raises:
        TypeError: The type is none of these.
    """
    raw = _plain(raw)
    if pa.types.is_boolean(raw.type) or pa.types.is_null(raw.type):
        return Column(raw.cast(pa.bool_()))
    values, reasons = _text(raw)
    values = pc.utf8_lower(values)
    good = pc.is_in(values, value_set=pa.array(["true", "false", "0", "1"]))
    bad = pc.and_(pc.invert(good), values.is_valid())
    _refuse(reasons, bad, lambda row: f"{_shown(values, row)} is not true or false")
    return Column(_without(values, reasons).cast(pa.bool_()), reasons)


def _is(kind: pa.DataType, tests: tuple[Callable[[pa.DataType], bool], ...]) -> bool:
    return any(test(kind) for test in tests)


def _plain(raw: pa.Array) -> pa.Array:
    """Decode a dictionary, after looking for damage that a stream from outside may carry."""
    if pa.types.is_dictionary(raw.type):
        if raw.type.value_type in (pa.string(), pa.large_string()):
            # Bad UTF-8 in a dictionary is a bad value, not damage: `_text` refuses the rows that use it.
            binary = pa.binary() if raw.type.value_type == pa.string() else pa.large_binary()
            raw = pa.DictionaryArray.from_arrays(raw.indices, raw.dictionary.view(binary), safe=True)
        raw.validate(full=True)
        return raw.dictionary_decode()
    return raw


def _text(raw: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    raw = _plain(raw)
    reasons: dict[int, str] = {}
    if pa.types.is_integer(raw.type) or pa.types.is_null(raw.type):
        return raw.cast(pa.string()), reasons
    if not _is(raw.type, _TEXT) and not _is(raw.type, _BYTES):
        raise TypeError(f"{raw.type} is not text")
    try:
        raw.validate(full=True)
        values = raw.cast(pa.string())  # from bytes, this looks at the encoding
    except pa.ArrowInvalid:
        binary = raw.view(pa.large_binary() if pa.types.is_large_string(raw.type) else pa.binary())
        binary.validate(full=True)  # what fails here is damage, not a bad value
        keep = []
        for row, value in enumerate(binary.to_pylist()):
            try:
                keep.append(None if value is None else value.decode())
            except UnicodeDecodeError:
                keep.append(None)
                reasons[row] = "is not UTF-8"
        values = pa.array(keep, pa.string())
    return values, reasons


def _octets(values: pa.Array) -> NDArray[np.uint8]:
    """The bytes of the text, one value behind the other; those of a null count too, where it has any."""
    offsets, text = values.buffers()[1], values.buffers()[2]
    if text is None or not len(values):
        return np.empty(0, np.uint8)
    ends = np.frombuffer(offsets, np.int32, len(values) + 1, values.offset * 4)
    return np.frombuffer(text, np.uint8)[ends[0] : ends[-1]]


def _may_hold_controls(values: pa.Array) -> bool:
    """Whether a byte of the text could belong to a control character: a bound, far cheaper than the expression."""
    octets = _octets(values)
    # C0 and DEL are single bytes; C1 (U+0080..U+009F) is led by 0xC2.
    return bool(len(octets)) and bool(octets.min() < 0x20 or ((octets == 0x7F) | (octets == 0xC2)).any())


def _parse_times(text: pa.Array) -> pa.Array:
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


def _refuse(reasons: dict[int, str], bad: pa.Array, reason: Callable[[int], str]) -> None:
    if not pc.any(bad).as_py():
        return
    for row in np.flatnonzero(bad.fill_null(False).to_numpy(zero_copy_only=False)).tolist():
        if row not in reasons:
            reasons[row] = reason(row)


def _without(values: pa.Array, reasons: dict[int, str]) -> pa.Array:
    if not reasons:
        return values
    bad = np.zeros(len(values), bool)
    bad[list(reasons)] = True
    return pc.if_else(pa.array(bad), pa.scalar(None, values.type), values)


def _shown(values: pa.Array, row: int) -> str:
    return repr(values[row].as_py()[:40])


def _not_time(text: pa.Array, row: int) -> str:
    return f"{_shown(text, row)} is not an ISO 8601 timestamp"


def _not_whole(value: str) -> str:
    value = value[:40]
    try:
        number = float(value)
    except ValueError:
        return f"{value!r} is not a number"
    if number != number or number in (float("inf"), float("-inf")):
        return f"{value} is not a number"
    if abs(number) > 1e17:
        return f"{value} is too large"
    return f"{value} is not a whole number: amounts are in minor units (12.34 EUR is 1234)"
