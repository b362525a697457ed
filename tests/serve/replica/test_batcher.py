"""Micro-batches without Ray or HTTP: what waits goes together, in order; who is late or gone leaves nothing behind."""

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from serve.problems import Problem
from serve.replica.batcher import BUSY_BATCHES, Batcher


class Kitchen:
    """Doubles numbers, in batches that a test can hold up."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.idles: list[int] = []  # how many batches there were at each moment of rest
        self.open = threading.Event()
        self.open.set()

    def cook(self, calls: Sequence[int]) -> list[int | Problem]:
        assert self.open.wait(10)
        self.batches.append(list(calls))
        if 13 in calls:
            raise RuntimeError("burnt")
        return [Problem(409, "Conflict", "no fours") if call == 4 else 2 * call for call in calls]

    def rest(self) -> None:
        self.idles.append(len(self.batches))
        if len(self.idles) == 1:
            raise OSError("a moment of rest that fails takes nobody with it")


def run(test: Coroutine[Any, Any, None], batcher: Batcher[int, int]) -> None:
    async def guarded() -> None:
        try:
            await asyncio.wait_for(test, 20)
        finally:
            batcher.close()

    asyncio.run(guarded())


async def started(kitchen: Kitchen, batcher: Batcher[int, int], call: int) -> "asyncio.Task[int]":
    """A first call whose batch is held up, so that what follows waits."""
    kitchen.open.clear()
    task = asyncio.create_task(batcher.submit(call, 1, 10))
    while not batcher.waiting:
        await asyncio.sleep(0)
    while batcher.waiting:
        await asyncio.sleep(0)
    return task


def test_what_waits_goes_together_in_order_up_to_the_size() -> None:
    kitchen = Kitchen()
    batcher = Batcher(kitchen.cook, batch_rows=5)

    async def test() -> None:
        first = await started(kitchen, batcher, 0)
        others = [asyncio.create_task(batcher.submit(i, 2, 10)) for i in (1, 2, 3)]
        large = asyncio.create_task(batcher.submit(9, 50, 10))
        await asyncio.sleep(0)
        assert batcher.waiting == 56
        kitchen.open.set()
        assert await asyncio.gather(first, *others, large) == [0, 2, 4, 6, 18]

    run(test(), batcher)
    assert kitchen.batches == [[0], [1, 2], [3], [9]]


def test_calls_that_come_at_once_are_one_batch() -> None:
    kitchen = Kitchen()
    batcher = Batcher(kitchen.cook)

    async def test() -> None:
        assert await asyncio.gather(*(batcher.submit(i, 1, 10) for i in range(5, 9))) == [10, 12, 14, 16]

    run(test(), batcher)
    assert kitchen.batches == [[5, 6, 7, 8]]


def test_each_gets_its_own_outcome() -> None:
    kitchen = Kitchen()
    batcher = Batcher(kitchen.cook)

    async def test() -> None:
        outcomes = await asyncio.gather(*(batcher.submit(i, 1, 10) for i in (3, 4, 5)), return_exceptions=True)
        assert outcomes[::2] == [6, 10]
        assert isinstance(outcomes[1], Problem)
        assert outcomes[1].status == 409
        burnt = await asyncio.gather(*(batcher.submit(i, 1, 10) for i in (13, 6)), return_exceptions=True)
        assert [type(outcome) for outcome in burnt] == [RuntimeError, RuntimeError]
        assert await batcher.submit(7, 1, 10) == 14  # a batch that failed takes no other with it

    run(test(), batcher)


def test_who_is_late_gone_or_too_many_is_never_processed() -> None:
    kitchen = Kitchen()
    batcher = Batcher(kitchen.cook, queue_rows=3)

    async def test() -> None:
        first = await started(kitchen, batcher, 0)
        late = asyncio.create_task(batcher.submit(1, 1, 0.01))
        gone = asyncio.create_task(batcher.submit(2, 1, 10))
        patient = asyncio.create_task(batcher.submit(3, 1, 10))
        await asyncio.sleep(0.05)
        with pytest.raises(Problem) as turned_away:
            await batcher.submit(5, 1, 10)
        assert turned_away.value.status == 429
        assert turned_away.value.headers == {"Retry-After": "1"}
        gone.cancel()
        kitchen.open.set()
        assert await first == 0
        assert await patient == 6
        with pytest.raises(Problem) as missed:
            await late
        assert missed.value.status == 504
        assert batcher.waiting == 0
        assert await batcher.submit(8, 50, 10) == 16  # larger than the queue, but alone

    run(test(), batcher)
    assert kitchen.batches == [[0], [3], [8]]


def test_it_rests_when_it_is_quiet() -> None:
    kitchen = Kitchen()
    batcher = Batcher(kitchen.cook, idle=kitchen.rest)

    async def test() -> None:
        for _ in range(3):
            assert await batcher.submit(1, 1, 10) == 2
            while len(kitchen.idles) < len(kitchen.batches):
                await asyncio.sleep(0.005)

    run(test(), batcher)
    assert kitchen.idles == [1, 2, 3]


def test_it_rests_now_and_then_where_it_is_never_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.replica.batcher.QUIET_S", 60)
    kitchen = Kitchen()
    batcher = Batcher(kitchen.cook, idle=kitchen.rest)

    async def test() -> None:
        for _ in range(2 * BUSY_BATCHES + 1):
            await batcher.submit(1, 1, 10)

    run(test(), batcher)
    assert kitchen.idles == [BUSY_BATCHES, 2 * BUSY_BATCHES]
