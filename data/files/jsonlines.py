"""JSON lines as raw batches: one object a line."""

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa

from data.errors import DataError
from data.files.selection import Numbered, Selection
from data.schema import Refusal

MOST: Final = 1 << 26  # bytes of one line


def read_json_lines(
    chunks: Iterator[bytes],
    select: Callable[[list[str]], Selection],
    file: str,
    on_refusal: Callable[[Refusal], None],
) -> Iterator[Numbered]:
    """The selected keys of objects that stand on a line each; a key that is not there is null.

    Args:
        chunks: The file's bytes in UTF-8.
        select: Chooses columns by the names of the keys.
        file: Named in refusals.
        on_refusal: Told of lines that are no object, and of values that are lists or objects.

    Raises:
        DataError: A line does not end.
    """
    keys: dict[str, None] = {}
    rows = 0
    for lines in _lines(chunks):
        objects: list[dict[str, Any]] = []
        numbers: list[int] = []
        for line in lines:
            if not line.strip():
                continue
            found = _object(line)
            if isinstance(found, str):
                on_refusal(Refusal(file, rows, "(row)", found))
            else:
                objects.append(found)
                numbers.append(rows)
            rows += 1
        keys.update(dict.fromkeys(key for one in objects for key in one))  # optional ones may come up late
        selection = select(list(keys))
        selection.check()
        names = [list(keys)[i] for i in selection.indices]
        arrays = [_array([one.get(name) for one in objects]) for name in names]
        at = np.array(numbers, np.int64)
        yield selection.rename(pa.table(arrays, [str(i) for i in selection.indices]), at), at


def _object(line: bytes) -> dict[str, Any] | str:
    try:
        found = json.loads(line)
    except ValueError as error:
        return f"is no JSON: {error}"
    if not isinstance(found, dict):
        return "is no JSON object"
    return found


def _array(values: list[Any]) -> pa.Array:
    """One column: of the JSON type that its values have, or of their text where they have several."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int}:
        try:
            return pa.array(values, pa.int64())
        except OverflowError:
            return pa.array([None if v is None else str(v) for v in values], pa.string())
    if kinds <= {int, float}:
        return pa.array([None if v is None else float(v) for v in values], pa.float64())
    if kinds == {str}:
        # What UTF-8 cannot write (half of a surrogate pair) is refused as text that is not UTF-8.
        return pa.array([None if v is None else v.encode("utf-8", "surrogatepass") for v in values], pa.binary())
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    return pa.array([None if v is None else v if isinstance(v, str) else json.dumps(v) for v in values], pa.string())


def _lines(chunks: Iterator[bytes]) -> Iterator[list[bytes]]:
    held = b""
    for chunk in chunks:
        held += chunk
        end = held.rfind(b"\n") + 1
        if end:
            yield held[:end].split(b"\n")
            held = held[end:]
        if len(held) > MOST:
            raise DataError(f"a line is longer than {MOST >> 20} MiB")
    if held:
        yield [held]
