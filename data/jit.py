"""One typed way to compile a kernel and to run it over many rows."""

import hashlib
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R")
MIN_ROWS_PER_CHUNK = 512  # fewer rows are not worth another thread
CHUNKS_PER_THREAD = 4  # where there are many rows: a thread that is held up takes fewer of them
MIN_ROWS_FOR_SECOND_THREAD = 4096  # with fewer, starting a thread costs more than it saves


def sources_digest(root: Path) -> str:
    """A digest of every module that a kernel may be compiled from, under the checkout or site-packages `root`.

    Numba compiles a callee into its caller but looks only at the caller's file to tell whether its cache is stale. So
    machine code is kept in a folder for each state of all sources, in folders within folders too, names included.
    """
    digest = hashlib.sha256()
    for package in ("data", "graph", "gnn"):
        for source in sorted((root / package).rglob("*.py")):
            digest.update(f"{source.relative_to(root).as_posix()}\n".encode() + source.read_bytes())
    return digest.hexdigest()[:16]


if "NUMBA_CACHE_DIR" not in os.environ:
    _root = Path(__file__).resolve().parents[1]
    numba.config.CACHE_DIR = str(_root / "var" / "numba" / sources_digest(_root))


def jit(*, inline: bool = False) -> Callable[[F], F]:
    """Compile a function with Numba: no Python objects, no GIL, machine code cached on disk.

    No `fastmath`: the order of summation is part of a score, which must not depend on the batch it came in.

    Args:
        inline: Always put into its callers. For small helpers: a call counts references of every array it hands over.
    """
    # A helper without Numba's runtime counts no references: counting those of every array at each call took most of its
    # time. It may not make arrays, which what is put into its callers has no need to.
    options = {"_nrt": False} if inline else {}
    compiled: Callable[[F], F] = numba.njit(cache=True, nogil=True, error_model="numpy", forceinline=inline, **options)
    return compiled


@intrinsic
def prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Start to load `array[index]` (in range) into the processor's cache, without waiting for it.

    What a loop prefetches some steps ahead arrives while it works on other rows, so cache misses overlap; a loop that
    waits for each miss leaves most of the memory's bandwidth unused. Lines go into the second level of the cache: the
    first can have fewer loads under way. On a Zen 4 a random read of 64 bytes takes 5.9 ns this way and 9.6 ns through
    the first level; with 3 ns of work between reads, 7.6 and 13.8 ns.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array_type, index_type = signature.args
        at = context.cast(builder, arguments[1], index_type, types.intp)
        held = context.make_array(array_type)(context, builder, arguments[0])
        pointer = cgutils.get_item_pointer(
            context, builder, array_type, held, [at], wraparound=False, boundscheck=False
        )
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        # For reading, into the second cache (3 would be the first), and data rather than code.
        builder.call(function, [builder.bitcast(pointer, byte), number(0), number(1), number(1)])
        return context.get_dummy_value()

    return types.void(array, index), generate


@intrinsic
def word_at(typing_context: Any, octets: Any, at: Any) -> Any:
    """The eight bytes `octets[at : at + 8]` (in range, side by side) as one little-endian uint64, in one load."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array_type, index_type = signature.args
        place = context.cast(builder, arguments[1], index_type, types.intp)
        held = context.make_array(array_type)(context, builder, arguments[0])
        pointer = cgutils.get_item_pointer(
            context, builder, array_type, held, [place], wraparound=False, boundscheck=False
        )
        return builder.load(builder.bitcast(pointer, ir.IntType(64).as_pointer()), align=1)

    return types.uint64(octets, at), generate


@intrinsic
def to_float32(typing_context: Any, value: Any) -> Any:
    """A number as float32, exactly; an unsigned 16-bit number as the half-precision number whose bits it holds.

    Numba has no half precision on the CPU. Exponent and fraction are shifted to their places in a float32, and a
    multiplication by 2^112 corrects the exponent's bias: exact for every finite number, subnormal ones included.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (kind,) = signature.args
        if kind != types.uint16:
            return context.cast(builder, arguments[0], kind, types.float32)
        word, single = ir.IntType(32), ir.FloatType()
        bits = builder.zext(arguments[0], word)
        magnitude = builder.shl(builder.and_(bits, word(0x7FFF)), word(13))
        scaled = builder.fmul(builder.bitcast(magnitude, single), ir.Constant(single, 2.0**112))
        sign = builder.shl(builder.and_(bits, word(0x8000)), word(16))
        return builder.bitcast(builder.or_(builder.bitcast(scaled, word), sign), single)

    return types.float32(value), generate


@jit(inline=True)
def signed(n: Any) -> int:
    """A number of any width as int64: in Numba unsigned ones wrap at zero, and mixed with signed ones become floats."""
    wide: Any = np.int64(n)
    return wide


@cache
def _thread_pool() -> ThreadPoolExecutor:
    """Threads that stay, one for each core beside the caller's: to start one takes as long as hundreds of walks."""
    return ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0)) - 1), "ringwatch")


os.register_at_fork(after_in_child=_thread_pool.cache_clear)  # a child has none of its parent's threads


def chunked(
    run: Callable[[int, int], object], n: int, threads: int | None = None, min_rows: int = MIN_ROWS_PER_CHUNK
) -> None:
    """Call `run(start, stop)` over [0, n) in chunks, on several threads where that pays.

    The kernels hold no GIL, so plain threads are enough, the calling one among them; a micro-batch runs on that one
    alone, with no hand-over. The caller takes chunks from the front and the others from the back: whoever is free takes
    more, and yet a result that is written again and again stays in the cache of the core that writes it.

    Args:
        run: Writes its own part of the result; parts must not depend on each other.
        n: Rows.
        threads: Threads to use; by default one for each core, and never more.
        min_rows: Rows below which another thread costs more than it saves.
    """
    if n <= min_rows:  # a micro-batch does not even ask how many cores there are
        run(0, n)
        return
    threads = threads or len(os.sched_getaffinity(0))
    if threads == 1:
        run(0, n)
        return
    size = max(min_rows, -(-n // (CHUNKS_PER_THREAD * threads)))
    starts = deque(range(0, n, size))

    def work(take: Callable[[], int]) -> None:
        while True:
            try:
                start = take()
            except IndexError:
                return
            run(start, min(n, start + size))

    others = [_thread_pool().submit(work, starts.pop) for _ in range(threads - 1)]
    try:
        work(starts.popleft)
    finally:
        starts.clear()  # where a chunk failed
        begun = [other for other in others if not other.cancel()]
        failed = [error for other in begun if (error := other.exception()) is not None]  # waits for it
    for error in failed:
        raise error


def run_concurrently(run: Callable[[], R], other: Callable[[], object], n: int) -> R:
    """Call two functions that do not depend on each other, side by side where there are many rows and a second core.

    Args:
        run: On the calling thread; its result is returned. Where it is `chunked`, the other thread helps when done.
        other: On another thread; what it raises is raised here.
        n: Rows: for few, a thread costs more than it saves.
    """
    if n <= MIN_ROWS_FOR_SECOND_THREAD or len(os.sched_getaffinity(0)) == 1:
        found = run()
        other()
        return found
    begun = _thread_pool().submit(other)
    try:
        found = run()
    finally:
        error = None if begun.cancel() else begun.exception()  # waits for it
    if begun.cancelled():  # all threads had other work to the end
        other()
    if error is not None:
        raise error
    return found
