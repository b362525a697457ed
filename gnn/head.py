"""Boosted trees as the last step of a score: they read a payment's features and the network's log-odds.

The network reads what it would take trees thousands of columns to see; trees cut features where a smooth network can
not. Stacked (Wolpert 1992) they were better than either on the Handbook's validation weeks, and they are kept only
where they are better on the validation payments of the model at hand. scikit-learn grows them; what is kept is arrays,
read by one small kernel.
"""

from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import average_precision_score

from gnn.boosting import BoostingConfig, Setting, drawn, fit_trees
from gnn.targets import Targets
from gnn.trees import LEAF, Trees, apply, no_trees

HEAD: Final = BoostingConfig(
    settings=(Setting(leaves=15, rows=200, burn_in=0.15, l2=5.0, inputs=0.5),), rate=0.05, trees=300, step=50
)
SHARES: Final = (0.0, 0.3, 0.5, 0.7)  # of the network beside trees that do not read it


def from_sklearn(model: HistGradientBoostingClassifier, network: float = 0.0) -> Trees:
    """The arrays of fitted trees on numbers alone.

    They are private in scikit-learn, and there is no public way to them; a test compares with `decision_function`.

    Args:
        model: Fitted.
        network: Share of the network's log-odds beside them; the trees have the rest.
    """
    nodes = [stage[0].nodes for stage in model._predictors]
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
        value=np.where(leaf, (1 - network) * flat["value"], 0).astype(np.float32),
        base=np.array([(1 - network) * model._baseline_prediction.item(), network], np.float32),
    )


def fit_head(
    x: NDArray[np.float32], logit: NDArray[np.float32], targets: Targets, seed: int = 0
) -> tuple[Trees, dict[str, Any]]:
    """The head that is best on payments later than those it learnt from, or none.

    Stacked trees read the network's log-odds among their inputs; where the network has learnt little data by heart they
    trust it too much, and trees on features alone, averaged with it, are better (measured on the seeded world).

    Args:
        x: Features of all payments, float32 [N, F].
        logit: The network's log-odds of all payments, float32 [N].
        targets: What teaches and what chooses.
        seed: Of the draw of payments, and of the trees.

    Returns:
        The head, and how it was chosen.
    """
    config = replace(HEAD, seed=seed)
    rows, validation = drawn(targets, config), targets.validation
    y, known = targets.fraud[rows] > 0, targets.fraud[validation] > 0
    judged, theirs = x[validation], logit[validation]

    def stacked(chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.concatenate([x[chosen], logit[chosen, None]], 1)

    heads: dict[str, tuple[Trees, dict[str, Any]]] = {"none": (no_trees(), {})}
    model, facts = fit_trees(stacked(rows), y, stacked(validation), known, config)
    heads["stacked"] = from_sklearn(model), facts
    model, facts = fit_trees(x[rows], y, judged, known, config)
    for share in SHARES:
        heads[f"beside {share} network"] = from_sklearn(model, share), facts
    found = {
        name: float(average_precision_score(known, apply(trees, judged, theirs))) for name, (trees, _) in heads.items()
    }
    best = max(found, key=lambda name: found[name])
    trees, facts = heads[best]
    return trees, {**facts, "head": best, "validation_ap": found[best], "candidates": found}
