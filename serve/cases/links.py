"""Cases that share an entity are linked; two that are one become one. Inside the writer's transaction."""

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from serve.cases.figures import chunks, note, refresh
from serve.cases.models import CaseRow, EntityRow, LinkRow, RingRow
from serve.cases.records import CaseState


def link_shared(session: Session, case_id: int) -> None:
    """Link a case with all others that hold one of its entities now."""
    mine = session.execute(select(EntityRow.role, EntityRow.name).where(EntityRow.case_id == case_id)).tuples()
    link(session, case_id, {(role, name) for role, name in mine})


def add_link(session: Session, one: int, other: int, role: str, name: str) -> None:
    """Link two cases, once for each thing that they share."""
    low, high = sorted((one, other))
    if low != high and session.get(LinkRow, (low, high, role, name)) is None:
        session.add(LinkRow(low=low, high=high, role=role, name=name))
        session.flush()


def link(session: Session, case_id: int, entities: Iterable[tuple[str, str]]) -> None:
    """Link a case with others that hold some of these (role, name)."""
    by_role: dict[str, list[str]] = {}
    for role, name in sorted(entities):
        by_role.setdefault(role, []).append(name)
    for role, all_names in by_role.items():
        for names in chunks(all_names):
            others = select(EntityRow.case_id, EntityRow.name).where(
                EntityRow.role == role, EntityRow.name.in_(names), EntityRow.case_id != case_id
            )
            for other, name in session.execute(others.distinct()).tuples().all():
                add_link(session, case_id, other, role, name)


def merge_cases(session: Session, case: CaseRow, into: CaseRow, by: str, said: str, now: int) -> None:
    """Move all that one case holds to another, and close it."""
    for row in session.scalars(select(RingRow).where(RingRow.case_id == case.id)).all():
        if (mine := session.get(RingRow, (into.id, row.ring_id))) is not None:
            mine.whole = mine.whole or row.whole
            session.delete(row)
        else:
            row.case_id = into.id
    for entity in session.scalars(select(EntityRow).where(EntityRow.case_id == case.id)).all():
        if session.get(EntityRow, (into.id, entity.ring_id, entity.role, entity.name)) is not None:
            session.delete(entity)
        else:
            entity.case_id = into.id
    session.flush()
    case.state, case.merged_into, case.updated_at, case.snoozed_until = CaseState.MERGED, into.id, now, None
    into.seen = sorted({*into.seen, *case.seen})
    note(session, case.id, now, by, "merged", said, {"into": into.id})
    note(session, into.id, now, by, "merged", said, {"from": case.id})
    add_link(session, case.id, into.id, "case", f"C-{case.id}")
    refresh(session, into, now)
    link_shared(session, into.id)
