"""What is kept of a fraud ring: who is in it and since when, what it rests on, and the money in it.

A record is plain data: the engine of risk rings makes it, pictures, cases, the console and the API show it. Times are
in microseconds since 1970, UTC; money is in minor units of its own currency and is never added across currencies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import pyarrow as pa

from data.schema import TIMESTAMP, TRANSACTION_SCHEMA

LISTED: Final = 0.5
"""Confidence from which a ring is named: it is listed, its members are shown, and policies may read it."""


class RingState(StrEnum):
    """Where a ring is in its life."""

    FORMING = "forming"
    """It was never above the listing confidence."""
    ACTIVE = "active"
    """It was named, and has had a risky payment within the last week."""
    QUIET = "quiet"
    """It was named, and has had no risky payment for a week."""
    ENDED = "ended"
    """Nothing that ties its members is left in the window, or it has merged into an older one; it stays on record."""


class MemberRole(StrEnum):
    """What a member is to its ring."""

    FIRST_ACCOUNT = "first account"
    ACCOUNT = "account"
    VICTIM = "victim"
    """An account whose payments in the ring are foreign to its habit: they were likely made with stolen access."""
    HUB = "hub"
    """A device, card, address or place that most of the ring's accounts share."""
    SHARED = "shared"
    """Another entity that ties at least two of its accounts."""
    COLLECTOR = "collector"
    """A merchant or payee that takes in most of the ring's money."""


@dataclass(frozen=True)
class Member:
    """An entity of a ring.

    Attributes:
        role: The role that it has in payments: account, device, merchant, ... (`data.schema.ROLES`).
        name: Its identifier.
        member_role: What it is to the ring.
        joined_at: Journal time since which it is in it, us.
        named_at: Journal time at which the ring, with it, was first above the listing confidence, us; None if never.
    """

    role: str
    name: str
    member_role: MemberRole
    joined_at: int
    named_at: int | None = None


@dataclass(frozen=True)
class Money:
    """The evidence's money in one currency, minor units.

    Attributes:
        currency: ISO 4217 code, as in the payments.
        tried: Sum of the evidence payments.
        lost: Of those known as fraud that were not stopped.
        stopped: Of those that were declined or reversed.
    """

    currency: str
    tried: int
    lost: int
    stopped: int


@dataclass(frozen=True)
class RingRecord:
    """A ring as of a moment.

    Attributes:
        id: "K-<row of the payment that made it a ring>". It stays through growth, merges (the older survives), splits
            (the larger part keeps it) and days of silence.
        version: Counts changes of members, state or confidence that matter to those who rely on it, from 1.
        state: Where it is in its life.
        confidence: Calibrated probability that it is a ring, 0 to 1.
        first_seen: Journal time at which it became a ring, us.
        named_at: Journal time at which it first had the listing confidence, us; None if never.
        last_seen: Journal time of its newest evidence, us.
        ended_at: Journal time at which it ended, us; None while it stands.
        members: Accounts first, in order of joining, then what they share, most accounts first. Of a ring that ended:
            those it had last.
        evidence: Transaction ids of the payments that it rests on, newest first.
        known_frauds: Transaction ids of all payments of its accounts that are known as fraud, newest first.
        money: Of the evidence, by currency.
        density: Share of the possible ties between accounts and shared entities that are there, 0 to 1.
        parents: Ids of rings that it split from, or that have merged into it.
        merged_into: The ring that took it up.
        reasons: One paragraph of plain English: what makes it a ring.
    """

    id: str
    version: int
    state: RingState
    confidence: float
    first_seen: int
    named_at: int | None
    last_seen: int
    ended_at: int | None
    members: tuple[Member, ...]
    evidence: tuple[str, ...]
    known_frauds: tuple[str, ...]
    money: tuple[Money, ...]
    density: float
    parents: tuple[str, ...]
    merged_into: str | None
    reasons: str

    @property
    def accounts(self) -> tuple[str, ...]:
        """Names of its accounts, in order of joining."""
        return tuple(m.name for m in self.members if m.role == "account")


RING_PAYMENTS: Final[pa.Schema] = pa.schema(
    [
        *TRANSACTION_SCHEMA,
        pa.field("probability", pa.float64()),  # what the model said of it, when it came
        pa.field("fraud_reported_at", TIMESTAMP),  # when it was reported as fraud, null if it was not
        pa.field("known_legitimate", pa.bool_(), nullable=False),  # whether it is believed to be legitimate
        pa.field("evidence", pa.bool_(), nullable=False),  # whether the ring rests on it
    ]
)
"""Payments of a ring or an entity, oldest first, with what is known of each: what pictures and pages are made of."""


def totals(money: Sequence[Money], kind: str = "tried") -> list[tuple[str, int]]:
    """(currency, minor units) of one kind, `tried`, `lost` or `stopped`, most first; zeros are left out.

    Example:
        >>> totals([Money("EUR", 500, 100, 0), Money("USD", 900, 0, 0)], "lost")
        [('EUR', 100)]
    """
    found = [(m.currency, int(getattr(m, kind))) for m in money]
    return sorted(((c, n) for c, n in found if n), key=lambda pair: (-pair[1], pair[0]))
