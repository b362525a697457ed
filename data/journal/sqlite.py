"""The journal in one SQLite file: one Arrow blob for each run of one kind in a group commit.

Every row of every event takes one *offset*; offsets are dense from 0. The tables of transaction ids and of labels are
written in the same commit, so that a repeated payment finds its first offset, a changed one is told apart by its
content hash, and a label that was ever recorded is known again.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.errors import JournalError
from data.journal.protocol import SCHEMAS, Events, Kind, check_schema
from data.journal.sqlite_file import Watch, checked_from, connect, refuse_copy
from data.journal.sqlite_tables import SqliteAnswerStore, SqliteIdIndex, SqliteLabelIndex, SqliteOutcomeIndex, reading
from data.journal.stored import decode, decode_all, encode
from data.schema import content_hashes

_READ: Final = 1 << 16  # rows fetched at once by a replay


class SqliteCommit:
    """One open transaction of the journal, alone among all writers; see `data.journal.protocol.Commit`.

    Args:
        connection: In that transaction.
        ids: Over the same connection.
        labels: The same.
        outcomes: The same.
        end: The offset that the next row appended will take.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        ids: SqliteIdIndex,
        labels: SqliteLabelIndex,
        outcomes: SqliteOutcomeIndex,
        end: int,
    ) -> None:
        self._connection = connection
        self.ids, self.labels, self.outcomes, self.end = ids, labels, outcomes, end
        self.events: list[Events] = []
        self.spoilt = False  # an append failed, and may have been half done

    def append(self, kind: Kind, batch: pa.RecordBatch, hashes: Sequence[bytes] | None = None) -> int:
        """Append rows of one kind; returns the offset of the first."""
        first, rows, self.spoilt = self.end, batch.num_rows, True
        check_schema(kind, batch)
        if rows:
            try:
                self._connection.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", encode(kind, first, batch))
            except sqlite3.Error as error:
                raise JournalError(f"cannot append: {error}") from error
            if kind is Kind.TRANSACTION:
                content = content_hashes(batch) if hashes is None else hashes
                self.ids.add(batch.column(0).to_pylist(), first, content)
            elif kind is Kind.LABEL:
                self.labels.add(batch)
            elif kind is Kind.OUTCOME:
                self.outcomes.add(batch)
            self.events.append(Events(kind, first, batch))
            self.end = first + rows
        self.spoilt = False
        return first


class SqliteJournal:
    """The journal, its ids and its answers in one SQLite file, in WAL mode; see `data.journal.protocol.Journal`.

    A commit is on disk when `begin` is left. One thread at a time may use an instance; several processes may have the
    same file open.

    Args:
        path: The file; made, with its folder, where it is missing. None but its owner may read a file that is made.
        readonly: Only read it: that needs no right to write, and nothing is made.

    Raises:
        JournalError: The file cannot be opened, was cut or damaged, or is no journal of this version.
    """

    _is_copy = False  # of a topic, which only `data.journal.kafka` writes to

    def __init__(self, path: Path | str, *, readonly: bool = False) -> None:
        self.path = Path(path)
        self._connection = connect(self.path, readonly=readonly)
        self.ids = SqliteIdIndex(self._connection, self.path)
        self.labels = SqliteLabelIndex(self._connection, self.path)
        self.outcomes = SqliteOutcomeIndex(self._connection, self.path)
        self.answers = SqliteAnswerStore(self._connection, self.path)
        try:
            with reading(self.path):
                if not readonly and not self._is_copy:
                    refuse_copy(self._connection)
                self._checked_from = checked_from(self._connection)
                self._last()
            self._watch = Watch(self.path)
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def end(self) -> int:
        """The offset that the next event will take."""
        self._watch.check()
        with reading(self.path):
            return self._end()

    @contextmanager
    def begin(self) -> Iterator[SqliteCommit]:
        """Open a group commit: alone among all writers, on disk when the block is left, nothing of it if that raises.

        Raises:
            JournalError: Another writer holds the file for too long, the disk refuses, a commit is open already, or the
                file is no longer the one that was opened.
        """
        self._watch.check_log(self._connection)
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise JournalError(f"cannot begin a commit to {self.path}: {error}") from error
        try:
            commit = SqliteCommit(self._connection, self.ids, self.labels, self.outcomes, self._end())
            yield commit
            if commit.spoilt:
                raise JournalError(f"cannot commit to {self.path}: an append to it failed")
            self._watch.check()
            self._connection.execute("COMMIT")
        except BaseException as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if isinstance(error, (sqlite3.Error, JournalError)):
                self._watch.check()  # if the file was cut, that says more than what SQLite made of it
            if isinstance(error, sqlite3.Error):
                raise JournalError(f"cannot commit to {self.path}: {error}") from error
            raise

    def replay(self, start: int = 0, stop: int | None = None, chunk: int = 65536) -> Iterator[Events]:
        """The events [start, stop) in order; neighbours of one kind are merged into batches of at most `chunk` rows.

        No read lock is held between batches.

        Args:
            start: First offset.
            stop: Offset to stop before; the end of the journal at the first batch, if None.
            chunk: Rows of the largest batch.

        Raises:
            JournalError: `start` is not in [0, end], or the file cannot be read.
        """
        end = self.end
        if not 0 <= start <= end or chunk < 1:
            raise JournalError(f"cannot replay from offset {start} in chunks of {chunk}: the journal ends at {end}")
        stop = end if stop is None else min(stop, end)
        while start < stop:
            until = min(stop, start + max(chunk, _READ))
            for kind, first, batches in self._stored(start, until):
                batch = batches[0]
                if len(batches) > 1:
                    batch = pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
                for at in range(0, batch.num_rows, chunk):
                    yield Events(kind, first + at, batch.slice(at, chunk))
            start = until

    def take(self, offsets: NDArray[np.int64]) -> pa.Table:
        """Transactions by offset, in the order asked for; a stored batch that holds several is read once.

        Raises:
            JournalError: An offset holds no transaction, or the file cannot be read.
        """
        wanted, back = np.unique(offsets, return_inverse=True)
        found, at = [SCHEMAS[Kind.TRANSACTION].empty_table()], 0
        while at < len(wanted):
            with reading(self.path):
                row = self._connection.execute(
                    "SELECT * FROM events WHERE first <= ? ORDER BY first DESC LIMIT 1", (int(wanted[at]),)
                ).fetchone()
                held = None if row is None else decode(row, self._checked_from)
            if held is None or held.kind is not Kind.TRANSACTION or wanted[at] >= held.first + len(held.batch):
                raise JournalError(f"{self.path}: no transaction at offset {wanted[at]}")
            upto = int(np.searchsorted(wanted, held.first + len(held.batch)))
            found.append(pa.Table.from_batches([held.batch]).take(pa.array(wanted[at:upto] - held.first)))
            at = upto
        return pa.concat_tables(found).take(pa.array(back))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _end(self) -> int:
        row = self._connection.execute("SELECT first + rows FROM events ORDER BY first DESC LIMIT 1").fetchone()
        if row is None:
            return 0
        if type(row[0]) is not int:
            raise JournalError("its last row is damaged; restore a backup")
        return row[0]

    def _last(self) -> None:
        """Check the last row, which alone says where the journal ends."""
        row = self._connection.execute("SELECT * FROM events ORDER BY first DESC LIMIT 1").fetchone()
        if row is not None:
            decode(row, self._checked_from)

    def _stored(self, start: int, stop: int) -> list[tuple[Kind, int, list[pa.RecordBatch]]]:
        """The stored batches of [start, stop), cut to it, runs of one kind together with their first offset."""
        with reading(self.path):
            rows = self._connection.execute(
                "SELECT * FROM events"
                " WHERE first >= (SELECT max(first) FROM events WHERE first <= ?) AND first < ? ORDER BY first",
                (start, stop),
            ).fetchall()
            found = decode_all(rows, self._checked_from)
        runs: list[tuple[Kind, int, list[pa.RecordBatch]]] = []
        for held in found:
            cut, count = start - held.first, len(held.batch)
            if not 0 <= cut < count:
                break
            batch = held.batch
            if cut or held.first + count > stop:
                batch = batch.slice(cut, stop - start)
            if runs and runs[-1][0] is held.kind:
                runs[-1][2].append(batch)
            else:
                runs.append((held.kind, start, [batch]))
            start += len(batch)
        if start < stop:
            raise JournalError(f"{self.path}: the events at offset {start} are lost: the file is damaged")
        return runs
