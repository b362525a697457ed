"""One stream of events in journal order from files, a folder of files or a journal, and its cuts in time."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.errors import DataError
from data.files.address import Address
from data.files.places import Source, is_live
from data.files.readers import OnRefusal
from data.files.sources import Run, merged
from data.journal.protocol import Kind
from data.journal.sqlite import SqliteJournal
from data.schema import TIMESTAMP

TIME_COLUMN = {Kind.TRANSACTION: "timestamp", Kind.LABEL: "reported_at"}
_SQLITE = b"SQLite format 3\x00"


def stream(
    source: Path | str | None,
    labels: Path | str | None = None,
    *,
    start: datetime | None = None,
    stop: datetime | None = None,
    strict: bool = False,
    on_refusal: OnRefusal | None = None,
    chunk: int = 4096,
    every_label: bool = False,
) -> Iterator[Run]:
    """The events that `data.history.History.read` would hold, one run after the other, in bounded memory.

    Args:
        source: As `History.read`; "-" is an Arrow IPC stream on standard input, taken as it comes. None: the labels
            alone, in order of their report.
        labels: A file of labels, beside a file of payments.
        start: Leave out events before it.
        stop: Leave out events from it on.
        strict: Stop at the first bad row.
        on_refusal: Told of each bad row.
        chunk: Rows of the longest run.
        every_label: Hand on every good label: it is for others to say which payments there are.

    Raises:
        DataError: As `History.read`.
    """
    if source is None:
        return streamed(None, labels, start, stop, strict, on_refusal, chunk, [], every_label)
    return streamed(*located(source, labels), start, stop, strict, on_refusal, chunk, [], every_label)


def holds_journal(path: Path | str) -> bool:
    """Whether a file is a journal in SQLite, told from its first bytes."""
    if not Path(path).is_file():
        return False
    with Path(path).open("rb") as opened:
        return opened.read(len(_SQLITE)) == _SQLITE


def located(source: Path | str, labels: Path | str | None) -> tuple[Path | str, Path | str | None]:
    """The two files of a folder that holds `transactions.parquet`; any other source as it is.

    Raises:
        DataError: A folder holds labels and no payments, or there are labels beside a source that has its own.
    """
    if is_live(source):
        return source, labels
    options = source.options if isinstance(source, Address) else None
    column = options is not None and options.label is not None
    if column and labels is None:
        labels = source

    def read_alike(path: Path) -> Path | str:
        return path if options is None else Address.of([path], options)

    payments, beside = Path(source) / "transactions.parquet", Path(source) / "labels.parquet"
    if payments.is_file():
        if labels is not None and not column:
            raise DataError(f"{source} is a folder with labels of its own: give the folder alone, or two files")
        whose = payments if column else beside
        return read_alike(payments), read_alike(whose) if whose.is_file() else None
    if beside.is_file():
        raise DataError(f"{source} is a folder with labels.parquet and without transactions.parquet")
    if labels is not None and holds_journal(source):
        raise DataError(f"{source} is a journal with labels of its own: give it alone")
    return source, labels


def streamed(
    source: Source | None,
    labels: Source | None,
    start: datetime | None,
    stop: datetime | None,
    strict: bool,
    on_refusal: OnRefusal | None,
    chunk: int,
    later: list[pa.RecordBatch],
    every_label: bool = False,
) -> Iterator[Run]:
    """As `stream`, of tables in memory as well; labels of a journal from `stop` on go to `later`."""
    if source is None or isinstance(source, pa.Table) or is_live(source) or not holds_journal(source):
        return merged(
            source,
            labels,
            strict=strict,
            on_refusal=on_refusal,
            start=start,
            stop=stop,
            chunk=chunk,
            every_label=every_label,
        )
    return clipped(_replayed(source, chunk), microseconds(start), microseconds(stop), later)


def timed(runs: Iterable[Run]) -> Iterator[tuple[Run, NDArray[np.int64]]]:
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


def clipped(runs: Iterable[Run], start: int | None, stop: int | None, later: list[pa.RecordBatch]) -> Iterator[Run]:
    """Runs cut to moments in [start, stop); labels from `stop` on go to `later`."""
    for (kind, batch), times in timed(runs):
        late = np.zeros(len(times), bool) if stop is None else times >= stop
        if kind is Kind.LABEL and late.any():
            later.append(_chosen(batch, late))
        inside = ~late if start is None else ~late & (times >= start)
        if inside.any():
            yield kind, _chosen(batch, inside)


def microseconds(moment: datetime | None) -> int | None:
    """UTC microseconds.

    Raises:
        DataError: The moment has no time zone.
    """
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise DataError(f"{moment} has no time zone")
    return int(pa.scalar(moment, TIMESTAMP).value)


def _replayed(path: Path | str, chunk: int) -> Iterator[Run]:
    with SqliteJournal(path, readonly=True) as journal:
        for events in journal.replay():
            for at in range(0, len(events.batch), chunk):
                yield events.kind, events.batch.slice(at, chunk)


def _chosen(batch: pa.RecordBatch, mask: NDArray[np.bool_]) -> pa.RecordBatch:
    """The rows of a mask: as a slice, without a copy, where they lie together."""
    at = np.flatnonzero(mask)
    if at[-1] - at[0] + 1 == len(at):
        return batch.slice(int(at[0]), len(at))
    return batch.filter(pa.array(mask))


def _times(batch: pa.RecordBatch, kind: Kind) -> NDArray[np.int64]:
    times: NDArray[np.int64] = batch.column(TIME_COLUMN[kind]).cast(pa.int64()).to_numpy()
    return times
