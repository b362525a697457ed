"""Mandates over HTTP: grant, change, revoke, and look at one."""

import time
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, Field, model_validator

from data.schema import MAX_AMOUNT, MAX_ID
from serve.decide.terms import Recurrence, Terms
from serve.http import values
from serve.http.budget import DEADLINE, Budget
from serve.http.openapi import JSON, expect, problems, raw_body, refuse_unknown
from serve.http.payments import refuse_unready
from serve.http.wire import Amount, Id, Moment, Wire, parse
from serve.problems import Problem
from serve.replica.answers import json_bytes
from serve.replica.granted import UNKNOWN, Granted, MandateCall

MOST_NAMES = 100  # payees, merchants or categories of a mandate
Names = Annotated[list[Id], Field(min_length=1, max_length=MOST_NAMES)]
Limit = Annotated[int, Field(ge=1, le=MAX_AMOUNT)]


class RecurrenceIn(Wire):
    """Limits of each calendar day, week (from Monday) or month, in UTC."""

    period: Literal["day", "week", "month"]
    budget: Limit | None = Field(None, description="minor units in each")
    count: int | None = Field(None, ge=1, le=1_000_000, description="payments in each")

    @model_validator(mode="after")
    def _limits(self) -> Self:
        if self.budget is None and self.count is None:
            raise ValueError("recurrence: limits nothing; give a budget or a count")
        return self


class MandateIn(Wire):
    """What an account's owner lets an agent pay. The fields are those of AP2's open payment mandate."""

    mandate_id: Id
    version: int | None = Field(
        None, ge=1, description="1 for a new mandate (the default), one more than the newest to change one"
    )
    account_id: Id = Field(description="whose money it is")
    agent_id: Id | None = Field(None, description="who may pay; null for whichever agent names the mandate")
    currency: str = Field(pattern="^[A-Z]{3}$", description="ISO 4217", examples=["EUR"])
    budget: Limit | None = Field(None, description="minor units in all")
    amount_min: Amount = Field(0, description="least amount of a payment, minor units")
    amount_max: Limit | None = Field(None, description="greatest amount of a payment, minor units")
    payees: Names | None = Field(None, description="accounts that may be paid; null for all")
    merchants: Names | None = Field(None, description="merchants that may be paid; null for all")
    mccs: Names | None = Field(None, description="their categories; null for all")
    not_before: Moment | None = None
    expires_at: Moment
    recurrence: RecurrenceIn | None = None

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.amount_max is not None and self.amount_max < self.amount_min:
            raise ValueError("amount_max: is less than amount_min; no payment could keep to it")
        if self.not_before is not None and self.expires_at <= self.not_before:
            raise ValueError("expires_at: is not after not_before; no payment could keep to it")
        if self.budget is None and self.amount_max is None and self.recurrence is None:
            raise ValueError("budget: nothing limits this mandate; give a budget, an amount_max or a recurrence")
        return self

    def terms(self) -> Terms:
        """What it says."""
        kept = {name: value for name, value in self.__dict__.items() if name not in ("mandate_id", "version")}
        for name in ("payees", "merchants", "mccs"):
            kept[name] = None if kept[name] is None else tuple(sorted(set(kept[name])))
        if self.recurrence is not None:
            kept["recurrence"] = Recurrence(**self.recurrence.__dict__)
        return Terms(**kept)


class GrantedOut(BaseModel):
    """A mandate as it was recorded, durably."""

    mandate_id: str
    version: int
    state: Literal["active", "revoked"]
    repeated: bool = Field(description="whether it was so before")


class PaymentUnder(BaseModel):
    """A payment that holds budget."""

    transaction_id: str
    amount: int = Field(description="minor units; less than was paid where a part was reversed")
    approved: bool


class MandateView(MandateIn):
    """A mandate as of now."""

    version: int
    state: Literal["active", "revoked", "expired", "not begun"]
    spent: int = Field(description="minor units of payments that were approved, or settled long ago")
    reserved: int = Field(description="minor units of payments of which no outcome is known")
    remaining: int | None = Field(description="minor units left in all and of this period; null without a budget")
    count: int = Field(description="payments that hold or held budget")
    refused: int = Field(description="payments that the mandate forbade")
    payments: list[PaymentUnder] = Field(description="the newest that hold budget, 20 at most")
    as_of: datetime = Field(description="time of the newest payment in the journal: what expired is judged by it")


def mandate_routes(app: FastAPI) -> None:
    """Add the routes."""
    settings = app.state.settings

    async def recorded(request: Request, call: MandateCall) -> Response:
        state = request.app.state
        refuse_unready(state.replica)
        headers = request.headers
        budget = Budget.of(headers.get(DEADLINE), headers.get("prefer"), settings.bulk_deadline_ms)
        granted: Granted = await state.batcher.submit(call, 1, budget.left_s, timed=False)
        return Response(json_bytes(granted), media_type=JSON)

    @app.post(
        "/v1/mandates",
        responses=problems(),
        response_model=GrantedOut,
        openapi_extra=raw_body(MandateIn),
        tags=["mandates"],
    )
    async def grant(request: Request) -> Response:
        """Grant a mandate, or a new version of one; durable when this answers.

        The same again changes nothing. Other terms need the next `version`: what was spent stays.
        """
        body, _ = await request.body(), expect(request, JSON)
        asked: MandateIn = parse(MandateIn, body)
        return await recorded(request, MandateCall(asked.mandate_id, asked.terms(), asked.version, _now()))

    @app.post(
        "/v1/mandates/{mandate_id:path}/revoke",
        responses=problems(401, 403, 404, 422, 429, 503, 504),
        response_model=GrantedOut,
        tags=["mandates"],
    )
    async def revoke(request: Request, mandate_id: str) -> Response:
        """Revoke a mandate: every payment behind this in the journal is declined. The same again changes nothing."""
        refuse_unknown(request)
        return await recorded(request, MandateCall(mandate_id[:MAX_ID], None, None, _now()))

    @app.get(
        "/v1/mandates/{mandate_id:path}",
        responses=problems(401, 403, 404, 422, 503),
        response_model=MandateView,
        tags=["mandates"],
    )
    async def mandate(request: Request, mandate_id: str) -> dict[str, Any]:
        """A mandate as of now: its terms, its state, what is spent, reserved and left."""
        refuse_unknown(request)
        replica = request.app.state.replica
        refuse_unready(replica)
        found: dict[str, Any] | None = replica.mandate(mandate_id)
        if found is None:
            raise Problem(404, "Not found", f"no mandate {mandate_id[:MAX_ID]!r}: {UNKNOWN}")
        return {**found, "as_of": values.EPOCH + found["as_of"] * values.TICK}


def _now() -> int:
    return time.time_ns() // 1000
