"""What an investigation answers, and takes: the one interface behind the API, the console and notebooks.

`serve.cases.investigator.Investigator` gives it over a journal that it follows. Any thread may call
any of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import pyarrow as pa

from graph.rings.records import RingRecord, RingState
from serve.decide.spending.guidance import Advice
from serve.decide.spending.profile import Profile

Verdict = Literal["fraud", "legitimate"]


@dataclass(frozen=True)
class RingFilter:
    """Which rings are asked for.

    Attributes:
        states: In one of these; none for all.
        entity: (role, name) of a member; None for any.
        since: Last seen at this moment or later, us.
        until: First seen before this moment, us.
        confidence: At least.
    """

    states: tuple[RingState, ...] = ()
    entity: tuple[str, str] | None = None
    since: int | None = None
    until: int | None = None
    confidence: float = 0.0

    def takes(self, record: RingRecord) -> bool:
        """Whether a ring is asked for, its members aside."""
        return (
            (not self.states or record.state in self.states)
            and (self.since is None or record.last_seen >= self.since)
            and (self.until is None or record.first_seen < self.until)
            and record.confidence >= self.confidence
        )


EVERY: Final = RingFilter()


@dataclass(frozen=True)
class Entity:
    """An account, device, merchant, ... and what is known of it.

    Attributes:
        role: Its role in payments.
        name: Its identifier.
        first_seen: Journal time of its first payment that the graph holds, us.
        last_seen: Journal time of its newest, us.
        payments: Its newest payments, oldest first, of `RING_PAYMENTS`; `evidence` says which of them a ring rests on.
        total: How many there are in the graph.
        rings: Ids of the rings that it is or was in, newest first.
        tied: (role, name, payments together) of entities it has payments with, most first, at most 100.
    """

    role: str
    name: str
    first_seen: int
    last_seen: int
    payments: pa.Table
    total: int
    rings: tuple[str, ...]
    tied: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True)
class GivenVerdict:
    """A verdict as the journal holds it.

    Attributes:
        offset: Where in the journal.
        verdict_id: Its own id: the same one again changes nothing.
        ring_id: Of the ring it was given for.
        verdict: `fraud` or `legitimate`.
        transaction_ids: The payments that the investigator chose; nothing else is labelled by it.
        by: Who gave it.
        note: What they said.
        at: When, us.
    """

    offset: int
    verdict_id: str
    ring_id: str
    verdict: Verdict
    transaction_ids: tuple[str, ...]
    by: str
    note: str
    at: int


class Investigation(Protocol):
    """Rings as of the newest event of the journal that was followed."""

    @property
    def clock(self) -> int:
        """Journal time of the newest payment, us."""

    @property
    def position(self) -> int:
        """The journal offset that is read next."""

    def rings(
        self, wanted: RingFilter = EVERY, limit: int = 100, after: str | None = None, as_of: int | None = None
    ) -> list[RingRecord]:
        """Rings, those of the highest confidence first, then the newest.

        Args:
            wanted: Which.
            limit: How many, at most.
            after: Only those behind the ring of this id in that order: the next page.
            as_of: As they were at this moment, us; by default now.

        Raises:
            KeyError: There is no ring `after`.
        """

    def ring(self, ring_id: str, as_of: int | None = None) -> RingRecord | None:
        """One ring, ended ones too; None where there is none (or was none yet)."""

    def versions(self, ring_id: str) -> list[RingRecord]:
        """How a ring came to be what it is, oldest first; empty where there is none."""

    def ring_payments(self, ring_id: str, neighbours: bool = False) -> pa.Table:
        """The payments of a ring's accounts with what they share, of `RING_PAYMENTS`, oldest first.

        Args:
            ring_id: Of the ring.
            neighbours: With the newest payments of others at the entities that the ring shares, and the members' other
                payments.

        Raises:
            KeyError: There is no such ring.
        """

    def entity(self, role: str, name: str, limit: int = 200) -> Entity | None:
        """What is known of an entity; None where it was never seen or has left the graph."""

    def profile(self, account: str, as_of: int | None = None) -> Profile | None:
        """What an account pays again and again, what it earns, what comes next and what was unusual.

        Args:
            account: Whose.
            as_of: From what was known at this moment, us; by default now.

        Returns:
            None where it was never seen or has left the graph.
        """

    def guidance(
        self, account: str, balance: Mapping[str, int] | None = None, as_of: int | None = None
    ) -> tuple[Advice, ...] | None:
        """What to tell an account's owner, the most certain first; what is not certain enough is left out.

        Args:
            account: Whose.
            balance: What it holds, minor units by currency, if that is known.
            as_of: As of `profile`.

        Returns:
            None where it was never seen or has left the graph.
        """

    def payment(self, transaction_id: str) -> pa.Table | None:
        """One payment, of `RING_PAYMENTS`; None where it is not in the journal."""

    def comparison(self, ring_id: str) -> pa.Table:
        """A ring's accounts beside accounts of like age and volume, of `serve.cases.comparison.COMPARISON`.

        Raises:
            KeyError: There is no such ring.
        """

    def alike(self, ring_id: str, limit: int = 10) -> list[tuple[str, float]]:
        """Rings whose payments look like those of a ring to the model: their ids and likeness (-1 to 1), best first.

        Raises:
            KeyError: There is no such ring.
        """

    def verdicts(self, ring_id: str | None = None) -> Sequence[GivenVerdict]:
        """Verdicts of a ring, or all, in the order of the journal."""

    def give_verdict(
        self,
        ring_id: str,
        verdict: Verdict,
        transaction_ids: Sequence[str],
        by: str,
        note: str = "",
        verdict_id: str = "",
    ) -> GivenVerdict:
        """Record a verdict and the labels of the payments it lists, in one commit; durable when it returns.

        Args:
            ring_id: Of the ring.
            verdict: What they are.
            transaction_ids: The payments that are labelled so: chosen by the investigator, not by membership.
            by: Who says so.
            note: For others to read.
            verdict_id: Of the caller's making: the same one again changes nothing and returns what was recorded. By
                default a new one.

        Raises:
            KeyError: There is no such ring.
            ValueError: A payment is none that the journal holds, or the id was given to another verdict.
            JournalError: It cannot be recorded. Nothing is.
        """
