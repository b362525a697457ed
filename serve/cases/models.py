"""The tables of cases. Times are microseconds since 1970, UTC; money is in minor units of its currency."""

from typing import Any, Final

from sqlalchemy import JSON, BigInteger, Float, ForeignKey, Index, Integer, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMING: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
"""How constraints are named, so that a migration can name them on every database."""

Big = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only what it calls INTEGER


class Base(DeclarativeBase):
    """Root of the tables."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {int: Big, str: Text, dict[str, Any]: JSON, list[Any]: JSON}  # noqa: RUF012


class CaseRow(Base):
    """A case, with what the queue shows and is ordered by."""

    __tablename__ = "cases"
    __table_args__ = (Index(None, "state", "priority"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    title: Mapped[str]
    opened_at: Mapped[int]
    updated_at: Mapped[int]
    last_seen: Mapped[int]
    assignee: Mapped[str | None] = mapped_column(String(128), index=True)
    snoozed_until: Mapped[int | None]
    merged_into: Mapped[int | None] = mapped_column(ForeignKey("cases.id"))
    confidence: Mapped[float] = mapped_column(Float)
    priority: Mapped[float] = mapped_column(Float)
    at_risk: Mapped[list[Any]]  # [[currency, minor units], ...]
    accounts: Mapped[int]
    payments: Mapped[int]
    frauds: Mapped[int]
    reasons: Mapped[str]
    seen: Mapped[list[Any]]  # transaction ids that the last dismissal knew of


class EventRow(Base):
    """An act or happening; triggers refuse every change of a row."""

    __tablename__ = "case_events"

    id: Mapped[int] = mapped_column(primary_key=True)
    case_id: Mapped[int] = mapped_column(ForeignKey("cases.id"), index=True)
    at: Mapped[int]
    by: Mapped[str] = mapped_column(String(128))
    kind: Mapped[str] = mapped_column(String(16))
    note: Mapped[str]
    details: Mapped[dict[str, Any]]
    journal_offset: Mapped[int | None] = mapped_column(unique=True)


class RingRow(Base):
    """A ring of a case, as it was when it was last taken in."""

    __tablename__ = "case_rings"

    case_id: Mapped[int] = mapped_column(ForeignKey("cases.id"), primary_key=True)
    ring_id: Mapped[str] = mapped_column(String(64), primary_key=True, index=True)
    whole: Mapped[bool]  # False in a case that was split off: it gets no members that join later
    state: Mapped[str] = mapped_column(String(16))
    version: Mapped[int]
    alerted: Mapped[int]  # the version of which alerts were raised; 0 for none
    first_seen: Mapped[int]
    confidence: Mapped[float] = mapped_column(Float)
    last_seen: Mapped[int]
    at_risk: Mapped[list[Any]]
    payments: Mapped[int]
    frauds: Mapped[int]
    reasons: Mapped[str]


class EntityRow(Base):
    """An entity of a case: by these, cases are linked and found."""

    __tablename__ = "case_entities"
    __table_args__ = (Index(None, "role", "name"),)

    case_id: Mapped[int] = mapped_column(ForeignKey("cases.id"), primary_key=True)
    ring_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    role: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    member_role: Mapped[str] = mapped_column(String(32))
    joined_at: Mapped[int]
    current: Mapped[bool]


class LinkRow(Base):
    """Two cases that share an entity or a ring; the lower number comes first."""

    __tablename__ = "case_links"

    low: Mapped[int] = mapped_column(ForeignKey("cases.id"), primary_key=True)
    high: Mapped[int] = mapped_column(ForeignKey("cases.id"), primary_key=True, index=True)
    role: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(128), primary_key=True)


class VerdictRow(Base):
    """A verdict of the journal, mirrored: these rows can be deleted and made again."""

    __tablename__ = "verdicts"

    journal_offset: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    verdict_id: Mapped[str] = mapped_column(String(128), unique=True)
    ring_id: Mapped[str] = mapped_column(String(64), index=True)
    case_id: Mapped[int | None] = mapped_column(ForeignKey("cases.id"))
    verdict: Mapped[str] = mapped_column(String(16))
    transaction_ids: Mapped[list[Any]]
    by: Mapped[str] = mapped_column(String(128))
    note: Mapped[str]
    at: Mapped[int]


class AlertRow(Base):
    """An alert; its key makes sure that a payment has one at most."""

    __tablename__ = "alerts"

    transaction_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    case_id: Mapped[int] = mapped_column(ForeignKey("cases.id"), index=True)
    ring_id: Mapped[str] = mapped_column(String(64))
    account: Mapped[str] = mapped_column(String(128))
    amount: Mapped[int]
    currency: Mapped[str] = mapped_column(String(3))
    paid_at: Mapped[int]
    probability: Mapped[float | None] = mapped_column(Float)
    raised_at: Mapped[int]
    done_at: Mapped[int | None]
    done_by: Mapped[str | None] = mapped_column(String(128))


Index(None, AlertRow.done_at, AlertRow.raised_at)
