"""Micro-batches: whatever waits when the last batch is done goes into the next one. No timer, so no idle wait.

One worker thread takes batches through `Replica.process`, in order of arrival, which is journal order. The event loop
stays free to read requests and answer probes meanwhile. The thread takes batches from a plain queue and hands outcomes
back in one call: an executor, with its futures of futures, would cost a lone payment more.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

from serve.problems import Problem

log = logging.getLogger("ringwatch")
Call = TypeVar("Call")
Outcome = TypeVar("Outcome")
QUIET_S = 0.02  # without a call: time for what nobody waits for
BUSY_BATCHES = 64  # after so many without a quiet moment it is done all the same


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
        idle: Called in the worker thread when no call has come for a moment, and now and then when they never cease.
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
        self._busy = False  # the worker has a batch, or is about to
        self._rest: asyncio.TimerHandle | None = None
        self._inbox: SimpleQueue[tuple[asyncio.AbstractEventLoop, list[_Entry[Call, Outcome]]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="ringwatch-batch", daemon=True)
        self._thread.start()

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
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome | Problem] = loop.create_future()
        self._waiting.append(_Entry(call, rows, time.monotonic() + deadline_s, future))
        self._rows += rows
        if not self._busy:
            self._busy = True
            loop.call_soon(self._next, loop)  # behind what else is ready now, which goes into the same batch
        outcome = await future
        if isinstance(outcome, Problem):
            raise outcome
        return outcome

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give the worker what waits, or let it rest."""
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        batch = self._take()
        self._busy = bool(batch)
        if batch:
            self._inbox.put((loop, batch))
        else:
            self._rest = loop.call_later(QUIET_S, self._inbox.put, (loop, []))

    def _work(self) -> None:
        """The worker thread. An empty batch is a moment of rest."""
        batches = 0
        while (job := self._inbox.get()) is not None:
            loop, batch = job
            if batch:
                settled: list[tuple[_Entry[Call, Outcome], Outcome | Problem | Exception]]
                try:
                    settled = list(zip(batch, self._process([entry.call for entry in batch]), strict=True))
                except Exception as error:
                    settled = [(entry, error) for entry in batch]
                loop.call_soon_threadsafe(self._deliver, loop, settled)
                batches += 1
            if not batch or batches >= BUSY_BATCHES:
                batches = 0
                try:
                    self._idle()
                except Exception:
                    log.exception("what is done at rest failed")

    def _deliver(
        self,
        loop: asyncio.AbstractEventLoop,
        settled: list[tuple[_Entry[Call, Outcome], Outcome | Problem | Exception]],
    ) -> None:
        for entry, outcome in settled:
            if entry.future.done():  # its caller has gone
                continue
            if isinstance(outcome, Exception) and not isinstance(outcome, Problem):
                entry.future.set_exception(outcome)
            else:
                entry.future.set_result(outcome)
        self._next(loop)

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
        if self._rest is not None:
            self._rest.cancel()
        self._inbox.put(None)
        self._thread.join()
