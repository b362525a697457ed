"""Arrow IPC streams from outside: told before they are read whether they would grow in memory.

Sixteen megabytes of compressed zeros are gigabytes once read, and Arrow sets no limit. Whether a batch is compressed is
in the metadata of its message, a flatbuffer (format/Message.fbs of Arrow), of which just that is read here.
"""

import struct

import pyarrow as pa

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
