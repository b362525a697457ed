"""What a journal writes to a Kafka topic: one record for each commit, which says by itself whether it is whole.

A record is a head, the runs of the commit one after the other, and a CRC-32 of everything before it. It holds no row
offsets: rows of a record that another writer's record came before get their offsets when they are read back.

    magic "RWJ", version (1 byte) | writer (8) | sequence (8) | runs (4)
    for each run: kind (4) | format (4) | rows (4) | bytes (4) | Arrow record batch
    CRC-32 (4)

`writer` is drawn anew whenever a producer is made, and `sequence` counts its commits. A record whose sequence is not
above the last one seen of its writer was delivered before, by whatever copies or repeats records on the way.
"""

import struct
import zlib
from collections.abc import Sequence
from typing import Final, NamedTuple

import pyarrow as pa

from data.errors import JournalError
from data.journal.protocol import Events, Kind
from data.journal.stored import checksum, decode, encode

VERSION: Final = 1
_MAGIC: Final = b"RWJ"
_HEAD: Final = struct.Struct("<3sBQQI")  # magic, version, writer, sequence, runs
_RUN: Final = struct.Struct("<IIII")  # kind, format, rows, bytes
_CHECK: Final = struct.Struct("<I")


class Foreign(Exception):
    """Bytes that no journal wrote; the message says why."""


class Record(NamedTuple):
    """A commit as the topic holds it.

    Attributes:
        writer: Who wrote it, 64 bits.
        sequence: Which of the writer's commits it is, from 1.
        runs: Kind and rows of each run.
    """

    writer: int
    sequence: int
    runs: list[tuple[Kind, pa.RecordBatch]]


def pack(writer: int, sequence: int, events: Sequence[Events]) -> bytes:
    """The record of a commit.

    Args:
        writer: Who writes it, 64 bits.
        sequence: Which of the writer's commits it is, from 1.
        events: What was appended; their offsets are left out.
    """
    parts = [_HEAD.pack(_MAGIC, VERSION, writer, sequence, len(events))]
    for run in events:
        _, rows, kind, form, payload, _ = encode(run.kind, 0, run.batch)
        parts += [_RUN.pack(kind, form, rows, len(payload)), payload]
    body = b"".join(parts)
    return body + _CHECK.pack(zlib.crc32(body))


def unpack(value: bytes | None) -> Record:
    """Read a record back.

    Args:
        value: As the topic holds it; None is what a topic calls a tombstone.

    Raises:
        Foreign: No journal wrote these bytes, or they were damaged on the way.
        JournalError: They are of a version, a format or a kind that this version does not know. To skip them would be
            to lose events, so whoever reads them must stop.
    """
    if value is None or len(value) < _HEAD.size + _CHECK.size:
        raise Foreign("too short for a record of a journal")
    magic, version, writer, sequence, runs = _HEAD.unpack_from(value)
    if magic != _MAGIC:
        raise Foreign(f"begins with {value[:3]!r}, and a journal's records with {_MAGIC!r}")
    body, (check,) = value[: -_CHECK.size], _CHECK.unpack_from(value, len(value) - _CHECK.size)
    if zlib.crc32(body) != check:
        raise Foreign("does not match its checksum")
    if version > VERSION:
        raise JournalError(f"a record of version {version}, this version knows up to {VERSION}; upgrade Ringwatch")
    found: list[tuple[Kind, pa.RecordBatch]] = []
    at = _HEAD.size
    try:
        for _ in range(runs):
            kind, form, rows, size = _RUN.unpack_from(body, at)
            payload = body[at + _RUN.size : at + _RUN.size + size]
            at += _RUN.size + size
            held = decode((0, rows, kind, form, payload, checksum(0, rows, kind, form, payload)), None)
            found.append((held.kind, held.batch))
    except struct.error as error:
        raise Foreign(f"says {runs} runs, and ends before them") from error
    if at != len(body):
        raise Foreign(f"{len(body) - at} bytes follow its last run")
    return Record(writer, sequence, found)
