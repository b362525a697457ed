"""From log-odds to probabilities: Platt scaling (Platt 1999), with the targets of Lin, Lin and Weng (2007)."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import expit
from scipy.special import logit as log_odds

from gnn.errors import ModelError

MIN_CALIBRATION_ROWS = 1_000  # payments too young to be labelled; with fewer, a refitted model keeps its calibration
MIN_SLOPE = 1e-3  # above 0, so that calibration never reverses the order of scores


@dataclass(frozen=True)
class PlattScaling:
    """p = 1 / (1 + exp(-(slope * logit + intercept)))."""

    slope: float
    intercept: float

    @classmethod
    def fit(cls, logit: NDArray[np.float64], is_fraud: NDArray[np.bool_]) -> Self:
        """Fit by maximum likelihood on payments later than those that trained the model.

        Args:
            logit: Uncalibrated log-odds, float64 [n].
            is_fraud: bool [n], both classes present.

        Raises:
            ModelError: One of the classes is missing.
        """
        frauds = int(is_fraud.sum())
        if not 0 < frauds < len(is_fraud):
            raise ModelError("calibration needs payments of both classes")
        # Targets a little inside 0 and 1 keep a handful of frauds from an infinite slope.
        target = np.where(is_fraud, (frauds + 1) / (frauds + 2), 1 / (len(is_fraud) - frauds + 2))
        mean, std = float(logit.mean()), float(logit.std()) or 1.0
        x = (logit - mean) / std

        def loss(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            z = w[0] * x + w[1]
            error = expit(z) - target
            return float(np.mean(np.logaddexp(0, z) - target * z)), np.array([np.mean(error * x), np.mean(error)])

        start = np.array([1.0, float(log_odds(target.mean()))])
        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(MIN_SLOPE * std, None), (None, None)])
        slope = float(found.x[0] / std)
        return cls(slope, float(found.x[1] - slope * mean))

    def probability(self, logit: NDArray[np.floating]) -> NDArray[np.float64]:
        """Calibrated probabilities, float64."""
        return np.asarray(expit(self.slope * np.asarray(logit, np.float64) + self.intercept))

    def logit(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        """The uncalibrated log-odds of probabilities: the inverse of `probability`."""
        return np.asarray((log_odds(probability) - self.intercept) / self.slope)


def calibration_covariance(
    log_odds_: NDArray[np.float64], is_fraud: NDArray[np.bool_], account: NDArray[np.integer]
) -> NDArray[np.float64]:
    """How unsure a calibration is: the covariance of slope and intercept, were it fitted to its own log-odds again.

    The inverse of the Fisher information, times a design effect where it is above 1: frauds of one account come
    together and say less than as many of different accounts (sandwich estimate over clusters, White 1982).

    Args:
        log_odds_: Calibrated log-odds of the payments that calibrated, float64 [n].
        is_fraud: bool [n].
        account: A number for each account, [n].

    Returns:
        float64 [2, 2]; very large where the log-odds are all alike.
    """
    p, x = expit(log_odds_), np.stack([log_odds_, np.ones(len(log_odds_))], 1)
    inverse = np.linalg.inv((x * (p * (1 - p))[:, None]).T @ x + 1e-6 * np.eye(2))
    _, code = np.unique(account, return_inverse=True)
    pull = x * (p - is_fraud)[:, None]
    by_account = np.stack([np.bincount(code, pull[:, i]) for i in range(2)], 1)
    effect = np.trace(inverse @ by_account.T @ by_account) / 2
    return np.asarray(inverse * max(1.0, effect))


def transfer_calibration(
    calibration: PlattScaling, before: NDArray[np.float32], after: NDArray[np.float32]
) -> PlattScaling:
    """The calibration of a model, adapted to the same model refitted on all labelled payments.

    No labelled payment is left to calibrate the refitted model with. But payments too young to be labelled were used by
    neither: the intercept is moved until the mean probability there is the same as before. The slope, and with it the
    order of scores, stays.

    Args:
        calibration: Of the first model.
        before: Its log-odds of payments that neither has learnt from, float32 [n].
        after: Those of the refitted model, float32 [n].

    Returns:
        The moved calibration; the same one, where there are fewer than `MIN_CALIBRATION_ROWS` payments.
    """
    if len(before) < MIN_CALIBRATION_ROWS:
        return calibration
    wanted, scaled = calibration.probability(before).mean(), calibration.slope * after.astype(np.float64)
    moved = brentq(lambda intercept: expit(scaled + intercept).mean() - wanted, -1e3, 1e3)
    return replace(calibration, intercept=float(moved))
