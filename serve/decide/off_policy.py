"""What a policy or a router would have earned, from the log of another one.

The log says what was done (an action), with which probability it was picked there (its propensity), and what came of
it (a reward). What another policy would have done is never seen where it differs, so its value is estimated:

- `ips`: each reward weighted by target / propensity (Horvitz and Thompson 1952). No bias; noisy where weights are big.
- `snips`: the same, by the sum of weights (Swaminathan and Joachims 2015). Little bias, far less noise.
- `direct`: the mean of a model of the rewards. No noise of weights; as wrong as the model.
- `doubly_robust`: the model, and the weighted rest that it leaves (Dudik et al. 2011). Right if either is.
- `switch`: doubly robust where the weight is at most a threshold, the model alone elsewhere (Wang et al. 2017). The
  threshold is that of the least estimated error, variance and a bound on bias squared.

All come with a normal and a bootstrap interval. What no estimator can mend is an action that the log never takes where
the target takes it: `Log` refuses such a log, and `Value.effective` says how much of it is left.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from serve.errors import ServeError

Floats = NDArray[np.float64]
Method = Literal["ips", "snips", "direct", "doubly_robust", "switch"]
METHODS: Final[tuple[Method, ...]] = ("ips", "snips", "direct", "doubly_robust", "switch")
LEVEL: Final = 0.95  # of intervals
RESAMPLES: Final = 400
THRESHOLDS: Final = 20  # candidates for the threshold of SWITCH
_CHUNK: Final = 2_000_000  # numbers drawn at once


class LogError(ServeError):
    """A log of which no value can be told; says of which field, why, and what would help."""


@dataclass(frozen=True)
class Log:
    """What was done, and what another policy would do.

    Attributes:
        action: What was done, a number of an action, int64 [n].
        propensity: Probability with which the log's policy picked it, float64 [n].
        reward: What came of it, such as minus the cost in minor units, float64 [n].
        target: Probability with which the policy that is judged takes each action, float64 [n, actions].
        model: What a model expects of each action, float64 [n, actions] (`fit_rewards`); None leaves `ips` and `snips`.

    Raises:
        LogError: The arrays do not fit, or are not what they must be.
    """

    action: NDArray[np.int64]
    propensity: Floats
    reward: Floats
    target: Floats
    model: Floats | None = None

    def __post_init__(self) -> None:
        n, actions = self.target.shape if self.target.ndim == 2 else (0, 0)
        if not n:
            raise LogError("target must have a row for each payment and a column for each action, and at least one row")
        for name in ("action", "propensity", "reward"):
            if getattr(self, name).shape != (n,):
                raise LogError(f"{name} must have one value for each of the {n} rows of target")
        if self.model is not None and self.model.shape != (n, actions):
            raise LogError(f"model must have the shape of target, {n} x {actions}")
        if not ((self.action >= 0) & (self.action < actions)).all():
            raise LogError(f"action must be a number from 0 to {actions - 1}, a column of target")
        if not ((self.propensity > 0) & (self.propensity <= 1)).all():
            raise LogError("propensity must be above 0 and at most 1: give what was logged with the action")
        for name in ("reward", "target", *(("model",) if self.model is not None else ())):
            if not np.isfinite(getattr(self, name)).all():
                raise LogError(f"{name} must be finite: leave out payments of which it is not known yet")
        if (self.target < 0).any() or not np.allclose(self.target.sum(1), 1, atol=1e-6):
            raise LogError("target must be probabilities that add up to 1 in each row")

    @property
    def weight(self) -> Floats:
        """How much more likely the target takes what was done, float64 [n]."""
        taken: Floats = self.target[np.arange(len(self.action)), self.action] / self.propensity
        return taken


def label_log(seen: NDArray[np.bool_], chance_seen: Floats, reward: Floats, model: Floats | None = None) -> Log:
    """A log of payments whose label, once it is seen, tells what every action would have cost.

    Which action was taken matters little then: what is rare is not an action, but a label that nobody sees because its
    payment was declined. So payments are weighted by how likely their label was to be seen: far less noise than
    weights by action.

    Args:
        seen: Whether the label is known, bool [n].
        chance_seen: Probability, in the log's policy, of an action after which it becomes known, float64 [n].
        reward: What the policy that is judged would have got, by the label, float64 [n]; anything where it is not seen.
        model: What a model expects of it without the label, float64 [n]; None leaves `ips` and `snips`.

    Raises:
        LogError: A payment's label could not have been seen, or was seen though it could not.
    """
    if not (chance_seen > 0).all():
        raise LogError("chance_seen must be above 0: a payment that is always declined tells nothing, explore a little")
    n = len(seen)
    return Log(
        (~seen).astype(np.int64),
        np.where(seen, chance_seen, np.maximum(1.0 - chance_seen, 1e-12)),
        np.where(seen, reward, 0.0),
        np.tile([1.0, 0.0], (n, 1)),
        None if model is None else np.column_stack([model, np.zeros(n)]),
    )


@dataclass(frozen=True, slots=True)
class Value:
    """The estimated mean reward of a policy.

    Attributes:
        method: How.
        value: Mean reward of a payment.
        low: Lower end of the normal 95 % interval.
        high: Upper end.
        bootstrap_low: Lower end of the bootstrap's (percentiles).
        bootstrap_high: Upper end.
        effective: How many payments of the target's own would tell as much (Kish's effective sample size).
    """

    method: Method
    value: float
    low: float
    high: float
    bootstrap_low: float
    bootstrap_high: float
    effective: float


def value(log: Log, method: Method = "doubly_robust", seed: int = 0, resamples: int = RESAMPLES) -> Value:
    """The value of the target policy.

    Args:
        log: What was done, and what would be.
        method: See the module.
        seed: Of the bootstrap.
        resamples: Its draws, at least 1.

    Raises:
        LogError: The method needs a model of the rewards and the log has none; or no payment of the log was treated as
            the target would.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> action = rng.integers(0, 2, 2000)  # the log picks one of two at random; the second earns twice as much
        >>> log = Log(action, np.full(2000, 0.5), 1.0 + action, np.tile([0.0, 1.0], (2000, 1)))
        >>> round(value(log, "snips").value, 3)
        2.0
    """
    if method in ("direct", "doubly_robust", "switch") and log.model is None:
        raise LogError(f"{method} needs a model of the rewards: give one (fit_rewards), or use ips or snips")
    weight = log.weight
    if method in ("ips", "snips") and not weight.any():
        raise LogError("target never takes an action that the log took: there is nothing to judge it by")
    numerator, denominator = _terms(log, method, weight)
    found = float(numerator.sum() / denominator.sum())
    rest = (numerator - found * denominator) / denominator.mean()  # the influence of each payment
    half = float(norm.ppf((1 + LEVEL) / 2) * rest.std(ddof=1) / np.sqrt(len(rest))) if len(rest) > 1 else float("inf")
    low, high = _bootstrap(numerator, denominator, seed, resamples)
    effective = float(weight.sum() ** 2 / np.maximum((weight**2).sum(), 1e-300))
    return Value(method, found, found - half, found + half, low, high, effective)


def values(log: Log, seed: int = 0, resamples: int = RESAMPLES) -> list[Value]:
    """The value of the target by each method that the log allows."""
    usable = METHODS if log.model is not None else METHODS[:2]
    return [value(log, method, seed, resamples) for method in usable]


def fit_rewards(
    context: Floats, action: NDArray[np.int64], reward: Floats, actions: int, folds: int = 5, ridge: float = 1.0
) -> Floats:
    """A model of the rewards: for each action a ridge regression on the context, fitted on other payments.

    Args:
        context: What is known before the action, float64 [n, d]; a constant is added.
        action: What was done, int64 [n].
        reward: What came of it, float64 [n].
        actions: How many there are.
        folds: Parts; a payment is predicted from the parts that it is not in.
        ridge: Weight of the penalty, in payments.

    Returns:
        float64 [n, actions]; the mean reward of the others where an action was never taken in them.
    """
    n = len(action)
    spread = context.std(0)
    x = np.column_stack([np.ones(n), (context - context.mean(0)) / np.where(spread > 0, spread, 1.0)])
    penalty = ridge * np.eye(x.shape[1])
    penalty[0, 0] = 1e-9  # the mean is free
    part = np.arange(n) % folds
    found = np.empty((n, actions))
    for k in range(folds):
        judged, taught = part == k, part != k
        overall = reward[taught].mean() if taught.any() else 0.0
        for a in range(actions):
            of = taught & (action == a)
            if not of.any():
                found[judged, a] = overall
                continue
            z = x[of]
            found[judged, a] = x[judged] @ np.linalg.solve(z.T @ z + penalty, z.T @ reward[of])
    return found


def _terms(log: Log, method: Method, weight: Floats) -> tuple[Floats, Floats]:
    """Numerator and denominator of each payment: the estimate is the ratio of their sums."""
    one = np.ones(len(weight))
    if method == "ips":
        return weight * log.reward, one
    if method == "snips":
        return weight * log.reward, weight
    assert log.model is not None
    direct = (log.target * log.model).sum(1)
    if method == "direct":
        return direct, one
    rest = log.reward - log.model[np.arange(len(weight)), log.action]
    if method == "doubly_robust":
        return direct + weight * rest, one
    return _switched(log, weight, direct, rest), one


def _switched(log: Log, weight: Floats, direct: Floats, rest: Floats) -> Floats:
    """SWITCH at the threshold with the least estimated mean squared error."""
    top = weight.max()
    candidates = np.unique(np.quantile(weight, np.linspace(0, 1, THRESHOLDS)))
    best, best_error = direct, np.inf
    for threshold in candidates[candidates > 0] if top > 0 else ():
        terms = direct + np.where(weight <= threshold, weight, 0.0) * rest
        # The model is taken to be off by no more, on the mean, than the rewards spread around it: times the target's
        # share that is left to the model, that bounds the bias.
        bias = rest.std() * np.where(weight > threshold, weight, 0.0).mean()
        error = terms.var() / len(terms) + bias**2
        if error < best_error:
            best, best_error = terms, error
    return best


def _bootstrap(numerator: Floats, denominator: Floats, seed: int, resamples: int) -> tuple[float, float]:
    """Percentiles of the ratio over payments drawn again: Poisson weights, one for each payment and draw."""
    rng = np.random.default_rng(seed)
    n = len(numerator)
    rows = max(1, _CHUNK // n)
    drawn = []
    for start in range(0, resamples, rows):
        counts = rng.poisson(1.0, (min(rows, resamples - start), n)).astype(np.float64)
        below = counts @ denominator
        drawn.append((counts @ numerator)[below > 0] / below[below > 0])
    tail = (1 - LEVEL) / 2
    found = np.concatenate(drawn)
    low, high = np.quantile(found, [tail, 1 - tail]) if len(found) else (float("-inf"), float("inf"))
    return float(low), float(high)
