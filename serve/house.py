"""A payment's way through the house: journal, graph, network, answer. One thread, one micro-batch at a time."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.errors import JournalError
from data.journal import Commit, Events, Kind, SqliteJournal
from data.schema import content_hashes
from gnn.artifact import Artifact
from gnn.explain import Reason
from gnn.replay import capacity_for
from gnn.scorer import Scorer, choose_device
from graph.rings import Ring
from graph.state import GraphState
from serve.breaker import Breaker
from serve.policy import decide, rules_score
from serve.problems import Problem
from serve.settings import Settings
from serve.wire import ANSWER_SCHEMA, json_bytes

log = logging.getLogger("ringwatch")
REPLAY = 1 << 16  # events of one step of a replay


@dataclass(frozen=True)
class ScoreCall:
    """Payments to record and score, all or none."""

    batch: pa.RecordBatch
    reasons: bool = True
    table: bool = False  # answer with an Arrow table in place of JSON


@dataclass(frozen=True)
class LabelCall:
    """Labels to record, all or none."""

    batch: pa.RecordBatch


@dataclass
class _Admitted:
    """Where a call's payments are in the journal: those it brought and those that were there."""

    call: ScoreCall
    offsets: list[int]
    known: list[bool]


@dataclass
class _Open:
    """A commit being filled: what it adds, runs of one kind merged, ids of its own."""

    commit: Commit
    runs: list[tuple[Kind, list[pa.RecordBatch], list[bytes]]] = field(default_factory=list)
    ids: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    labels: dict[str, bool] = field(default_factory=dict)
    rows: int = 0

    def add(self, kind: Kind, batch: pa.RecordBatch, hashes: list[bytes]) -> None:
        if not self.runs or self.runs[-1][0] is not kind:
            self.runs.append((kind, [], []))
        self.runs[-1][1].append(batch)
        self.runs[-1][2].extend(hashes)
        self.rows += len(batch)


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
        scorers: Callable[[Artifact, GraphState], list[Scorer]] | None = None,
    ) -> None:
        self.artifact, self.settings = artifact, settings
        self.journal = SqliteJournal(settings.journal)
        window = artifact.config.window
        capacity = max(settings.capacity, capacity_for(0, window))
        self.state = GraphState(artifact.roles, capacity, window, source=self.journal)
        self.scorers = (scorers or self._default_scorers)(artifact, self.state)
        self.breakers = [Breaker() for _ in self.scorers]
        self.probability = np.zeros(self.state.store.capacity, np.float64)  # by slot
        self.scored = 0  # rows before this one have been scored, and their keys and values written
        self.ready = False
        self.broken = False  # the graph no longer follows the journal: this replica must be replaced
        self._lock = threading.Lock()  # the graph is read by ring requests while the worker rests
        self._answers: list[tuple[int, bytes]] = []
        self.batches = 0  # for the metrics, as what follows
        self.scored_by = {"cuda": 0, "cpu": 0, "rules": 0}
        self.seconds = {"commit": 0.0, "graph": 0.0, "score": 0.0}

    def _default_scorers(self, artifact: Artifact, state: GraphState) -> list[Scorer]:
        cpu = Scorer(artifact, state, "cpu")
        if choose_device(self.settings.device) == "cuda":
            return [Scorer(artifact, state, "cuda", cache=cpu.cache), cpu]
        return [cpu]

    def open(self) -> None:
        """Replay the journal and compile the kernels; ready afterwards."""
        try:
            for scorer in self.scorers:
                scorer.warm()
            for events in self.journal.replay(self.state.applied, chunk=REPLAY):
                self.state.apply(events)
                self._score()
        except Exception:
            self.broken = True
            log.exception("the journal cannot be replayed")
            raise
        self.ready = True

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
                held = _Open(commit)
                outcomes = [self._admitted(call, held) for call in calls]
                start = commit.end
                events = []
                for kind, batches, hashes in held.runs:
                    batch = batches[0] if len(batches) == 1 else _merged(batches)
                    first = (
                        commit.append(kind, batch, hashes) if kind is Kind.TRANSACTION else commit.append(kind, batch)
                    )
                    events.append(Events(kind, first, batch))
        except JournalError as error:
            log.error("journal: %s", error)
            return [Problem(503, "Unavailable", "the journal cannot be written; nothing was recorded")] * len(calls)
        committed = time.perf_counter()
        try:
            if start != self.state.applied:  # others wrote to the journal: their events come first
                for foreign in self.journal.replay(self.state.applied, start, REPLAY):
                    self.state.apply(foreign)
            for event in events:
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
        self.scored_by[scored_by] += sum(len(o.offsets) for o in outcomes if isinstance(o, _Admitted))
        return [self._answered(o, scored_by, degraded, timings) if isinstance(o, _Admitted) else o for o in outcomes]

    def idle(self) -> None:
        """Keep the answers given since; when nothing waits."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        if self._answers:
            try:
                self.journal.keep_answers(self._answers)
            except JournalError as error:  # an answer can be computed again
                log.warning("answers not kept: %s", error)
            self._answers = []

    def rings(self, limit: int) -> list[Ring]:
        """The riskiest rings."""
        with self._lock:
            return self.state.rings.rings(limit, score=lambda rows: self.probability[rows % self.state.store.capacity])

    def ring(self, ring_id: str) -> Ring | None:
        """One ring."""
        with self._lock:
            return self.state.rings.ring(ring_id)

    def transaction_ids(self, rows: Sequence[int]) -> list[str]:
        """The ids of payments."""
        with self._lock:
            return self.state.transaction_ids(np.array(rows, np.int64))

    def close(self) -> None:
        """Keep what is not kept yet and close the journal."""
        self.idle()
        self.journal.close()

    def _admitted(self, call: ScoreCall | LabelCall, held: _Open) -> "_Admitted | dict[str, int] | Problem":
        try:
            return self._admit_labels(call, held) if isinstance(call, LabelCall) else self._admit(call, held)
        except Problem as problem:
            return problem

    def _admit(self, call: ScoreCall, held: _Open) -> _Admitted:
        batch, hashes = call.batch, content_hashes(call.batch)
        ids = batch.column("transaction_id").to_pylist()
        known = held.commit.known(ids)
        offsets: list[int] = []
        seen: list[bool] = []
        fresh: list[int] = []
        mine: dict[str, tuple[int, bytes]] = {}
        at = held.commit.end + held.rows
        for i, (name, digest) in enumerate(zip(ids, hashes, strict=True)):
            there = (
                (known[name].offset, known[name].content_hash) if name in known else held.ids.get(name, mine.get(name))
            )
            if there is not None and there[1] != digest:
                raise Problem(
                    409,
                    "Conflict",
                    f"transaction {name!r} is recorded with other content",
                    [(f"{i}.transaction_id" if len(ids) > 1 else "transaction_id", "recorded with other content")],
                )
            seen.append(there is not None)
            if there is None:
                there = mine[name] = (at + len(fresh), digest)
                fresh.append(i)
            offsets.append(there[0])
        if fresh:
            if len(fresh) < len(ids):
                batch, hashes = batch.take(pa.array(fresh)), [hashes[i] for i in fresh]
            held.add(Kind.TRANSACTION, batch, hashes)
            held.ids.update(mine)
        return _Admitted(call, offsets, seen)

    def _admit_labels(self, call: LabelCall, held: _Open) -> dict[str, int]:
        ids = call.batch.column("transaction_id").to_pylist()
        fraud = call.batch.column("is_fraud").to_pylist()
        known = held.commit.known([i for i in ids if i not in held.ids])
        missing = [
            (f"{n}.transaction_id", "no such payment")
            for n, i in enumerate(ids)
            if i not in known and i not in held.ids
        ]
        if missing:
            raise Problem(
                422,
                "Unknown transaction",
                f"no payment {ids[int(missing[0][0].split('.')[0])]!r} is recorded",
                missing[:100],
            )
        mine: dict[str, bool] = {}
        fresh = []
        for n, (name, value) in enumerate(zip(ids, fraud, strict=True)):
            believed = mine.get(name, held.labels.get(name, self._believed(name)))
            if believed is None or believed != value:  # an equal label again says nothing new
                fresh.append(n)
                mine[name] = value
        if fresh:
            held.add(Kind.LABEL, call.batch.take(pa.array(fresh)) if len(fresh) < len(ids) else call.batch, [])
            held.labels.update(mine)
        return {"accepted": len(fresh), "repeated": len(ids) - len(fresh)}

    def _believed(self, name: str) -> bool | None:
        row = self.state.row_of(name)
        if row is None:
            return None
        event = int(self.state.store.column("label", np.array([row]))[0])
        return None if event < 0 else bool(self.state.store.labels["fraud"][event])

    def _score(self) -> tuple[str, bool]:
        """Score the rows that have not been; who did, and whether it was not the preferred."""
        last = self.state.store.rows
        first = max(self.scored, self.state.store.oldest)
        for i, (scorer, breaker) in enumerate(zip(self.scorers, self.breakers, strict=True)):
            if not breaker.allows():
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
            self.probability[np.arange(first, last) % self.state.store.capacity] = found
            self.scored = last
            return scorer.device_name, i > 0
        return "rules", True

    def _answered(
        self, admitted: _Admitted, scored_by: str, degraded: bool, timings: dict[str, float]
    ) -> "bytes | list[bytes] | pa.Table":
        call, begin = admitted.call, time.perf_counter()
        store = self.state.store
        rows = store.offsets.rows(np.array(admitted.offsets, np.int64))
        probability, said = self.probability[rows % store.capacity], None
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
            said = self._reasons(rows) if call.reasons else [[] for _ in ids]
        sizes = store.column("ring", rows)[:, 0]
        stages = {**timings, "reasons": time.perf_counter() - begin}
        stages["total"] = sum(stages.values())
        milliseconds = {name: round(1e3 * seconds, 3) for name, seconds in stages.items()}
        model = {"name": self.artifact.name, "version": self.artifact.version}
        bodies = []
        for i, name in enumerate(ids):
            if admitted.known[i] and call.reasons and (kept := self._kept(admitted.offsets[i])) is not None:
                bodies.append(kept)
                continue
            body = json_bytes(
                {
                    "transaction_id": name,
                    "fraud_probability": float(probability[i]),
                    "risk_score": round(100 * float(probability[i])),
                    "decision": decisions[i],
                    "reasons": [
                        {"code": r.code, "message": r.message, "contribution": r.contribution} for r in said[i]
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
        return self.journal.answer(offset)

    def _reasons(self, rows: NDArray[np.int64]) -> list[list[Reason]]:
        for scorer, breaker in zip(self.scorers, self.breakers, strict=True):
            if breaker.state == "closed":
                try:
                    return scorer.reasons(rows)
                except Exception:
                    breaker.failed()
                    log.exception("the %s scorer gave no reasons", scorer.device_name)
        return [[] for _ in rows]


def _merged(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return pa.concat_batches(batches)
