"""Rings and verdicts taken into the database: cases open, come back, are linked and closed here.

Every function works inside the writer's transaction and asks the investigation nothing (`serve.cases.gather`).
"""

from collections import Counter
from collections.abc import Sequence

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from graph.rings.records import RingRecord
from serve.cases.alerting import raise_alerts
from serve.cases.figures import accounts_of, chunks, note, part_figures, refresh
from serve.cases.gather import SeenRing, SeenVerdict, by_reports
from serve.cases.links import add_link, link, merge_cases
from serve.cases.models import CaseRow, EntityRow, EventRow, RingRow, VerdictRow
from serve.cases.records import RINGWATCH, CaseRules, CaseState


def take_ring(session: Session, seen: SeenRing, rules: CaseRules, now: int, must: bool = False) -> int | None:
    """Bring a ring's case up to date, or open one where it deserves one.

    Args:
        session: Of the writer.
        seen: The ring.
        rules: What deserves one.
        now: Wall clock, us.
        must: Open one whatever the confidence: there is a verdict.

    Returns:
        The case that gets members which join later; None where there is none.
    """
    record = seen.record
    rows = _rows_of(session, record.id)
    if not rows:
        if not must and (record.confidence < rules.open_at or record.merged_into is not None):
            return None
        rows = [_join(session, record, rules, now)]
    for row in rows:
        case = session.get_one(CaseRow, row.case_id)
        fresh = _entities(session, row, rows, record)
        _figures(session, row, seen, alone=len(rows) == 1)
        session.flush()
        refresh(session, case, now)
        link(session, case.id, fresh)
        if case.state == CaseState.DISMISSED:
            _come_back(session, case, record, rules, now)
        if case.state == CaseState.CONFIRMED or (case.state == CaseState.OPEN and by_reports(record, rules)):
            raise_alerts(session, row, seen, now)
    _follow_lineage(session, rows[0], record, now)
    return rows[0].case_id


def take_verdict(session: Session, seen: SeenVerdict, rules: CaseRules, now: int) -> None:
    """Mirror a verdict, and do what follows from it unless that was done before."""
    given = seen.given
    case_id = _case_of(session, given.verdict_id, given.ring_id)
    if case_id is None and seen.ring is not None:
        case_id = take_ring(session, seen.ring, rules, now, must=True)
    session.add(
        VerdictRow(
            journal_offset=given.offset,
            verdict_id=given.verdict_id,
            ring_id=given.ring_id,
            case_id=case_id,
            verdict=given.verdict,
            transaction_ids=list(given.transaction_ids),
            by=given.by,
            note=given.note,
            at=given.at,
        )
    )
    done = session.scalar(select(exists().where(EventRow.journal_offset == given.offset)))
    if case_id is None or done:
        return
    case, fraud = session.get_one(CaseRow, case_id), given.verdict == "fraud"
    case.state = CaseState.CONFIRMED if fraud else CaseState.DISMISSED
    case.snoozed_until, case.updated_at = None, now
    details = {"ring_id": given.ring_id, "transaction_ids": list(given.transaction_ids)}
    note(session, case_id, given.at, given.by, case.state, given.note, details, given.offset)
    known = set(given.transaction_ids)
    for ring in seen.rings:
        row = session.get(RingRow, (case_id, ring.record.id))
        if row is not None and fraud:
            raise_alerts(session, row, ring, now, but=given.transaction_ids)
        elif row is not None:
            known.update(ring.record.evidence, ring.record.known_frauds)
    if not fraud:
        case.seen = sorted({*case.seen, *known})


def _rows_of(session: Session, ring_id: str) -> list[RingRow]:
    """Where a ring is, the case that gets later members first."""
    wanted = select(RingRow).where(RingRow.ring_id == ring_id).order_by(RingRow.whole.desc(), RingRow.case_id)
    return list(session.scalars(wanted))


def _case_of(session: Session, verdict_id: str, ring_id: str) -> int | None:
    """The case that a verdict was given in: its id says so where it was split; else the ring's."""
    cases = [row.case_id for row in _rows_of(session, ring_id)]
    named = verdict_id.partition(":")[0].removeprefix("C-")
    if named.isdecimal() and int(named) in cases:
        return int(named)
    return cases[0] if cases else None


def _join(session: Session, record: RingRecord, rules: CaseRules, now: int) -> RingRow:
    """A new ring's place: in the dismissed case of the same accounts, or in a new one."""
    case_id = _dismissed_before(session, record, rules)
    if case_id is None:
        case = CaseRow(
            state=CaseState.OPEN,
            title="",
            opened_at=now,
            updated_at=now,
            last_seen=record.last_seen,
            confidence=record.confidence,
            priority=0.0,
            at_risk=[],
            accounts=0,
            payments=0,
            frauds=0,
            reasons=record.reasons,
            seen=[],
        )
        session.add(case)
        session.flush()
        case_id = case.id
        said = f"ring {record.id} has a confidence of {record.confidence:.2f}"
        note(session, case_id, now, RINGWATCH, "opened", said, {"ring_id": record.id})
    else:
        said = f"ring {record.id} has mostly the accounts of this case, which was dismissed"
        note(session, case_id, now, RINGWATCH, "ring", said, {"ring_id": record.id})
    row = RingRow(
        case_id=case_id,
        ring_id=record.id,
        whole=True,
        state=record.state,
        version=0,
        alerted=0,
        first_seen=record.first_seen,
        confidence=0.0,
        last_seen=record.last_seen,
        at_risk=[],
        payments=0,
        frauds=0,
        reasons="",
    )
    session.add(row)
    session.flush()
    return row


def _dismissed_before(session: Session, record: RingRecord, rules: CaseRules) -> int | None:
    """The dismissed case that holds most of a new ring's accounts, if it is enough of them."""
    found: Counter[int] = Counter()
    for names in chunks(record.accounts):
        held = (
            select(EntityRow.case_id, EntityRow.name)
            .join(CaseRow, CaseRow.id == EntityRow.case_id)
            .where(EntityRow.role == "account", EntityRow.name.in_(names), CaseRow.state == CaseState.DISMISSED)
            .distinct()
        )
        found.update(case_id for case_id, _ in session.execute(held).tuples())
    if not found:
        return None
    case_id, shared = min(found.items(), key=lambda pair: (-pair[1], pair[0]))
    return case_id if shared >= rules.same_accounts * len(record.accounts) else None


def _entities(session: Session, row: RingRow, rows: Sequence[RingRow], record: RingRecord) -> set[tuple[str, str]]:
    """Members as the ring has them now; those of other parts of a split ring stay there. Returns the new ones."""
    held = select(EntityRow).where(EntityRow.ring_id == record.id)
    places = {(e.case_id, e.role, e.name): e for e in session.scalars(held)}
    elsewhere = {(role, name) for case_id, role, name in places if case_id != row.case_id}
    now_in, fresh = {(m.role, m.name): m for m in record.members}, set[tuple[str, str]]()
    for (role, name), member in now_in.items():
        mine = places.get((row.case_id, role, name))
        if mine is None:
            if row is not rows[0] or (role, name) in elsewhere:
                continue
            mine = EntityRow(
                case_id=row.case_id,
                ring_id=record.id,
                role=role,
                name=name,
                joined_at=member.joined_at,
                member_role="",
                current=True,
            )
            session.add(mine)
            fresh.add((role, name))
        mine.member_role, mine.current = member.member_role, True
    for (case_id, role, name), entity in places.items():
        if case_id == row.case_id and (role, name) not in now_in:
            entity.current = False
    return fresh


def _figures(session: Session, row: RingRow, seen: SeenRing, alone: bool) -> None:
    record = seen.record
    row.version, row.state, row.confidence = record.version, record.state, record.confidence
    row.last_seen, row.reasons = record.last_seen, record.reasons
    if alone or seen.payments is None:
        row.at_risk = [[m.currency, m.tried - m.stopped] for m in record.money]
        row.payments, row.frauds = len(record.evidence), len(record.known_frauds)
        return
    accounts = accounts_of(session, row.case_id, record.id)
    part_figures(row, [p for p in seen.payments if p.account in accounts])


def _come_back(session: Session, case: CaseRow, record: RingRecord, rules: CaseRules, now: int) -> None:
    """Open a dismissed case again where enough is new, and say what."""
    seen = set(case.seen)
    frauds = set(record.known_frauds) - seen
    payments = (set(record.evidence) | frauds) - seen
    if len(payments) < rules.reopen_payments and len(frauds) < rules.reopen_frauds:
        return
    case.state, case.updated_at = CaseState.OPEN, now
    said = (
        f"new since it was dismissed: {len(payments)} payments, {len(frauds)} of them reported as fraud "
        f"({rules.reopen_payments} payments or {rules.reopen_frauds} frauds bring a dismissed case back)"
    )
    note(
        session, case.id, now, RINGWATCH, "reopened", said, {"ring_id": record.id, "transaction_ids": sorted(payments)}
    )


def _follow_lineage(session: Session, row: RingRow, record: RingRecord, now: int) -> None:
    """Link with the cases of the rings that this one came from or went into; two open ones of one ring become one."""
    for parent in record.parents:
        for other in _rows_of(session, parent):
            add_link(session, row.case_id, other.case_id, "ring", parent)
    if record.merged_into is None:
        return
    case = session.get_one(CaseRow, row.case_id)
    for other in _rows_of(session, record.merged_into)[:1]:
        add_link(session, row.case_id, other.case_id, "ring", record.merged_into)
        into = session.get_one(CaseRow, other.case_id)
        if case.state == into.state == CaseState.OPEN and case is not into:
            said = f"ring {record.id} has merged into ring {record.merged_into}"
            merge_cases(session, case, into, RINGWATCH, said, now)
