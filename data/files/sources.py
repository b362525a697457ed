"""Files of payments and labels as checked batches, and both merged into the order of the journal."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import partial
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.columns.times import times as check_times
from data.digests import DuplicateDetector
from data.errors import DataError, RefusedRow
from data.files.readers import Numbered, OnRefusal, Source, is_live, read_ahead, read_raw, shown
from data.journal.protocol import Kind
from data.schema import EARLIEST, LABEL_SCHEMA, LATEST, TRANSACTION_SCHEMA, Refusal, check_labels, check_transactions

Run = tuple[Kind, pa.RecordBatch]

_Timed = tuple[Kind, pa.RecordBatch, NDArray[np.int64]]  # with the journal time of each row, us
_FLUSH: Final = (Kind.TRANSACTION, None, np.empty(0, np.int64))


def read_transactions(
    path: Source, *, strict: bool = False, on_refusal: OnRefusal | None = None
) -> Iterator[pa.RecordBatch]:
    """Canonical batches of the good rows of a file, in its order and in bounded memory.

    Args:
        path: Parquet, Arrow IPC (file or stream) or CSV; "-" is an Arrow IPC stream on standard input; or a table
            in memory. In CSV, times are ISO 8601 (UTC where no zone is given) and an empty field is null.
        strict: Stop at the first bad row.
        on_refusal: Told of each bad row.

    Raises:
        RefusedRow: A row is bad, with `strict`.
        SchemaError: A required column is missing or of no use.
        DataError: The file cannot be read.
    """
    refuse = partial(_refuse, strict, on_refusal)
    return (batch for batch, _ in _checked(path, Kind.TRANSACTION, refuse))


def read_labels(path: Source, *, strict: bool = False, on_refusal: OnRefusal | None = None) -> Iterator[pa.RecordBatch]:
    """Canonical batches of the labels of a file; as `read_transactions`."""
    refuse = partial(_refuse, strict, on_refusal)
    return (batch for batch, _ in _checked(path, Kind.LABEL, refuse))


def merged(
    transactions: Source,
    labels: Source | None = None,
    *,
    strict: bool = False,
    on_refusal: OnRefusal | None = None,
    start: datetime | None = None,
    stop: datetime | None = None,
    chunk: int = 4096,
) -> Iterator[Run]:
    """The events of a file of payments and one of labels, in the order of the journal.

    That is the order of time, a label at its `reported_at`; on ties payments come before labels, then the order of the
    file counts. A file of payments in order of time is streamed, any other is sorted in memory (stably), labels always
    are. Standard input is taken as it comes: its journal time is the latest timestamp so far, as in the journal.

    A label whose payment has not come before it is refused. So is a payment whose id came before with other content;
    with the same content it is a repeat, and dropped. For that the ids and a 16-byte hash of each are kept in memory.

    Args:
        transactions: The payments, see `read_transactions`.
        labels: The labels, if any.
        strict: Stop at the first bad row.
        on_refusal: Told of each bad row.
        start: Leave out events before it; their payments still count as known.
        stop: Leave out events at or after it.
        chunk: Rows of the longest run.

    Yields:
        Maximal runs of one kind, cut at `chunk` rows.

    Raises:
        RefusedRow: A row is bad, with `strict`.
        SchemaError: A required column is missing or of no use.
        DataError: A file cannot be read, or `start` or `stop` has no time zone.
    """
    for bound in (start, stop):
        if bound is not None and bound.tzinfo is None:
            raise DataError(f"{bound} has no time zone")
    refuse = partial(_refuse, strict, on_refusal)
    known = _KnownLabels(labels, refuse) if labels is not None else None
    timed = _interleaved(transactions, known, refuse)
    # What is read next is checked and put in order while the caller works on what it has.
    return read_ahead(_runs(_clipped(timed, _microseconds(start), _microseconds(stop)), chunk))


def _refuse(strict: bool, on_refusal: OnRefusal | None, refusal: Refusal) -> None:
    if strict:
        raise RefusedRow(str(refusal))
    if on_refusal is not None:
        on_refusal(refusal)


def _microseconds(moment: datetime | None) -> int | None:
    return None if moment is None else pa.scalar(moment, pa.timestamp("us", tz="UTC")).value


def _times(batch: pa.RecordBatch, column: str) -> NDArray[np.int64]:
    return batch.column(column).cast(pa.int64()).to_numpy()


def _checked(path: Source, kind: Kind, refuse: OnRefusal) -> Iterator[Numbered]:
    """Canonical, non-empty batches and the numbers of their rows."""
    file = shown(path)
    schema, check = (
        (TRANSACTION_SCHEMA, check_transactions) if kind is Kind.TRANSACTION else (LABEL_SCHEMA, check_labels)
    )
    for raw, rows in read_raw(path, schema.names, refuse):
        batch, refusals = check(raw, file)
        if refusals:
            bad = [refusal.row for refusal in refusals]
            for refusal in refusals:
                refuse(Refusal(file, int(rows[refusal.row]), refusal.column, refusal.reason))
            rows = np.delete(rows, bad)
        if len(batch):
            yield batch, rows


def _in_order(path: Source) -> bool:
    """Whether the times of a file never run backwards; reads that one column, refused rows included."""
    latest = np.iinfo(np.int64).min
    for raw, _ in read_raw(path, ["timestamp"], lambda _: None):
        if raw.num_columns != 1:
            return True  # the check of the schema will have its say
        try:
            checked = check_times(raw.column(0), EARLIEST, LATEST).values
        except (TypeError, pa.ArrowInvalid):
            return True
        ticks = checked.drop_null().cast(pa.int64()).to_numpy()
        if len(ticks):
            if ticks[0] < latest or (np.diff(ticks) < 0).any():
                return False
            latest = ticks[-1]
    return True


def _sorted(parts: Iterable[Numbered], schema: pa.Schema, column: str) -> Numbered:
    """All parts as one, stably sorted by time."""
    held = list(parts)
    table = pa.Table.from_batches([batch for batch, _ in held], schema).combine_chunks()
    rows = np.concatenate([rows for _, rows in held]) if held else np.empty(0, np.int64)
    if not len(rows):
        return pa.RecordBatch.from_pylist([], schema), rows
    batch = table.to_batches()[0]
    times = _times(batch, column)
    if (np.diff(times) < 0).any():
        order = np.argsort(times, kind="stable")
        batch, rows = batch.take(pa.array(order)), rows[order]
    return batch, rows


class _KnownLabels:
    """The labels in order of time, dealt out as payments come by.

    Attributes:
        batch: All labels, sorted.
        times: Their journal times.
    """

    def __init__(self, path: Source, refuse: OnRefusal) -> None:
        self.file = shown(path)
        self.batch, self.rows = _sorted(_checked(path, Kind.LABEL, refuse), LABEL_SCHEMA, "reported_at")
        self.times = _times(self.batch, "reported_at")
        self.next = 0
        self._refuse = refuse

    def until(self, time: int | None) -> slice:
        """Take the labels before `time`, or all that are left."""
        first = self.next
        self.next = len(self.times) if time is None else max(first, int(np.searchsorted(self.times, time, "left")))
        return slice(first, self.next)

    def refuse(self, index: int) -> None:
        """Refuse one label."""
        name = self.batch.column("transaction_id")[index].as_py()
        reason = f"no payment {name!r} came before this label"
        self._refuse(Refusal(self.file, int(self.rows[index]), "transaction_id", reason))


def _interleaved(transactions: Source, labels: _KnownLabels | None, refuse: OnRefusal) -> Iterator[_Timed]:
    """Pieces of one kind in journal order."""
    live = is_live(transactions)
    parts = _checked(transactions, Kind.TRANSACTION, refuse)
    if not live and not _in_order(transactions):
        whole, numbers = _sorted(parts, TRANSACTION_SCHEMA, "timestamp")
        parts = iter([(whole, numbers)])
    seen = DuplicateDetector("transaction_id")
    latest = np.int64(np.iinfo(np.int64).min)
    for part, rows in parts:
        before = seen.count
        batch = _fresh(part, rows, seen, shown(transactions), refuse)
        if not len(batch):
            continue
        times = _times(batch, "timestamp")
        if live:
            times = np.maximum(np.maximum.accumulate(times), latest)
        latest = times[-1]
        at = 0
        if labels is not None:
            due = labels.until(int(latest))  # a label at the very last time waits: more payments may share it
            if due.start < due.stop:
                places = np.searchsorted(times, labels.times[due], "right")
                for place, first, stop in _known(labels, due, places, before, seen):
                    yield Kind.TRANSACTION, batch.slice(at, place - at), times[at:place]
                    yield Kind.LABEL, labels.batch.slice(first, stop - first), labels.times[first:stop]
                    at = place
        yield Kind.TRANSACTION, batch.slice(at), times[at:]
        if live:
            yield _FLUSH  # a stream that goes on for ever is not held back to fill a run
    if labels is not None:
        rest = labels.until(None)
        for _, first, stop in _known(labels, rest, np.zeros(rest.stop - rest.start, np.int64), seen.count, seen):
            yield Kind.LABEL, labels.batch.slice(first, stop - first), labels.times[first:stop]


def _fresh(
    batch: pa.RecordBatch, rows: NDArray[np.int64], seen: DuplicateDetector, file: str, refuse: OnRefusal
) -> pa.RecordBatch:
    """Drop repeats, refuse changed content, and note the rest in `seen`."""
    new, changed = seen.note(batch)
    if new.all():
        return batch
    for i in np.flatnonzero(changed).tolist():
        name = batch.column("transaction_id")[i].as_py()
        refuse(Refusal(file, int(rows[i]), "transaction_id", f"{name!r} came before with other content"))
    return batch.filter(pa.array(new))


def _known(
    labels: _KnownLabels, due: slice, places: NDArray[np.int64], before: int, seen: DuplicateDetector
) -> Iterator[tuple[int, int, int]]:
    """Refuse the labels of unknown payments; group the others.

    Args:
        labels: All labels.
        due: Those at hand.
        places: How many payments of the batch at hand come before each of them, non-decreasing.
        before: How many payments came before the batch.
        seen: Every payment so far, those of the batch included.

    Yields:
        (place, first, stop): labels [first, stop) come right behind the first `place` payments.
    """
    found = seen.find(labels.batch.column("transaction_id")[due])
    known = (found >= 0) & (found < before + places)
    for unknown in np.flatnonzero(~known).tolist():
        labels.refuse(due.start + unknown)
    index, place = np.flatnonzero(known), places[known]
    ends = np.flatnonzero((np.diff(index) > 1) | (np.diff(place) > 0)) + 1
    for group in np.split(np.arange(len(index)), ends):
        if len(group):
            yield int(place[group[0]]), due.start + int(index[group[0]]), due.start + int(index[group[-1]]) + 1


def _clipped(pieces: Iterable[_Timed], start: int | None, stop: int | None) -> Iterator[Run]:
    """Pieces cut to [start, stop); their times never run backwards."""
    for kind, batch, times in pieces:
        if batch is None:
            yield kind, batch
            continue
        if not len(times):
            continue
        if stop is not None and times[0] >= stop:
            return
        if (start is None or times[0] >= start) and (stop is None or times[-1] < stop):
            yield kind, batch
            continue
        first = 0 if start is None else int(np.searchsorted(times, start, "left"))
        last = len(times) if stop is None else int(np.searchsorted(times, stop, "left"))
        if first < last:
            yield kind, batch.slice(first, last - first)


def _runs(pieces: Iterable[Run], chunk: int) -> Iterator[Run]:
    """Join neighbours of one kind, and cut at `chunk` rows."""
    held: list[pa.RecordBatch] = []
    rows = 0
    current = Kind.TRANSACTION
    for kind, piece in pieces:
        if held and (piece is None or kind is not current):
            yield current, _joined(held)
            held, rows = [], 0
        if piece is None:
            continue
        current = kind
        while rows + len(piece) >= chunk:
            head = piece.slice(0, chunk - rows)
            yield kind, _joined([*held, head])
            piece = piece.slice(len(head))
            held, rows = [], 0
        if len(piece):
            held.append(piece)
            rows += len(piece)
    if held:
        yield current, _joined(held)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
