"""What is read of scikit-learn's private trees, with the version that it was checked with."""

import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import sklearn
from sklearn.ensemble import HistGradientBoostingClassifier

from gnn.errors import ModelError
from gnn.train.sklearn_private import CHECKED_WITH, FIELDS, base_log_odds, keep_first_trees, tree_nodes

ROOT = Path(__file__).parents[3]


def inputs(n: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 3)).astype(np.float32)
    return x, (x[:, 0] > 0.3) | (x[:, 1] > 1)


@pytest.fixture(scope="module")
def fitted() -> HistGradientBoostingClassifier:
    x, y = inputs()
    return HistGradientBoostingClassifier(max_iter=12, early_stopping=False, random_state=0).fit(x, y)


def walked(model: HistGradientBoostingClassifier, row: np.ndarray) -> float:
    """The log-odds of a row, node by node."""
    total = base_log_odds(model)
    for nodes in tree_nodes(model):
        node = nodes[0]
        while not node["is_leaf"]:
            node = nodes[node["left"] if row[node["feature_idx"]] <= node["num_threshold"] else node["right"]]
        total += node["value"]
    return total


def test_nodes_and_base_give_what_scikit_learn_gives(fitted: HistGradientBoostingClassifier) -> None:
    x, _ = inputs()
    assert len(tree_nodes(fitted)) == 12
    assert all(set(FIELDS) <= set(nodes.dtype.names) for nodes in tree_nodes(fitted))
    np.testing.assert_allclose([walked(fitted, row) for row in x[:200]], fitted.decision_function(x[:200]), atol=1e-9)


def test_the_first_trees_kept_give_what_the_model_gave_at_that_stage(fitted: HistGradientBoostingClassifier) -> None:
    x, _ = inputs()
    model = deepcopy(fitted)
    stages = list(fitted.staged_decision_function(x))
    keep_first_trees(model, 5)
    np.testing.assert_array_equal(model.decision_function(x), stages[4])
    assert len(tree_nodes(model)) == 5


def test_the_version_checked_is_the_one_that_is_locked_and_installed() -> None:
    """Another one needs this test file to pass, then its number in `gnn.train.sklearn_private`."""
    locked = re.search(r"^scikit-learn==(.*)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked is not None
    assert locked[1] == CHECKED_WITH == sklearn.__version__


def spoilt(nodes: object, stages: int = 1) -> SimpleNamespace:
    return SimpleNamespace(_predictors=[[SimpleNamespace(nodes=nodes)] * stages], _baseline_prediction=np.zeros((1, 1)))


@pytest.mark.parametrize(
    "model",
    [
        SimpleNamespace(),  # no such attribute
        SimpleNamespace(_predictors=None),
        spoilt(np.zeros(3, [("value", "f8"), ("threshold", "f8")])),  # other fields
        spoilt([1, 2, 3]),  # no array
        spoilt(np.zeros(3)),  # no fields
        spoilt(
            np.zeros(3, [(name, "f8") for name in FIELDS]), stages=2
        ),  # several trees a stage: more than two classes
    ],
)
@pytest.mark.parametrize("read", [tree_nodes, lambda model: keep_first_trees(model, 1)], ids=["nodes", "cut"])
def test_trees_that_are_kept_otherwise_are_refused_with_the_version_that_works(
    model: SimpleNamespace, read: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sklearn, "__version__", "9.0")
    wanted = rf"scikit-learn 9\.0 keeps the nodes .* install scikit-learn=={re.escape(CHECKED_WITH)}"
    with pytest.raises(ModelError, match=wanted):
        read(model)


@pytest.mark.parametrize("base", [None, np.zeros((1, 3))])
def test_a_base_that_is_kept_otherwise_is_refused(base: object) -> None:
    with pytest.raises(ModelError, match=r"keeps the log-odds .* install scikit-learn=="):
        base_log_odds(SimpleNamespace(_baseline_prediction=base))


def test_nothing_else_reads_what_scikit_learn_keeps_private() -> None:
    private = re.compile(r"[)\w]\._(predictors|baseline_prediction|bin_mapper|raw_predict)\b")
    sources = [
        path for folder in ("data", "graph", "gnn", "serve", "benchmarks") for path in (ROOT / folder).rglob("*.py")
    ]
    found = {path.name for path in sources if private.search(path.read_text())}
    assert found == {"sklearn_private.py"}
