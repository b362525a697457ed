"""What an account's own payments say of its next: gaps between them, and amounts."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serve.decide.spending.clock import Clock

Floats = NDArray[np.float64]
NEWEST: Final = 1_000  # payments that are read


@dataclass(frozen=True)
class Gaps:
    """Times between an account's payments, in days of a clock.

    Attributes:
        n: Payments so far.
        lengths: Of the newest gaps, oldest first, float64 [g].
        silent: Since the last payment.
        age: Since the first.
    """

    n: int
    lengths: Floats
    silent: float
    age: float

    @classmethod
    def of(cls, times: NDArray[np.int64], now: int, clock: Clock) -> "Gaps":
        """Of payments up to a moment.

        Args:
            times: us, ascending, int64 [n], n > 0.
            now: us.
            clock: To measure by.
        """
        days = clock.many(times[-NEWEST:])
        at = clock.days(now)
        return cls(len(times), np.diff(days), max(at - float(days[-1]), 0.0), max(at - clock.days(int(times[0])), 0.0))


@dataclass(frozen=True)
class Amounts:
    """What an account's payments in one currency amounted to.

    Attributes:
        currency: ISO 4217.
        logs: log1p of minor units, of the newest payments, oldest first, float64 [n].
    """

    currency: str
    logs: Floats

    @classmethod
    def of(cls, amount: NDArray[np.int64], currency: list[str], wanted: str) -> "Amounts":
        """The amounts in a currency, among payments in several.

        Args:
            amount: Minor units, oldest first, int64 [n].
            currency: Of each, [n].
            wanted: Which.
        """
        rows = [i for i, code in enumerate(currency) if code == wanted][-NEWEST:]
        return cls(wanted, np.log1p(amount[rows].astype(float)))


def recent(n: int, half: float) -> Floats:
    """Weights of n payments, oldest first: the newest has 1, and half as much the one `half` payments before it."""
    found: Floats = 0.5 ** (np.arange(n)[::-1] / half)
    return found
