"""What the policies of a journal decide, for people: who made them what, what their rules hit, and how often rightly.

The investigator scores every payment, so it can decide every one as a replica does, as of its own place in the journal.
It decides by its own model; what was answered at the time may differ where another model, a GPU or the rules of
`serve.replica.unrecorded` answered. Nobody is told of these decisions, and rings do not depend on them.
"""

import logging
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np

from data.journal.protocol import Events
from graph.dag.protocol import Store
from serve.decide.decider import Decider
from serve.decide.decision import Decided, Situation
from serve.decide.policies.book import PolicyRecord
from serve.decide.policies.life import PolicyEvent
from serve.decide.policies.wording import worded
from serve.replica.followed import Followed
from serve.replica.slot import ModelSlot
from serve.settings import Settings

log = logging.getLogger("ringwatch")
DAY_US: Final = 86_400_000_000
DAYS: Final = 31  # newest days whose decisions are kept
KEPT: Final = 1 << 16  # payments of a rule before those that left the graph are looked for
DECISIONS: Final = ("approve", "challenge", "review", "decline")


@dataclass(frozen=True, slots=True)
class WatchedRule:
    """A rule of a policy, and what it hit.

    Attributes:
        id: Of the rule; `reviews` stands for the policy's limit of reviews.
        when: When it applies, in words.
        does: What is done then, in words.
        message: What it says to people.
        hits: Payments to which it applied.
        labelled: Those of them that the graph still holds and of which it is known what they were.
        frauds: Frauds among these.
    """

    id: str
    when: str
    does: str
    message: str
    hits: int = 0
    labelled: int = 0
    frauds: int = 0

    @property
    def precision(self) -> float | None:
        """Share of fraud among the labelled; None without any."""
        return self.frauds / self.labelled if self.labelled else None


@dataclass(frozen=True, slots=True)
class WatchedPolicy:
    """A policy of the journal.

    Attributes:
        record: It, as the journal has it.
        decisions: Payments by what it decided, in `DECISIONS`.
        differing: Payments that it would have decided otherwise while it was in shadow.
    """

    record: PolicyRecord
    decisions: Mapping[str, int]
    differing: int


@dataclass(frozen=True, slots=True)
class PolicyDetail:
    """All of a policy.

    Attributes:
        policy: Its line.
        text: Its file.
        rules: In their order.
        events: What was done with it, newest first.
        days: Its decisions by day (us since 1970, by the times of payments, UTC), newest first; the last `DAYS`.
    """

    policy: WatchedPolicy
    text: str
    rules: tuple[WatchedRule, ...]
    events: tuple[PolicyEvent, ...]
    days: tuple[tuple[int, Mapping[str, int]], ...]


class WatchedPolicies(Protocol):
    """What pages read. Any thread may ask."""

    @property
    def fault(self) -> str | None:
        """Why nothing is counted any more; None while all is well."""

    def all(self) -> list[WatchedPolicy]:
        """Every policy, the newest first."""

    def one(self, version: str) -> PolicyDetail | None:
        """A policy; None where the journal holds no such."""


@dataclass
class _Hits:
    """Payments that a rule hit: how many, and the offsets of those that the graph may still hold."""

    count: int = 0
    offsets: "array[int]" = field(default_factory=lambda: array("q"))
    most: int = KEPT

    def add(self, offset: int, store: Store) -> None:
        self.count += 1
        self.offsets.append(offset)
        if len(self.offsets) > self.most:
            offsets = np.array(self.offsets, np.int64)
            self.offsets = array("q", offsets[store.offsets.rows(offsets) >= store.oldest].tobytes())
            self.most = max(KEPT, 2 * len(self.offsets))

    def labels(self, store: Store) -> tuple[int, int]:
        """How many of them are labelled, and how many of these are frauds."""
        rows = store.offsets.rows(np.array(self.offsets, np.int64)) if self.offsets else np.empty(0, np.int64)
        believed = store.believed(rows[rows >= store.oldest])
        return int((believed >= 0).sum()), int((believed == 1).sum())


class PolicyWatch:
    """Decides what an investigator follows, and counts; `WatchedPolicies`.

    Args:
        settings: Thresholds that decide where no policy is live.
        slot: The model, and the graph that it scores.
        lock: Of all that follows the journal.
    """

    def __init__(self, settings: Settings, slot: ModelSlot, lock: AbstractContextManager[Any]) -> None:
        self._slot, self._lock = slot, lock
        self._book = (decider := Decider(settings)).policies
        self._book.watcher = self
        self._followed = Followed(decider, counts=True)
        self._hits: defaultdict[tuple[str, str], _Hits] = defaultdict(_Hits)  # by version and rule
        self._said: dict[tuple[str, str], str] = {}  # what these say
        self._days: defaultdict[str, dict[int, Counter[str]]] = defaultdict(dict)
        self._totals: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.fault: str | None = None

    def apply(self, events: Events) -> None:
        """Take in the next events; their payments may not be scored yet."""
        if self.fault is None:
            self._safely(lambda: self._followed.note(events))

    def decide(self) -> None:
        """Decide the payments that were taken in since, now that they are scored."""
        if self.fault is None:
            self._safely(lambda: self._followed.decide(self._slot))

    def decided(self, situation: Situation, at: int, decided: Decided, state: str, differs: bool) -> None:
        """See `serve.decide.policies.book.Watcher`."""
        version, offset = decided.policy, int(situation.offsets[at])
        self._totals[version][decided.decision] += 1
        day = situation.payments.column("timestamp")[at].value // DAY_US
        days = self._days[version]
        if day not in days:
            days[day] = Counter()
            if len(days) > DAYS:
                del days[min(days)]
        if day in days:
            days[day][decided.decision] += 1
        for hit in decided.rules:
            self._hits[version, hit.id].add(offset, self._slot.state.store)
            self._said[version, hit.id] = hit.message

    def all(self) -> list[WatchedPolicy]:
        """See `WatchedPolicies.all`."""
        with self._lock:
            return [self._line(record) for record in self._book.records()]

    def one(self, version: str) -> PolicyDetail | None:
        """See `WatchedPolicies.one`."""
        with self._lock:
            record = next((one for one in self._book.records() if one.event.version == version), None)
            if record is None:
                return None
            events = tuple(event for _, event in reversed(self._book.history(version)))
            text = next(event.content for event in events if event.content)
            days = sorted(self._days[version].items(), reverse=True) if version in self._days else []
            return PolicyDetail(
                policy=self._line(record),
                text=text,
                rules=tuple(self._rules(version, text)),
                events=events,
                days=tuple((day * DAY_US, dict(counts)) for day, counts in days),
            )

    def _line(self, record: PolicyRecord) -> WatchedPolicy:
        version = record.event.version
        totals = self._totals.get(version, Counter())
        return WatchedPolicy(record, {d: totals[d] for d in DECISIONS}, self._book.differing[version])

    def _rules(self, version: str, text: str) -> list[WatchedRule]:
        found = [self._rule(version, one.id, one.when, one.does, one.message) for one in worded(text)]
        written = {one.id for one in found}
        for (of, rule), message in self._said.items():
            if of == version and rule not in written:  # such as the limit of reviews
                found.append(self._rule(version, rule, "", "", message))
        return found

    def _rule(self, version: str, rule: str, when: str, does: str, message: str) -> WatchedRule:
        hits = self._hits.get((version, rule))
        if hits is None:
            return WatchedRule(rule, when, does, message)
        labelled, frauds = hits.labels(self._slot.state.store)
        return WatchedRule(rule, when, does, message, hits.count, labelled, frauds)

    def _safely(self, work: Callable[[], None]) -> None:
        """Whatever becomes of policies, rings go on."""
        try:
            work()
        except Exception as error:
            self.fault = f"{type(error).__name__}: {error}"
            log.exception("policies are no longer counted by this investigator")
