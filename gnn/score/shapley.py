"""Shapley values of the groups of a payment's evidence: contributions that add up to the score.

The players are the groups of `gnn.model.groups`; the worth of some of them is the log-odds of the score with all others
left out. A group's Shapley value is what it adds when it joins those before it, averaged over all orders of joining
(Shapley 1953; for models Strumbelj and Kononenko 2010, Lundberg and Lee 2017), so the values add up to the score less
the baseline, which knows no group.

The fast method averages one fixed order and its reverse: 2 G evaluations for G groups. Sampling orders is due to
Castro, Gomez and Tejada (2009), taking each with its reverse to antithetic sampling (Mitchell, Cooper, Frank and
Holmes, JMLR 2022). The pair is exact where at most two groups act together: each of two is the last to join in one of
the two orders, and so gets half of what they add together, which is its Shapley value. Of three that act together it
gives the two outer ones half each and the middle one nothing, in place of a third each; what it is off by comes from
three and more alone, and `gnn.quality.fidelity` measures it. The values add up exactly for any order, and so here
always.

A set of groups is a bit mask; what is asked of an engine is the mask of those *left out*.
"""

from math import comb

import numpy as np
from numpy.typing import NDArray


def pair_masks(groups: int) -> NDArray[np.int64]:
    """What the fast method leaves out: int64 [2 G], everything first, nothing at [G].

    The first G + 1 let the groups in from the first to the last, the others from the last to the first.
    """
    everything = (1 << groups) - 1
    forward = [everything & ~((1 << known) - 1) for known in range(groups + 1)]
    return np.array(forward + [(1 << left) - 1 for left in range(groups - 1, 0, -1)], np.int64)


def pair_values(worth: NDArray[np.float64]) -> NDArray[np.float64]:
    """The average of an order and its reverse.

    Args:
        worth: Log-odds with each of `pair_masks` left out, float64 [n, 2 G].

    Returns:
        Contributions, float64 [n, G]; they add up to `worth[:, G] - worth[:, 0]`.
    """
    groups = worth.shape[1] // 2
    forward = np.diff(worth[:, : groups + 1])
    backward = np.diff(worth[:, [0, *range(groups + 1, 2 * groups), groups]])[:, ::-1]
    return (forward + backward) / 2


def all_masks(groups: int) -> NDArray[np.int64]:
    """What the exact method leaves out, int64 [2^G]: at [known], every group that is not in the bit mask `known`."""
    return np.arange(1 << groups, dtype=np.int64)[::-1].copy()


def exact_values(worth: NDArray[np.float64]) -> NDArray[np.float64]:
    """The Shapley values by their definition.

    Args:
        worth: Log-odds with each of `all_masks` left out, float64 [n, 2^G].

    Returns:
        Contributions, float64 [n, G]; they add up to `worth[:, -1] - worth[:, 0]`.
    """
    groups = worth.shape[1].bit_length() - 1
    known = np.arange(1 << groups)
    weight = np.array([1 / (groups * comb(groups - 1, int(k).bit_count())) if k < known[-1] else 0 for k in known])
    out = np.empty((len(worth), groups))
    for g in range(groups):
        before = known[(known >> g & 1) == 0]
        out[:, g] = (worth[:, before | 1 << g] - worth[:, before]) @ weight[before]
    return out
