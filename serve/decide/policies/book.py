"""The policies that the journal holds, and the decision of a payment by those of its own place in it."""

import logging
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa

from data.journal.protocol import Events, Kind
from serve.decide.decision import Decided, Situation
from serve.decide.policies.compiled import CompiledPolicy
from serve.decide.policies.life import PolicyEvent, PolicyState, Roster, in_share, now_us, plain
from serve.decide.policies.parsing import parse
from serve.decide.policies.reading import PolicyError
from serve.decide.policies.reviews import ReviewCount
from serve.decide.policy import Policy
from serve.problems import Problem

log = logging.getLogger("ringwatch")
MOST_SHADOWS: Final = 4


class Watcher(Protocol):
    """Is told of every payment that is counted, by each policy that decided it."""

    def decided(self, situation: Situation, at: int, decided: Decided, state: str, differs: bool) -> None:
        """A policy's decision.

        Args:
            situation: The payment is among these.
            at: Its place there.
            decided: What the policy said.
            state: What the policy does: of `PolicyState`.
            differs: Whether it would have done something else than what was done.
        """


@dataclass(frozen=True, slots=True)
class PolicyRecord:
    """A policy of the journal.

    Attributes:
        event: Its newest.
        offset: Of that.
        state: What it does now: of `PolicyState`, or `replaced` where another one took its place.
    """

    event: PolicyEvent
    offset: int
    state: str


class PolicyBook:
    """Follows the policies of a journal, and decides.

    Args:
        default: Decides where no policy is live.

    Attributes:
        decisions: Payments decided so far, by version, state and decision; those of followed payments not among them.
        hits: Of rules so far, by version, state and rule.
        differing: Payments that a policy in shadow would have decided otherwise, by its version.
        watcher: Is told of each that is counted; None for nobody.
    """

    def __init__(self, default: Policy) -> None:
        self._default = default
        self._events: list[tuple[int, PolicyEvent]] = []
        self._rosters: list[tuple[int, Roster]] = [(-1, Roster())]
        self._policies: dict[str, CompiledPolicy] = {}
        self._reviews: dict[str, ReviewCount] = {}
        self._counted = 0  # offset after the last payment that was counted
        self.decisions: Counter[tuple[str, str, str]] = Counter()
        self.hits: Counter[tuple[str, str, str]] = Counter()
        self.differing: Counter[str] = Counter()
        self.watcher: Watcher | None = None

    def apply(self, events: Events) -> None:
        """Take in events; those that are no policies change nothing."""
        if events.kind is Kind.POLICY:
            for i, event in enumerate(PolicyEvent.rows(events.batch)):
                self._take(events.offset + i, event)

    @property
    def roster(self) -> Roster:
        """Who decides as of the newest event."""
        return self._rosters[-1][1]

    @property
    def deciding(self) -> Policy:
        """The policy that is live."""
        return self.policy(self.roster.live)

    @property
    def needs_all(self) -> bool:
        """Whether a policy counts reviews: it must be shown every payment of the journal (`follow`)."""
        return any(version in self._reviews for version in self.roster.current)

    def policy(self, version: str | None) -> Policy:
        """A policy by its version; None is what decides where none is live."""
        return self._default if version is None else self._policies[version]

    def records(self) -> list[PolicyRecord]:
        """Every policy that the journal holds, the newest first, each with its newest event."""
        newest = {event.version: (offset, event) for offset, event in self._events}
        found = []
        for offset, event in sorted(newest.values(), key=lambda one: -one[0]):
            ended = "replaced" if event.state not in (PolicyState.DRAFT, PolicyState.ROLLED_BACK) else event.state
            found.append(PolicyRecord(event, offset, self.roster.state_of(event.version) or ended))
        return found

    def history(self, version: str) -> list[tuple[int, PolicyEvent]]:
        """The events of a policy with their offsets, oldest first; empty where the journal holds no such policy."""
        return [(offset, event) for offset, event in self._events if event.version == version]

    def refuse(self, event: PolicyEvent) -> None:
        """Refuse an event that would change nothing, or cannot be.

        Raises:
            Problem: With the reason.
        """
        roster = self.roster
        if event.state == PolicyState.ROLLED_BACK:
            if event.version not in roster.current:
                raise Problem(409, "Not active", f"{event.version} is not active: there is nothing to roll back")
            return
        if len(set(roster.shadows) - {event.version}) >= MOST_SHADOWS and event.state == PolicyState.SHADOW:
            detail = f"{MOST_SHADOWS} policies are in shadow already: roll one back first"
            raise Problem(409, "Too many shadows", detail)
        if event.version == roster.live and event.state != PolicyState.LIVE:
            raise Problem(409, "Already live", f"{event.version} is live: roll it back first")

    def rollback(self, version: str | None = None, by: str = "") -> PolicyEvent:
        """The event that ends a policy's time.

        Args:
            version: Which; by default a rollout, else what is live.
            by: Who does it.

        Raises:
            Problem: There is nothing to roll back, or not this.
        """
        version = version or self.roster.to_roll_back()
        if version is None:
            raise Problem(409, "Not active", "no policy is live or rolled out: there is nothing to roll back")
        event = PolicyEvent(version.partition("@")[0], version, PolicyState.ROLLED_BACK, 1.0, "", by, now_us())
        self.refuse(event)
        return event

    def stands(self, event: PolicyEvent) -> bool:
        """Whether a policy has the state already that an event would give it."""
        roster = self.roster
        same_share = event.state != PolicyState.ROLLOUT or event.share == roster.share
        return roster.state_of(event.version) == event.state and same_share

    def decide(self, situation: Situation) -> list[Decided]:
        """Decide payments, [n], each as of its offset; those that are not recorded as of now. They are counted."""
        return self._decide(situation, counted=True)

    def decide_unrecorded(self, situation: Situation) -> list[Decided]:
        """Decide payments that are not known to be recorded, [n]; they are not counted. From any thread."""
        return self._by(self.roster, situation, counted=False)

    def follow(self, situation: Situation) -> None:
        """Take note of payments that were decided elsewhere, in order, for the limits of reviews."""
        self._decide(situation, counted=False)

    def facts(self) -> dict[str, Any]:
        """What a snapshot keeps, as JSON."""
        return {
            "events": [plain(event, offset) for offset, event in self._events],
            "reviews": {version: count.facts() for version, count in self._reviews.items()},
        }

    def adopt(self, facts: Mapping[str, Any]) -> None:
        """Go on from what `facts` gave."""
        self._events, self._rosters, self._policies, self._reviews = [], [(-1, Roster())], {}, {}
        for one in facts.get("events", ()):
            self._take(one["offset"], PolicyEvent(**{name: one[name] for name in PolicyEvent.__slots__}))
        for version, counted in facts.get("reviews", {}).items():
            if version in self._reviews:
                self._reviews[version].adopt(counted)

    def _take(self, offset: int, event: PolicyEvent) -> None:
        if event.content and event.version not in self._policies:
            try:
                compiled = CompiledPolicy(parse(event.content))
            except PolicyError as error:  # of a later version of Ringwatch, perhaps: what decided goes on deciding
                log.error("the policy %s at offset %d cannot be read: %s", event.version, offset, error)
                return
            self._policies[event.version] = compiled
            if (limit := compiled.file.reviews) is not None:
                self._reviews[event.version] = ReviewCount(limit, compiled.file.zone)
        if event.version not in self._policies:
            log.error("the policy %s at offset %d has no text", event.version, offset)
            return
        self._events.append((offset, event))
        self._rosters.append((offset, self.roster.after(event)))

    def _decide(self, situation: Situation, counted: bool) -> list[Decided]:
        offsets = situation.offsets
        newest = self._rosters[-1]
        if len(offsets) and (offsets[0] < 0 or newest[0] < offsets.min()):
            return self._by(newest[1], situation, counted)
        at = [bisect_right(self._rosters, offset, key=lambda entry: entry[0]) - 1 for offset in offsets.tolist()]
        found: dict[int, Decided] = {}
        for place in sorted(set(at)):
            rows = np.flatnonzero(np.array(at) == place)
            decided = self._by(self._rosters[place][1], situation.take(rows), counted)
            found.update(zip(rows.tolist(), decided, strict=True))
        return [found[i] for i in range(len(at))]

    def _by(self, roster: Roster, situation: Situation, counted: bool) -> list[Decided]:
        """Decisions of payments that see the same policies."""
        decided = self._of(roster.live, situation)
        state = [PolicyState.LIVE] * len(decided)
        if roster.rollout is not None:
            name = roster.rollout.partition("@")[0]
            accounts = situation.payments.column("account_id").to_pylist()
            rows = np.flatnonzero([in_share(name, account, roster.share) for account in accounts])
            if len(rows):
                rolled = self._of(roster.rollout, situation.take(rows))
                for row, one in zip(rows.tolist(), rolled, strict=True):
                    decided[row], state[row] = one, PolicyState.ROLLOUT
        fresh = self._fresh(situation, counted)
        for at, is_fresh in enumerate(fresh):
            if is_fresh:
                self._count(situation, at, decided[at], state[at])
        for version in roster.shadows:
            self._shadow(version, situation, decided, fresh)
        return decided

    def _of(self, version: str | None, situation: Situation) -> list[Decided]:
        """What one policy decides, its limit of reviews included."""
        decided = list(self.policy(version).decide(situation))
        count = self._reviews.get(version or "")
        if count is None or version is None or not len(decided) or situation.offsets[0] < 0:
            return decided
        order = np.argsort(situation.offsets, kind="stable").tolist()
        offsets = situation.offsets.tolist()
        times = situation.payments.column("timestamp").cast(pa.int64()).to_pylist()
        granted = count.take(
            [offsets[i] for i in order], [times[i] for i in order], [decided[i].action == "review" for i in order]
        )
        policy = self._policies[version]
        for i, given in zip(order, granted, strict=True):
            if decided[i].action == "review" and not given:
                decided[i] = policy.beyond_reviews(decided[i])
        return decided

    def _fresh(self, situation: Situation, counted: bool) -> list[bool]:
        """Which payments are to be counted: each once, and none that is not recorded."""
        if not counted:
            return [False] * len(situation.offsets)
        fresh = []
        for offset in situation.offsets.tolist():
            fresh.append(offset >= self._counted)
            self._counted = max(self._counted, offset + 1)
        return fresh

    def _count(self, situation: Situation, at: int, decided: Decided, state: str, differs: bool = False) -> None:
        self.decisions[decided.policy, state, decided.decision] += 1
        for hit in decided.rules:
            self.hits[decided.policy, state, hit.id] += 1
        if self.watcher is not None:
            self.watcher.decided(situation, at, decided, state, differs)

    def _shadow(self, version: str, situation: Situation, decided: Sequence[Decided], fresh: Sequence[bool]) -> None:
        """Ask a policy in shadow; whatever becomes of that, the answer stands."""
        recorded = len(situation.offsets) and situation.offsets[0] >= 0
        if not (any(fresh) or (recorded and version in self._reviews)):
            return
        try:
            for at, one in enumerate(self._of(version, situation)):
                if fresh[at]:
                    differs = one.action != decided[at].action
                    self._count(situation, at, one, PolicyState.SHADOW, differs)
                    self.differing[version] += differs
        except Exception:
            log.exception("the policy %s in shadow failed", version)
