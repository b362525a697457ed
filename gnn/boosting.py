"""Rivals of the network: boosted trees and a logistic regression on the same rows, labels, delay and validation.

What a fraud team would train in its place. On honest data boosted trees with graph features beat most published graph
networks, so they stand beside ours in every table of quality (`ringwatch evaluate --against`). Their inputs, from the
poorest to the richest: a payment's own columns; those and the amounts and times of the last payments of every entity,
one by one; in place of these our point-in-time features of its entities (XGB-Graph of Tang et al., NeurIPS 2023, with
features that cannot see the future); and both, with all that ties a payment to those before it, which is all that the
network reads itself.

The trees are scikit-learn's histogram trees, a dependency already. Beside LightGBM they were measured on a payment's
own columns alone (Handbook, validation AP .2369 against .2365, one run).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gnn.calibrate import PlattScaling
from gnn.targets import Targets
from graph.backend import Store
from graph.features import feature_names
from graph.sampler import EDGE_FEATURES
from graph.state import GraphState

INPUTS: Final = ("columns", "raw history", "features", "history")
RAW: Final = ("amount", "gap")
TIES: Final = (
    "age",
    "labelled",
    "fraud",
    "settled",
    "amount_gap",
    "shared_roles",
)  # others restate the age
JUDGED: Final = 60_000  # validation payments that a choice rests on, as many as the network's
BLOCK: Final = 1 << 16  # rows whose inputs are made at once


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
        neighbours: Past payments of each entity in the richest inputs.
        refit: See `gnn.targets.TrainConfig`.
        without: See there.
        seed: Of the draw of payments.
    """

    settings: tuple[Setting, ...] = (Setting(), Setting(burn_in=0.25))
    rate: float = 0.1
    trees: int = 400
    step: int = 25
    negatives: int = 25
    neighbours: int = 16
    refit: bool = True
    without: tuple[str, ...] = ()
    seed: int = 0


class Classifier(Protocol):
    """What scikit-learn's classifiers have in common here."""

    def decision_function(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Log-odds of fraud, [n]."""


@dataclass(frozen=True)
class Rival:
    """A trained rival.

    Attributes:
        name: As in the table.
        inputs: One of `INPUTS`.
        neighbours: Past payments of each entity in its inputs.
        model: Log-odds from inputs.
        calibration: From log-odds to probability.
        facts: How it was chosen: setting, trees, validation AP.
    """

    name: str
    inputs: str
    neighbours: int
    model: Classifier
    calibration: PlattScaling
    facts: dict[str, Any]

    def probability(self, state: GraphState, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Fraud probabilities of rows, float64 [n]."""
        parts = [np.empty(0)]
        for i in range(0, len(rows), BLOCK):
            x = rival_inputs(state, rows[i : i + BLOCK], self.inputs, self.neighbours)
            parts.append(self.calibration.probability(self.model.decision_function(x)))
        return np.concatenate(parts)


def input_names(roles: Sequence[str], inputs: str, k: int) -> tuple[str, ...]:
    """Names of the columns of `rival_inputs`."""
    names = feature_names(roles)
    if inputs in ("columns", "raw history"):
        names = tuple(name for name in names if name.startswith("payment."))
    names = (*names, "category.currency", "category.channel", "category.mcc", "category.country")
    each = {"raw history": RAW, "history": TIES}.get(inputs, ())
    return (*names, *(f"{role}.{n}.{of}" for role in roles for n in range(k) for of in each))


def rival_inputs(state: GraphState, rows: NDArray[np.int64], inputs: str, k: int) -> NDArray[np.float32]:
    """What a rival reads of rows, each as of itself.

    Args:
        state: The graph.
        rows: Rows still in the buffer, int64 [n].
        inputs: One of `INPUTS`.
        k: Past payments of each entity, for both kinds of history.

    Returns:
        float32 [n, C] in the order of `input_names`; NaN for a past payment that is not there.
    """
    store = state.store
    x = store.features(rows)
    if inputs in ("columns", "raw history"):
        x = x[:, [i for i, name in enumerate(feature_names(store.roles)) if name.startswith("payment.")]]
    parts = [x, store.column("category", rows).astype(np.float32)]
    if inputs == "raw history":
        parts.append(raw_history(store, rows, k).reshape(len(rows), -1))
    if inputs == "history":
        near = store.neighbours(rows, k)
        ties = store.edges(rows, near)[..., [EDGE_FEATURES.index(tie) for tie in TIES]]
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
        float32 [n, R, K, 2], newest first, in the order of `RAW`: the amount (minor units), and the seconds to the next
        newer one of the same entity, or to the payment itself; NaN where there is none.
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
    report: Callable[[str, float], None] = lambda what, share: None,
) -> list[Rival]:
    """Train every rival on what the network was trained on.

    Args:
        state: The graph; events after the training may already be in it, for rows read their own past only.
        targets: From `gnn.targets.make_targets` at the moment the network was trained.
        config: How to train.
        report: Called with progress.

    Returns:
        A logistic regression, then trees from the poorest to the richest inputs.
    """
    config = config or BoostingConfig()
    everything = targets.all_teach if config.refit else targets
    rows, validation, final = drawn(targets, config), targets.validation, drawn(everything, config)
    y, known, last = (targets.fraud[r] > 0 for r in (rows, validation, final))
    found: list[Rival] = []

    def add(name: str, inputs: str, chosen: Classifier, again: Classifier, facts: dict[str, Any]) -> None:
        calibration = PlattScaling.fit(np.asarray(chosen.decision_function(v), np.float64), known)
        found.append(Rival(name, inputs, config.neighbours, again, calibration, facts))

    for number, inputs in enumerate(INPUTS):
        report("training rivals", number / len(INPUTS))
        names = input_names(state.store.roles, inputs, config.neighbours)
        read = np.array([not name.startswith(config.without) for name in names], np.float32)
        x, v, z = (rival_inputs(state, r, inputs, config.neighbours) * read for r in (rows, validation, final))
        if inputs == "features":
            add("logistic", inputs, _linear(x, y), _linear(z, last), {})
        categorical = categories(state.store.roles, inputs, config.neighbours)
        trees, facts = fit_trees(x, y, v, known, config, categorical)
        again = grow(z, last, config.settings[facts["setting"]], replace(config, trees=facts["trees"]), categorical)
        add(f"trees: {inputs}", inputs, trees, again, facts)
    return found


def drawn(targets: Targets, config: BoostingConfig) -> NDArray[np.int64]:
    """The payments that trees learn from, in order: all frauds, and so many of the rest for each, int64 [n]."""
    train = targets.train
    fraud = targets.fraud[train] > 0
    positive, negative = train[fraud], train[~fraud]
    most = min(len(negative), config.negatives * len(positive))
    chosen = np.random.default_rng(config.seed).choice(negative, most, replace=False)
    return np.sort(np.concatenate([positive, chosen]))


def categories(roles: Sequence[str], inputs: str, k: int) -> NDArray[np.bool_]:
    """Which inputs are hashed categories, bool [C]."""
    return np.array([name.startswith("category.") for name in input_names(roles, inputs, k)])


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
    if len(judged) > JUDGED:
        judged = np.sort(np.random.default_rng(0).choice(judged, JUDGED, replace=False))
    best: tuple[float, int, HistGradientBoostingClassifier, int] | None = None
    for number, setting in enumerate(config.settings):
        first = int(setting.burn_in * len(y))
        if not 0 < y[first:].sum() < len(y) - first:
            continue
        model = grow(x, y, setting, config, categorical)
        for trees, score in enumerate(model.staged_decision_function(validation[judged]), 1):
            if trees % config.step and trees < config.trees:
                continue
            ap = float(average_precision_score(known[judged], score))
            if best is None or ap > best[0]:
                best = ap, number, model, trees
    assert best is not None  # the first setting leaves nothing out
    ap, number, model, trees = best
    setting = config.settings[number]
    # Grown once and cut here: growing on from look to look would bin all inputs anew each time.
    del model._predictors[trees:]
    return model, {
        "setting": number,
        "leaves": setting.leaves,
        "rows_in_a_leaf": setting.rows,
        "burn_in": setting.burn_in,
        "trees": trees,
        "validation_ap": ap,
    }


def grow(
    x: NDArray[np.float32],
    y: NDArray[np.bool_],
    setting: Setting,
    config: BoostingConfig,
    categorical: NDArray[np.bool_] | None = None,
) -> HistGradientBoostingClassifier:
    """All of `config.trees` trees by one setting; see `fit_trees`."""
    first = int(setting.burn_in * len(y))
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
    ).fit(x[first:], y[first:])


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
