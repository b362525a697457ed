"""One typed way to compile a kernel and to run it over many rows."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np

F = TypeVar("F", bound=Callable[..., Any])
CHUNK = 512  # rows a thread takes at a time


def _cache_folder() -> str:
    """Where machine code is kept: a folder for each state of the kernels' sources.

    Numba compiles a callee into its caller but looks only at the caller's file to tell whether its cache is stale.
    """
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for source in sorted([*root.glob("graph/*.py"), *root.glob("gnn/*.py")]):
        digest.update(source.read_bytes())
    return str(root / "var" / "numba" / digest.hexdigest()[:16])


if "NUMBA_CACHE_DIR" not in os.environ:
    numba.config.CACHE_DIR = _cache_folder()


def jit() -> Callable[[F], F]:
    """Compile a function with Numba: no Python objects, no GIL, machine code cached on disk.

    No `fastmath`: the order of summation is part of a score, which must not depend on the batch it came in.
    """
    compiled: Callable[[F], F] = numba.njit(cache=True, nogil=True, error_model="numpy")
    return compiled


@jit()
def signed(n: Any) -> int:
    """A number of any width as int64: Numba subtracts unsigned ones round zero, and mixes them to floats."""
    wide: Any = np.int64(n)
    return wide


def chunked(run: Callable[[int, int], object], n: int, threads: int | None = None) -> None:
    """Call `run(start, stop)` over [0, n) in chunks, on several threads where that pays.

    The kernels hold no GIL, so plain threads are enough; a micro-batch runs on the calling thread, with no hand-over.

    Args:
        run: Writes its own part of the result; parts must not depend on each other.
        n: Rows.
        threads: Threads to use; by default one for each core.
    """
    threads = threads or len(os.sched_getaffinity(0))
    starts = range(0, n, CHUNK)
    if len(starts) < 2 or threads == 1:
        run(0, n)
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(run, start, min(n, start + CHUNK)) for start in starts]:
            done.result()
