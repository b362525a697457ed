"""A case's figures, and the record of what happens to it; inside the writer's transaction."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from serve.cases.gather import Paid
from serve.cases.models import CaseRow, EntityRow, EventRow, RingRow
from serve.cases.records import priority

T = TypeVar("T")
CHUNK = 500  # values of one IN (...)


def note(
    session: Session,
    case_id: int,
    at: int,
    by: str,
    kind: str,
    text: str,
    details: dict[str, Any] | None = None,
    journal_offset: int | None = None,
) -> None:
    """Add to what happened to a case."""
    session.add(
        EventRow(
            case_id=case_id,
            at=at,
            by=by,
            kind=kind,
            note=text,
            details=details or {},
            journal_offset=journal_offset,
        )
    )


def refresh(session: Session, case: CaseRow, now: int) -> None:
    """Figures of a case from its rings and entities."""
    rings = list(session.scalars(select(RingRow).where(RingRow.case_id == case.id)))
    if not rings:
        return
    best = max(rings, key=lambda ring: (ring.confidence, ring.ring_id))
    money: Counter[str] = Counter()
    for ring in rings:
        money.update(dict(ring.at_risk))
    ordered = tuple(sorted(((c, n) for c, n in money.items() if n), key=lambda pair: (-pair[1], pair[0])))
    case.confidence, case.reasons = best.confidence, best.reasons
    case.at_risk, case.priority = [list(pair) for pair in ordered], priority(best.confidence, ordered)
    case.payments, case.frauds = sum(r.payments for r in rings), sum(r.frauds for r in rings)
    case.last_seen, case.updated_at = max(r.last_seen for r in rings), now
    counted = dict(
        session.execute(
            select(EntityRow.role, func.count(EntityRow.name.distinct()))
            .where(EntityRow.case_id == case.id)
            .group_by(EntityRow.role)
        )
        .tuples()
        .all()
    )
    case.accounts, case.title = counted.get("account", 0), _title(counted)


def part_figures(row: RingRow, payments: Iterable[Paid]) -> None:
    """Figures of a part of a ring that was split over cases, from the payments of its own accounts."""
    money: Counter[str] = Counter()
    row.payments = row.frauds = 0
    for payment in payments:
        row.frauds += payment.fraud
        if payment.evidence:
            row.payments += 1
            money[payment.currency] += payment.amount
    row.at_risk = [list(pair) for pair in sorted(money.items())]


def accounts_of(session: Session, case_id: int, ring_id: str) -> dict[str, str]:
    """Accounts of a ring that are in a case, with what they are to it."""
    wanted = select(EntityRow.name, EntityRow.member_role).where(
        EntityRow.case_id == case_id, EntityRow.ring_id == ring_id, EntityRow.role == "account"
    )
    return dict(session.execute(wanted).tuples().all())


def chunks(names: Sequence[T]) -> Iterable[Sequence[T]]:
    """Names in runs that a database takes in one question."""
    for start in range(0, len(names), CHUNK):
        yield names[start : start + CHUNK]


def _title(counted: dict[str, int]) -> str:
    """Such as "7 accounts, 2 devices, 1 merchant"."""
    order = sorted(counted.items(), key=lambda pair: (pair[0] != "account", -pair[1], pair[0]))
    return ", ".join(f"{n} {_named(role, n)}" for role, n in order)


def _named(role: str, count: int) -> str:
    if count == 1:
        return "IP address" if role == "ip" else role
    return {"ip": "IP addresses"}.get(role, role + "s")
