"""The journal's policies as JSON, for programs with a key of the scope `investigate`: what the pages show."""

from collections.abc import Mapping

from fastapi import APIRouter, Request
from pydantic import BaseModel

from serve.cases.policy_watch import WatchedPolicy, WatchedRule
from serve.console.api import Holder
from serve.console.desk import desk_of
from serve.decide.policies.life import PolicyEvent
from serve.http.openapi import refuse_unknown
from serve.problems import Problem

router = APIRouter(prefix="/v1", tags=["policies"])


class PolicyLine(BaseModel):
    """A policy and what it decided, as this investigator counts it. Moments are microseconds since 1970, UTC."""

    name: str
    version: str
    state: str
    share: float
    by: str
    at: int
    offset: int
    decisions: Mapping[str, int]
    differing: int


class RuleOut(BaseModel):
    """A rule in words, the payments that it hit, and what is known of those that the graph still holds."""

    id: str
    when: str
    does: str
    message: str
    hits: int
    labelled: int
    frauds: int
    precision: float | None


class EventOut(BaseModel):
    """What was done with a policy."""

    state: str
    share: float
    by: str
    at: int


class DayOut(BaseModel):
    """Decisions of a day by the times of payments; `day` is its begin."""

    day: int
    decisions: Mapping[str, int]


class PoliciesOut(BaseModel):
    """Every policy, the newest first; `fault` says why nothing is counted any more."""

    fault: str | None
    policies: list[PolicyLine]


class PolicyDetailOut(PolicyLine):
    """All of a policy; events and days are the newest first."""

    text: str
    rules: list[RuleOut]
    events: list[EventOut]
    days: list[DayOut]
    fault: str | None


@router.get("/policies")
def policies(request: Request, by: Holder) -> PoliciesOut:
    """Policies of the journal with their decisions."""
    refuse_unknown(request)
    watched = desk_of(request).policies
    if watched is None:
        raise Problem(404, "Not found", "this console follows no policies: 'ringwatch investigate' does")
    return PoliciesOut(fault=watched.fault, policies=[_line(one) for one in watched.all()])


@router.get("/policies/{version:path}")
def policy(request: Request, by: Holder, version: str) -> PolicyDetailOut:
    """All of a policy."""
    refuse_unknown(request)
    watched = desk_of(request).policies
    found = None if watched is None else watched.one(version)
    if watched is None or found is None:
        raise Problem(404, "Not found", f"no policy {version[:200]!r} in the journal")
    return PolicyDetailOut(
        **_line(found.policy).model_dump(),
        text=found.text,
        rules=[_rule(rule) for rule in found.rules],
        events=[_event(event) for event in found.events],
        days=[DayOut(day=day, decisions=counts) for day, counts in found.days],
        fault=watched.fault,
    )


def _line(one: WatchedPolicy) -> PolicyLine:
    event = one.record.event
    return PolicyLine(
        name=event.name,
        version=event.version,
        state=one.record.state,
        share=event.share,
        by=event.by,
        at=event.at,
        offset=one.record.offset,
        decisions=one.decisions,
        differing=one.differing,
    )


def _rule(rule: WatchedRule) -> RuleOut:
    return RuleOut(**{name: getattr(rule, name) for name in RuleOut.model_fields})


def _event(event: PolicyEvent) -> EventOut:
    return EventOut(state=event.state, share=event.share, by=event.by, at=event.at)
