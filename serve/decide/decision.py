"""What a decision is made from, and what it is: the records that policies, mandates, prices and routes share.

Everything here is as of the payment's own place in the journal, so that a replay decides alike.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from serve.decide.outcomes import Tally
from serve.decide.rails import Rates
from serve.decide.standing import Standing

Decision = Literal["approve", "challenge", "review", "decline"]
Action = Literal["approve", "step_up_3ds", "step_up_biometrics", "review", "decline"]
"""What is to be done: the decision, and for a challenge which one."""

USUAL_ACTION: Final[Mapping[str, Action]] = {
    "approve": "approve",
    "challenge": "step_up_3ds",
    "review": "review",
    "decline": "decline",
}


@dataclass(frozen=True, slots=True)
class RuleHit:
    """A rule of the policy that applied.

    Attributes:
        id: Of the rule.
        message: What it says, for people.
    """

    id: str
    message: str


@dataclass(frozen=True, slots=True)
class Route:
    """The rail that a payment is to take.

    Attributes:
        rail: Its name.
        propensity: Probability with which the router picks it here: 1 for a fixed table, less where it explores.
    """

    rail: str
    propensity: float


@dataclass(frozen=True, slots=True)
class MandateState:
    """What a payment's mandate says of it.

    Attributes:
        mandate_id: Which.
        within: Whether the payment keeps to it.
        failed: Field of the mandate that forbids it, where it does not.
        message: Why, for people; empty where it keeps to it.
        remaining: Budget left after this payment, in minor units of the mandate's currency; None where it is unknown.
    """

    mandate_id: str
    within: bool
    failed: str | None = None
    message: str = ""
    remaining: int | None = None


@dataclass(frozen=True, slots=True)
class Situation:
    """n payments that are to be decided.

    Attributes:
        payments: Canonical, [n].
        offsets: Journal offsets, [n]; -1 for a payment that is not recorded.
        probability: Calibrated probability of fraud, float64 [n].
        rings: The ring that each stands in, [n]; None for most.
        mandates: What each payment's mandate says, [n]; None without one.
        features: Features of the graph as of each payment, by name (`graph.dag.features.feature_names`), each
            float32 [n]; computed when they are first asked for. None where there is no graph to ask.
        tallies: What became of the payments of each account before, [n]; None where nothing is known.
        rails: What was known of the rails, [n]; None where nothing is.
    """

    payments: pa.RecordBatch
    offsets: NDArray[np.int64]
    probability: NDArray[np.float64]
    rings: Sequence[Standing | None]
    mandates: Sequence[MandateState | None]
    features: Callable[[], Mapping[str, NDArray[Any]]] | None = None
    tallies: Callable[[], Sequence[Tally]] | None = None
    rails: Callable[[], Sequence[Rates]] | None = None

    def take(self, rows: NDArray[np.int64]) -> "Situation":
        """Some of the payments, by their places, int64 [m]."""
        read, known, rails = self.features, self.tallies, self.rails
        return Situation(
            self.payments.take(pa.array(rows)),
            self.offsets[rows],
            self.probability[rows],
            [self.rings[i] for i in rows.tolist()],
            [self.mandates[i] for i in rows.tolist()],
            None if read is None else lambda: {name: values[rows] for name, values in read().items()},
            None if known is None else lambda: [known()[i] for i in rows.tolist()],
            None if rails is None else lambda: [rails()[i] for i in rows.tolist()],
        )


@dataclass(frozen=True, slots=True)
class Decided:
    """What is decided of a payment.

    Attributes:
        decision: In one word.
        action: What is to be done.
        policy: Version of the policy that decided.
        rules: Its rules that applied, the deciding one first.
        expected_loss: What the payment is expected to lose if it is approved, in minor units of its currency; None
            where the policy knows no costs.
        fee_bps: Risk-based fee in basis points; None where payments are not priced.
        route: The rail to take; None where payments are not routed.
        mandate: What its mandate says; None without one.
    """

    decision: Decision
    action: Action
    policy: str
    rules: tuple[RuleHit, ...] = ()
    expected_loss: int | None = None
    fee_bps: float | None = None
    route: Route | None = None
    mandate: MandateState | None = None

    def under(self, mandate: MandateState | None) -> "Decided":
        """This, with what the payment's mandate says: one that it forbids is declined."""
        if mandate is None:
            return self
        if mandate.within:
            return replace(self, mandate=mandate)
        return replace(self, decision="decline", action="decline", mandate=mandate, route=None, fee_bps=None)

    def as_given(self, decision: "Decision | None") -> "Decided":
        """This, but with a decision that its caller was given before, where there was one: that one stands.

        A payment beyond its mandate stays declined, whatever its caller says that it was told.
        """
        if decision is None or decision == self.decision or (self.mandate is not None and not self.mandate.within):
            return self
        if decision == "decline":  # it pays nothing and goes nowhere
            return replace(self, decision=decision, action=decision, route=None, fee_bps=None)
        return replace(self, decision=decision, action=USUAL_ACTION[decision])
