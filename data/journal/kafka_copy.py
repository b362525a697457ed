"""A topic's rows in a local file: a SQLite journal that only records of the topic get into, in the topic's order.

It gives rows their offsets, keeps ids, labels and answers, and remembers how far the topic was read, all in one commit:
a process that dies leaves a copy that is as of some record of the topic, and goes on from there. Everything but the
answers can be made again from the topic. Processes of one machine may share a copy; SQLite lets one at a time move it.

What a record becomes depends on the records before it and on nothing else, so that all copies of a topic are equal:

- Payments and outcomes whose id came earlier are left out, the same or not. The first record decides; a writer whose
  payment came second learns so when its own record comes back.
- A record that was delivered twice counts once.
- Bytes that no journal wrote are passed over, and kept with the reason until they are in the dead-letter topic.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa

from data.errors import JournalError
from data.journal.kafka_records import Foreign, Record, unpack
from data.journal.protocol import Events, IdIndex, Kind, OutcomeIndex
from data.journal.sqlite import SqliteCommit, SqliteJournal
from data.journal.sqlite_tables import reading
from data.schema import content_hashes

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS topic (
    name TEXT NOT NULL, position INTEGER NOT NULL, last INTEGER NOT NULL, checksum INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS writers (writer INTEGER PRIMARY KEY, sequence INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS dead_letters (position INTEGER PRIMARY KEY, reason TEXT NOT NULL, value BLOB);
"""


@dataclass(frozen=True)
class Place:
    """How far a topic was read.

    Attributes:
        position: The topic's offset that is read next.
        last: Offset of the last record read; -1 before the first.
        checksum: Of that record, by which the topic is known again.
    """

    position: int
    last: int
    checksum: int

    def follows(self, offset: int, value: bytes | None) -> bool:
        """Whether this message is the last record read."""
        return (offset, zlib.crc32(value or b"")) == (self.last, self.checksum)


@dataclass
class Applied:
    """What became of records.

    Attributes:
        own: Rows of the record that was looked for, where they came to be.
        rows: Rows added.
        repeated: Payments and outcomes left out, since their ids came earlier.
        doubled: Records left out, since they were delivered before.
        foreign: Records passed over, since no journal wrote them.
    """

    own: list[Events] = field(default_factory=list)
    rows: int = 0
    repeated: int = 0
    doubled: int = 0
    foreign: int = 0


class LocalCopy(SqliteJournal):
    """The local copy of a topic; see `data.journal.kafka.KafkaJournal`, which alone writes to it.

    Args:
        path: The file; made where it is missing.
        name: Of the topic, as `kafka://host:port/topic`: a copy of another topic is refused.

    Raises:
        JournalError: The file cannot be opened, is no copy of a topic, or of another topic.
    """

    _is_copy = True

    def __init__(self, path: Path | str, name: str) -> None:
        super().__init__(path)
        topic = name.rpartition("/")[2]
        try:
            with reading(self.path):
                # What a crash of the machine takes from it is read again from the topic.
                self._connection.execute("PRAGMA synchronous=NORMAL")
                self.answers.durable = False
                with super().begin() as commit:
                    self._enter(topic, commit.end)
        except BaseException:
            self.close()
            raise

    def _enter(self, topic: str, end: int) -> None:
        run = self._connection.execute
        for statement in _TABLES.split(";"):
            run(statement)
        found = run("SELECT name FROM topic").fetchall()
        if not found:
            if end:
                raise JournalError(f"is a journal by itself, and no copy of the topic {topic!r}; name another file")
            run("INSERT INTO topic VALUES (?, 0, -1, 0)", (topic,))
        elif found[0][0] != topic:
            raise JournalError(f"is a copy of the topic {found[0][0]!r}, not of {topic!r}; name another file")

    @property
    def place(self) -> Place:
        """How far the topic was read."""
        with reading(self.path):
            return Place(*self._connection.execute("SELECT position, last, checksum FROM topic").fetchone())

    @property
    def length(self) -> int:
        """Rows there are, those of an open commit included."""
        with reading(self.path):
            return self._end()

    def note(self, offset: int, value: bytes, writer: int, sequence: int) -> None:
        """Note that a record was applied; within the commit that its rows are in."""
        self._connection.execute(
            "UPDATE topic SET position = ?, last = ?, checksum = ?", (offset + 1, offset, zlib.crc32(value))
        )
        self._connection.execute("INSERT OR REPLACE INTO writers VALUES (?, ?)", (_signed(writer), sequence))

    def apply(
        self, messages: Sequence[tuple[int, bytes | None]], position: int, own: tuple[int, int] | None = None
    ) -> Applied:
        """Apply what was read of the topic, in one commit.

        Args:
            messages: Offset and value of each, in the topic's order; those that were applied before are left out.
            position: The topic's offset that is read next.
            own: Writer and sequence of a record whose rows are wanted.

        Raises:
            JournalError: A record is of a version that is not known, or the file cannot be written. Nothing of any
                message is applied.
        """
        done = Applied()
        with self.begin() as commit:
            begun = commit.end
            place = self.place
            for offset, value in messages:
                if offset < place.position:
                    continue  # another process that shares this copy was faster
                try:
                    record = unpack(value)
                except Foreign as reason:
                    self._bury(offset, str(reason), value)
                    done.foreign += 1
                    continue
                except JournalError as error:
                    raise JournalError(f"offset {offset} of the topic: {error}") from error
                self._take(commit, record, done, own)
                self.note(offset, value or b"", record.writer, max(record.sequence, self._sequence(record.writer)))
            if position > place.position:
                self._connection.execute("UPDATE topic SET position = ?", (position,))
            done.rows = commit.end - begun
        return done

    def dead_letters(self) -> list[tuple[int, str, bytes | None]]:
        """Offset, reason and value of messages that are not in the dead-letter topic yet."""
        with reading(self.path):
            found = self._connection.execute("SELECT * FROM dead_letters WHERE value NOT NULL ORDER BY position")
            return [(offset, reason, value) for offset, reason, value in found]

    def buried(self, offsets: Sequence[int]) -> None:
        """Messages that are in the dead-letter topic now: only the reason is kept."""
        with self.begin():
            for offset in offsets:
                self._connection.execute("UPDATE dead_letters SET value = NULL WHERE position = ?", (offset,))

    def passed_over(self) -> list[tuple[int, str]]:
        """Offset and reason of every message that no journal wrote."""
        with reading(self.path):
            return self._connection.execute("SELECT position, reason FROM dead_letters ORDER BY position").fetchall()

    def _take(self, commit: SqliteCommit, record: Record, done: Applied, own: tuple[int, int] | None) -> None:
        """Add the rows of a record to a commit, without payments whose ids came earlier."""
        if record.sequence <= self._sequence(record.writer):
            done.doubled += 1
            return
        known = len(commit.events)
        for kind, batch in record.runs:
            hashes = None
            if kind is Kind.TRANSACTION:
                batch, left_out = _first_ones(commit.ids, batch, "transaction_id")
                done.repeated += left_out
                hashes = content_hashes(batch)
            elif kind is Kind.OUTCOME:
                batch, left_out = _first_ones(commit.outcomes, batch, "outcome_id")
                done.repeated += left_out
            commit.append(kind, batch, hashes)
        if own == (record.writer, record.sequence):
            done.own = commit.events[known:]

    def _sequence(self, writer: int) -> int:
        row = self._connection.execute("SELECT sequence FROM writers WHERE writer = ?", (_signed(writer),)).fetchone()
        return 0 if row is None else int(row[0])

    def _bury(self, offset: int, reason: str, value: bytes | None) -> None:
        row = (offset, reason, value or b"")
        self._connection.execute("INSERT OR REPLACE INTO dead_letters VALUES (?, ?, ?)", row)


def _first_ones(index: IdIndex | OutcomeIndex, batch: pa.RecordBatch, column: str) -> tuple[pa.RecordBatch, int]:
    """Rows of a batch whose ids are not in the journal yet, or that have none, and how many others there are."""
    ids = batch.column(column).to_pylist()
    seen: set[str] = set(index.find([name for name in ids if name is not None]))
    fresh = []
    for at, name in enumerate(ids):
        if name not in seen:
            fresh.append(at)
            if name is not None:
                seen.add(name)
    if len(fresh) == len(ids):
        return batch, 0
    return batch.take(pa.array(fresh, pa.int64())), len(ids) - len(fresh)


def _signed(writer: int) -> int:
    """A 64-bit number as SQLite keeps one."""
    return writer - (1 << 64) if writer >> 63 else writer
