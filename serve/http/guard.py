"""What stands before every route: keys, limits of bodies, counts, and no exception that gets out as one."""

import hmac
import logging
import time
from dataclasses import dataclass

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http.metrics import ServiceMetrics
from serve.problems import Problem
from serve.settings import Settings

log = logging.getLogger("ringwatch")
OPEN = ("/livez", "/readyz", "/openapi.json")  # asked without a key
GONE = 499  # what others count as status of a request whose client has gone


class Guard:
    """Asks for a key, limits bodies, counts, and lets no exception out as anything but a problem."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: ServiceMetrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._keys = [key.get_secret_value().encode() for key in settings.api_keys]
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
            await self._app(scope, self._bounded(headers, receive, body), watched)
        except Problem as problem:
            await problem.response()(scope, receive, watched)
        except ClientDisconnect:
            status = GONE
        except Exception:
            log.exception("a request failed")
            await Problem(500, "Internal error", "the request could not be served").response()(scope, receive, watched)
        finally:
            self._held -= body.held
            route = scope.get("route")
            path = getattr(route, "path", "other")
            self._metrics.requests.labels(path, status).inc()
            self._metrics.seconds.labels(path).observe((time.perf_counter() - begin) * 1e3)

    def _authorise(self, path: str, headers: dict[bytes, bytes]) -> None:
        if self._settings.insecure or path in OPEN or (path == "/metrics" and self._settings.open_metrics):
            return
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        # Every key is compared, in constant time, so that time tells nothing of how near a guess was.
        matches = [hmac.compare_digest(key.strip(), mine) for mine in self._keys]
        if scheme.lower() != b"bearer" or not any(matches):
            raise Problem(401, "Unauthorized", "send a valid key", headers={"WWW-Authenticate": "Bearer"})

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
