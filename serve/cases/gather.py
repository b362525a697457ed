"""What the case book needs to know of an investigation, read before it takes the lock of its database.

An investigation may hold a lock of its own while it follows the journal. Two locks are never held together: what is
read here is written by `serve.cases.intake`, which asks the investigation nothing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import select
from sqlalchemy.orm import Session

from graph.rings.records import RingRecord, RingState
from serve.cases.models import CaseRow, RingRow, VerdictRow
from serve.cases.protocol import GivenVerdict, Investigation, RingFilter
from serve.cases.records import CaseRules, CaseState

PAGE: Final = 500  # rings of one call
Decisions = Callable[[Sequence[str]], Mapping[str, str]]
"""Transaction ids to the decisions that were given (`approve`, ...); one that is missing was not decided here."""


@dataclass(frozen=True)
class Paid:
    """A payment, as far as cases need it; the columns are those of `RING_PAYMENTS`."""

    transaction_id: str
    account: str
    amount: int
    currency: str
    at: int
    probability: float | None
    fraud: bool
    legitimate: bool
    evidence: bool
    approved: bool


@dataclass(frozen=True)
class SeenRing:
    """A ring as it is, and its accounts' payments where they are needed.

    Attributes:
        record: The ring.
        payments: All payments of its accounts; None where nothing depends on them.
    """

    record: RingRecord
    payments: tuple[Paid, ...] | None = None


@dataclass(frozen=True)
class SeenVerdict:
    """A verdict that the database does not mirror yet.

    Attributes:
        given: As the journal has it.
        rings: The ring that it names, as it was then, and the others of its cases; without those that nobody knows.
    """

    given: GivenVerdict
    rings: tuple[SeenRing, ...]

    @property
    def ring(self) -> SeenRing | None:
        """The ring that it names."""
        return next((ring for ring in self.rings if ring.record.id == self.given.ring_id), None)


def by_reports(record: RingRecord, rules: CaseRules) -> bool:
    """Whether so much of a ring is reported as fraud that it counts as confirmed without a verdict."""
    known = len(set(record.evidence) & set(record.known_frauds))
    return known >= rules.reports and 2 * known >= len(record.evidence)


def verdicts(session: Session, investigation: Investigation, decisions: Decisions | None) -> list[SeenVerdict]:
    """Verdicts of the journal that the database lacks, in its order."""
    held = set(session.scalars(select(VerdictRow.journal_offset)))
    found = []
    for given in investigation.verdicts():
        if given.offset in held:
            continue
        as_of = min(given.at, investigation.clock)
        cases = select(RingRow.case_id).where(RingRow.ring_id == given.ring_id)
        others = set(session.scalars(select(RingRow.ring_id).where(RingRow.case_id.in_(cases))))
        records = [
            investigation.ring(one, as_of=as_of) or investigation.ring(one)
            for one in (given.ring_id, *sorted(others - {given.ring_id}))
        ]
        rings = (SeenRing(r, payments_of(investigation, r.id, decisions)) for r in records if r is not None)
        found.append(SeenVerdict(given, tuple(rings)))
    return found


def changed_rings(
    session: Session,
    investigation: Investigation,
    rules: CaseRules,
    decisions: Decisions | None,
    since: int | None = None,
) -> list[SeenRing]:
    """Rings that are above the confidence or have a case, where they are not as the database has them.

    Args:
        session: Only reads.
        investigation: Knows the rings.
        rules: From which confidence.
        decisions: For alerts.
        since: Of rings without a case, only those with evidence since this moment of the journal, us; by default all.
    """
    columns = select(RingRow.ring_id, RingRow.case_id, RingRow.version, RingRow.state)
    rows: dict[str, list[_Held]] = {}
    for ring_id, case_id, version, state in session.execute(columns).tuples():
        rows.setdefault(ring_id, []).append(_Held(case_id, version, state == RingState.ENDED))
    confirmed = set(session.scalars(select(CaseRow.id).where(CaseRow.state == CaseState.CONFIRMED)))
    found = []
    for record in _records(investigation, RingFilter(confidence=rules.open_at, since=since), rows):
        mine = rows.get(record.id, [])
        if mine and all(row.version == record.version for row in mine):
            continue
        alerting = by_reports(record, rules) or any(row.case_id in confirmed for row in mine)
        needed = alerting or len(mine) > 1
        found.append(SeenRing(record, payments_of(investigation, record.id, decisions) if needed else None))
    return sorted(found, key=lambda ring: (ring.record.first_seen, ring.record.id))


@dataclass(frozen=True)
class _Held:
    """What the database has of a ring in a case."""

    case_id: int
    version: int
    ended: bool


def _records(
    investigation: Investigation, wanted: RingFilter, rows: Mapping[str, Sequence[_Held]]
) -> Iterable[RingRecord]:
    listed, after = set[str](), None
    while True:
        try:
            page = investigation.rings(wanted, PAGE, after)
        except KeyError:  # it has moved on since the last page: the next sync takes what is left
            break
        yield from (record for record in page if record.id not in listed)
        listed.update(record.id for record in page)
        if len(page) < PAGE:
            break
        after = page[-1].id
    for ring_id, mine in rows.items():
        if ring_id in listed or all(row.ended for row in mine):
            continue
        if (record := investigation.ring(ring_id)) is not None:
            yield record


def payments_of(investigation: Investigation, ring_id: str, decisions: Decisions | None) -> tuple[Paid, ...]:
    """All payments of a ring's accounts that the graph holds; none where the ring has gone meanwhile."""
    try:
        table, own = investigation.ring_payments(ring_id, neighbours=True), investigation.ring(ring_id)
    except KeyError:
        return ()
    accounts = pa.array([] if own is None else list(own.accounts), pa.string())
    table = table.filter(pc.is_in(table["account_id"], accounts))
    ids = table["transaction_id"].to_pylist()
    given = None if decisions is None else decisions(ids)
    columns = (
        ids,
        table["account_id"].to_pylist(),
        table["amount"].to_pylist(),
        table["currency"].to_pylist(),
        table["timestamp"].cast(pa.int64()).to_pylist(),
        table["probability"].to_pylist(),
        pc.is_valid(table["fraud_reported_at"]).to_pylist(),
        table["known_legitimate"].to_pylist(),
        table["evidence"].to_pylist(),
        [given is None or given.get(one, "approve") == "approve" for one in ids],
    )
    return tuple(Paid(*row) for row in zip(*columns, strict=True))
