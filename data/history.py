"""A history: payments and their labels in the order of the journal, whatever they were read from.

Training, evaluation, audit, comparison with rivals, rings and re-scoring all begin with one. It is read from files,
from a folder of files or from a service's journal, or made from tables in memory, and may be cut in time. Every event
has an offset, counted from 0 within the history, as the journal of a service that took in just these events would have
given it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data.errors import DataError
from data.files.places import Source, is_live, shown
from data.files.readers import OnRefusal
from data.files.sources import Run, merged, read_labels
from data.journal.protocol import Events, Kind
from data.journal.sqlite import SqliteJournal
from data.schema import LABEL_SCHEMA, ROLES, TIMESTAMP, TRANSACTION_SCHEMA, Refusal

CHUNK = 1 << 16  # rows of the longest run that is held as one batch
KEPT_REFUSALS = 100  # refused rows that are kept in full; all are counted
_TIME = {Kind.LABEL: "reported_at", Kind.TRANSACTION: "timestamp"}
_EMPTY = {Kind.LABEL: LABEL_SCHEMA, Kind.TRANSACTION: TRANSACTION_SCHEMA}
_SQLITE = b"SQLite format 3\x00"


@dataclass(frozen=True)
class LabelledPayments:
    """Payments with what is known of them by now, however late it became known: what judges scores.

    Attributes:
        payments: Columns of `TRANSACTION_SCHEMA`, in journal order.
        fraud: The newest label of each, bool [n]; without one, legitimate.
        labelled: Whether it has a label, bool [n].
        kind: Kind of the ring that each belongs to, "" for none, object [n]; only a simulated world knows.
    """

    payments: pa.Table
    fraud: NDArray[np.bool_]
    labelled: NDArray[np.bool_]
    kind: NDArray[np.object_] | None = None


class History:
    """Payments and labels in journal order, held in memory once; cuts in time share that memory.

    A payment's moment is its timestamp, a label's its `reported_at`. Where a journal took an event in after a payment
    of a later time, its moment is that later time: nobody could have known of it before.

    Labels that are reported after the end of a history are no events of it: no score and no training sees them. They
    are kept beside it, because they tell what its payments turned out to be (`labelled`).

    Example:
        >>> import pyarrow as pa
        >>> from datetime import UTC, datetime
        >>> day = lambda d: datetime(2026, 1, d, tzinfo=UTC)
        >>> payments = pa.table({
        ...     "transaction_id": ["t1", "t2", "t3"], "timestamp": [day(1), day(2), day(4)],
        ...     "account_id": ["ann", "bob", "ann"], "merchant_id": ["kiosk", "kiosk", "mall"],
        ...     "amount": [1250, -5, 99], "currency": ["EUR", "EUR", "EUR"],
        ... })
        >>> labels = pa.table({"transaction_id": ["t1"], "is_fraud": [True], "reported_at": [day(3)]})
        >>> history = History.from_arrow(payments, labels)
        >>> history
        History(2 payments, 1 label, 1 row refused, 2026-01-01 00:00 to 2026-01-04 00:00)
        >>> print(history.refusals[0])
        <memory>: row 1: amount: -5 is negative
        >>> [(events.offset, events.kind.name) for events in history.events]
        [(0, 'TRANSACTION'), (1, 'LABEL'), (2, 'TRANSACTION')]
        >>> known = history.before(day(3))  # a model trained on this has not seen the label ...
        >>> len(known.payments), len(known.labels)
        (1, 0)
        >>> known.labelled().fraud  # ... that tells today what the payment was
        array([ True])

    Args:
        runs: Batches of one kind each (`TRANSACTION_SCHEMA`, `LABEL_SCHEMA`), in journal order.
        later_labels: Labels reported after the end, in order of time.
        refused: Rows refused while reading.
        refusals: The first of them.

    Attributes:
        events: The runs with their offsets, from 0.
        refused: Rows refused while it was read.
        refusals: The first `KEPT_REFUSALS` of them.
    """

    def __init__(
        self,
        runs: Iterable[Run],
        *,
        later_labels: Iterable[pa.RecordBatch] = (),
        refused: int = 0,
        refusals: Iterable[Refusal] = (),
    ) -> None:
        self.events: tuple[Events, ...] = tuple(numbered(runs))
        self.refused, self.refusals = refused, tuple(refusals)
        self._later = tuple(batch for batch in later_labels if len(batch))
        self._first = np.array([events.offset for events in self.events], np.int64)

    @classmethod
    def read(
        cls,
        source: Path | str,
        labels: Path | str | None = None,
        *,
        start: datetime | None = None,
        stop: datetime | None = None,
        strict: bool = False,
        on_refusal: OnRefusal | None = None,
    ) -> Self:
        """Read a history.

        Args:
            source: A file of payments, a folder with `transactions.parquet` (and `labels.parquet`, if any), or the
                journal of a service.
            labels: A file of labels, beside a file of payments.
            start: Leave out events before it.
            stop: Leave out events from it on; labels reported later still tell what payments were.
            strict: Stop at the first bad row.
            on_refusal: Told of each bad row.

        Raises:
            RefusedRow: A row is bad, with `strict`.
            SchemaError: A required column is missing or of no use.
            DataError: The source cannot be read, holds labels and no payment, brings labels of its own beside
                `labels`, or `start` or `stop` has no time zone.
        """
        return cls._of(*_located(source, labels), start, stop, strict, on_refusal)

    @classmethod
    def from_arrow(
        cls,
        transactions: Any,
        labels: Any = None,
        *,
        strict: bool = False,
        on_refusal: OnRefusal | None = None,
    ) -> Self:
        """Make a history of tables in memory: the rows that files of these tables would give, in the same order.

        Args:
            transactions: Columns of `data.schema.TRANSACTION_SCHEMA`, in any order of time: a `pyarrow.Table`, or
                anything that hands out Arrow data (`__arrow_c_stream__`: polars, DuckDB, pandas from 2.2 on).
            labels: Columns of `LABEL_SCHEMA`, likewise.
            strict: Stop at the first bad row.
            on_refusal: Told of each bad row.

        Raises:
            RefusedRow: A row is bad, with `strict`.
            SchemaError: A required column is missing or of no use.
            DataError: It is no table, or there are labels and no payment.
        """
        tables = _table(transactions, "transactions"), None if labels is None else _table(labels, "labels")
        return cls._of(*tables, None, None, strict, on_refusal)

    @classmethod
    def from_pandas(
        cls, transactions: Any, labels: Any = None, *, strict: bool = False, on_refusal: OnRefusal | None = None
    ) -> Self:
        """As `from_arrow`, of pandas data frames; their index is left out, and NaN and None are missing values."""

        def table(frame: Any, what: str) -> pa.Table:
            try:
                return pa.Table.from_pandas(frame, preserve_index=False)
            except (AttributeError, TypeError, pa.ArrowException) as error:
                raise DataError(f"{what}: no pandas data frame that Arrow can take: {error}") from error

        tables = table(transactions, "transactions"), None if labels is None else table(labels, "labels")
        return cls.from_arrow(*tables, strict=strict, on_refusal=on_refusal)

    @classmethod
    def _of(
        cls,
        source: Source,
        labels: Source | None,
        start: datetime | None,
        stop: datetime | None,
        strict: bool,
        on_refusal: OnRefusal | None,
    ) -> Self:
        count, first = 0, list[Refusal]()

        def refuse(refusal: Refusal) -> None:
            nonlocal count
            count += 1
            if count <= KEPT_REFUSALS:
                first.append(refusal)
            if on_refusal is not None:
                on_refusal(refusal)

        later: list[pa.RecordBatch] = []
        runs = list(_streamed(source, labels, start, stop, strict, refuse, CHUNK, later))
        if labels is not None and stop is not None:
            later += _reported_from(labels, stop)
        if not runs and labels is not None and start is None and stop is None and any(read_labels(labels)):
            raise DataError(f"{shown(labels)} holds labels, but {shown(source)} holds no good payment")
        return cls(runs, later_labels=later, refused=count, refusals=first)

    def __len__(self) -> int:
        """Events, those of every kind."""
        return self.events[-1].offset + len(self.events[-1].batch) if self.events else 0

    def __repr__(self) -> str:
        counts = [_counted(len(self.payments), "payment"), _counted(len(self.labels), "label")]
        if self.refused:
            counts.append(f"{_counted(self.refused, 'row')} refused")
        if self.first is not None:
            counts.append(f"{self.first:%Y-%m-%d %H:%M} to {self.last:%Y-%m-%d %H:%M}")
        return f"History({', '.join(counts)})"

    def runs(self, chunk: int | None = None) -> Iterator[Run]:
        """The events without their offsets, as batches of one kind, cut at `chunk` rows if that is given."""
        for events in self.events:
            step = chunk or len(events.batch)
            for at in range(0, len(events.batch), step):
                yield events.kind, events.batch.slice(at, step)

    @cached_property
    def payments(self) -> pa.Table:
        """The payments, columns of `TRANSACTION_SCHEMA`; row n is row n of the graph."""
        return self._all(Kind.TRANSACTION)

    @cached_property
    def labels(self) -> pa.Table:
        """The labels that are events, columns of `LABEL_SCHEMA`; a payment may have several, the last one counts."""
        return self._all(Kind.LABEL)

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that any payment fills: a graph needs no others."""
        filled = {role.name for role in ROLES if self.payments[role.column].null_count < len(self.payments)}
        return tuple(role.name for role in ROLES if role.name in filled)

    @property
    def first(self) -> datetime | None:
        """The moment of the first event; None where there is none."""
        moment = next((times[0] for (kind, _), times in _timed(self.runs()) if kind in _TIME), None)
        return None if moment is None else datetime.fromtimestamp(int(moment) / 1e6, UTC)

    @property
    def last(self) -> datetime | None:
        """The latest moment of an event; None where there is none."""
        moment = max((times.max() for (kind, _), times in _timed(self.runs()) if kind in _TIME), default=None)
        return None if moment is None else datetime.fromtimestamp(int(moment) / 1e6, UTC)

    def before(self, moment: datetime) -> "History":
        """What was known before a moment. Later labels still tell what its payments turned out to be.

        Raises:
            DataError: The moment has no time zone.
        """
        return self.between(None, moment)

    def between(self, start: datetime | None, stop: datetime | None) -> "History":
        """The events in [start, stop), with offsets of their own from 0; no bound where one is None.

        Events keep their order and share memory with this history. A label in the range whose payment lies before it
        stays an event: a graph ignores labels of payments it does not hold.

        Raises:
            DataError: A bound has no time zone.
        """
        later: list[pa.RecordBatch] = []
        runs = list(_clipped(self.runs(), _microseconds(start), _microseconds(stop), later))
        return History(runs, later_labels=[*later, *self._later], refused=self.refused, refusals=self.refusals)

    def labelled(self, truth: Path | str | None = None) -> LabelledPayments:
        """The payments with their newest labels, whenever those were reported.

        Args:
            truth: File of a simulated world's truth (columns `transaction_id`, `is_fraud`, `ring_kind`), which then
                stands in place of the labels.

        Raises:
            DataError: The file cannot be read or has other columns.
        """
        payments = self.payments
        if truth is None:
            known = pa.Table.from_batches([*self.labels.to_batches(), *self._later], LABEL_SCHEMA)
        else:
            known = _truth(truth)
        at = _last_of(payments["transaction_id"], known["transaction_id"])
        labelled = at >= 0
        fraud, kind = np.zeros(len(at), bool), None
        if len(known):
            fraud[labelled] = known["is_fraud"].to_numpy()[at[labelled]]
        if truth is not None:
            kind = np.full(len(at), "", object)
            kind[labelled] = known["ring_kind"].fill_null("").to_numpy()[at[labelled]]
        return LabelledPayments(payments, fraud, labelled, kind)

    def take(self, offsets: NDArray[np.int64]) -> pa.Table:
        """Payments by offset, in the order asked for: a `graph.state.PaymentSource`.

        Raises:
            DataError: An offset holds no payment.
        """
        wanted, back = np.unique(offsets, return_inverse=True)
        at = np.searchsorted(self._first, wanted, "right") - 1
        found = [TRANSACTION_SCHEMA.empty_table()]
        for i in np.unique(at).tolist():
            of = wanted[at == i]
            held = self.events[i] if i >= 0 else None
            if held is None or held.kind is not Kind.TRANSACTION or of[-1] >= held.offset + len(held.batch):
                raise DataError(f"no payment at offset {of[-1]}")
            found.append(pa.Table.from_batches([held.batch]).take(pa.array(of - held.offset)))
        return pa.concat_tables(found).take(pa.array(back))

    def to_arrow(self) -> tuple[pa.Table, pa.Table]:
        """The payments and the labels, those reported after its end included; without a copy."""
        return self.payments, pa.Table.from_batches([*self.labels.to_batches(), *self._later], LABEL_SCHEMA)

    def to_pandas(self) -> tuple[Any, Any]:
        """As `to_arrow`, as pandas data frames (a copy).

        Raises:
            DataError: pandas is not installed.
        """
        try:
            import pandas  # noqa: F401  (Ringwatch itself does without it)
        except ImportError:
            raise DataError("to_pandas needs pandas (pip install pandas); to_arrow does without") from None
        payments, labels = self.to_arrow()
        return payments.to_pandas(), labels.to_pandas()

    def _all(self, kind: Kind) -> pa.Table:
        return pa.Table.from_batches([e.batch for e in self.events if e.kind is kind], _EMPTY[kind])


def numbered(runs: Iterable[Run], start: int = 0) -> Iterator[Events]:
    """Give the events of files the offsets that a journal would give them."""
    for kind, batch in runs:
        if len(batch):
            yield Events(kind, start, batch)
            start += len(batch)


def stream(
    source: Path | str,
    labels: Path | str | None = None,
    *,
    start: datetime | None = None,
    stop: datetime | None = None,
    strict: bool = False,
    on_refusal: OnRefusal | None = None,
    chunk: int = 4096,
) -> Iterator[Run]:
    """The events that `History.read` would hold, one run after the other, in bounded memory.

    Args:
        source: As `History.read`; "-" is an Arrow IPC stream on standard input, taken as it comes.
        labels: A file of labels, beside a file of payments.
        start: Leave out events before it.
        stop: Leave out events from it on.
        strict: Stop at the first bad row.
        on_refusal: Told of each bad row.
        chunk: Rows of the longest run.

    Raises:
        DataError: As `History.read`.
    """
    return _streamed(*_located(source, labels), start, stop, strict, on_refusal, chunk, [])


def holds_journal(path: Path | str) -> bool:
    """Whether a file is a journal in SQLite, told from its first bytes."""
    if not Path(path).is_file():
        return False
    with Path(path).open("rb") as opened:
        return opened.read(len(_SQLITE)) == _SQLITE


def _located(source: Path | str, labels: Path | str | None) -> tuple[Path | str, Path | str | None]:
    """The files of a folder; a journal or files as they are."""
    if is_live(source):
        return source, labels
    if Path(source).is_dir():
        if labels is not None:
            raise DataError(f"{source} is a folder with labels of its own: give the folder alone, or two files")
        payments, beside = Path(source) / "transactions.parquet", Path(source) / "labels.parquet"
        if not payments.is_file():
            raise DataError(f"{source} is a folder without transactions.parquet")
        return payments, beside if beside.is_file() else None
    if labels is not None and holds_journal(source):
        raise DataError(f"{source} is a journal with labels of its own: give it alone")
    return source, labels


def _streamed(
    source: Source,
    labels: Source | None,
    start: datetime | None,
    stop: datetime | None,
    strict: bool,
    on_refusal: OnRefusal | None,
    chunk: int,
    later: list[pa.RecordBatch],
) -> Iterator[Run]:
    """Events in [start, stop); labels of a journal from `stop` on go to `later`."""
    if isinstance(source, pa.Table) or is_live(source) or not holds_journal(source):
        return merged(source, labels, strict=strict, on_refusal=on_refusal, start=start, stop=stop, chunk=chunk)
    return _clipped(_replayed(source, chunk), _microseconds(start), _microseconds(stop), later)


def _replayed(path: Path | str, chunk: int) -> Iterator[Run]:
    with SqliteJournal(path) as journal:
        for events in journal.replay():
            for at in range(0, len(events.batch), chunk):
                yield events.kind, events.batch.slice(at, chunk)


def _timed(runs: Iterable[Run]) -> Iterator[tuple[Run, NDArray[np.int64]]]:
    """Runs and the moment of each row, us: its own time, or that of an earlier payment if that is later."""
    latest = np.int64(np.iinfo(np.int64).min)
    for kind, batch in runs:
        if kind is Kind.TRANSACTION:
            times = np.maximum(np.maximum.accumulate(_times(batch, kind)), latest)
            latest = times[-1]
        elif kind is Kind.LABEL:
            times = np.maximum(_times(batch, kind), latest)
        else:
            times = np.full(len(batch), latest)
        yield (kind, batch), times


def _clipped(runs: Iterable[Run], start: int | None, stop: int | None, later: list[pa.RecordBatch]) -> Iterator[Run]:
    """Runs cut to moments in [start, stop); labels from `stop` on go to `later`."""
    for (kind, batch), times in _timed(runs):
        late = np.zeros(len(times), bool) if stop is None else times >= stop
        if kind is Kind.LABEL and late.any():
            later.append(_chosen(batch, late))
        inside = ~late if start is None else ~late & (times >= start)
        if inside.any():
            yield kind, _chosen(batch, inside)


def _chosen(batch: pa.RecordBatch, mask: NDArray[np.bool_]) -> pa.RecordBatch:
    """The rows of a mask: as a slice, without a copy, where they lie together."""
    at = np.flatnonzero(mask)
    if at[-1] - at[0] + 1 == len(at):
        return batch.slice(int(at[0]), len(at))
    return batch.filter(pa.array(mask))


def _times(batch: pa.RecordBatch, kind: Kind) -> NDArray[np.int64]:
    times: NDArray[np.int64] = batch.column(_TIME[kind]).cast(pa.int64()).to_numpy()
    return times


def _microseconds(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise DataError(f"{moment} has no time zone")
    return int(pa.scalar(moment, TIMESTAMP).value)


def _reported_from(labels: Source, moment: datetime) -> list[pa.RecordBatch]:
    table = pa.Table.from_batches(list(read_labels(labels)), LABEL_SCHEMA)
    late = table.filter(pc.greater_equal(table["reported_at"], pa.scalar(moment, TIMESTAMP)))
    batches: list[pa.RecordBatch] = late.sort_by("reported_at").to_batches()
    return batches


def _truth(path: Path | str) -> pa.Table:
    try:
        return pq.read_table(path, columns=["transaction_id", "is_fraud", "ring_kind"])
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read the truth of a world from {path}: {error}") from error


def _last_of(names: pa.ChunkedArray, among: pa.ChunkedArray) -> NDArray[np.int64]:
    """Where each name stands last in `among`, int64 [n]; -1 where it does not."""
    last = len(among) - 1
    backwards = among.combine_chunks().take(pa.array(np.arange(last, -1, -1)))
    first = pc.index_in(names, value_set=backwards)  # the first of several equal ones
    at: NDArray[np.int64] = pc.fill_null(first, last + 1).to_numpy().astype(np.int64)
    return last - at


def _table(found: Any, what: str) -> pa.Table:
    try:
        return found if isinstance(found, pa.Table) else pa.table(found)
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{what}: no table that Arrow can take: {error}") from error


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"
