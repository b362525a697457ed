"""The journal in one SQLite file: one Arrow blob for each run of one kind in a group commit.

Every row of every event takes one *offset*; offsets are dense from 0. The table of transaction ids is written in the
same commit, so that a repeated payment finds its first offset, and a changed one is told apart by its content hash.
"""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.errors import JournalError
from data.journal import sqlite_tables
from data.journal.protocol import FORMAT, SCHEMAS, Events, Kind, check_schema, known_kinds
from data.journal.sqlite_tables import SqliteAnswerStore, SqliteIdIndex, reading
from data.schema import content_hashes

_APPLICATION: Final = 0x52575448  # "RWTH", marks the file as ours
_BUSY: Final = 30.0  # seconds that a writer waits for another process
_READ: Final = 1 << 16  # rows fetched at once by a replay
_TABLES: Final = f"""
CREATE TABLE IF NOT EXISTS events (
    first INTEGER PRIMARY KEY, rows INTEGER NOT NULL, kind INTEGER NOT NULL, format INTEGER NOT NULL,
    payload BLOB NOT NULL
);
{sqlite_tables.TABLES}"""


class SqliteCommit:
    """One open transaction of the journal, alone among all writers; see `data.journal.protocol.Commit`.

    Args:
        connection: In that transaction.
        ids: Over the same connection.
        end: The offset that the next row appended will take.
    """

    def __init__(self, connection: sqlite3.Connection, ids: SqliteIdIndex, end: int) -> None:
        self._connection = connection
        self.ids, self.end = ids, end
        self.events: list[Events] = []
        self.spoilt = False  # an append failed, and may have been half done

    def append(self, kind: Kind, batch: pa.RecordBatch, hashes: Sequence[bytes] | None = None) -> int:
        """Append rows of one kind; returns the offset of the first."""
        first, rows, self.spoilt = self.end, batch.num_rows, True
        check_schema(kind, batch)
        if rows:
            try:
                self._connection.execute(
                    "INSERT INTO events VALUES (?, ?, ?, ?, ?)", (first, rows, int(kind), FORMAT, batch.serialize())
                )
            except sqlite3.Error as error:
                raise JournalError(f"cannot append: {error}") from error
            if kind is Kind.TRANSACTION:
                content = content_hashes(batch) if hashes is None else hashes
                self.ids.add(batch.column(0).to_pylist(), first, content)
            self.events.append(Events(kind, first, batch))
            self.end = first + rows
        self.spoilt = False
        return first


class SqliteJournal:
    """The journal, its ids and its answers in one SQLite file, in WAL mode; see `data.journal.protocol.Journal`.

    A commit is on disk when `begin` is left. One thread at a time may use an instance; several processes may have the
    same file open.

    Args:
        path: The file; made, with its folder, where it is missing.

    Raises:
        JournalError: The file cannot be opened or is no journal of this format.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                self.path, timeout=_BUSY, isolation_level=None, check_same_thread=False, cached_statements=32
            )
        except (OSError, sqlite3.Error) as error:
            raise JournalError(f"cannot open the journal {self.path}: {error}") from error
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise
        self.ids = SqliteIdIndex(self._connection, self.path)
        self.answers = SqliteAnswerStore(self._connection, self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def end(self) -> int:
        """The offset that the next event will take."""
        with reading(self.path):
            return self._end()

    @contextmanager
    def begin(self) -> Iterator[SqliteCommit]:
        """Open a group commit: alone among all writers, on disk when the block is left, nothing of it if that raises.

        Raises:
            JournalError: Another writer holds the file for too long, the disk refuses, or a commit is open already.
        """
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise JournalError(f"cannot begin a commit to {self.path}: {error}") from error
        try:
            commit = SqliteCommit(self._connection, self.ids, self._end())
            yield commit
            if commit.spoilt:
                raise JournalError(f"cannot commit to {self.path}: an append to it failed")
            self._connection.execute("COMMIT")
        except BaseException as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
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
                    "SELECT first, rows, kind, format, payload FROM events"
                    " WHERE first <= ? ORDER BY first DESC LIMIT 1",
                    (int(wanted[at]),),
                ).fetchone()
            if (
                row is None
                or wanted[at] >= row[0] + row[1]
                or self._readable(row[0], row[2], row[3]) is not Kind.TRANSACTION
            ):
                raise JournalError(f"{self.path}: no transaction at offset {wanted[at]}")
            upto = int(np.searchsorted(wanted, row[0] + row[1]))
            batch = pa.ipc.read_record_batch(pa.py_buffer(row[4]), SCHEMAS[Kind.TRANSACTION])
            found.append(pa.Table.from_batches([batch]).take(pa.array(wanted[at:upto] - row[0])))
            at = upto
        return pa.concat_tables(found).take(pa.array(back))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _prepare(self) -> None:
        run = self._connection.execute
        try:
            run("BEGIN")  # one view of the file for all three: another process may be making it
            tables = run("SELECT count(*) FROM sqlite_master").fetchone()[0]
            marks = run("PRAGMA application_id").fetchone()[0], run("PRAGMA user_version").fetchone()[0]
            run("COMMIT")
            if marks != (_APPLICATION, FORMAT) and (tables or marks != (0, 0)):
                raise JournalError(f"{self.path} is not a journal of format {FORMAT}")
            self._enter_wal()
            run("PRAGMA synchronous=FULL")
            run("PRAGMA cache_size=-65536")  # KiB: random ids touch pages all over their tree
            if not tables:
                run("BEGIN IMMEDIATE")  # two processes may make the file at once
                for statement in _TABLES.split(";"):
                    run(statement)
                run(f"PRAGMA application_id={_APPLICATION}")
                run(f"PRAGMA user_version={FORMAT}")
                run("COMMIT")
        except sqlite3.Error as error:
            raise JournalError(f"cannot open the journal {self.path}: {error}") from error

    def _enter_wal(self) -> None:
        deadline = time.monotonic() + _BUSY
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError:
                # SQLite does not wait by itself when two processes switch the mode at once.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _end(self) -> int:
        row = self._connection.execute("SELECT first + rows FROM events ORDER BY first DESC LIMIT 1").fetchone()
        return int(row[0]) if row else 0

    def _stored(self, start: int, stop: int) -> list[tuple[Kind, int, list[pa.RecordBatch]]]:
        """The stored batches of [start, stop), cut to it, runs of one kind together with their first offset."""
        with reading(self.path):
            found = self._connection.execute(
                "SELECT first, rows, kind, format, payload FROM events"
                " WHERE first >= (SELECT max(first) FROM events WHERE first <= ?) AND first < ? ORDER BY first",
                (start, stop),
            ).fetchall()
        runs: list[tuple[Kind, int, list[pa.RecordBatch]]] = []
        for first, rows, number, form, payload in found:
            kind = self._readable(first, number, form)
            batch = pa.ipc.read_record_batch(pa.py_buffer(payload), SCHEMAS[kind])
            cut = max(start - first, 0)
            if cut or first + rows > stop:
                batch = batch.slice(cut, stop - first - cut)
            if runs and runs[-1][0] is kind:
                runs[-1][2].append(batch)
            else:
                runs.append((kind, first + cut, [batch]))
        return runs

    def _readable(self, first: int, number: int, form: int) -> Kind:
        """The kind of stored events, where this version can read them."""
        what, way = f"{self.path}: the events at offset {first} are of", "read it with the version that wrote it"
        if form != FORMAT:
            raise JournalError(f"{what} format {form}, this version knows {FORMAT}; upgrade Ringwatch, or {way}")
        if number not in SCHEMAS:
            raise JournalError(f"{what} kind {number}, {known_kinds()}; upgrade Ringwatch, or {way}")
        return Kind(number)
