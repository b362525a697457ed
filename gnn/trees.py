"""Boosted trees as arrays, and the kernel that reads them: the last step of a score (`gnn.head` grows them)."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.jit import jit

LEAF: Final = -1


class Trees(NamedTuple):
    """Binary trees in arrays; without a tree they hand on the network's log-odds. T trees, N nodes, F features."""

    root: NDArray[np.int32]  # [T] node
    feature: NDArray[np.int32]  # [N] feature compared, F for the network's log-odds, LEAF in a leaf
    threshold: NDArray[np.float32]  # [N] left where the feature is at most this
    left: NDArray[np.int32]  # [N] node
    right: NDArray[np.int32]  # [N] node
    value: NDArray[np.float32]  # [N] log-odds that a leaf adds
    base: NDArray[np.float32]  # [2] log-odds of the trees' own baseline; share of the network's log-odds beside them


def no_trees() -> Trees:
    """A head that changes nothing."""
    i, f = np.zeros(0, np.int32), np.zeros(0, np.float32)
    return Trees(i, i, f, i, i, f, np.zeros(2, np.float32))


def read_trees(arrays: dict[str, NDArray[np.generic]], features: int) -> Trees:
    """Trees from a file, checked: a kernel follows them without looking.

    Args:
        arrays: By the names of `Trees`.
        features: Features that the trees may read, besides the network's log-odds.

    Raises:
        ValueError: An array is missing or of another type, or a node leads nowhere, or back.
    """
    if set(arrays) != set(Trees._fields):
        raise ValueError(f"the head has {sorted(arrays)}, not {sorted(Trees._fields)}")
    trees = Trees(**arrays)  # type: ignore[arg-type]
    for name, array, plain in zip(Trees._fields, trees, no_trees(), strict=True):
        if array.dtype != plain.dtype or array.ndim != 1:
            raise ValueError(f"the head's {name} is {array.dtype} {array.shape}")
    nodes = np.arange(len(trees.feature))
    if any(len(array) != len(nodes) for array in trees[1:-1]) or len(trees.base) != 2:
        raise ValueError("the head's arrays differ in length")
    inner = trees.feature != LEAF
    if not ((trees.root >= 0) & (trees.root < len(nodes))).all():
        raise ValueError("a tree of the head begins outside it")
    if not ((trees.feature[inner] >= 0) & (trees.feature[inner] <= features)).all():
        raise ValueError("the head reads a feature that there is not")
    for branch in (trees.left[inner], trees.right[inner]):
        # Each step leads on, so every walk ends.
        if not ((branch > nodes[inner]) & (branch < len(nodes))).all():
            raise ValueError("a node of the head leads outside it, or back")
    return trees


def random_trees(features: int, seed: int, trees: int = 16, depth: int = 3) -> Trees:
    """Trees that know nothing, beside half of the network: what tests and benchmarks of everything but quality need."""
    rng = np.random.default_rng(seed)
    size = 2 ** (depth + 1) - 1
    node = np.arange(trees * size)
    at, first = node % size, node - node % size
    leaf = at >= size // 2
    return Trees(
        root=first[::size].astype(np.int32),
        feature=np.where(leaf, LEAF, rng.integers(0, features + 1, len(node))).astype(np.int32),
        threshold=rng.normal(0.5, 1, len(node)).astype(np.float32),
        left=np.where(leaf, 0, first + 2 * at + 1).astype(np.int32),
        right=np.where(leaf, 0, first + 2 * at + 2).astype(np.int32),
        value=np.where(leaf, rng.normal(0, 0.1, len(node)), 0).astype(np.float32),
        base=np.array([-1, 0.5], np.float32),
    )


@jit()
def boosted(
    trees: Trees,
    x: NDArray[np.float32],
    mean: NDArray[np.float32],
    groups: NDArray[np.int32],
    leave_out: int,
    logit: float,
) -> float:
    """Log-odds of one payment.

    Args:
        trees: The head.
        x: Features, float32 [F].
        mean: What stands for a feature that is left out, float32 [F].
        groups: The group of each feature, int32 [F].
        leave_out: Bit mask of groups.
        logit: The network's log-odds.
    """
    if trees.root.shape[0] == 0:
        return logit
    total = float(trees.base[0]) + float(trees.base[1]) * logit
    for t in range(trees.root.shape[0]):
        node = trees.root[t]
        feature = trees.feature[node]
        while feature >= 0:
            if feature == x.shape[0]:
                here = np.float32(logit)
            elif (leave_out >> groups[feature]) & 1:
                here = mean[feature]
            else:
                here = x[feature]
            node = trees.left[node] if here <= trees.threshold[node] else trees.right[node]
            feature = trees.feature[node]
        total += trees.value[node]
    return total


def apply(trees: Trees, x: NDArray[np.float32], logit: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log-odds of payments from features [n, F] and the network's log-odds [n]; float32 [n]."""
    out = np.empty(len(x), np.float32)
    _apply(trees, x, logit, out)
    return out


@jit()
def _apply(trees: Trees, x: NDArray[np.float32], logit: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    mean, groups = np.zeros(x.shape[1], np.float32), np.zeros(x.shape[1], np.int32)
    for b in range(x.shape[0]):
        out[b] = boosted(trees, x[b], mean, groups, 0, logit[b])
