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
from data.report import Report, silent
from gnn.model.artifact import Artifact
from gnn.score.reasons import Explanation
from gnn.score.replay import capacity_for, late_capacity
from gnn.score.rules import request_score, rules_score
from graph.errors import GraphError
from graph.state import GraphState
from serve.decide.decider import Decider
from serve.problems import Problem
from serve.replica import snapshots
from serve.replica.admission import Admission, Admitted, Call, ScoreCall, hashed
from serve.replica.answers import Answers, as_table
from serve.replica.followed import Followed, spread
from serve.replica.follower import Follower
from serve.replica.journals import open_journal
from serve.replica.kept_answers import KeptAnswers
from serve.replica.slot import MakeScorers, ModelSlot, default_scorers
from serve.replica.ties import TieReader
from serve.replica.unrecorded import GivenDecisions, RuleAnswers
from serve.settings import Settings

log = logging.getLogger("ringwatch")
FILL_ROWS = 64  # payments scored at once in the background: a payment that comes meanwhile waits for no more
FOLLOW_ROWS = 128  # events of others applied at once in the background, for the same reason


class Replica:
    """Everything one replica holds, without HTTP.

    Args:
        artifact: The model.
        settings: The service's.
        scorers: Makes the scorers over a graph, the preferred first; by default a GPU's where there is one, and the
            CPU's. All share one cache.
        readonly: Only follow the journal: that needs no right to write it.

    Attributes:
        artifact: The model.
        settings: The service's.
        journal: What is followed and written to.
        follower: The graph, and how far it has come.
        slot: The model, and what it said of each payment.
        decider: What decisions depend on, as of the same place in the journal.
        followed: Has it take in events, and where every payment counts, decide them in their order.
        ready: Whether the journal has been replayed.
        lag: Events of the journal that were not in the graph when it was last looked at.
        batches: Micro-batches so far.
        rules: Who answers where the model cannot in time.
        ties: Answers who is tied to whom, beside the thread that scores.
        scored_by: Payments so far, by who scored them.
        seconds: Time spent so far, by stage.
    """

    def __init__(
        self, artifact: Artifact, settings: Settings, scorers: MakeScorers | None = None, *, readonly: bool = False
    ) -> None:
        self.artifact, self.settings = artifact, settings
        window = artifact.config.window
        self.journal: Journal = open_journal(settings, readonly=readonly, window_us=window.span_us)
        self._capacity = capacity_of(artifact, settings)
        self._make_scorers = scorers or default_scorers(settings)
        self.rules = RuleAnswers(artifact, Decider(settings))
        self.follow_with(GraphState(artifact.roles, self._capacity, window, source=self.journal))
        self.ready = False
        self._writing, self._graph = threading.Lock(), threading.Lock()
        self.ties = TieReader(settings, self._graph, lambda: self.slot)
        self._kept = KeptAnswers(self.journal, settings.answers_days)
        self.lag = self.batches = 0
        self.scored_by = {"cuda": 0, "cpu": 0, "rules": 0}
        self.seconds = {"commit": 0.0, "graph": 0.0, "score": 0.0}

    def follow_with(self, state: GraphState) -> None:
        """Follow with this graph from now on, as if nothing in it had been scored and no decision depended on it."""
        self.follower = Follower(self.journal, state)
        named = self.settings.device == "cuda"
        self.slot = ModelSlot(self.artifact, state, self._make_scorers(self.artifact, state), named)
        self.decider = self.rules.decider = Decider(self.settings)
        self.followed = Followed(self.decider)

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
        return self.rules.given

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
                self.decider.adopt(restored.facts)
            begun, end = self.follower.position, max(1, self.journal.end)
            self.slot.warm()
            for events in self.follower.steps():
                self.followed.note(events)
                self.slot.score_new()
                self.followed.decide(self.slot)
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
                    self.followed.decide(self.slot)
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
        begin, calls = time.perf_counter(), hashed(calls)
        try:
            with self.journal.begin() as commit:
                with self._graph:
                    self._catch_up(commit.end)  # what others wrote comes first, while nobody else may write
                decider = self.decider
                admission = Admission(commit, self.journal, self.given.of, decider.policies, decider.mandates)
                admission.look_up(calls)
                outcomes = [admission.take(call) for call in calls]
                admission.outcomes(self._kept.unsettled(outcomes))
                admission.append()
            outcomes = admission.settle(outcomes)
        except JournalError as error:
            log.error("journal: %s", error)
            return refused("the journal cannot be written: nothing is known to be recorded; send the same again")
        except GraphError:
            log.exception("the graph cannot follow the journal")
            return refused("this replica lost its place in the journal and is being replaced; nothing was recorded")
        committed = time.perf_counter()
        with self._graph:
            try:
                for event in commit.events:
                    self._catch_up(event.offset)  # where a broker orders commits, others may have come between
                    self.follower.apply(event)
                    self.followed.note(event)
                self._catch_up(commit.end)
            except Exception:
                log.exception("the graph cannot follow the journal")
                return refused("recorded, but this replica cannot answer; ask again")
            applied = time.perf_counter()
            self.lag = 0
            scored_by, degraded = self.slot.score_new()
            self.followed.decide(self.slot)
            scored = time.perf_counter()
            timings = {"commit": committed - begin, "graph": applied - committed, "score": scored - applied}
            self.batches += 1
            for stage, seconds in timings.items():
                self.seconds[stage] += seconds
            admitted = [outcome for outcome in outcomes if isinstance(outcome, Admitted)]
            self.scored_by[scored_by] += sum(len(a.offsets) for a in admitted)
            answers = iter(self._answered(admitted, scored_by, degraded, timings))
            return [next(answers) if isinstance(outcome, Admitted) else outcome for outcome in outcomes]

    def answer_unrecorded(self, call: ScoreCall) -> "list[bytes] | pa.Table":
        """Answer payments by rules, at once, from any thread; nothing is recorded, and the answers say so.

        The rules read the graph where that can be had without waiting, else the request alone.
        """
        held = self.ready and not self.follower.broken and self._graph.acquire(blocking=False)
        try:
            return self.rules.answer(call, self.state if held else None)
        finally:
            if held:
                self._graph.release()

    def mandate(self, mandate_id: str) -> dict[str, Any] | None:
        """A mandate as of now, see `serve.decide.mandates.Mandate.view`; None where there is none."""
        with self._graph:
            found = self.decider.mandates.get(mandate_id)
            return None if found is None else found.view(mandate_id, self.decider.mandates.clock)

    def idle(self) -> None:
        """Keep the answers given since, and let go of old ones; when nothing waits."""
        with self._writing:
            self._kept.write()
            self._kept.forget_old(self.state.store)

    def close(self) -> None:
        """Keep what is not kept yet and close the journal."""
        self.idle()
        self.journal.close()
        self.ties.close()

    def _catch_up(self, stop: int) -> int:
        """Apply what others wrote up to an offset; returns how many events that were."""
        begun = self.follower.position
        for events in self.follower.steps(stop):
            self.followed.note(events)
            if events.kind is Kind.TRANSACTION and len(self.given):
                self.given.settle(events.batch.column("transaction_id").to_pylist())
        return self.follower.position - begun

    def _answered(
        self, calls: Sequence[Admitted], scored_by: str, degraded: bool, timings: dict[str, float]
    ) -> "list[list[bytes] | pa.Table]":
        """The answers to the calls of a micro-batch. What all payments share is computed for all of them at once."""
        if not calls:
            return []
        begin, store = time.perf_counter(), self.state.store
        offsets = np.array([offset for call in calls for offset in call.offsets], np.int64)
        payments = pa.concat_batches([call.call.batch for call in calls])
        rows = store.offsets.rows(offsets)
        held = rows >= store.oldest
        explained = np.repeat([c.call.reasons and not c.call.table for c in calls], [len(c.offsets) for c in calls])
        probability, why = self._judged(rows[held], explained[held], scored_by)
        by, worse = [scored_by] * len(rows), [degraded] * len(rows)
        if not held.all():  # payments recorded so long ago that the graph holds them no longer, and sent again
            gone = payments.filter(pa.array(~held))
            probability = spread(probability, held, 0.0)
            alone, reasons = request_score(gone.column("amount").to_numpy(), gone.column("currency").to_pylist())
            probability[~held] = alone
            known, rest = iter(why), iter(reasons)
            why = [next(known) if here else next(rest) for here in held.tolist()]
            for at in np.flatnonzero(~held).tolist():
                by[at], worse[at] = "rules", True
        situation = self.decider.situation(payments, offsets, probability, lambda: self.slot.features(rows, held))
        decided, rings = self.decider.decide(situation), situation.rings
        stages = {**timings, "reasons": time.perf_counter() - begin}
        stages["total"] = sum(stages.values())
        milliseconds = {name: round(1e3 * seconds, 3) for name, seconds in stages.items()}
        found: list[list[bytes] | pa.Table] = []
        start = 0
        for admitted in calls:
            mine = slice(start, start := start + len(admitted.offsets))
            answers = Answers(
                ids=admitted.call.batch.column("transaction_id").to_pylist(),
                probability=probability[mine],
                decided=[one.as_given(d) for one, d in zip(decided[mine], admitted.earlier, strict=True)],
                explanations=why[mine],
                rings=rings[mine],
                scored_by=by[mine],
                degraded=worse[mine],
                offsets=admitted.offsets,
                earlier=admitted.earlier,
                model_name=self.artifact.name,
                model_version=self.artifact.version,
                milliseconds=milliseconds,
            )
            self.given.settle([name for name, earlier in zip(answers.ids, admitted.earlier, strict=True) if earlier])
            found.append(as_table(answers) if admitted.call.table else self._kept.bodies(admitted, answers))
        return found

    def _judged(
        self, rows: NDArray[np.int64], explained: NDArray[np.bool_], scored_by: str
    ) -> tuple[NDArray[np.float64], list[Explanation | None]]:
        """Probabilities of rows in the buffer, float64 [n], and why, [n], for those that are to be explained."""
        if scored_by == "rules":
            return rules_score(self.state, rows)
        why: list[Explanation | None] = [None] * len(rows)
        if explained.any():
            places = np.flatnonzero(explained)
            for at, reason in zip(places.tolist(), self.slot.reasons(rows[places]), strict=True):
                why[at] = reason
        return self.slot.probabilities(rows), why


def capacity_of(artifact: Artifact, settings: Settings) -> int:
    """Rows of the graph's buffer."""
    window = artifact.config.window
    enough = late_capacity(window.rows, artifact.config.layers)
    capacity = max(settings.capacity or enough, capacity_for(0, window))
    if capacity < enough:
        log.warning(
            "a buffer of %s rows: a model that joins late needs %s to be exact at once", f"{capacity:,}", f"{enough:,}"
        )
    return capacity
