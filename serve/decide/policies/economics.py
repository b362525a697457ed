"""The money of a policy: what payments cost, what they pay, and which way they go."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from serve.decide.costs import (
    ACTIONS,
    Costs,
    Payments,
    expected_costs,
    expected_loss,
    least_cost,
    payments_of,
    spent_of,
)
from serve.decide.decision import Action, Decided, Route, Situation
from serve.decide.policies.table import amounts
from serve.decide.pricing import Pricing
from serve.decide.routing import Router

SPENT: Final = "account.amount.30d"  # feature of the graph


@dataclass(frozen=True)
class Economics:
    """What a policy says of money.

    Attributes:
        costs: The constants.
        review_price: Shadow price of the budget of reviews, in minor units of the costs' currency.
        decides: Whether the action of least expected cost is taken where no rule decides.
        pricing: How payments are priced; None where they are not.
        router: Which rails they take; None where they are not routed.
    """

    costs: Costs
    review_price: float = 0.0
    decides: bool = True
    pricing: Pricing | None = None
    router: Router | None = None

    def known(self, situation: Situation) -> Payments:
        """What costs depend on: of a payment that is not recorded, its amount and its probability alone."""
        features = {} if situation.features is None else situation.features()
        tallies = [] if situation.tallies is None else situation.tallies()
        passed = failed = None
        if any(t.challenges_passed or t.challenges_failed for t in tallies):
            passed = np.array([(t.challenges_passed - t.biometrics_passed, t.biometrics_passed) for t in tallies])
            failed = np.array([(t.challenges_failed - t.biometrics_failed, t.biometrics_failed) for t in tallies])
        return payments_of(
            self.costs,
            situation.probability,
            amounts(situation),
            situation.payments.column("currency").to_pylist(),
            spent_of(features[SPENT]) if SPENT in features else None,
            passed,
            failed,
        )

    def actions(self, known: Payments) -> list[Action]:
        """The action of least expected cost, [n]."""
        found = least_cost(expected_costs(self.costs, known), self.review_price, known.scale)
        return [ACTIONS[i] for i in found.tolist()]

    def fill(self, situation: Situation, known: Payments, decided: Sequence[Decided]) -> list[Decided]:
        """Decisions with their money; one that is declined has no fee and takes no rail."""
        losses = expected_loss(self.costs, known).tolist()
        fees: Sequence[float | None] = [None] * len(losses)
        if self.pricing is not None:
            fees = self.pricing.fees(self.costs, known).tolist()
        routes: Sequence[Route | None] = [None] * len(losses)
        if self.router is not None:
            routes = self._routes(self.router, situation, known)
        found = []
        for one, loss, fee, route in zip(decided, losses, fees, routes, strict=True):
            if one.decision == "decline":
                fee = route = None
            found.append(Decided(one.decision, one.action, one.policy, one.rules, loss, fee, route, one.mandate))
        return found

    def _routes(self, router: Router, situation: Situation, known: Payments) -> list[Route | None]:
        ids = situation.payments.column("transaction_id").to_pylist()
        currency = situation.payments.column("currency").to_pylist()
        rates = [router.rates] * len(ids) if situation.rails is None else situation.rails()
        return router.route(ids, currency, known, self.costs, rates)
