"""Whether reasons are true to the score: does what they name move it, and how far is the fast method from exact values?

Named evidence are the weightiest groups that pull the score to where it went from the baseline, at most the four that
a score names. The deletion test leaves them out together and takes how far the log-odds fall back; the insertion test
lets only them in, and takes how far the log-odds leave the baseline (Samek et al. 2017; Petsiuk et al. 2018). Beside
each stands the mean over all sets of as many groups of evidence that the payment has. Every set of groups is evaluated,
so neither side is sampled, and the exact Shapley values come with it.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnn.errors import ModelError
from gnn.model.groups import OWN_GROUPS, group_names
from gnn.score.protocol import Scorer
from gnn.score.reasons import MAX_REASONS
from gnn.score.shapley import all_masks, exact_values, pair_masks, pair_values

DRAWS = 1000  # of the bootstrap
TOGETHER = 512  # payments, each with up to 4096 scores


@dataclass(frozen=True)
class Moved:
    """How far the weightiest groups move the log-odds, and how far as many groups at random.

    Attributes:
        groups: Left out (or let in) at most.
        named: Mean move by the weightiest.
        random: Mean move by as many at random.
        low: Lower end of the 95 % interval of the mean difference (bootstrap over payments).
        high: Upper end of the same interval.
        rank: Mean share of all sets of as many groups that move the score less; 0.5 would be chance.
    """

    groups: int
    named: float
    random: float
    low: float
    high: float
    rank: float


@dataclass(frozen=True)
class Fidelity:
    """How true reasons are to the score, over payments.

    Attributes:
        payments: Measured.
        deletion: Without one named group, two, and so on.
        insertion: With one named group only, two, and so on.
        error: Mean distance of a contribution from the exact Shapley value, in log-odds.
        error_p99: Its 99th percentile.
        error_share: Distances added up, as a share of the exact values' sizes added up.
        same_first: Share of payments whose weightiest group is the exact method's.
        same_named: Share of the exact method's four weightiest groups that the fast one names.
        off_sum: Largest distance of baseline and contributions together from the score's log-odds.
    """

    payments: int
    deletion: list[Moved]
    insertion: list[Moved]
    error: float
    error_p99: float
    error_share: float
    same_first: float
    same_named: float
    off_sum: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def fidelity(scorer: Scorer, rows: NDArray[np.int64], seed: int = 0) -> Fidelity:
    """Measure the reasons of payments; 2^G scores for each of them.

    Args:
        scorer: That scored them.
        rows: int64 [n], at least two.
        seed: Of the bootstrap.

    Raises:
        ModelError: There are too few payments.
    """
    if len(rows) < 2:
        raise ModelError("fidelity is a mean over payments: give two at least")
    roles = scorer.artifact.roles
    groups, rng = len(group_names(roles)), np.random.default_rng(seed)
    known_by = {int(mask): known for known, mask in enumerate(all_masks(groups).tolist())}
    pair = [known_by[mask] for mask in pair_masks(groups).tolist()]
    sizes = range(1, min(MAX_REASONS, groups))
    fast, exact, off = [], [], 0.0
    deleted: dict[int, list[NDArray[np.float64]]] = {k: [] for k in sizes}
    inserted: dict[int, list[NDArray[np.float64]]] = {k: [] for k in sizes}
    for i in range(0, len(rows), TOGETHER):
        batch = rows[i : i + TOGETHER]
        worth = scorer.score_ablated(batch, all_masks(groups))
        fast.append(pair_values(worth[:, pair]))
        exact.append(exact_values(worth))
        sums = worth[:, 0] + fast[-1].sum(1)
        off = max(off, float(np.abs(sums - _log_odds(scorer, batch)).max()))
        absent = _absent(scorer, batch)
        towards = np.sign(worth[:, -1:] - worth[:, :1])
        fall, rise = (worth[:, -1:] - worth[:, ::-1]) * towards, (worth - worth[:, :1]) * towards
        for k in sizes:
            named = _named(fast[-1] * towards, k)
            deleted[k].append(_moves(fall, named, absent))
            inserted[k].append(_moves(rise, named, absent))
    f, e = np.concatenate(fast), np.concatenate(exact)
    distance = np.abs(f - e)
    by_fast, by_exact = np.argsort(-np.abs(f), 1), np.argsort(-np.abs(e), 1)
    most = sizes[-1]
    shared = [len(np.intersect1d(a, b)) for a, b in zip(by_fast[:, :most], by_exact[:, :most], strict=True)]
    return Fidelity(
        payments=len(rows),
        deletion=[_moved(k, np.concatenate(deleted[k]), rng) for k in sizes],
        insertion=[_moved(k, np.concatenate(inserted[k]), rng) for k in sizes],
        error=float(distance.mean()),
        error_p99=float(np.quantile(distance, 0.99)),
        error_share=float(distance.sum() / np.abs(e).sum()),
        same_first=float((by_fast[:, 0] == by_exact[:, 0]).mean()),
        same_named=float(np.mean(shared) / most),
        off_sum=off,
    )


def _log_odds(scorer: Scorer, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    calibration = scorer.artifact.calibration
    return scorer.logits(rows) * calibration.slope + calibration.intercept


def _absent(scorer: Scorer, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The histories that a payment does not have, as a bit mask: at random they would make it too easy."""
    entity = scorer.state.store.column("entity", rows)
    return ((entity < 0).astype(np.int64) << np.arange(entity.shape[1]) + len(OWN_GROUPS)).sum(1)


def _named(pull: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """The k groups that pull most, or all that pull where there are fewer, but one at least: bit masks [n]."""
    weightiest = np.argsort(-pull, 1, kind="stable")[:, :k]
    pulls = np.take_along_axis(pull, weightiest, 1) > 0
    pulls[:, 0] = True
    return np.asarray(((1 << weightiest) * pulls).sum(1))


def _moves(moved: NDArray[np.float64], named: NDArray[np.int64], absent: NDArray[np.int64]) -> NDArray[np.float64]:
    """How far named groups move the log-odds, how far as many others do, and the share of those that move it less.

    Args:
        moved: How far each set of groups does, [n, 2^G].
        named: Those named, bit masks [n].
        absent: Those that a payment does not have, bit masks [n].

    Returns:
        float64 [n, 3].
    """
    sets = np.arange(moved.shape[1])
    size, sizes = np.bitwise_count(named)[:, None], np.bitwise_count(sets)
    ours = moved[np.arange(len(moved)), named][:, None]
    there = (sizes == size) & ((sets & absent[:, None]) == 0)
    less = ((moved < ours) + 0.5 * (moved == ours)) * there
    total = there.sum(1)
    return np.stack([ours[:, 0], (moved * there).sum(1) / total, less.sum(1) / total], 1)


def _moved(groups: int, moves: NDArray[np.float64], rng: np.random.Generator) -> Moved:
    difference = moves[:, 0] - moves[:, 1]
    means = [difference[rng.integers(0, len(difference), len(difference))].mean() for _ in range(DRAWS)]
    low, high = np.quantile(means, [0.025, 0.975])
    named, random, rank = moves.mean(0)
    return Moved(groups, float(named), float(random), float(low), float(high), float(rank))
