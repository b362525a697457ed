"""Parts of a payment's evidence that an explanation leaves out of the score, one at a time."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from graph.dag.features import SETTLED_FEATURES, feature_names
from graph.dag.memory import head_names

OWN_GROUPS = ("amount", "time", "context", "labels", "ring")
CONTEXT, LABELS = 2, 3  # categories; known labels, on edges and in counts


def group_names(roles: Sequence[str]) -> tuple[str, ...]:
    """`OWN_GROUPS`, then the history of each role."""
    return (*OWN_GROUPS, *(f"history_{name}" for name in roles))


def feature_groups(roles: Sequence[str]) -> NDArray[np.int32]:
    """The group of each feature, int32 [F]."""
    groups = []
    for name in feature_names(roles):
        scope, feature = name.split(".")[:2]
        if scope == "payment":
            groups.append(0 if feature == "amount" else 1)
        elif feature == "amount_ratio":
            groups.append(0)
        elif feature in ("fraud", "labelled", "frauds", *SETTLED_FEATURES):
            groups.append(LABELS)
        elif scope == "ring":
            groups.append(4)
        else:
            groups.append(len(OWN_GROUPS) + list(roles).index(scope))
    return np.array(groups, np.int32)


def head_groups(roles: Sequence[str]) -> NDArray[np.int32]:
    """The group of everything that the head's trees read, int32 [F + 1 + E]; the network's log-odds have none, -1."""
    beside = []
    for name in head_names(roles):
        if name.startswith("category."):
            beside.append(CONTEXT)
        else:
            beside.append(
                LABELS if name.endswith(".frauds_known") else len(OWN_GROUPS)
            )  # meetings are of the account's history
    return np.concatenate([feature_groups(roles), [-1], beside]).astype(np.int32)
