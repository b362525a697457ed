"""Micro-batches: whatever waits when the last batch is done goes into the next one. No timer, so no idle wait.

One worker thread takes batches through `Replica.process`, in order of arrival, which is journal order. It takes what
waits by itself, so that it never waits for an event loop that is busy with callers. The loop reads requests, answers
probes, and watches deadlines: a worker that hangs, on a disk or a kernel, keeps nobody waiting beyond them.
"""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from serve.problems import Problem
from serve.replica.pace import Pace

log = logging.getLogger("ringwatch")
Call = TypeVar("Call")
Outcome = TypeVar("Outcome")
QUIET_S = 0.02  # without a call: time for what nobody waits for
HURRIED_S = 1.0
BUSY_BATCHES = 64  # after so many without a quiet moment it is done all the same


@dataclass(slots=True, eq=False)
class _Entry(Generic[Call, Outcome]):
    call: Call
    rows: int
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Outcome | Problem]"
    until: float  # on `time.monotonic`
    timed: bool = True  # its time says how long payments take
    taken: bool = False  # its batch has begun


class Batcher(Generic[Call, Outcome]):
    """Collects calls and hands them to `process` in batches.

    Args:
        process: Takes the calls of a batch to their outcomes, in order; runs in the worker thread.
        batch_rows: Work of one batch, at most, unless a single call is larger.
        queue_rows: Work that may wait, whatever its callers would put up with: a bound on memory.
        idle: Called in the worker thread when no call has come for a moment, and now and then when they never cease.
        late: Called in the event loop with a call that was processed after its caller had been told that it is late.
    """

    def __init__(
        self,
        process: Callable[[Sequence[Call]], Sequence[Outcome | Problem]],
        batch_rows: int = 4096,
        queue_rows: int = 20_000,
        idle: Callable[[], None] = lambda: None,
        late: Callable[[Call], None] = lambda _: None,
    ) -> None:
        self._process, self._idle, self._late = process, idle, late
        self._batch_rows, self._queue_rows = batch_rows, queue_rows
        self._lock = threading.Lock()  # of what waits, and of whether the worker is awake
        self._waiting: deque[_Entry[Call, Outcome]] = deque()
        self._bulk: deque[_Entry[Call, Outcome]] = deque()  # parts of large calls: one goes with each batch
        self._rows = 0  # that wait, those of the bulk left out
        self._bulk_rows = 0
        self._awake = False  # the worker has a batch, or is about to
        self._hand: tuple[float, int] | None = None  # when the batch in hand began, and its rows
        self._pace = Pace()
        self._last_small = -math.inf  # when a call came that is no part of a large one
        self._bell: SimpleQueue[bool] = SimpleQueue()  # True wakes the worker, False ends it
        self._thread = threading.Thread(target=self._work, name="ringwatch-batch", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Rows that wait."""
        return self._rows + self._bulk_rows

    @property
    def is_hurried(self) -> bool:
        """Whether calls have come of late that are no parts of large ones."""
        return bool(self._waiting) or time.monotonic() - self._last_small < HURRIED_S

    def rows_within(self, seconds: float) -> int:
        """How many rows a batch can have that takes no longer, as far as can be told."""
        return min(self._pace.rows(seconds), self._batch_rows)

    def expected_s(self, rows: int) -> float:
        """Seconds after which a call of so many rows that came now would be done, as far as can be told."""
        if not self._awake:
            return 0.0  # it is begun at once, whatever was learnt: else nothing better could be learnt
        ahead = 0.0
        if (hand := self._hand) is not None:
            begun, in_hand = hand
            took, usual = time.monotonic() - begun, self._pace.seconds(in_hand)
            ahead = max(usual - took, took - usual)  # one that takes longer than usual may take as long again
        whole, rest = divmod(self._rows + rows, self._batch_rows)
        next_bulk = self._bulk[0].rows if self._bulk else 0
        return ahead + whole * self._pace.seconds(self._batch_rows) + self._pace.seconds(rest + next_bulk)

    def overloaded(self, rows: int, deadline_s: float) -> Problem | None:
        """Why a call cannot be done within its deadline, if it cannot."""
        expected = self.expected_s(rows)
        if expected <= deadline_s and (not self.waiting or self.waiting + rows <= self._queue_rows):
            return None
        wait = str(max(1, math.ceil(min(expected, 60.0))))
        detail = f"{self.waiting:,} payments and labels wait already, and this call could not be done in time"
        return Problem(429, "Overloaded", f"{detail}; nothing was recorded", headers={"Retry-After": wait})

    async def submit(
        self, call: Call, rows: int, deadline_s: float, *, bulk: bool = False, timed: bool = True
    ) -> Outcome:
        """Wait for a call's outcome, but no longer than its deadline.

        Args:
            call: What `process` takes.
            rows: Its work.
            deadline_s: Seconds from now within which it must be done.
            bulk: Whether it is a part of a large call. Of these one goes with each batch, behind all others.
            timed: Whether its time tells how long payments take; not that of labels, or of what is only looked at.

        Raises:
            Problem: 429 at once where it cannot be done in time, 504 at the deadline, or what `process` made of it.
        """
        if not bulk and (problem := self.overloaded(rows, deadline_s)) is not None:
            raise problem
        loop, now = asyncio.get_running_loop(), time.monotonic()
        entry = _Entry(call, rows, loop, loop.create_future(), now + deadline_s, timed)
        with self._lock:
            if bulk:
                self._bulk.append(entry)
                self._bulk_rows += rows
            else:
                self._waiting.append(entry)
                self._rows += rows
                self._last_small = now
            wake, self._awake = not self._awake, True
        if wake:
            loop.call_soon(self._bell.put, True)  # behind what else is ready now, which goes into the same batch
        timer = loop.call_later(deadline_s, _expire, entry)
        try:
            outcome = await entry.future
        finally:
            timer.cancel()
        if isinstance(outcome, Problem):
            raise outcome
        return outcome

    def close(self) -> None:
        """Wait for the batch in hand and let the thread go."""
        self._bell.put(False)
        self._thread.join()

    def _work(self) -> None:
        """The worker thread."""
        batches, rested = 0, True
        while True:
            try:
                if not self._bell.get(timeout=None if rested else QUIET_S):
                    return
            except Empty:
                rested, batches = True, 0
                self._rest()
                continue
            rested = False
            while batch := self._take():
                self._run(batch)
                batches += 1
                if batches >= BUSY_BATCHES:
                    batches = 0
                    self._rest()

    def _run(self, batch: list[_Entry[Call, Outcome]]) -> None:
        """Take a batch through, and tell its callers."""
        rows, begin = sum(entry.rows for entry in batch), time.monotonic()
        self._hand = begin, rows
        settled: list[Outcome | Problem | Exception]
        try:
            settled = list(self._process([entry.call for entry in batch]))
            assert len(settled) == len(batch)
        except Exception as error:
            log.exception("a micro-batch failed")
            settled = [error] * len(batch)
        self._hand = None
        if all(entry.timed for entry in batch):
            self._pace.note(rows, time.monotonic() - begin)
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Entry[Call, Outcome], Outcome | Problem | Exception]]] = {}
        for entry, outcome in zip(batch, settled, strict=True):
            by_loop.setdefault(entry.loop, []).append((entry, outcome))
        for loop, outcomes in by_loop.items():
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._deliver, outcomes)

    def _rest(self) -> None:
        try:
            self._idle()
        except Exception:
            log.exception("what is done at rest failed")

    def _deliver(self, settled: list[tuple[_Entry[Call, Outcome], Outcome | Problem | Exception]]) -> None:
        """In the event loop."""
        for entry, outcome in settled:
            if entry.future.done():  # its caller was told that it is late, or has gone
                if not isinstance(outcome, Exception):
                    self._late(entry.call)
            elif isinstance(outcome, Exception) and not isinstance(outcome, Problem):
                entry.future.set_exception(outcome)
            else:
                entry.future.set_result(outcome)

    def _take(self) -> list[_Entry[Call, Outcome]]:
        """The calls of the next batch; who has gone, or is too late, is dropped with nothing written."""
        batch: list[_Entry[Call, Outcome]] = []
        rows, now = 0, time.monotonic()
        with self._lock:
            while self._waiting and (not batch or rows + self._waiting[0].rows <= self._batch_rows):
                entry = self._waiting.popleft()
                self._rows -= entry.rows
                if not entry.future.done() and now <= entry.until:
                    batch.append(entry)
                    rows += entry.rows
            while self._bulk:
                entry = self._bulk.popleft()
                self._bulk_rows -= entry.rows
                if not entry.future.done() and now <= entry.until:
                    batch.append(entry)
                    break
            self._awake = bool(batch)
        for entry in batch:
            entry.taken = True
        return batch


def _expire(entry: _Entry[Call, Outcome]) -> None:
    """Tell a caller at its deadline that it is late."""
    if not entry.future.done():
        what = "it may be recorded all the same: ask again" if entry.taken else "nothing was recorded"
        entry.future.set_result(Problem(504, "Deadline exceeded", f"not done in time; {what}"))
