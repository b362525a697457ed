"""Boosted trees as arrays, and the kernel that reads them: the last step of a score (`gnn.train.head` grows them)."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.jit import jit, signed

LEAF: Final = -1
TREES_PER_GROUP: Final = 16  # trees that are walked together
NODE = np.dtype(
    [
        ("feature", "i4"),
        ("threshold", "f4"),
        ("child", "i4", (2,)),  # where it is at most the threshold, and where it is above; a leaf leads to itself
    ]
)


class Trees(NamedTuple):
    """Binary trees in arrays: T trees, N nodes, F features. Without any tree the network's log-odds are the result."""

    root: NDArray[np.int32]  # [T] node
    feature: NDArray[
        np.int32
    ]  # [N] feature compared, LEAF in a leaf; F for the network's log-odds, then what the head reads besides
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
    """Trees from a file, checked here because the kernel that walks them checks nothing.

    Args:
        arrays: By the names of `Trees`.
        features: Features that the trees may read, besides the network's log-odds, and what a head reads besides.

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
        # Branches lead to later nodes only, so every walk ends.
        if not ((branch > nodes[inner]) & (branch < len(nodes))).all():
            raise ValueError("a node of the head leads outside it, or back")
    return trees


def random_trees(features: int, seed: int, trees: int = 16, depth: int = 3, beside: int = 0) -> Trees:
    """Random trees beside half of the network's log-odds, for tests and benchmarks that do not measure quality."""
    rng = np.random.default_rng(seed)
    size = 2 ** (depth + 1) - 1
    node = np.arange(trees * size)
    at, first = node % size, node - node % size
    leaf = at >= size // 2
    return Trees(
        root=first[::size].astype(np.int32),
        feature=np.where(leaf, LEAF, rng.integers(0, features + 1 + beside, len(node))).astype(np.int32),
        threshold=rng.normal(0.5, 1, len(node)).astype(np.float32),
        left=np.where(leaf, 0, first + 2 * at + 1).astype(np.int32),
        right=np.where(leaf, 0, first + 2 * at + 2).astype(np.int32),
        value=np.where(leaf, rng.normal(0, 0.1, len(node)), 0).astype(np.float32),
        base=np.array([-1, 0.5], np.float32),
    )


class PackedTrees(NamedTuple):
    """Trees in groups that the kernel walks together, each group for as many steps as its deepest tree takes.

    One walk alone waits for each of its reads, and the processor's guess of the next branch is wrong every other time.
    Several walks at once, none of which tests whether it has reached a leaf, take a third of the time.
    """

    root: NDArray[np.int32]  # [T'] nodes, shallow trees first; empty leaves fill up the last group
    steps: NDArray[np.int32]  # [T' / TREES_PER_GROUP] of each group
    nodes: NDArray[np.void]  # [N + 1] NODE
    value: NDArray[np.float32]  # [N + 1] log-odds that a leaf adds
    base: NDArray[np.float32]  # [2] as in `Trees`


def pack(trees: Trees) -> PackedTrees:
    """Group trees by depth for `score_row`."""
    n = len(trees.feature)
    inner = np.append(trees.feature != LEAF, False)
    nodes = np.zeros(n + 1, NODE)
    nodes["feature"] = np.where(inner, np.append(trees.feature, 0), 0)
    nodes["threshold"] = np.append(trees.threshold, 0)
    for side, branch in enumerate((trees.left, trees.right)):
        nodes["child"][:, side] = np.where(inner, np.append(branch, 0), np.arange(n + 1))
    depth = np.zeros(len(trees.root), np.int32)
    level, tree, steps = trees.root.astype(np.int64), np.arange(len(trees.root)), 0
    while (on := inner[level]).any():
        level, tree = nodes["child"][level[on]].ravel(), np.repeat(tree[on], 2)
        depth[tree] = (steps := steps + 1)
    order = np.argsort(depth, kind="stable")
    more = -len(order) % TREES_PER_GROUP
    root = np.append(trees.root[order], np.full(more, n)).astype(np.int32)
    deepest = np.append(depth[order], np.zeros(more, np.int32)).reshape(-1, TREES_PER_GROUP).max(1)
    return PackedTrees(root, deepest, nodes, np.append(trees.value, np.float32(0)), trees.base)


@jit()
def score_row(trees: PackedTrees, row: NDArray[np.float32], network: int, at: NDArray[np.int64]) -> float:
    """Log-odds of one payment.

    Args:
        trees: The head.
        row: Features, the network's log-odds, and what the head reads besides, float32 [F + 1 + E].
        network: F, where the network's log-odds are.
        at: Scratch, int64 [TREES_PER_GROUP].

    Returns:
        The trees' log-odds and their share of the network's; the network's alone where there are no trees.
    """
    logit = float(row[network])
    if trees.root.shape[0] == 0:
        return logit
    total = float(trees.base[0]) + float(trees.base[1]) * logit
    for group in range(trees.steps.shape[0]):
        for i in range(TREES_PER_GROUP):
            at[i] = trees.root[group * TREES_PER_GROUP + i]
        for _ in range(trees.steps[group]):
            for i in range(TREES_PER_GROUP):
                n = trees.nodes[at[i]]
                at[i] = n.child[1 - signed(row[n.feature] <= n.threshold)]
        for i in range(TREES_PER_GROUP):
            total += trees.value[at[i]]
    return total


def apply_trees(
    trees: Trees, x: NDArray[np.float32], logit: NDArray[np.float32], beside: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Log-odds of payments.

    Args:
        trees: The head.
        x: Features, float32 [n, F].
        logit: The network's log-odds, float32 [n].
        beside: `graph.dag.memory.head_inputs`, float32 [n, E]; without, for trees that read none of them.

    Returns:
        float32 [n].
    """
    out = np.empty(len(x), np.float32)
    _apply(pack(trees), x, logit, np.empty((len(x), 0), np.float32) if beside is None else beside, out)
    return out


@jit()
def _apply(
    trees: PackedTrees,
    x: NDArray[np.float32],
    logit: NDArray[np.float32],
    beside: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    f = x.shape[1]
    row, at = np.empty(f + 1 + beside.shape[1], np.float32), np.empty(TREES_PER_GROUP, np.int64)
    for b in range(x.shape[0]):
        row[:f], row[f], row[f + 1 :] = x[b], logit[b], beside[b]
        out[b] = score_row(trees, row, f, at)
