"""A policy as it was written and checked: conditions, rules, thresholds, and the limit of reviews."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from zoneinfo import ZoneInfo

from serve.decide.decision import Action, Decision
from serve.decide.policies.economics import Economics

ACTIONS: Final[tuple[Action, ...]] = ("approve", "step_up_3ds", "step_up_biometrics", "review", "decline")
"""From the mildest to the strictest."""
DECISION_OF: Final[Mapping[Action, Decision]] = {
    "approve": "approve",
    "step_up_3ds": "challenge",
    "step_up_biometrics": "challenge",
    "review": "review",
    "decline": "decline",
}


@dataclass(frozen=True, slots=True)
class Within:
    """A number that lies between two limits, both of them included.

    Attributes:
        column: Of the table of numbers, see `serve.decide.policies.table`.
        limits: Lowest and highest by currency; that of "" counts for every currency without one of its own. The
            condition is unknown for a payment in a currency without limits.
        role: The entity without which it is unknown; None where there is none such.
    """

    column: str
    limits: Mapping[str, tuple[float, float]] = field(hash=False)
    role: str | None = None


@dataclass(frozen=True, slots=True)
class Among:
    """A text that is among some, or begins with one of some.

    Attributes:
        column: Of the payment, or `ring.state`.
        values: The texts.
        prefix: Whether they are only beginnings.
    """

    column: str
    values: frozenset[str]
    prefix: bool = False


@dataclass(frozen=True, slots=True)
class AllOf:
    """All of some conditions; of none, it always holds."""

    parts: "tuple[Condition, ...]"


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One of some conditions, at least."""

    parts: "tuple[Condition, ...]"


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite of a condition; of what is unknown, it is unknown."""

    part: "Condition"


Condition = Within | Among | AllOf | AnyOf | Not


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule.

    Attributes:
        id: Its own.
        when: When it applies.
        then: What is done then, whatever comes after it; None where it only sets a floor.
        at_least: What is done then at least, whatever decides; None where it decides.
        message: For people.
    """

    id: str
    when: Condition
    then: Action | None
    at_least: Action | None
    message: str


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From where on a number is challenged, reviewed and declined; they rise."""

    challenge: float
    review: float
    decline: float


@dataclass(frozen=True, slots=True)
class ReviewLimit:
    """How many payments a day may be sent to people.

    Attributes:
        count: At most so many; None where `share` says it.
        share: At most this share of the day's payments so far; None where `count` says it.
        then: What is done with one that is beyond it.
    """

    count: int | None
    share: float | None
    then: Action


@dataclass(frozen=True)
class PolicyFile:
    """A policy.

    Attributes:
        name: Its own.
        text: What it was read from.
        zone: In which hours and days are told.
        rules: In order.
        probability: Thresholds for payments that no rule decides.
        loss: Thresholds on probability x amount by currency, in minor units, in place of those.
        challenge: Which challenge `challenge` means.
        reviews: Limit of reviews; None without one.
        note: For people.
        economics: What it says of money; None where it says nothing.
    """

    name: str
    text: str
    zone: ZoneInfo
    rules: tuple[Rule, ...]
    probability: Thresholds
    loss: Mapping[str, Thresholds] = field(default_factory=dict)
    challenge: Action = "step_up_3ds"
    reviews: ReviewLimit | None = None
    note: str = ""
    economics: Economics | None = None

    @property
    def digest(self) -> str:
        """What tells this text from any other."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]

    @property
    def version(self) -> str:
        """Named in every answer."""
        return f"{self.name}@{self.digest}"


def walk(condition: Condition) -> list[Within | Among]:
    """The comparisons in a condition."""
    if isinstance(condition, AllOf | AnyOf):
        return [leaf for part in condition.parts for leaf in walk(part)]
    return walk(condition.part) if isinstance(condition, Not) else [condition]
