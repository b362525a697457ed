"""Identifiers, other text and codes.

Ids are compared by their exact text, so what the eye cannot tell apart must not be two accounts: blanks around an id,
control and zero-width characters, and Unicode that is not in composed form (NFC) are refused. Case is kept.
"""

import uuid

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.columns.column import Column, is_text, octets, offsets, plain, refuse, shown, text_of, without

# Cf holds zero-width spaces, joiners, direction marks and the byte order mark; the others are blank though not in it.
_ZERO_WIDTH = r"[\p{Cf}\x{034F}\x{115F}\x{1160}\x{17B4}\x{17B5}\x{180B}-\x{180E}\x{3164}\x{FFA0}]"
_RULES = (
    (r"\p{Cc}", "holds a control character"),
    (r"^\p{Z}|\p{Z}$", "begins or ends with a blank"),
    (_ZERO_WIDTH, "holds a zero-width character"),
    (r"[\p{Zl}\p{Zp}]", "holds a line separator"),
)


def names(raw: pa.Array, limit: int, *, integer: bool = False) -> Column:
    """Identifiers and other text: 1 to `limit` characters that can be seen. Integers and UUIDs become their text.

    Args:
        raw: Text, integers, decimals without a fraction, or UUIDs.
        limit: Characters, at most.
        integer: Take whole floats and their text (`17.0`) for the integer that they were (`17`).

    Raises:
        TypeError: The type is none of these.
    """
    values, reasons = _as_text(plain(raw), integer)
    # Bytes are never fewer than characters: one pass over the lengths settles nearly every batch.
    size = pc.min_max(pc.binary_length(values))
    shortest, longest = size["min"].as_py(), size["max"].as_py()
    if shortest == 0:
        refuse(reasons, pc.equal(pc.binary_length(values), 0), lambda _: "is empty")
    if longest is not None and longest > limit:
        refuse(reasons, pc.greater(pc.utf8_length(values), limit), lambda _: f"is longer than {limit} characters")
    if _may_be_unclear(values):
        for pattern, reason in _RULES:
            refuse(reasons, pc.match_substring_regex(values, pattern), lambda _, reason=reason: reason)  # type: ignore[misc]
        composed = pc.utf8_normalize(values, "NFC")
        refuse(reasons, pc.not_equal(composed, values), lambda _: "is not in composed form (Unicode NFC)")
    return Column(without(values, reasons), reasons)


def codes(raw: pa.Array) -> Column:
    """Currency codes: three upper-case letters.

    Raises:
        TypeError: The type is not text.
    """
    raw = plain(raw)
    if not is_text(raw.type) and not pa.types.is_null(raw.type):
        raise TypeError(f"{raw.type} is not text")
    values, reasons = _as_text(raw, False)
    size, text = pc.min_max(pc.binary_length(values)).as_py(), octets(values)
    # As with names, a pass over lengths and bytes settles nearly every batch, far cheaper than the expression.
    if size != {"min": 3, "max": 3} or text.min() < ord("A") or text.max() > ord("Z"):
        good = pc.match_substring_regex(values, "^[A-Z]{3}$")
        refuse(reasons, pc.invert(good), lambda row: f"{shown(values[row])} is not three upper-case letters")
    return Column(without(values, reasons), reasons)


def _as_text(raw: pa.Array, integer: bool) -> tuple[pa.Array, dict[int, str]]:
    """Text as it is written; what has one natural text as that."""
    kind, reasons = raw.type, dict[int, str]()
    if pa.types.is_integer(kind) or pa.types.is_null(kind):
        return raw.cast(pa.string()), {}
    if kind == pa.uuid():
        return pa.array([None if v is None else str(uuid.UUID(bytes=v)) for v in raw.storage.to_pylist()]), {}
    if pa.types.is_decimal(kind):
        if kind.scale > 0 and not integer:
            raise TypeError(f"{kind} is not an identifier: write it as text or as an integer")
        values = raw.cast(pa.string())
    elif pa.types.is_floating(kind) and integer:
        values, reasons = _whole(raw.cast(pa.float64()))
    elif not is_text(kind):
        more = "; if these are integers, say so (:integer behind the column in --map)"
        raise TypeError(f"{kind} is not text{more if pa.types.is_floating(kind) else ''}")
    else:
        values, reasons = text_of(raw)
    if integer:
        values = pc.replace_substring_regex(values, r"^([+-]?\d+)\.0*$", r"\1")
    return values, reasons


def _whole(raw: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    """Floats that hold integers exactly, as the text of these."""
    reasons: dict[int, str] = {}
    fits = pc.and_(pc.equal(pc.floor(raw), raw), pc.less(pc.abs(raw), 2.0**53))
    refuse(reasons, pc.invert(fits), lambda row: f"{raw[row].as_py()} is not an integer that a float can hold")
    return without(raw, reasons).cast(pa.int64()).cast(pa.string()), reasons


def _may_be_unclear(values: pa.Array) -> bool:
    """Whether a value could break a rule about its characters: a bound, far cheaper than the expressions."""
    text, ends = octets(values), offsets(values)
    if not len(text):
        return False
    if text.min() < 0x20 or text.max() >= 0x7F:
        return True
    first, last = ends[:-1] - ends[0], ends[1:] - ends[0] - 1  # of an empty or null value: a neighbour's, which is fine
    edges = np.take(text, first, mode="clip") == 0x20
    return bool(edges.any() or (np.take(text, last, mode="clip") == 0x20).any())
