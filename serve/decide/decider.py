"""Everything of the journal that a decision depends on, kept current, and the decision."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.journal.protocol import Events
from serve.decide.decision import Decided, MandateState, Situation
from serve.decide.mandates import MandateBook, unrecorded
from serve.decide.outcomes import OutcomeBook, Tally
from serve.decide.policies.book import PolicyBook
from serve.decide.policy import ThresholdPolicy
from serve.decide.rails import RailBook, Rates
from serve.decide.standing import RingStanding
from serve.settings import Settings


class Decider:
    """Follows the journal beside the graph, and decides payments as of their places in it.

    Whoever follows the journal hands it every event in order (`apply`); what a snapshot keeps of it are its `facts`.

    Args:
        settings: Thresholds of the policy that decides where none was activated.

    Attributes:
        rings: The rings that the journal holds.
        outcomes: What became of accounts' payments.
        policies: The policies that it holds.
        rails: What each rail did.
        mandates: What agents may pay, and have paid.
    """

    def __init__(self, settings: Settings) -> None:
        self.rings = RingStanding()
        self.outcomes = OutcomeBook()
        self.rails = RailBook()
        self.policies = PolicyBook(ThresholdPolicy(settings))
        self.mandates = MandateBook()

    def apply(self, events: Events) -> None:
        """Take in the next events."""
        self.rings.apply(events)
        self.outcomes.apply(events)
        self.rails.apply(events)
        self.policies.apply(events)
        self.mandates.apply(events)

    def situation(
        self,
        payments: pa.RecordBatch,
        offsets: NDArray[np.int64],
        probability: NDArray[np.float64],
        features: Callable[[], Mapping[str, NDArray[Any]]] | None = None,
    ) -> Situation:
        """What is known of recorded payments, each as of its offset.

        Args:
            payments: Canonical, [n].
            offsets: Their journal offsets, int64 [n]; their events have been applied.
            probability: Calibrated probability of fraud, float64 [n].
            features: See `Situation.features`.
        """
        rings, mandates = self.rings.of(payments, offsets.tolist()), self.mandates.of(payments, offsets)

        def tallies() -> list[Tally]:
            return self.outcomes.of(payments.column("account_id").to_pylist(), offsets.tolist())

        def rails() -> list[Rates]:
            return self.rails.of(offsets.tolist())

        once = None if features is None else cache(features)  # rules and costs both read them
        return Situation(payments, offsets, probability, rings, mandates, once, tallies, rails)

    def decide(self, situation: Situation) -> list[Decided]:
        """Decide payments, [n]; one that its mandate forbids is declined, whatever the policy says."""
        return under(self.policies.decide(situation), situation.mandates)

    def decide_unrecorded(self, payments: pa.RecordBatch, probability: NDArray[np.float64]) -> list[Decided]:
        """Decide payments that are not known to be recorded, from themselves alone; from any thread."""
        names = payments.column("mandate_id").to_pylist()
        mandates = [None if name is None else unrecorded(name) for name in names]
        n = len(payments)
        situation = Situation(payments, np.full(n, -1), probability, [None] * n, mandates)
        return under(self.policies.decide_unrecorded(situation), mandates)

    def decide_at_once(self, probability: float, mandate_id: str | None = None) -> Decided:
        """Decide one payment that is not known to be recorded, at the least cost; from any thread."""
        decided = self.policies.deciding.at_once(probability)
        return decided if mandate_id is None else decided.under(unrecorded(mandate_id))

    def facts(self) -> dict[str, Any]:
        """What a snapshot keeps, as JSON."""
        return {
            "rings": self.rings.facts(),
            "outcomes": self.outcomes.facts(),
            "rails": self.rails.facts(),
            "policies": self.policies.facts(),
            "mandates": self.mandates.facts(),
        }

    def adopt(self, facts: Mapping[str, Any]) -> None:
        """Go on from what `facts` gave; what is not among them is as at the start of a journal."""
        self.rings.adopt(facts.get("rings", ()))
        self.outcomes.adopt(facts.get("outcomes", ()))
        self.rails.adopt(facts.get("rails", {}))
        self.policies.adopt(facts.get("policies", {}))
        self.mandates.adopt(facts.get("mandates", {}))


def under(decided: list[Decided], mandates: Sequence[MandateState | None]) -> list[Decided]:
    """Decisions, [n], with what the payments' mandates say, [n]: one that its mandate forbids is declined."""
    if not any(mandates):
        return decided
    return [one.under(mandate) for one, mandate in zip(decided, mandates, strict=True)]
