"""Rivals of the network: boosted trees and a logistic regression on the same rows, labels, delay and validation.

What a fraud team would train in its place. On honest data boosted trees with graph features beat most published graph
networks, so they stand beside ours in every table of quality (`ringwatch evaluate --against`). Their inputs, from the
poorest to the richest: a payment's own columns; those and the amounts and times of the last payments of every entity,
one by one; in place of these our point-in-time features of its entities (XGB-Graph of Tang et al., NeurIPS 2023, with
features that cannot see the future); and both, with all that ties a payment to those before it, which is all that the
network reads itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data.report import Report, silent
from gnn.model.calibration import PlattScaling
from gnn.train.boosted_trees import BoostingConfig, fit_trees, grow_trees, sample_training_rows
from gnn.train.targets import Targets
from graph.dag.features import feature_names
from graph.dag.protocol import NEVER_US, Store
from graph.dag.sampler import EDGE_FEATURES
from graph.state import GraphState

INPUT_SETS: Final = ("columns", "raw history", "features", "history")
RAW_COLUMNS: Final = ("amount", "gap")
TIE_COLUMNS: Final = ("age", "labelled", "fraud", "settled", "amount_gap", "shared_roles")  # the others restate the age
ROWS_PER_BLOCK: Final = 1 << 16  # rows whose inputs are in memory at once


class Classifier(Protocol):
    """What scikit-learn's classifiers have in common here."""

    def decision_function(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Log-odds of fraud, [n]."""


@dataclass(frozen=True)
class Rival:
    """A trained rival.

    Attributes:
        name: As in the table.
        inputs: One of `INPUT_SETS`.
        neighbours: Past payments of each entity in its inputs.
        model: Log-odds from inputs.
        calibration: From log-odds to probability.
        facts: How it was chosen: setting, trees, validation AP.
        settle_us: Age, in microseconds, at which it takes a payment without a label for legitimate.
    """

    name: str
    inputs: str
    neighbours: int
    model: Classifier
    calibration: PlattScaling
    facts: dict[str, Any]
    settle_us: int = NEVER_US

    def probability(self, state: GraphState, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Fraud probabilities of rows, float64 [n]."""
        parts = [np.empty(0)]
        for i in range(0, len(rows), ROWS_PER_BLOCK):
            x = rival_inputs(state, rows[i : i + ROWS_PER_BLOCK], self.inputs, self.neighbours, self.settle_us)
            parts.append(self.calibration.probability(self.model.decision_function(x)))
        return np.concatenate(parts)


def input_names(roles: Sequence[str], inputs: str, k: int) -> tuple[str, ...]:
    """Names of the columns of `rival_inputs`."""
    names = feature_names(roles)
    if inputs in ("columns", "raw history"):
        names = tuple(name for name in names if name.startswith("payment."))
    names = (*names, "category.currency", "category.channel", "category.mcc", "category.country")
    each = {"raw history": RAW_COLUMNS, "history": TIE_COLUMNS}.get(inputs, ())
    return (*names, *(f"{role}.{n}.{of}" for role in roles for n in range(k) for of in each))


def rival_inputs(
    state: GraphState, rows: NDArray[np.int64], inputs: str, k: int, settle_us: int = NEVER_US
) -> NDArray[np.float32]:
    """What a rival reads of rows, each as of itself.

    Args:
        state: The graph.
        rows: Rows still in the buffer, int64 [n].
        inputs: One of `INPUT_SETS`.
        k: Past payments of each entity, for both kinds of history.
        settle_us: Age, in microseconds, at which a payment without a label counts as legitimate.

    Returns:
        float32 [n, C] in the order of `input_names`; NaN for a past payment that is not there.
    """
    store = state.store
    x = store.features(rows, settle_us)
    if inputs in ("columns", "raw history"):
        x = x[:, [i for i, name in enumerate(feature_names(store.roles)) if name.startswith("payment.")]]
    parts = [x, store.column("category", rows).astype(np.float32)]
    if inputs == "raw history":
        parts.append(raw_history(store, rows, k).reshape(len(rows), -1))
    if inputs == "history":
        near = store.neighbours(rows, k)
        ties = store.edges(rows, near, settle_us)[..., [EDGE_FEATURES.index(tie) for tie in TIE_COLUMNS]]
        ties[near < 0] = np.nan
        parts.append(ties.reshape(len(rows), -1))
    return np.concatenate(parts, 1)


def raw_history(store: Store, rows: NDArray[np.int64], k: int) -> NDArray[np.float32]:
    """The last payments of a payment's entities as they are, without the reader's view of them.

    Args:
        store: The graph.
        rows: int64 [n].
        k: Past payments of each entity.

    Returns:
        float32 [n, R, K, 2], newest first, in the order of `RAW_COLUMNS`: the amount (minor units), and the seconds to
        the next newer one of the same entity, or to the payment itself; NaN where there is none.
    """
    near = store.neighbours(rows, k)
    at = np.maximum(near, 0)
    time, own = (store.column("time", of.ravel()).reshape(of.shape) for of in (at, rows[:, None, None]))
    newer = np.concatenate([np.broadcast_to(own, time[..., :1].shape), time[..., :-1]], -1)
    amount = store.column("amount", at.ravel()).reshape(at.shape)
    found = np.stack([amount, (newer - time) * 1e-6], -1).astype(np.float32)
    return np.where((near >= 0)[..., None], found, np.float32(np.nan))


def fit_rivals(
    state: GraphState,
    targets: Targets,
    config: BoostingConfig | None = None,
    report: Report = silent,
) -> list[Rival]:
    """Train every rival on what the network was trained on.

    Args:
        state: The graph; events after the training may already be in it, for rows read their own past only.
        targets: From `gnn.train.targets.make_targets` at the moment the network was trained.
        config: How to train.
        report: Called with progress.

    Returns:
        A logistic regression, then trees from the poorest to the richest inputs.
    """
    config = config or BoostingConfig()
    everything = targets.with_validation_in_training if config.refit else targets
    rows, final = (sample_training_rows(of, config) for of in (targets, everything))
    validation = targets.validation
    y, known, last = (targets.fraud[r] > 0 for r in (rows, validation, final))
    found: list[Rival] = []
    settle_us = targets.settle_us

    def add(name: str, inputs: str, chosen: Classifier, again: Classifier, facts: dict[str, Any]) -> None:
        calibration = PlattScaling.fit(np.asarray(chosen.decision_function(v), np.float64), known)
        found.append(Rival(name, inputs, config.neighbours, again, calibration, facts, settle_us))

    for number, inputs in enumerate(INPUT_SETS):
        report("training rivals", number / len(INPUT_SETS))
        names = input_names(state.store.roles, inputs, config.neighbours)
        read = np.array([not name.startswith(config.without) for name in names])
        x, v, z = (
            np.where(read, rival_inputs(state, r, inputs, config.neighbours, settle_us), np.float32(0))
            for r in (rows, validation, final)
        )
        if inputs == "features":
            add("logistic", inputs, _linear(x, y), _linear(z, last), {})
        categorical = categories(state.store.roles, inputs, config.neighbours)
        trees, facts = fit_trees(x, y, v, known, config, categorical)
        again = grow_trees(
            z, last, config.settings[facts["setting"]], replace(config, trees=facts["trees"]), categorical
        )
        add(f"trees: {inputs}", inputs, trees, again, facts)
    return found


def categories(roles: Sequence[str], inputs: str, k: int) -> NDArray[np.bool_]:
    """Which inputs are hashed categories, bool [C]."""
    return np.array([name.startswith("category.") for name in input_names(roles, inputs, k)])


@dataclass(frozen=True)
class _Linear:
    """A linear model on the first columns."""

    model: Any
    width: int

    def decision_function(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(self.model.decision_function(x[:, : self.width]), np.float64)


def _linear(x: NDArray[np.float32], y: NDArray[np.bool_]) -> _Linear:
    plain = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    width = x.shape[1] - 4  # hashed categories are names, not numbers
    return _Linear(plain.fit(x[:, :width], y), width)
