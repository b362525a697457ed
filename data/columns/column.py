"""A checked column, and the steps that the checks of all kinds share.

A bad value is null in the result, so that no later step sees it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_TEXT = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
)


@dataclass(frozen=True)
class Column:
    """One checked column.

    Attributes:
        values: Arrow array of the canonical type; null where the value was null or bad.
        reasons: Row of each bad value -> what is wrong with it.
    """

    values: pa.Array
    reasons: dict[int, str] = field(default_factory=dict)


def is_text(kind: pa.DataType) -> bool:
    """Whether a type is text, or bytes that may be text."""
    return any(test(kind) for test in _TEXT)


def plain(raw: pa.Array) -> pa.Array:
    """Decode a dictionary or runs, after looking for damage that a stream from outside may carry."""
    if isinstance(raw.type, pa.BaseExtensionType) and raw.type != pa.uuid():
        raw = raw.storage
    if pa.types.is_run_end_encoded(raw.type):
        raw.validate(full=True)
        raw = pc.run_end_decode(raw)
    if pa.types.is_dictionary(raw.type):
        if raw.type.value_type in (pa.string(), pa.large_string()):
            # Bad UTF-8 in a dictionary is a bad value, not damage: `text_of` refuses the rows that use it.
            binary = pa.binary() if raw.type.value_type == pa.string() else pa.large_binary()
            raw = pa.DictionaryArray.from_arrays(raw.indices, raw.dictionary.view(binary), safe=True)
        raw.validate(full=True)
        return raw.dictionary_decode()
    return raw


def text_of(raw: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    """Text or bytes as strings, with a reason for each value that is not UTF-8.

    Args:
        raw: As `plain` returns it, of a type that `is_text`.
    """
    reasons: dict[int, str] = {}
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


def octets(values: pa.Array) -> NDArray[np.uint8]:
    """The bytes of the text, one value behind the other; those of a null count too, where it has any."""
    text, ends = values.buffers()[2], offsets(values)
    if text is None or not len(values):
        return np.empty(0, np.uint8)
    return np.frombuffer(text, np.uint8)[ends[0] : ends[-1]]


def offsets(values: pa.Array) -> NDArray[np.int32]:
    """Where the text of each value begins in its buffer, and where that of the last ends."""
    held = values.buffers()[1]
    if held is None or not len(values):
        return np.zeros(1, np.int32)
    return np.frombuffer(held, np.int32, len(values) + 1, values.offset * 4)


def refuse(reasons: dict[int, str], bad: pa.Array, reason: Callable[[int], str]) -> None:
    """Note the rows where `bad` is true; a reason that is there already stays."""
    if not pc.any(bad).as_py():
        return
    for row in np.flatnonzero(bad.fill_null(False).to_numpy(zero_copy_only=False)).tolist():
        if row not in reasons:
            reasons[row] = reason(row)


def without(values: pa.Array, reasons: dict[int, str]) -> pa.Array:
    """The values, null where there is a reason."""
    if not reasons:
        return values
    bad = np.zeros(len(values), bool)
    bad[list(reasons)] = True
    return pc.if_else(pa.array(bad), pa.scalar(None, values.type), values)


def shown(value: object) -> str:
    """A value for a message: quoted, and cut where it is long."""
    text = str(value)
    return repr(text if len(text) <= 40 else f"{text[:40]}...")
