"""Whether probabilities mean what they say, and what to do when the base rate has moved since they were calibrated."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.special import logit as log_odds

ROUNDS = 200
CLOSE = 1e-7  # of the base rate, between two rounds
DRAWS = 200  # of calibrations and payments, for an interval
BINS = 600  # of scores, over which an interval is computed
WIDEST = 10.0  # ratio of the odds at both ends of an interval; a wider one says nothing


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
class CalibratedOn:
    """The payments that calibrated a model.

    Attributes:
        base_rate: Share of frauds among them.
        covariance: Of slope and intercept of the calibrated log-odds: how unsure those payments leave them
            (`gnn.model.calibration.calibration_covariance`).
    """

    base_rate: float
    covariance: Sequence[Sequence[float]] = ((0.0, 0.0), (0.0, 0.0))


@dataclass(frozen=True)
class PriorShift:
    """The base rate that scores were calibrated for, and the one that they themselves point to.

    Attributes:
        calibrated_for: Share of frauds among the payments that calibrated.
        low: Lower end of the 95 % interval of the share of frauds among the payments judged, from their scores alone.
        high: Upper end.
        estimated: The estimate itself; None where the interval is so wide that the scores cannot tell.
        observed: Their true share.
        error: Expected calibration error as scored.
        error_corrected: The same after the correction; None where there is none.
    """

    calibrated_for: float
    low: float
    high: float
    estimated: float | None
    observed: float
    error: float
    error_corrected: float | None

    def __str__(self) -> str:
        said = (
            f"Of the payments used for calibration {self.calibrated_for:.2%} were fraud, of these {self.observed:.2%}. "
        )
        if self.estimated is None:
            return said + "The scores alone, without labels, cannot tell whether the share of frauds has changed"
        return said + (
            f"The estimate from the scores, without labels, is {self.estimated:.2%} ({self.low:.2%} to "
            f"{self.high:.2%}); corrected by it the calibration error is {self.error_corrected:.4f}"
        )


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


def rate_interval(probability: NDArray[np.float64], on: CalibratedOn, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of `estimated_rate`, over payments and over the calibrations that few frauds leave possible.

    Slopes below 0 are among those drawn: where the payments that calibrated could not say whether a higher score means
    more fraud, the estimate goes from nothing to everything, and the interval says so.

    Args:
        probability: Scores of the payments, float64 [n].
        on: What calibrated them.
        seed: Of the draws.
    """
    rng, n = np.random.default_rng(seed), len(probability)
    scores = log_odds(np.clip(probability, 1e-12, 1 - 1e-12))
    # Bins as wide as each other, so that the few high scores, which say most, are not averaged with others.
    count, edges = np.histogram(scores, BINS)
    total = np.histogram(scores, edges, weights=scores)[0]
    score, share = total[count > 0] / count[count > 0], count[count > 0] / n
    covariance = np.asarray(on.covariance, np.float64)
    slope, intercept = rng.multivariate_normal([1.0, 0.0], covariance, DRAWS, check_valid="ignore").T
    ratio = slope[:, None] * score + intercept[:, None] - log_odds(on.base_rate)
    gain = np.expm1(np.clip(ratio, -30, 30))  # of the likelihood, from fraud over the rest
    weight = rng.multinomial(n, share, DRAWS)
    low, high = np.zeros(DRAWS), np.ones(DRAWS)
    for _ in range(40):  # the likelihood is concave in the rate: halve until its slope is 0
        rate = (low + high) / 2
        rises = (weight * gain / (1 + rate[:, None] * gain)).sum(1) > 0
        low, high = np.where(rises, rate, low), np.where(rises, high, rate)
    ends = np.quantile(low, [0.025, 0.975])
    return float(ends[0]), float(ends[1])


def prior_shift(probability: NDArray[np.float64], is_fraud: NDArray[np.bool_], on: CalibratedOn) -> PriorShift:
    """What the correction does for payments whose labels came later: they judge it, they take no part in it."""
    low, high = rate_interval(probability, on)
    ends = log_odds(np.clip([low, high], 1e-9, 1 - 1e-9))
    told = ends[1] - ends[0] <= np.log(WIDEST)
    estimate = estimated_rate(probability, on.base_rate) if told else None
    return PriorShift(
        calibrated_for=on.base_rate,
        low=low,
        high=high,
        estimated=estimate,
        observed=float(is_fraud.mean()),
        error=calibration_error(probability, is_fraud),
        error_corrected=None
        if estimate is None
        else calibration_error(moved(probability, on.base_rate, estimate), is_fraud),
    )
