"""Whether probabilities mean what they say, and what to do when the base rate has moved since they were calibrated."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.special import logit as log_odds

ROUNDS = 200
CLOSE = 1e-7  # of the base rate, between two rounds


@dataclass(frozen=True)
class Bin:
    """Payments with about the same probability.

    Attributes:
        payments: In it.
        frauds: Among them.
        lowest: Probability.
        highest: Probability.
        predicted: Mean probability.
        observed: Share of frauds.
    """

    payments: int
    frauds: int
    lowest: float
    highest: float
    predicted: float
    observed: float


@dataclass(frozen=True)
class PriorShift:
    """The base rate that scores were calibrated for, and the one that they themselves point to.

    Attributes:
        calibrated_for: Share of frauds among the payments that calibrated.
        estimated: Share of frauds among the payments judged, estimated from their scores alone.
        observed: Their true share.
        error: Expected calibration error as scored.
        error_corrected: The same after the correction.
    """

    calibrated_for: float
    estimated: float
    observed: float
    error: float
    error_corrected: float


def reliability(probability: NDArray[np.float64], is_fraud: NDArray[np.bool_], bins: int = 20) -> list[Bin]:
    """The reliability curve over bins of equal mass, lowest probabilities first.

    Args:
        probability: float64 [n].
        is_fraud: bool [n].
        bins: At most so many.
    """
    parts = np.array_split(np.argsort(probability, kind="stable"), bins)
    return [
        Bin(
            payments=len(part),
            frauds=int(is_fraud[part].sum()),
            lowest=float(probability[part[0]]),
            highest=float(probability[part[-1]]),
            predicted=float(probability[part].mean()),
            observed=float(is_fraud[part].mean()),
        )
        for part in parts
        if len(part)
    ]


def calibration_error(probability: NDArray[np.float64], is_fraud: NDArray[np.bool_], bins: int = 20) -> float:
    """Expected calibration error over bins of equal mass."""
    return sum(b.payments * abs(b.predicted - b.observed) for b in reliability(probability, is_fraud, bins)) / len(
        probability
    )


def moved(probability: NDArray[np.float64], before: float, after: float) -> NDArray[np.float64]:
    """Probabilities under another base rate, if only that has changed; float64 [n]."""
    low, high = 1e-12, 1 - 1e-12
    return np.asarray(expit(log_odds(np.clip(probability, low, high)) + log_odds(after) - log_odds(before)))


def estimated_rate(probability: NDArray[np.float64], before: float) -> float:
    """The base rate of unlabelled payments from their scores: expectation maximisation (Saerens et al., 2002).

    Holds where the scores are calibrated for `before` and only the share of frauds has moved, not what fraud looks
    like. Ranks never change, so neither do average precision and ROC AUC.

    Args:
        probability: Scores of the payments, float64 [n].
        before: Base rate that they are calibrated for.

    Returns:
        The estimate, inside (0, 1).
    """
    rate = before
    for _ in range(ROUNDS):
        after = float(np.clip(moved(probability, before, rate).mean(), 1e-9, 1 - 1e-9))
        done = abs(after - rate) < CLOSE
        rate = after
        if done:
            break
    return rate


def prior_shift(probability: NDArray[np.float64], is_fraud: NDArray[np.bool_], before: float) -> PriorShift:
    """What the correction does for payments whose labels came later: they judge it, they take no part in it."""
    estimate = estimated_rate(probability, before)
    return PriorShift(
        calibrated_for=before,
        estimated=estimate,
        observed=float(is_fraud.mean()),
        error=calibration_error(probability, is_fraud),
        error_corrected=calibration_error(moved(probability, before, estimate), is_fraud),
    )
