"""Stored runs of events: how one becomes a row of the table `events`, and what is checked before a row is believed."""

import struct
import zlib
from typing import Any, Final, NamedTuple

import pyarrow as pa

from data.errors import JournalError
from data.journal.protocol import COLUMNS_OF_FORMAT, FORMAT, SCHEMAS, Kind, known_kinds

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


def encode(kind: Kind, first: int, batch: pa.RecordBatch) -> tuple[int, int, int, int, pa.Buffer, int]:
    """A row of the table `events`: first, rows, kind, format, payload, checksum."""
    payload = batch.serialize()
    rows, number = batch.num_rows, int(kind)
    return first, rows, number, FORMAT, payload, checksum(first, rows, number, FORMAT, payload)


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
        raise JournalError(f"{what} are of format {form}, this version knows up to {FORMAT}; {way}")
    if number not in SCHEMAS:
        raise JournalError(f"{what} are of kind {number}, {known_kinds()}; {way}")
    kind = Kind(number)
    try:
        batch = _read(kind, form, payload)
        if given is None:
            batch.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise JournalError(f"{what} are damaged: {error}; restore a backup") from error
    if batch.num_rows != rows:
        raise JournalError(f"{what} are damaged: {rows} rows are said, {batch.num_rows} are there; restore a backup")
    return Stored(kind, first, batch, given is not None)


def _read(kind: Kind, form: int, payload: bytes) -> pa.RecordBatch:
    """The rows of a payload; columns that its format did not have yet are null."""
    schema = SCHEMAS[kind]
    columns = COLUMNS_OF_FORMAT[form].get(kind, len(schema))
    batch = pa.ipc.read_record_batch(pa.py_buffer(payload), pa.schema(list(schema)[:columns]))
    if columns == len(schema):
        return batch
    missing = [pa.nulls(batch.num_rows, field.type) for field in list(schema)[columns:]]
    return pa.RecordBatch.from_arrays([*batch.columns, *missing], schema=schema)
