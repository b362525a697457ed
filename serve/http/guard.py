"""What stands before every route: keys, limits of bodies, counts, and no exception that gets out as one."""

import logging
import time
from dataclasses import dataclass

from starlette.datastructures import State
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http.budget import DEADLINE
from serve.http.express import SCORE, keys_of
from serve.http.metrics import ServiceMetrics
from serve.http.payments import score_body
from serve.problems import Problem
from serve.settings import Settings

log = logging.getLogger("ringwatch")
OPEN = ("/livez", "/readyz", "/openapi.json")  # asked without a key
SCOPES = (
    ("/v1/labels", ("label",)),
    ("/v1/outcomes", ("label",)),
    ("/v1/mandates", ("mandate",)),
    ("/v1/ties", ("score", "investigate")),
    ("/v1/policies", ("admin",)),
    ("/metrics", ()),
)
"""Which scopes a path takes, one of them each; every other path takes `score`."""
_DEADLINE = DEADLINE.encode()
_JSON = (b"content-type", b"application/json")
GONE = 499  # what others count as status of a request whose client has gone


class Guard:
    """Asks for a key, limits bodies, counts, and lets no exception out as anything but a problem."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: ServiceMetrics, state: State) -> None:
        self._state = state
        self._app, self._settings, self._metrics = app, settings, metrics
        self._keys = keys_of(settings)
        self._held = 0  # bytes of bodies being read and served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status, body = time.perf_counter(), 500, _Body()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            headers = dict(scope["headers"])
            self._authorise(scope["path"], headers)
            bounded = self._bounded(headers, receive, body)
            if scope["path"] == SCORE and scope["method"] == "POST":
                await self._score(headers, bounded, watched)
            else:
                await self._app(scope, bounded, watched)
        except Problem as problem:
            await problem.response()(scope, receive, watched)
        except ClientDisconnect:
            status = GONE
        except Exception:
            log.exception("a request failed")
            await Problem(500, "Internal error", "the request could not be served").response()(scope, receive, watched)
        finally:
            self._held -= body.held
            path = SCORE if scope["path"] == SCORE else getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(path, status).inc()
            self._metrics.seconds.labels(path).observe((time.perf_counter() - begin) * 1e3)

    async def _score(self, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        """POST /v1/score without a framework in between: routing a payment would cost as much as scoring it."""
        kind = headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
        if kind != b"application/json":
            named = kind[:100].decode("latin-1")
            raise Problem(415, "Unsupported media type", f"send application/json, not {named!r}")
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        deadline, prefer = headers.get(_DEADLINE), headers.get(b"prefer")
        answer = await score_body(
            self._state.desk,
            body,
            None if deadline is None else deadline.decode("latin-1"),
            None if prefer is None else prefer.decode("latin-1"),
        )
        length = b"%d" % len(answer)
        await send({"type": "http.response.start", "status": 200, "headers": [_JSON, (b"content-length", length)]})
        await send({"type": "http.response.body", "body": answer})

    def _authorise(self, path: str, headers: dict[bytes, bytes]) -> None:
        if self._settings.insecure or path in OPEN or (path == "/metrics" and self._settings.open_metrics):
            return
        if (holder := self._keys.of(headers)) is None:
            raise Problem(401, "Unauthorized", "send a valid key", headers={"WWW-Authenticate": "Bearer"})
        needed = next((scopes for start, scopes in SCOPES if path.startswith(start)), ("score",))
        if needed and not holder.may(*needed):
            detail = f"the key {holder.name!r} may not do this: it takes one with scope {' or '.join(needed)}"
            raise Problem(403, "Forbidden", detail)

    def _bounded(self, headers: dict[bytes, bytes], receive: Receive, body: "_Body") -> Receive:
        most = self._settings.max_body
        too_large = Problem(413, "Body too large", f"a body may have at most {most:,} bytes")
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and (len(declared) > 15 or int(declared) > most):
            raise too_large
        encoding = headers.get(b"content-encoding", b"identity").lower()
        if encoding != b"identity":
            named = encoding[:100].decode("ascii", "replace")
            detail = f"bodies are taken as they are: send this one without content-encoding {named!r}"
            raise Problem(415, "Unsupported media type", detail, headers={"Accept-Encoding": "identity"})

        async def bounded() -> Message:
            message = await receive()
            more = len(message.get("body", b""))
            body.held += more
            self._held += more
            if body.held > most:
                raise too_large
            if self._held > self._settings.max_bodies and more:
                detail = "too many bytes of requests are in hand; nothing was recorded"
                raise Problem(503, "Overloaded", detail, headers={"Retry-After": "1"})
            return message

        return bounded


@dataclass
class _Body:
    """Bytes of a request's body so far."""

    held: int = 0
