"""Parquet, Arrow IPC and CSV files as raw batches with the number of each row, in bounded memory."""

import csv
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data.errors import DataError, SchemaError
from data.schema import Refusal

ROWS = 1 << 16  # of a batch
_BLOCK = 1 << 22  # bytes of CSV parsed at once
STDIN = "-"
Source: TypeAlias = Path | str | pa.Table  # a file, standard input ("-"), or rows that are in memory already

Numbered = tuple[pa.RecordBatch, NDArray[np.int64]]  # the batch and the number of each row in its file
Item = TypeVar("Item")
OnRefusal = Callable[[Refusal], None]


def shown(path: Source) -> str:
    """How messages name a source."""
    if isinstance(path, pa.Table):
        return "<memory>"
    return "<stdin>" if str(path) == STDIN else str(path)


def is_live(path: Source) -> bool:
    """Whether a source can be read once only, as it comes."""
    return not isinstance(path, pa.Table) and str(path) == STDIN


def read_raw(path: Source, columns: Sequence[str], on_refusal: OnRefusal) -> Iterator[Numbered]:
    """The named columns of a file, unchecked; CSV values as bytes. The kind of the file is told from its content.

    The first batch may be empty: it shows the columns of a file without rows.

    Args:
        path: A Parquet, Arrow IPC (file or stream) or CSV file; "-" is an Arrow IPC stream on standard input. Or a
            table in memory.
        columns: Columns wanted; those that the file lacks are left out.
        on_refusal: Told of CSV rows that have too few or too many columns.

    Raises:
        DataError: The file cannot be read.
    """
    file = shown(path)
    try:
        if isinstance(path, pa.Table):
            yield from _counted(_table(path, columns))
            return
        if is_live(path):
            with pa.PythonFile(sys.stdin.buffer, mode="r") as stream:
                yield from _counted(_stream(stream, columns))
            return
        with Path(path).open("rb") as opened:
            magic = opened.read(6)
        if magic[:4] == b"PAR1":
            yield from _counted(_parquet(path, columns))
        elif magic == b"ARROW1":
            with pa.OSFile(str(path)) as source:
                yield from _counted(_random(source, columns))
        elif magic[:4] == b"\xff\xff\xff\xff":
            with pa.OSFile(str(path)) as source:
                yield from _counted(_stream(source, columns))
        else:
            yield from _csv(path, columns, on_refusal)
    except (OSError, pa.ArrowException, csv.Error) as error:
        raise DataError(f"cannot read {file}: {error}") from error


def read_ahead(items: Iterator[Item], depth: int = 2) -> Iterator[Item]:
    """The items, the next `depth` of them made in a thread of their own; what that thread raises is raised here.

    A caller that stops early stops the thread.
    """
    made: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: Item | None, error: BaseException | None) -> None:
        while not stopped.is_set():
            try:
                made.put((item, error), timeout=0.1)
                return
            except queue.Full:
                pass

    def make() -> None:
        try:
            for item in items:
                put(item, None)
                if stopped.is_set():
                    return
            put(None, None)
        except BaseException as error:
            put(None, error)

    def taken() -> Iterator[Item]:
        thread = threading.Thread(target=make, daemon=True, name="ringwatch-read")
        thread.start()
        try:
            while True:
                item, error = made.get()
                if error is not None:
                    raise error
                if item is None:
                    return
                yield item
        finally:
            stopped.set()
            thread.join()

    return taken()


def _counted(batches: Iterator[pa.RecordBatch]) -> Iterator[Numbered]:
    row = 0
    for whole in batches:
        for at in range(0, max(len(whole), 1), ROWS):
            batch = whole.slice(at, ROWS)
            yield batch, np.arange(row, row + len(batch))
            row += len(batch)


def _wanted(schema: pa.Schema, columns: Sequence[str]) -> list[int]:
    return [i for i, name in enumerate(schema.names) if name in columns]  # a name that is there twice stays twice


def _pick(batch: pa.RecordBatch, wanted: Sequence[int]) -> pa.RecordBatch:
    schema = pa.schema([batch.schema.field(i) for i in wanted])
    return pa.RecordBatch.from_arrays([batch.column(i) for i in wanted], schema=schema)


def _table(table: pa.Table, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    wanted = _wanted(table.schema, columns)
    yield pa.RecordBatch.from_pylist([], pa.schema([table.schema.field(i) for i in wanted]))
    yield from table.select(wanted).to_batches(ROWS)


def _parquet(path: Path | str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        wanted = _wanted(file.schema_arrow, columns)
        yield pa.RecordBatch.from_pylist([], pa.schema([file.schema_arrow.field(i) for i in wanted]))
        yield from file.iter_batches(ROWS, columns=[file.schema_arrow.names[i] for i in wanted])


def _random(source: Any, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with pa.ipc.open_file(source) as reader:
        wanted = _wanted(reader.schema, columns)
        yield pa.RecordBatch.from_pylist([], pa.schema([reader.schema.field(i) for i in wanted]))
        for number in range(reader.num_record_batches):
            yield _pick(reader.get_batch(number), wanted)


def _stream(source: Any, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with pa.ipc.open_stream(source) as reader:
        wanted = _wanted(reader.schema, columns)
        yield pa.RecordBatch.from_pylist([], pa.schema([reader.schema.field(i) for i in wanted]))
        for batch in reader:
            yield _pick(batch, wanted)


def _csv(path: Path | str, columns: Sequence[str], on_refusal: OnRefusal) -> Iterator[Numbered]:
    file = shown(path)
    with Path(path).open(encoding="utf-8-sig", errors="replace", newline="") as opened:
        header = next(csv.reader(opened), [])
    present = [name for name in columns if name in header]
    for name in present:
        if header.count(name) > 1:
            raise SchemaError(f"{file}: column {name} is there {header.count(name)} times")
    binary = dict.fromkeys(present, pa.binary())
    yield pa.RecordBatch.from_pylist([], pa.schema(binary)), np.arange(0)
    if not present:
        return
    malformed: list[Any] = []  # the rows that the parser skipped, in order

    def skip(row: Any) -> str:
        malformed.append(row)  # reported later: nothing may be raised through the parser
        return "skip"

    def report(told: int) -> int:
        for row in malformed[told:]:
            reason = f"has {row.actual_columns} columns, not {row.expected_columns}"
            on_refusal(Refusal(file, row.number - 2, "(row)", reason))  # it counts from 1, and the header too
        return len(malformed)

    with pa_csv.open_csv(
        path,
        read_options=pa_csv.ReadOptions(block_size=_BLOCK, use_threads=False),  # row numbers need one thread
        parse_options=pa_csv.ParseOptions(invalid_row_handler=skip),
        # As bytes: the check of the schema parses the values, and can say which row is wrong.
        convert_options=pa_csv.ConvertOptions(
            include_columns=present, column_types=binary, null_values=[""], strings_can_be_null=True
        ),
    ) as reader:
        parsed = told = 0
        for batch in reader:
            told = report(told)
            # Of the rows that parsed, row p stands behind every skipped one with (its number - its rank) <= p.
            skipped = np.fromiter((row.number - 2 for row in malformed), np.int64, told) - np.arange(told)
            rows = np.arange(parsed, parsed + len(batch))
            parsed += len(batch)
            yield batch, rows + np.searchsorted(skipped, rows, "right")
        report(told)
