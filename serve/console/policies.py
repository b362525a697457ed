"""Pages of the journal's policies: which there are, what their rules hit, how often rightly. They change nothing."""

from typing import Final

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from serve.cases.policy_watch import WatchedPolicies
from serve.console.desk import desk_of, show
from serve.console.session import Who

STATES: Final = {"rollout": "share", "replaced": "former", "rolled_back": "former"}
"""What a state is called where people look; others have their own names."""

router = APIRouter()


@router.get("/policies")
def policies(request: Request, who: Who) -> Response:
    """Every policy of the journal, the newest first."""
    watched = _watched(request)
    return show(request, "policies.html", policies=watched.all(), states=STATES, fault=watched.fault)


@router.get("/policies/{version:path}")
def policy(request: Request, who: Who, version: str) -> Response:
    """A policy: its rules in words with their hits, its decisions by day, what was done with it, and its text."""
    watched = _watched(request)
    found = watched.one(version)
    if found is None:
        raise HTTPException(404, f"no policy {version!r} in the journal")
    return show(request, "policy.html", policy=found, states=STATES, fault=watched.fault)


def _watched(request: Request) -> WatchedPolicies:
    found = desk_of(request).policies
    if found is None:
        raise HTTPException(404, "this console follows no policies: 'ringwatch investigate' does")
    return found
