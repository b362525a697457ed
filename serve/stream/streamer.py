"""Payments and labels from a stream into the journal, and answers out.

A message is dealt with in an order from which any crash can be gone on: first it is in the journal, then its answer is
with the broker, then the source is told. What is not confirmed is delivered again, to this process or to another one.
That has no effect a second time: a payment has one id and is in the journal once, wherever it is sent from. Its answer
is the one that was given, and goes out again only because the source was not told that it had gone out.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from data.errors import DataError
from serve.errors import ServeError
from serve.http.wire import arrow_bytes
from serve.problems import Problem
from serve.replica.admission import Call, ScoreCall
from serve.replica.replica import Replica
from serve.stream.messages import call_of
from serve.stream.source import Answered, DeadLetter, Received, Source, StreamError

log = logging.getLogger("ringwatch")
MESSAGES: Final = 512  # of one commit
WAIT_S: Final = 0.1  # for messages, before the journal is looked at
RETRY_S: Final = 1.0  # after a journal or a broker failed
_PASSING: Final = (429, 503, 504)  # a message is as good as before: it is tried again


class StreamMetrics:
    """What an operator watches, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.messages = Counter("ringwatch_stream_messages", "Messages dealt with", registry=self.registry)
        self.rows = Counter(
            "ringwatch_stream_rows", "Payments and labels recorded or repeated", ["kind"], registry=self.registry
        )
        self.answers = Counter("ringwatch_stream_answers", "Answers confirmed by the broker", registry=self.registry)
        self.dead = Counter(
            "ringwatch_stream_dead_letters", "Messages that could not be taken", ["why"], registry=self.registry
        )
        self.retries = Counter(
            "ringwatch_stream_retries", "Batches tried again, by what failed", ["what"], registry=self.registry
        )
        self.lag = Gauge("ringwatch_stream_lag", "Messages that wait in the source", registry=self.registry)
        self.seconds = Histogram(
            "ringwatch_stream_batch_seconds",
            "From a batch's messages to its confirmation",
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5),
            registry=self.registry,
        )


class Streamer:
    """Takes messages from a source through a replica, one batch at a time; for one thread.

    Args:
        replica: Opened.
        source: Where messages come from and answers go.
        reasons: Whether answers to JSON say why.
        metrics: What is counted.

    Examples:
        >>> streamer = Streamer(replica, KafkaSource("kafka://localhost:9092/payments", "answers"))  # doctest: +SKIP
        >>> streamer.step()  # doctest: +SKIP
        512
    """

    def __init__(
        self, replica: Replica, source: Source, *, reasons: bool = True, metrics: StreamMetrics | None = None
    ) -> None:
        self.replica, self.source, self.metrics = replica, source, metrics or StreamMetrics()
        self._reasons = reasons
        self._pending: list[Received] = []  # read, and not confirmed

    def run(self, stopped: Callable[[], bool]) -> None:
        """Go on until `stopped` says so; what fails is tried again.

        Raises:
            ServeError: The replica lost its place in the journal: start the stream anew.
        """
        while not stopped():
            try:
                self.step()
            except (StreamError, DataError) as error:
                self.metrics.retries.labels("broker" if isinstance(error, StreamError) else "journal").inc()
                log.warning("%s; tried again in %s s", error, RETRY_S)
                time.sleep(RETRY_S)

    def step(self) -> int:
        """Deal with one batch; returns how many messages it had.

        Raises:
            StreamError: The broker failed. Call it again: the same messages are taken once more.
            DataError: As well, for the journal.
            ServeError: The replica lost its place in the journal.
        """
        if self.replica.unhealthy:
            raise ServeError(self.replica.unhealthy)
        if not self._pending:
            self._pending = self.source.read(MESSAGES, WAIT_S)
            self.metrics.lag.set(self.source.lag())
        if not self._pending:
            self.replica.follow()
            return 0
        with self.metrics.seconds.time():
            answers, dead = self._take(self._pending)
            self.replica.idle()  # the answers are kept before they go out: a repeat gets the same
            self.source.send(answers, dead)
            self.source.confirm(self._pending)
        self.metrics.messages.inc(done := len(self._pending))
        self.metrics.answers.inc(len(answers))
        for letter in dead:
            self.metrics.dead.labels(letter.reason.partition(":")[0]).inc()
        self._pending = []
        return done

    def close(self) -> None:
        """Let go of the source; what was not confirmed is delivered again."""
        self.source.close()

    def _take(self, messages: Sequence[Received]) -> tuple[list[Answered], list[DeadLetter]]:
        calls: list[Call] = []
        places: list[Received] = []
        dead: list[DeadLetter] = []
        for message in messages:
            try:
                future = self.replica.settings.max_future_s
                calls.append(call_of(message.value, reasons=self._reasons, max_future_s=future))
                places.append(message)
            except Problem as problem:
                dead.append(_dead(message, problem))
        answers: list[Answered] = []
        for message, call, outcome in zip(places, calls, self.replica.process(calls) if calls else [], strict=True):
            if isinstance(outcome, Problem):
                if outcome.status in _PASSING:
                    raise StreamError(f"{message.place}: {outcome.detail}")
                dead.append(_dead(message, outcome))
            elif isinstance(call, ScoreCall):
                answers += _answers(call, outcome)
                self.metrics.rows.labels("payment").inc(len(call.batch))
            else:
                self.metrics.rows.labels("label").inc(sum(outcome.values()))
        return answers, dead


def _answers(call: ScoreCall, outcome: Any) -> list[Answered]:
    if call.table:
        return [Answered(None, arrow_bytes(outcome))]
    ids = call.batch.column("transaction_id").to_pylist()
    return [Answered(name, body) for name, body in zip(ids, outcome, strict=True)]


def _dead(message: Received, problem: Problem) -> DeadLetter:
    log.warning("%s goes to the dead letters: %s: %s", message.place, problem.title, problem.detail)
    return DeadLetter(message, f"{problem.title}: {problem.detail}")
