"""The HTTP service: routes over one `Replica`."""

import asyncio
import gc
import logging
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

import pyarrow as pa
from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import TypeAdapter

from data.schema import LABEL_SCHEMA, TRANSACTION_SCHEMA
from gnn.model.artifact import load
from serve.decide.decision import Decision
from serve.http.answer import Answer
from serve.http.budget import DEADLINE, Budget
from serve.http.express import Express
from serve.http.failures import answer_failures
from serve.http.guard import Guard
from serve.http.mandates import mandate_routes
from serve.http.metrics import ServiceMetrics
from serve.http.openapi import JSON, describe, expect, problems, raw_body, refuse_unknown
from serve.http.payments import LoopLag, PaymentDesk, refuse_unready, score_body
from serve.http.policies import add_policies
from serve.http.rehearsal import rehearse
from serve.http.wire import (
    ARROW,
    AsOf,
    Label,
    LabelsAccepted,
    Outcome,
    OutcomesAccepted,
    Payment,
    RingOut,
    arrow_bytes,
    batch_of,
    given_of,
    moment_or_now,
    outcomes_batch,
    parse,
    read_arrow,
    ring_out,
)
from serve.problems import Problem
from serve.replica.admission import Call, LabelCall, OutcomeCall, ScoreCall
from serve.replica.answers import json_bytes
from serve.replica.batcher import Batcher
from serve.replica.replica import Replica
from serve.replica.snapshots import SnapshotScheduler
from serve.settings import Settings

log = logging.getLogger("ringwatch")
T = TypeVar("T")
RINGS = TypeAdapter(list[RingOut])
MOST_READERS = 64  # of rings, that may wait
LARGE_BODY = 1 << 16  # bytes
FOLLOW_S = 0.02  # between two looks at the journal for what others wrote to it
BUSY_S = 0.001  # between two steps of work in the background
FAILED_S = 5.0  # after a step that failed: a journal that is gone must not fill the log


def build_app(settings: Settings, replica: Replica | None = None) -> FastAPI:
    """The service as an ASGI application.

    Args:
        settings: How it runs.
        replica: By default one is made from the settings; it replays its journal in the background and is not ready
            until that is done.
    """
    metrics = ServiceMetrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        sys.setswitchinterval(0.0002)  # a thread that waits for the interpreter waits no longer than this
        held = replica or Replica(load(settings.model), settings)
        app.state.replica = held
        batcher: Batcher[Call, Any] = Batcher(
            held.process, settings.batch_rows, settings.queue_rows, held.idle, lambda call: desk.resend(call)
        )
        app.state.batcher = batcher
        lag = LoopLag()
        watching = asyncio.ensure_future(lag.watch())
        app.state.desk = desk = PaymentDesk(settings, held, batcher, metrics, lag)
        stop = threading.Event()
        keeping = threading.Thread(target=_keep_current, args=(held, stop), daemon=True, name="ringwatch-follow")
        keeping.start()
        yield
        watching.cancel()
        await asyncio.to_thread(app.state.batcher.close)
        stop.set()
        keeping.join()
        held.close()

    app = FastAPI(title="Ringwatch", version="1", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.settings, app.state.metrics = settings, metrics
    describe(app)
    app.state.express = Express(settings, metrics, app.state)
    app.add_middleware(Guard, settings=settings, metrics=metrics, state=app.state)
    answer_failures(app)
    _probes(app)
    _payments(app)
    _rings(app)
    add_policies(app)
    mandate_routes(app)
    return app


def _keep_current(replica: Replica, stop: threading.Event) -> None:
    """Make a replica ready; then, until `stop`, follow the journal behind the requests and have snapshots made."""
    if not replica.ready:
        try:
            rehearse(replica.artifact, replica.settings)
        except Exception:
            log.exception("the rehearsal failed; the first payments may take longer")
        replica.open()
        gc.collect()
        gc.freeze()  # what stays for good is looked at no more: a collection of all of it takes a fifth of a second
    scheduler = SnapshotScheduler(replica.settings, lambda: replica.follower.position)
    filling = True
    while not stop.is_set():
        pause = FOLLOW_S
        try:
            filling = filling and replica.fill()
            if replica.follow() or filling:
                pause = BUSY_S  # whoever waits for the replica goes first
        except Exception:  # what is missing is still computed as it is asked for, and read when the next payment comes
            log.exception("what is done in the background failed; tried again in %s s", FAILED_S)
            pause = FAILED_S
        stop.wait(pause)
    scheduler.close()


def _payments(app: FastAPI) -> None:
    """The routes that write. They read the raw body: FastAPI's own handling costs more than the score."""
    settings: Settings = app.state.settings

    @app.post(
        "/v1/score", responses=problems(), response_model=Answer, openapi_extra=raw_body(Payment), tags=["payments"]
    )
    async def score(request: Request) -> Response:
        """Record one payment durably, score it, and say why; in time, or by rules and unrecorded."""
        # The guard answers this route itself, without a framework in between (`serve.http.guard`).
        expect(request, JSON)
        headers = request.headers
        body = await score_body(
            request.app.state.desk, await request.body(), headers.get(DEADLINE), headers.get("prefer")
        )
        return Response(body, media_type=JSON)

    @app.post(
        "/v1/scores",
        responses=problems(),
        response_model=list[Answer],
        openapi_extra=raw_body(list[Payment], arrow=True),
        tags=["payments"],
    )
    async def scores(
        request: Request, reasons: Annotated[bool, Query(description="false skips reasons, for bulk")] = True
    ) -> Response:
        """Score many payments in their order; JSON or an Arrow IPC stream. None is recorded if one is refused."""
        refuse_unknown(request, "reasons")
        body, kind = await request.body(), expect(request, JSON, ARROW)
        budget = _budget(request, settings.bulk_deadline_ms)
        batch, given = await _off_the_loop(body, _read_payments, body, kind, settings.max_items)
        table = ARROW in request.headers.get("accept", "")
        found = await request.app.state.desk.score(ScoreCall(batch, reasons, table, given), budget)
        if table:
            return Response(arrow_bytes(found), media_type=ARROW)
        return Response(b"[" + b",".join(found) + b"]", media_type=JSON)

    @app.post(
        "/v1/labels",
        responses=problems(),
        response_model=LabelsAccepted,
        openapi_extra=raw_body(Label | list[Label], arrow=True),
        tags=["payments"],
    )
    async def labels(request: Request) -> Response:
        """Record what became known of payments. None is recorded if one is refused."""
        body, kind = await request.body(), expect(request, JSON, ARROW)
        budget = _budget(request, settings.bulk_deadline_ms)
        batch = await _off_the_loop(body, _read_labels, body, kind, settings.max_items)
        return Response(json_bytes(await request.app.state.desk.report(LabelCall(batch), budget)), media_type=JSON)

    @app.post(
        "/v1/outcomes",
        responses=problems(),
        response_model=OutcomesAccepted,
        openapi_extra=raw_body(Outcome | list[Outcome]),
        tags=["payments"],
    )
    async def outcomes(request: Request) -> Response:
        """Record what became of payments: approved, declined, challenged, reversed, refunded, charged back.

        None is recorded if one is refused. An outcome is no label, and changes no score.
        """
        body, _ = await request.body(), expect(request, JSON)
        budget = _budget(request, settings.bulk_deadline_ms)
        batch = await _off_the_loop(body, _read_outcomes, body, settings.max_items)
        return Response(json_bytes(await request.app.state.desk.report(OutcomeCall(batch), budget)), media_type=JSON)


def _read_payments(body: bytes, kind: str, most: int) -> tuple[pa.RecordBatch, Sequence[Decision | None]]:
    if kind == ARROW:
        batch, given = read_arrow(body, TRANSACTION_SCHEMA, most)
    else:
        payments = parse(Payment, body, most)
        batch, given = batch_of(payments, TRANSACTION_SCHEMA), given_of(payments)
    return _not_empty(batch), given


def _read_labels(body: bytes, kind: str, most: int) -> pa.RecordBatch:
    if kind == ARROW:
        return _not_empty(read_arrow(body, LABEL_SCHEMA, most)[0])
    many = body.lstrip()[:1] == b"["
    return _not_empty(batch_of(parse(Label, body, most) if many else [parse(Label, body)], LABEL_SCHEMA))


def _read_outcomes(body: bytes, most: int) -> pa.RecordBatch:
    many = body.lstrip()[:1] == b"["
    return _not_empty(outcomes_batch(parse(Outcome, body, most) if many else [parse(Outcome, body)]))


def _not_empty(batch: pa.RecordBatch) -> pa.RecordBatch:
    if not len(batch):
        raise Problem(422, "Invalid content", "body: holds no item", [("body", "holds no item")])
    return batch


def _budget(request: Request, default_ms: float) -> Budget:
    return Budget.of(request.headers.get(DEADLINE), request.headers.get("prefer"), default_ms)


async def _off_the_loop(body: bytes, read: Callable[..., T], *args: Any) -> T:
    """Read a large body beside the event loop, which answers others meanwhile."""
    return read(*args) if len(body) <= LARGE_BODY else await asyncio.to_thread(read, *args)


def _rings(app: FastAPI) -> None:
    """The routes that read. One list is ranked at a time: ten at once would take the interpreter from the scorer."""
    one_by_one = asyncio.Lock()
    waiting = 0

    async def read(what: Callable[[Replica], T], request: Request) -> T:
        nonlocal waiting
        replica = _ready(request)
        if waiting >= MOST_READERS:
            raise Problem(429, "Overloaded", "too many readers of rings wait already", headers={"Retry-After": "1"})
        waiting += 1
        try:
            async with one_by_one:
                return await asyncio.to_thread(what, replica)
        finally:
            waiting -= 1

    @app.get("/v1/ties", responses=problems(401, 403, 422, 429, 503), response_model=list[RingOut], tags=["ties"])
    async def ties(request: Request, limit: Annotated[int, Query(ge=1, le=1000)] = 20, as_of: AsOf = None) -> Response:
        """Accounts tied by rare devices and cards that they share, riskiest first: evidence that scores read.

        Fraud rings, found from what is risky, are at the investigator (`ringwatch investigate`).
        """
        refuse_unknown(request, "limit", "as_of")

        def listed(replica: Replica) -> bytes:
            found = replica.ties.rings(limit, moment_or_now(as_of, replica.state.store.clock))
            return RINGS.dump_json([ring_out(ring, replica.ties.transaction_ids(ring.transactions)) for ring in found])

        return Response(await read(listed, request), media_type=JSON)

    @app.get(
        "/v1/ties/{ring_id}", responses=problems(401, 403, 404, 422, 429, 503), response_model=RingOut, tags=["ties"]
    )
    async def tie(request: Request, ring_id: str, as_of: AsOf = None) -> RingOut:
        """One tie ring, by its id or by that of one which has merged into it."""
        refuse_unknown(request, "as_of")

        def found(replica: Replica) -> RingOut | None:
            ring = replica.ties.ring(ring_id, moment_or_now(as_of, replica.state.store.clock))
            return None if ring is None else ring_out(ring, replica.ties.transaction_ids(ring.transactions))

        if (one := await read(found, request)) is None:
            raise Problem(404, "Not found", f"no tie ring {ring_id[:100]!r}")
        return one


def _probes(app: FastAPI) -> None:
    settings: Settings = app.state.settings

    @app.get("/livez", responses=problems(503), tags=["probes"])
    @app.head("/livez", include_in_schema=False)
    async def livez(request: Request) -> dict[str, str]:
        """Whether the replica can go on."""
        if reason := request.app.state.replica.unhealthy:
            raise Problem(503, "Unavailable", reason)
        return {"status": "live"}

    @app.get("/readyz", responses=problems(503), tags=["probes"])
    @app.head("/readyz", include_in_schema=False)
    async def readyz(request: Request) -> dict[str, Any]:
        """Whether the replica scores."""
        replica = _ready(request)
        if replica.lag > settings.max_lag:
            detail = f"{replica.lag:,} events behind the journal"
            raise Problem(503, "Not ready", detail, headers={"Retry-After": "1"})
        return {
            "status": "ready",
            "model": replica.artifact.version,
            "journal_offset": replica.follower.position,
            "lag": replica.lag,
        }

    @app.post("/v1/noop", include_in_schema=False)
    async def noop(request: Request) -> Response:
        """Reads a body and answers: what a score over HTTP is measured against."""
        await request.body()
        return Response(b"{}", media_type=JSON)

    @app.get("/metrics", responses=problems(401), response_class=PlainTextResponse, tags=["probes"])
    async def metrics(request: Request) -> Response:
        """For Prometheus."""
        state = request.app.state
        return Response(
            state.metrics.text(state.replica, state.batcher.waiting), media_type="text/plain; version=0.0.4"
        )


def _ready(request: Request) -> Replica:
    replica: Replica = request.app.state.replica
    refuse_unready(replica)
    return replica
