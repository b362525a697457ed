"""A clock that runs while payments are made, and nearly stands still while people sleep."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serve.decide.spending.past import HOUR_US

HOURS: Final = 168  # of a week, from Thursday 1 January 1970 on
FLAT: Final = 0.05  # of the clock's speed that is the same at all hours


@dataclass(frozen=True)
class Clock:
    """Time counted in payments: an hour in which twice as many are made is twice as long.

    Attributes:
        edges: Days of this clock from the beginning of a week to that of each hour, float64 [169]; a week has 7.
    """

    edges: NDArray[np.float64]

    @classmethod
    def of(cls, times: Sequence[NDArray[np.int64]]) -> "Clock":
        """From when the payments of some accounts were made, us since 1970; each account counts alike."""
        share = np.zeros(HOURS)
        for some in times:
            hours, counts = np.unique(some // HOUR_US % HOURS, return_counts=True)
            share[hours] += counts / max(len(some), 20)
        share = share / share.sum() if share.sum() else np.full(HOURS, 1 / HOURS)
        speed = FLAT / HOURS + (1 - FLAT) * share
        return cls(np.concatenate([[0.0], 7 * np.cumsum(speed)]))

    def days(self, us: int) -> float:
        """Days of this clock since 1970."""
        weeks, rest = divmod(us / HOUR_US, HOURS)
        return 7 * weeks + float(np.interp(rest, np.arange(HOURS + 1), self.edges))

    def many(self, us: NDArray[np.int64]) -> NDArray[np.float64]:
        """The same of many moments."""
        weeks, rest = np.divmod(us / HOUR_US, HOURS)
        found: NDArray[np.float64] = 7 * weeks + np.interp(rest, np.arange(HOURS + 1), self.edges)
        return found

    def moment(self, days: float) -> int:
        """The moment, us since 1970, at which this clock shows so many days."""
        weeks, rest = divmod(days, 7)
        return int((weeks * HOURS + float(np.interp(rest, self.edges, np.arange(HOURS + 1)))) * HOUR_US)


def usual_clock() -> Clock:
    """One that runs evenly."""
    return Clock(np.linspace(0, 7, HOURS + 1))
