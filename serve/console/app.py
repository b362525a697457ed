"""The console as an application: pages for investigators, and the same as JSON under /v1.

It runs beside the journal's follower, never in a scoring replica.
"""

import logging
from typing import Final
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.sessions import SessionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from data.errors import JournalError
from serve.cases.book import CaseBook
from serve.cases.policy_watch import WatchedPolicies
from serve.cases.protocol import Investigation
from serve.cases.records import CaseError, NoCaseError
from serve.console import api, cases, policies_api, queue, session, things
from serve.console import policies as policy_pages
from serve.console.desk import HERE, Desk, Picture, htmx, show, usual_picture
from serve.console.session import ForgedError, SignInFirstError
from serve.console.settings import ConsoleSettings
from serve.keys import KeyRing
from serve.problems import Problem

log = logging.getLogger("ringwatch")
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
MOST_BYTES: Final = 1 << 21  # of a form
LOCAL: Final = ("127.0.0.1", "localhost")  # how a browser names this machine
HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
}


def build_console(
    investigation: Investigation,
    book: CaseBook,
    keys: KeyRing,
    settings: ConsoleSettings,
    picture: Picture | None = None,
    policies: WatchedPolicies | None = None,
) -> FastAPI:
    """The console, and the routes of cases and alerts under /v1.

    Args:
        investigation: What is known of rings.
        book: Cases. Whoever runs the console calls `CaseBook.sync` as the journal goes on.
        keys: Those with the scope `investigate` (or `admin`) may sign in, and call /v1.
        settings: How it runs.
        picture: Draws a ring as an HTML page; by default the one that plays, where it was built.
        policies: What the journal's policies decide; without it there are no pages of them.
    """
    app = FastAPI(title="Ringwatch console", version="1", docs_url=None, redoc_url=None)
    app.state.desk = Desk(investigation, book, keys, settings, picture or usual_picture(), policies)
    for part in (session, queue, cases, things, policy_pages, policies_api, api):
        app.include_router(part.router)
    script = htmx()

    @app.get("/static/htmx.js", include_in_schema=False)
    def serve_htmx() -> Response:
        """The library, from the package that holds it."""
        return FileResponse(script, media_type="text/javascript")

    app.mount("/static", StaticFiles(directory=HERE / "static"))
    _errors(app)
    app.add_middleware(
        SessionMiddleware,
        secret_key=settings.secret,
        session_cookie="ringwatch",
        max_age=int(settings.hours * 3_600),
        same_site="strict",
        https_only=settings.https,
    )
    app.add_middleware(Secure)
    if settings.insecure:  # or any site could have its own name lead here, and act as whoever sits at this machine
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(LOCAL))
    return app


class Secure:
    """Adds the headers that every answer has (one that sets its own policy keeps it), and takes no endless body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        taken = 0

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MOST_BYTES:
                raise HTTPException(413, f"a body may have at most {MOST_BYTES:,} bytes")
            return message

        await self._app(scope, bounded, secured)


def _errors(app: FastAPI) -> None:
    """Errors as problems under /v1, and as pages elsewhere."""

    def said(request: Request, status: int, title: str, detail: str, headers: dict[str, str] | None = None) -> Response:
        if request.url.path.startswith("/v1/"):
            return Problem(status, title, detail, headers=headers).response()
        return show(request, "error.html", status, title=title, detail=detail)

    @app.exception_handler(SignInFirstError)
    async def sign_in_first(request: Request, error: SignInFirstError) -> Response:
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/signin?next={quote(path if request.method == 'GET' else '/', safe='')}", 303)

    @app.exception_handler(ForgedError)
    async def forged(request: Request, error: ForgedError) -> Response:
        return said(request, 403, "Form not accepted", "the form is too old or did not come from this site: try again")

    @app.exception_handler(CaseError)
    async def refused(request: Request, error: CaseError) -> Response:
        missing = isinstance(error, NoCaseError)
        return said(request, 404 if missing else 409, "Not found" if missing else "Not possible", str(error))

    @app.exception_handler(JournalError)
    async def unrecorded(request: Request, error: JournalError) -> Response:
        log.error("a verdict could not be recorded: %s", error)
        return said(
            request, 503, "Not recorded", "the journal cannot be written: nothing was recorded; try again later"
        )

    @app.exception_handler(Problem)
    async def problem(request: Request, error: Problem) -> Response:
        return error.response()

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> Response:
        titles = {404: "Not found", 405: "Method not allowed"}
        return said(request, error.status_code, titles.get(error.status_code, "Error"), str(error.detail))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        found = [(str(e["loc"][-1]), e["msg"]) for e in error.errors()]
        detail = "; ".join(f"{name}: {why}" for name, why in found)
        if request.url.path.startswith("/v1/"):
            return Problem(422, "Invalid content", detail, found).response()
        return said(request, 422, "Invalid content", detail)
