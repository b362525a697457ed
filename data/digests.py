"""Keyed 128-bit digests of names, and the hash table that finds them: no raw identifier is held in the graph.

The digest is SipHash-2-4 with 128 bits of output (Aumasson and Bernstein, INDOCRYPT 2012), a keyed pseudo-random
function that is fast on short texts. A *table* is a dense array of digests, numbered by their place, and buckets with
linear probing that hold place + 1. What leaves is taken out by moving the followers back (Knuth, TAOCP 3, algorithm
6.4R), so there are no tombstones and memory stays level however many names come and go.
"""

import os
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.errors import DataError
from data.jit import jit, prefetch, signed, word_at

KEY_VARIABLE = "RINGWATCH_ID_KEY"  # 32 hexadecimal digits
LOOKUPS_PER_BLOCK = 32  # look-ups whose reads are prefetched together
MAX_LOAD_FACTOR, LOAD_FACTOR_AFTER_GROWTH = 0.75, 0.6  # the table grows when it is fuller than the first

Digests = NDArray[np.uint64]  # [n, 2]
Key = tuple[np.uint64, np.uint64]


class Table(NamedTuple):
    """What the kernels read. N places, H buckets."""

    digests: Digests  # [N, 2]
    buckets: NDArray[np.uint32]  # [H] place + 1, 0 free


def key_is_secret() -> bool:
    """Whether the environment names a key of its own for digests, and not the one that everybody knows."""
    return os.environ.get(KEY_VARIABLE, "").strip("0") != ""


def key_from_environment() -> Key:
    """The secret that digests are made with; a fixed one where the environment names none.

    Raises:
        DataError: The variable is no 32 hexadecimal digits.
    """
    text = os.environ.get(KEY_VARIABLE, "0" * 32)
    if not re.fullmatch("[0-9a-fA-F]{32}", text):
        raise DataError(f"{KEY_VARIABLE} must be 32 hexadecimal digits (128 bits)")
    return np.uint64(int(text[:16], 16)), np.uint64(int(text[16:], 16))


def derive_key(key: Key, purpose: str) -> Key:
    """A key of its own for a purpose, so that one name under two entity types has unrelated digests."""
    found = digest(key, pa.array([purpose]))
    return np.uint64(found[0, 0]), np.uint64(found[0, 1])


def digest(key: Key, names: pa.Array) -> Digests:
    """Digests of names.

    Args:
        key: 128 bits.
        names: Strings or bytes, nullable, shape [n].

    Returns:
        uint64 [n, 2]; zeros for null.
    """
    out = np.zeros((len(names), 2), np.uint64)
    if names.null_count == len(names):
        return out
    _, ends, text = names.buffers()
    data = np.empty(0, np.uint8) if text is None else np.frombuffer(text, np.uint8)
    offsets = np.frombuffer(ends, np.int32, len(names) + 1, names.offset * 4)
    # On this thread alone: at 14 ns a name, handing parts to others and waiting for them takes longer.
    _digest(key[0], key[1], data, offsets, out)
    if names.null_count:
        out[names.is_null().to_numpy(zero_copy_only=False)] = 0
    return out


def content_digests(key: Key, batch: pa.RecordBatch) -> Digests:
    """Digests of the content of rows: those of their values, each under a key of its column, added up.

    Args:
        key: 128 bits.
        batch: Columns of strings, integers, timestamps and booleans.

    Returns:
        uint64 [n, 2].
    """
    out = np.zeros((len(batch), 2), np.uint64)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if column.null_count < len(column):
            out += digest(derive_key(key, name), _as_text(column))
    return out


def _as_text(column: pa.Array) -> pa.Array:
    if pa.types.is_string(column.type):
        return column
    if pa.types.is_timestamp(column.type) or pa.types.is_int64(column.type):
        eight = np.ascontiguousarray(column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False))
        ends = np.arange(0, 8 * len(column) + 1, 8, dtype=np.int32)
        valid = None if column.null_count == 0 else pa.array(column.is_valid()).buffers()[1]
        return pa.Array.from_buffers(pa.binary(), len(column), [valid, pa.py_buffer(ends), pa.py_buffer(eight)])
    return column.cast(pa.string())


def empty_buckets(names: int) -> NDArray[np.uint32]:
    """Buckets with room for that many names."""
    return np.zeros(max(64, int(names / LOAD_FACTOR_AFTER_GROWTH)), np.uint32)


@jit(inline=True)
def _round(v0: np.uint64, v1: np.uint64, v2: np.uint64, v3: np.uint64) -> tuple[np.uint64, ...]:
    v0 += v1
    v1 = (v1 << np.uint64(13)) | (v1 >> np.uint64(51))
    v1 ^= v0
    v0 = (v0 << np.uint64(32)) | (v0 >> np.uint64(32))
    v2 += v3
    v3 = (v3 << np.uint64(16)) | (v3 >> np.uint64(48))
    v3 ^= v2
    v0 += v3
    v3 = (v3 << np.uint64(21)) | (v3 >> np.uint64(43))
    v3 ^= v0
    v2 += v1
    v1 = (v1 << np.uint64(17)) | (v1 >> np.uint64(47))
    v1 ^= v2
    v2 = (v2 << np.uint64(32)) | (v2 >> np.uint64(32))
    return v0, v1, v2, v3


@jit()
def _digest(
    k0: np.uint64, k1: np.uint64, data: NDArray[np.uint8], offsets: NDArray[np.int32], out: NDArray[np.uint64]
) -> None:
    for i in range(out.shape[0]):
        start, stop = offsets[i], offsets[i + 1]
        v0 = k0 ^ np.uint64(0x736F6D6570736575)
        v1 = k1 ^ np.uint64(0x646F72616E646F6D ^ 0xEE)
        v2 = k0 ^ np.uint64(0x6C7967656E657261)
        v3 = k1 ^ np.uint64(0x7465646279746573)
        at = start
        while True:
            # The last word holds what is left, fewer than 8 bytes, and the length modulo 256 in its top byte.
            last, word = stop - at < 8, np.uint64(0)
            if at + 8 <= data.shape[0]:
                word = word_at(data, at)
            else:  # at the very end of the text
                for b in range(stop - at):
                    word |= np.uint64(data[at + b]) << np.uint64(8 * b)
            if last:
                word &= (np.uint64(1) << np.uint64(8 * (stop - at))) - np.uint64(1)
                word |= np.uint64((stop - start) & 0xFF) << np.uint64(56)
            v3 ^= word
            v0, v1, v2, v3 = _round(v0, v1, v2, v3)
            v0, v1, v2, v3 = _round(v0, v1, v2, v3)
            v0 ^= word
            if last:
                break
            at += 8
        v2 ^= np.uint64(0xEE)
        for _ in range(4):
            v0, v1, v2, v3 = _round(v0, v1, v2, v3)
        out[i, 0] = v0 ^ v1 ^ v2 ^ v3
        v1 ^= np.uint64(0xDD)
        for _ in range(4):
            v0, v1, v2, v3 = _round(v0, v1, v2, v3)
        out[i, 1] = v0 ^ v1 ^ v2 ^ v3


@jit(inline=True)
def _home_bucket(buckets: NDArray[np.uint32], high: np.uint64) -> int:
    """Bucket where a search begins: the top 32 bits of the digest, scaled to the number of buckets."""
    return signed(((high >> np.uint64(32)) * np.uint64(buckets.shape[0])) >> np.uint64(32))


@jit(inline=True)
def bucket_of(t: Table, high: np.uint64, low: np.uint64) -> int:
    """The bucket that holds a digest, or the free one where it belongs."""
    at = _home_bucket(t.buckets, high)
    while True:
        place = t.buckets[at]
        if place == 0 or (t.digests[place - 1, 0] == high and t.digests[place - 1, 1] == low):
            return at
        at += 1
        if at == t.buckets.shape[0]:
            at = 0


@jit()
def prefetch_lookups(t: Table, wanted: NDArray[np.uint64], at: int) -> None:
    """Prefetch what the look-ups of the block from `at` on will read: the digests that their buckets point to.

    The buckets themselves are prefetched one block earlier, so that reading them here waits for nothing.
    """
    stop = min(at + LOOKUPS_PER_BLOCK, wanted.shape[0])
    for n in range(stop if at else 0, min(at + 2 * LOOKUPS_PER_BLOCK, wanted.shape[0])):
        prefetch(t.buckets, _home_bucket(t.buckets, wanted[n, 0]))
    for n in range(at, stop):
        place = t.buckets[_home_bucket(t.buckets, wanted[n, 0])]
        if place:
            prefetch(t.digests, place - 1)


@jit(inline=True)
def close_gap(buckets: Any, hole: int, home: Callable[[Any, Any, int], int], contents: Any) -> None:
    """Empty a bucket of a table with open addressing, and move back those behind it that would no longer be found.

    Knuth, TAOCP 3, algorithm 6.4R, circular. No division: a distance around the table is a difference, or that and H.

    Args:
        buckets: [H] place + 1, 0 free.
        hole: The bucket.
        home: Compiled; `home(buckets, contents, place)` is the bucket where the search for what lies at a place begins.
        contents: What `home` reads.
    """
    size, at = buckets.shape[0], hole
    while True:
        at = at + 1 if at + 1 < size else 0
        place = buckets[at]
        if place == 0:
            break
        begun = home(buckets, contents, signed(place) - 1)
        searched = at - begun if at >= begun else at - begun + size
        behind = at - hole if at >= hole else at - hole + size
        if searched >= behind:
            buckets[hole] = place
            hole = at
    buckets[hole] = 0


@jit(inline=True)
def _home_of_place(buckets: NDArray[np.uint32], digests: NDArray[np.uint64], place: int) -> int:
    return _home_bucket(buckets, digests[place, 0])


@jit()
def remove(t: Table, at: int) -> None:
    """Empty a bucket."""
    close_gap(t.buckets, at, _home_of_place, t.digests)


@jit()
def rebuild_buckets(digests: NDArray[np.uint64], used: int, buckets: NDArray[np.uint32]) -> None:
    """Fill empty buckets from the digests [used]; one whose second word is 0 is no name (a free place may link on)."""
    t = Table(digests, buckets)
    for place in range(used):
        if place % LOOKUPS_PER_BLOCK == 0:
            for n in range(place + LOOKUPS_PER_BLOCK, min(place + 2 * LOOKUPS_PER_BLOCK, used)):
                prefetch(buckets, _home_bucket(buckets, digests[n, 0]))
        if digests[place, 1]:
            t.buckets[bucket_of(t, digests[place, 0], digests[place, 1])] = place + 1


@jit()
def find(t: Table, wanted: NDArray[np.uint64], out: NDArray[np.int64]) -> None:
    """Places of digests, int64 [n]; -1 where the table has none."""
    for n in range(out.shape[0]):
        if n % LOOKUPS_PER_BLOCK == 0 and out.shape[0] > 1:
            prefetch_lookups(t, wanted, n)
        out[n] = signed(t.buckets[bucket_of(t, wanted[n, 0], wanted[n, 1])]) - 1


class DuplicateDetector:
    """Remembers digests of rows' ids and contents, about 39 bytes a row, to tell repeats and conflicts from new rows.

    Args:
        id_column: Name of the column of ids.
    """

    def __init__(self, id_column: str) -> None:
        self._id = id_column
        self._key: Key = (np.uint64(0), np.uint64(0))  # nothing of it leaves this process
        self._digests = np.zeros((1 << 12, 2), np.uint64)
        self._content = np.zeros((1 << 12, 2), np.uint64)
        self._buckets = empty_buckets(1 << 12)
        self.count = 0

    def note(self, batch: pa.RecordBatch) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Note rows.

        Returns:
            Which are new, and which have the id of an earlier one but other content, bool [n] each.
        """
        n = len(batch)
        if self.count + n > MAX_LOAD_FACTOR * len(self._buckets) or self.count + n > len(self._digests):
            self._grow(self.count + n)
        content, place = content_digests(self._key, batch), np.empty(n, np.int64)
        wanted = digest(self._key, batch.column(self._id))
        self.count = _note(Table(self._digests, self._buckets), self._content, wanted, content, self.count, place)
        new = place < 0
        changed = np.zeros(n, np.bool_)
        changed[~new] = (self._content[place[~new]] != content[~new]).any(1)
        return new, changed

    def find(self, ids: pa.Array) -> NDArray[np.int64]:
        """How many new rows came before the one of each id, int64 [n]; -1 where there is none of that id."""
        out = np.empty(len(ids), np.int64)
        find(Table(self._digests, self._buckets), digest(self._key, ids), out)
        return out

    def _grow(self, rows: int) -> None:
        if rows > len(self._digests):
            more = np.zeros((max(rows, 2 * len(self._digests)) - len(self._digests), 2), np.uint64)
            self._digests, self._content = (np.concatenate([a, more]) for a in (self._digests, self._content))
        self._buckets = empty_buckets(len(self._digests))
        rebuild_buckets(self._digests, self.count, self._buckets)


@jit()
def _note(
    t: Table,
    contents: NDArray[np.uint64],
    wanted: NDArray[np.uint64],
    content: NDArray[np.uint64],
    count: int,
    place: NDArray[np.int64],
) -> int:
    for n in range(wanted.shape[0]):
        if n % LOOKUPS_PER_BLOCK == 0:
            prefetch_lookups(t, wanted, n)
        at = bucket_of(t, wanted[n, 0], wanted[n, 1])
        place[n] = signed(t.buckets[at]) - 1
        if place[n] < 0:
            for i in range(2):
                t.digests[count, i] = wanted[n, i]
                contents[count, i] = content[n, i]
            count += 1
            t.buckets[at] = count
    return count
