"""The chance that an account pays again within a horizon: logistic regression on what the model of buying says.

The model of buying forgets nothing and knows no drift. What became of accounts lately corrects it: how often they had
paid, for how long, how long they were silent, and their last gap.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serve.decide.spending.spent import Gaps

Floats = NDArray[np.float64]
FEATURES: Final = 7
RIDGE: Final = 1.0  # prior precision of a weight, of standardised features
STEPS: Final = 25
SURE: Final = 1e-4  # no chance is said to be nearer to 0 or 1


@dataclass(frozen=True)
class Chance:
    """Weights of the logistic regression.

    Attributes:
        weights: float64 [7], the constant first.
    """

    weights: Floats

    @classmethod
    def fit(cls, said: Sequence[float], known: Sequence[Gaps], came: Sequence[bool]) -> "Chance":
        """By Newton's method on the penalised likelihood; the prior is what the model of buying says.

        Args:
            said: Chances by the model of buying, [n].
            known: What was known of the accounts, [n].
            came: Whether they paid within the horizon, [n].
        """
        x = np.array([_features(p, gaps) for p, gaps in zip(said, known, strict=True)])
        y, scale = np.array(came, float), np.maximum(x.std(axis=0), 1e-6)
        scale[0] = 1.0
        z, prior = x / scale, as_said().weights * scale
        weights = prior.copy()
        for _ in range(STEPS):
            p = 1 / (1 + np.exp(-np.clip(z @ weights, -30, 30)))
            slope = z.T @ (p - y) + RIDGE * (weights - prior)
            bend = (z * (p * (1 - p))[:, None]).T @ z + RIDGE * np.eye(FEATURES)
            step = np.linalg.solve(bend, slope)
            weights -= np.clip(step, -2, 2)
            if float(np.abs(step).max()) < 1e-6:
                break
        return cls(weights / scale)

    def of(self, said: float, gaps: Gaps) -> float:
        """The chance, where the model of buying says `said`."""
        return float(np.clip(1 / (1 + np.exp(-np.clip(self.weights @ _features(said, gaps), -30, 30))), SURE, 1 - SURE))


def as_said() -> Chance:
    """One that believes the model of buying."""
    return Chance(np.eye(FEATURES)[1])


def _features(said: float, gaps: Gaps) -> Floats:
    p = min(max(said, SURE), 1 - SURE)
    last = float(gaps.lengths[-1]) if len(gaps.lengths) else 0.0
    logs = np.log1p([gaps.n - 1.0, gaps.silent, gaps.age, last])
    return np.concatenate([[1.0, np.log(p / (1 - p))], logs, [float(gaps.n == 1)]])
