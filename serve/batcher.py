"""Micro-batches: whatever waits when the last batch is done goes into the next one. No timer, so no idle wait.

One worker thread takes batches through the house, in order of arrival, which is journal order. The event loop stays
free to read requests and answer probes meanwhile.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from serve.problems import Problem

Call = TypeVar("Call")
Outcome = TypeVar("Outcome")


@dataclass
class _Entry(Generic[Call, Outcome]):
    call: Call
    rows: int
    deadline: float  # on `time.monotonic`
    future: "asyncio.Future[Outcome | Problem]"


class Batcher(Generic[Call, Outcome]):
    """Collects calls and hands them to `process` in batches.

    Args:
        process: Takes the calls of a batch to their outcomes, in order; runs in the worker thread.
        batch_rows: Work of one batch, at most, unless a single call is larger.
        queue_rows: Work that may wait; more is turned away at once.
        idle: Called in the worker thread when nothing waits.
    """

    def __init__(
        self,
        process: Callable[[Sequence[Call]], Sequence[Outcome | Problem]],
        batch_rows: int = 4096,
        queue_rows: int = 20_000,
        idle: Callable[[], None] = lambda: None,
    ) -> None:
        self._process, self._idle = process, idle
        self._batch_rows, self._queue_rows = batch_rows, queue_rows
        self._waiting: deque[_Entry[Call, Outcome]] = deque()
        self._rows = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ringwatch-batch")
        self._running: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Rows that wait."""
        return self._rows

    async def submit(self, call: Call, rows: int, deadline_s: float) -> Outcome:
        """Wait for a call's outcome.

        Args:
            call: What `process` takes.
            rows: Its work.
            deadline_s: Seconds from now after which it must not be begun.

        Raises:
            Problem: 503 where too much waits, 504 where the deadline passed before its batch began, or what `process`
                made of the call.
        """
        if self._rows and self._rows + rows > self._queue_rows:
            raise Problem(503, "Overloaded", f"{self._rows:,} payments wait already", headers={"Retry-After": "1"})
        future: asyncio.Future[Outcome | Problem] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Entry(call, rows, time.monotonic() + deadline_s, future))
        self._rows += rows
        if self._running is None:
            self._running = asyncio.create_task(self._drain())
        outcome = await future
        if isinstance(outcome, Problem):
            raise outcome
        return outcome

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch = self._take()
                if not batch:
                    continue
                try:
                    outcomes = await loop.run_in_executor(self._thread, self._process, [e.call for e in batch])
                except Exception as error:
                    for entry in batch:
                        if not entry.future.done():
                            entry.future.set_exception(error)
                    continue
                for entry, outcome in zip(batch, outcomes, strict=True):
                    if not entry.future.done():
                        entry.future.set_result(outcome)
                if not self._waiting:
                    await loop.run_in_executor(self._thread, self._idle)
        finally:
            self._running = None

    def _take(self) -> list[_Entry[Call, Outcome]]:
        """The calls of the next batch; who has gone, or is too late, is dropped with nothing written."""
        batch: list[_Entry[Call, Outcome]] = []
        rows, now = 0, time.monotonic()
        while self._waiting and (not batch or rows + self._waiting[0].rows <= self._batch_rows):
            entry = self._waiting.popleft()
            self._rows -= entry.rows
            if entry.future.done():
                continue
            if now > entry.deadline:
                late = Problem(504, "Deadline exceeded", "the deadline passed in the queue; nothing was recorded")
                entry.future.set_result(late)
                continue
            batch.append(entry)
            rows += entry.rows
        return batch

    def close(self) -> None:
        """Wait for the batch in hand and let the thread go."""
        self._thread.shutdown()
