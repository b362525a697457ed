"""The service's own listener: a fixed port, kept through crashes, and limits on what a connection may take.

uvicorn parses and writes HTTP. What it leaves open is closed here: a port that a crashed process had is taken again at
once, and nobody may hold a connection without sending a whole request, or send headers without end.
"""

import asyncio
import resource
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serve.errors import ServeError
from serve.http.express import Express, response_bytes
from serve.problems import Problem

BACKLOG = 4096  # connections that wait to be accepted
SPARE_FILES = 256  # file descriptors left for everything that is no connection
MAX_EXPRESS = 1 << 16  # bytes of a body that may be answered before it costs a task
SWEEP_S = 0.5  # between two looks for connections that take too long


@dataclass(frozen=True)
class Limits:
    """What a connection may take.

    Attributes:
        connections: Open at once; further ones are closed as they come.
        header_bytes: Of one request, its path included.
        header_s: Seconds from the connection, or from a request's first byte, to the end of its headers.
        body_s: Seconds from there to the end of its body.
        idle_s: Seconds that a connection is kept for its next request.
        stop_s: Seconds that requests in hand have once the listener stops.
    """

    connections: int = 10_000
    header_bytes: int = 32 << 10
    header_s: float = 10.0
    body_s: float = 30.0
    idle_s: float = 75.0
    stop_s: float = 5.0


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's connection, which in addition knows since when it waits for a request, and how much that has sent.

    A request for the target of `express` is handed to that first, once it is whole (see `serve.http.express`).
    """

    limits = Limits()
    express: Express | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection; too many are closed at once."""
        super().connection_made(transport)
        self._waits_for = "headers"  # or body, or nothing
        self._since = self.loop.time()
        self._header_bytes = 0
        self._kept: bytearray | None = None  # the body so far of a request that `express` may answer
        if len(self.connections) > self.limits.connections:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Some bytes of a request."""
        if self._waits_for == "nothing":
            self._waits_for, self._since, self._header_bytes = "headers", self.loop.time(), 0
        if self._waits_for == "headers":
            self._header_bytes += len(data)
        super().data_received(data)
        if self._waits_for == "headers" and self._header_bytes > self.limits.header_bytes:
            self._refuse(Problem(431, "Headers too large", f"send at most {self.limits.header_bytes:,} bytes of them"))

    def on_headers_complete(self) -> None:
        """The body, if any, comes next. Headers that came in one piece may be too large as well."""
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self.limits.header_bytes:
            self._header_bytes = size  # `data_received` refuses it
            return
        self._waits_for, self._since = "body", self.loop.time()
        free = self.cycle is None or self.cycle.response_complete
        mine = self.express is not None and self.url == self.express.target and self.parser.get_method() == b"POST"
        if mine and free and not self.expect_100_continue:
            self._kept = bytearray()
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        if self._waits_for == "headers":
            return
        if self._kept is None:
            super().on_body(body)
            return
        self._kept += body
        if len(self._kept) > MAX_EXPRESS:
            self._go_the_usual_way()

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._waits_for == "headers":
            return
        self._waits_for, self._since = "nothing", self.loop.time()
        if self._kept is not None:
            assert self.express is not None
            answer = self.express(self.headers, bytes(self._kept)) if self.parser.should_keep_alive() else None
            if answer is not None:
                self._kept = None
                self.transport.write(answer)
                return
            self._go_the_usual_way()
        super().on_message_complete()

    def _go_the_usual_way(self) -> None:
        body, self._kept = bytes(self._kept or b""), None
        super().on_headers_complete()
        super().on_body(body)

    def overdue(self, now: float) -> bool:
        """Whether its request should have been whole by now."""
        if self._waits_for == "nothing":  # uvicorn looks after idle connections, but not behind `express`
            busy = self.cycle is not None and not self.cycle.response_complete
            return not busy and now - self._since > 2 * self.limits.idle_s
        allowed = self.limits.header_s if self._waits_for == "headers" else self.limits.body_s
        return now - self._since > allowed

    def give_up(self) -> None:
        """Answer that the request took too long, if nothing has been answered, and close."""
        if self._waits_for == "nothing":
            self.transport.close()
        elif self._waits_for == "body" and self.cycle is not None and self.cycle.response_started:
            self.transport.abort()
        else:
            self._refuse(Problem(408, "Request timeout", "the request was not complete in time"))

    def _refuse(self, problem: Problem) -> None:
        if self.transport.is_closing():
            return
        self.transport.write(response_bytes(problem, close=True))
        self._waits_for = "nothing"
        self.transport.close()


def listen(host: str, ports: Sequence[int]) -> socket.socket:
    """A listening socket on the first of some ports that is free.

    A port counts as free although connections of a process that crashed on it are still being wound up.

    Raises:
        ServeError: None of them can be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    reason = "no port was given"
    for port in ports:
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((host, port))
            made.listen(BACKLOG)
        except OSError as error:
            made.close()
            reason = error.strerror or str(error)
            continue
        return made
    named = str(ports[0]) if len(ports) == 1 else f"{ports[0]} to {ports[-1]}" if ports else ""
    raise ServeError(f"cannot listen on {host} port {named}: {reason}")


class Listener:
    """Serves an ASGI application on a socket, in a thread and an event loop of its own.

    Args:
        app: The application.
        sock: From `listen`.
        limits: What a connection may take.
        express: Sees the requests for its target first.
    """

    def __init__(
        self,
        app: Callable[..., Any],
        sock: socket.socket,
        limits: Limits | None = None,
        express: Express | None = None,
    ) -> None:
        limits = limits or Limits()
        most = _raise_file_limit() - SPARE_FILES
        kept = Limits(**{**vars(limits), "connections": max(1, min(limits.connections, most))})
        protocol = type("Protocol", (LimitedProtocol,), {"limits": kept, "express": express})
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=protocol,
                ws="none",
                loop="uvloop",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=int(limits.idle_s),
                timeout_graceful_shutdown=int(limits.stop_s),
            )
        )
        self._sock = sock
        self.port: int = sock.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="ringwatch-http", daemon=True)

    def start(self, wait_s: float = 60.0) -> None:
        """Serve from now on.

        Raises:
            ServeError: The application does not come up.
        """
        self._thread.start()
        until = time.monotonic() + wait_s
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > until:
                raise ServeError(f"the listener on port {self.port} does not come up")
            time.sleep(0.005)

    def stop(self) -> None:
        """Take no new request, let those in hand be answered, and end the application."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join((self._server.config.timeout_graceful_shutdown or 0) + 10.0)
        self._sock.close()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        sweeping = asyncio.ensure_future(self._sweep())
        try:
            await self._server.serve(sockets=[self._sock])
        finally:
            sweeping.cancel()

    async def _sweep(self) -> None:
        """Give up on connections that are overdue: one look at all of them costs less than a timer for each request."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_S)
            now = loop.time()
            for connection in list(self._server.server_state.connections):
                if isinstance(connection, LimitedProtocol) and connection.overdue(now):
                    connection.give_up()


def _raise_file_limit() -> int:
    """Let this process open as many files as it may; returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 1 << 20
