"""Check a topic against a local copy of it: a copy that is made anew must hold the same rows."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pyarrow as pa

from data.errors import JournalError
from data.journal.kafka import KafkaJournal
from data.journal.protocol import Journal, Kind
from data.journal.sqlite import SqliteJournal
from data.journal.verify import JournalReport, verify
from data.report import Report, silent

_AT_ONCE: Final = 1 << 14  # rows compared at once


def verify_topic(
    address: str, copy: Path | str, options: Mapping[str, str] | None = None, report: Report = silent
) -> JournalReport:
    """Read a whole topic, and check the local copy by itself and against it.

    It writes to neither, but for dead letters that are not in their topic yet. A service may use both meanwhile.

    Args:
        address: `kafka://host:port/topic`.
        copy: The local copy.
        options: More settings of librdkafka.
        report: Called with progress.

    Raises:
        JournalError: There is no such copy, no broker answers, or the topic is not fit for a journal.
    """
    found = verify(copy, report)
    found.path = f"{address}, {copy}"
    with tempfile.TemporaryDirectory(prefix="ringwatch-verify-") as folder:
        try:
            with (
                SqliteJournal(copy, readonly=True) as held,
                KafkaJournal(address, Path(folder) / "copy.sqlite", options=options) as topic,
            ):
                _compare(held, topic, found, report)
        except JournalError as error:
            found.add(str(error))
    return found


def _compare(held: SqliteJournal, topic: KafkaJournal, found: JournalReport, report: Report) -> None:
    end, there = held.end, topic.end
    if there < end:
        found.add(f"the topic holds {there:,} rows, and its copy {end:,}: they are not of one journal")
    end = min(end, there)
    for start in range(0, end, _AT_ONCE):
        stop = min(start + _AT_ONCE, end)
        if list(_runs(held, start, stop)) != list(_runs(topic, start, stop)):
            found.add(f"the rows {start:,} to {stop - 1:,} of the copy are not those of the topic")
        report("comparing with the topic", stop / end)
    for offset, reason in topic.copy.passed_over():
        found.passed_over.append(f"offset {offset} of the topic: {reason}")


def _runs(journal: Journal, start: int, stop: int) -> Iterator[tuple[Kind, pa.Table]]:
    """Rows of a journal, those of one kind that follow on each other together, however they were stored."""
    kind: Kind | None = None
    waiting: list[pa.RecordBatch] = []
    for events in journal.replay(start, stop):
        if kind is not None and events.kind is not kind:
            yield kind, pa.Table.from_batches(waiting).combine_chunks()
            waiting = []
        kind = events.kind
        waiting.append(events.batch)
    if kind is not None:
        yield kind, pa.Table.from_batches(waiting).combine_chunks()
