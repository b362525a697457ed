"""Rings, entities and verdicts over HTTP: what the investigator's API answers and takes, and how a client reads it."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import pyarrow as pa
from pydantic import BaseModel, Field

from data.schema import MAX_ID, MAX_TRANSACTION_ID
from graph.rings.records import RING_PAYMENTS, Member, MemberRole, Money, RingRecord, RingState
from serve.cases.protocol import Entity, GivenVerdict, Verdict
from serve.http.values import EPOCH, TICK
from serve.http.wire import Wire

MAX_NOTE = 4_000  # characters
MAX_CHOSEN = 10_000  # payments of one verdict

VERDICT_ID = Field("", max_length=MAX_ID, description="of the caller's making: the same one again changes nothing")


class MemberOut(BaseModel):
    """An entity of a ring."""

    role: str
    name: str
    member_role: MemberRole
    joined_at: datetime
    named_at: datetime | None = Field(description="when the ring, with it, first had the listing confidence")


class MoneyOut(BaseModel):
    """Money in one currency, minor units."""

    currency: str
    tried: int
    lost: int = Field(description="known as fraud and not stopped")
    stopped: int


class RingDetail(BaseModel):
    """A risk ring as of now, or of the moment that was asked for."""

    id: str
    version: int
    state: RingState
    confidence: float = Field(ge=0, le=1, description="calibrated probability that it is a fraud ring")
    first_seen: datetime
    named_at: datetime | None
    last_seen: datetime
    ended_at: datetime | None
    members: list[MemberOut]
    evidence: list[str] = Field(description="transaction ids, newest first")
    known_frauds: list[str] = Field(description="transaction ids of all its accounts' known frauds, newest first")
    money: list[MoneyOut]
    density: float
    parents: list[str]
    merged_into: str | None
    reasons: str


class RingPage(BaseModel):
    """Some rings, those of the highest confidence first."""

    rings: list[RingDetail]
    next: str | None = Field(description="give it as `after` for the next page; null on the last")


class RingLineage(RingDetail):
    """A ring, how it came to be what it is, and what was said of it."""

    versions: list[RingDetail] = Field(description="oldest first")
    verdicts: list["VerdictOut"]


class PaymentOut(BaseModel):
    """A payment and what is known of it."""

    transaction_id: str
    timestamp: datetime
    account_id: str
    merchant_id: str
    device_id: str | None
    amount: int
    currency: str
    ip: str | None
    card_id: str | None
    payee_id: str | None
    location_id: str | None
    channel: str | None
    mcc: str | None
    country: str | None
    probability: float | None
    fraud_reported_at: datetime | None
    known_legitimate: bool
    evidence: bool


class TiedOut(BaseModel):
    """An entity that has payments with another."""

    role: str
    name: str
    payments: int


class ComparedOut(BaseModel):
    """One metric of a ring's accounts, beside accounts of like age and volume that are in no ring."""

    metric: str
    ring: float = Field(description="median of the ring's accounts")
    low: float = Field(description="tenth percentile of the others")
    median: float
    high: float = Field(description="ninetieth percentile of the others")
    unusual: bool = Field(description="whether the ring's median is outside")
    peers: int = Field(description="how many others")


class AlikeOut(BaseModel):
    """A ring that looks like another to the model."""

    id: str
    likeness: float = Field(ge=-1, le=1)


class EntityOut(BaseModel):
    """An account, device, merchant, ... and what is known of it."""

    role: str
    name: str
    first_seen: datetime
    last_seen: datetime
    total: int
    rings: list[str]
    tied: list[TiedOut]
    payments: list[PaymentOut]


class VerdictIn(Wire):
    """What an investigator says of a ring's payments."""

    verdict: Verdict
    transaction_ids: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=MAX_TRANSACTION_ID)]], Field(max_length=MAX_CHOSEN)
    ] = Field(description="the payments that are labelled so: nothing else is")
    note: str = Field("", max_length=MAX_NOTE)
    verdict_id: str = VERDICT_ID


class VerdictOut(BaseModel):
    """A verdict as the journal holds it."""

    offset: int
    verdict_id: str
    ring_id: str
    verdict: Verdict
    transaction_ids: list[str]
    by: str
    note: str
    at: datetime


def ring_out(record: RingRecord) -> RingDetail:
    """A ring for JSON."""
    return RingDetail(**_ring_fields(record))


def lineage_out(record: RingRecord, versions: Sequence[RingRecord], verdicts: Sequence[GivenVerdict]) -> RingLineage:
    """A ring, its versions and verdicts for JSON."""
    said = [verdict_out(verdict) for verdict in verdicts]
    return RingLineage(**_ring_fields(record), versions=[ring_out(v) for v in versions], verdicts=said)


def entity_out(entity: Entity) -> EntityOut:
    """An entity for JSON."""
    return EntityOut(
        role=entity.role,
        name=entity.name,
        first_seen=_moment(entity.first_seen),
        last_seen=_moment(entity.last_seen),
        total=entity.total,
        rings=list(entity.rings),
        tied=[TiedOut(role=role, name=name, payments=n) for role, name, n in entity.tied],
        payments=payments_out(entity.payments),
    )


def payments_out(payments: pa.Table) -> list[PaymentOut]:
    """Payments of `RING_PAYMENTS` for JSON."""
    return [PaymentOut(**row) for row in payments.to_pylist()]


def verdict_out(verdict: GivenVerdict) -> VerdictOut:
    """A verdict for JSON."""
    return VerdictOut(**{**asdict(verdict), "at": _moment(verdict.at)})


def ring_in(found: RingDetail) -> RingRecord:
    """A ring as a client reads it."""
    fields = found.model_dump(exclude={"members", "money", "versions", "verdicts"})
    members = [
        Member(m.role, m.name, m.member_role, _us(m.joined_at), None if m.named_at is None else _us(m.named_at))
        for m in found.members
    ]
    times = {name: _us(at) if (at := fields[name]) is not None else None for name in _TIMES}
    lists = {name: tuple(fields[name]) for name in ("evidence", "known_frauds", "parents")}
    money = tuple(Money(**m.model_dump()) for m in found.money)
    return RingRecord(**{**fields, **times, **lists, "members": tuple(members), "money": money})


def entity_in(found: EntityOut) -> Entity:
    """An entity as a client reads it."""
    return Entity(
        role=found.role,
        name=found.name,
        first_seen=_us(found.first_seen),
        last_seen=_us(found.last_seen),
        payments=payments_in(found.payments),
        total=found.total,
        rings=tuple(found.rings),
        tied=tuple((t.role, t.name, t.payments) for t in found.tied),
    )


def payments_in(found: Sequence[PaymentOut]) -> pa.Table:
    """Payments of `RING_PAYMENTS` as a client reads them."""
    return pa.Table.from_pylist([payment.model_dump() for payment in found], schema=RING_PAYMENTS)


def verdict_in(found: VerdictOut) -> GivenVerdict:
    """A verdict as a client reads it."""
    fields = found.model_dump()
    return GivenVerdict(**{**fields, "at": _us(found.at), "transaction_ids": tuple(found.transaction_ids)})


_TIMES = ("first_seen", "named_at", "last_seen", "ended_at")


def _ring_fields(record: RingRecord) -> dict[str, Any]:
    fields = {**{name: getattr(record, name) for name in RingDetail.model_fields}}
    fields |= {name: None if fields[name] is None else _moment(fields[name]) for name in _TIMES}
    fields["members"] = [
        MemberOut(
            role=m.role,
            name=m.name,
            member_role=m.member_role,
            joined_at=_moment(m.joined_at),
            named_at=None if m.named_at is None else _moment(m.named_at),
        )
        for m in record.members
    ]
    fields["money"] = [MoneyOut(**asdict(m)) for m in record.money]
    return fields


def _moment(us: int) -> datetime:
    return EPOCH + us * TICK


def _us(moment: datetime) -> int:
    return (moment - EPOCH) // TICK


RingLineage.model_rebuild()
