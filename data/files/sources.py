"""Files of payments and labels as checked batches, and both merged into the order of the journal."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.digests import DuplicateDetector, content_digests
from data.errors import DataError
from data.files.address import Address
from data.files.options import ReadOptions
from data.files.places import Where
from data.files.readers import OnRefusal, read_ahead
from data.files.records import Records, Tally
from data.files.selection import Numbered
from data.journal.protocol import Kind
from data.schema import LABEL_SCHEMA, TRANSACTION_SCHEMA

Run = tuple[Kind, pa.RecordBatch]

_Timed = tuple[Kind, pa.RecordBatch, NDArray[np.int64]]  # with the journal time of each row, us
_FLUSH: Final = (Kind.TRANSACTION, None, np.empty(0, np.int64))


def read_transactions(
    path: Where,
    *,
    strict: bool = False,
    on_refusal: OnRefusal | None = None,
    options: ReadOptions | None = None,
) -> Iterator[pa.RecordBatch]:
    """Canonical batches of the good rows of a source, in its order and in bounded memory.

    Args:
        path: A file, a folder, a glob, an address such as `s3://bucket/payments/`, or several of these. Files are
            Parquet, Arrow IPC (file or stream), CSV or JSON lines, compressed or not; "-" is an Arrow IPC stream on
            standard input. In CSV an empty field is null.
        strict: Stop at the first bad row.
        on_refusal: Told of each bad row.
        options: How the source is to be read, where it is not written in the schema's own names and units.

    Raises:
        RefusedRow: A row is bad, with `strict`.
        SchemaError: A required column is missing or of no use.
        TooManyRefused: More rows were bad than `options` let pass; raised at the end.
        DataError: The source cannot be read.
    """
    options = _options(path, options)
    records = Records(path, "payments", options)
    tally = Tally(records.shown, strict, on_refusal, options.max_refused)
    return _batches(records.checked(tally), tally)


def read_labels(
    path: Where,
    *,
    strict: bool = False,
    on_refusal: OnRefusal | None = None,
    options: ReadOptions | None = None,
) -> Iterator[pa.RecordBatch]:
    """Canonical batches of the labels of a source; as `read_transactions`.

    With a label column in `options`, `path` holds the payments that have it.
    """
    options = _options(path, options)
    records = Records(path, "labels" if options.label is None else "payments", options)
    tally = Tally(records.shown, strict, on_refusal, options.max_refused)
    return _batches(records.checked(tally) if options.label is None else records.labels(tally), tally)


def _options(where: Where, options: ReadOptions | None) -> ReadOptions:
    """The options given, or those that the source carries."""
    return options or (where.options if isinstance(where, Address) else ReadOptions())


def _batches(parts: Iterator[Numbered], tally: Tally) -> Iterator[pa.RecordBatch]:
    for batch, _ in parts:
        yield batch
    tally.finish()


def merged(
    transactions: Where | None,
    labels: Where | None = None,
    *,
    strict: bool = False,
    on_refusal: OnRefusal | None = None,
    start: datetime | None = None,
    stop: datetime | None = None,
    chunk: int = 4096,
    options: ReadOptions | None = None,
    every_label: bool = False,
) -> Iterator[Run]:
    """The events of a source of payments and one of labels, in the order of the journal.

    That is the order of time, a label at its `reported_at`; on ties payments come before labels, then the order of the
    files counts. Payments in order of time are streamed, any others are sorted in memory (stably), labels always are.
    Standard input is taken as it comes: its journal time is the latest timestamp so far, as in the journal.

    A label whose payment has not come before it is refused. So is a payment whose id came before with other content;
    with the same content it is a repeat, and dropped. For that the ids and a 16-byte hash of each are kept in memory.
    A label of the same payment, verdict and report is a repeat, too, and dropped.

    Args:
        transactions: The payments, see `read_transactions`; none for labels alone.
        labels: The labels, if any; none where `options` name a label column of the payments.
        strict: Stop at the first bad row.
        on_refusal: Told of each bad row.
        start: Leave out events before it; their payments still count as known.
        stop: Leave out events at or after it.
        chunk: Rows of the longest run.
        options: How both are to be read.
        every_label: Hand on every good label, for a service that knows more payments and labels than are read here.

    Yields:
        Maximal runs of one kind, cut at `chunk` rows.

    Raises:
        RefusedRow: A row is bad, with `strict`.
        SchemaError: A required column is missing or of no use.
        TooManyRefused: More rows were bad than `options` let pass; raised at the end.
        DataError: A file cannot be read, or `start` or `stop` has no time zone.
    """
    for bound in (start, stop):
        if bound is not None and bound.tzinfo is None:
            raise DataError(f"{bound} has no time zone")
    if labels is not None and options is not None and options.label is not None:
        raise DataError("labels come from a source of their own or from a column of the payments, not from both")
    tallies: list[Tally] = []
    payments = known = None
    if transactions is not None:
        given = _options(transactions, options)
        payments = Records(transactions, "payments", given)
        tallies.append(Tally(payments.shown, strict, on_refusal, given.max_refused))
        if labels is None and given.label is not None:
            labels = transactions
    if labels is not None:
        given = _options(labels, options)
        of_payments = given.label is not None
        held = Records(labels, "payments" if of_payments else "labels", given)
        tallies.append(Tally(f"labels of {held.shown}", strict, on_refusal, given.max_refused))
        known = _Labels(held, tallies[-1], of_payments, every_label)
    timed = _alone(known) if payments is None else _interleaved(payments, known, tallies[0])
    runs = _runs(_clipped(timed, _microseconds(start), _microseconds(stop)), chunk)
    # What is read next is checked and put in order while the caller works on what it has.
    return read_ahead(_judged(runs, tallies))


def _judged(runs: Iterator[Run], tallies: list[Tally]) -> Iterator[Run]:
    """The runs; at their end, whether too many rows were refused."""
    yield from runs
    for tally in tallies:
        tally.finish()


def _microseconds(moment: datetime | None) -> int | None:
    return None if moment is None else pa.scalar(moment, pa.timestamp("us", tz="UTC")).value


def _times(batch: pa.RecordBatch, column: str) -> NDArray[np.int64]:
    return batch.column(column).cast(pa.int64()).to_numpy()


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


def _each_once(batch: pa.RecordBatch, rows: NDArray[np.int64]) -> Numbered:
    """Rows of which those that say the same as an earlier one are left out."""
    found = content_digests((np.uint64(0), np.uint64(0)), batch)  # nothing of it leaves this process
    order = np.lexsort((found[:, 1], found[:, 0]))  # stable: of equal rows the first comes first
    again = np.zeros(len(rows), np.bool_)
    again[order[1:]] = (found[order[1:]] == found[order[:-1]]).all(1)
    if not again.any():
        return batch, rows
    return batch.filter(pa.array(~again)), rows[~again]


class _Labels:
    """The labels in order of time, dealt out as payments come by.

    Attributes:
        batch: All labels, sorted.
        times: Their journal times.
        every: Whether each is handed on as it is: repeats too, and those whose payments have not come by.
    """

    def __init__(self, records: Records, tally: Tally, of_payments: bool, every: bool) -> None:
        parts = records.labels(tally) if of_payments else records.checked(tally)
        self.batch, self.rows = _sorted(parts, LABEL_SCHEMA, "reported_at")
        if not every:
            self.batch, self.rows = _each_once(self.batch, self.rows)
        self.every = every
        self.times = _times(self.batch, "reported_at")
        self.next = 0
        self._records, self._tally, self._of_payments = records, tally, of_payments

    def until(self, time: int | None) -> slice:
        """Take the labels before `time`, or all that are left."""
        first = self.next
        self.next = len(self.times) if time is None else max(first, int(np.searchsorted(self.times, time, "left")))
        return slice(first, self.next)

    def refuse(self, index: int) -> None:
        """Refuse one label. Those of a column say nothing of their own where the payment itself was refused."""
        if self._of_payments:
            return
        name = self.batch.column("transaction_id")[index].as_py()
        reason = f"no payment {name!r} came before this label"
        self._tally(self._records.refusal(int(self.rows[index]), "transaction_id", reason))


def _alone(labels: _Labels | None) -> Iterator[_Timed]:
    """Labels without any payments."""
    if labels is not None:
        yield Kind.LABEL, labels.batch, labels.times


def _interleaved(payments: Records, labels: _Labels | None, tally: Tally) -> Iterator[_Timed]:
    """Pieces of one kind in journal order."""
    live = payments.live
    streamed = live or payments.put_in_order()
    parts = payments.checked(tally)
    if not streamed:
        whole, numbers = _sorted(parts, TRANSACTION_SCHEMA, "timestamp")
        parts = iter([(whole, numbers)])
    seen = DuplicateDetector("transaction_id")
    latest = np.int64(np.iinfo(np.int64).min)
    for part, rows in parts:
        before = seen.count
        batch = _fresh(part, rows, seen, payments, tally)
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
    batch: pa.RecordBatch, rows: NDArray[np.int64], seen: DuplicateDetector, payments: Records, tally: Tally
) -> pa.RecordBatch:
    """Drop repeats, refuse changed content, and note the rest in `seen`."""
    new, changed = seen.note(batch)
    if new.all():
        return batch
    for i in np.flatnonzero(changed).tolist():
        name = batch.column("transaction_id")[i].as_py()
        tally(payments.refusal(int(rows[i]), "transaction_id", f"{name!r} came before with other content"))
    return batch.filter(pa.array(new))


def _known(
    labels: _Labels, due: slice, places: NDArray[np.int64], before: int, seen: DuplicateDetector
) -> Iterator[tuple[int, int, int]]:
    """Refuse the labels of unknown payments, unless every label is handed on; group the others.

    Args:
        labels: All labels.
        due: Those at hand.
        places: How many payments of the batch at hand come before each of them, non-decreasing.
        before: How many payments came before the batch.
        seen: Every payment so far, those of the batch included.

    Yields:
        (place, first, stop): labels [first, stop) come right behind the first `place` payments.
    """
    if labels.every:
        known = np.ones(len(places), np.bool_)
    else:
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
