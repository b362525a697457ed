"""Stored runs of events: how one becomes a row of the table `events`, and what is checked before a row is believed.

A run of many rows is an Arrow record batch. Of a few rows that would be mostly Arrow's own description of its buffers,
two kilobytes for one payment: such a run is stored as JSON, its columns as lists in the order of the schema, times as
whole microseconds, and deflated against a dictionary of what such JSON has in common.
"""

import json
import struct
import zlib
from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple

import pyarrow as pa

from data.errors import JournalError
from data.journal.protocol import COLUMNS_OF_FORMAT, FORMAT, FORMAT_OF_FEW, SCHEMAS, Kind, known_kinds

_FEW: Final = 8  # rows of the largest run that is stored as JSON: from there on Arrow's description costs less
# Part of the format: it is never changed.
_DICTIONARY: Final = (
    b'[["r-"],[1],["forming"],[0.5],[[{"role":"account","name":"a-","member_role":"member"}]],["v-"],[["t-"]],["approve"]'
    b',["t-"],[true],[1700000000000000]][["t-"],[1700000000000000],["a-"],["m-"],["d-"],[10000],["EUR"],["10.10.10."],'
    b'["c-"],["p-"],["l-"],["card_present"],["US"],["moto"],["5411"],["DE"]]["ecom"],[null],[null],[null],[null],["'
)
_UNREADABLE: Final = (pa.ArrowException, OSError, ValueError, TypeError, OverflowError, struct.error, zlib.error)
_HEAD: Final = struct.Struct("<qqqq")  # first, rows, kind, format


class Stored(NamedTuple):
    """A run of events as it was stored.

    Attributes:
        kind: Of all its rows.
        first: Offset of the first.
        batch: The rows.
        checked: Whether a checksum covered them; rows of files that were made before there were checksums have none.
    """

    kind: Kind
    first: int
    batch: pa.RecordBatch
    checked: bool


def checksum(first: int, rows: int, kind: int, form: int, payload: Any) -> int:
    """CRC-32 of everything that a row says; any single flipped bit changes it."""
    return zlib.crc32(payload, zlib.crc32(_HEAD.pack(first, rows, kind, form)))


def encode(kind: Kind, first: int, batch: pa.RecordBatch) -> tuple[int, int, int, int, bytes, int]:
    """A row of the table `events`: first, rows, kind, format, payload, checksum."""
    rows, number = batch.num_rows, int(kind)
    form = FORMAT_OF_FEW if rows <= _FEW else FORMAT
    payload = _as_json(batch) if form == FORMAT_OF_FEW else batch.serialize().to_pybytes()
    return first, rows, number, form, payload, checksum(first, rows, number, form, payload)


def decode_all(rows: Sequence[tuple[Any, ...]], checked_from: int | None) -> list[Stored]:
    """Read rows of the table `events` in order; neighbours of a few rows and one kind come back as one run.

    Arguments and errors are those of `decode`. A journal of single payments is read several times faster so: what costs
    is to make an array of each column.
    """
    found: list[Stored] = []
    for few, group in groupby(rows, _kind_of_few):
        if few is None:
            found += [decode(row, checked_from) for row in group]
            continue
        run: list[tuple[Any, ...]] = []
        for row in group:
            if run and (row[0] != run[-1][0] + run[-1][1]):
                found.append(_few_together(run, checked_from))
                run = []
            run.append(row)
        found.append(_few_together(run, checked_from))
    return found


def _kind_of_few(row: tuple[Any, ...]) -> int | None:
    """The kind of a row that looks like a run of few rows; None of any other."""
    few = len(row) > 5 and row[3] == FORMAT_OF_FEW and all(type(value) is int for value in row[:4])
    return int(row[2]) if few else None


def _few_together(run: Sequence[tuple[Any, ...]], checked_from: int | None) -> Stored:
    """Runs of few rows of one kind that follow on each other, as one."""
    if len(run) == 1:
        return decode(run[0], checked_from)
    try:
        first, _, number = run[0][:3]
        schema = SCHEMAS[Kind(number)]
        columns: list[list[Any]] = [[] for _ in schema]
        for offset, rows, kind, form, payload, given in run:
            if given != checksum(offset, rows, kind, form, payload):
                raise ValueError
            for column, more in zip(columns, _columns_of_json(schema, payload, rows), strict=True):
                column += more
        batch = _batch(schema, columns)
    except (*_UNREADABLE, JournalError):
        for row in run:
            decode(row, checked_from)  # says which of them it is, and why
        raise
    return Stored(Kind(number), first, batch, True)


def decode(row: tuple[Any, ...], checked_from: int | None) -> Stored:
    """Read a row of the table `events`.

    Args:
        row: As `encode` made it; without the last column in a file that was made before there were checksums.
        checked_from: Offset from which on every row must have a checksum; None where none has.

    Raises:
        JournalError: The row is damaged, or of a kind or format of another version. The message names the offset.
    """
    first, rows, number, form, payload = row[:5]
    given = row[5] if len(row) > 5 else None
    what = f"the events at offset {first}"
    plain = all(type(value) is int for value in (first, rows, number, form)) and isinstance(payload, bytes)
    if not plain or rows < 1:
        raise JournalError(f"{what} are damaged: the row is none that a journal writes; restore a backup")
    if given is None:
        if checked_from is not None and first >= checked_from:
            raise JournalError(f"{what} are damaged: their checksum is missing; restore a backup")
    elif given != checksum(first, rows, number, form, payload):
        raise JournalError(f"{what} are damaged: they do not match their checksum; restore a backup")
    way = "upgrade Ringwatch, or read it with the version that wrote it"
    if form not in COLUMNS_OF_FORMAT:
        raise JournalError(f"{what} are of format {form}, this version knows up to {FORMAT_OF_FEW}; {way}")
    if number not in SCHEMAS:
        raise JournalError(f"{what} are of kind {number}, {known_kinds()}; {way}")
    kind = Kind(number)
    try:
        batch = _read(kind, form, payload, rows)
        if given is None:
            batch.validate(full=True)
    except _UNREADABLE as error:
        raise JournalError(f"{what} are damaged: {error}; restore a backup") from error
    if batch.num_rows != rows:
        raise JournalError(f"{what} are damaged: {rows} rows are said, {batch.num_rows} are there; restore a backup")
    return Stored(kind, first, batch, given is not None)


def _read(kind: Kind, form: int, payload: bytes, rows: int) -> pa.RecordBatch:
    """The rows of a payload; columns that its format did not have yet are null."""
    schema = SCHEMAS[kind]
    if form == FORMAT_OF_FEW:
        return _batch(schema, _columns_of_json(schema, payload, rows))
    columns = COLUMNS_OF_FORMAT[form].get(kind, len(schema))
    batch = pa.ipc.read_record_batch(pa.py_buffer(payload), pa.schema(list(schema)[:columns]))
    if columns == len(schema):
        return batch
    missing = [pa.nulls(batch.num_rows, field.type) for field in list(schema)[columns:]]
    return pa.RecordBatch.from_arrays([*batch.columns, *missing], schema=schema)


def _as_json(batch: pa.RecordBatch) -> bytes:
    """The payload of a few rows."""
    columns = [_plain(column).to_pylist() for column in batch.columns]
    while columns and columns[-1].count(None) == len(columns[-1]):
        columns.pop()  # a column that is missing is read as null
    text = json.dumps(columns, ensure_ascii=False, separators=(",", ":")).encode()
    deflate = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS, 8, zlib.Z_DEFAULT_STRATEGY, _DICTIONARY)
    return deflate.compress(text) + deflate.flush()


def _plain(column: pa.Array) -> pa.Array:
    return column.view(pa.int64()) if pa.types.is_timestamp(column.type) else column


def _columns_of_json(schema: pa.Schema, payload: bytes, rows: int) -> list[list[Any]]:
    inflate = zlib.decompressobj(-zlib.MAX_WBITS, _DICTIONARY)
    columns: list[list[Any]] = json.loads(inflate.decompress(payload) + inflate.flush())
    if not inflate.eof:
        raise ValueError("the text is cut")
    if len(columns) > len(schema) or any(len(column) != rows for column in columns):
        raise ValueError(f"{rows} rows of {len(schema)} columns are said, and others are there")
    return columns + [[None] * rows for _ in range(len(schema) - len(columns))]


def _batch(schema: pa.Schema, columns: list[list[Any]]) -> pa.RecordBatch:
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
