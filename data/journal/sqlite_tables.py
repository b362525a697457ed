"""Ids, labels, outcomes and answers in SQLite tables: beside the events in one file, or in a file of their own."""

import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from data.errors import JournalError
from data.journal.protocol import Known, Report, outcomes_of
from data.outcomes import Became

_SIZES: Final = (256, 64, 16, 4, 1)  # rows of one statement
LABELS: Final = """
CREATE TABLE IF NOT EXISTS labels (
    transaction_id TEXT NOT NULL, reported_at INTEGER NOT NULL, is_fraud INTEGER NOT NULL,
    PRIMARY KEY (transaction_id, reported_at, is_fraud)
) WITHOUT ROWID;
"""
OUTCOMES: Final = """
CREATE TABLE IF NOT EXISTS outcomes (
    outcome_id TEXT PRIMARY KEY, transaction_id TEXT NOT NULL, outcome TEXT NOT NULL, at INTEGER NOT NULL,
    amount INTEGER, reporter TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS outcomes_of_payments ON outcomes (transaction_id, at, outcome_id);
"""
TABLES: Final = f"""{LABELS}{OUTCOMES}
CREATE TABLE IF NOT EXISTS ids (
    transaction_id TEXT PRIMARY KEY, position INTEGER NOT NULL, content BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers (position INTEGER PRIMARY KEY, answer BLOB NOT NULL, checksum INTEGER);
"""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Have every error be a `JournalError` that names the file."""
    try:
        yield
    except JournalError as error:
        raise JournalError(f"{path}: {error}") from error
    except sqlite3.Error as error:
        raise JournalError(f"cannot read the journal {path}: {error}") from error


class SqliteIdIndex:
    """Transaction ids in the table `ids`; see `data.journal.protocol.IdIndex`.

    Args:
        connection: Of the file that holds the table. Whoever opened it commits what is added.
        path: The file, for messages.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection, self._path = connection, path

    def find(self, ids: Sequence[str]) -> dict[str, Known]:
        """Those of the ids that were added."""
        found: dict[str, Known] = {}
        with reading(self._path):
            for part in _parts(ids):
                marks = ",".join("?" * len(part))
                query = f"SELECT transaction_id, position, content FROM ids WHERE transaction_id IN ({marks})"
                for name, position, content in self._connection.execute(query, part):
                    if type(position) is not int or not isinstance(content, bytes):
                        raise JournalError(f"what is kept of transaction {name!r} is damaged")
                    found[name] = Known(position, content)
        return found

    def add(self, ids: Sequence[str], first: int, hashes: Sequence[bytes]) -> None:
        """Add the transactions at offsets from `first` on; if it raises, the caller must roll back."""
        # In key order the rows of one leaf page of the tree are written together.
        rows = sorted(zip(ids, range(first, first + len(ids)), hashes, strict=True))
        try:
            _insert(self._connection, "INSERT INTO ids VALUES", rows)
        except sqlite3.IntegrityError as error:
            raise JournalError(f"a transaction id was appended twice: {error}") from None
        except sqlite3.Error as error:
            raise JournalError(f"cannot write to the journal {self._path}: {error}") from error


class SqliteLabelIndex:
    """Labels in the table `labels`; see `data.journal.protocol.LabelIndex`.

    Args:
        connection: Of the file that holds the table. Whoever opened it commits what is added.
        path: The file, for messages.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection, self._path = connection, path

    def find(self, ids: Sequence[str]) -> dict[str, list[Report]]:
        """The labels of payments, in order of their report."""
        found: dict[str, list[Report]] = {}
        run = self._connection.execute
        with reading(self._path):
            for transaction_id in ids:
                rows = run(
                    "SELECT reported_at, is_fraud FROM labels WHERE transaction_id = ? ORDER BY 1, 2", (transaction_id,)
                ).fetchall()
                if rows:
                    found[transaction_id] = [(reported, bool(fraud)) for reported, fraud in rows]
        return found

    def add(self, labels: pa.RecordBatch) -> None:
        """Add labels; one that is there stays. If it raises, the caller must roll back."""
        columns = (labels.column("transaction_id"), labels.column("reported_at").cast(pa.int64()))
        rows = sorted(zip(*(column.to_pylist() for column in (*columns, labels.column("is_fraud"))), strict=True))
        try:
            _insert(self._connection, "INSERT OR IGNORE INTO labels VALUES", rows)
        except sqlite3.Error as error:
            raise JournalError(f"cannot write to the journal {self._path}: {error}") from error


class SqliteOutcomeIndex:
    """Outcomes in the table `outcomes`; see `data.journal.protocol.OutcomeIndex`.

    Args:
        connection: Of the file that holds the table. Whoever opened it commits what is added.
        path: The file, for messages.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection, self._path = connection, path

    def find(self, ids: Sequence[str]) -> dict[str, Became]:
        """Outcomes by their own ids."""
        return {found.outcome_id: found for found in self._where("outcome_id", ids)}

    def of(self, transaction_ids: Sequence[str]) -> dict[str, list[Became]]:
        """Outcomes of payments, by time and id."""
        grouped: dict[str, list[Became]] = {}
        for found in self._where("transaction_id", list(dict.fromkeys(transaction_ids))):
            grouped.setdefault(found.transaction_id, []).append(found)
        return grouped

    def add(self, outcomes: pa.RecordBatch) -> None:
        """Add outcomes; an id that is there stays. If it raises, the caller must roll back."""
        rows = sorted(outcomes_of(outcomes), key=lambda became: became.outcome_id)
        try:
            _insert(self._connection, "INSERT OR IGNORE INTO outcomes VALUES", rows)
        except sqlite3.Error as error:
            raise JournalError(f"cannot write to the journal {self._path}: {error}") from error

    def _where(self, column: str, names: Sequence[str]) -> Iterator[Became]:
        with reading(self._path):
            for part in _parts(names):
                query = (
                    f"SELECT * FROM outcomes WHERE {column} IN ({','.join('?' * len(part))}) ORDER BY at, outcome_id"
                )
                yield from map(Became._make, self._connection.execute(query, part).fetchall())


class SqliteAnswerStore:
    """Answers in the table `answers`; see `data.journal.protocol.AnswerStore`.

    Args:
        connection: Of the file that holds the table, with no transaction open whenever `keep` is called.
        path: The file, for messages.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection, self._path = connection, path
        self.durable = True  # whether commits beside it wait for the disk

    def find(self, offsets: Sequence[int]) -> dict[int, bytes]:
        """The answers kept for the transactions at these offsets; one that is damaged counts as not kept."""
        found: dict[int, bytes] = {}
        with reading(self._path):
            for offset in offsets:
                row = self._connection.execute("SELECT * FROM answers WHERE position = ?", (offset,)).fetchone()
                if row is not None and answer_is_whole(row):
                    found[offset] = row[1]
        return found

    def keep(self, answers: Sequence[tuple[int, bytes]], *, replace: bool = False) -> None:
        """Keep answers by offset; the first stays, or the last. The next commit waits for the disk, not this."""
        rows = [(offset, answer, _checksum(offset, answer)) for offset, answer in answers]
        with self._changing():
            _insert(self._connection, f"INSERT OR {'REPLACE' if replace else 'IGNORE'} INTO answers VALUES", rows)

    def forget(self, before: int, most: int) -> int:
        """Let go of the oldest answers before an offset; their room in the file is used again."""
        old = "SELECT position FROM answers WHERE position < ? ORDER BY position LIMIT ?"
        with self._changing():
            return self._connection.execute(f"DELETE FROM answers WHERE position IN ({old})", (before, most)).rowcount

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """A commit that does not wait for the disk."""
        run = self._connection.execute
        try:
            run("PRAGMA synchronous=NORMAL")
            try:
                run("BEGIN IMMEDIATE")
                try:
                    yield
                    run("COMMIT")
                except BaseException:
                    run("ROLLBACK")
                    raise
            finally:
                if self.durable:
                    run("PRAGMA synchronous=FULL")
        except sqlite3.Error as error:
            raise JournalError(f"cannot keep answers in {self._path}: {error}") from error


def _parts(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Items in parts of a few sizes, the largest first: one statement each, of which SQLite keeps a few prepared.

    Each step of a statement lets go of the interpreter, and a thread that competes for it with an event loop waits to
    get it back. So one statement for many rows costs a busy service far less than many of one row.
    """
    at = 0
    for size in _SIZES:
        while at + size <= len(items):
            yield items[at : at + size]
            at += size


def _insert(connection: sqlite3.Connection, into: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows, all of as many values."""
    for part in _parts(rows):
        marks = f"({','.join('?' * len(part[0]))})"
        connection.execute(f"{into} {','.join([marks] * len(part))}", [value for row in part for value in row])


def answer_is_whole(row: tuple[Any, ...]) -> bool:
    """Whether a row of the table `answers` is as it was written; it has no checksum in a file of before there were."""
    offset, answer = row[:2]
    given = row[2] if len(row) > 2 else None
    return isinstance(answer, bytes) and (given is None or given == _checksum(offset, answer))


def _checksum(offset: int, answer: bytes) -> int:
    return zlib.crc32(answer, zlib.crc32(offset.to_bytes(8, "little", signed=True)))
