"""CSV as raw batches, whatever a CSV writer may write: quoted line breaks, semicolons, tabs, a byte order mark.

A file is cut into blocks at the ends of rows here and not by Arrow, whose own cutter loses rows where a quoted cell
with a line break lies across the edge of a block.
"""

import csv
import io
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from data.errors import DataError
from data.files.selection import Numbered, Selection
from data.jit import jit
from data.schema import Refusal

BLOCK: Final = 1 << 22  # bytes parsed at once
MOST: Final = 1 << 26  # bytes of one row
DELIMITERS: Final = (",", ";", "\t", "|")
START, PLAIN, QUOTED, AFTER = range(4)  # at the start of a cell, in one, in a quoted one, behind its last quote

OnRefusal = Callable[[Refusal], None]
Select = Callable[[list[str]], Selection]


def read_csv(chunks: Iterator[bytes], select: Select, file: str, on_refusal: OnRefusal) -> Iterator[Numbered]:
    """The selected columns of a CSV file, values as bytes; an empty cell is null.

    Args:
        chunks: The file's bytes in UTF-8, some megabytes at a time.
        select: Chooses columns by the names of the header.
        file: Named in refusals.
        on_refusal: Told of rows that have too few or too many cells.

    Raises:
        DataError: A row does not end.
    """
    chunks, names, delimiter = _header(chunks, select)
    selection = select(names)
    selection.check()
    picked = [str(i) for i in selection.indices]
    binary = dict.fromkeys(picked, pa.binary())
    nothing = np.arange(0)
    yield selection.rename(pa.RecordBatch.from_pylist([], pa.schema(binary)), nothing), nothing
    read = pa_csv.ReadOptions(column_names=[str(i) for i in range(len(names))], use_threads=False)
    convert = pa_csv.ConvertOptions(
        include_columns=picked, column_types=binary, null_values=[""], strings_can_be_null=True
    )
    rows = 0
    for block in blocks(chunks, delimiter):
        malformed: list[Any] = []  # the rows that the parser skipped, in order

        def skip(row: Any, malformed: list[Any] = malformed) -> str:
            malformed.append(row)  # reported later: nothing may be raised through the parser
            return "skip"

        read.block_size = len(block) + 1
        parse = pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=b'"' in block, invalid_row_handler=skip)
        try:
            table = pa_csv.read_csv(pa.BufferReader(block), read, parse, convert)
        except pa.ArrowInvalid as error:
            if "Empty CSV" not in str(error):
                raise
            continue
        # Column by column: a table without columns, as of a file whose ids are row numbers, has no batch.
        numbers = np.arange(table.num_rows + len(malformed))
        bad = np.array([row.number - 1 for row in malformed], np.int64)
        for row in malformed:
            reason = f"has {row.actual_columns} columns, not {row.expected_columns}"
            on_refusal(Refusal(file, rows + row.number - 1, "(row)", reason))
        kept = rows + np.delete(numbers, bad)
        yield selection.rename(table.combine_chunks(), kept), kept
        rows += len(numbers)


def blocks(chunks: Iterator[bytes], delimiter: str) -> Iterator[bytes]:
    """The same bytes, cut behind ends of rows that lie outside quotes.

    Raises:
        DataError: A row is longer than 64 MiB, as when a quote is never closed.
    """
    held: list[bytes] = []
    size, state, mark = 0, START, ord(delimiter)
    for chunk in chunks:
        if state in (START, PLAIN) and b'"' not in chunk:
            end = chunk.rfind(b"\n") + 1 or chunk.rfind(b"\r") + 1
            last = chunk[-1]
            state = START if last in (mark, 10, 13) else PLAIN
        else:
            end, state = _last_end(np.frombuffer(chunk, np.uint8), np.uint8(mark), state)
        if end:
            yield b"".join([*held, chunk[:end]])
            held, size = [], 0
        held.append(chunk[end:])
        size += len(chunk) - end
        if size > MOST:
            raise DataError(f"a row is longer than {MOST >> 20} MiB: a quote is not closed")
    if size:
        yield b"".join(held)


@jit()
def _last_end(text: NDArray[np.uint8], delimiter: np.uint8, state: int) -> tuple[int, int]:
    """The place behind the last end of a row outside quotes (0: none), and the state behind the text."""
    end = 0
    for i in range(len(text)):
        c = text[i]
        if state == QUOTED:
            if c == 34:
                state = AFTER
        elif c == 34 and (state in (START, AFTER)):
            state = QUOTED  # behind a quote: a doubled one, which stands for itself
        elif c == 10 or c == 13:
            state = START
            end = i + 1
        elif c == delimiter:
            state = START
        else:
            state = PLAIN
    return end, state


def _header(chunks: Iterator[bytes], select: Select) -> tuple[Iterator[bytes], list[str], str]:
    """The rest of the bytes, the names of the columns and the delimiter."""
    text = b""
    for chunk in chunks:
        text += chunk
        if len(text) >= 1 << 16:
            break
    line, _, rest = text.lstrip(b"\r\n").partition(b"\n")
    if line.lower().startswith(b"sep=") and len(line.strip()) == 5:  # what Excel writes for itself
        delimiter, text = chr(line.strip()[4]), rest
    else:
        delimiter = ""
    found = []
    for candidate in [delimiter] if delimiter else DELIMITERS:
        end = _first_end(text, candidate)
        head = text[:end].decode("utf-8", "replace").strip("\r\n")
        names = next(csv.reader(io.StringIO(head, newline=""), delimiter=candidate), [])
        found.append((select(names).score, len(names), candidate, names, end))
    _, _, delimiter, names, end = max(found, key=lambda one: one[:2])

    def remaining() -> Iterator[bytes]:
        if text[end:]:
            yield text[end:]
        yield from chunks

    return remaining(), names, delimiter


def _first_end(text: bytes, delimiter: str) -> int:
    """The place behind the first row; blank lines before it belong to it."""
    state, any_cell = START, False
    for place, c in enumerate(text):
        if state == QUOTED:
            state = AFTER if c == 34 else QUOTED
        elif c == 34 and state in (START, AFTER):
            state, any_cell = QUOTED, True
        elif c in (10, 13):
            if any_cell:
                return place + (2 if text[place : place + 2] == b"\r\n" else 1)
        else:
            state, any_cell = (START if c == ord(delimiter) else PLAIN), True
    return len(text)
