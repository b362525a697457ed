"""Cases and alerts read from the database, as plain data."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.orm import Session

from serve.cases.figures import chunks
from serve.cases.models import AlertRow, CaseRow, EntityRow, EventRow, LinkRow, RingRow
from serve.cases.records import (
    Alert,
    CaseDetail,
    CaseEvent,
    CaseFilter,
    CaseLink,
    CaseMember,
    CaseState,
    CaseSummary,
)

S = TypeVar("S", bound=Select[*tuple[Any, ...]])


def queue(session: Session, wanted: CaseFilter, now: int, limit: int, offset: int) -> list[CaseSummary]:
    """Cases by priority: confidence times the largest money at risk in one currency."""
    ordered = _where(select(CaseRow), wanted, now).order_by(
        CaseRow.priority.desc(), CaseRow.confidence.desc(), CaseRow.id
    )
    return _summaries(session, list(session.scalars(ordered.limit(limit).offset(offset))))


def count(session: Session, wanted: CaseFilter, now: int) -> int:
    """How many there are of them."""
    return session.scalar(_where(select(func.count()).select_from(CaseRow), wanted, now)) or 0


def detail(session: Session, case_id: int) -> CaseDetail | None:
    """All of a case; None where there is none."""
    case = session.get(CaseRow, case_id)
    if case is None:
        return None
    events = session.scalars(select(EventRow).where(EventRow.case_id == case_id).order_by(EventRow.id))
    members = session.scalars(
        select(EntityRow)
        .where(EntityRow.case_id == case_id)
        .order_by(EntityRow.role != "account", EntityRow.joined_at, EntityRow.role, EntityRow.name)
    )
    links = session.scalars(
        select(LinkRow)
        .where(or_(LinkRow.low == case_id, LinkRow.high == case_id))
        .order_by(LinkRow.low, LinkRow.high, LinkRow.role, LinkRow.name)
    )
    return CaseDetail(
        _summaries(session, [case])[0],
        tuple(CaseEvent(e.at, e.by, e.kind, e.note, e.details, e.journal_offset) for e in events),
        tuple(CaseMember(m.role, m.name, m.member_role, m.joined_at, m.ring_id, m.current) for m in members),
        tuple(CaseLink(link.high if link.low == case_id else link.low, link.role, link.name) for link in links),
    )


def cases_of_ring(session: Session, ring_id: str) -> list[int]:
    """Cases that hold a ring, the one that gets later members first."""
    wanted = select(RingRow.case_id).where(RingRow.ring_id == ring_id)
    return list(session.scalars(wanted.order_by(RingRow.whole.desc(), RingRow.case_id)))


def cases_of_entity(session: Session, role: str, name: str) -> list[CaseSummary]:
    """Cases that hold an entity, the newest first."""
    held = select(EntityRow.case_id).where(EntityRow.role == role, EntityRow.name == name)
    wanted = select(CaseRow).where(CaseRow.id.in_(held)).order_by(CaseRow.id.desc())
    return _summaries(session, list(session.scalars(wanted)))


def assignees(session: Session) -> list[str]:
    """Who has a case."""
    wanted = select(CaseRow.assignee).where(CaseRow.assignee.is_not(None)).distinct().order_by(CaseRow.assignee)
    return [name for name in session.scalars(wanted) if name]


def alerts(session: Session, done: bool | None, case_id: int | None, limit: int, offset: int) -> list[Alert]:
    """Alerts, the newest first."""
    wanted = _alerts_where(select(AlertRow), done, case_id).order_by(
        AlertRow.raised_at.desc(), AlertRow.paid_at.desc(), AlertRow.transaction_id
    )
    return [
        Alert(
            a.transaction_id,
            a.case_id,
            a.ring_id,
            a.account,
            a.amount,
            a.currency,
            a.paid_at,
            a.probability,
            a.raised_at,
            a.done_at,
            a.done_by,
        )
        for a in session.scalars(wanted.limit(limit).offset(offset))
    ]


def at_stake(session: Session, done: bool | None, case_id: int | None) -> dict[str, tuple[int, int]]:
    """(alerts, minor units) by currency."""
    wanted = select(AlertRow.currency, func.count(), func.sum(AlertRow.amount)).group_by(AlertRow.currency)
    found = session.execute(_alerts_where(wanted, done, case_id)).tuples()
    return {currency: (n, int(total)) for currency, n, total in found}


def _alerts_where(wanted: S, done: bool | None, case_id: int | None) -> S:
    if done is not None:
        wanted = wanted.where(AlertRow.done_at.is_not(None) if done else AlertRow.done_at.is_(None))
    return wanted if case_id is None else wanted.where(AlertRow.case_id == case_id)


def _where(wanted: S, which: CaseFilter, now: int) -> S:
    asleep = and_(CaseRow.snoozed_until.is_not(None), CaseRow.snoozed_until > now)
    if which.state is not None:
        wanted = wanted.where(CaseRow.state == which.state)
    if which.snoozed is not None:
        wanted = wanted.where(asleep if which.snoozed else ~asleep)
    if which.assignee is not None:
        mine = CaseRow.assignee == which.assignee if which.assignee else CaseRow.assignee.is_(None)
        wanted = wanted.where(mine)
    return wanted.where(_says(which.text)) if which.text else wanted


def _says(text: str) -> ColumnElement[bool]:
    """Whether a case has a text anywhere."""
    number = text.upper().removeprefix("C-")
    parts = [
        CaseRow.id.in_(select(EntityRow.case_id).where(EntityRow.name.icontains(text, autoescape=True))),
        CaseRow.id.in_(select(RingRow.case_id).where(RingRow.ring_id == text)),
        CaseRow.id.in_(select(EventRow.case_id).where(EventRow.note.icontains(text, autoescape=True))),
        CaseRow.reasons.icontains(text, autoescape=True),
        CaseRow.title.icontains(text, autoescape=True),
    ]
    if number.isdecimal() and len(number) < 18:
        parts.append(CaseRow.id == int(number))
    return or_(*parts)


def _summaries(session: Session, rows: Sequence[CaseRow]) -> list[CaseSummary]:
    rings: dict[int, list[str]] = {row.id: [] for row in rows}
    for ids in chunks(list(rings)):
        held = select(RingRow).where(RingRow.case_id.in_(ids)).order_by(RingRow.first_seen, RingRow.ring_id)
        for ring in session.scalars(held):
            rings[ring.case_id].append(ring.ring_id)
    return [_summary(row, rings[row.id]) for row in rows]


def _summary(row: CaseRow, ring_ids: Sequence[str]) -> CaseSummary:
    return CaseSummary(
        row.id,
        CaseState(row.state),
        row.title,
        row.opened_at,
        row.updated_at,
        row.last_seen,
        row.assignee,
        row.snoozed_until,
        row.merged_into,
        row.confidence,
        tuple((currency, minor) for currency, minor in row.at_risk),
        row.accounts,
        row.payments,
        row.frauds,
        row.reasons,
        tuple(ring_ids),
    )


def kinds(session: Session, now: int) -> Counter[str]:
    """How many cases wait, sleep, and were closed how."""
    found = Counter(dict(session.execute(select(CaseRow.state, func.count()).group_by(CaseRow.state)).tuples().all()))
    asleep = count(session, CaseFilter(CaseState.OPEN, snoozed=True), now)
    found["snoozed"], found[CaseState.OPEN] = asleep, found[CaseState.OPEN] - asleep
    return found
