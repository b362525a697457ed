"""Pages of what a case is made of: rings, their pictures, entities and payments."""

from typing import Final

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from data.schema import ROLES
from graph.errors import GraphError
from serve.cases.protocol import Investigation
from serve.console import words
from serve.console.cases import rows_of
from serve.console.desk import desk_of, show
from serve.console.growth import growth
from serve.console.session import Who

FRAME: Final = "sandbox allow-scripts allow-downloads; frame-ancestors 'self'"
"""A picture runs scripts, but as a page of nobody: it reaches neither cookies nor this site. It brings a policy of its
own, which lets it fetch nothing."""
SHOWN: Final = 200  # payments of an entity

router = APIRouter()


@router.get("/rings/{ring_id}")
def ring(request: Request, who: Who, ring_id: str) -> Response:
    """A ring: its case's page where it has one."""
    desk = desk_of(request)
    if cases := desk.book.cases_of_ring(ring_id):
        return RedirectResponse(f"/cases/{cases[0]}", 303)
    record = desk.investigation.ring(ring_id)
    if record is None:
        raise HTTPException(404, f"no ring {ring_id!r}")
    return show(
        request,
        "ring.html",
        ring=record,
        rows=rows_of(desk.investigation.ring_payments(ring_id)),
        growth=growth(desk.investigation.versions(ring_id)),
        picture=desk.picture is not None,
    )


@router.get("/rings/{ring_id}/picture")
def picture(request: Request, who: Who, ring_id: str) -> Response:
    """The picture that plays, for a frame."""
    desk = desk_of(request)
    record = desk.investigation.ring(ring_id)
    if record is None or desk.picture is None:
        raise HTTPException(404, f"no picture of ring {ring_id!r}")
    headers = {"content-security-policy": FRAME}
    try:
        page = desk.picture(record, desk.investigation.ring_payments(ring_id, neighbours=True))
    except GraphError as error:  # its JavaScript was not built
        return PlainTextResponse(f"There is no picture: {error}", 503, headers)
    return HTMLResponse(page, headers=headers)


@router.get("/entities/{role}/{name:path}")
def entity(request: Request, who: Who, role: str, name: str) -> Response:
    """An account, device, merchant, ... with its payments, ties, rings and cases."""
    desk = desk_of(request)
    if role not in [one.name for one in ROLES]:
        raise HTTPException(404, f"no role {role!r}; roles are {', '.join(one.name for one in ROLES)}")
    found = desk.investigation.entity(role, name, SHOWN)
    if found is None:
        raise HTTPException(404, f"no {role} {name!r} in the graph: it was never seen, or has left the window")
    payments = words.rows(found.payments)
    known = desk.investigation.profile(name) if role == "account" else None
    return show(
        request,
        "entity.html",
        entity=found,
        profile=known,
        advice=(desk.investigation.guidance(name) if known is not None else None) or (),
        payments=payments,
        frauds=sum(row["fraud_reported_at"] is not None for row in payments),
        cases=desk.book.cases_of_entity(role, name),
    )


@router.get("/payments/{transaction_id:path}")
def payment(request: Request, who: Who, transaction_id: str) -> Response:
    """A payment with its score, label and entities."""
    desk = desk_of(request)
    found = desk.investigation.payment(transaction_id)
    if found is None or not len(found):
        raise HTTPException(404, f"no payment {transaction_id!r} in the journal")
    row = words.rows(found)[0]
    entities = [(role.name, row[role.column]) for role in ROLES if row[role.column] is not None]
    of_account = desk.investigation.entity("account", str(row["account_id"]), 1)
    return show(
        request,
        "payment.html",
        payment=row,
        entities=entities,
        rings=() if of_account is None else of_account.rings,
        cases=desk.book.cases_of_entity("account", str(row["account_id"])),
        unusual=_unusual(desk.investigation, str(row["account_id"]), transaction_id),
    )


def _unusual(investigation: Investigation, account: str, transaction_id: str) -> str | None:
    """Why a payment was unusual for its account, by what was expected before it; None where it was not."""
    known = investigation.profile(account)
    found = () if known is None else known.unusual
    return next((one.reason for one in found if one.transaction_id == transaction_id), None)
