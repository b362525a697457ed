"""The investigator as a service of its own: rings kept current in the background, the API and the console in front.

It shares nothing with the scoring replicas but the journal, has a port of its own, and runs at a low priority: whatever
people look at, no payment waits for it.
"""

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request

from gnn.model.artifact import load
from graph.rings.picture.html import ring_html
from serve.cases.book import CaseBook
from serve.cases.investigator import Investigator
from serve.console.account_routes import account_routes
from serve.console.app import LOCAL as HERE
from serve.console.app import build_console
from serve.console.ring_routes import Who, investigation_routes
from serve.console.service_settings import InvestigatorSettings
from serve.console.settings import ConsoleSettings, read_secret
from serve.http.deployment import absolute, serve_until_stopped
from serve.http.express import keys_of
from serve.http.failures import answer_failures
from serve.http.listener import Listener, listen
from serve.http.logs import log_to
from serve.http.openapi import problems
from serve.http.values import EPOCH, TICK
from serve.problems import Problem
from serve.replica.journals import open_journal

log = logging.getLogger("ringwatch")
NICENESS = 10  # of the process: scoring goes first
CPUS = 0.25
FOLLOW_S = 0.2  # between two looks at the journal
FAILED_S = 5.0
SCOPE = "investigate"
LOCAL = "local"  # in whose name acts are kept where no key is asked for


def build_service(settings: InvestigatorSettings, investigator: Investigator | None = None) -> FastAPI:
    """The investigator's application: API and console.

    Args:
        settings: How it runs.
        investigator: By default one is made from the settings; it reads the journal in the background, and answers as
            of what it has read so far.
    """
    held = investigator or Investigator(load(settings.model), settings)
    book = CaseBook(settings.case_store, decisions=held.decisions)
    keeper = _Keeper(held, book)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        keeper.start()
        yield
        await asyncio.to_thread(keeper.stop)
        held.close()
        book.close()

    app = FastAPI(title="Ringwatch investigator", version="1", lifespan=lifespan, docs_url=None, redoc_url=None)
    answer_failures(app)
    app.state.keeper = keeper
    app.include_router(investigation_routes(held, _who(settings)))
    app.include_router(account_routes(held, _who(settings)))
    _probes(app, held, keeper)
    secret = read_secret(settings.journal.with_suffix(".console-secret"))
    pages = ConsoleSettings(secret, settings.https, settings.insecure, somebody=LOCAL)
    app.mount("/", build_console(held, book, keys_of(settings), pages, ring_html, held.policies))
    return app


def _who(settings: InvestigatorSettings) -> Who:
    keys = keys_of(settings)

    def who(request: Request) -> str:
        if settings.insecure:
            if request.url.hostname not in HERE:  # a page from elsewhere may call its own name this machine
                raise Problem(403, "Forbidden", f"without keys, only requests to {' and '.join(HERE)} are answered")
            return LOCAL
        holder = keys.of(dict(request.headers.raw))
        if holder is None:
            raise Problem(401, "Unauthorized", "send a valid key", headers={"WWW-Authenticate": "Bearer"})
        if not holder.may(SCOPE):
            raise Problem(403, "Forbidden", f"the key {holder.name!r} has not the scope {SCOPE!r}")
        return holder.name

    return who


class _Keeper:
    """A thread that keeps an investigator current, and its cases."""

    def __init__(self, investigator: Investigator, book: CaseBook) -> None:
        self._investigator, self._book = investigator, book
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ringwatch-investigate", daemon=True)
        self.ready = False
        self.failed: str | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        try:
            self._investigator.slot.warm()
        except Exception as error:
            self.failed = f"the model cannot score: {error}"
            log.exception("the model cannot score")
            return
        while not self._stop.is_set():
            pause = FOLLOW_S
            try:
                more = self._investigator.follow()
                if not more:
                    self._book.sync(self._investigator)
                self.ready, self.failed = self.ready or not more, None
                pause = 0.0 if more else FOLLOW_S
            except Exception as error:
                self.failed = f"the journal cannot be followed: {error}"
                log.exception("the journal cannot be followed; tried again in %s s", FAILED_S)
                pause = FAILED_S
            self._stop.wait(pause)


def _probes(app: FastAPI, investigator: Investigator, keeper: _Keeper) -> None:
    @app.get("/livez", responses=problems(503), tags=["probes"])
    async def livez() -> dict[str, str]:
        """Whether the investigator can go on."""
        if investigator.follower.broken:
            raise Problem(503, "Unavailable", "this investigator lost its place in the journal")
        return {"status": "live"}

    @app.get("/readyz", responses=problems(503), tags=["probes"])
    async def readyz() -> dict[str, Any]:
        """Whether it has read the journal up to its end; until then, rings are as of what it has read."""
        if keeper.failed or not keeper.ready:
            detail = keeper.failed or f"reading the journal: {investigator.position:,} events so far"
            raise Problem(503, "Not ready", detail, headers={"Retry-After": "1"})
        clock = EPOCH + investigator.clock * TICK
        return {
            "status": "ready",
            "model": investigator.artifact.version,
            "journal_offset": investigator.position,
            "clock": clock.isoformat(),
        }


class InvestigatorProcess:
    """What runs in the investigator's process: the application on its port, and its log.

    Args:
        settings: How it runs.
    """

    def __init__(self, settings: InvestigatorSettings) -> None:
        os.nice(max(0, NICENESS - os.nice(0)))
        log_to(log_file(settings))
        investigator = Investigator(load(settings.model), settings)
        self._follower = investigator.follower
        self._app = build_service(settings, investigator)
        self._listener = Listener(self._app, listen(settings.host, [settings.port]))
        self._listener.start()

    @property
    def broken(self) -> bool:
        """Whether this process is to be replaced: it lost its place in the journal."""
        return self._follower.broken

    def stop(self) -> None:
        """Answer what has been taken on, then let the port go."""
        self._listener.stop()


def log_file(settings: InvestigatorSettings) -> Path:
    """Where the investigator writes its log."""
    return settings.journal.with_name(f"{settings.journal.stem}-{settings.port}.log")


def run_investigator(settings: InvestigatorSettings) -> None:
    """Serve rings and the console until SIGINT or SIGTERM.

    Raises:
        ModelError: There is no readable model.
        JournalError: The journal cannot be opened, or is none.
        ServeError: The address cannot be listened on.
    """
    load(settings.model)
    open_journal(settings).close()
    listen(settings.host, [settings.port]).close()
    settings = absolute(settings)
    line = f"rings and console on http://{settings.host}:{settings.port}; its log: {log_file(settings)}"
    serve_until_stopped("ringwatch-investigator", lambda _: deployment(settings), [line])


def deployment(settings: InvestigatorSettings) -> Any:
    """The Ray Serve application."""
    from ray import serve as ray_serve

    @ray_serve.deployment(
        num_replicas=1,
        ray_actor_options={"num_cpus": CPUS},
        graceful_shutdown_timeout_s=10,
        graceful_shutdown_wait_loop_s=0.1,
    )
    class InvestigatorReplica:
        """Follows the journal and answers people."""

        def __init__(self) -> None:
            self._process = InvestigatorProcess(settings)

        def check_health(self) -> None:
            """Ray replaces a process that fails this."""
            if self._process.broken:
                raise RuntimeError("the investigator lost its place in the journal")

        def __del__(self) -> None:
            self._process.stop()

    application: Any = InvestigatorReplica
    return application.bind()
