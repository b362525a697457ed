"""A rival on what Snap ML says of a payment's place in the graph, where that package is installed (it is proprietary).

IBM's GraphFeaturePreprocessor (Blanuša et al., "Graph Feature Preprocessor: Real-time Subgraph-based Feature Extraction
for Financial Crime Detection", ICAIF 2024) keeps fans and statistics of both ends of an edge. A payment is an edge from
its account to each of its other entities. Payments go in one by one: in a batch, each would count those after it.
"""

from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from data.report import Report, silent
from gnn.model.calibration import PlattScaling
from gnn.rivals.boosting import Classifier, categories, input_names, rival_inputs
from gnn.train.boosted_trees import BoostingConfig, fit_trees, grow_trees, sample_training_rows
from gnn.train.targets import Targets
from graph.state import GraphState

RIVAL_NAME: Final = "trees: Snap ML"
DAY_S: Final = 86_400
# Statistics of the amount, the fifth column. Windows as long as ours: the package's own are 12 hours for fans and, for
# statistics, no longer than those unless `time_window` says so.
PARAMETERS: Final[dict[str, Any]] = {
    "num_threads": 1,
    "time_window": 30 * DAY_S,
    "fan_tw": 30 * DAY_S,
    "vertex_stats_tw": 30 * DAY_S,
    "vertex_stats_cols": [4],
}

FLOAT32_MAX: Final = float(np.finfo(np.float32).max)  # what it writes for none is larger

_cached_features: WeakKeyDictionary[GraphState, NDArray[np.float32]] = WeakKeyDictionary()


def installed() -> bool:
    """Whether the package is there."""
    return find_spec("snapml") is not None


def edge_features(state: GraphState, report: Report = silent) -> NDArray[np.float32]:
    """What Snap ML says of every row that the buffer holds, the oldest first, from these rows alone.

    Args:
        state: The graph.
        report: Called with progress.

    Returns:
        float32 [n, C]; NaN where a payment has no entity in a role.
    """
    from snapml import GraphFeaturePreprocessor

    store = state.store
    entity, amount, time = store.column("entity"), store.column("amount"), store.column("time")
    processor = GraphFeaturePreprocessor()
    processor.set_params(PARAMETERS)
    others = entity.shape[1] - 1
    edges = np.zeros((others, 5))  # id, source, target, seconds, amount
    edges[:, 0] = np.arange(others)
    out: NDArray[np.float32] | None = None
    for n in range(len(entity)):
        if n % 10_000 == 0:
            report("Snap ML", n / len(entity))
        there = entity[n, 1:] >= 0
        if entity[n, 0] < 0 or not there.any():
            continue
        edges[:, 1], edges[:, 2] = entity[n, 0], entity[n, 1:]
        edges[:, 3], edges[:, 4] = time[n] * 1e-6, amount[n]
        found = processor.transform(np.ascontiguousarray(edges[there]))[:, 5:]
        edges[:, 0] += others
        if out is None:
            out = np.full((len(entity), others, found.shape[1]), np.nan, np.float32)
        out[n, there] = np.clip(found, -FLOAT32_MAX, FLOAT32_MAX)
    if out is None:
        return np.empty((len(entity), 0), np.float32)
    return out.reshape(len(entity), -1)


def snapml_inputs(state: GraphState, rows: NDArray[np.int64], report: Report = silent) -> NDArray[np.float32]:
    """A payment's own columns and what Snap ML says of it, float32 [n, C]; computed once for a graph that has grown."""
    store = state.store
    held = store.rows - store.oldest
    if state not in _cached_features or len(_cached_features[state]) != held:
        _cached_features[state] = edge_features(state, report)
    return np.concatenate([rival_inputs(state, rows, "columns", 0), _cached_features[state][rows - store.oldest]], 1)


@dataclass(frozen=True)
class SnapRival:
    """Boosted trees on `snapml_inputs`.

    Attributes:
        model: Log-odds from inputs.
        calibration: From log-odds to probability.
        facts: How it was chosen: setting, trees, validation AP.
        name: In the table.
    """

    model: Classifier
    calibration: PlattScaling
    facts: dict[str, Any]
    name: str = RIVAL_NAME

    def probability(self, state: GraphState, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Fraud probabilities of rows, float64 [n]."""
        return self.calibration.probability(self.model.decision_function(snapml_inputs(state, rows)))


def fit_snapml(
    state: GraphState,
    targets: Targets,
    config: BoostingConfig | None = None,
    report: Report = silent,
) -> SnapRival:
    """Train it on the payments and labels that the other rivals are trained on.

    Args:
        state: The graph; later events may already be in it, for rows read their own past only.
        targets: From `gnn.train.targets.make_targets` at the moment the network was trained.
        config: How to train.
        report: Called with progress.

    Returns:
        The trees, grown again with the validation payments where `config.refit` says so, and calibrated.
    """
    config = config or BoostingConfig()
    rows, validation = sample_training_rows(targets, config), targets.validation
    known = targets.fraud[validation] > 0
    roles, made = state.store.roles, snapml_inputs(state, rows, report)
    own = [not name.startswith(config.without) for name in input_names(roles, "columns", 0)]
    read = np.concatenate([own, np.ones(made.shape[1] - len(own))]).astype(np.float32)
    x, v = made * read, snapml_inputs(state, validation) * read
    categorical = np.zeros(x.shape[1], np.bool_)
    categorical[: len(own)] = categories(roles, "columns", 0)
    trees, facts = fit_trees(x, targets.fraud[rows] > 0, v, known, config, categorical)
    calibration = PlattScaling.fit(np.asarray(trees.decision_function(v), np.float64), known)
    if config.refit:
        final = sample_training_rows(targets.with_validation_in_training, config)
        setting, last = config.settings[facts["setting"]], replace(config, trees=facts["trees"])
        trees = grow_trees(snapml_inputs(state, final) * read, targets.fraud[final] > 0, setting, last, categorical)
    return SnapRival(trees, calibration, facts)
