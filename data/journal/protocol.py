"""What a journal holds: events of a few kinds, each row at an offset of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Final

import pyarrow as pa

from data.schema import LABEL_SCHEMA, TIMESTAMP, TRANSACTION_SCHEMA

FORMAT: Final = 1  # of the payloads and of the content hashes


class Kind(IntEnum):
    """What an event is."""

    TRANSACTION = 1
    LABEL = 2
    OUTCOME = 3
    VERDICT = 4
    MODEL = 5


SCHEMAS: Final[Mapping[Kind, pa.Schema]] = MappingProxyType(
    {
        Kind.TRANSACTION: TRANSACTION_SCHEMA,
        Kind.LABEL: LABEL_SCHEMA,
        # What became of a payment: approved, declined or reversed.
        Kind.OUTCOME: pa.schema([("transaction_id", pa.string()), ("outcome", pa.string()), ("at", TIMESTAMP)]),
        # What an investigator said of a ring.
        Kind.VERDICT: pa.schema([("ring_id", pa.int64()), ("is_fraud", pa.bool_()), ("at", TIMESTAMP)]),
        # A model that began to score.
        Kind.MODEL: pa.schema(
            [("name", pa.string()), ("version", pa.string()), ("sha256", pa.string()), ("at", TIMESTAMP)]
        ),
    }
)


@dataclass(frozen=True)
class Events:
    """Consecutive events of one kind.

    Attributes:
        kind: What they are.
        offset: Offset of the first row; row i has `offset + i`.
        batch: The rows, of the schema `SCHEMAS[kind]`.
    """

    kind: Kind
    offset: int
    batch: pa.RecordBatch


@dataclass(frozen=True)
class Known:
    """A transaction that the journal holds.

    Attributes:
        offset: Its offset.
        content_hash: 16 bytes, see `data.schema.content_hashes`.
    """

    offset: int
    content_hash: bytes
