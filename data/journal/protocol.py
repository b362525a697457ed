"""The ordered log that everything follows: its events, and the protocols that a journal is made of.

A journal is five things that a reader may mistake for one:

- `Journal` gives order and durability: rows of events at dense offsets, and each replay gives the same rows again.
- `IdIndex` says where a transaction id is, and with what content, so that a repeat is told from a contradiction.
- `LabelIndex` says what was reported of a payment, so that a label that comes again is told from news.
- `OutcomeIndex` says what became of a payment, so that an outcome that comes again is told from news.
- `AnswerStore` keeps the answers that were given.

`SqliteJournal` holds all of them in one file, and writes events, ids, labels and outcomes in one commit. A broker, as
Kafka, gives the first alone: the others are files of the follower's own, which can be made again from the topic.
What is typed against these protocols and relies on no more than they say runs on both.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Final, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.errors import JournalError
from data.outcomes import Became
from data.schema import LABEL_SCHEMA, TIMESTAMP, TRANSACTION_SCHEMA

# Of the payloads; content hashes are the same in all of them.
FORMAT: Final = 2  # an Arrow record batch
FORMAT_OF_FEW: Final = 3  # JSON, for runs of a few rows


class Kind(IntEnum):
    """What an event is. Numbers are stored: they are never given twice."""

    TRANSACTION = 1
    LABEL = 2
    OUTCOME = 3
    VERDICT = 4
    MODEL = 5
    RING = 6
    MANDATE = 7
    POLICY = 8


SCHEMAS: Final[Mapping[Kind, pa.Schema]] = MappingProxyType(
    {
        Kind.TRANSACTION: TRANSACTION_SCHEMA,
        Kind.LABEL: LABEL_SCHEMA,
        # What became of a payment: what was decided, and what its payer, its bank or its merchant did of it. The
        # payment's account and mandate are repeated, so that a follower need not remember every payment.
        Kind.OUTCOME: pa.schema(
            [
                ("transaction_id", pa.string()),
                ("outcome", pa.string()),
                ("at", TIMESTAMP),
                ("outcome_id", pa.string()),
                ("amount", pa.int64()),
                ("by", pa.string()),
                ("account_id", pa.string()),
                ("mandate_id", pa.string()),
            ]
        ),
        # What an investigator said of a ring, and of which payments: their labels share its commit.
        Kind.VERDICT: pa.schema(
            [
                ("verdict_id", pa.string()),
                ("ring_id", pa.string()),
                ("is_fraud", pa.bool_()),
                ("transaction_ids", pa.list_(pa.string())),
                ("by", pa.string()),
                ("note", pa.string()),
                ("at", TIMESTAMP),
            ]
        ),
        # A model that began to score.
        Kind.MODEL: pa.schema(
            [("name", pa.string()), ("version", pa.string()), ("sha256", pa.string()), ("at", TIMESTAMP)]
        ),
        # A ring as the investigator found it: what answers and policies read from here on.
        Kind.RING: pa.schema(
            [
                ("ring_id", pa.string()),
                ("version", pa.int32()),
                ("state", pa.string()),
                ("confidence", pa.float64()),
                (
                    "members",
                    pa.list_(pa.struct([("role", pa.string()), ("name", pa.string()), ("member_role", pa.string())])),
                ),
                ("at", TIMESTAMP),
            ]
        ),
        # What an owner lets an agent spend, as of now; a later version takes the place of an earlier one.
        Kind.MANDATE: pa.schema(
            [
                ("mandate_id", pa.string()),
                ("version", pa.int32()),
                ("state", pa.string()),
                ("account_id", pa.string()),
                ("agent_id", pa.string()),
                ("currency", pa.string()),
                ("budget", pa.int64()),
                ("terms", pa.string()),
                ("at", TIMESTAMP),
            ]
        ),
        # A policy as it stands from here on: its text, and for whom it decides.
        Kind.POLICY: pa.schema(
            [
                ("name", pa.string()),
                ("version", pa.string()),
                ("state", pa.string()),
                ("share", pa.float64()),
                ("content", pa.string()),
                ("by", pa.string()),
                ("at", TIMESTAMP),
            ]
        ),
    }
)
# Columns of rows of earlier formats, where they had fewer: later ones were added behind them, and are null there.
COLUMNS_OF_FORMAT: Final[Mapping[int, Mapping[Kind, int]]] = MappingProxyType(
    {1: MappingProxyType({Kind.TRANSACTION: 14, Kind.OUTCOME: 3}), 2: MappingProxyType({}), 3: MappingProxyType({})}
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


def check_schema(kind: Kind, batch: pa.RecordBatch) -> None:
    """Refuse a batch that is not of the schema of its kind.

    Raises:
        JournalError: It is not, or there is no such kind.
    """
    schema = SCHEMAS.get(kind)
    if schema is None:
        raise JournalError(f"there is no kind of events {kind!r}: {known_kinds()}")
    if not batch.schema.equals(schema):
        raise JournalError(f"a batch of {kind.name.lower()} events must have the columns {schema.names}")


def outcomes_of(batch: pa.RecordBatch) -> list[Became]:
    """The reported outcomes among events of `SCHEMAS[Kind.OUTCOME]`: decisions that were given have no id."""
    return [
        Became(row["outcome_id"], row["transaction_id"], row["outcome"], row["at"], row["amount"], row["by"])
        for row in batch.set_column(2, "at", batch.column("at").cast(pa.int64())).to_pylist()
        if row["outcome_id"] is not None
    ]


def known_kinds() -> str:
    """The kinds of this version, for messages."""
    return "this version knows " + ", ".join(f"{kind.value} ({kind.name.lower()})" for kind in Kind)


class IdIndex(Protocol):
    """Where each transaction id is. Derived from the events: it can always be made again from a replay."""

    def find(self, ids: Sequence[str]) -> dict[str, Known]:
        """Those of the ids that were added; others are not among the keys.

        Raises:
            JournalError: The index cannot be read.
        """

    def add(self, ids: Sequence[str], first: int, hashes: Sequence[bytes]) -> None:
        """Add the transactions at offsets `first`, `first + 1`, ...; for the journal alone, with its commit.

        Args:
            ids: Transaction ids, one for each offset.
            first: Offset of the first.
            hashes: Their content hashes, 16 bytes each.

        Raises:
            JournalError: An id is there already, or the index cannot be written. None is added.
        """


Report = tuple[int, bool]  # when a label was reported, us; whether it says fraud


class LabelIndex(Protocol):
    """What was ever reported of each payment. Derived from the events: it can always be made again from a replay."""

    def find(self, ids: Sequence[str]) -> dict[str, list[Report]]:
        """The distinct labels of payments, in order of their report; one without any is not among the keys.

        Raises:
            JournalError: The index cannot be read.
        """

    def add(self, labels: pa.RecordBatch) -> None:
        """Add labels of `SCHEMAS[Kind.LABEL]`; for the journal alone, with its commit. One that is there stays.

        Raises:
            JournalError: The index cannot be written.
        """


class OutcomeIndex(Protocol):
    """What was reported to have become of each payment. Derived from the events, those with an `outcome_id`."""

    def find(self, ids: Sequence[str]) -> dict[str, Became]:
        """Outcomes by their own ids; one that was never added is not among the keys.

        Raises:
            JournalError: The index cannot be read.
        """

    def of(self, transaction_ids: Sequence[str]) -> dict[str, list[Became]]:
        """Outcomes of payments, by time and id; a payment without any is not among the keys.

        Raises:
            JournalError: The index cannot be read.
        """

    def add(self, outcomes: pa.RecordBatch) -> None:
        """Add outcomes of `SCHEMAS[Kind.OUTCOME]`; for the journal alone, with its commit. An id that is there stays.

        Raises:
            JournalError: The index cannot be written.
        """


class AnswerStore(Protocol):
    """The answers given for transactions. An answer can be computed again, so that losing some is no harm."""

    def find(self, offsets: Sequence[int]) -> dict[int, bytes]:
        """The answers kept for the transactions at these offsets; an offset without one is not among the keys.

        Raises:
            JournalError: The store cannot be read.
        """

    def keep(self, answers: Sequence[tuple[int, bytes]], *, replace: bool = False) -> None:
        """Keep answers by the offset of their transaction. It does not wait for the disk.

        Args:
            answers: Offset and answer of each.
            replace: Whether the last that is kept for an offset stays, and not the first.

        Raises:
            JournalError: The store cannot be written.
        """

    def forget(self, before: int, most: int) -> int:
        """Let go of the answers to transactions before an offset, the oldest first; it does not wait for the disk.

        Args:
            before: The offset.
            most: Answers, at most.

        Returns:
            How many there were.

        Raises:
            JournalError: The store cannot be written.
        """


class PaymentSource(Protocol):
    """Where the payments behind a graph can be read again."""

    def take(self, offsets: NDArray[np.int64]) -> pa.Table:
        """Transactions by offset, columns of `TRANSACTION_SCHEMA`, in the order of `offsets`, int64 [n].

        Raises:
            JournalError: An offset holds no transaction, or the journal cannot be read.
        """


class Commit(Protocol):
    """Rows that are appended together: all of them are durable when the block of `Journal.begin` is left, or none."""

    @property
    def ids(self) -> IdIndex:
        """The transaction ids that the journal holds, those of this commit included."""

    @property
    def labels(self) -> LabelIndex:
        """The labels that the journal holds, those of this commit included."""

    @property
    def outcomes(self) -> OutcomeIndex:
        """The outcomes that the journal holds, those of this commit included."""

    @property
    def end(self) -> int:
        """The offset that the next row appended takes, if no other writer comes between (see `events`)."""

    @property
    def events(self) -> Sequence[Events]:
        """What was appended, in order. Once the block of `begin` is left, offsets are where the rows came to be.

        A journal whose commits exclude each other, as SQLite's do, knows them while the block is open. One whose order
        is a broker's knows them when its own rows come back: rows of other writers may lie before these then, and a
        transaction that another writer appended first is not among them (its offset is found in `Journal.ids`).
        """

    def append(self, kind: Kind, batch: pa.RecordBatch, hashes: Sequence[bytes] | None = None) -> int:
        """Append rows of one kind.

        Args:
            kind: What they are.
            batch: A batch of the schema `SCHEMAS[kind]`; nothing happens if it is empty.
            hashes: Content hashes of transactions, where the caller has them already.

        Returns:
            `end` as it was before: the offset of the first row, if no other writer comes between.

        Raises:
            JournalError: The batch is of another schema, or holds a transaction id that is in `ids` or in it twice.
                The commit is spoilt: nothing of it will be recorded, and leaving the block raises if nothing else does.
        """


class Journal(PaymentSource, Protocol):
    """The durable, ordered log of everything that can change a score or a decision.

    Every row of every event has one *offset*; offsets are dense from 0. One thread at a time may use an instance;
    several processes may have the same journal open.
    """

    @property
    def ids(self) -> IdIndex:
        """Where transaction ids are."""

    @property
    def labels(self) -> LabelIndex:
        """What was reported of payments."""

    @property
    def outcomes(self) -> OutcomeIndex:
        """What became of payments."""

    @property
    def answers(self) -> AnswerStore:
        """Answers given for transactions."""

    @property
    def end(self) -> int:
        """How many rows there are: the offset after the last one that any writer was told is durable.

        Raises:
            JournalError: The journal cannot be read.
        """

    def begin(self) -> AbstractContextManager[Commit]:
        """Open a group commit; it is durable when the block is left, and nothing of it is there if the block raises.

        Raises:
            JournalError: It cannot be made durable, or a commit of this instance is open already.
        """

    def replay(self, start: int = 0, stop: int | None = None, chunk: int = 65536) -> Iterator[Events]:
        """The rows [start, stop) in order, in batches of one kind and at most `chunk` rows; none of them is empty.

        How rows are grouped into batches is no part of the journal: small commits may come back as one batch.

        Args:
            start: First offset.
            stop: Offset to stop before; the end of the journal when the first batch is asked for, if None.
            chunk: Rows of the largest batch.

        Raises:
            JournalError: `start` is not in [0, end], `chunk` is not positive, or rows cannot be read as written.
        """

    def close(self) -> None:
        """Let go of files and connections. What was acknowledged stays."""
