"""What a case is to its readers: plain data, and the rules by which rings become cases."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from data.currency import exponent
from graph.rings.records import LISTED
from serve.errors import ServeError

RINGWATCH: Final = "ringwatch"
"""Who is named where no person acted."""


class CaseState(StrEnum):
    """Where a case is in its life."""

    OPEN = "open"
    """It waits for a verdict."""
    CONFIRMED = "confirmed"
    """An investigator said that it is fraud."""
    DISMISSED = "dismissed"
    """An investigator said that it is none."""
    MERGED = "merged"
    """Another case took it up."""


class CaseError(ServeError):
    """An act that cannot be done; the message says why and what can be done instead."""


class NoCaseError(CaseError):
    """There is no such case."""


@dataclass(frozen=True)
class CaseRules:
    """When rings become cases, and when those come back.

    Attributes:
        open_at: Confidence from which a ring opens a case.
        reopen_payments: So many payments that were not among those dismissed bring a dismissed case back.
        reopen_frauds: As many of them that are reported as fraud do so too.
        reports: A ring counts as confirmed by reports, without a verdict, once at least this many of its evidence
            payments are known as fraud and they are at least half of them. Alerts are raised then; the case stays open.
        same_accounts: A new ring belongs to a dismissed case that holds at least this share of its accounts.
    """

    open_at: float = LISTED
    reopen_payments: int = 5
    reopen_frauds: int = 2
    reports: int = 3
    same_accounts: float = 0.5


@dataclass(frozen=True)
class CaseSummary:
    """A case as the queue shows it.

    Attributes:
        id: Its number.
        state: Where it is.
        title: What it is about, in a few words.
        opened_at: Wall clock, us.
        updated_at: When it, or a ring of it, last changed, us.
        last_seen: Journal time of its newest evidence, us.
        assignee: Who works on it; None for nobody.
        snoozed_until: It stays out of the queue until then, us.
        merged_into: The case that took it up.
        confidence: The highest of its rings'.
        at_risk: (currency, minor units) that were tried and not stopped, the largest figure first.
        accounts: How many it has.
        payments: Of its evidence.
        frauds: Payments of its accounts that are known as fraud.
        reasons: Why it is a ring.
        ring_ids: Of its rings, oldest first.
    """

    id: int
    state: CaseState
    title: str
    opened_at: int
    updated_at: int
    last_seen: int
    assignee: str | None
    snoozed_until: int | None
    merged_into: int | None
    confidence: float
    at_risk: tuple[tuple[str, int], ...]
    accounts: int
    payments: int
    frauds: int
    reasons: str
    ring_ids: tuple[str, ...]

    @property
    def key(self) -> str:
        """What people call it."""
        return f"C-{self.id}"


@dataclass(frozen=True)
class CaseEvent:
    """An act, or something that happened to a case; never changed once written.

    Attributes:
        at: Wall clock, us.
        by: Who; `RINGWATCH` where no person acted.
        kind: What: opened, confirmed, dismissed, merged, split, comment, assigned, snoozed, reopened, ring, alerts.
        note: In words.
        details: For programs.
        journal_offset: Of the verdict that it mirrors; None for all else.
    """

    at: int
    by: str
    kind: str
    note: str
    details: dict[str, Any] = field(default_factory=dict)
    journal_offset: int | None = None


@dataclass(frozen=True)
class CaseMember:
    """An entity of a case.

    Attributes:
        role: Its role in payments.
        name: Its identifier.
        member_role: What it is to its ring.
        joined_at: Journal time since which it is in the ring, us.
        ring_id: Of which ring.
        current: Whether the ring still has it.
    """

    role: str
    name: str
    member_role: str
    joined_at: int
    ring_id: str
    current: bool


@dataclass(frozen=True)
class CaseLink:
    """Another case that has an entity in common with this one, or came from the same ring.

    Attributes:
        case_id: The other.
        role: Of the entity; `ring` where a ring ties them.
        name: Its identifier.
    """

    case_id: int
    role: str
    name: str


@dataclass(frozen=True)
class CaseDetail:
    """All of a case.

    Attributes:
        summary: As in the queue.
        events: Oldest first.
        members: Accounts first, in order of joining.
        links: Other cases.
    """

    summary: CaseSummary
    events: tuple[CaseEvent, ...]
    members: tuple[CaseMember, ...]
    links: tuple[CaseLink, ...]


@dataclass(frozen=True)
class CaseFilter:
    """Which cases are asked for.

    Attributes:
        state: In this one; None for any.
        snoozed: Only those that are snoozed (True), none that is (False), or either (None).
        assignee: Of this person; "" for nobody's, None for anybody's.
        text: In a case's number, its ring ids, its members' names, its reasons or what was said of it; case is ignored.
    """

    state: CaseState | None = CaseState.OPEN
    snoozed: bool | None = False
    assignee: str | None = None
    text: str = ""


@dataclass(frozen=True)
class Alert:
    """An earlier payment of a member of a ring that has since been confirmed.

    Attributes:
        transaction_id: Of the payment; there is one alert for it, ever.
        case_id: Of the case.
        ring_id: Of the ring.
        account: Who paid.
        amount: At stake, minor units.
        currency: ISO 4217 code.
        paid_at: Journal time of the payment, us.
        probability: What the model said of it then; None if unknown.
        raised_at: Wall clock, us.
        done_at: When somebody dealt with it, us; None as long as nobody has.
        done_by: Who.
    """

    transaction_id: str
    case_id: int
    ring_id: str
    account: str
    amount: int
    currency: str
    paid_at: int
    probability: float | None
    raised_at: int
    done_at: int | None
    done_by: str | None


def priority(confidence: float, at_risk: tuple[tuple[str, int], ...]) -> float:
    """What the queue is ordered by: confidence times the largest money at risk in one currency, in major units.

    Nothing is converted and nothing added across currencies. A figure in a small unit (JPY) thus weighs more than its
    worth; the queue shows every currency, and can be filtered.

    Example:
        >>> priority(0.5, (("EUR", 20_000), ("JPY", 150)))
        100.0
    """
    return confidence * max((minor / 10 ** exponent(currency) for currency, minor in at_risk), default=0.0)
