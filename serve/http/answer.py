"""The answer to a payment, as OpenAPI describes it; `serve.replica.answers` renders it."""

from typing import Literal

from pydantic import BaseModel, Field

from graph.rings.records import RingState
from serve.decide.decision import Action, Decision


class ReasonOut(BaseModel):
    """Evidence and what it adds to the log-odds of fraud; `OTHER` adds up what has no reason of its own."""

    code: str
    message: str
    contribution: float


class RingRef(BaseModel):
    """The ring that the payment is in: its account, payee, device or card, as the journal had it before the payment.

    Rings are found by the investigator (`ringwatch investigate`); where none runs, no payment is in one.
    """

    id: str
    size: int = Field(description="accounts in it")
    confidence: float = Field(ge=0, le=1, description="calibrated probability that it is a fraud ring")
    state: RingState


class ModelRef(BaseModel):
    """Which model."""

    name: str
    version: str


class RuleOut(BaseModel):
    """A rule of the policy that applied."""

    id: str
    message: str


class RouteOut(BaseModel):
    """The rail that the payment is to take, and the probability with which the router picks it here."""

    rail: str
    propensity: float = Field(gt=0, le=1)


class MandateOut(BaseModel):
    """What the payment's mandate says of it."""

    id: str
    within: bool
    failed: str | None = Field(description="field of the mandate that forbids the payment, where one does")
    message: str
    remaining: int | None = Field(description="budget left after this payment, in minor units; null where unknown")


class Answer(BaseModel):
    """The answer to a payment."""

    transaction_id: str
    fraud_probability: float = Field(ge=0, le=1)
    risk_score: int = Field(ge=0, le=100)
    decision: Decision
    action: Action = Field(description="what is to be done: the decision, and for a challenge which one")
    policy: str = Field(description="version of the policy that decided")
    rules: list[RuleOut] = Field(description="its rules that applied, the deciding one first")
    expected_loss: int | None = Field(
        description="what the payment is expected to lose if it is approved, in minor units; null where the policy "
        "knows no costs"
    )
    fee_bps: float | None = Field(description="risk-based fee in basis points; null where payments are not priced")
    route: RouteOut | None = Field(description="null where payments are not routed")
    mandate: MandateOut | None
    baseline: float | None = Field(
        description="log-odds of a payment of which nothing is known; the reasons' contributions and it add up to the "
        "log-odds of fraud_probability. Null where no reasons are given"
    )
    reasons: list[ReasonOut]
    ring: RingRef | None
    model: ModelRef
    scored_by: Literal["cuda", "cpu", "rules"]
    degraded: bool
    journal_offset: int | None
    recorded: bool = Field(
        description="whether the payment is known to be durable. If not, send it again with the same id and with "
        "`decision_given`, until it is"
    )
    earlier_decision: Decision | None = Field(
        description="the decision that was given before the payment was recorded, where there was one; `decision` "
        "repeats it, whatever `fraud_probability` says now"
    )
    timings: dict[str, float] = Field(description="milliseconds by stage")
