"""One file of any kind as raw batches with the number of each row, in bounded memory."""

import codecs
import queue
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import DataError
from data.files.delimited import BLOCK, read_csv
from data.files.jsonlines import read_json_lines
from data.files.places import Place
from data.files.selection import Numbered, Selection
from data.schema import Refusal

ROWS: Final = 1 << 16  # of a batch
OnRefusal = Callable[[Refusal], None]
Select = Callable[[Sequence[str]], Selection]
Item = TypeVar("Item")

_COMPRESSED: Final = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bz2",
    b"\x04\x22\x4d\x18": "lz4",
}
_FOREIGN: Final = {
    b"SQLite format 3": "an SQLite database",
    b"%PDF": "a PDF document",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: save it as CSV",
    b"Obj\x01": "an Avro file",
    b"ORC": "an ORC file",
    b"7z\xbc\xaf": "a 7z archive: unpack it",
    b"\xfd7zXZ": "an xz archive: unpack it",
    b"Rar!": "a RAR archive: unpack it",
    b"\x80\x03": "a Python pickle: save it as Parquet",
    b"\x80\x04": "a Python pickle: save it as Parquet",
    b"\x80\x05": "a Python pickle: save it as Parquet",
    b"\x89HDF": "an HDF5 file",
    b"<": "a page in HTML or XML",
    b"[": "a JSON array: write one object a line (jq -c '.[]')",
}


def read_raw(place: Place, select: Select, on_refusal: OnRefusal) -> Iterator[Numbered]:
    """The selected columns of a file, unchecked; values of CSV are bytes. Its kind is told from its content.

    The first batch may be empty: it shows the columns of a file without rows.

    Args:
        place: Parquet, Arrow IPC (file or stream), CSV or JSON lines, also inside gzip, zstd, bz2, lz4 or a zip of one
            file; standard input is an Arrow IPC stream.
        select: Chooses columns by their names.
        on_refusal: Told of rows that cannot be taken apart.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        if place.table is not None:
            selection = _selected(select, place.table.schema)
            batches = iter(place.table.select(selection.indices).to_batches(ROWS))
            yield from _numbered(selection, place.table.schema, batches)
            return
        if place.filesystem is None:
            with pa.PythonFile(sys.stdin.buffer, mode="r") as stream:
                yield from _stream(stream, select)
            return
        with place.filesystem.open_input_file(place.path) as source:
            yield from _opened(source, place.shown, select, on_refusal)
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {place.shown}: {error}") from None
    except (OSError, pa.ArrowException, zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"cannot read {place.shown}: {error}") from error


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


def _opened(source: Any, file: str, select: Select, on_refusal: OnRefusal) -> Iterator[Numbered]:
    magic = source.read(6)
    source.seek(0)
    if magic[:4] == b"PAR1":
        yield from _parquet(source, select)
    elif magic == b"ARROW1":
        yield from _random(source, select)
    elif magic[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(source) as archive, archive.open(_only(archive)) as member:
            yield from _flowing(member, file, select, on_refusal)
    elif kind := next((kind for mark, kind in _COMPRESSED.items() if magic.startswith(mark)), None):
        with pa.CompressedInputStream(source, kind) as stream:
            yield from _flowing(stream, file, select, on_refusal)
    else:
        yield from _flowing(source, file, select, on_refusal)


def _only(archive: zipfile.ZipFile) -> str:
    """The one file of an archive."""
    names = [n for n in archive.namelist() if not n.endswith("/") and not n.startswith("__MACOSX/")]
    if "[Content_Types].xml" in names:
        raise DataError(f"cannot read {archive.filename or 'it'}: it is an Excel workbook: save it as CSV")
    if len(names) != 1:
        raise DataError(f"cannot read {archive.filename or 'it'}: a zip archive of {len(names)} files: unpack it")
    return names[0]


class _Replayed:
    """A stream whose first bytes were looked at, from its beginning.

    Attributes:
        head: The first bytes, at least 1,024 where there are as many.
        closed: As files have it.
    """

    closed = False

    def __init__(self, stream: Any) -> None:
        self._stream, self.head = stream, b""
        while len(self.head) < 1024 and (more := stream.read(1024)):
            self.head += more
        self._left = self.head

    def read(self, size: int = -1) -> bytes:
        """Up to that many bytes."""
        if self._left:
            given, self._left = (self._left, b"") if size < 0 else (self._left[:size], self._left[size:])
            return given if len(given) == size else given + self._stream.read(size - len(given) if size > 0 else size)
        return bytes(self._stream.read(size))

    def readable(self) -> bool:
        """It is."""
        return True

    def close(self) -> None:
        """Whoever opened the stream closes it."""

    def chunks(self) -> Iterator[bytes]:
        """Text in UTF-8 without its byte order mark, some megabytes at a time."""
        wide = self.head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        decode = codecs.getincrementaldecoder("utf-16")().decode if wide else None  # what Excel calls Unicode text
        first = True
        while raw := self.read(BLOCK):
            text = decode(raw).encode() if decode else raw
            if first:
                text, first = text.removeprefix(codecs.BOM_UTF8), False
            if text:
                yield text


def _flowing(stream: Any, file: str, select: Select, on_refusal: OnRefusal) -> Iterator[Numbered]:
    """What can be read from a stream."""
    replayed = _Replayed(stream)
    head = replayed.head
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if head[:4] == b"\xff\xff\xff\xff" or head[:6] == b"ARROW1":
        if head[:6] == b"ARROW1":
            replayed.read(8)  # a file of Arrow is a stream behind eight bytes
        with pa.PythonFile(replayed, mode="r") as source:
            yield from _stream(source, select)
        return
    if head[:4] == b"PAR1":
        raise DataError(f"cannot read {file}: it is Parquet inside an archive: unpack it")
    if head[257:262] == b"ustar":
        raise DataError(f"cannot read {file}: it is a tar archive: unpack it, and give its folder")
    for mark, kind in _FOREIGN.items():
        if text.startswith(mark) or head.startswith(mark):
            raise DataError(f"cannot read {file}: it is {kind}")
    if b"\0" in head and head[:2] not in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise DataError(f"cannot read {file}: neither Parquet, Arrow, CSV nor JSON lines; it begins with {head[:16]!r}")
    read = read_json_lines if text.startswith(b"{") else read_csv
    yield from read(replayed.chunks(), select, file, on_refusal)


def _numbered(selection: Selection, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> Iterator[Numbered]:
    """Batches of the selected columns, cut at `ROWS`, renamed and with the numbers of their rows."""
    row, nothing = 0, np.arange(0)
    wanted = [schema.field(i).with_nullable(True) for i in selection.indices]
    yield selection.rename(pa.RecordBatch.from_pylist([], pa.schema(wanted)), nothing), nothing
    for whole in batches:
        for at in range(0, len(whole), ROWS):
            batch = whole.slice(at, ROWS)
            rows = np.arange(row, row + len(batch))
            yield selection.rename(batch, rows), rows
            row += len(batch)


def _parquet(source: Any, select: Select) -> Iterator[Numbered]:
    with pq.ParquetFile(source) as file:
        selection = _selected(select, file.schema_arrow)
        names = [file.schema_arrow.names[i] for i in selection.indices]
        batches = (batch.select(names) for batch in file.iter_batches(ROWS, columns=names))
        yield from _numbered(selection, file.schema_arrow, batches)


def _random(source: Any, select: Select) -> Iterator[Numbered]:
    with pa.ipc.open_file(source) as reader:
        selection = _selected(select, reader.schema)
        batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
        yield from _numbered(selection, reader.schema, (_pick(batch, selection.indices) for batch in batches))


def _stream(source: Any, select: Select) -> Iterator[Numbered]:
    with pa.ipc.open_stream(source) as reader:
        selection = _selected(select, reader.schema)
        yield from _numbered(selection, reader.schema, (_pick(batch, selection.indices) for batch in reader))


def _selected(select: Select, schema: pa.Schema) -> Selection:
    selection = select(schema.names)
    selection.check()
    return selection


def _pick(batch: pa.RecordBatch, wanted: Sequence[int]) -> pa.RecordBatch:
    # Not by name, which may be there twice.
    schema = pa.schema([batch.schema.field(i) for i in wanted])
    return pa.RecordBatch.from_arrays([batch.column(i) for i in wanted], schema=schema)
