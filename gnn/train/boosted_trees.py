"""Boosted trees grown by scikit-learn, of settings and numbers of trees that later payments choose.

The model's head is made of them (`gnn.train.head`), and so are its rivals (`gnn.rivals.boosting`). They are
scikit-learn's histogram trees, a dependency already. Beside LightGBM they were measured on a payment's own columns
alone (Handbook, validation AP .2369 against .2365, one run).
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import average_precision_score

from gnn.train.sklearn_private import keep_first_trees
from gnn.train.targets import Targets

MAX_VALIDATION_ROWS: Final = 60_000  # as for the network: a larger validation window is sampled


@dataclass(frozen=True)
class Setting:
    """One setting of the trees.

    Attributes:
        leaves: Of a tree, at most.
        rows: Payments in a leaf, at least: fewer, and trees collapse under imbalance.
        burn_in: Share of the training payments left out at their beginning, where entities have no history yet.
        l2: Penalty on the values of leaves.
        inputs: Share of the inputs that a cut may choose from.
    """

    leaves: int = 31
    rows: int = 200
    burn_in: float = 0.0
    l2: float = 0.0
    inputs: float = 1.0


@dataclass(frozen=True)
class BoostingConfig:
    """How to train trees: their whole budget.

    Attributes:
        settings: Tried one after the other; validation AP chooses.
        rate: Shrinkage.
        trees: At most.
        step: Trees between two looks at the validation payments.
        negatives: Payments not known as fraud for each fraud.
        least: Payments not known as fraud, at least, where there are as many: a few hundred frauds that see only 25
            others each leave trees that know too little of honest payments.
        neighbours: Past payments of each entity in the richest inputs.
        refit: Whether the trees are grown again with the validation payments among those that teach.
        without: Features that they must not read, each by its name or the beginning of it.
        seed: Of the draw of payments.
    """

    settings: tuple[Setting, ...] = (Setting(), Setting(burn_in=0.25))
    rate: float = 0.1
    trees: int = 400
    step: int = 25
    negatives: int = 25
    least: int = 50_000
    neighbours: int = 16
    refit: bool = True
    without: tuple[str, ...] = ()
    seed: int = 0


def sample_training_rows(targets: Targets, config: BoostingConfig) -> NDArray[np.int64]:
    """Rows that trees learn from, int64 [n] ascending: all frauds, and `config.negatives` others for each, or more."""
    train = targets.train
    fraud = targets.fraud[train] > 0
    positive, negative = train[fraud], train[~fraud]
    most = min(len(negative), max(config.negatives * len(positive), config.least))
    chosen = np.random.default_rng(config.seed).choice(negative, most, replace=False)
    return np.sort(np.concatenate([positive, chosen]))


def fit_trees(
    x: NDArray[np.float32],
    y: NDArray[np.bool_],
    validation: NDArray[np.float32],
    known: NDArray[np.bool_],
    config: BoostingConfig,
    categorical: NDArray[np.bool_] | None = None,
) -> tuple[HistGradientBoostingClassifier, dict[str, Any]]:
    """Boosted trees; setting and number of trees are those of the best AP on later payments.

    Args:
        x: Inputs in order of time, float32 [n, C].
        y: Fraud, bool [n].
        validation: Inputs of later payments, float32 [m, C].
        known: Fraud, bool [m].
        config: How to train.
        categorical: Which inputs are categories, bool [C].

    Returns:
        The trees, and how they were chosen.
    """
    judged = np.arange(len(known))
    if len(judged) > MAX_VALIDATION_ROWS:
        judged = np.sort(np.random.default_rng(0).choice(judged, MAX_VALIDATION_ROWS, replace=False))
    best: tuple[float, int, HistGradientBoostingClassifier, int] | None = None
    for number, setting in enumerate(config.settings):
        model = grow_trees(x, y, setting, config, categorical)
        for trees, score in enumerate(model.staged_decision_function(validation[judged]), 1):
            if trees % config.step and trees < config.trees:
                continue
            ap = float(average_precision_score(known[judged], score))
            if best is None or ap > best[0]:
                best = ap, number, model, trees
    assert best is not None  # there is a setting
    ap, number, model, trees = best
    setting = config.settings[number]
    keep_first_trees(model, trees)
    return model, {
        "setting": number,
        "leaves": setting.leaves,
        "rows_in_a_leaf": setting.rows,
        "burn_in": setting.burn_in,
        "trees": trees,
        "validation_ap": ap,
    }


def grow_trees(
    x: NDArray[np.float32],
    y: NDArray[np.bool_],
    setting: Setting,
    config: BoostingConfig,
    categorical: NDArray[np.bool_] | None = None,
) -> HistGradientBoostingClassifier:
    """All of `config.trees` trees by one setting; see `fit_trees`. No burn-in is taken that would leave one class."""
    first = int(setting.burn_in * len(y))
    if not 0 < y[first:].sum() < len(y) - first:
        first = 0
    return HistGradientBoostingClassifier(
        learning_rate=config.rate,
        max_leaf_nodes=setting.leaves,
        min_samples_leaf=setting.rows,
        l2_regularization=setting.l2,
        max_features=setting.inputs,
        max_iter=config.trees,
        early_stopping=False,
        categorical_features=categorical,
        random_state=config.seed,
    ).fit(_without_empty_columns(x[first:], setting.rows), y[first:])


def _without_empty_columns(x: NDArray[np.float32], rows: int) -> NDArray[np.float32]:
    """The inputs, those with fewer values than a leaf holds set to 0, so that no tree reads them.

    No tree could cut such a column anyway, and scikit-learn 1.9.1 cannot bin one that holds no value at all ("window
    shape cannot be larger than input array shape").
    """
    empty = (~np.isnan(x)).sum(0) < rows
    return np.where(empty, np.float32(0), x) if empty.any() else x
