"""A case: the ring, what it rests on, what was done, and the forms of an investigator."""

import uuid
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from fastapi import APIRouter, Request
from starlette.datastructures import FormData
from starlette.responses import RedirectResponse, Response

from graph.rings.records import RING_PAYMENTS, RingRecord
from serve.cases.records import CaseDetail, CaseError, CaseState, CaseSummary
from serve.console import words
from serve.console.desk import Desk, desk_of, show, tell
from serve.console.growth import growth
from serve.console.session import Form, Who

MOST_EVIDENCE: Final = 1_000  # payments with a box
NEAR: Final = 200  # cases of the queue among which the next one is looked for
ALIKE: Final = 5  # rings that look like this one
LIKE: Final = 0.5  # and how much at least, of 1
MOST_OTHERS: Final = 50  # other payments of the accounts
SNOOZES: Final = {"1": "1 day", "3": "3 days", "7": "1 week", "30": "30 days"}

router = APIRouter()


@dataclass(frozen=True)
class Rows:
    """Payments of a case for its table, newest first.

    Attributes:
        evidence: What the rings rest on.
        others: Other payments of the accounts.
        hidden: How many more there are.
        ticked: Ids of those that a verdict is about unless the investigator says otherwise: the evidence that nobody
            has judged yet, or all that is not known to be legitimate where everything was judged.
        judged: Whether everything was.
    """

    evidence: list[dict[str, Any]]
    others: list[dict[str, Any]]
    hidden: int
    ticked: frozenset[str]
    judged: bool


@router.get("/cases/{case_id}")
def case(request: Request, who: Who, case_id: int) -> Response:
    """A case with its rings."""
    desk = desk_of(request)
    detail = desk.book.case(case_id)
    rings = _rings(desk, detail)
    table = payments_of(desk, detail)
    return show(
        request,
        "case.html",
        case=detail.summary,
        detail=detail,
        ring=rings[0] if rings else None,
        rings=rings,
        rows=rows_of(table),
        growth=growth([v for ring in rings for v in desk.investigation.versions(ring.id)]),
        picture=desk.picture is not None,
        request_id=uuid.uuid4().hex,
        open=detail.summary.state is CaseState.OPEN,
        snoozed=(detail.summary.snoozed_until or 0) > desk.book.now,
        snoozes=SNOOZES,
        assignees=sorted({who, *desk.book.assignees()}),
        following=_following(desk, case_id),
        alerts=desk.book.at_stake(False, case_id),
    )


@router.get("/cases/{case_id}/comparison")
def comparison(request: Request, who: Who, case_id: int) -> Response:
    """What accounts of like age and volume look like beside those of a case; asked for by the page once it is shown."""
    desk = desk_of(request)
    detail = desk.book.case(case_id)
    rings = _rings(desk, detail)
    lines, alike = ([], []) if not rings else _beside(desk, rings[0])
    return show(
        request, "comparison.html", case=detail.summary, ring=rings[0] if rings else None, lines=lines, alike=alike
    )


@router.post("/cases/{case_id}/verdict")
def verdict(request: Request, who: Who, form: Form, case_id: int) -> Response:
    """Confirms or dismisses, and leads to the next case."""
    desk, chosen = desk_of(request), [str(one) for one in form.getlist("payment")]
    said, request_id = str(form.get("note", "")), str(form.get("request_id", ""))
    act = str(form.get("verdict", ""))
    if act == "fraud":
        desk.book.confirm(desk.investigation, case_id, who, chosen, said, request_id)
        found = sum(n for n, _ in desk.book.at_stake(False, case_id).values())
        tell(request, f"C-{case_id} is confirmed: {len(chosen)} payments are fraud; {found} alerts of it are open.")
    elif act == "legitimate":
        if not form.get("overturn"):
            _overturns_nothing(desk, chosen)
        desk.book.dismiss(desk.investigation, case_id, who, chosen, said, request_id)
        tell(request, f"C-{case_id} is dismissed: {len(chosen)} payments are legitimate.")
    else:
        raise CaseError("a verdict is fraud or legitimate")
    return RedirectResponse("/queue", 303)


@router.post("/cases/{case_id}/{act}")
def act(request: Request, who: Who, form: Form, case_id: int, act: str) -> Response:
    """Every other act, and back to the case."""
    desk = desk_of(request)
    if act not in ACTS:
        raise CaseError(f"a case cannot be made to {act[:50]!r}")
    done, to = ACTS[act](desk, case_id, who, form)
    tell(request, done)
    return RedirectResponse(f"/cases/{to}", 303)


def _comment(desk: Desk, case_id: int, who: str, form: FormData) -> tuple[str, int]:
    desk.book.comment(case_id, who, str(form.get("text", "")))
    return "Your comment is kept.", case_id


def _assign(desk: Desk, case_id: int, who: str, form: FormData) -> tuple[str, int]:
    to = str(form.get("to", "")).strip()
    desk.book.assign(case_id, who, to or None)
    return f"C-{case_id} is assigned to {to or 'nobody'}.", case_id


def _snooze(desk: Desk, case_id: int, who: str, form: FormData) -> tuple[str, int]:
    days = str(form.get("days", ""))
    if days not in SNOOZES:
        raise CaseError(f"snooze for {', '.join(SNOOZES.values())}")
    desk.book.snooze(case_id, who, desk.book.now + int(days) * words.DAY_US)
    return f"C-{case_id} comes back in {SNOOZES[days]}.", case_id


def _reopen(desk: Desk, case_id: int, who: str, form: FormData) -> tuple[str, int]:
    desk.book.reopen(case_id, who, str(form.get("note", "")))
    return f"C-{case_id} is open again.", case_id


def _merge(desk: Desk, case_id: int, who: str, form: FormData) -> tuple[str, int]:
    into = str(form.get("into", "")).strip().upper().removeprefix("C-")
    if not into.isdecimal() or len(into) > 17:
        raise CaseError("merge into: give the number of another case, such as C-12")
    desk.book.merge(case_id, int(into), who, str(form.get("note", "")))
    return f"C-{case_id} went into C-{into}.", int(into)


def _split(desk: Desk, case_id: int, who: str, form: FormData) -> tuple[str, int]:
    members = [str(one).partition(":") for one in form.getlist("member")]
    chosen = [(role, name) for role, _, name in members]
    new = desk.book.split(desk.investigation, case_id, chosen, who, str(form.get("note", "")))
    return f"{len(members)} members went into this new case.", new


ACTS: Final = {
    "comment": _comment,
    "assign": _assign,
    "snooze": _snooze,
    "reopen": _reopen,
    "merge": _merge,
    "split": _split,
}


def payments_of(desk: Desk, detail: CaseDetail) -> pa.Table:
    """Payments of a case's own accounts, of `RING_PAYMENTS`, oldest first, each once."""
    accounts = pa.array([m.name for m in detail.members if m.role == "account"], pa.string())
    found = []
    for ring_id in detail.summary.ring_ids:
        try:
            found.append(desk.investigation.ring_payments(ring_id, neighbours=True))
        except KeyError:
            continue
    table = pa.concat_tables(found) if found else RING_PAYMENTS.empty_table()
    table = table.filter(pc.is_in(table["account_id"], accounts))
    if len(found) > 1:  # what two rings share is evidence if it is of one of them
        table = table.sort_by([("evidence", "descending")])
        first: dict[str, int] = {}
        for i, one in enumerate(table["transaction_id"].to_pylist()):
            first.setdefault(one, i)
        table = table.take(pa.array(list(first.values()), pa.int64()))
    return table.sort_by([("timestamp", "ascending"), ("transaction_id", "ascending")])


def rows_of(table: pa.Table) -> Rows:
    """A case's payments for its table."""
    everything = words.rows(table)
    evidence = [row for row in everything if row["evidence"]]
    others = [row for row in everything if not row["evidence"]]
    shown = evidence[:MOST_EVIDENCE]
    undecided = {r["transaction_id"] for r in shown if r["fraud_reported_at"] is None and not r["known_legitimate"]}
    ticked = undecided or {r["transaction_id"] for r in shown if not r["known_legitimate"]}
    hidden = len(everything) - len(shown) - len(others[:MOST_OTHERS])
    return Rows(shown, others[:MOST_OTHERS], hidden, frozenset(ticked), not undecided)


def _rings(desk: Desk, detail: CaseDetail) -> list[RingRecord]:
    """The rings of a case, the one to look at first in front."""
    found = [desk.investigation.ring(ring_id) for ring_id in detail.summary.ring_ids]
    return sorted((r for r in found if r is not None), key=lambda r: (-r.confidence, r.first_seen, r.id))


def _beside(desk: Desk, ring: RingRecord) -> tuple[list[dict[str, Any]], list[tuple[str, float]]]:
    """Lines of `COMPARISON`, and rings that look like this one to the model."""
    try:
        lines: list[dict[str, Any]] = desk.investigation.comparison(ring.id).to_pylist()
        return lines, [(one, like) for one, like in desk.investigation.alike(ring.id, ALIKE) if like >= LIKE]
    except KeyError:  # it has gone meanwhile
        return [], []


def _following(desk: Desk, case_id: int) -> CaseSummary | None:
    """The case behind this one in the queue; the first for a case that is not in it."""
    waiting = desk.book.queue(limit=NEAR)
    at = next((i for i, one in enumerate(waiting) if one.id == case_id), -1)
    return waiting[at + 1] if at + 1 < len(waiting) else None


def _overturns_nothing(desk: Desk, chosen: list[str]) -> None:
    """Refuse to call what is reported as fraud legitimate, unless that was asked for."""
    reported = 0
    for one in chosen:
        payment = desk.investigation.payment(one)
        reported += payment is not None and payment["fraud_reported_at"][0].is_valid
    if reported:
        raise CaseError(
            f"{reported} of the payments that you ticked are reported as fraud: untick them, or tick "
            "'overturn reports' to say that they are legitimate"
        )
