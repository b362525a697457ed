"""The investigator's API: rings, what is behind them, and verdicts, as JSON."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from data.errors import DataError, JournalError
from data.schema import role
from graph.rings.records import RingState
from serve.cases.protocol import Investigation, RingFilter
from serve.cases.wire import (
    AlikeOut,
    ComparedOut,
    EntityOut,
    PaymentOut,
    RingLineage,
    RingPage,
    VerdictIn,
    VerdictOut,
    entity_out,
    lineage_out,
    payments_out,
    ring_out,
    verdict_out,
)
from serve.http.openapi import JSON, expect, problems, refuse_unknown
from serve.http.wire import ARROW, Moment, arrow_bytes, parse
from serve.problems import Problem

Who = Callable[[Request], str]
"""Names whoever sends a request, and refuses (`Problem`) one that may not."""
At = Annotated[Moment | None, Query()]


def investigation_routes(investigation: Investigation, who: Who) -> APIRouter:
    """The routes over an investigation.

    Args:
        investigation: What answers.
        who: Asked for every request.
    """
    routes = APIRouter(prefix="/v1", dependencies=[Depends(who)])
    _reading(routes, investigation)
    _comparing(routes, investigation)
    _entities(routes, investigation)

    @routes.post(
        "/rings/{ring_id}/verdict",
        response_model=VerdictOut,
        responses=problems(401, 403, 404, 422, 503),
        tags=["rings"],
        openapi_extra={"requestBody": {"required": True, "content": {JSON: {"schema": VerdictIn.model_json_schema()}}}},
    )
    async def verdict(request: Request, ring_id: str) -> Response:
        """Record a verdict, and the labels of the payments it lists, in one commit."""
        refuse_unknown(request)
        if "content-type" not in request.headers or expect(request, JSON) != JSON:
            # A page of another site can send anything but JSON that says so.
            raise Problem(415, "Unsupported media type", f"send {JSON}, and say so")
        said: VerdictIn = parse(VerdictIn, await request.body())
        by = who(request)
        return await _answer(lambda: _judge(investigation, ring_id, said, by))

    @routes.get("/verdicts", response_model=list[VerdictOut], responses=problems(401, 422), tags=["rings"])
    async def verdicts(request: Request) -> Response:
        """All verdicts, in the order of the journal."""
        refuse_unknown(request)
        return await _answer(lambda: _json_list([verdict_out(v) for v in investigation.verdicts()]))

    return routes


def _judge(investigation: Investigation, ring_id: str, said: VerdictIn, by: str) -> bytes:
    try:
        given = investigation.give_verdict(ring_id, said.verdict, said.transaction_ids, by, said.note, said.verdict_id)
    except KeyError:
        raise _no_ring(ring_id) from None
    except ValueError as error:
        field, _, reason = str(error).partition(": ")
        raise Problem(422, "Invalid content", str(error), [(field, reason)]) from None
    except JournalError:
        raise Problem(503, "Unavailable", "the journal cannot be written; nothing was recorded") from None
    return verdict_out(given).model_dump_json().encode()


def _reading(routes: APIRouter, investigation: Investigation) -> None:
    @routes.get("/rings", response_model=RingPage, responses=problems(401, 404, 422), tags=["rings"])
    async def rings(
        request: Request,
        state: Annotated[list[RingState] | None, Query(description="several may be given")] = None,
        entity: Annotated[str | None, Query(description="role:name of a member, such as device:d-17")] = None,
        since: At = None,
        until: At = None,
        confidence: Annotated[float, Query(ge=0, le=1, description="at least")] = 0.0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: Annotated[str | None, Query(description="id of the last ring of the page before")] = None,
        as_of: Annotated[Moment | None, Query(description="as they were then; by default now")] = None,
    ) -> Response:
        """Risk rings, those of the highest confidence first, then the newest."""
        refuse_unknown(request, "state", "entity", "since", "until", "confidence", "limit", "after", "as_of")
        wanted = RingFilter(tuple(state or ()), _entity(entity), since, until, confidence)

        def listed() -> bytes:
            try:
                found = investigation.rings(wanted, limit + 1, after, as_of)
            except KeyError:
                raise Problem(404, "Not found", f"after: no ring {str(after)[:100]!r} among these") from None
            following = found[limit - 1].id if len(found) > limit else None
            return RingPage(rings=[ring_out(r) for r in found[:limit]], next=following).model_dump_json().encode()

        return await _answer(listed)

    @routes.get("/rings/{ring_id}", response_model=RingLineage, responses=problems(401, 404, 422), tags=["rings"])
    async def ring(request: Request, ring_id: str, as_of: At = None) -> Response:
        """One ring, ended ones too, with how it came to be what it is and what was said of it."""
        refuse_unknown(request, "as_of")

        def found() -> bytes:
            record = investigation.ring(ring_id, as_of)
            if record is None:
                raise _no_ring(ring_id)
            versions = [v for v in investigation.versions(ring_id) if v.version <= record.version]
            return lineage_out(record, versions, investigation.verdicts(ring_id)).model_dump_json().encode()

        return await _answer(found)

    @routes.get(
        "/rings/{ring_id}/payments", response_model=list[PaymentOut], responses=problems(401, 404, 422), tags=["rings"]
    )
    async def payments(request: Request, ring_id: str, neighbours: bool = False) -> Response:
        """The payments behind a ring, oldest first; JSON, or an Arrow IPC stream where that is accepted."""
        refuse_unknown(request, "neighbours")
        arrow = ARROW in request.headers.get("accept", "")

        def found() -> bytes:
            try:
                table = investigation.ring_payments(ring_id, neighbours)
            except KeyError:
                raise _no_ring(ring_id) from None
            return arrow_bytes(table) if arrow else _json_list(payments_out(table))

        return await _answer(found, ARROW if arrow else JSON)


def _comparing(routes: APIRouter, investigation: Investigation) -> None:
    @routes.get(
        "/rings/{ring_id}/comparison",
        response_model=list[ComparedOut],
        responses=problems(401, 404, 422),
        tags=["rings"],
    )
    async def comparison(request: Request, ring_id: str) -> Response:
        """What is unusual about a ring's accounts, and what is not."""
        refuse_unknown(request)

        def found() -> bytes:
            try:
                table = investigation.comparison(ring_id)
            except KeyError:
                raise _no_ring(ring_id) from None
            return _json_list([ComparedOut(**row) for row in table.to_pylist()])

        return await _answer(found)

    @routes.get(
        "/rings/{ring_id}/alike", response_model=list[AlikeOut], responses=problems(401, 404, 422), tags=["rings"]
    )
    async def alike(request: Request, ring_id: str, limit: Annotated[int, Query(ge=1, le=100)] = 10) -> Response:
        """Rings whose payments look like this one's to the model, most alike first."""
        refuse_unknown(request, "limit")

        def found() -> bytes:
            try:
                rings = investigation.alike(ring_id, limit)
            except KeyError:
                raise _no_ring(ring_id) from None
            return _json_list([AlikeOut(id=name, likeness=value) for name, value in rings])

        return await _answer(found)


def _entities(routes: APIRouter, investigation: Investigation) -> None:
    @routes.get(
        "/entities/{role_name}/{name:path}",
        response_model=EntityOut,
        responses=problems(401, 404, 422),
        tags=["entities"],
    )
    async def entity(
        request: Request, role_name: str, name: str, limit: Annotated[int, Query(ge=0, le=10_000)] = 200
    ) -> Response:
        """An account, device, merchant, ...: its payments with their scores and labels, its ties, its rings."""
        refuse_unknown(request, "limit")
        _role(role_name, "role")

        def found() -> bytes:
            known = investigation.entity(role_name, name, limit)
            if known is None:
                raise Problem(404, "Not found", f"no {role_name} {name[:100]!r} in the graph")
            return entity_out(known).model_dump_json().encode()

        return await _answer(found)

    @routes.get(
        "/payments/{transaction_id}", response_model=PaymentOut, responses=problems(401, 404, 422), tags=["entities"]
    )
    async def payment(request: Request, transaction_id: str) -> Response:
        """One payment, with its score and what is known of it."""
        refuse_unknown(request)

        def found() -> bytes:
            table = investigation.payment(transaction_id)
            if table is None:
                raise Problem(404, "Not found", f"no payment {transaction_id[:100]!r}")
            return payments_out(table)[0].model_dump_json().encode()

        return await _answer(found)


async def _answer(what: Callable[[], bytes], kind: str = JSON) -> Response:
    """Compute an answer beside the event loop: an investigation may wait for its journal."""
    return Response(await asyncio.to_thread(what), media_type=kind)


def _entity(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    role_name, colon, name = text.partition(":")
    if not colon or not name:
        reason = "must be a role and a name, such as device:d-17"
        raise Problem(422, "Invalid content", f"entity: {reason}", [("entity", reason)])
    _role(role_name, "entity")
    return role_name, name


def _role(name: str, field: str) -> None:
    try:
        role(name)
    except DataError as error:
        raise Problem(422, "Invalid content", f"{field}: {error}", [(field, str(error))]) from None


def _json_list(items: list[Any]) -> bytes:
    return b"[" + b",".join(item.model_dump_json().encode() for item in items) + b"]"


def _no_ring(ring_id: str) -> Problem:
    return Problem(404, "Not found", f"no ring {ring_id[:100]!r}")
