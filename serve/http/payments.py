"""Scores and labels over HTTP: every call inside its budget, large ones in parts between the others' micro-batches."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from data.schema import TRANSACTION_SCHEMA, content_hashes
from serve.http.budget import Budget
from serve.http.metrics import ServiceMetrics
from serve.http.wire import Payment, batch_of, given_of, parse, refuse_future, refuse_future_moment
from serve.problems import Problem
from serve.replica.admission import Call, CheckCall, LabelCall, OutcomeCall, ScoreCall
from serve.replica.batcher import Batcher
from serve.replica.conflicts import conflict, within
from serve.replica.replica import Replica
from serve.settings import Settings

log = logging.getLogger("ringwatch")
IN_TIME = (429, 503, 504)  # what becomes of a call that cannot be served in time, or not now
PART_S, QUIET_PART_S = 0.008, 0.025  # a part of a large call may take so long while others call, and while none does
SMALLEST, LARGEST = 16, 4096  # rows of such a part
REASONS_COST = 4  # a payment whose reasons are asked for takes about so many times as long
CHECKED = 1024  # rows of a part that is only looked at
CHECK_COST = 32  # so many of these take about as long as one that is scored
RESENT_S = 60.0
ADMITTED = 0.7  # of the time left, that scoring may be expected to take
BUSY_LAG_S = 0.005  # of the event loop, above which nothing is done for one caller that others would wait for
LAG_LOOK_S, CLOCK_S = 0.005, 0.002  # between looks at the loop's lag, and what its clock is off by itself


class LoopLag:
    """How late an event loop is: for so long a request lies in a socket before anybody looks at it.

    Attributes:
        seconds: Of the last two looks, the larger.
    """

    def __init__(self) -> None:
        self.seconds = self._last = 0.0

    async def watch(self) -> None:
        """Look every few milliseconds, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_LOOK_S
            await asyncio.sleep(LAG_LOOK_S)
            late = max(0.0, loop.time() - due - CLOCK_S)
            self.seconds, self._last = max(late, self._last), late


@dataclass
class PaymentDesk:
    """Takes payments and labels from routes to a replica and back.

    Attributes:
        settings: The service's.
        replica: Who scores.
        batcher: In front of it.
        metrics: What is counted.
        lag: Of the event loop.
    """

    settings: Settings
    replica: Replica
    batcher: "Batcher[Call, Any]"
    metrics: ServiceMetrics
    lag: "LoopLag"

    async def score_one(self, payment: Payment, budget: Budget) -> bytes:
        """The answer to one payment, as `score`; where there are too many it costs next to nothing.

        Raises:
            Problem: As `score`.
        """
        problem = self.overloaded(budget) if self.replica.ready and not budget.strict else None
        if problem is not None:
            return self.answer_at_once(payment, problem)
        refuse_future_moment(payment.timestamp, "timestamp", self.settings.max_future_s)
        call = ScoreCall(batch_of([payment], TRANSACTION_SCHEMA), given=given_of([payment]))
        try:
            refuse_unready(self.replica)
            bodies: list[bytes] = await self.batcher.submit(call, 1, budget.left_s)
        except Exception as error:
            problem = _served_by_rules(error, budget)
            if self.lag.seconds > BUSY_LAG_S:  # rules from the graph would make it later still
                return self.answer_at_once(payment, problem)
            bodies = self._by_rules(call, problem.title)
        return bodies[0]

    def overloaded(self, budget: Budget) -> Problem | None:
        """Why one payment cannot be scored in time, if it cannot. What it waited to be looked at counts."""
        # The answer has to get out as well: it will wait for the loop as long as the request has.
        return self.batcher.overloaded(1, ADMITTED * (budget.left_s - 2 * self.lag.seconds))

    def answer_at_once(self, payment: Payment, problem: Problem) -> bytes:
        """The answer to a payment that cannot be scored in time: by rules, and next to nothing in cost.

        Raises:
            Problem: The payment is of a moment that is still to come.
        """
        refuse_future_moment(payment.timestamp, "timestamp", self.settings.max_future_s)
        self.metrics.count_unrecorded(problem.title, 1)
        return self.replica.rules.answer_request(
            payment.transaction_id,
            payment.amount,
            payment.currency,
            payment.decision_given,
            lambda: content_hashes(batch_of([payment], TRANSACTION_SCHEMA))[0],
            payment.mandate_id,
        )

    async def score(self, call: ScoreCall, budget: Budget) -> Any:
        """Bodies, or a table, for payments: by the model if that can be had in time, else by rules.

        Raises:
            Problem: The call is refused; where the budget is strict, also because it cannot be served in time.
        """
        refuse_future(call.batch, "timestamp", self.settings.max_future_s)
        try:
            refuse_unready(self.replica)
            if len(call.batch) > SMALLEST:
                return await self._in_parts(call, budget)
            return await self.batcher.submit(call, len(call.batch), budget.left_s)
        except Exception as error:
            return self._by_rules(call, _served_by_rules(error, budget).title)

    async def report(self, call: LabelCall | OutcomeCall, budget: Budget) -> dict[str, int]:
        """Counts of what was done with labels or outcomes.

        Raises:
            Problem: The call is refused, or cannot be served in time.
        """
        moment = "reported_at" if isinstance(call, LabelCall) else "at"
        refuse_future(call.batch, moment, self.settings.max_future_s)
        refuse_unready(self.replica)
        if len(call.batch) <= CHECKED:
            done: dict[str, int] = await self.batcher.submit(call, _cost(len(call.batch)), budget.left_s, timed=False)
            return done
        await self._check(call, budget)
        total: dict[str, int] = {}
        for start in range(0, len(call.batch), CHECKED):
            part = replace(call, batch=call.batch.slice(start, CHECKED))
            cost = _cost(len(part.batch))
            counts = await self.batcher.submit(part, cost, budget.left_s, bulk=True, timed=False)
            for what, count in counts.items():
                total[what] = total.get(what, 0) + count
        return total

    def resend(self, call: Call) -> None:
        """See to it that decisions given for a call that was recorded after all are recorded as well."""
        if isinstance(call, ScoreCall) and len(self.replica.given):
            names = call.batch.column("transaction_id").to_pylist()
            hashes = call.hashes or content_hashes(call.batch)
            given = [self.replica.given.of(name, content) for name, content in zip(names, hashes, strict=True)]
            if any(given):
                again = replace(call, given=given, table=False, hashes=hashes)
                sending = asyncio.ensure_future(self.batcher.submit(again, len(names), RESENT_S, bulk=True))
                sending.add_done_callback(_note_failure)

    async def _in_parts(self, call: ScoreCall, budget: Budget) -> Any:
        """A large call: looked at as a whole, then recorded and scored part by part; what is late, by rules."""
        hashes = await asyncio.to_thread(content_hashes, call.batch)
        call = replace(call, hashes=hashes)
        _refuse_contradictions(call)
        await self._check(call, budget)
        found: list[Any] = []
        problem: Problem | None = None
        async for part in self._parts(call):
            if problem is None:
                try:
                    found.append(await self.batcher.submit(part, len(part.batch), budget.left_s, bulk=True))
                    continue
                except Problem as error:
                    if budget.strict or error.status not in IN_TIME:
                        raise
                    problem = error
            found.append(self._by_rules(part, problem.title))
        return pa.concat_tables(found) if call.table else [body for bodies in found for body in bodies]

    async def _parts(self, call: ScoreCall) -> AsyncIterator[ScoreCall]:
        at, n = 0, len(call.batch)
        while at < n:
            rows = self.batcher.rows_within(PART_S if self.batcher.is_hurried else QUIET_PART_S)
            rows = min(max(rows // (REASONS_COST if call.reasons and not call.table else 1), SMALLEST), LARGEST)
            yield replace(
                call,
                batch=call.batch.slice(at, rows),
                hashes=call.hashes[at : at + rows],
                given=call.given[at : at + rows],
            )
            at += rows

    async def _check(self, call: ScoreCall | LabelCall | OutcomeCall, budget: Budget) -> None:
        """Refuse a large call as a whole, before any of it is recorded."""
        for start in range(0, len(call.batch), CHECKED):
            part = replace(call, batch=call.batch.slice(start, CHECKED))
            if isinstance(part, ScoreCall):
                part = replace(part, hashes=part.hashes[start : start + CHECKED])
            try:
                cost = _cost(len(part.batch))
                await self.batcher.submit(CheckCall(part), cost, budget.left_s, bulk=True, timed=False)
            except Problem as problem:
                raise _of_whole(problem, start) from None

    def _by_rules(self, call: ScoreCall, why: str) -> "list[bytes] | pa.Table":
        self.metrics.count_unrecorded(why, len(call.batch))
        return self.replica.answer_unrecorded(call)


async def score_body(desk: PaymentDesk, body: bytes, deadline: str | None, prefer: str | None) -> bytes:
    """What POST /v1/score does: a body to a body.

    Args:
        desk: Where it goes.
        body: A payment as JSON.
        deadline: Header of that name, if it was sent (`serve.http.budget.DEADLINE`).
        prefer: As well.

    Raises:
        Problem: The payment is refused.
    """
    budget = Budget.of(deadline, prefer, desk.settings.deadline_ms)
    return await desk.score_one(parse(Payment, body), budget)


def refuse_unready(replica: Replica) -> None:
    """Raise where a replica cannot score now.

    Raises:
        Problem: 503, with what it is at.
    """
    if replica.broken:
        raise Problem(503, "Unavailable", "this replica is being replaced", headers={"Retry-After": "1"})
    if not replica.ready:
        detail = f"replaying the journal: {replica.progress()}"
        raise Problem(503, "Not ready", detail, headers={"Retry-After": "1"})


def _served_by_rules(error: Exception, budget: Budget) -> Problem:
    """What kept a call from the model, where it is to be answered by rules.

    Raises:
        Problem: It is not: it is refused for what it is, or its caller wants no answer by rules.
    """
    if not isinstance(error, Problem):
        log.error("a call failed", exc_info=error)
        error = Problem(503, "Failed", "the payment could not be scored; ask again", headers={"Retry-After": "1"})
    if budget.strict or error.status not in IN_TIME:
        raise error
    return error


def _refuse_contradictions(call: ScoreCall) -> None:
    """Refuse a call that holds one id with two contents; parts of it would not notice."""
    seen: dict[str, tuple[int, bytes]] = {}
    for i, (name, content) in enumerate(zip(call.batch.column("transaction_id").to_pylist(), call.hashes, strict=True)):
        first, before = seen.setdefault(name, (i, content))
        if before != content:
            raise conflict(call.batch, [within(call.batch, i, first)], 1)


def _of_whole(problem: Problem, start: int) -> Problem:
    """What is wrong with a part, by the places of the call."""
    errors = []
    for field, reason in problem.errors:
        place, dot, name = field.partition(".")
        # A part of one item names its field alone.
        errors.append((f"{int(place) + start}{dot}{name}" if place.isdigit() else f"{start}.{field}", reason))
    return Problem(problem.status, problem.title, problem.detail, errors, problem.headers)


def _cost(rows: int) -> int:
    return -(-rows // CHECK_COST)


def _note_failure(sending: "asyncio.Future[Any]") -> None:
    if not sending.cancelled() and (error := sending.exception()) is not None:
        log.warning("a decision given before its payment was recorded is not recorded yet: %s", error)
