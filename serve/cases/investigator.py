"""The investigator: a follower of the journal that finds risk rings in what the model says, and journals them.

It scores every payment itself, as any follower can (a score is a pure function of the model and of the events before
it), so nothing is sent to it and it slows no replica. What it finds it writes back as events (`Kind.RING`): answers and
policies read rings there and nowhere else. Verdicts go the same way, with the labels that they stand for.

A restart reads the journal again and comes to the same rings; it journals only what differs from what is there.
"""

import logging
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic_core import from_json

from data.journal.protocol import SCHEMAS, Events, Kind
from data.report import Report, silent
from data.schema import LABEL_SCHEMA
from gnn.model.artifact import Artifact
from gnn.score.cpu_scorer import CpuScorer
from gnn.score.replay import Scored
from gnn.score.ring_feed import RingFeed
from graph.errors import GraphError
from graph.rings.records import RingRecord, RingState
from graph.rings.risk.engine import RiskRings
from graph.state import GraphState
from serve.cases.comparison import compare, likeness
from serve.cases.lookup import Lookup
from serve.cases.policy_watch import PolicyWatch
from serve.cases.protocol import EVERY, Entity, GivenVerdict, RingFilter, Verdict
from serve.cases.spending import Spending
from serve.decide.policy import decide
from serve.decide.spending.guidance import Advice
from serve.decide.spending.profile import Profile
from serve.replica.follower import Follower
from serve.replica.journals import open_journal
from serve.replica.kept_answers import unpacked
from serve.replica.replica import capacity_of
from serve.replica.slot import ModelSlot
from serve.settings import Settings

log = logging.getLogger("ringwatch")
ROWS_PER_STEP = 2_048  # events taken in before a reader gets a turn
CONFIDENCE_STEPS = 20  # a change of confidence is journalled where it crosses a twentieth
EMBEDDED = 64  # newest payments of a ring's evidence that it is told by

_Told = tuple[str, int, frozenset[tuple[str, str, str]]]  # state, confidence in steps, members


class Investigator:
    """Rings kept current with a journal; `serve.cases.protocol.Investigation`.

    Args:
        artifact: The model whose scores say what is risky.
        settings: They name the journal and the size of the graph.
        journals: Whether to journal the rings that are found; verdicts are journalled in any case.

    Attributes:
        policies: What the journal's policies decide.

    Raises:
        JournalError: The journal cannot be opened.
    """

    def __init__(self, artifact: Artifact, settings: Settings, *, journals: bool = True) -> None:
        self.artifact, self._journals = artifact, journals
        self.journal = open_journal(settings, window_us=artifact.config.window.span_us)
        capacity = capacity_of(artifact, settings)
        state = GraphState(artifact.roles, capacity, artifact.config.window, source=self.journal)
        self.follower = Follower(self.journal, state)
        self.slot = ModelSlot(artifact, state, [CpuScorer(artifact, state)])
        self.engine = RiskRings(state.store, self.journal)
        self._settings = settings
        self._feed = RingFeed(state, _Slot(self.slot), self.engine, settings.decline)
        self._lookup = Lookup(self.journal, state, self.slot.probabilities)
        self._lock = threading.RLock()  # of the journal's one connection, and of all that follows it
        self._spending = Spending(self.journal, state.store, self._lookup, self.engine, self._lock)
        self.policies = PolicyWatch(settings, self.slot, self._lock)
        self._told: dict[str, tuple[int, _Told]] = {}  # by ring: version and content as the journal has it
        self._changed: set[str] = set()  # rings that may differ from what the journal has
        self._verdicts: dict[str, GivenVerdict] = {}  # by their own id, in the order of the journal

    def open(self, report: Report = silent) -> None:
        """Read the journal up to its end, and journal the rings that it does not have yet."""
        self.slot.warm()
        end = max(1, self.journal.end)
        while self.follow():
            report("reading the journal", self.position / end)

    def follow(self, rows: int = ROWS_PER_STEP) -> bool:
        """Take in some of what is new in the journal; journal what rings have changed once there is no more.

        Returns:
            Whether there is more.

        Raises:
            JournalError: The journal cannot be read or written. Rings that were not journalled are with the next call.
            GraphError: The graph cannot follow the journal: this investigator has to be replaced.
        """
        with self._lock:
            if self.follower.broken:
                raise GraphError("this investigator lost its place in the journal and has to be started anew")
            lag = self.follower.lag()
            if lag:
                self._take_in(self.position + min(lag, rows))
            if lag > rows:
                return True
            self._journal_rings()
            return self.follower.lag() > 0

    @property
    def clock(self) -> int:
        """Journal time of the newest payment, us."""
        return self.follower.state.store.clock

    @property
    def position(self) -> int:
        """The journal offset that is read next."""
        return self.follower.position

    def rings(
        self, wanted: RingFilter = EVERY, limit: int = 100, after: str | None = None, as_of: int | None = None
    ) -> list[RingRecord]:
        """See `Investigation.rings`."""
        with self._lock:
            if wanted.entity is None:
                records = self.engine.records(as_of)
            else:
                found = (self.engine.record(name, as_of) for name in self.engine.rings_of(*wanted.entity))
                records = [record for record in found if record is not None]
        chosen = sorted((r for r in records if wanted.takes(r)), key=_order)
        if after is not None:
            at = next((i for i, record in enumerate(chosen) if record.id == after), None)
            if at is None:
                raise KeyError(after)
            chosen = chosen[at + 1 :]
        return chosen[:limit]

    def ring(self, ring_id: str, as_of: int | None = None) -> RingRecord | None:
        """See `Investigation.ring`."""
        with self._lock:
            return self.engine.record(ring_id, as_of)

    def versions(self, ring_id: str) -> list[RingRecord]:
        """See `Investigation.versions`."""
        with self._lock:
            return self.engine.versions(ring_id)

    def ring_payments(self, ring_id: str, neighbours: bool = False) -> pa.Table:
        """See `Investigation.ring_payments`."""
        with self._lock:
            record = self._ring(ring_id)
            members = [(member.role, member.name) for member in record.members]
            return self._lookup.ring(members, record.evidence, neighbours)

    def entity(self, role: str, name: str, limit: int = 200) -> Entity | None:
        """See `Investigation.entity`."""
        with self._lock:
            rings = self.engine.rings_of(role, name)
            records = [record for ring in rings if (record := self.engine.record(ring)) is not None]
            evidence = [t for record in records for t in record.evidence]
            return self._lookup.entity(role, name, limit, rings, evidence)

    def profile(self, account: str, as_of: int | None = None) -> Profile | None:
        """See `Investigation.profile`."""
        return self._spending.profile(account, as_of)

    def guidance(
        self, account: str, balance: Mapping[str, int] | None = None, as_of: int | None = None
    ) -> tuple[Advice, ...] | None:
        """See `Investigation.guidance`."""
        return self._spending.guidance(account, balance, as_of)

    def payment(self, transaction_id: str) -> pa.Table | None:
        """See `Investigation.payment`."""
        with self._lock:
            found = self._lookup.payments([transaction_id])
        return found if len(found) else None

    def comparison(self, ring_id: str) -> pa.Table:
        """See `Investigation.comparison`."""
        with self._lock:
            record = self._ring(ring_id)
            known = self.engine.records()
            others = [a for r in known if r.named_at is not None and r.id != ring_id for a in r.accounts]
            ours, theirs = (self._lookup.nodes("account", names) for names in (record.accounts, others))
            return compare(self.follower.state.store, ours, theirs, self.slot.probabilities)

    def alike(self, ring_id: str, limit: int = 10) -> list[tuple[str, float]]:
        """See `Investigation.alike`."""
        with self._lock:
            mine = self._embedding(self._ring(ring_id))
            others = [r for r in self.engine.records() if r.named_at is not None and r.id != ring_id]
            known = [(r.id, e) for r in others if (e := self._embedding(r)) is not None]
        if mine is None or not known:
            return []
        like = likeness(mine, [e for _, e in known])
        best = sorted(
            zip(like.tolist(), (name for name, _ in known), strict=True), key=lambda x: (-x[0], _number(x[1]))
        )
        return [(name, value) for value, name in best[:limit]]

    def verdicts(self, ring_id: str | None = None) -> Sequence[GivenVerdict]:
        """See `Investigation.verdicts`."""
        with self._lock:
            return [v for v in self._verdicts.values() if ring_id is None or v.ring_id == ring_id]

    def give_verdict(
        self,
        ring_id: str,
        verdict: Verdict,
        transaction_ids: Sequence[str],
        by: str,
        note: str = "",
        verdict_id: str = "",
    ) -> GivenVerdict:
        """See `Investigation.give_verdict`."""
        verdict_id, ids = verdict_id or str(uuid.uuid4()), list(dict.fromkeys(transaction_ids))
        with self._lock:
            with self.journal.begin() as commit:  # nobody else writes until this is decided
                while self.follower.lag():
                    self._take_in(min(self.position + ROWS_PER_STEP, self.journal.end))
                self._ring(ring_id)
                if (there := self._verdicts.get(verdict_id)) is not None:
                    if (there.ring_id, there.verdict, there.transaction_ids) != (ring_id, verdict, tuple(ids)):
                        raise ValueError(f"verdict_id: {verdict_id!r} was given to another verdict")
                    return there
                known = commit.ids.find(ids)
                if missing := [name for name in ids if name not in known]:
                    raise ValueError(f"transaction_ids: no payment {missing[0]!r} is recorded ({len(missing)} such)")
                at = max(time.time_ns() // 1000, self.clock)
                row = {
                    "verdict_id": verdict_id,
                    "ring_id": ring_id,
                    "is_fraud": verdict == "fraud",
                    "transaction_ids": ids,
                    "by": by,
                    "note": note,
                    "at": at,
                }
                commit.append(Kind.VERDICT, pa.RecordBatch.from_pylist([row], schema=SCHEMAS[Kind.VERDICT]))
                if ids:
                    labels = [ids, [verdict == "fraud"] * len(ids), [at] * len(ids)]
                    columns = [pa.array(c, f.type) for c, f in zip(labels, LABEL_SCHEMA, strict=True)]
                    commit.append(Kind.LABEL, pa.RecordBatch.from_arrays(columns, schema=LABEL_SCHEMA))
            while self.follow():
                pass
            return self._verdicts[verdict_id]

    def probabilities(self, transaction_ids: pa.ChunkedArray) -> pa.Array:
        """What the model said of payments, float64 [n]; null for those that the graph does not hold."""
        with self._lock:
            rows = self.follower.state.transaction_rows(transaction_ids.combine_chunks())
            found = np.full(len(rows), np.nan)
            found[rows >= 0] = self.slot.probabilities(rows[rows >= 0])
        return pa.array(found, mask=rows < 0)

    def decisions(self, transaction_ids: Sequence[str]) -> dict[str, str]:
        """What was decided of payments: as their answers say, where these were kept, else by what the model says.

        Args:
            transaction_ids: Of the payments.

        Returns:
            `serve.decide.policy.Decision` by id; payments that the graph holds no more, and of which no answer was
            kept, are not among the keys.
        """
        with self._lock:
            known = self.journal.ids.find(transaction_ids)
            names = {k.offset: name for name, k in known.items()}
            kept = unpacked(self.journal.answers.find(list(names)), names)
            found = {name: from_json(kept[k.offset])["decision"] for name, k in known.items() if k.offset in kept}
            others = [name for name in known if name not in found]
            rows = self.follower.state.transaction_rows(pa.array(others, pa.string()))
            there = np.flatnonzero(rows >= 0)
            probability = self.slot.probabilities(rows[there])
        found |= {
            others[i]: decide(p, self._settings) for i, p in zip(there.tolist(), probability.tolist(), strict=True)
        }
        return found

    def close(self) -> None:
        """Let the journal go."""
        with self._lock:
            self.journal.close()

    def _embedding(self, record: RingRecord) -> NDArray[np.float32] | None:
        """The mean embedding of a ring's evidence, float32 [D]; None where the graph holds none of it."""
        rows = self.follower.state.transaction_rows(pa.array(record.evidence[:EMBEDDED], pa.string()))
        rows = rows[rows >= 0]
        if not len(rows):
            return None
        return np.asarray(self.slot.cpu.embed(np.sort(rows)).mean(axis=0), np.float32)

    def _ring(self, ring_id: str) -> RingRecord:
        record = self.engine.record(ring_id)
        if record is None:
            raise KeyError(ring_id)
        return record

    def _take_in(self, stop: int) -> None:
        """Apply events up to an offset, to the graph and to the rings."""
        for events in self.journal.replay(self.position, stop):
            self._feed_rings(self._feed.apply(events))
            self.policies.apply(events)
            if events.kind is Kind.RING:
                self._read_rings(events)
            elif events.kind is Kind.VERDICT:
                self._read_verdicts(events)
        self._feed_rings(self._feed.settle())
        self.policies.decide()
        self._changed.update(change.ring_id for change in self.engine.changes())

    def _feed_rings(self, work: Iterator[Scored]) -> None:
        try:
            for _ in work:
                pass
        except Exception:
            self.follower.broken = True
            raise

    def _read_rings(self, events: Events) -> None:
        for row in events.batch.to_pylist():
            members = frozenset((m["role"], m["name"], m["member_role"]) for m in row["members"])
            self._told[row["ring_id"]] = row["version"], (row["state"], _steps(row["confidence"]), members)
            self._changed.add(row["ring_id"])

    def _read_verdicts(self, events: Events) -> None:
        for i, row in enumerate(events.batch.to_pylist()):
            at = events.batch.column("at").cast(pa.int64())[i].as_py()
            self._verdicts.setdefault(
                row["verdict_id"],
                GivenVerdict(
                    offset=events.offset + i,
                    verdict_id=row["verdict_id"],
                    ring_id=row["ring_id"],
                    verdict="fraud" if row["is_fraud"] else "legitimate",
                    transaction_ids=tuple(row["transaction_ids"]),
                    by=row["by"],
                    note=row["note"],
                    at=at,
                ),
            )

    def _journal_rings(self) -> None:
        """Write the rings that differ from what the journal has, those it should no longer have among them."""
        rows: list[dict[str, Any]] = []
        for ring_id in sorted(self._changed, key=_number):
            version, told = self._told.get(ring_id, (0, None))
            record = self.engine.record(ring_id)
            if record is None or (record.named_at is None and told is None):
                content: _Told = (RingState.ENDED, 0, frozenset())  # another model's, or never told of
                if told is None or told[0] == RingState.ENDED:
                    continue
                confidence = 0.0
            else:
                members = frozenset((m.role, m.name, str(m.member_role)) for m in record.members)
                content, confidence = (record.state, _steps(record.confidence), members), record.confidence
            if content != told:
                listed = [{"role": r, "name": n, "member_role": m} for r, n, m in sorted(content[2])]
                row = {"ring_id": ring_id, "version": version + 1, "state": str(content[0]), "confidence": confidence}
                rows.append({**row, "members": listed, "at": self.clock})
        if rows and self._journals:
            with self.journal.begin() as commit:
                commit.append(Kind.RING, pa.RecordBatch.from_pylist(rows, schema=SCHEMAS[Kind.RING]))
        self._changed.clear()  # what was written comes back with the journal


class _Slot:
    """Scores rows by a slot, which keeps what it said of them."""

    def __init__(self, slot: ModelSlot) -> None:
        self._slot = slot

    def score(self, first: int, last: int) -> NDArray[np.float64]:
        """See `gnn.score.ring_feed.ScoresRows`."""
        scored_by, _ = self._slot.score_new()
        if scored_by == "rules":
            raise RuntimeError("the model cannot score; rings cannot be found without it")
        return self._slot.probabilities(np.arange(first, last))


def _order(record: RingRecord) -> tuple[float, int, int]:
    return -record.confidence, -record.last_seen, _number(record.id)


def _number(ring_id: str) -> int:
    number = ring_id.partition("-")[2]
    return int(number) if number.isascii() and number.isdigit() else -1


def _steps(confidence: float) -> int:
    return int(confidence * CONFIDENCE_STEPS)
