"""What is scored again: events in journal order, read as a stream, and what tells one input from another."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import DataError
from data.files.address import Address
from data.files.places import Place, find_places, shown
from data.files.readers import OnRefusal
from data.files.streams import holds_journal, located, stream
from data.history import History, numbered
from data.journal.protocol import Events
from data.journal.sqlite import SqliteJournal

CHUNK: Final = 1 << 14  # events of the longest run
DIGESTED: Final = 1 << 16  # bytes at each end of a file that tell it from others, with its size


class BatchSource(Protocol):
    """Events in journal order, the same ones whenever they are asked for."""

    @property
    def identity(self) -> dict[str, Any]:
        """What tells this input from others, as JSON."""

    @property
    def expected(self) -> int:
        """Events, about; 0 where nobody knows before reading."""

    def events(self, start: int) -> Iterator[Events]:
        """The events from an offset on.

        Raises:
            DataError: They cannot be read.
        """


def open_source(
    payments: Path | str,
    labels: Path | str | None = None,
    *,
    strict: bool = False,
    on_refusal: OnRefusal | None = None,
    earlier: dict[str, Any] | None = None,
) -> BatchSource:
    """A journal, or files.

    Args:
        payments: A journal, or files as `data.history.History.read` takes them.
        labels: Of files.
        strict: Stop at the first bad row.
        on_refusal: Told of each bad row.
        earlier: Identity of the input of a run that is to go on: a journal is read as far as it was then.

    Raises:
        DataError: There is nothing there, or standard input is named: it cannot be read again.
    """
    if str(payments) == "-":
        raise DataError("standard input cannot be read again where a run has to go on: give files or a journal")
    if holds_journal(payments):
        stop = earlier.get("events") if earlier is not None and earlier.get("kind") == "journal" else None
        located(payments, labels)  # a journal has labels of its own
        return JournalSource(Path(payments), stop)
    return FileSource(*located(payments, labels), strict=strict, on_refusal=on_refusal)


class JournalSource:
    """A service's journal, up to where it ended when the run began; the service may go on writing.

    Args:
        path: The journal.
        stop: Offset to stop before, by default its end as it is now.

    Raises:
        DataError: It cannot be read, or ends before `stop`.
    """

    def __init__(self, path: Path, stop: int | None = None) -> None:
        self._path = path
        with SqliteJournal(path, readonly=True) as journal:
            end = journal.end
            if stop is not None and stop > end:
                raise DataError(f"{path} ends at event {end:,}, and the run that is to go on had read {stop:,}")
            self.expected = end if stop is None else stop
            first = [events.batch for events in journal.replay(0, min(1, end))]
        begins = hashlib.sha256(first[0].serialize()).hexdigest()[:32] if first else ""
        self.identity = {"kind": "journal", "begins": begins, "events": self.expected}

    def events(self, start: int) -> Iterator[Events]:
        """Replay from an offset on."""
        with SqliteJournal(self._path, readonly=True) as journal:
            if start < self.expected:
                yield from journal.replay(start, self.expected, CHUNK)


class FileSource:
    """Files of payments and labels, merged into the order of the journal.

    Args:
        payments: See `data.files.sources.read_transactions`.
        labels: Likewise.
        strict: Stop at the first bad row.
        on_refusal: Told of each bad row.

    Raises:
        DataError: There are no such files.
    """

    def __init__(
        self,
        payments: Path | str,
        labels: Path | str | None = None,
        strict: bool = False,
        on_refusal: OnRefusal | None = None,
    ) -> None:
        self._sources, self._strict, self._on_refusal = (payments, labels), strict, on_refusal
        places = [find_places(payments), find_places(labels) if labels is not None else []]
        self.expected = sum(_rows(place) for group in places for place in group)
        reading = [repr(s.options) if isinstance(s, Address) else "" for s in self._sources]
        files = [[_fingerprint(place) for place in group] for group in places]
        self.identity = {"kind": "files", "payments": files[0], "labels": files[1], "reading": reading}

    def events(self, start: int) -> Iterator[Events]:
        """Read from the beginning, and leave out what lies before an offset: only a whole pass knows the order."""
        runs = stream(*self._sources, strict=self._strict, on_refusal=self._on_refusal, chunk=CHUNK)
        for events in numbered(runs):
            skipped = start - events.offset
            if skipped <= 0:
                yield events
            elif skipped < len(events.batch):
                yield Events(events.kind, start, events.batch.slice(skipped))


@dataclass
class HistorySource:
    """A history in memory, for programs that hold one already.

    Attributes:
        history: Payments and labels.
    """

    history: History
    identity: dict[str, Any] = field(init=False)
    expected: int = field(init=False)

    def __post_init__(self) -> None:
        seen = hashlib.sha256()
        for events in self.history.events:
            seen.update(f"{events.kind.value}:{len(events.batch)}".encode() + events.batch.slice(0, 1).serialize())
        self.identity = {"kind": "history", "digest": seen.hexdigest()[:32]}
        self.expected = len(self.history)

    def events(self, start: int) -> Iterator[Events]:
        """Its events from an offset on."""
        for events in self.history.events:
            skipped = max(0, start - events.offset)
            if skipped < len(events.batch):
                yield Events(events.kind, events.offset + skipped, events.batch.slice(skipped))


def _rows(place: Place) -> int:
    """Rows of a Parquet file, from its footer; 0 where that cannot be told, or the file is to be refused later."""
    if place.filesystem is None:
        return 0
    try:
        with place.filesystem.open_input_file(place.path) as opened:
            return int(pq.read_metadata(opened).num_rows)
    except (OSError, pa.ArrowException):
        return 0


def _fingerprint(place: Place) -> list[Any]:
    """Name, size, and a digest of the ends of a file. Parquet's end holds the statistics of every column."""
    if place.filesystem is None:
        raise DataError(f"{shown(place.shown)} cannot be read again where a run has to go on")
    try:
        with place.filesystem.open_input_file(place.path) as opened:
            size = opened.size()
            head = opened.read(min(DIGESTED, size))
            opened.seek(max(0, size - DIGESTED))
            digest = hashlib.sha256(head + opened.read()).hexdigest()[:32]
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read {place.shown}: {error}") from error
    return [place.path.rpartition("/")[2], size, digest]
