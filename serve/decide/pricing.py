"""A fee by risk, in basis points of a payment's amount, and who pays it.

The fee is a base rate and the expected loss of the payment with a loading on it, between a floor and a cap. With one
amount, more risk never makes it lower. It is off unless a policy asks for it: whoever prices by risk has to be able to
say why, so every fee is explained (`explain`), and `fairness` compares what each segment pays with what it is
expected to lose, and lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serve.decide.costs import Costs, CostsError, Payments

BPS: Final = 10_000.0  # basis points of the whole amount
DECIMALS: Final = 2  # of a fee in basis points


@dataclass(frozen=True, slots=True)
class Pricing:
    """How fees follow from risk.

    Attributes:
        base_bps: What a payment without any risk pays.
        loading: What each unit of expected loss adds to the fee; 1 passes it on as it is.
        floor_bps: No fee is lower.
        cap_bps: No fee is higher.

    Raises:
        CostsError: A value is out of range; it names the field.

    Example:
        >>> import numpy as np
        >>> from serve.decide.costs import Costs, payments_of
        >>> costs = Costs()
        >>> payments = payments_of(costs, np.array([0.0, 0.01, 0.5]), np.array([10_000, 10_000, 10_000]))
        >>> Pricing().fees(costs, payments).tolist()
        [20.0, 140.0, 300.0]
    """

    base_bps: float = 20.0
    loading: float = 1.0
    floor_bps: float = 10.0
    cap_bps: float = 300.0

    def __post_init__(self) -> None:
        for name in ("base_bps", "loading", "floor_bps", "cap_bps"):
            value = getattr(self, name)
            if not (isfinite(value) and value >= 0):
                raise CostsError(name, f"is {value}: give 0 or more")
        if self.cap_bps < self.floor_bps:
            raise CostsError("cap_bps", f"is {self.cap_bps:g}: give at least floor_bps, which is {self.floor_bps:g}")

    def fees(self, costs: Costs, payments: Payments) -> NDArray[np.float64]:
        """The fee of each payment in basis points, float64 [n]; the floor for an amount of nothing."""
        fees: NDArray[np.float64] = self.base_bps + self._risk_bps(costs, payments)
        return fees.clip(self.floor_bps, self.cap_bps).round(DECIMALS)

    def explain(self, costs: Costs, payments: Payments) -> list[str]:
        """What each fee is made of, a sentence for each payment."""
        said = []
        for risk, fee, p in zip(
            self._risk_bps(costs, payments), self.fees(costs, payments), payments.probability, strict=True
        ):
            sum_of = self.base_bps + risk
            bound = (
                f"; held at the cap of {self.cap_bps:g}"
                if sum_of > self.cap_bps
                else f"; raised to the floor of {self.floor_bps:g}"
                if sum_of < self.floor_bps
                else ""
            )
            said.append(
                f"{fee:g} bps: {self.base_bps:g} base and {risk:.{DECIMALS}f} for an expected loss at {p:.4%} risk of "
                f"fraud{bound}"
            )
        return said

    def _risk_bps(self, costs: Costs, payments: Payments) -> NDArray[np.float64]:
        loss = payments.probability * (costs.loss_share * payments.amount + costs.chargeback_fee * payments.scale)
        share = np.divide(loss, payments.amount, out=np.zeros_like(loss), where=payments.amount > 0)
        return BPS * self.loading * share


@dataclass(frozen=True, slots=True)
class SegmentFees:
    """What one segment pays, against what it costs. Money is in minor units of the costs' currency.

    Attributes:
        segment: Its name.
        payments: How many.
        amount: Their sum.
        fees: What they pay.
        expected_loss: What they are expected to lose.
        lost: What they did lose, by labels that are known; None where none were given.
        mean_bps: Fees by amount.
        against_expected: Fees beyond those of all payments for the same expected loss: 1 is as everybody, 1.2 a fifth
            more. A segment far from 1 is priced by something else than its risk, usually the floor or the cap.
        against_lost: Fees for each unit really lost, likewise; far above 1 says that the model overrates its risk.
            None without labels or losses.
    """

    segment: str
    payments: int
    amount: float
    fees: float
    expected_loss: float
    lost: float | None
    mean_bps: float
    against_expected: float | None
    against_lost: float | None


def fairness(
    fees: NDArray[np.float64],
    costs: Costs,
    payments: Payments,
    segment: Sequence[str],
    fraud: NDArray[np.bool_] | None = None,
) -> list[SegmentFees]:
    """Who pays what, against expected and known losses.

    Args:
        fees: Basis points, float64 [n].
        costs: The constants.
        payments: n of them.
        segment: Of each, such as its country or its amount band, [n].
        fraud: What they turned out to be, bool [n], if known.

    Returns:
        One for each segment, the largest amount first.
    """
    amount = payments.amount / payments.scale
    paid = amount * fees / BPS
    at_stake = costs.loss_share * amount + costs.chargeback_fee
    expected = payments.probability * at_stake
    lost = None if fraud is None else np.where(fraud, at_stake, 0.0)
    names, of = np.unique(np.asarray(segment, dtype=str), return_inverse=True)

    def total(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(of, values, len(names)).astype(np.float64)

    def relative(by: NDArray[np.float64], k: int) -> float | None:
        whole = by.sum()
        mine = by[of == k].sum()
        return None if whole <= 0 or mine <= 0 or paid.sum() <= 0 else float(fee[k] / mine / (paid.sum() / whole))

    fee, sums, expected_sums = total(paid), total(amount), total(expected)
    lost_sums = None if lost is None else total(lost)
    found = [
        SegmentFees(
            segment=str(name),
            payments=int((of == k).sum()),
            amount=float(sums[k]),
            fees=float(fee[k]),
            expected_loss=float(expected_sums[k]),
            lost=None if lost_sums is None else float(lost_sums[k]),
            mean_bps=float(BPS * fee[k] / sums[k]) if sums[k] else 0.0,
            against_expected=relative(expected, k),
            against_lost=None if lost is None else relative(lost, k),
        )
        for k, name in enumerate(names)
    ]
    return sorted(found, key=lambda s: (-s.amount, s.segment))
