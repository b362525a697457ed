"""The routes about policies: which there are, activation, and rollback; each change is an event of the journal."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import FastAPI, Request
from pydantic import BaseModel, Field

from serve.decide.policies.life import MOST_CONTENT, PolicyEvent, PolicyState
from serve.decide.policies.parsing import parse
from serve.decide.policies.reading import PolicyError
from serve.http.openapi import problems, refuse_unknown
from serve.http.payments import refuse_unready
from serve.problems import Problem
from serve.replica.admission import PolicyCall
from serve.replica.replica import Replica

DEADLINE_S = 30.0


class NewPolicy(BaseModel, extra="forbid"):
    """A policy and what it is to do."""

    content: str = Field(max_length=MOST_CONTENT, description="the policy file, see docs/policy.md")
    state: PolicyState = Field(
        PolicyState.LIVE, description="draft, shadow, rollout (to `share` of the accounts) or live"
    )
    share: float = Field(1.0, gt=0, le=1, description="of the accounts, for a rollout")
    by: str = Field("", max_length=128, description="who does it, for people")


class Rollback(BaseModel, extra="forbid"):
    """What is to decide no more."""

    version: str | None = Field(None, max_length=128, description="by default a rollout, else what is live")
    by: str = Field("", max_length=128, description="who does it, for people")


class PolicyOut(BaseModel):
    """A policy of the journal."""

    name: str
    version: str = Field(description="named in answers")
    state: str = Field(description="draft, shadow, rollout, live, replaced or rolled_back")
    share: float = Field(description="of the accounts")
    by: str
    at: datetime = Field(description="when it was given this state")
    offset: int = Field(description="of that event in the journal")


class PolicyChanged(BaseModel):
    """What was done."""

    version: str
    state: str
    accepted: int = Field(description="1 where it was recorded")
    repeated: int = Field(description="1 where it had this state already")


def add_policies(app: FastAPI) -> None:
    """Add the routes."""

    @app.get("/v1/policies", responses=problems(401, 403, 503), response_model=list[PolicyOut], tags=["policies"])
    async def policies(request: Request) -> list[PolicyOut]:
        """Policies of the journal, the newest first."""
        refuse_unknown(request)
        book = _ready(request).decider.policies
        return [
            PolicyOut(
                name=record.event.name,
                version=record.event.version,
                state=record.state,
                share=record.event.share,
                by=record.event.by,
                at=datetime.fromtimestamp(record.event.at / 1e6, UTC),
                offset=record.offset,
            )
            for record in book.records()
        ]

    @app.post("/v1/policies", responses=problems(), response_model=PolicyChanged, tags=["policies"])
    async def activate(request: Request, body: NewPolicy) -> Any:
        """Give a policy a state, from the next payment on; durable before the answer leaves."""
        if body.state is PolicyState.ROLLED_BACK:
            raise Problem(422, "Invalid content", "state: use /v1/policies/rollback", [("state", "is no activation")])
        try:
            file = parse(body.content)
        except PolicyError as error:
            said = [(f"content.{m.place.line}:{m.place.column}", f"{m.reason}; {m.mend}") for m in error.mistakes]
            raise Problem(422, "Invalid policy", str(error.mistakes[0]), said) from None
        share = body.share if body.state is PolicyState.ROLLOUT else 1.0
        return await _record(request, PolicyEvent.of(file, body.state, share, body.by))

    @app.post("/v1/policies/rollback", responses=problems(), response_model=PolicyChanged, tags=["policies"])
    async def rollback(request: Request, body: Annotated[Rollback | None, Field()] = None) -> Any:
        """End a rollout, or what is live: what decided before it decides again."""
        version, by = (None, "") if body is None else (body.version, body.by)
        event = _ready(request).decider.policies.rollback(version, by)
        return await _record(request, event)


def _ready(request: Request) -> Replica:
    replica: Replica = request.app.state.replica
    refuse_unready(replica)
    return replica


async def _record(request: Request, event: PolicyEvent) -> dict[str, Any]:
    _ready(request)
    done = await request.app.state.batcher.submit(PolicyCall(event), 1, DEADLINE_S, timed=False)
    return {"version": event.version, "state": event.state, **done}
