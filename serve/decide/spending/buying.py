"""How accounts in general pay, and stop paying: rates that differ between accounts, and a chance to leave.

The beta-geometric/negative-binomial model of Fader, Hardie and Lee (Marketing Science 2005). While it is alive, an
account pays at a rate of its own; rates are Gamma(r, alpha) distributed. After each payment but the first it leaves for
good with a probability of its own, Beta(a, b) distributed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import betaln, gammaln

from serve.decide.spending.spent import Gaps

Floats = NDArray[np.float64]
GRID: Final[Floats] = (np.arange(100) + 0.5) / 100
BOUND: Final = 9.0  # of the logarithm of a parameter: where nobody ever leaves, the likelihood has no maximum


@dataclass(frozen=True)
class Buying:
    """The four parameters; time is in days of the crowd's clock.

    Attributes:
        r: Shape of the rates.
        alpha: Their inverse scale, days.
        a: Of the chance to leave.
        b: Of the chance to stay.
    """

    r: float = 1.0
    alpha: float = 2.0
    a: float = 0.05
    b: float = 5.0

    @classmethod
    def fit(cls, accounts: Sequence[Gaps]) -> "Buying":
        """By maximum likelihood, from accounts as of one moment."""
        x = np.array([gaps.n - 1 for gaps in accounts], float)
        age = np.maximum(np.array([gaps.age for gaps in accounts]), 1e-3)
        last = np.clip(age - np.array([gaps.silent for gaps in accounts]), 0, age)
        unit = float(age.mean())

        def loss(log: Floats) -> float:
            return -_likelihood(np.exp(log), x, last / unit, age / unit)

        start = np.log([1.0, 1.0 / max(1.0, float(x.mean())), 0.2, 3.0])
        best = minimize(loss, start, method="L-BFGS-B", bounds=[(-BOUND, BOUND)] * 4)
        r, alpha, a, b = np.exp(best.x).tolist()
        return cls(r, alpha * unit, a, b)

    def alive(self, gaps: Gaps) -> float:
        """The probability that an account has not left."""
        x = gaps.n - 1
        if not x:
            return 1.0
        grown = (self.r + x) * np.log((self.alpha + gaps.age) / (self.alpha + gaps.age - gaps.silent))
        left = np.exp(np.clip(np.log(self.a) - np.log(self.b + x - 1) + grown, -500, 500))
        return float(1 / (1 + left))

    def times(self, gaps: Gaps) -> Floats:
        """A hundred quantiles of the time to the next payment, infinite for none."""
        alive = self.alive(gaps)
        share = GRID / max(alive, 1e-12)
        found = np.full(len(GRID), np.inf)
        there = share < 1
        found[there] = (self.alpha + gaps.age) * np.expm1(-np.log1p(-share[there]) / (self.r + gaps.n - 1))
        return found


def _likelihood(parameters: Floats, x: Floats, last: Floats, age: Floats) -> float:
    """The mean log likelihood of x repeated payments, the last of them at `last`, by an account's `age`."""
    r, alpha, a, b = parameters
    rate = gammaln(r + x) - gammaln(r) + r * np.log(alpha)
    stay = betaln(a, b + x) - betaln(a, b) - (r + x) * np.log(alpha + age)
    left = betaln(a + 1, b + np.maximum(x, 1) - 1) - betaln(a, b) - (r + x) * np.log(alpha + last)
    return float((rate + np.where(x > 0, np.logaddexp(stay, left), stay)).mean())
