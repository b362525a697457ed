"""A scoring replica: a follower of the journal that also writes to it, and a model that scores what it writes.

A payment's way through it is `process`: one commit, then graph, scores and answers; one thread, one micro-batch at a
time. What others write to the journal is followed in between (`follow`), so that a payment does not wait for it. What
cannot be answered so in time is answered by rules (`answer_unrecorded`).

Two locks, always taken in this order: `_writing` by whoever moves the journal or the graph forward, `_graph` by whoever
reads or changes the graph or the model. A commit waits for the disk without `_graph`: the graph can be read meanwhile.
"""

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.errors import JournalError
from data.journal.protocol import Journal, Kind
from data.journal.sqlite import SqliteJournal
from data.report import Report, silent
from gnn.model.artifact import Artifact
from gnn.score.reasons import Explanation
from gnn.score.replay import capacity_for, late_capacity
from gnn.score.rules import request_score, rules_score
from graph.errors import GraphError, StaleRings
from graph.rings.protocol import Ring, RingQueries
from graph.state import GraphState
from serve.decide.policy import decide
from serve.problems import Problem
from serve.replica import snapshots
from serve.replica.admission import Admission, Admitted, CheckCall, LabelCall, ScoreCall
from serve.replica.answers import Answers, as_table
from serve.replica.follower import Follower
from serve.replica.kept_answers import KeptAnswers
from serve.replica.slot import MakeScorers, ModelSlot, default_scorers
from serve.replica.unrecorded import GivenDecisions, RuleAnswers
from serve.settings import Settings

log = logging.getLogger("ringwatch")
FILL_ROWS = 64  # payments scored at once in the background: a payment that comes meanwhile waits for no more
FOLLOW_ROWS = 128  # events of others applied at once in the background, for the same reason
Call = ScoreCall | LabelCall | CheckCall


class Replica:
    """Everything one replica holds, without HTTP.

    Args:
        artifact: The model.
        settings: The service's.
        scorers: Makes the scorers over a graph, the preferred first; by default a GPU's where there is one, and the
            CPU's. All share one cache.

    Attributes:
        artifact: The model.
        settings: The service's.
        journal: What is followed and written to.
        follower: The graph, and how far it has come.
        slot: The model, and what it said of each payment.
        ready: Whether the journal has been replayed.
        lag: Events of the journal that were not in the graph when it was last looked at.
        batches: Micro-batches so far.
        scored_by: Payments so far, by who scored them.
        seconds: Time spent so far, by stage.
    """

    def __init__(self, artifact: Artifact, settings: Settings, scorers: MakeScorers | None = None) -> None:
        self.artifact, self.settings = artifact, settings
        self.journal: Journal = SqliteJournal(settings.journal)
        self._capacity = _capacity(artifact, settings)
        self._make_scorers = scorers or default_scorers(settings)
        window = artifact.config.window
        self.follow_with(GraphState(artifact.roles, self._capacity, window, source=self.journal))
        self.ready = False
        self._writing, self._graph = threading.Lock(), threading.Lock()
        self._names = threading.Lock()  # of the journal that names are read from, beside the one that is written
        self._reading: Journal | None = None
        self._kept = KeptAnswers(self.journal)
        self._rules = RuleAnswers(artifact, settings)
        self.lag = 0
        self.batches = 0
        self.scored_by = {"cuda": 0, "cpu": 0, "rules": 0}
        self.seconds = {"commit": 0.0, "graph": 0.0, "score": 0.0}

    def follow_with(self, state: GraphState) -> None:
        """Follow with this graph from now on, as if nothing in it had been scored."""
        self.follower = Follower(self.journal, state)
        named = self.settings.device == "cuda"
        self.slot = ModelSlot(self.artifact, state, self._make_scorers(self.artifact, state), named)

    @property
    def state(self) -> GraphState:
        """The graph."""
        return self.follower.state

    @property
    def unhealthy(self) -> str | None:
        """Why this replica is to be replaced, if it is. One whose GPU failed still answers, from the CPU."""
        if self.follower.broken:
            return "this replica lost its place in the journal"
        if self.slot.lost:
            return "this replica lost its GPU; the CPU answers until it is replaced"
        return None

    @property
    def given(self) -> GivenDecisions:
        """Decisions given for payments that are not known to be recorded."""
        return self._rules.given

    @property
    def broken(self) -> bool:
        """Whether the graph no longer follows the journal."""
        return self.follower.broken

    def progress(self) -> str:
        """How far the replay is, for people."""
        return f"{self.follower.position:,} of {self.journal.end:,} events"

    def open(self, report: Report = silent) -> int:
        """Take up the newest snapshot, replay what the journal holds after it; ready afterwards.

        Returns:
            The offset of the snapshot, 0 without one.
        """
        try:
            restored = snapshots.newest(self.settings, self.artifact, self._capacity, self.journal)
            if restored is not None:
                self.follow_with(restored.state)
                self.slot.adopt(restored.extra, restored.facts)
            begun, end = self.follower.position, max(1, self.journal.end)
            self.slot.warm()
            for _ in self.follower.steps():
                self.slot.score_new()
                report("replaying the journal", self.follower.position / end)
        except Exception:
            self.follower.broken = True
            log.exception("the journal cannot be replayed")
            raise
        self.ready = True
        return begun

    def follow(self, rows: int = FOLLOW_ROWS) -> bool:
        """Take in some of what others have written to the journal meanwhile; for a thread in the background.

        Args:
            rows: Events, at most; a payment that comes meanwhile waits for as many.

        Returns:
            Whether there is more.
        """
        with self._writing:
            if self.follower.broken:
                return False
            self.lag = self.follower.lag()
            if self.lag:
                with self._graph:
                    try:
                        self.lag -= self._catch_up(self.follower.position + min(self.lag, rows))
                    except GraphError:
                        log.exception("the graph cannot follow the journal")
                        return False
                    self.slot.score_new()
            return self.lag > 0

    def fill(self) -> bool:
        """Score some more of the payments that were there before this model, newest first.

        Returns:
            Whether any are left.
        """
        with self._graph:
            return self.slot.fill(FILL_ROWS)

    def process(self, calls: Sequence[Call]) -> list[Any]:
        """Take a micro-batch through: one commit, then graph, scores and answers.

        Returns:
            For each call its bodies (a list of bytes), an Arrow table, a count of labels, None where it only checked,
            or a `Problem`.
        """
        with self._writing:
            return self._process(calls)

    def _process(self, calls: Sequence[Call]) -> list[Any]:
        def refused(reason: str) -> list[Any]:
            return [Problem(503, "Unavailable", reason)] * len(calls)

        if self.follower.broken:
            return refused("this replica lost its place in the journal and is being replaced")
        begin = time.perf_counter()
        try:
            with self.journal.begin() as commit:
                with self._graph:
                    # What others wrote comes first, while nobody else may write: what is believed rests on it.
                    self._catch_up(commit.end)
                    admission = Admission(commit, self._believed, self.given.of)
                    outcomes = [admission.take(call) for call in calls]
                admission.outcomes(*self._kept.unsettled(outcomes))
                admission.append()
        except JournalError as error:
            log.error("journal: %s", error)
            return refused("the journal cannot be written; nothing was recorded")
        except GraphError:
            log.exception("the graph cannot follow the journal")
            return refused("this replica lost its place in the journal and is being replaced; nothing was recorded")
        committed = time.perf_counter()
        with self._graph:
            try:
                for event in commit.events:
                    self.follower.apply(event)
            except Exception:
                log.exception("the graph cannot follow the journal")
                return refused("recorded, but this replica cannot answer; ask again")
            applied = time.perf_counter()
            self.lag = 0
            scored_by, degraded = self.slot.score_new()
            scored = time.perf_counter()
            timings = {"commit": committed - begin, "graph": applied - committed, "score": scored - applied}
            self.batches += 1
            for stage, seconds in timings.items():
                self.seconds[stage] += seconds
            self.scored_by[scored_by] += sum(len(o.offsets) for o in outcomes if isinstance(o, Admitted))
            return [self._answered(o, scored_by, degraded, timings) if isinstance(o, Admitted) else o for o in outcomes]

    def answer_unrecorded(self, call: ScoreCall) -> "list[bytes] | pa.Table":
        """Answer payments by rules, at once, from any thread; nothing is recorded, and the answers say so.

        The rules read the graph where that can be had without waiting, else the request alone.
        """
        held = self.ready and not self.follower.broken and self._graph.acquire(blocking=False)
        try:
            return self._rules.answer(call, self.state if held else None)
        finally:
            if held:
                self._graph.release()

    def idle(self) -> None:
        """Keep the answers given since; when nothing waits."""
        with self._writing:
            self._kept.write()

    def rings(self, limit: int) -> list[Ring]:
        """The riskiest rings; scoring goes on while they are ranked."""
        for _ in range(2):
            try:
                return self._ring_view().rings(limit, score=self._ring_scores)
            except StaleRings:  # the buffer went once round while they were ranked
                continue
        raise Problem(503, "Unavailable", "the graph moves on faster than rings are listed; ask for fewer")

    def ring(self, ring_id: str) -> Ring | None:
        """One ring; scoring goes on while its evidence is read."""
        for _ in range(2):
            try:
                return self._ring_view().ring(ring_id, score=self._ring_scores)
            except StaleRings:
                continue
        raise Problem(503, "Unavailable", "the graph moves on faster than this ring is read; ask again")

    def transaction_ids(self, rows: Sequence[int]) -> list[str]:
        """The ids of payments."""
        with self._graph:
            offsets = self.state.store.offsets.of(np.array(rows, np.int64))
        with self._names:
            found: list[str] = self._reader().take(offsets)["transaction_id"].to_pylist()
        return found

    def close(self) -> None:
        """Keep what is not kept yet and close the journal."""
        self.idle()
        self.journal.close()
        with self._names:
            if self._reading is not None:
                self._reading.close()

    def _ring_view(self) -> RingQueries:
        with self._graph:
            return self.state.rings.publish(names=self._ring_names)

    def _ring_names(
        self, nodes: NDArray[np.int64], rows: NDArray[np.int64], offsets: NDArray[np.int64], /
    ) -> list[str]:
        with self._names:
            return self.state.names(nodes, rows, offsets, source=self._reader())

    def _reader(self) -> Journal:
        """The journal once more, for readers beside the thread that scores; `_names` is held."""
        if self._reading is None:
            self._reading = SqliteJournal(self.settings.journal, readonly=True)
        return self._reading

    def _ring_scores(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Probabilities of a ring's payments, as far as they are known; they weigh in where rings are ranked."""
        known = self.slot.known_probabilities(rows)
        return known if len(known) else np.zeros(1)

    def _catch_up(self, stop: int) -> int:
        """Apply what others wrote up to an offset; returns how many events that were."""
        begun = self.follower.position
        for events in self.follower.steps(stop):
            if events.kind is Kind.TRANSACTION and len(self.given):
                self.given.settle(events.batch.column("transaction_id").to_pylist())
        return self.follower.position - begun

    def _believed(self, name: str) -> bool | None:
        row = self.state.row_of(name)
        if row is None:
            return None
        known = int(self.state.store.believed(np.array([row]))[0])
        return None if known < 0 else bool(known)

    def _answered(
        self, admitted: Admitted, scored_by: str, degraded: bool, timings: dict[str, float]
    ) -> "list[bytes] | pa.Table":
        call, begin, store = admitted.call, time.perf_counter(), self.state.store
        rows = store.offsets.rows(np.array(admitted.offsets, np.int64))
        n, held = len(rows), rows >= store.oldest
        by, worse = [scored_by] * n, [degraded] * n
        if held.all():
            probability, why = self._judged(call, rows, scored_by)
            ring_ids, ring_sizes = store.ring_ids(rows), store.column("ring", rows)[:, 0]
        else:  # a payment that was recorded so long ago that the graph holds it no longer, and is sent again
            probability, why = request_score(call.batch.column("amount").to_numpy())
            ring_ids, ring_sizes = np.full(n, -1), np.zeros(n, np.int64)
            if held.any():
                there = np.flatnonzero(held)
                probability[there], known = self._judged(call, rows[there], scored_by)
                for at, reason in zip(there.tolist(), known, strict=True):
                    why[at] = reason
                ring_ids[there], ring_sizes[there] = (
                    store.ring_ids(rows[there]),
                    store.column("ring", rows[there])[:, 0],
                )
            for at in np.flatnonzero(~held).tolist():
                by[at], worse[at] = "rules", True
        stages = {**timings, "reasons": time.perf_counter() - begin}
        stages["total"] = sum(stages.values())
        decisions = [
            earlier or decide(float(p), self.settings) for p, earlier in zip(probability, admitted.earlier, strict=True)
        ]
        answers = Answers(
            ids=call.batch.column("transaction_id").to_pylist(),
            probability=probability,
            decisions=decisions,
            explanations=why,
            ring_ids=ring_ids,
            ring_sizes=ring_sizes,
            scored_by=by,
            degraded=worse,
            offsets=admitted.offsets,
            earlier=admitted.earlier,
            model_name=self.artifact.name,
            model_version=self.artifact.version,
            milliseconds={name: round(1e3 * seconds, 3) for name, seconds in stages.items()},
        )
        self.given.settle([name for name, earlier in zip(answers.ids, admitted.earlier, strict=True) if earlier])
        return as_table(answers) if call.table else self._kept.bodies(admitted, answers)

    def _judged(
        self, call: ScoreCall, rows: NDArray[np.int64], scored_by: str
    ) -> tuple[NDArray[np.float64], list[Explanation | None]]:
        """Probabilities of rows in the buffer, float64 [n], and why, [n]."""
        if scored_by == "rules":
            return rules_score(self.state, rows)
        wanted = call.reasons and not call.table
        return self.slot.probabilities(rows), list(self.slot.reasons(rows)) if wanted else [None] * len(rows)


def _capacity(artifact: Artifact, settings: Settings) -> int:
    """Rows of the graph's buffer."""
    window = artifact.config.window
    enough = late_capacity(window.rows, artifact.config.layers)
    capacity = max(settings.capacity or enough, capacity_for(0, window))
    if capacity < enough:
        log.warning(
            "a buffer of %s rows: a model that joins late needs %s to be exact at once", f"{capacity:,}", f"{enough:,}"
        )
    return capacity
