"""Arrow IPC streams from outside: told before they are read whether they would grow in memory.

Sixteen megabytes of compressed zeros are gigabytes once read, and Arrow sets no limit. Whether a batch is compressed is
in the metadata of its message, a flatbuffer (format/Message.fbs of Arrow), of which just that is read here. Ten
thousand references to one long text are as bad: what they stand for is added up before anything is copied.
"""

import struct

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_HEADER_TYPE, _HEADER = 1, 2  # fields of Message
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3  # values of MessageHeader
_DATA = 1  # the record batch of a DictionaryBatch
_COMPRESSION = 3  # field of RecordBatch


def is_compressed(body: bytes) -> bool:
    """Whether a batch of a stream is compressed.

    Raises:
        ValueError: It is no Arrow IPC stream, or a damaged one.
        pa.ArrowException: As well.
    """
    reader = pa.ipc.MessageReader.open_stream(body)
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            return False
        try:
            if _compressed(message.metadata.to_pybytes()):
                return True
        except (struct.error, IndexError) as error:
            raise ValueError(f"damaged metadata: {error}") from None


def expanded_bytes(batch: pa.RecordBatch) -> int:
    """Bytes of text that the dictionaries, runs and views of a batch stand for, each as often as it is referred to."""
    return sum(_expanded(column) for column in batch.columns)


def _expanded(column: pa.Array) -> int:
    kind = column.type
    if pa.types.is_dictionary(kind):
        sizes, often = _sizes(column.dictionary), column.indices.drop_null().to_numpy(zero_copy_only=False)
        return int(sizes[often].sum()) if len(sizes) else 0
    if pa.types.is_run_end_encoded(kind):
        ends = column.run_ends.to_numpy().astype(np.int64)
        return int((_sizes(column.values) * np.diff(np.minimum(ends, column.offset + len(column)), prepend=0)).sum())
    return int(_sizes(column).sum()) if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind) else 0


def _sizes(values: pa.Array) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Bytes of each value of an array of texts; of anything else, of a number."""
    kind = values.type
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        views = np.frombuffer(values.buffers()[1], np.int32).reshape(-1, 4)  # a view of 16 bytes begins with its size
        return views[values.offset : values.offset + len(values), 0].astype(np.int64)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        sizes: np.ndarray[tuple[int], np.dtype[np.int64]] = (
            pc.binary_length(values).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        )
        return sizes
    return np.full(len(values), 8, np.int64)


def _compressed(metadata: bytes) -> bool:
    message = _table(metadata, 0)
    kind = _field(metadata, message, _HEADER_TYPE)
    header = _field(metadata, message, _HEADER)
    if not kind or not header or metadata[kind] not in (_DICTIONARY_BATCH, _RECORD_BATCH):
        return False
    batch = _table(metadata, header)
    if metadata[kind] == _DICTIONARY_BATCH:
        data = _field(metadata, batch, _DATA)
        if not data:
            return False
        batch = _table(metadata, data)
    return _field(metadata, batch, _COMPRESSION) > 0


def _table(metadata: bytes, at: int) -> int:
    """Where the table begins that the offset at `at` refers to."""
    return at + int(struct.unpack_from("<I", metadata, at)[0])


def _field(metadata: bytes, table: int, number: int) -> int:
    """Where a field of a table is; 0 where the table lacks it."""
    directory = table - int(struct.unpack_from("<i", metadata, table)[0])
    size = int(struct.unpack_from("<H", metadata, directory)[0])
    entry = 4 + 2 * number
    if entry + 2 > size:
        return 0
    offset = int(struct.unpack_from("<H", metadata, directory + entry)[0])
    return table + offset if offset else 0
