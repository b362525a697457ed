"""What stands before every route: keys, limits of bodies, counts, and no exception that gets out as one."""

import hmac
import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http.metrics import ServiceMetrics
from serve.problems import Problem
from serve.settings import Settings

log = logging.getLogger("ringwatch")
OPEN = ("/livez", "/readyz", "/openapi.json")  # asked without a key


class Guard:
    """Asks for a key, limits bodies, counts, and lets no exception out as anything but a problem."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: ServiceMetrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._keys = [key.get_secret_value().encode() for key in settings.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            headers = dict(scope["headers"])
            self._authorise(scope["path"], headers)
            await self._app(scope, self._bounded(headers, receive), watched)
        except Problem as problem:
            await problem.response()(scope, receive, watched)
        except Exception:
            log.exception("a request failed")
            await Problem(500, "Internal error", "the request could not be served").response()(scope, receive, watched)
        finally:
            route = scope.get("route")
            path = getattr(route, "path", "other")
            self._metrics.requests.labels(path, status).inc()
            self._metrics.seconds.labels(path).observe((time.perf_counter() - begin) * 1e3)

    def _authorise(self, path: str, headers: dict[bytes, bytes]) -> None:
        if self._settings.insecure or path in OPEN:
            return
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        # Every key is compared, in constant time, so that time tells nothing of how near a guess was.
        matches = [hmac.compare_digest(key.strip(), mine) for mine in self._keys]
        if scheme.lower() != b"bearer" or not any(matches):
            raise Problem(401, "Unauthorized", "send a valid key", headers={"WWW-Authenticate": "Bearer"})

    def _bounded(self, headers: dict[bytes, bytes], receive: Receive) -> Receive:
        most, got = self._settings.max_body, 0
        too_large = Problem(413, "Body too large", f"a body may have at most {most:,} bytes")
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and (len(declared) > 15 or int(declared) > most):
            raise too_large

        async def bounded() -> Message:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > most:
                raise too_large
            return message

        return bounded
