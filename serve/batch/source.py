"""What is scored again: events in journal order, read as a stream, and what tells one input from another."""

import hashlib
from collections.abc import Callable, Iterator
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
from serve.batch.prefix import Former, Passed, Prefix
from serve.batch.readable import Skipped, readable

CHUNK: Final = 1 << 14  # events of the longest run
MOST_NAMED: Final = 3  # files in one message
DIGESTED: Final = 1 << 16  # bytes at each end of a file that tell it from others, with its size


class BatchSource(Protocol):
    """Events in journal order, the same ones whenever they are asked for."""

    @property
    def identity(self) -> dict[str, Any]:
        """What tells this input from others, as JSON."""

    @property
    def expected(self) -> int:
        """Events, about; 0 where nobody knows before reading."""

    @property
    def prefix(self) -> Prefix:
        """What was read, for a run that goes on from this one; known once `events` came to its end."""

    def go_on_from(self, former: Former) -> None:
        """Refuse events that do not begin with those that a former run had read, now or while they are read.

        Raises:
            DataError: It is plain already that they do not.
        """

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
    on_skip: Callable[[Skipped], None] | None = None,
) -> BatchSource:
    """A journal, or files.

    Args:
        payments: A journal, or files as `data.history.History.read` takes them.
        labels: Of files.
        strict: Stop at the first bad row.
        on_refusal: Told of each bad row.
        earlier: Identity of the input of a run that is to go on: a journal is read as far as it was then.
        on_skip: Told of each file that cannot be read, and is left out. Without it, such a file is an error.

    Raises:
        DataError: There is nothing there, or standard input is named: it cannot be read again; or unreadable parts of
            a journal are to be left out.
    """
    if str(payments) == "-":
        raise DataError("standard input cannot be read again where a run has to go on: give files or a journal")
    if holds_journal(payments):
        stop = earlier.get("events") if earlier is not None and earlier.get("kind") == "journal" else None
        located(payments, labels)  # a journal has labels of its own
        if on_skip is not None:
            raise DataError("a journal is one whole, of which nothing can be left out: --keep-going is for files")
        return JournalSource(Path(payments), stop)
    payments, labels = located(payments, labels)
    if on_skip is not None:
        of_payments = isinstance(labels, Address) and labels.options.label is not None
        payments, skipped = readable(payments, "payments")
        if of_payments:
            labels = payments
        elif labels is not None:
            labels, more = readable(labels, "labels")
            skipped += more
        for one in skipped:
            on_skip(one)
    return FileSource(payments, labels, strict=strict, on_refusal=on_refusal)


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

    @property
    def prefix(self) -> Prefix:
        """All events."""
        return Prefix(self.expected, self._digest(self.expected))

    def go_on_from(self, former: Former) -> None:
        """Compare the first event and the last one that the former run had read."""
        former.check_kind(self.identity)
        if self.identity["begins"] != former.input["begins"]:
            raise DataError(f"{self._path} is another journal than {former.folder} had read: its first event differs")
        if (read := former.prefix.events) > self.expected:
            raise DataError(f"{self._path} ends at event {self.expected:,}, and {former.folder} had read {read:,}")
        if self._digest(read) != former.prefix.digest:
            raise DataError(
                f"event {read - 1:,} of {self._path} is not the one that {former.folder} had read last: the journal "
                "went on otherwise, from a backup perhaps. Score the whole of it, without --since"
            )

    def _digest(self, events: int) -> str:
        """Of the last one of the first events."""
        with SqliteJournal(self._path, readonly=True) as journal:
            last = [found.batch for found in journal.replay(max(0, events - 1), events)]
        return hashlib.sha256(repr(last[0].to_pylist()).encode()).hexdigest()[:32] if last else ""


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
        self._former: Former | None = None
        self.prefix = Prefix(0, "")

    def events(self, start: int) -> Iterator[Events]:
        """Read from the beginning, and leave out what lies before an offset: only a whole pass knows the order."""
        runs = stream(*self._sources, strict=self._strict, on_refusal=self._on_refusal, chunk=CHUNK)
        passed = Passed(self._former, self._changed())
        for events in passed.through(numbered(runs)):
            self.prefix = passed.prefix
            skipped = start - events.offset
            if skipped <= 0:
                yield events
            elif skipped < len(events.batch):
                yield Events(events.kind, start, events.batch.slice(skipped))

    def go_on_from(self, former: Former) -> None:
        """The events are compared as they are read."""
        former.check_kind(self.identity)
        self._former = former

    def _changed(self) -> str:
        """Files of the former run that are not among these as they were then, for people."""
        if self._former is None:
            return ""
        names = [
            str(file[0])
            for kind in ("payments", "labels")
            for file in self._former.input[kind]
            if list(file) not in self.identity[kind]
        ]
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        return f" ({', '.join(names[:MOST_NAMED])}{more}: changed or gone since)" if names else ""


@dataclass
class HistorySource:
    """A history in memory, for programs that hold one already.

    Attributes:
        history: Payments and labels.
    """

    history: History
    identity: dict[str, Any] = field(init=False)
    expected: int = field(init=False)
    prefix: Prefix = field(init=False)

    def __post_init__(self) -> None:
        seen = hashlib.sha256()
        for events in self.history.events:
            seen.update(f"{events.kind.value}:{len(events.batch)}".encode() + events.batch.slice(0, 1).serialize())
        self.identity = {"kind": "history", "digest": seen.hexdigest()[:32]}
        self.expected = len(self.history)
        self._former: Former | None = None
        self.prefix = Prefix(0, "")

    def events(self, start: int) -> Iterator[Events]:
        """Its events from an offset on."""
        passed = Passed(self._former)
        for events in passed.through(self.history.events):
            self.prefix = passed.prefix
            skipped = max(0, start - events.offset)
            if skipped < len(events.batch):
                yield Events(events.kind, events.offset + skipped, events.batch.slice(skipped))

    def go_on_from(self, former: Former) -> None:
        """The events are compared as they are read."""
        former.check_kind(self.identity)
        self._former = former


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
