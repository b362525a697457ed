"""The journal's file: made whole or not at all, opened for writing or for reading, watched while it is open.

A file of layout 1 has no checksums, one of layout 2 no table of labels, one of layout 3 none of outcomes. Opened for
writing each becomes one of layout 4: everything that is written from then on has a checksum, and the labels and
outcomes that are there are put into their tables. Opened for reading they are read as they are.

A journal is never empty: it is made under another name and linked to its own, so that a file of 0 bytes was cut.
"""

import os
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import quote

from data.errors import JournalError
from data.journal import sqlite_tables
from data.journal.protocol import Kind
from data.journal.stored import decode

LAYOUT: Final = 4  # of the tables; what is in the payloads has a format of its own
_APPLICATION: Final = 0x52575448  # "RWTH", marks the file as ours
_BUSY: Final = 30.0  # seconds that a writer waits for another process
_EVENTS: Final = """
CREATE TABLE events (
    first INTEGER PRIMARY KEY, rows INTEGER NOT NULL, kind INTEGER NOT NULL, format INTEGER NOT NULL,
    payload BLOB NOT NULL, checksum INTEGER
);
"""
# Where checksums begin: from that offset on a row without one is damaged.
_CHECKED: Final = "CREATE TABLE checked (since INTEGER PRIMARY KEY);"


def connect(path: Path, *, readonly: bool) -> sqlite3.Connection:
    """Open a journal; for writing it is made, with its folder, where it is missing.

    Raises:
        JournalError: It cannot be opened, was cut, or is no journal that this version can read.
    """
    try:
        path = Path(os.path.realpath(path))  # SQLite keeps its log beside the file that a link leads to
        if not readonly:
            path.parent.mkdir(parents=True, exist_ok=True)
            _make_missing(path)
            if not os.access(path, os.W_OK, effective_ids=True):  # SQLite would say so at the first commit
                raise JournalError(f"cannot open the journal {path}: {path.name} may not be written by this user")
        _refuse_cut(path)
        connection = _opened_to_read(path) if readonly else _opened(str(path))
        try:
            _check_marks(connection, path)
            if not readonly:
                _enter_wal(connection)
                connection.execute("PRAGMA synchronous=FULL")
                _upgrade(connection, path)
            connection.execute("PRAGMA cache_size=-65536")  # KiB: random ids touch pages all over their tree
        except BaseException:
            connection.close()
            raise
    except (OSError, sqlite3.Error) as error:
        hint = "; its folder must be writable, for its write-ahead log" if not readonly and path.is_file() else ""
        raise JournalError(f"cannot open the journal {path}: {error}{hint}") from error
    return connection


def checked_from(connection: sqlite3.Connection) -> int | None:
    """The offset from which on every row has a checksum; None in a file of layout 1.

    Raises:
        JournalError: It is not there.
    """
    if layout_of(connection) < 2:
        return None
    found = connection.execute("SELECT since FROM checked").fetchall()
    if len(found) != 1:
        raise JournalError("where its checksums begin is lost: the file is damaged; restore a backup")
    return int(found[0][0])


def layout_of(connection: sqlite3.Connection) -> int:
    """Which tables a journal has."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def refuse_copy(connection: sqlite3.Connection) -> None:
    """Refuse a file that holds what a topic does, and only what a topic does.

    Raises:
        JournalError: It is one.
    """
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'topic'").fetchone():
        name = connection.execute("SELECT name FROM topic").fetchone()[0]
        raise JournalError(
            f"is the local copy of the Kafka topic {name!r}: give kafka://host:port/{name} to write to it"
        )


class Watch:
    """Notices that a file which is open was removed, replaced or cut.

    SQLite does not: it goes on writing to a file that no name leads to any more.

    Args:
        path: The journal, open by now.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._wal = str(path), f"{os.path.realpath(path)}-wal"
        self._is, self._size = self._look(self._path)
        try:
            self._wal_is, self._wal_size = self._look(self._wal)
        except JournalError:  # a reader of a journal that nobody writes to has none
            self._wal_is, self._wal_size = None, 0

    def check(self) -> None:
        """Look at the journal.

        Raises:
            JournalError: It is not the file that was opened, or is shorter than it was.
        """
        there, size = self._look(self._path)
        if there != self._is:
            raise JournalError(f"{self._path} was replaced under this process; put it back, then start again")
        if size < self._size:
            raise JournalError(f"{self._path} was cut from {self._size:,} to {size:,} bytes under this process")
        self._size = size

    def check_log(self, connection: sqlite3.Connection) -> None:
        """Look at the write-ahead log beside it, while no transaction is open.

        Raises:
            JournalError: It is not the one that was opened, or was cut by somebody who was not SQLite.
        """
        if self._wal_is is None:
            return
        there, size = self._look(self._wal)
        if there != self._wal_is:
            raise JournalError(f"{self._wal} was replaced under this process; put it back, then start again")
        if size < self._wal_size:
            # SQLite's own tools may empty it once all of it is in the journal. What is not can no longer be read then.
            try:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            except sqlite3.Error as error:
                raise JournalError(f"{self._wal} was cut under this process: {error}") from error
        self._wal_size = size

    @staticmethod
    def _look(path: str) -> tuple[tuple[int, int] | None, int]:
        try:
            found = os.stat(path)
        except OSError as error:
            raise JournalError(f"{path} is gone: {error.strerror}; put it back, then start again") from error
        return (found.st_dev, found.st_ino), found.st_size


def _opened(name: str, *, uri: bool = False) -> sqlite3.Connection:
    return sqlite3.connect(
        name, timeout=_BUSY, isolation_level=None, check_same_thread=False, cached_statements=32, uri=uri
    )


def _opened_to_read(path: Path) -> sqlite3.Connection:
    if not path.exists():
        raise JournalError(f"no journal at {path}")
    name = f"file:{quote(str(path.absolute()))}"
    connection = _opened(f"{name}?mode=ro", uri=True)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        connection.close()
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            raise
        # SQLite wants to make the index of the write-ahead log beside it. Without a log it can be read as it lies.
        if os.access(path, os.R_OK) and not _size(Path(f"{path}-wal")):
            return _opened(f"{name}?mode=ro&immutable=1", uri=True)
        raise JournalError(
            f"cannot read the journal {path}: {error}; if it has a write-ahead log ({path.name}-wal), copy both into a "
            "folder in which you may write, and read them there"
        ) from error
    return connection


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _refuse_cut(path: Path) -> None:
    if path.is_file() and not path.stat().st_size:
        raise JournalError(
            f"{path} is empty, and a journal never is: it was cut, or is none; restore it from a backup, or remove it "
            "if nothing was ever recorded in it"
        )


def _make_missing(path: Path) -> None:
    if path.exists():
        return
    if _size(Path(f"{path}-wal")):
        raise JournalError(
            f"{path} is missing, but its write-ahead log {path.name}-wal is there: restore the journal from a backup, "
            "or remove the log if nothing of it is wanted"
        )
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".new", dir=path.parent)  # for its owner alone
    os.close(handle)
    try:
        connection = sqlite3.connect(name, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            _in_one_commit(connection, _lay_out)
        finally:
            connection.close()
        os.link(name, path)  # a link is never laid over the file of a process that was faster, a new name may be
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError:
        return
    finally:
        os.unlink(name)


def _lay_out(connection: sqlite3.Connection) -> None:
    for statement in f"{_EVENTS}{sqlite_tables.TABLES}{_CHECKED}".split(";"):
        connection.execute(statement)
    connection.execute("INSERT INTO checked VALUES (0)")
    connection.execute(f"PRAGMA application_id={_APPLICATION}")
    connection.execute(f"PRAGMA user_version={LAYOUT}")


def _upgrade(connection: sqlite3.Connection, path: Path) -> None:
    def bring_up(connection: sqlite3.Connection) -> None:
        layout = layout_of(connection)  # another process may have been faster
        if layout < 2:
            connection.execute("ALTER TABLE events ADD COLUMN checksum INTEGER")
            connection.execute("ALTER TABLE answers ADD COLUMN checksum INTEGER")
            connection.execute(_CHECKED)
            connection.execute("INSERT INTO checked SELECT coalesce(max(first + rows), 0) FROM events")
            connection.execute("PRAGMA user_version=2")
        if layout < 3:
            connection.execute(sqlite_tables.LABELS)
            index, since = sqlite_tables.SqliteLabelIndex(connection, path), checked_from(connection)
            for row in connection.execute(f"SELECT * FROM events WHERE kind = {Kind.LABEL:d} ORDER BY first"):
                index.add(decode(row, since).batch)
        if layout < 4:
            for statement in sqlite_tables.OUTCOMES.split(";"):
                connection.execute(statement)
            outcomes, since = sqlite_tables.SqliteOutcomeIndex(connection, path), checked_from(connection)
            for row in connection.execute(f"SELECT * FROM events WHERE kind = {Kind.OUTCOME:d} ORDER BY first"):
                outcomes.add(decode(row, since).batch)
        connection.execute(f"PRAGMA user_version={LAYOUT}")

    if layout_of(connection) < LAYOUT:
        _in_one_commit(connection, bring_up)


def _in_one_commit(connection: sqlite3.Connection, change: Callable[[sqlite3.Connection], None]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        change(connection)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _check_marks(connection: sqlite3.Connection, path: Path) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    layout = layout_of(connection)
    if application != _APPLICATION or layout < 1:
        raise JournalError(f"{path} is not a journal")
    if layout > LAYOUT:
        raise JournalError(
            f"{path} is a journal of layout {layout}, this version knows up to {LAYOUT}; upgrade Ringwatch, or open it "
            "with the version that wrote it"
        )


def _enter_wal(connection: sqlite3.Connection) -> None:
    deadline = time.monotonic() + _BUSY
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            # SQLite does not wait by itself when two processes switch the mode at once.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
