"""Work shared among threads that stay: all of it is done once, errors come out, nobody waits for a busy thread."""

import itertools
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from data import jit

N = 10_000


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """More threads than cores: orders in which they come are then many."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    jit._thread_pool.cache_clear()  # the threads of so many


def counting() -> tuple[np.ndarray, Callable[[int, int], None]]:
    done = np.zeros(N, np.int64)

    def run(start: int, stop: int) -> None:
        done[start:stop] += 1

    return done, run


@pytest.mark.parametrize("threads", [1, 2, 4, 32])
@pytest.mark.parametrize("chunk", [1, 7, 4096, N])
def test_every_row_is_done_once(threads: int, chunk: int) -> None:
    done, run = counting()
    jit.chunked(run, N, threads, chunk)
    assert (done == 1).all()


def test_chunks_inside_of_chunks_wait_for_nobody() -> None:
    done, run = counting()
    jit.chunked(lambda i, j: jit.chunked(lambda a, b: run(i + a, i + b), j - i, 4, 1), N, 4, 100)
    assert (done == 1).all()


@pytest.mark.parametrize("threads", [2, 4])
def test_an_error_comes_out_after_all_threads_have_stopped(threads: int) -> None:
    for bad in range(2 * jit.CHUNKS_PER_THREAD):
        calls, done = itertools.count(), []

        def run(start: int, stop: int, bad: int = bad, calls: Any = calls, done: list[int] = done) -> None:
            if next(calls) == bad:
                raise ValueError("one of them")
            done.append(start)

        with pytest.raises(ValueError, match="one of them"):
            jit.chunked(run, N, threads, 50)
        seen = len(done)
        time.sleep(0.002)
        assert len(done) == seen


def test_beside_does_both_wherever_it_is_called_from() -> None:
    done, run = counting()
    other, count = counting()

    def both(start: int, stop: int) -> None:
        found = jit.run_concurrently(lambda: run(start, stop) or stop, lambda: count(start, stop), N)
        assert found == stop

    jit.chunked(both, N, 4, 100)  # the other threads are taken: whoever calls does both
    assert (done == 1).all()
    assert (other == 1).all()


@pytest.mark.parametrize("first", [True, False])
def test_beside_raises_what_either_raises_once_both_have_stopped(first: bool) -> None:
    begun, ended = threading.Event(), threading.Event()

    def fail() -> None:
        assert begun.wait(10)
        raise ValueError("failed")

    def slow() -> None:
        begun.set()
        time.sleep(0.05)
        ended.set()

    with pytest.raises(ValueError, match="failed"):
        jit.run_concurrently(fail if first else slow, slow if first else fail, N)
    assert ended.is_set()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own() -> None:
    def threads_used() -> int:
        used = set()

        def run(start: int, stop: int) -> None:
            used.add(threading.get_ident())
            time.sleep(0.01)

        jit.chunked(run, N, 4, 1)
        return len(used)

    assert threads_used() > 1
    child = os.fork()
    if child == 0:
        os._exit(0 if threads_used() > 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
