"""What every page works with, and how a page is made."""

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from graph.rings.picture import ring_html
from graph.rings.picture.bundle import made_of
from graph.rings.records import RingRecord
from serve.cases.book import CaseBook
from serve.cases.policy_watch import WatchedPolicies
from serve.cases.protocol import Investigation
from serve.console import words
from serve.console.settings import ConsoleSettings
from serve.errors import ServeError
from serve.keys import KeyRing

log = logging.getLogger("ringwatch")
HERE: Final = Path(__file__).parent
Picture = Callable[[RingRecord, pa.Table], str]
"""A ring and its payments (`RING_PAYMENTS`) to a whole HTML page."""


@dataclass(frozen=True)
class Desk:
    """What the console was built from (`serve.console.app.build_console`); pages find it with `desk_of`."""

    investigation: Investigation
    book: CaseBook
    keys: KeyRing
    settings: ConsoleSettings
    picture: Picture | None
    policies: WatchedPolicies | None = None


def desk_of(request: Request) -> Desk:
    """The desk of the application that a request came to."""
    desk: Desk = request.app.state.desk
    return desk


@functools.cache
def templates() -> Environment:
    """The pages. Whatever is put into one is escaped, and a name that is missing is an error."""
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(words.FILTERS)
    return made


def show(request: Request, name: str, status: int = 200, **given: Any) -> HTMLResponse:
    """A page.

    Args:
        request: What it answers.
        name: Of the template.
        status: HTTP status.
        given: What the template needs; who is signed in, their CSRF token and what they are to be told come by
            themselves.
    """
    session = request.session
    context = {
        "who": getattr(request.state, "who", None),
        "csrf": session.get("csrf", ""),
        "told": session.pop("told", []),
        "here": request.url.path,
        "insecure": desk_of(request).settings.insecure,
        "has_policies": desk_of(request).policies is not None,
        "fragment": request.headers.get("hx-request") == "true",
        "q": "",
        **given,
    }
    return HTMLResponse(templates().get_template(name).render(context), status)


def tell(request: Request, text: str, bad: bool = False) -> None:
    """Say something on the next page that this browser is shown."""
    told = [*request.session.get("told", []), {"text": text[:500], "bad": bad}]
    request.session["told"] = told[-3:]


def usual_picture() -> Picture | None:
    """The picture that plays; None, with a warning in the log, where its JavaScript was not built."""
    if made_of() is None:
        log.warning("the console shows no pictures of rings: 'make picture' builds them")
        return None
    return ring_html


def htmx() -> Path:
    """The file of htmx, from the package that holds it; nothing of that package runs.

    Raises:
        ServeError: It is not installed.
    """
    spec = find_spec("js_lib_htmx")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (file := Path(folder) / "static" / "htmx" / "htmx.min.js").is_file():
            return file
    raise ServeError("htmx is missing: pip install django-js-lib-htmx")
