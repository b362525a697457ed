"""Read a whole journal and say what is wrong with it."""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from data.errors import JournalError
from data.journal.protocol import Kind, outcomes_of
from data.journal.sqlite_file import checked_from, connect, layout_of
from data.journal.sqlite_tables import SqliteIdIndex, SqliteLabelIndex, SqliteOutcomeIndex, answer_is_whole
from data.journal.stored import Stored, decode
from data.report import Report, silent
from data.schema import content_hashes

FAULTS_SHOWN: Final = 100  # a report holds no more: one lost page can be thousands of faults
_IDS_AT_ONCE: Final = 4096


@dataclass
class JournalReport:
    """What a journal holds, and what of it is damaged.

    Attributes:
        path: The file.
        events: Rows that could be read.
        unchecked: Those of them without a checksum, of a file that was made before there were checksums.
        transactions: Transactions among the rows.
        answers: Answers kept that are whole.
        faults: What is wrong, in the order found, `FAULTS_SHOWN` at most; empty where all is well.
        more: Faults beyond these.
        passed_over: Messages of a topic that no journal wrote; they are no fault of the journal.
    """

    path: str
    events: int = 0
    unchecked: int = 0
    transactions: int = 0
    answers: int = 0
    faults: list[str] = field(default_factory=list)
    more: int = 0
    passed_over: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults

    def add(self, fault: str) -> None:
        """Note a fault."""
        if len(self.faults) < FAULTS_SHOWN:
            self.faults.append(fault)
        else:
            self.more += 1


def verify(path: Path | str, report: Report = silent) -> JournalReport:
    """Check a journal against itself: pages, checksums, offsets, answers, and what is indexed against the events.

    It only reads, and holds no lock for long: a service may write to the journal meanwhile.

    Args:
        path: The file.
        report: Called with progress.

    Raises:
        JournalError: There is no such file.
    """
    path = Path(path)
    if not path.exists():
        raise JournalError(f"no journal at {path}")
    found = JournalReport(str(path))
    try:
        connection = connect(path, readonly=True)
    except JournalError as error:
        found.add(str(error))
        return found
    try:
        for what, check in (("pages", _pages), ("events", _events), ("answers", _answers)):
            try:
                check(connection, path, found, report)
            except (JournalError, sqlite3.Error) as error:
                found.add(f"{what} cannot be read any further: {error}")
    finally:
        connection.close()
    return found


def _pages(connection: sqlite3.Connection, path: Path, found: JournalReport, report: Report) -> None:
    report("checking pages", 0.0)
    for (said,) in connection.execute(f"PRAGMA quick_check({FAULTS_SHOWN})"):
        if said != "ok":
            found.add(f"SQLite: {said}")


def _events(connection: sqlite3.Connection, path: Path, found: JournalReport, report: Report) -> None:
    """Every row by itself, that offsets are dense, and that what is indexed in tables is what the events say."""
    since, indexed, became = checked_from(connection), layout_of(connection) >= 3, layout_of(connection) >= 4
    row = connection.execute("SELECT first, rows FROM events ORDER BY first DESC LIMIT 1").fetchone()
    end = 0 if row is None else row[0] + (row[1] if isinstance(row[1], int) else 1)
    expected = labels = 0
    for row in _each(connection, end):
        try:
            held = decode(row, since)
        except JournalError as error:
            found.add(str(error))
            expected = row[0] + (row[1] if isinstance(row[1], int) else 1)
            continue
        if held.first != expected:
            found.add(f"offsets {expected} to {held.first - 1} are lost, or stored twice")
        expected = held.first + len(held.batch)
        found.events += len(held.batch)
        found.unchecked += 0 if held.checked else len(held.batch)
        if held.kind is Kind.TRANSACTION:
            found.transactions += len(held.batch)
            _ids(connection, path, held, found)
        elif held.kind is Kind.LABEL:
            labels += len(held.batch)
            if indexed:
                _labels(connection, path, held, found)
        elif held.kind is Kind.OUTCOME and became:
            _outcomes(connection, path, held, found)
        report("checking events", expected / max(1, end))
    count = connection.execute("SELECT count(*) FROM ids WHERE position < ?", (end,)).fetchone()[0]
    if count != found.transactions:
        found.add(f"{count} transaction ids are indexed, {found.transactions} transactions can be read")
    if indexed and (count := connection.execute("SELECT count(*) FROM labels").fetchone()[0]) > labels:
        # Beside a writer there may be more by now; fewer there always may be, since one that came again is there once.
        newer = connection.execute("SELECT max(first + rows) FROM events").fetchone()[0]
        if newer == end:
            found.add(f"{count} labels are indexed, {labels} can be read")


def _each(connection: sqlite3.Connection, end: int) -> Iterator[tuple[Any, ...]]:
    """The stored rows before `end`, one at a time, so that no read lock is held while one is checked."""
    at = -1
    while (
        row := connection.execute(
            "SELECT * FROM events WHERE first > ? AND first < ? ORDER BY first LIMIT 1", (at, end)
        ).fetchone()
    ) is not None:
        yield row
        at = row[0]


def _ids(connection: sqlite3.Connection, path: Path, held: Stored, found: JournalReport) -> None:
    index = SqliteIdIndex(connection, path)
    for start in range(0, len(held.batch), _IDS_AT_ONCE):
        batch = held.batch.slice(start, _IDS_AT_ONCE)
        ids = batch.column("transaction_id").to_pylist()
        known = index.find(ids)
        for n, (name, content) in enumerate(zip(ids, content_hashes(batch), strict=True)):
            offset = held.first + start + n
            if name not in known:
                found.add(f"transaction {name!r} at offset {offset} is not in the index of ids")
            elif known[name].offset != offset:
                found.add(f"transaction {name!r} at offset {offset} is indexed at offset {known[name].offset}")
            elif known[name].content_hash != content:
                found.add(f"transaction {name!r} at offset {offset} is indexed with other content")


def _labels(connection: sqlite3.Connection, path: Path, held: Stored, found: JournalReport) -> None:
    index = SqliteLabelIndex(connection, path)
    columns = held.batch.column("transaction_id"), held.batch.column("reported_at").cast(pa.int64())
    ids, reported, fraud = (column.to_pylist() for column in (*columns, held.batch.column("is_fraud")))
    known = index.find(ids)
    for n, name in enumerate(ids):
        if (reported[n], fraud[n]) not in known.get(name, ()):
            found.add(f"the label of {name!r} at offset {held.first + n} is not in the index of labels")


def _outcomes(connection: sqlite3.Connection, path: Path, held: Stored, found: JournalReport) -> None:
    index, expected = SqliteOutcomeIndex(connection, path), outcomes_of(held.batch)
    known = index.find([became.outcome_id for became in expected])
    for became in expected:
        if known.get(became.outcome_id) != became:
            found.add(f"the outcome {became.outcome_id!r} of {became.transaction_id!r} is not in the index of outcomes")


def _answers(connection: sqlite3.Connection, path: Path, found: JournalReport, report: Report) -> None:
    report("checking answers", 0.0)
    for row in connection.execute("SELECT * FROM answers ORDER BY position"):
        if answer_is_whole(row):
            found.answers += 1
        else:
            found.add(f"the answer kept for offset {row[0]} is damaged; it will be computed again")
