"""What scikit-learn keeps private of its boosted trees, read here and nowhere else.

There is no public way to the nodes of a `HistGradientBoostingClassifier`, nor to one of fewer trees than it was grown
to.
"""

from typing import Final

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from gnn.errors import ModelError

CHECKED_WITH: Final = "1.9.1"  # the newest version of scikit-learn that the tests have run with
FIELDS: Final = ("value", "feature_idx", "num_threshold", "left", "right", "is_leaf", "is_categorical")  # of a node


def tree_nodes(model: HistGradientBoostingClassifier) -> list[NDArray[np.void]]:
    """The nodes of each tree of a fitted model for two classes, in the order in which they were grown.

    Returns:
        For each tree a structured array [nodes] with `FIELDS`: what a leaf adds to the log-odds, and of any other node
        the input that it cuts, its threshold (at most: left) and the numbers of its two followers.

    Raises:
        ModelError: This version of scikit-learn keeps its trees otherwise.
    """
    try:
        trees = [nodes for (tree,) in model._predictors if isinstance(nodes := tree.nodes, np.ndarray)]
        known = len(trees) == len(model._predictors) and all(set(FIELDS) <= set(t.dtype.names or ()) for t in trees)
    except (AttributeError, TypeError, ValueError):
        known = False
    if not known:
        raise _otherwise("the nodes of its trees")
    return trees


def base_log_odds(model: HistGradientBoostingClassifier) -> float:
    """The log-odds that a fitted model for two classes adds its trees to.

    Raises:
        ModelError: This version of scikit-learn keeps them otherwise.
    """
    try:
        return float(model._baseline_prediction.item())
    except (AttributeError, ValueError):
        raise _otherwise("the log-odds that trees are added to") from None


def keep_first_trees(model: HistGradientBoostingClassifier, trees: int) -> None:
    """Cut a fitted model down to its first trees; growing on from look to look would bin all inputs anew each time.

    Raises:
        ModelError: This version of scikit-learn keeps its trees otherwise.
    """
    tree_nodes(model)  # so that what is cut is what it is taken for
    del model._predictors[trees:]


def _otherwise(what: str) -> ModelError:
    return ModelError(
        f"scikit-learn {sklearn.__version__} keeps {what} otherwise than scikit-learn {CHECKED_WITH}, with which this "
        f"was checked: install scikit-learn=={CHECKED_WITH}"
    )
