"""Who gets into a micro-batch: repeats are told from news and from contradictions before anything is written."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa

from data.errors import JournalError
from data.journal.protocol import SCHEMAS, Commit, Kind, Known, PaymentSource, Report
from data.schema import TIMESTAMP, content_hashes
from serve.decide.decision import Decision
from serve.decide.mandates import MandateBook
from serve.decide.policies.book import PolicyBook
from serve.decide.policies.life import PolicyEvent
from serve.problems import Problem
from serve.replica.conflicts import CONFLICTS_SHOWN, Conflict, conflict, within
from serve.replica.granted import Granted, GrantedMandates, MandateCall
from serve.replica.reported import ReportedOutcomes


@dataclass(frozen=True)
class ScoreCall:
    """Payments to record and score, all or none.

    Attributes:
        batch: The payments, [n].
        reasons: Whether to say why.
        table: Answer with an Arrow table in place of JSON.
        given: Decisions that their caller was given before they were recorded, [n], None for most; or empty.
        hashes: Their content hashes, [n], where they have been computed already.
    """

    batch: pa.RecordBatch
    reasons: bool = True
    table: bool = False
    given: Sequence[Decision | None] = ()
    hashes: Sequence[bytes] = ()


@dataclass(frozen=True)
class LabelCall:
    """Labels to record, all or none."""

    batch: pa.RecordBatch


@dataclass(frozen=True)
class OutcomeCall:
    """Outcomes to record, all or none: of `SCHEMAS[Kind.OUTCOME]`, accounts and mandates left out."""

    batch: pa.RecordBatch


@dataclass(frozen=True)
class PolicyCall:
    """A policy to give a state to; see `serve.decide.policies.life`."""

    event: PolicyEvent


@dataclass(frozen=True)
class CheckCall:
    """Payments, labels or outcomes to look at without recording them: whether they would be let in."""

    call: ScoreCall | LabelCall | OutcomeCall


Call = ScoreCall | LabelCall | OutcomeCall | CheckCall | PolicyCall | MandateCall


def hashed(calls: Sequence[Call]) -> list[Call]:
    """The calls, with the content hashes of their payments: those of many small calls are cheaper at once."""
    without = [i for i, call in enumerate(calls) if isinstance(call, ScoreCall) and not call.hashes]
    found = list(calls)
    if len(without) > 1:
        batches = [cast(ScoreCall, calls[i]).batch for i in without]
        hashes, at = content_hashes(pa.concat_batches(batches)), 0
        for i, batch in zip(without, batches, strict=True):
            found[i] = replace(cast(ScoreCall, calls[i]), hashes=hashes[at : at + len(batch)])
            at += len(batch)
    return found


@dataclass
class Admitted:
    """Where a call's payments are in the journal: those it brought and those that were there."""

    call: ScoreCall
    offsets: list[int]
    known: list[bool]
    earlier: list[Decision | None]  # decisions given before they were recorded


class GivenBefore(NamedTuple):
    """A decision that was given for a payment before it was recorded; fields as columns of its event."""

    transaction_id: str
    outcome: Decision
    account_id: str
    mandate_id: str | None


@dataclass
class Admission:
    """A commit being filled by the calls of a micro-batch.

    Attributes:
        commit: Open.
        recorded: Where the payments of earlier commits are read, to say what a contradiction is about.
        given: The decision given before a payment was recorded, by its id and content hash, where there is one.
        policies: Those of the journal up to this commit.
        mandates: What the journal holds of them before this commit.
    """

    commit: Commit
    recorded: PaymentSource
    given: Callable[[str, bytes], Decision | None] = lambda _, __: None
    policies: PolicyBook | None = None
    mandates: MandateBook = field(default_factory=MandateBook)
    _runs: list[tuple[Kind, list[pa.RecordBatch], list[bytes]]] = field(default_factory=list)  # of one kind each
    _ids: dict[str, tuple[int, bytes]] = field(default_factory=dict)  # of this commit
    _known: dict[str, Known | None] = field(default_factory=dict)  # of earlier commits, as far as looked up
    _labels: dict[str, set[Report]] = field(default_factory=dict)  # recorded, or of this commit
    _rows: int = 0
    _appended: list[tuple[int, int]] = field(default_factory=list)  # first offset and rows of each run, as expected

    def __post_init__(self) -> None:
        self._reported = ReportedOutcomes(self.commit.outcomes, self._payments)
        self._granted = GrantedMandates(self.mandates)

    def look_up(self, calls: Sequence[Call]) -> None:
        """Look up the payments of all calls that will be taken: at once, they cost a fraction."""
        found = [call.call if isinstance(call, CheckCall) else call for call in calls]
        batches = [call.batch for call in found if not isinstance(call, PolicyCall | MandateCall)]
        self._find([name for batch in batches for name in batch.column("transaction_id").to_pylist()])

    def take(self, call: Call) -> "Admitted | Granted | dict[str, int] | Problem | None":
        """Let a call in, all of it or nothing; None for one that only asked whether it would be."""
        try:
            if isinstance(call, CheckCall):
                self._check(call.call)
                return None
            if isinstance(call, OutcomeCall):
                return self._became(call)
            if isinstance(call, PolicyCall):
                return self._activated(call)
            if isinstance(call, MandateCall):
                return self._mandated(call)
            return self._labelled(call) if isinstance(call, LabelCall) else self._scored(call)
        except Problem as problem:
            return problem

    def _activated(self, call: PolicyCall) -> dict[str, int]:
        """Record what a policy does from here on, unless it does so already."""
        if self.policies is not None:
            self.policies.refuse(call.event)
            if self.policies.stands(call.event):
                return {"accepted": 0, "repeated": 1}
        if any(kind is Kind.POLICY for kind, _, _ in self._runs):
            raise Problem(409, "Conflict", "another policy is being activated at this moment; look, and try again")
        self._add(Kind.POLICY, call.event.batch(), [])
        return {"accepted": 1, "repeated": 0}

    def outcomes(self, given: Sequence[GivenBefore]) -> None:
        """Record decisions that were given for payments; behind everything that was let in."""
        if given:
            at = pa.scalar(time.time_ns() // 1000, TIMESTAMP)
            rows = [{**one._asdict(), "at": at.as_py()} for one in given]
            self._add(Kind.OUTCOME, pa.RecordBatch.from_pylist(rows, schema=SCHEMAS[Kind.OUTCOME]), [])

    def append(self) -> None:
        """Write what was let in to the commit."""
        for kind, batches, hashes in self._runs:
            batch = batches[0] if len(batches) == 1 else pa.concat_batches(batches)
            first = self.commit.append(kind, batch, hashes if kind is Kind.TRANSACTION else None)
            self._appended.append((first, len(batch)))

    def settle(self, outcomes: Sequence[Any]) -> list[Any]:
        """What became of the calls, once their commit is durable.

        Where a broker orders commits, payments of other writers may lie before these, and may have taken their ids: one
        of the same content is a repeat then, and a call with one of other content contradicts what is recorded.

        Args:
            outcomes: What `take` gave for each call.
        """
        if [(events.offset, len(events.batch)) for events in self.commit.events] == self._appended:
            return list(outcomes)
        return [self._settled(each) if isinstance(each, Admitted) else each for each in outcomes]

    def _settled(self, admitted: Admitted) -> "Admitted | Problem":
        batch = admitted.call.batch
        ids, hashes = batch.column("transaction_id").to_pylist(), admitted.call.hashes or content_hashes(batch)
        found = self.commit.ids.find(ids)
        other = [i for i, name in enumerate(ids) if found[name].content_hash != hashes[i]]
        if other:
            there = self.recorded.take(np.array([found[ids[i]].offset for i in other[:CONFLICTS_SHOWN]])).to_pylist()
            shown = [Conflict(i, row, "recorded as") for i, row in zip(other, there, strict=False)]
            return conflict(batch, shown, len(other))
        mine = [range(e.offset, e.offset + len(e.batch)) for e in self.commit.events if e.kind is Kind.TRANSACTION]
        offsets = [found[name].offset for name in ids]
        known = [
            before or not any(offset in run for run in mine)
            for before, offset in zip(admitted.known, offsets, strict=True)
        ]
        return replace(admitted, offsets=offsets, known=known)

    def _add(self, kind: Kind, batch: pa.RecordBatch, hashes: Sequence[bytes]) -> None:
        if not self._runs or self._runs[-1][0] is not kind:
            self._runs.append((kind, [], []))
        self._runs[-1][1].append(batch)
        self._runs[-1][2].extend(hashes)
        self._rows += len(batch)

    def _find(self, ids: list[str]) -> dict[str, Known]:
        """Those of the ids that earlier commits recorded."""
        if new := [name for name in ids if name not in self._known]:
            found = self.commit.ids.find(new)
            self._known.update({name: found.get(name) for name in new})
        return {name: known for name in ids if (known := self._known[name]) is not None}

    def _check(self, call: ScoreCall | LabelCall | OutcomeCall) -> None:
        if isinstance(call, LabelCall | OutcomeCall):
            self._refuse_unknown(call)
            if isinstance(call, OutcomeCall):
                self._reported.fresh(call.batch)
        else:
            self._places(call.batch, call.hashes or content_hashes(call.batch))

    def _scored(self, call: ScoreCall) -> Admitted:
        batch, hashes = call.batch, call.hashes or content_hashes(call.batch)
        ids = batch.column("transaction_id").to_pylist()
        offsets, seen, fresh = self._places(batch, hashes)
        if fresh:
            self._ids.update({ids[i]: (offsets[i], hashes[i]) for i in fresh})
            if len(fresh) < len(ids):
                batch, taken = batch.take(pa.array(fresh)), [hashes[i] for i in fresh]
                self._add(Kind.TRANSACTION, batch, taken)
            else:
                self._add(Kind.TRANSACTION, batch, hashes)
        carried = call.given or [None] * len(ids)
        earlier = [c or self.given(name, digest) for c, name, digest in zip(carried, ids, hashes, strict=True)]
        return Admitted(call, offsets, seen, earlier)

    def _places(self, batch: pa.RecordBatch, hashes: Sequence[bytes]) -> tuple[list[int], list[bool], list[int]]:
        """Offsets of a call's payments, which of them were there before, and which are new, by their place in it.

        Raises:
            Problem: One is there with other content.
        """
        ids = batch.column("transaction_id").to_pylist()
        known = self._find(ids)
        offsets: list[int] = []
        seen: list[bool] = []
        fresh: list[int] = []
        other: list[int] = []
        mine: dict[str, tuple[int, bytes]] = {}
        at = self.commit.end + self._rows
        for i, (name, digest) in enumerate(zip(ids, hashes, strict=True)):
            there = (
                (known[name].offset, known[name].content_hash) if name in known else self._ids.get(name, mine.get(name))
            )
            if there is not None and there[1] != digest:
                other.append(i)
                continue
            seen.append(there is not None)
            if there is None:
                there = mine[name] = (at + len(fresh), digest)
                fresh.append(i)
            offsets.append(there[0])
        if other:
            raise conflict(batch, [self._conflict(batch, i, ids) for i in other[:CONFLICTS_SHOWN]], len(other))
        return offsets, seen, fresh

    def _conflict(self, batch: pa.RecordBatch, row: int, ids: list[str]) -> Conflict:
        """A payment of a call, and the one that has its id: recorded, of this commit, or earlier in the call."""
        name = ids[row]
        if known := self._find([name]).get(name):
            try:
                return Conflict(row, self.recorded.take(np.array([known.offset])).to_pylist()[0], "recorded as")
            except JournalError:  # what is damaged cannot be shown, but is no reason to refuse the calls of others
                return Conflict(row, {}, "recorded as")
        for kind, batches, _ in self._runs:
            for waiting in batches if kind is Kind.TRANSACTION else ():
                if (at := waiting.column("transaction_id").index(name).as_py()) >= 0:
                    return Conflict(row, waiting.slice(at, 1).to_pylist()[0], "recorded as")
        return within(batch, row, ids.index(name))

    def _payments(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Payments by id, all of which are recorded or in this commit."""
        there = [known.offset for known in self._find([*ids]).values()]
        try:
            recorded = self.recorded.take(np.array(there, np.int64)).to_pylist()
        except JournalError as error:  # no reason to refuse the calls of others
            raise Problem(503, "Unavailable", f"a payment that an outcome is of cannot be read: {error}") from None
        found = {row["transaction_id"]: row for row in recorded}
        if waiting := {*ids} - {*found}:
            for kind, batches, _ in self._runs:
                rows = [row for batch in batches for row in batch.to_pylist()] if kind is Kind.TRANSACTION else ()
                found |= {row["transaction_id"]: row for row in rows if row["transaction_id"] in waiting}
        return found

    def _mandated(self, call: MandateCall) -> Granted:
        granted, event = self._granted.take(call)
        if event is not None:
            self._add(Kind.MANDATE, event, [])
        return granted

    def _became(self, call: OutcomeCall) -> dict[str, int]:
        """Record what became of payments, each outcome once; see `serve.replica.reported`."""
        self._refuse_unknown(call)
        batch, fresh = self._reported.fresh(call.batch)
        if fresh:
            self._reported.add(fresh)
            self._add(Kind.OUTCOME, batch, [])
        return {"accepted": len(fresh), "repeated": len(call.batch) - len(fresh)}

    def _refuse_unknown(self, call: LabelCall | OutcomeCall) -> None:
        ids = call.batch.column("transaction_id").to_pylist()
        known = self._find(ids)
        missing = [
            (f"{n}.transaction_id", "no such payment")
            for n, i in enumerate(ids)
            if i not in known and i not in self._ids
        ]
        if missing:
            raise Problem(
                422,
                "Unknown transaction",
                f"no payment {ids[int(missing[0][0].split('.')[0])]!r} is recorded",
                missing,  # all of them, so that whoever sent them can leave them out
            )

    def _labelled(self, call: LabelCall) -> dict[str, int]:
        """Record labels, each once, whenever it was first recorded and whatever is believed by now.

        One that is older than another label of its payment is recorded, too; it will never be believed.
        """
        self._refuse_unknown(call)
        ids = call.batch.column("transaction_id").to_pylist()
        fraud = call.batch.column("is_fraud").to_pylist()
        reported = call.batch.column("reported_at").cast(pa.int64()).to_pylist()
        recorded = self.commit.labels.find([i for i in ids if i not in self._labels])
        fresh, superseded = [], 0
        for n, (name, label) in enumerate(zip(ids, zip(reported, fraud, strict=True), strict=True)):
            there = self._labels.setdefault(name, set(recorded.get(name, ())))
            if label not in there:
                fresh.append(n)
                superseded += any(label[0] < other for other, _ in there)
                there.add(label)
        if fresh:
            self._add(Kind.LABEL, call.batch.take(pa.array(fresh)) if len(fresh) < len(ids) else call.batch, [])
        return {
            "accepted": len(fresh) - superseded,
            "repeated": len(ids) - len(fresh),
            "superseded": superseded,
        }
