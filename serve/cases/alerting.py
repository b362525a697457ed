"""Earlier payments of a ring that turns out to be one become alerts. Inside the writer's transaction."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from graph.rings.records import MemberRole
from serve.cases.figures import accounts_of, chunks, note
from serve.cases.gather import SeenRing
from serve.cases.models import AlertRow, RingRow
from serve.cases.records import RINGWATCH


def raise_alerts(session: Session, row: RingRow, seen: SeenRing, now: int, but: Sequence[str] = ()) -> None:
    """Alerts of earlier approved payments of the case's accounts; of victims, only what the ring rests on."""
    if seen.payments is None or (row.alerted >= seen.record.version and not but):
        return
    row.alerted = max(row.alerted, seen.record.version)
    accounts, known = accounts_of(session, row.case_id, row.ring_id), set(but)
    due = {
        p.transaction_id: p
        for p in seen.payments
        if p.account in accounts
        and p.approved
        and not (p.fraud or p.legitimate or p.transaction_id in known)
        and (p.evidence or accounts[p.account] != MemberRole.VICTIM)
    }
    for ids in chunks(sorted(due)):
        for held in session.scalars(select(AlertRow.transaction_id).where(AlertRow.transaction_id.in_(ids))):
            del due[held]
    for paid in due.values():
        session.add(
            AlertRow(
                transaction_id=paid.transaction_id,
                case_id=row.case_id,
                ring_id=row.ring_id,
                account=paid.account,
                amount=paid.amount,
                currency=paid.currency,
                paid_at=paid.at,
                probability=paid.probability,
                raised_at=now,
            )
        )
    if due:
        why = "the ring was confirmed" if but else "more is known of the ring"
        said = f"{len(due)} earlier payments of its accounts, not known as fraud, are alerts: {why}"
        note(session, row.case_id, now, RINGWATCH, "alerts", said, {"transaction_ids": sorted(due)})
