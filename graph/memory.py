"""Memory for arrays that grow to a known bound: taken page by page on first use, in huge pages where there are any.

A random read in a store of many gigabytes misses the processor's page table cache (TLB) as well as its data caches;
with pages of 2 MiB the TLB misses go away.
"""

import mmap
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

T = TypeVar("T", bound=np.generic)

_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Linux's value; the name came to Python later than 3.11


@dataclass(frozen=True)
class ArrayPart:
    """An array of the graph, as a snapshot keeps it.

    Attributes:
        array: Whole, unused capacity included.
        used: Items along `axis` that are in use; the rest is zeros.
        axis: 0, or 1 for an array [layers, items, ...].
    """

    array: NDArray[Any]
    used: int
    axis: int = 0


def reserve(shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """A zeroed array that costs addresses only, until it is written to; it begins on a page.

    Args:
        shape: Of the array.
        dtype: Of the array; records too.

    Returns:
        The array; its memory goes with the last view of it.
    """
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if size == 0:
        return np.zeros(shape, dtype)
    room = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE)
    room.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(room, dtype).reshape(shape)


def grown(array: NDArray[T], size: int) -> NDArray[T]:
    """The array, or a copy of at least twice its length, the rest zeros, if it is shorter than `size`."""
    if size <= len(array):
        return array
    # Not `empty`: what the memory held before, perhaps names, would stay in padding of records and reach snapshots.
    larger = np.zeros((max(size, 2 * len(array)), *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger
