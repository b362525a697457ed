"""The journal's simple twin: its protocols over lists and dictionaries, for histories read from files and for tests."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.errors import JournalError
from data.journal.protocol import SCHEMAS, Events, Kind, Known, Report, check_schema, outcomes_of
from data.outcomes import Became
from data.schema import content_hashes


class MemoryIdIndex:
    """Transaction ids in a dictionary."""

    def __init__(self) -> None:
        self._known: dict[str, Known] = {}

    def find(self, ids: Sequence[str]) -> dict[str, Known]:
        """Those of the ids that were added."""
        return {i: self._known[i] for i in ids if i in self._known}

    def add(self, ids: Sequence[str], first: int, hashes: Sequence[bytes]) -> None:
        """Add the transactions at offsets from `first` on.

        Raises:
            JournalError: An id is there already, or twice among them. None is added.
        """
        fresh = {i: Known(first + n, h) for n, (i, h) in enumerate(zip(ids, hashes, strict=True))}
        repeated = set(fresh) & set(self._known)
        if repeated or len(fresh) < len(ids):
            raise JournalError(f"a transaction id was appended twice: {min(repeated, default='in one batch')}")
        self._known |= fresh

    def forget(self, ids: Iterable[str]) -> None:
        """Take ids out again: those of a commit that did not come to be."""
        for i in ids:
            del self._known[i]


class MemoryLabelIndex:
    """Labels in dictionaries."""

    def __init__(self) -> None:
        self._known: dict[str, Counter[Report]] = {}  # how often each came

    def find(self, ids: Sequence[str]) -> dict[str, list[Report]]:
        """The labels of payments, in order of their report."""
        return {i: sorted(self._known[i]) for i in ids if i in self._known}

    def add(self, labels: pa.RecordBatch) -> None:
        """Add labels; one that is there stays."""
        for name, report in _reports(labels):
            self._known.setdefault(name, Counter())[report] += 1

    def forget(self, labels: pa.RecordBatch) -> None:
        """Take labels out again: those of a commit that did not come to be."""
        for name, report in _reports(labels):
            left = self._known[name] = self._known[name] - Counter([report])
            if not left:
                del self._known[name]


def _reports(labels: pa.RecordBatch) -> Iterator[tuple[str, Report]]:
    columns = labels.column("transaction_id"), labels.column("reported_at").cast(pa.int64()), labels.column("is_fraud")
    for name, reported, fraud in zip(*(column.to_pylist() for column in columns), strict=True):
        yield name, (reported, fraud)


class MemoryOutcomeIndex:
    """Outcomes in dictionaries."""

    def __init__(self) -> None:
        self._known: dict[str, list[Became]] = {}  # as often as each came: the first counts

    def find(self, ids: Sequence[str]) -> dict[str, Became]:
        """Outcomes by their own ids."""
        return {i: self._known[i][0] for i in ids if i in self._known}

    def of(self, transaction_ids: Sequence[str]) -> dict[str, list[Became]]:
        """Outcomes of payments, by time and id."""
        wanted, grouped = set(transaction_ids), dict[str, list[Became]]()
        for first, *_ in self._known.values():
            if first.transaction_id in wanted:
                grouped.setdefault(first.transaction_id, []).append(first)
        return {i: sorted(found, key=lambda b: (b.at, b.outcome_id)) for i, found in grouped.items()}

    def add(self, outcomes: pa.RecordBatch) -> None:
        """Add outcomes; an id that is there stays."""
        for became in outcomes_of(outcomes):
            self._known.setdefault(became.outcome_id, []).append(became)

    def forget(self, outcomes: pa.RecordBatch) -> None:
        """Take outcomes out again: those of a commit that did not come to be."""
        for became in outcomes_of(outcomes):
            self._known[became.outcome_id].pop()
            if not self._known[became.outcome_id]:
                del self._known[became.outcome_id]


class MemoryAnswerStore:
    """Answers in a dictionary."""

    def __init__(self) -> None:
        self._kept: dict[int, bytes] = {}

    def find(self, offsets: Sequence[int]) -> dict[int, bytes]:
        """The answers kept for the transactions at these offsets."""
        return {o: self._kept[o] for o in offsets if o in self._kept}

    def keep(self, answers: Sequence[tuple[int, bytes]], *, replace: bool = False) -> None:
        """Keep answers by offset; the first stays, or the last."""
        for offset, answer in answers:
            if replace or offset not in self._kept:
                self._kept[offset] = bytes(answer)

    def forget(self, before: int, most: int) -> int:
        """Let go of the oldest answers before an offset."""
        old = sorted(offset for offset in self._kept if offset < before)[:most]
        for offset in old:
            del self._kept[offset]
        return len(old)


class MemoryCommit:
    """One open commit of a `MemoryJournal`; see `data.journal.protocol.Commit`."""

    def __init__(self, ids: MemoryIdIndex, labels: MemoryLabelIndex, outcomes: MemoryOutcomeIndex, end: int) -> None:
        self.ids, self.labels, self.outcomes, self.end = ids, labels, outcomes, end
        self.events: list[Events] = []
        self.spoilt = False

    def append(self, kind: Kind, batch: pa.RecordBatch, hashes: Sequence[bytes] | None = None) -> int:
        """Append rows of one kind; returns the offset of the first."""
        first, self.spoilt = self.end, True
        check_schema(kind, batch)
        if batch.num_rows:
            if kind is Kind.TRANSACTION:
                content = content_hashes(batch) if hashes is None else hashes
                self.ids.add(batch.column(0).to_pylist(), first, content)
            elif kind is Kind.LABEL:
                self.labels.add(batch)
            elif kind is Kind.OUTCOME:
                self.outcomes.add(batch)
            self.events.append(Events(kind, first, batch))
            self.end += batch.num_rows
        self.spoilt = False
        return first


class MemoryJournal:
    """A journal that lasts as long as its process.

    Args:
        events: What it holds at first, in order from offset 0. Their transaction ids and labels are looked at when
            they are first asked for: a history that is only replayed pays nothing for them.

    Raises:
        JournalError: The events do not follow on each other.

    Examples:
        >>> from data.journal.protocol import Events, Kind
        >>> labels = pa.RecordBatch.from_pylist(
        ...     [{"transaction_id": "t-1", "is_fraud": True, "reported_at": 0}], SCHEMAS[Kind.LABEL]
        ... )
        >>> journal = MemoryJournal()
        >>> with journal.begin() as commit:
        ...     commit.append(Kind.LABEL, labels)
        0
        >>> [(events.kind.name, events.offset, len(events.batch)) for events in journal.replay()]
        [('LABEL', 0, 1)]
    """

    def __init__(self, events: Iterable[Events] = ()) -> None:
        self.answers = MemoryAnswerStore()
        self._events: list[Events] = []
        self._first: list[int] = []  # offset of each of them
        self._ids, self._labels, self._outcomes = MemoryIdIndex(), MemoryLabelIndex(), MemoryOutcomeIndex()
        self._indexed = 0  # of how many of the events
        self._end = 0
        self._committing = False
        self._extend(events)

    @property
    def ids(self) -> MemoryIdIndex:
        """Where transaction ids are."""
        self._index()
        return self._ids

    @property
    def labels(self) -> MemoryLabelIndex:
        """What was reported of payments."""
        self._index()
        return self._labels

    @property
    def outcomes(self) -> MemoryOutcomeIndex:
        """What became of payments."""
        self._index()
        return self._outcomes

    @property
    def end(self) -> int:
        """The offset that the next event will take."""
        return self._end

    @contextmanager
    def begin(self) -> Iterator[MemoryCommit]:
        """Open a group commit; nothing of it is there if the block raises."""
        if self._committing:
            raise JournalError("cannot begin a commit: another one of this journal is open")
        commit = MemoryCommit(self.ids, self.labels, self.outcomes, self._end)
        self._committing = True
        try:
            yield commit
            if commit.spoilt:
                raise JournalError("cannot commit: an append to it failed")
        except BaseException:
            for events in commit.events:
                if events.kind is Kind.TRANSACTION:
                    self._ids.forget(events.batch.column(0).to_pylist())
                elif events.kind is Kind.LABEL:
                    self._labels.forget(events.batch)
                elif events.kind is Kind.OUTCOME:
                    self._outcomes.forget(events.batch)
            raise
        finally:
            self._committing = False
        self._extend(commit.events)
        self._indexed = len(self._events)

    def replay(self, start: int = 0, stop: int | None = None, chunk: int = 65536) -> Iterator[Events]:
        """The rows [start, stop) in order, as they were appended but in batches of at most `chunk` rows."""
        end = self._end
        if not 0 <= start <= end or chunk < 1:
            raise JournalError(f"cannot replay from offset {start} in chunks of {chunk}: the journal ends at {end}")
        stop = end if stop is None else min(stop, end)
        at = max(bisect_right(self._first, start) - 1, 0)
        while start < stop:
            held = self._events[at]
            until = min(held.offset + len(held.batch), stop)
            while start < until:
                rows = min(chunk, until - start)
                yield Events(held.kind, start, held.batch.slice(start - held.offset, rows))
                start += rows
            at += 1

    def take(self, offsets: NDArray[np.int64]) -> pa.Table:
        """Transactions by offset, in the order asked for.

        Raises:
            JournalError: An offset holds no transaction.
        """
        wanted, back = np.unique(offsets, return_inverse=True)
        found, at = [SCHEMAS[Kind.TRANSACTION].empty_table()], 0
        while at < len(wanted):
            i = bisect_right(self._first, wanted[at]) - 1
            held = self._events[i] if i >= 0 else None
            if held is None or held.kind is not Kind.TRANSACTION or wanted[at] >= self._end:
                raise JournalError(f"no transaction at offset {wanted[at]}")
            upto = int(np.searchsorted(wanted, held.offset + len(held.batch)))
            found.append(pa.Table.from_batches([held.batch]).take(pa.array(wanted[at:upto] - held.offset)))
            at = upto
        return pa.concat_tables(found).take(pa.array(back))

    def close(self) -> None:
        """There is nothing to let go of."""

    def _index(self) -> None:
        for events in self._events[self._indexed :]:
            if events.kind is Kind.TRANSACTION:
                self._ids.add(events.batch.column(0).to_pylist(), events.offset, content_hashes(events.batch))
            elif events.kind is Kind.LABEL:
                self._labels.add(events.batch)
            elif events.kind is Kind.OUTCOME:
                self._outcomes.add(events.batch)
            self._indexed += 1

    def _extend(self, events: Iterable[Events]) -> None:
        for e in events:
            if e.offset != self._end:
                raise JournalError(f"events at offset {e.offset} do not follow offset {self._end}")
            if len(e.batch):
                self._events.append(e)
                self._first.append(e.offset)
                self._end += len(e.batch)
