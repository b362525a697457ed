"""Cases and alerts as JSON, for programs with a key of the scope `investigate`. Errors are problems (RFC 9457)."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from serve.cases.records import Alert, CaseDetail, CaseSummary
from serve.console.desk import desk_of
from serve.console.queue import STATES, filter_of
from serve.problems import Problem

MOST = 1_000  # items of one page
Limit = Annotated[int, Query(ge=1, le=MOST)]
Offset = Annotated[int, Query(ge=0, le=10_000_000)]


def holder(request: Request) -> str:
    """Whose key a request brings. A browser's session counts for nothing here, so no page can act through it.

    Raises:
        Problem: Nobody's, or one that may not investigate.
    """
    desk = desk_of(request)
    if desk.settings.insecure:
        return desk.settings.somebody
    found = desk.keys.of(dict(request.scope["headers"]))
    if found is None:
        raise Problem(401, "Unauthorized", "send a valid key", headers={"WWW-Authenticate": "Bearer"})
    if not found.may("investigate"):
        raise Problem(403, "Forbidden", f"the key {found.name!r} may not do this: it takes one with scope investigate")
    return found.name


Holder = Annotated[str, Depends(holder)]
router = APIRouter(prefix="/v1", tags=["cases"])


class Money(BaseModel):
    """Minor units of a currency."""

    currency: str
    amount: int


class CaseOut(BaseModel):
    """A case of the queue. Moments are microseconds since 1970, UTC; money is in minor units."""

    id: int
    state: str
    title: str
    opened_at: int
    updated_at: int
    last_seen: int
    assignee: str | None
    snoozed_until: int | None
    merged_into: int | None
    confidence: float
    at_risk: list[Money]
    accounts: int
    payments: int
    frauds: int
    reasons: str
    ring_ids: list[str]


class CasesOut(BaseModel):
    """A page of cases, and how many there are in all."""

    total: int
    cases: list[CaseOut]


class CaseDetailOut(CaseOut):
    """All of a case."""

    events: list[dict[str, Any]]
    members: list[dict[str, Any]]
    links: list[dict[str, Any]]


class AlertOut(BaseModel):
    """An earlier payment of a member of a ring that has been confirmed since."""

    transaction_id: str
    case_id: int
    ring_id: str
    account: str
    amount: int
    currency: str
    paid_at: int
    probability: float | None
    raised_at: int
    done_at: int | None
    done_by: str | None


class AlertsOut(BaseModel):
    """A page of alerts, how many there are in all, and the money at stake by currency."""

    total: int
    at_stake: list[Money]
    alerts: list[AlertOut]


class Body(BaseModel):
    """What an act takes; each takes its own part of it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    transaction_ids: list[str] = Field([], max_length=5_000, description="confirm, dismiss: the payments it labels")
    note: str = Field("", max_length=4_000, description="confirm, dismiss, merge, split, reopen, comment: for people")
    request_id: str = Field("", max_length=64, description="confirm, dismiss: the same one again changes nothing")
    to: str | None = Field(None, description="assign: whom to; null for nobody")
    until: int | None = Field(None, description="snooze: until this moment, us since 1970")
    into: int | None = Field(None, description="merge: the case that takes it up")
    members: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = Field(
        [], max_length=5_000, description="split: [role, name] of each that leaves"
    )


TAKES = {
    "confirm": {"transaction_ids", "note", "request_id"},
    "dismiss": {"transaction_ids", "note", "request_id"},
    "comment": {"note"},
    "assign": {"to"},
    "snooze": {"until"},
    "reopen": {"note"},
    "merge": {"into", "note"},
    "split": {"members", "note"},
}


@router.get("/alerts")
def alerts(
    request: Request,
    by: Holder,
    state: str = "new",
    case_id: Annotated[int | None, Query(ge=1)] = None,
    limit: Limit = 100,
    offset: Offset = 0,
) -> AlertsOut:
    """Alerts, the newest first: state is new, done or all."""
    _known(request, "state", "case_id", "limit", "offset")
    states = {"new": False, "done": True, "all": None}
    done, book = states[_one_of("state", state, tuple(states))], desk_of(request).book
    stake = book.at_stake(done, case_id)
    return AlertsOut(
        total=sum(n for n, _ in stake.values()),
        at_stake=[Money(currency=c, amount=minor) for c, (_, minor) in sorted(stake.items())],
        alerts=[_alert(alert) for alert in book.alerts(done, case_id, limit, offset)],
    )


@router.post("/alerts/{transaction_id:path}/done")
def finish(request: Request, by: Holder, transaction_id: str) -> dict[str, str]:
    """Say that an alert was dealt with; saying it again changes nothing."""
    desk_of(request).book.finish_alert(transaction_id, by)
    return {"transaction_id": transaction_id, "state": "done"}


@router.get("/cases")
def cases(
    request: Request,
    by: Holder,
    state: str = "open",
    assignee: str | None = None,
    q: str = "",
    limit: Limit = 50,
    offset: Offset = 0,
) -> CasesOut:
    """Cases by confidence times the largest money at risk in one currency; an empty assignee means nobody's."""
    _known(request, "state", "assignee", "q", "limit", "offset")
    book, wanted = desk_of(request).book, filter_of(_one_of("state", state, STATES), assignee, q)
    return CasesOut(total=book.count(wanted), cases=[_case(one) for one in book.queue(wanted, limit, offset)])


@router.get("/cases/{case_id}")
def case(request: Request, by: Holder, case_id: int) -> CaseDetailOut:
    """All of a case."""
    _known(request)
    return _detail(desk_of(request).book.case(case_id))


@router.post("/cases/{case_id}/{act}")
def act(request: Request, by: Holder, case_id: int, act: str, body: Body) -> CaseDetailOut:
    """Confirm, dismiss, comment, assign, snooze, reopen, merge or split a case; gives it as it is then."""
    if act not in TAKES:
        raise Problem(404, "Not found", f"no act {act[:50]!r}; there are {', '.join(TAKES)}")
    for name in sorted(body.model_fields_set - TAKES[act]):
        raise Problem(422, "Invalid content", f"{name}: {act} does not take it", [(name, f"{act} does not take it")])
    desk = desk_of(request)
    book, world = desk.book, desk.investigation
    if act == "confirm":
        book.confirm(world, case_id, by, body.transaction_ids, body.note, body.request_id)
    elif act == "dismiss":
        book.dismiss(world, case_id, by, body.transaction_ids, body.note, body.request_id)
    elif act == "comment":
        book.comment(case_id, by, body.note)
    elif act == "assign":
        book.assign(case_id, by, body.to)
    elif act == "snooze":
        book.snooze(case_id, by, _given("until", body.until))
    elif act == "reopen":
        book.reopen(case_id, by, body.note)
    elif act == "merge":
        book.merge(case_id, _given("into", body.into), by, body.note)
    else:
        case_id = book.split(world, case_id, [(role, name) for role, name in body.members], by, body.note)
    return _detail(book.case(case_id))


def _case(one: CaseSummary) -> CaseOut:
    money = [Money(currency=currency, amount=minor) for currency, minor in one.at_risk]
    return CaseOut(**{**vars(one), "at_risk": money, "ring_ids": list(one.ring_ids)})


def _detail(one: CaseDetail) -> CaseDetailOut:
    parts = {name: [vars(part) for part in getattr(one, name)] for name in ("events", "members", "links")}
    return CaseDetailOut.model_validate(_case(one.summary).model_dump() | parts)


def _alert(one: Alert) -> AlertOut:
    return AlertOut(**vars(one))


def _given(name: str, value: int | None) -> int:
    if value is None:
        raise Problem(422, "Invalid content", f"{name}: is missing", [(name, "is missing")])
    return value


def _one_of(name: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        reason = f"must be one of {', '.join(known)}"
        raise Problem(422, "Invalid content", f"{name}: {reason}", [(name, reason)])
    return value


def _known(request: Request, *known: str) -> None:
    """Refuse what a query asks for and nobody would heed: it must not be taken for the answer to it."""
    for name in request.query_params:
        if name not in known:
            reason = f"is no parameter here; known are {', '.join(known)}" if known else "is no parameter here"
            raise Problem(422, "Invalid content", f"{name[:100]}: {reason}", [(name[:100], reason)])
