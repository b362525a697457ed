"""Signing in, and what a form must bring.

A browser is known by a signed cookie (HttpOnly, SameSite=Strict) that holds the key's name and a mark of it, never the
key. A key that is revoked ends its sessions at once. Every form brings the session's CSRF token.
"""

import hmac
import secrets
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.datastructures import FormData
from starlette.responses import RedirectResponse, Response

from serve.console.desk import desk_of, show, tell

MOST_FIELDS = 5_000  # of a form: a box for every payment of a ring

router = APIRouter()


class SignInFirstError(Exception):
    """Nobody is signed in."""


class ForgedError(Exception):
    """A form without the session's token."""


def who(request: Request) -> str:
    """Who is signed in.

    Raises:
        SignInFirstError: Nobody, or their key is good no more.
    """
    desk, session = desk_of(request), request.session
    name: str | None = None
    if desk.settings.insecure:
        name = desk.settings.somebody
    elif session.get("name"):
        holder = desk.keys.still(str(session["name"]), str(session.get("mark", "")))
        name = holder.name if holder is not None and holder.may("investigate") else None
    if name is None:
        raise SignInFirstError
    session.setdefault("csrf", secrets.token_urlsafe(32))
    request.state.who = name
    return name


async def form_of(request: Request) -> FormData:
    """A form that came from our own page.

    Raises:
        ForgedError: It did not.
    """
    form = await request.form(max_files=0, max_fields=MOST_FIELDS)
    given, mine = str(form.get("csrf", "")), str(request.session.get("csrf", ""))
    if not mine or not hmac.compare_digest(given.encode(), mine.encode()):
        raise ForgedError
    return form


Who = Annotated[str, Depends(who)]
Form = Annotated[FormData, Depends(form_of)]


@router.get("/signin")
def sign_in_page(request: Request, next: str = "/") -> Response:
    """Asks for a key."""
    request.session.setdefault("csrf", secrets.token_urlsafe(32))
    return show(request, "signin.html", next=_inside(next))


@router.post("/signin")
def sign_in(request: Request, form: Form) -> Response:
    """Begins a session for the holder of a key."""
    after = _inside(str(form.get("next", "/")))
    holder = desk_of(request).keys.find(str(form.get("key", "")).strip().encode())
    if holder is None or not holder.may("investigate"):
        why = "That is no key that is good here." if holder is None else "That key has not the scope 'investigate'."
        tell(request, why, bad=True)
        return show(request, "signin.html", 403, next=after)
    request.session.clear()  # with a new token: what was known before somebody signed in is worth nothing
    request.session.update(name=holder.name, mark=holder.mark, csrf=secrets.token_urlsafe(32))
    return RedirectResponse(after, 303)


@router.post("/signout")
def sign_out(request: Request, form: Form) -> Response:
    """Ends the session of this browser."""
    request.session.clear()
    return RedirectResponse("/signin", 303)


def _inside(path: str) -> str:
    """A path of this site, or the first page."""
    plain = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return path if plain else "/"
