"""Boosted trees as the last step of a score: they read a payment's features and the network's log-odds.

The network reads what it would take trees thousands of columns to see; trees cut features where a smooth network can
not. The head is the mean of three log-odds: the network's, those of trees that read them among their inputs (stacked,
Wolpert 1992), and those of trees on features alone. Stacked trees trust a network too much that has learnt a short
history by heart; the mean with two that do not was better than any of them (docs/architecture.md). The validation
payments do not choose between it and the network alone: they chose the network's epochs, and flatter it. scikit-learn
grows the trees; what is kept is arrays, read by one small kernel.
"""

from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import average_precision_score

from gnn.model.trees import LEAF, Trees, apply_trees
from gnn.train.boosted_trees import BoostingConfig, Setting, fit_trees, grow_trees, sample_training_rows
from gnn.train.sklearn_private import base_log_odds, tree_nodes
from gnn.train.targets import Targets

STACKED_TREES: Final = BoostingConfig(
    settings=(Setting(leaves=15, rows=200, burn_in=0.15, l2=5.0, inputs=0.3),), rate=0.15, trees=100
)
PRIOR_FRAUDS: Final = 50  # as many frauds speak for a third to the network
PLAIN_TREES: Final = BoostingConfig(
    settings=(Setting(leaves=63, rows=200, burn_in=0.15, l2=5.0, inputs=0.3),), rate=0.12, trees=100
)


def from_sklearn(*models: HistGradientBoostingClassifier, network: float = 0.0) -> Trees:
    """The arrays of fitted trees on numbers alone, the mean of several models beside the network.

    Args:
        models: Fitted.
        network: Share of the network's log-odds beside them; the models have the rest in equal parts.
    """
    nodes = [tree for model in models for tree in tree_nodes(model)]
    share = (1 - network) / len(models)
    start = np.cumsum([0, *(len(n) for n in nodes)])
    flat = np.concatenate(nodes)
    shift = np.repeat(start[:-1], np.diff(start))
    leaf = flat["is_leaf"].astype(bool)
    threshold = flat["num_threshold"].astype(np.float32)
    # Rounded down, a float32 is at most the one threshold exactly if it is at most the other.
    above = threshold > flat["num_threshold"]
    threshold[above] = np.nextafter(threshold[above], np.float32(-np.inf))
    return Trees(
        root=start[:-1].astype(np.int32),
        feature=np.where(leaf, LEAF, flat["feature_idx"]).astype(np.int32),
        threshold=np.where(leaf, np.float32(0), threshold),
        left=np.where(leaf, 0, flat["left"] + shift).astype(np.int32),
        right=np.where(leaf, 0, flat["right"] + shift).astype(np.int32),
        value=np.where(leaf, share * flat["value"], 0).astype(np.float32),
        base=np.array([share * sum(base_log_odds(model) for model in models), network], np.float32),
    )


class HeadInputs(NamedTuple):
    """What the head reads of all payments. N payments, F features."""

    x: NDArray[np.float32]  # [N, F] features
    beside: NDArray[np.float32]  # [N, E] `graph.dag.memory.head_inputs`

    def of(self, rows: NDArray[np.int64], logit: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """In the order that `gnn.model.trees.Trees` numbers them, float32 [n, F + 1 + E]; zeros for no network."""
        network = np.zeros(len(rows), np.float32) if logit is None else logit[rows]
        return np.concatenate([self.x[rows], network[:, None], self.beside[rows]], 1)

    def score(self, trees: Trees, logit: NDArray[np.float32], rows: Any = slice(None)) -> NDArray[np.float32]:
        """The head's log-odds of some payments, float32 [n], from the network's of all of them."""
        return apply_trees(trees, self.x[rows], logit[rows], self.beside[rows])


def fit_head(
    inputs: HeadInputs, logit: NDArray[np.float32], targets: Targets, seed: int = 0
) -> tuple[Trees, dict[str, Any]]:
    """The head, of as many trees as are best on payments later than those that trees learnt from.

    Args:
        inputs: What it reads of all payments.
        logit: The network's log-odds of all payments, float32 [N].
        targets: What teaches and what chooses.
        seed: Of the draw of payments, and of the trees.

    Returns:
        The head, how its trees were chosen, and the validation AP with it and without.
    """
    rows, validation = sample_training_rows(targets, replace(PLAIN_TREES, seed=seed)), targets.validation
    y, known = targets.fraud[rows] > 0, targets.fraud[validation] > 0

    models, facts = zip(
        *(
            fit_trees(inputs.of(rows, of), y, inputs.of(validation, of), known, replace(config, seed=seed))
            for config, of in ((STACKED_TREES, logit), (PLAIN_TREES, None))
        ),
        strict=True,
    )
    alone = logit[validation]
    trees = [
        np.asarray(model.decision_function(inputs.of(validation, of)), np.float64)
        for model, of in zip(models, (logit, None), strict=True)
    ]
    share = network_share(alone, np.mean(trees, 0), known)
    head = from_sklearn(*models, network=share)
    found = {
        name: float(average_precision_score(known, score))
        for name, score in (("network_ap", alone), ("validation_ap", inputs.score(head, logit, validation)))
    }
    return head, {**found, "network_share": share, **dict(zip(("stacked", "plain"), facts, strict=True))}


def network_share(network: NDArray[np.floating], trees: NDArray[np.float64], known: NDArray[np.bool_]) -> float:
    """The network's share of the head's log-odds, a third at most.

    The validation payments chose the network's epochs, so they flatter it: where the trees are better even so, it gets
    less, and the more frauds say so, the less.

    Args:
        network: Its log-odds of the validation payments, [n].
        trees: The mean log-odds of both sets of trees, [n].
        known: Fraud, bool [n].
    """
    most = 1 / 3
    # Of equal ones the largest: where nothing can be told, nothing changes.
    best = max(
        (most, most / 2, 0.0),
        key=lambda share: float(average_precision_score(known, share * network + (1 - share) * trees)),
    )
    frauds = int(known.sum())
    return (frauds * best + PRIOR_FRAUDS * most) / (frauds + PRIOR_FRAUDS)


def refit_head(
    inputs: HeadInputs, logit: NDArray[np.float32], targets: Targets, chosen: dict[str, Any], seed: int = 0
) -> Trees:
    """The same head grown anew, of as many trees as were chosen.

    Args:
        inputs: What it reads of all payments.
        logit: The log-odds of the network learnt anew of all payments, float32 [N].
        targets: What teaches now.
        chosen: How its trees were chosen, from `fit_head`.
        seed: Of the draw of payments, and of the trees.
    """
    rows = sample_training_rows(targets, replace(PLAIN_TREES, seed=seed))
    y = targets.fraud[rows] > 0
    models = (
        grow_trees(inputs.of(rows, of), y, config.settings[0], replace(config, seed=seed, trees=chosen[name]["trees"]))
        for name, config, of in (("stacked", STACKED_TREES, logit), ("plain", PLAIN_TREES, None))
    )
    return from_sklearn(*models, network=chosen["network_share"])
