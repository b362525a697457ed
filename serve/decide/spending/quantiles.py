"""Weighted samples that stand for what may happen, and how forecasts by quantiles are judged."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEVELS: Final[Floats] = np.array([0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95])
"""Quantiles that a forecast is made of; the second and the last but one bound its 80 % interval."""


@dataclass(frozen=True)
class Sample:
    """Values with weights, ascending; infinite ones, which never happen, last.

    Attributes:
        values: float64 [n].
        levels: Share of the weight below the middle of each, float64 [n].
        weights: As shares of 1, float64 [n].
    """

    values: Floats
    levels: Floats
    weights: Floats

    @classmethod
    def mix(cls, *parts: tuple[Floats, Floats]) -> "Sample":
        """Join values with their weights.

        Example:
            >>> Sample.mix((np.array([3.0, 1.0, 2.0]), np.ones(3))).quantiles(np.array([0.5]))
            array([2.])
        """
        values = np.concatenate([part[0] for part in parts])
        weights = np.concatenate([part[1] for part in parts])
        order = np.argsort(values, kind="stable")
        values, weights = values[order], weights[order] / max(weights.sum(), 1e-300)
        return cls(values, np.cumsum(weights) - weights / 2, weights)

    def quantiles(self, levels: Floats = LEVELS) -> Floats:
        """Values below which so much lies; NaN of an empty sample."""
        if not len(self.values):
            return np.full(len(levels), np.nan)
        found: Floats = np.interp(levels, self.levels, self.values)
        return found

    def level(self, value: float) -> float:
        """The share below a value; of a value that occurs, the middle of its own share."""
        if not len(self.values):
            return 0.5
        low, high = np.searchsorted(self.values, value, "left"), np.searchsorted(self.values, value, "right")
        if high > low:
            return float((self.levels[low] + self.levels[high - 1]) / 2)
        return float(np.interp(value, self.values, self.levels))

    def within(self, horizon: float) -> tuple[float, "Sample"]:
        """The chance that it happens within a horizon, and the sample given that it does."""
        there = self.values <= horizon
        chance = float(self.weights[there].sum())
        return chance, Sample.mix((self.values[there], self.weights[there]))

    def capped(self, horizon: float, levels: Floats = LEVELS) -> Floats:
        """Quantiles of the time or the horizon, whichever comes first."""
        finite = np.minimum(self.values, horizon)
        return Sample(finite, self.levels, self.weights).quantiles(levels)


def pinball(value: float, quantiles: Floats, levels: Floats = LEVELS) -> float:
    """The mean pinball (quantile) loss of quantiles, in the unit of the value (Koenker and Bassett 1978).

    Example:
        >>> round(pinball(3.0, np.array([1.0, 3.0, 4.0]), np.array([0.1, 0.5, 0.9])), 4)
        0.1
    """
    beyond = value - quantiles
    return float(np.maximum(levels * beyond, (levels - 1) * beyond).mean())
