"""What is kept of every ring that ever stood: members, evidence, frauds and confidence, each with the time it is from.

Times come with a count, `(us, n)`, so that what happened at one moment stays in order. A ring as of a moment is what
began by then and had not ended.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from graph.rings.records import LISTED, RingState
from graph.rings.risk.tables import AGED, CLEARED

At = tuple[int, int]
NEVER: Final[At] = (1 << 62, 0)
WEEK_US: Final = 7 * 86_400_000_000
MAX_EVIDENCE: Final = 4096
"""Payments, members and versions kept of one ring, each; of more, the oldest go."""
STEP: Final = 0.05  # a change of confidence that matters


@dataclass(frozen=True)
class Paid:
    """What is read once of a payment that a ring rests on."""

    transaction_id: str
    time: int
    amount: int
    currency: str
    names: tuple[str | None, ...]  # by role of the store


@dataclass
class Span:
    """Something that is so from a moment to another.

    Attributes:
        since: The first moment.
        until: The moment after the last.
        why: Reason for its end; of a ring's standing, the count with which its last event began.
    """

    since: At
    until: At = NEVER
    why: int = -1

    def holds(self, at: At) -> bool:
        """Whether it was so, or had only grown old."""
        return self.since <= at and (at < self.until or self.why == AGED)

    def cleared(self, at: At) -> bool:
        """Whether a label has ended it."""
        return self.why == CLEARED and self.until <= at

    def current(self, at: At) -> bool:
        """Whether it was so."""
        return self.since <= at < self.until


@dataclass
class Joined:
    """A member's time in a ring."""

    role: str
    name: str
    span: Span
    own: int  # payments of an account inside the window when it joined
    first_seen: int  # us
    company: bool = False  # it made no risky payment, see `graph.rings.risk.company`


@dataclass(frozen=True)
class Version:
    """A change that matters to those who rely on a ring."""

    number: int
    at: At
    row: int
    state: RingState
    confidence: float


@dataclass(frozen=True)
class RingChange:
    """A version of a ring that was named, for the journal: who is in it now.

    Attributes:
        ring_id: Of the ring.
        version: Its number.
        state: Its state.
        confidence: Calibrated.
        members: (role, name), accounts first.
        at: Journal time, us.
        row: Row of the event: the payment that came, or for a label or an expiry the next payment's.
    """

    ring_id: str
    version: int
    state: RingState
    confidence: float
    members: tuple[tuple[str, str], ...]
    at: int
    row: int


@dataclass
class Case:
    """A ring and all that became of it."""

    slot: int
    id: str
    born: At
    row: int
    parents: list[tuple[At, str]] = field(default_factory=list)
    merged_into: tuple[At, str] | None = None
    stands: list[Span] = field(default_factory=list)
    members: dict[tuple[str, str], list[Joined]] = field(default_factory=dict)
    evidence: dict[int, list[Span]] = field(default_factory=dict)
    frauds: dict[int, Span] = field(default_factory=dict)
    stopped: dict[int, At] = field(default_factory=dict)
    confidence: list[tuple[At, float]] = field(default_factory=list)
    was_named: bool = False  # whether it ever had the listing confidence
    moved: bool = True  # whether a member came or went since its last version
    versions: list[Version] = field(default_factory=list)
    company: dict[int, NDArray[np.int64]] = field(default_factory=dict)  # accounts, by the entity that brings them
    bringers: dict[tuple[str, str], set[int]] = field(default_factory=dict)  # entities, by the account they bring

    def confidence_at(self, at: At) -> float:
        """Its confidence, or the last that it had."""
        if self.confidence and self.confidence[-1][0] <= at:
            return self.confidence[-1][1]
        found = 0.0
        for since, value in self.confidence:
            if since > at:
                break
            found = value
        return found

    def highest(self, at: At) -> float:
        """The highest confidence that it had by then."""
        return max((value for since, value in self.confidence if since <= at), default=0.0)

    def stands_at(self, at: At) -> bool:
        """Whether it stood."""
        return any(span.current(at) for span in self.stands)

    def ended_at(self, at: At) -> int | None:
        """When it ended, if it had."""
        return None if self.stands_at(at) or not self.stands else max(s.until for s in self.stands if s.since <= at)[0]

    def listed(self) -> Iterator[tuple[At, At]]:
        """Spans in which it stood and had the listing confidence."""
        steps = [*self.confidence, (NEVER, 0.0)]
        for (since, value), (until, _) in pairwise(steps):
            if value >= LISTED:
                for span in self.stands:
                    if max(since, span.since) < min(until, span.until):
                        yield max(since, span.since), min(until, span.until)

    def named_at(self, at: At, spans: Iterable[Span] | None = None) -> int | None:
        """When it was first named, with a member of those spans in it; None if it was not by then."""
        spans = self.stands if spans is None else spans
        found = [max(a, s.since) for a, b in self.listed() for s in spans if max(a, s.since) < min(b, s.until)]
        first = min(found, default=NEVER)
        return first[0] if first <= at else None

    def last_moment(self, at: At) -> At:
        """The moment itself while it stood then; of a ring that was over, the last before that."""
        if self.stands_at(at):
            return at
        past = [span for span in self.stands if span.until <= at]
        return (past[-1].until[0], past[-1].why) if past else at

    def rests_on(self, at: At) -> list[int]:
        """Rows of its evidence, newest first; of a ring that was over, what it rested on last."""
        when = self.last_moment(at)
        return sorted(
            (row for row, spans in self.evidence.items() if any(s.holds(when) and not s.cleared(at) for s in spans)),
            reverse=True,
        )

    def known_frauds(self, at: At) -> list[int]:
        """Rows of its accounts' payments that are known as fraud, newest first."""
        return sorted((row for row, span in self.frauds.items() if span.current(at)), reverse=True)

    def state(self, at: At, last_seen: int) -> RingState:
        """Where it is in its life."""
        if not self.stands_at(at):
            return RingState.ENDED
        if self.named_at(at) is None:
            return RingState.FORMING
        return RingState.ACTIVE if at[0] - last_seen < WEEK_US else RingState.QUIET

    def trim(self) -> None:
        """Forget the oldest of what is more than `MAX_EVIDENCE`."""
        for held in (self.evidence, self.frauds):
            if len(held) > MAX_EVIDENCE:
                for row in sorted(held)[: len(held) - MAX_EVIDENCE]:
                    del held[row]
        for steps in (self.confidence, self.versions):
            if len(steps) > MAX_EVIDENCE:
                del steps[: len(steps) - MAX_EVIDENCE // 2]
