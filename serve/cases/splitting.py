"""A case that turns out to be two. Inside the writer's transaction."""

from collections.abc import Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from serve.cases.figures import note, part_figures, refresh
from serve.cases.gather import Paid
from serve.cases.links import add_link, link_shared
from serve.cases.models import CaseRow, EntityRow, RingRow
from serve.cases.records import CaseError, CaseState


def split_case(
    session: Session,
    case: CaseRow,
    members: set[tuple[str, str]],
    payments: Mapping[str, Sequence[Paid]],
    by: str,
    said: str,
    now: int,
) -> int:
    """Move members (role, name) of a case into a new one, and say so in both.

    Args:
        session: Of the writer.
        case: An open one.
        members: Which.
        payments: Of the accounts of each ring of the case.
        by: Who does it.
        said: What they said.
        now: Wall clock, us.

    Returns:
        The new case's number.

    Raises:
        CaseError: A member is none, or a part would have no account.
    """
    entities = session.scalars(select(EntityRow).where(EntityRow.case_id == case.id)).all()
    moving = [e for e in entities if (e.role, e.name) in members]
    if missing := sorted(members - {(e.role, e.name) for e in moving}):
        raise CaseError(f"C-{case.id} has no {missing[0][0]} {missing[0][1]!r}")
    if not any(e.role == "account" for e in entities if e not in moving) or not any(
        e.role == "account" for e in moving
    ):
        raise CaseError("each part needs at least one account")
    new = _new_case(session, case, now)
    for ring_id in sorted({e.ring_id for e in moving}):
        old = session.get_one(RingRow, (case.id, ring_id))
        session.add(_copy(old, new.id))
    for entity in moving:
        entity.case_id = new.id
    session.flush()
    for row in session.scalars(select(RingRow).where(RingRow.case_id.in_((case.id, new.id)))):
        if row.ring_id in payments and any(e.ring_id == row.ring_id for e in moving):
            accounts = {e.name for e in entities if e.case_id == row.case_id and e.role == "account"}
            part_figures(row, [p for p in payments[row.ring_id] if p.account in accounts])
    session.flush()
    names = ", ".join(sorted(f"{e.role} {e.name}" for e in moving))
    for one, words in ((case, f"split off into C-{new.id}"), (new, f"split off from C-{case.id}")):
        refresh(session, one, now)
        details = {"members": sorted([e.role, e.name] for e in moving), "other": new.id + case.id - one.id}
        note(session, one.id, now, by, "split", f"{words}: {names}" + (f". {said}" if said else ""), details)
    add_link(session, case.id, new.id, "case", f"C-{case.id}")
    link_shared(session, new.id)
    return new.id


def _new_case(session: Session, case: CaseRow, now: int) -> CaseRow:
    """A case with nothing in it yet, that is otherwise like another."""
    kept = ("title", "last_seen", "assignee", "confidence", "priority", "at_risk", "reasons", "seen")
    counted = dict.fromkeys(("accounts", "payments", "frauds"), 0)
    new = CaseRow(
        state=CaseState.OPEN, opened_at=now, updated_at=now, **counted, **{one: getattr(case, one) for one in kept}
    )
    session.add(new)
    session.flush()
    return new


def _copy(ring: RingRow, case_id: int) -> RingRow:
    """The same ring in another case, which gets none of its later members."""
    kept = {column.key: getattr(ring, column.key) for column in RingRow.__table__.columns}
    return RingRow(**{**kept, "case_id": case_id, "whole": False})
