"""A payment's way through the house: journal, graph, network, answer. One thread, one micro-batch at a time."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.errors import JournalError
from data.journal.protocol import Journal
from data.journal.sqlite import SqliteJournal
from gnn.model.artifact import Artifact
from gnn.score.cuda_scorer import CudaScorer
from gnn.score.reasons import Explanation
from gnn.score.replay import capacity_for, late_capacity
from gnn.score.rules import rules_score
from gnn.score.scorer import Scorer, choose_device
from graph.device.cuda_device import CudaDevice
from graph.errors import GraphError
from graph.memory import reserve
from graph.rings.index import Ring
from graph.state import GraphState
from serve.decide.policy import decide
from serve.problems import Problem
from serve.replica import snapshots
from serve.replica.admission import Admission, Admitted, LabelCall, ScoreCall
from serve.replica.answers import ANSWER_SCHEMA, json_bytes
from serve.replica.breaker import Breaker
from serve.settings import Settings

log = logging.getLogger("ringwatch")
REPLAY = 1 << 16  # events of one step of a replay
FILLED = 64  # payments scored at once in the background: a payment that comes meanwhile waits for no more
Report = Callable[[str, float], None]


class House:
    """Everything one replica holds.

    Args:
        artifact: The model.
        settings: The service's.
        scorers: Makes the scorers over a state, the preferred first; by default a GPU's where there is one, and the
            CPU's. All share one cache.
    """

    def __init__(
        self,
        artifact: Artifact,
        settings: Settings,
        scorers: Callable[[Artifact, GraphState], Sequence[Scorer | CudaScorer]] | None = None,
    ) -> None:
        self.artifact, self.settings = artifact, settings
        self.journal: Journal = SqliteJournal(settings.journal)
        window = artifact.config.window
        enough = late_capacity(window.rows, artifact.config.layers)
        self._capacity = max(settings.capacity or enough, capacity_for(0, window))
        if self._capacity < enough:
            log.warning(
                "a buffer of %s rows: a model that joins late needs %s to be exact at once",
                f"{self._capacity:,}",
                f"{enough:,}",
            )
        self._make_scorers = scorers or self._default_scorers
        self.build(GraphState(artifact.roles, self._capacity, window, source=self.journal))
        self.ready = False
        self.broken = False  # the graph no longer follows the journal: this replica must be replaced
        self._lock = threading.Lock()  # the graph is read by ring requests while the worker rests
        self._answers: list[tuple[int, bytes]] = []
        self.batches = 0  # for the metrics, as what follows
        self.scored_by = {"cuda": 0, "cpu": 0, "rules": 0}
        self.seconds = {"commit": 0.0, "graph": 0.0, "score": 0.0}

    def build(self, state: GraphState) -> None:
        """Set everything that goes with a graph up, as if nothing in it had been scored."""
        self.state = state
        self.scorers = self._make_scorers(self.artifact, state)
        self.breakers = [Breaker() for _ in self.scorers]
        self.probability = reserve(state.store.capacity, np.float64)  # by slot
        self.scored = 0  # rows before this one have been scored, and their keys and values written

    def _default_scorers(self, artifact: Artifact, state: GraphState) -> Sequence[Scorer | CudaScorer]:
        cpu = Scorer(artifact, state, "cpu")
        if choose_device(self.settings.device) != "cuda":
            return [cpu]
        limit = self.settings.cuda_memory
        try:
            device = CudaDevice(int(limit * 2**30) if limit else None)
        except GraphError as error:
            if self.settings.device == "cuda":
                raise
            log.warning("scoring on the CPU: %s", error)
            return [cpu]
        return [CudaScorer(cpu, device, patience_s=self.settings.cuda_wait_ms / 1e3), cpu]

    @property
    def ailment(self) -> str | None:
        """Why this replica is to be replaced, if it is. One whose GPU failed still answers, from the CPU."""
        if self.broken:
            return "this replica lost its place in the journal"
        if any(scorer.lost for scorer in self.scorers):
            return "this replica lost its GPU; the CPU answers until it is replaced"
        return None

    def open(self, report: Report = lambda what, share: None) -> int:
        """Take up the newest snapshot, replay what the journal holds after it; ready afterwards.

        Returns:
            The offset of the snapshot, 0 without one.
        """
        try:
            restored = snapshots.newest(self.settings, self.artifact, self._capacity, self.journal)
            if restored is not None:
                snapshots.take_up(self, restored)
            begun, end = self.state.applied, max(1, self.journal.end)
            self._warm()
            for events in self.journal.replay(begun, chunk=REPLAY):
                self.state.apply(events)
                self._score()
                report("replaying the journal", self.state.applied / end)
        except Exception:
            self.broken = True
            log.exception("the journal cannot be replayed")
            raise
        self.ready = True
        return begun

    def _warm(self) -> None:
        """Make the scorers ready. A GPU that was not asked for by name, and cannot be used, leaves the CPU."""
        for scorer in self.scorers:
            try:
                scorer.warm()
            except Exception:
                if scorer is self.scorers[-1] or self.settings.device == "cuda":
                    raise
                log.exception("the GPU cannot be used; the CPU scores")

    @property
    def _cpu(self) -> Scorer:
        last = self.scorers[-1]
        assert isinstance(last, Scorer)
        return last

    def fill(self) -> bool:
        """Score some more of the payments that were there before this model, newest first.

        Returns:
            Whether any are left.
        """
        with self._lock:
            scorer = self._cpu
            before = scorer.cache.complete_from
            left = self.scorers[0].fill(FILLED)
            rows = np.arange(max(self.state.store.oldest, before - FILLED), before)
            self.probability[self.state.store.slots(rows)] = scorer.rescore(rows)
            return left

    @property
    def progress(self) -> str:
        """How far the replay is."""
        return f"{self.state.applied:,} of {self.journal.end:,} events"

    def process(self, calls: Sequence[ScoreCall | LabelCall]) -> list[Any]:
        """Take a micro-batch through: one commit, then graph, scores and answers.

        Returns:
            For each call its body (bytes), an Arrow table, a count of labels, or a `Problem`.
        """
        with self._lock:
            return self._process(calls)

    def _process(self, calls: Sequence[ScoreCall | LabelCall]) -> list[Any]:
        if self.broken:
            return [
                Problem(503, "Unavailable", "this replica lost its place in the journal and is being replaced")
            ] * len(calls)
        begin = time.perf_counter()
        try:
            with self.journal.begin() as commit:
                admission = Admission(commit, self._believed)
                outcomes = [admission.take(call) for call in calls]
                start = commit.end
                admission.append()
        except JournalError as error:
            log.error("journal: %s", error)
            return [Problem(503, "Unavailable", "the journal cannot be written; nothing was recorded")] * len(calls)
        committed = time.perf_counter()
        try:
            if start != self.state.applied:  # others wrote to the journal: their events come first
                for foreign in self.journal.replay(self.state.applied, start, REPLAY):
                    self.state.apply(foreign)
            for event in commit.events:
                self.state.apply(event)
        except Exception:
            self.broken = True
            log.exception("the graph cannot follow the journal")
            return [Problem(503, "Unavailable", "recorded, but this replica cannot answer; ask again")] * len(calls)
        applied = time.perf_counter()
        scored_by, degraded = self._score()
        scored = time.perf_counter()
        timings = {"commit": committed - begin, "graph": applied - committed, "score": scored - applied}
        self.batches += 1
        for stage, seconds in timings.items():
            self.seconds[stage] += seconds
        self.scored_by[scored_by] += sum(len(o.offsets) for o in outcomes if isinstance(o, Admitted))
        return [self._answered(o, scored_by, degraded, timings) if isinstance(o, Admitted) else o for o in outcomes]

    def idle(self) -> None:
        """Keep the answers given since; when nothing waits."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        if self._answers:
            try:
                self.journal.answers.keep(self._answers)
            except JournalError as error:  # an answer can be computed again
                log.warning("answers not kept: %s", error)
            self._answers = []

    def rings(self, limit: int) -> list[Ring]:
        """The riskiest rings."""
        with self._lock:
            return self.state.rings.rings(limit, score=self._scores)

    def ring(self, ring_id: str) -> Ring | None:
        """One ring."""
        with self._lock:
            return self.state.rings.ring(ring_id, score=self._scores)

    def _scores(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """The probabilities given to payments."""
        return self.probability[self.state.store.slots(rows)]

    def transaction_ids(self, rows: Sequence[int]) -> list[str]:
        """The ids of payments."""
        with self._lock:
            return self.state.transaction_ids(np.array(rows, np.int64))

    def close(self) -> None:
        """Keep what is not kept yet and close the journal."""
        self.idle()
        self.journal.close()

    def _believed(self, name: str) -> bool | None:
        row = self.state.row_of(name)
        if row is None:
            return None
        known = int(self.state.store.believed(np.array([row]))[0])
        return None if known < 0 else bool(known)

    def _score(self) -> tuple[str, bool]:
        """Score the rows that have not been; who did, and whether it was not the preferred."""
        last = self.state.store.rows
        first = max(self.scored, self.state.store.oldest)
        for i, (scorer, breaker) in enumerate(zip(self.scorers, self.breakers, strict=True)):
            if not (scorer.ready and breaker.allows()):
                continue
            try:
                found = scorer.score(first, last)
                if not np.isfinite(found).all():
                    raise FloatingPointError("a score is not finite")
            except Exception:
                breaker.failed()
                log.exception("the %s scorer failed", scorer.device_name)
                continue
            breaker.succeeded()
            self.probability[self.state.store.slots(np.arange(first, last))] = found
            self.scored = last
            return scorer.device_name, i > 0
        return "rules", True

    def _answered(
        self, admitted: Admitted, scored_by: str, degraded: bool, timings: dict[str, float]
    ) -> "bytes | list[bytes] | pa.Table":
        call, begin = admitted.call, time.perf_counter()
        store = self.state.store
        rows = store.offsets.rows(np.array(admitted.offsets, np.int64))
        probability = self.probability[store.slots(rows)]
        said: Sequence[Explanation | None] | None = None
        if scored_by == "rules":
            probability, said = rules_score(self.state, rows)
        ids = call.batch.column("transaction_id").to_pylist()
        decisions = [decide(float(p), self.settings) for p in probability]
        ring_ids = store.ring_ids(rows)
        if call.table:
            return pa.table(
                {
                    "transaction_id": ids,
                    "fraud_probability": probability,
                    "risk_score": np.rint(100 * probability).astype(np.int32),
                    "decision": decisions,
                    "ring_id": [f"R-{r}" if r >= 0 else None for r in ring_ids],
                    "scored_by": [scored_by] * len(ids),
                    "degraded": [degraded] * len(ids),
                    "journal_offset": admitted.offsets,
                    "model_version": [self.artifact.version] * len(ids),
                },
                schema=ANSWER_SCHEMA,
            )
        if said is None:
            said = self._reasons(rows) if call.reasons else [None] * len(ids)
        sizes = store.column("ring", rows)[:, 0]
        stages = {**timings, "reasons": time.perf_counter() - begin}
        stages["total"] = sum(stages.values())
        milliseconds = {name: round(1e3 * seconds, 3) for name, seconds in stages.items()}
        model = {"name": self.artifact.name, "version": self.artifact.version}
        bodies = []
        for i, (name, why) in enumerate(zip(ids, said, strict=True)):
            if admitted.known[i] and call.reasons and (kept := self._kept(admitted.offsets[i])) is not None:
                bodies.append(kept)
                continue
            body = json_bytes(
                {
                    "transaction_id": name,
                    "fraud_probability": float(probability[i]),
                    "risk_score": round(100 * float(probability[i])),
                    "decision": decisions[i],
                    "baseline": None if why is None else why.baseline,
                    "reasons": [
                        {"code": r.code, "message": r.message, "contribution": r.contribution}
                        for r in (() if why is None else why.reasons)
                    ],
                    "ring": {"id": f"R-{ring_ids[i]}", "size": int(sizes[i])} if ring_ids[i] >= 0 else None,
                    "model": model,
                    "scored_by": scored_by,
                    "degraded": degraded,
                    "journal_offset": admitted.offsets[i],
                    "timings": milliseconds,
                }
            )
            bodies.append(body)
            if call.reasons and scored_by != "rules":
                self._answers.append((admitted.offsets[i], body))
        return bodies

    def _kept(self, offset: int) -> bytes | None:
        self._flush()
        return self.journal.answers.find([offset]).get(offset)

    def _reasons(self, rows: NDArray[np.int64]) -> Sequence[Explanation | None]:
        for scorer, breaker in zip(self.scorers, self.breakers, strict=True):
            if breaker.state == "closed":
                try:
                    return scorer.reasons(rows)
                except Exception:
                    breaker.failed()
                    log.exception("the %s scorer gave no reasons", scorer.device_name)
        return [None] * len(rows)
