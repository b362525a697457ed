"""Which rail a payment takes: by a fixed table, or by what each rail was seen to do.

A rail earns what it lets through and costs its fees and its frauds: with s the chance that the bank approves,

    value = s (margin a + churn_lost V) - fee - fee_bps a - s p liability L

so the success rate that is given up for a cheaper rail is never more than the saved cost is worth, nor more than
`most_given_up`. The chance of each rail comes from outcomes in the journal (`RailBook`): recent ones count more, and
a rail whose last outcomes all failed is down until one succeeds.

A router that only ever takes the best never learns of the others. So a share of payments is spread over all rails, by a
hash of transaction id and policy: the same payment goes the same way in any replay, and the probability of its way, its
propensity, is in the answer, for `serve.decide.off_policy`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from serve.decide.costs import Costs, CostsError, Payments, customer_value
from serve.decide.decision import Route
from serve.decide.rails import Rates

MOST_RAILS: Final = 32


@dataclass(frozen=True, slots=True)
class Rail:
    """A way to pay.

    Attributes:
        name: As in outcomes (their `by`) and answers.
        fee: What a payment costs on it, in minor units of the costs' currency.
        fee_bps: And in basis points of its amount.
        success: Chance that it is approved, until outcomes tell.
        liability: Share of a fraud's loss that stays with us.
        most: Largest amount that it takes, in minor units of the costs' currency; None for any.
        currencies: That it takes; all if empty.

    Raises:
        CostsError: A value is out of range; it names the field.
    """

    name: str
    fee: float = 0.0
    fee_bps: float = 0.0
    success: float = 0.95
    liability: float = 1.0
    most: float | None = None
    currencies: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not self.name:
            raise CostsError("name", "is empty: give the rail a name")
        for name in ("fee", "fee_bps"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise CostsError(name, f"is {getattr(self, name)}: give 0 or more")
        for name in ("success", "liability"):
            if not 0 <= getattr(self, name) <= 1:
                raise CostsError(name, f"is {getattr(self, name)}: give a share from 0 to 1")
        if self.most is not None and not self.most > 0:
            raise CostsError("most", f"is {self.most}: give an amount above 0")


@dataclass(frozen=True)
class Router:
    """Picks rails.

    Attributes:
        rails: At least one, the preferred first.
        mode: `table`: the first rail that takes the payment and is not down. `learn`: the one of the highest value.
        explore: Share of payments that is spread evenly over all rails that take them; only where it learns.
        most_given_up: Success rate that may be given up for a cheaper rail at most.
        version: Of the policy: it enters the draw, so that a new one draws anew.

    Raises:
        CostsError: A value is out of range; it names the field.

    Example:
        >>> router = Router((Rail("card", fee_bps=150), Rail("bank", fee=5, success=0.93)), "learn", explore=0.0)
        >>> costs = Costs()
        >>> from serve.decide.costs import payments_of
        >>> payments = payments_of(costs, np.array([0.001]), np.array([5_000]))
        >>> router.route(["t-1"], ["EUR"], payments, costs, [router.rates])
        [Route(rail='bank', propensity=1.0)]
    """

    rails: tuple[Rail, ...]
    mode: Literal["table", "learn"] = "table"
    explore: float = 0.02
    most_given_up: float = 0.05
    version: str = ""

    def __post_init__(self) -> None:
        names = [rail.name for rail in self.rails]
        if not 0 < len(names) <= MOST_RAILS:
            raise CostsError("rails", f"are {len(names)}: give 1 to {MOST_RAILS}")
        if len(set(names)) < len(names):
            raise CostsError(
                "rails", f"have the name {next(n for n in names if names.count(n) > 1)!r} twice: give each its own"
            )
        for name in ("explore", "most_given_up"):
            if not 0 <= getattr(self, name) <= 1:
                raise CostsError(name, f"is {getattr(self, name)}: give a share from 0 to 1")

    @property
    def rates(self) -> Rates:
        """What is known before any outcome."""
        return Rates.of({rail.name: rail.success for rail in self.rails})

    def route(
        self,
        ids: Sequence[str],
        currency: Sequence[str],
        payments: Payments,
        costs: Costs,
        rates: Sequence[Rates],
    ) -> list[Route | None]:
        """The rail of each payment.

        Args:
            ids: Transaction ids, [n].
            currency: ISO 4217 codes, [n].
            payments: n of them.
            costs: The constants.
            rates: What was known of the rails as of each payment, [n]: `RailBook.of`.

        Returns:
            [n]; None where no rail takes a payment.
        """
        chance = self.propensities(currency, payments, costs, rates)
        upto = chance.cumsum(1)
        drawn = np.fromiter((_draw(name, self.version) for name in ids), np.float64, len(ids)) * upto[:, -1]
        drawn = np.minimum(drawn, np.nextafter(upto[:, -1], 0.0))  # a draw next to 1 must not be rounded past all rails
        picked = np.minimum((upto <= drawn[:, None]).sum(1), len(self.rails) - 1)
        made: dict[tuple[int, float], Route] = {}  # most payments share a few
        found: list[Route | None] = []
        for k, likely in zip(picked.tolist(), chance[np.arange(len(ids)), picked].tolist(), strict=True):
            if likely <= 0:  # no rail takes it
                found.append(None)
                continue
            if (k, likely) not in made:
                made[k, likely] = Route(self.rails[k].name, likely)
            found.append(made[k, likely])
        return found

    def propensities(
        self, currency: Sequence[str], payments: Payments, costs: Costs, rates: Sequence[Rates]
    ) -> NDArray[np.float64]:
        """The probability with which each rail is picked, float64 [n, rails]; rows add up to 1, or 0 if none can."""
        success, down = self._known(rates)
        takes = self._takes(currency, payments)
        up = np.where((takes & ~down).any(1, keepdims=True), takes & ~down, takes)  # where all are down, one must do
        if self.mode == "table":
            best = up.argmax(1)
        else:
            worth = self.values(payments, costs, success)
            most = np.where(up, success, -np.inf).max(1, keepdims=True)
            near = up & (success >= most - self.most_given_up)
            best = np.where(near, worth, -np.inf).argmax(1)
        chance = np.zeros(takes.shape)
        rows = np.flatnonzero(takes.any(1))
        explored = self.explore if self.mode == "learn" else 0.0
        # A rail that is down is tried, too: else nobody would see that it is up again.
        chance[rows] = explored * takes[rows] / takes[rows].sum(1, keepdims=True)
        chance[rows, best[rows]] += 1.0 - explored
        return chance

    def values(self, payments: Payments, costs: Costs, success: NDArray[np.float64]) -> NDArray[np.float64]:
        """What each payment is worth on each rail, minor units of its currency, float64 [n, rails].

        Args:
            payments: n of them.
            costs: The constants.
            success: Chance that each is approved on each rail, float64 [n, rails].
        """
        amount, scale = payments.amount[:, None], payments.scale[:, None]
        fee, fee_bps, liability = (
            np.array([getattr(rail, name) for rail in self.rails]) for name in ("fee", "fee_bps", "liability")
        )
        approved = costs.margin * amount + costs.churn_lost * customer_value(costs, payments)[:, None]
        loss = payments.probability[:, None] * (costs.loss_share * amount + costs.chargeback_fee * scale)
        found: NDArray[np.float64] = success * (approved - liability * loss) - fee * scale - fee_bps * amount / 10_000.0
        return found

    def _takes(self, currency: Sequence[str], payments: Payments) -> NDArray[np.bool_]:
        amount = payments.amount / payments.scale
        found = np.ones((len(amount), len(self.rails)), bool)
        for k, rail in enumerate(self.rails):
            if rail.most is not None:
                found[:, k] &= amount <= rail.most
            if rail.currencies:
                found[:, k] &= np.fromiter((code in rail.currencies for code in currency), bool, len(amount))
        return found

    def _known(self, rates: Sequence[Rates]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Chance of success and whether it is down, of each payment and rail."""
        prior = {rail.name: rail.success for rail in self.rails}
        distinct = {id(held): held for held in rates}
        places = {key: i for i, key in enumerate(distinct)}
        tables = [held.table(prior) for held in distinct.values()]
        of = [places[id(held)] for held in rates]
        return np.array([t[0] for t in tables])[of], np.array([t[1] for t in tables])[of]


def _draw(transaction_id: str, version: str) -> float:
    """A number in [0, 1) that a payment has under a policy, the same on every machine."""
    digest = hashlib.blake2b(f"{version}\x1f{transaction_id}".encode(), digest_size=8, person=b"route").digest()
    return int.from_bytes(digest, "little") / 2.0**64
