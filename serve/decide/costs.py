"""What each action on a payment is expected to cost, and the action that costs least.

A probability alone does not say what to do: the same 1 % is a challenge for 900 euros and nothing for 2. Each action
has an expected cost (Elkan, The Foundations of Cost-Sensitive Learning, IJCAI 2001; Bahnsen et al., Example-Dependent
Cost-Sensitive Decision Trees, 2015), with p the calibrated probability of fraud, a the amount, L = loss_share * a +
chargeback_fee what a fraud loses, and V the customer's value:

    approve    p L
    challenge  fee + p (1 - catch) L + (1 - p) lost (margin a + churn_lost V)
    review     review_cost + p (1 - review_catch) L + (1 - p) review_lost (margin a + churn_declined V)
    decline    (1 - p) (margin a + churn_declined V)

The constants were fixed before any policy was written or measured (docs/policy.md, "What it costs"). A policy file may
set its own. They are in minor units of one currency; other currencies are converted by their number of decimals and,
where the policy gives one, by their rate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import isfinite
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from data.currency import exponent
from serve.decide.decision import Action, Decision
from serve.errors import ServeError

ACTIONS: Final[tuple[Action, ...]] = ("approve", "step_up_3ds", "step_up_biometrics", "review", "decline")
DECISIONS: Final[tuple[Decision, ...]] = ("approve", "challenge", "challenge", "review", "decline")
CHALLENGES: Final = ("3ds", "biometrics")
APPROVE, STEP_UP_3DS, STEP_UP_BIOMETRICS, REVIEW, DECLINE = range(5)
Floats = NDArray[np.float64]


class CostsError(ServeError):
    """A cost is out of range.

    Attributes:
        field: Of `Costs`.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field} {reason}")
        self.field = field


@dataclass(frozen=True, slots=True)
class Costs:
    """The constants of the cost model. Money is in minor units of `currency`.

    Attributes:
        currency: ISO 4217 code of the currency that the money below is in.
        rates: What one major unit of another currency is worth in major units of `currency`; 1 where none is given.
        loss_share: Share of a fraud's amount that is lost.
        chargeback_fee: What a fraud costs beside its amount.
        review_cost: What a person's look at a payment costs.
        review_catch: Share of frauds that a review stops.
        review_lost: Share of honest payments that a review wrongly stops, or whose payer does not wait.
        step_up_3ds_fee: Price of a 3-D Secure challenge.
        step_up_3ds_catch: Share of frauds that it stops.
        step_up_3ds_lost: Share of honest payers who fail it or give up.
        step_up_biometrics_fee: Price of a biometric challenge. It is only for accounts that passed one before.
        step_up_biometrics_catch: Share of frauds that it stops.
        step_up_biometrics_lost: Share of honest payers who fail it or give up.
        challenge_weight: How many challenges of an account's own count as much as the shares of honest payers above.
        margin: Share of an honest payment's amount that is earned with it.
        value_months: For how many months a customer's margin of the last 30 days is expected to go on.
        least_value: Value of a customer of whom no more is known.
        churn_declined: Share of a customer's value lost by a false decline.
        churn_lost: Share of it lost by a challenge that an honest payer does not get through.

    Raises:
        CostsError: A value is out of range; it names the field.

    Example:
        >>> Costs(review_cost=500).in_minor(500, "JPY")  # 5.00 EUR, with no rate given
        5.0
    """

    currency: str = "EUR"
    rates: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    loss_share: float = 1.0
    chargeback_fee: float = 2000.0
    review_cost: float = 400.0
    review_catch: float = 0.90
    review_lost: float = 0.05
    step_up_3ds_fee: float = 8.0
    step_up_3ds_catch: float = 0.80
    step_up_3ds_lost: float = 0.10
    step_up_biometrics_fee: float = 3.0
    step_up_biometrics_catch: float = 0.90
    step_up_biometrics_lost: float = 0.05
    challenge_weight: float = 10.0
    margin: float = 0.03
    value_months: float = 12.0
    least_value: float = 2000.0
    churn_declined: float = 0.20
    churn_lost: float = 0.05

    def __post_init__(self) -> None:
        if not (len(self.currency) == 3 and self.currency.isascii() and self.currency.isupper()):
            raise CostsError("currency", f"is {self.currency!r}: give an ISO 4217 code such as EUR")
        for code, rate in self.rates.items():
            if not (isfinite(rate) and rate > 0):
                raise CostsError(
                    f"rates.{code}", f"is {rate}: give what one {code} is worth in {self.currency}, above 0"
                )
        for name in (f.name for f in fields(self) if f.name not in ("currency", "rates")):
            value = getattr(self, name)
            share = name.endswith(_SHARES)
            if not (isfinite(value) and value >= 0 and (value <= 1 or not share)):
                raise CostsError(name, f"is {value}: give " + ("a share from 0 to 1" if share else "0 or more"))

    def in_minor(self, money: float, currency: str) -> float:
        """Money of these costs in minor units of another currency."""
        return money * self.scale(currency)

    def scale(self, currency: str) -> float:
        """Minor units of a currency that are worth one minor unit of the costs' own."""
        if currency == self.currency:
            return 1.0
        return 10.0 ** (exponent(currency) - exponent(self.currency)) / self.rates.get(currency, 1.0)


_SHARES: Final = ("_share", "_catch", "_lost", "_declined", "margin")


@dataclass(frozen=True, slots=True)
class Payments:
    """What the costs of n payments depend on, beside the constants; arrays of their own units.

    Attributes:
        probability: Calibrated probability of fraud, float64 [n].
        amount: Minor units, float64 [n].
        scale: Minor units of each one's currency that are worth one of the costs' own (`Costs.scale`), float64 [n].
        spent: What its account spent in the 30 days before it, minor units of its currency, float64 [n].
        passed: Challenges that its account passed before it, by `CHALLENGES`, [n, 2].
        failed: Challenges that it failed, likewise.
    """

    probability: Floats
    amount: Floats
    scale: Floats
    spent: Floats
    passed: Floats
    failed: Floats


def payments_of(
    costs: Costs,
    probability: Floats,
    amount: NDArray[np.int64] | Floats,
    currency: Sequence[str] | None = None,
    spent: NDArray[np.float64] | NDArray[np.int64] | None = None,
    passed: NDArray[np.int64] | None = None,
    failed: NDArray[np.int64] | None = None,
) -> Payments:
    """Bring what is known of payments into one form.

    Args:
        costs: The constants.
        probability: Calibrated, float64 [n].
        amount: Minor units, [n].
        currency: ISO 4217 codes, [n]; the currency of the costs if None.
        spent: Of each one's account in the 30 days before, minor units, [n]; nothing is known of it if None.
        passed: Challenges that each one's account passed before, by `CHALLENGES`, int64 [n, 2]; none if None.
        failed: Likewise, failed.
    """
    n = len(probability)
    if currency is None:
        scale = np.ones(n)
    else:
        known = {code: costs.scale(code) for code in set(currency)}
        scale = np.fromiter((known[code] for code in currency), np.float64, n)
    none = np.zeros((n, 2))
    return Payments(
        probability,
        amount.astype(np.float64),
        scale,
        np.zeros(n) if spent is None else np.asarray(spent, np.float64),
        none if passed is None else passed.astype(np.float64),
        none if failed is None else failed.astype(np.float64),
    )


def spent_of(log_amount: NDArray[np.float32]) -> Floats:
    """What accounts spent in 30 days, of the feature `account.amount.30d` (log1p of minor units), float64 [n]."""
    return np.expm1(log_amount.astype(np.float64))


def customer_value(costs: Costs, payments: Payments) -> Floats:
    """What each payment's customer is expected to earn, minor units of its currency, float64 [n]."""
    earned = costs.margin * costs.value_months * payments.spent
    return np.maximum(earned, costs.least_value * payments.scale)


def expected_loss(costs: Costs, payments: Payments) -> NDArray[np.int64]:
    """What each payment is expected to lose if it is approved, minor units of its currency, int64 [n]."""
    at_stake = costs.loss_share * payments.amount + costs.chargeback_fee * payments.scale
    return np.rint(payments.probability * at_stake).astype(np.int64)


def expected_costs(costs: Costs, payments: Payments) -> Floats:
    """The expected cost of each action, in minor units of each payment's currency.

    Args:
        costs: The constants.
        payments: n of them.

    Returns:
        float64 [n, 5], by `ACTIONS`; infinite where an action cannot be had.

    Example:
        >>> import numpy as np
        >>> costs = Costs()
        >>> payments = payments_of(costs, np.array([0.01, 0.01]), np.array([200, 90_000]))
        >>> [ACTIONS[i] for i in expected_costs(costs, payments).argmin(1)]
        ['approve', 'step_up_3ds']
    """
    p, scale = payments.probability, payments.scale
    honest = 1.0 - p
    at_stake = p * (costs.loss_share * payments.amount + costs.chargeback_fee * scale)
    value, earned = customer_value(costs, payments), costs.margin * payments.amount
    declined = honest * (earned + costs.churn_declined * value)
    given_up = honest * (earned + costs.churn_lost * value)
    found = np.empty((len(p), len(ACTIONS)))
    found[:, APPROVE] = at_stake
    for k, (fee, catch, lost) in enumerate(
        (
            (costs.step_up_3ds_fee, costs.step_up_3ds_catch, costs.step_up_3ds_lost),
            (costs.step_up_biometrics_fee, costs.step_up_biometrics_catch, costs.step_up_biometrics_lost),
        )
    ):
        # An account's own challenges tell more of it than the share of all payers: a Beta prior worth a few of them.
        tried = payments.passed[:, k] + payments.failed[:, k]
        own = (costs.challenge_weight * lost + payments.failed[:, k]) / np.maximum(costs.challenge_weight + tried, 1e-9)
        found[:, STEP_UP_3DS + k] = fee * scale + (1.0 - catch) * at_stake + own * given_up
    found[payments.passed[:, 1] <= 0, STEP_UP_BIOMETRICS] = np.inf
    found[:, REVIEW] = costs.review_cost * scale + (1.0 - costs.review_catch) * at_stake + costs.review_lost * declined
    found[:, DECLINE] = declined
    return found


def least_cost(
    expected: Floats, review_price: float = 0.0, scale: Floats | None = None, allowed: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """The action that costs least, an index of `ACTIONS`, int64 [n]; of equal ones the one that interferes least.

    Args:
        expected: Of `expected_costs`, float64 [n, 5].
        review_price: What a place in the review queue is worth beside the work, in minor units of the costs' currency:
            the shadow price of the review budget (`review_price`).
        scale: Of the payments (`Payments.scale`), float64 [n]; 1 if None.
        allowed: Which actions may be taken, bool [5] or [n, 5]; all if None.
    """
    priced = expected.copy()
    priced[:, REVIEW] += review_price if scale is None else review_price * scale
    if allowed is not None:
        priced[~np.broadcast_to(allowed, priced.shape)] = np.inf
    found: NDArray[np.int64] = priced.argmin(1)
    return found


def review_gain(expected: Floats, scale: Floats | None = None) -> Floats:
    """What a review of each payment saves beside the best other action, minor units of the costs' currency, [n]."""
    others = np.delete(expected, REVIEW, axis=1).min(1)
    gain = others - expected[:, REVIEW]
    return gain if scale is None else gain / scale


def review_price(gains: Floats, share: float) -> float:
    """The shadow price at which at most a share of payments like these is reviewed; 0 where the budget is not short.

    It is the gain of the first review that no longer fits (Lagrange multiplier of the budget): set into a policy, it
    travels with the policy's text, so that a decision depends on nothing but the journal and a replay decides alike.

    Args:
        gains: Of `review_gain`, of recorded payments, float64 [n].
        share: Of payments that may be reviewed, 0 to 1.

    Raises:
        CostsError: The share is not one.
    """
    if not 0.0 <= share <= 1.0:
        raise CostsError("review_share", f"is {share}: give a share of payments from 0 to 1")
    room = int(share * len(gains))
    if room >= len(gains):
        return 0.0
    first_out = float(np.partition(gains, len(gains) - 1 - room)[len(gains) - 1 - room])
    return max(0.0, first_out * (1 + 1e-9))  # a hair more, so that rounding brings none of the others in
