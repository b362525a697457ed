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
from data.files.places import Source, shown
from data.files.readers import OnRefusal
from data.files.sources import Run, read_labels
from data.files.streams import TIME_COLUMN, clipped, located, microseconds, streamed, timed
from data.journal.memory import MemoryJournal
from data.journal.protocol import Events, Kind
from data.schema import LABEL_SCHEMA, ROLES, TIMESTAMP, TRANSACTION_SCHEMA, Refusal

CHUNK = 1 << 16  # rows of the longest run that is held as one batch
KEPT_REFUSALS = 100  # refused rows that are kept in full; all are counted
_EMPTY = {Kind.LABEL: LABEL_SCHEMA, Kind.TRANSACTION: TRANSACTION_SCHEMA}


@dataclass(frozen=True)
class LabelledPayments:
    """Payments with what is known of them by now, however late it became known: what judges scores.

    Attributes:
        payments: Columns of `TRANSACTION_SCHEMA`, in journal order.
        fraud: What the label of each with the newest report says, bool [n]; without one, legitimate.
        labelled: Whether it has a label, bool [n].
        kind: Kind of the ring that each belongs to, "" for none, object [n]; only a simulated world knows.
        reported_us: When its newest label was reported, UTC microseconds, 0 without one, int64 [n]; None where the
            labels have no times.
    """

    payments: pa.Table
    fraud: NDArray[np.bool_]
    labelled: NDArray[np.bool_]
    kind: NDArray[np.object_] | None = None
    reported_us: NDArray[np.int64] | None = None


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
        self._journal = MemoryJournal(self.events)  # the same batches, for look-ups

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
            source: The journal of a service; a folder with `transactions.parquet` (and `labels.parquet`, if any); or
                payments from wherever `data.files.sources.read_transactions` reads them.
            labels: Labels, beside payments.
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
        return cls._of(*located(source, labels), start, stop, strict, on_refusal)

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
                raise DataError(f"{what}: not a pandas data frame that Arrow can read: {error}") from error

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
        runs = list(streamed(source, labels, start, stop, strict, refuse, CHUNK, later))
        if labels is not None and stop is not None:
            later += _reported_from(labels, stop)
        if not runs and labels is not None and start is None and stop is None and any(read_labels(labels)):
            raise DataError(f"{shown(labels)} holds labels, but {shown(source)} holds no valid payment")
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
        """The labels that are events, columns of `LABEL_SCHEMA`; of several of a payment the newest report counts."""
        return self._all(Kind.LABEL)

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that any payment fills: a graph needs no others."""
        filled = {role.name for role in ROLES if self.payments[role.column].null_count < len(self.payments)}
        return tuple(role.name for role in ROLES if role.name in filled)

    @property
    def first(self) -> datetime | None:
        """The moment of the first event; None where there is none."""
        moment = next((times[0] for (kind, _), times in timed(self.runs()) if kind in TIME_COLUMN), None)
        return None if moment is None else datetime.fromtimestamp(int(moment) / 1e6, UTC)

    @property
    def last(self) -> datetime | None:
        """The latest moment of an event; None where there is none."""
        moment = max((times.max() for (kind, _), times in timed(self.runs()) if kind in TIME_COLUMN), default=None)
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
        runs = list(clipped(self.runs(), microseconds(start), microseconds(stop), later))
        return History(runs, later_labels=[*later, *self._later], refused=self.refused, refusals=self.refusals)

    def labelled(self, truth: Path | str | None = None) -> LabelledPayments:
        """The payments with their labels of the newest report, also those that are no events yet.

        Args:
            truth: File of a simulated world's truth (columns `transaction_id`, `is_fraud`, `ring_kind`), which then
                stands in place of the labels.

        Raises:
            DataError: The file cannot be read or has other columns.
        """
        payments = self.payments
        if truth is None:
            known = pa.Table.from_batches([*self.labels.to_batches(), *self._later], LABEL_SCHEMA)
            newest = np.argsort(known["reported_at"].cast(pa.int64()).to_numpy(), kind="stable")
            known = known.take(pa.array(newest))  # of two reported at once the one that came later stays last
        else:
            known = _truth(truth)
        at = _last_of(payments["transaction_id"], known["transaction_id"])
        labelled = at >= 0
        fraud, kind, reported = np.zeros(len(at), bool), None, None
        if len(known):
            fraud[labelled] = known["is_fraud"].to_numpy()[at[labelled]]
        if truth is None:
            reported = np.zeros(len(at), np.int64)
            reported[labelled] = known["reported_at"].cast(pa.int64()).to_numpy()[at[labelled]]
        else:
            kind = np.full(len(at), "", object)
            kind[labelled] = known["ring_kind"].fill_null("").to_numpy()[at[labelled]]
        return LabelledPayments(payments, fraud, labelled, kind, reported)

    def take(self, offsets: NDArray[np.int64]) -> pa.Table:
        """Payments by offset, int64 [n], in the order asked for: a history is a `data.journal.protocol.PaymentSource`.

        Raises:
            JournalError: An offset holds no payment.
        """
        return self._journal.take(offsets)

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
        raise DataError(f"{what}: not a table that Arrow can read: {error}") from error


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"
