"""The pages that lead to a case: the queue, alerts, search and the list of keys."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from data.schema import ROLES
from serve.cases.records import CaseFilter, CaseState
from serve.console.desk import Desk, desk_of, show, tell
from serve.console.session import Form, Who
from serve.console.words import entity_url, payment_url, ring_url

PAGE: Final = 50  # cases or alerts of a page
STATES: Final = ("open", "snoozed", "confirmed", "dismissed", "merged", "all")
Page = Annotated[int, Query(ge=1, le=100_000)]

router = APIRouter()


@router.get("/")
def first(request: Request) -> Response:
    """Leads to the queue."""
    return RedirectResponse("/queue", 303)


@router.get("/queue")
def queue(request: Request, who: Who, state: str = "open", assignee: str = "", q: str = "", page: Page = 1) -> Response:
    """Cases by money at risk and confidence."""
    desk = desk_of(request)
    wanted = filter_of(state, {"": None, "-": "", "me": who}.get(assignee, assignee), q)
    cases, total = desk.book.queue(wanted, PAGE, PAGE * (page - 1)), desk.book.count(wanted)
    return show(
        request,
        "queue.html",
        cases=cases,
        total=total,
        page=page,
        pages=-(-total // PAGE),
        state=state if state in STATES else "open",
        states=STATES,
        kinds=desk.book.kinds(),
        assignee=assignee,
        assignees=desk.book.assignees(),
        q=q,
    )


def filter_of(state: str, assignee: str | None, text: str) -> CaseFilter:
    """Which cases a page or a program asks for; an unknown state means open ones."""
    text = text.strip()[:200]
    if state == "all":
        return CaseFilter(None, None, assignee, text)
    if state == "snoozed":
        return CaseFilter(CaseState.OPEN, True, assignee, text)
    if state in ("confirmed", "dismissed", "merged"):
        return CaseFilter(CaseState(state), None, assignee, text)
    return CaseFilter(CaseState.OPEN, False, assignee, text)


@router.get("/search")
def search(request: Request, who: Who, q: str = "") -> Response:
    """Whatever has an id: a case, a ring, a payment, or an entity in any role; else cases with that text."""
    desk, q = desk_of(request), q.strip()[:200]
    exact = _exact(desk, q) if q else []
    if len(exact) == 1:
        return RedirectResponse(exact[0][2], 303)
    cases = desk.book.queue(CaseFilter(None, None, None, q), PAGE) if q else []
    return show(request, "search.html", q=q, exact=exact, cases=cases)


def _exact(desk: Desk, q: str) -> list[tuple[str, str, str]]:
    """(what, name, address) of all that has exactly this id."""
    found = []
    cases = desk.book.queue(CaseFilter(None, None, None, q), PAGE) if q.upper().startswith("C-") else []
    found += [("case", case.key, f"/cases/{case.id}") for case in cases if case.key == q.upper()]
    if (ring := desk.investigation.ring(q)) is not None:
        found.append(("ring", ring.id, ring_url(ring.id)))
    if desk.investigation.payment(q) is not None:
        found.append(("payment", q, payment_url(q)))
    for role in ROLES:
        if desk.investigation.entity(role.name, q, 1) is not None:
            found.append((role.name, q, entity_url(q, role.name)))
    return found


@router.get("/alerts")
def alerts(request: Request, who: Who, state: str = "new", page: Page = 1) -> Response:
    """Earlier payments of rings that were confirmed."""
    desk, done = desk_of(request), {"new": False, "done": True}.get(state)
    stake = desk.book.at_stake(done)
    total = sum(n for n, _ in stake.values())
    return show(
        request,
        "alerts.html",
        alerts=desk.book.alerts(done, limit=PAGE, offset=PAGE * (page - 1)),
        stake=sorted(((c, minor) for c, (_, minor) in stake.items()), key=lambda pair: (-pair[1], pair[0])),
        total=total,
        page=page,
        pages=-(-total // PAGE),
        state=state if state in ("new", "done", "all") else "all",
    )


@router.post("/alerts/{transaction_id:path}/done")
def finish(request: Request, who: Who, form: Form, transaction_id: str) -> Response:
    """Says that an alert was dealt with."""
    desk_of(request).book.finish_alert(transaction_id, who)
    tell(request, f"The alert of payment {transaction_id} is done.")
    return RedirectResponse("/alerts", 303)


@router.get("/help")
def keys(request: Request, who: Who) -> Response:
    """What each key does."""
    return show(request, "help.html")
