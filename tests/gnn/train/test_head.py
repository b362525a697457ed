"""The head: scikit-learn's trees in arrays, grown from what teaches, and never trusted when read."""

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from data.journal.protocol import Events, Kind
from gnn.errors import ModelError
from gnn.model.artifact import load, untrained
from gnn.model.network import uncached
from gnn.model.trees import LEAF, Trees, apply_trees, no_trees, random_trees, read_trees
from gnn.score.cpu_scorer import CpuScorer
from gnn.train.head import HeadInputs, fit_head, from_sklearn, network_share, refit_head
from gnn.train.targets import Targets
from graph.dag.protocol import Window
from graph.state import GraphState
from tests.world import payment_batch

F = 6


def inputs(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x, logit = rng.normal(size=(n, F)).astype(np.float32), rng.normal(size=n).astype(np.float32)
    x[:, 1] = np.round(x[:, 1])  # ties at thresholds
    fraud = (x[:, 0] > 0.5) & (x[:, 1] > 0) | (logit > 2)
    return x, logit, fraud


@pytest.fixture(scope="module")
def grown() -> tuple[HistGradientBoostingClassifier, Trees]:
    x, logit, fraud = inputs(5000, 0)
    model = HistGradientBoostingClassifier(max_iter=40, random_state=0)
    model.fit(np.concatenate([x, logit[:, None]], 1), fraud)
    return model, from_sklearn(model)


def test_the_arrays_score_as_scikit_learn_does(grown):
    model, trees = grown
    x, logit, _ = inputs(5000, 1)
    thresholds = trees.threshold[(trees.feature == 0)]
    x[: len(thresholds), 0] = thresholds  # exactly on a cut
    expected = model.decision_function(np.concatenate([x, logit[:, None]], 1))
    np.testing.assert_allclose(apply_trees(trees, x, logit), expected, atol=1e-5)


def test_walking_side_by_side_ends_in_the_leaves_of_walks_one_by_one():
    x, logit, _ = inputs(50, 2)
    for number in (1, 15, 16, 17, 40):  # whole groups, and a rest
        trees = random_trees(F, seed=number, trees=number, depth=1 + number % 4)
        expected = trees.base[0] + trees.base[1] * logit.astype(np.float64)
        for b, row in enumerate(np.concatenate([x, logit[:, None]], 1)):
            for node in trees.root:
                while trees.feature[node] != LEAF:
                    low = row[trees.feature[node]] <= trees.threshold[node]
                    node = (trees.left if low else trees.right)[node]
                expected[b] += trees.value[node]
        np.testing.assert_allclose(apply_trees(trees, x, logit), expected, atol=1e-5)


def test_no_trees_change_nothing():
    x, logit, _ = inputs(50, 3)
    np.testing.assert_array_equal(apply_trees(no_trees(), x, logit), logit)


def test_a_head_is_grown_on_the_payments_that_teach_and_grown_again_in_the_same_way():
    x, logit, fraud = inputs(12_000, 4)
    rows = np.arange(len(x))
    targets = Targets(rows[:8000], rows[8000:], rows[:0], fraud.astype(np.float32), 0)
    read = HeadInputs(x, np.zeros((len(x), 0), np.float32))
    trees, facts = fit_head(read, logit, targets)
    assert facts["validation_ap"] > facts["network_ap"] + 0.1
    assert len(trees.root) == facts["stacked"]["trees"] + facts["plain"]["trees"]
    for ours, theirs in zip(trees, refit_head(read, logit, targets, facts), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not np.array_equal(refit_head(read, logit, targets.with_validation_in_training, facts).value, trees.value)


def test_a_head_learns_from_what_it_reads_beside_the_features():
    x, logit, fraud = inputs(12_000, 4)
    beside = np.stack([np.zeros(len(x)), fraud ^ (np.arange(len(x)) % 10 == 0)], 1).astype(np.float32)
    rows = np.arange(len(x))
    targets = Targets(rows[:8000], rows[8000:], rows[:0], fraud.astype(np.float32), 0)
    trees, facts = fit_head(HeadInputs(x, beside), logit, targets)
    assert (trees.feature == F + 2).any()
    assert not (trees.feature == F + 1).any()  # it never varies
    blind = fit_head(HeadInputs(x, beside * 0), logit, targets)[1]
    assert facts["validation_ap"] > blind["validation_ap"]
    np.testing.assert_array_equal(
        HeadInputs(x, beside).score(trees, logit, rows[8000:]), apply_trees(trees, x, logit, beside)[8000:]
    )


def test_the_network_loses_its_share_where_trees_are_better_and_only_as_far_as_frauds_say_so():
    rng = np.random.default_rng(0)
    fraud = rng.random(20_000) < 0.05
    noise = rng.normal(size=(2, len(fraud)))
    good, bad = 4 * fraud + noise[0], 3 * noise[1]
    assert network_share(good, bad, fraud) == pytest.approx(1 / 3)
    assert network_share(bad, good, fraud) < 0.05
    few = np.flatnonzero(fraud)[:10]
    kept = np.sort(np.concatenate([few, np.flatnonzero(~fraud)]))
    assert 0.2 < network_share(bad[kept], good[kept], fraud[kept]) < 1 / 3


def test_several_models_and_the_network_are_averaged_by_their_weights(grown):
    stacked, _ = grown
    x, logit, fraud = inputs(5000, 7)
    plain = HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(x, fraud)
    theirs = stacked.decision_function(np.concatenate([x, logit[:, None]], 1)) + plain.decision_function(x)
    trees = from_sklearn(stacked, plain, network=0.2)
    np.testing.assert_allclose(apply_trees(trees, x, logit), 0.4 * theirs + 0.2 * logit, atol=1e-5)


def test_a_model_keeps_its_head_and_both_engines_use_it(grown, tmp_path):
    artifact = untrained(("account", "merchant"), width=16, hidden=16, neighbours=4)
    x, logit, fraud = inputs(5000, 5)
    wide = np.zeros((len(x), artifact.config.inputs + 1), np.float32)
    wide[:, :F], wide[:, -1] = x, logit
    artifact.net.trees = from_sklearn(HistGradientBoostingClassifier(max_iter=10, random_state=0).fit(wide, fraud))
    artifact.save(tmp_path)
    again = load(tmp_path)
    assert again.version == artifact.version
    for ours, theirs in zip(artifact.net.trees, again.net.trees, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    state = GraphState(artifact.roles, 1 << 10, Window(500))
    state.apply(Events(Kind.TRANSACTION, 0, payment_batch(300, 1, 40, 20, 20)))
    rows = np.arange(300)
    _, expected = uncached(again.net, state.store, rows)
    scorer = CpuScorer(again, state)
    scorer.score(0, 300)
    np.testing.assert_allclose(scorer.logits(rows), expected, atol=1e-5)
    whole = scorer._engine.score_ablated(scorer.cache.data, rows, scorer._prepare(rows), np.array([0, 5]))
    np.testing.assert_allclose(whole[:, 0], expected, atol=1e-5)
    from gnn.model.engines import TorchEngine

    torch_engine = TorchEngine(again.net, state.store, "cpu")
    other = torch_engine.score_ablated(scorer.cache.data, rows, scorer._prepare(rows), np.array([0, 5]))
    np.testing.assert_allclose(other, whole, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "at", "value", "reason"),
    [
        ("left", 0, 0, "leads outside it, or back"),
        ("right", 0, 1 << 30, "leads outside it, or back"),
        ("feature", 0, F + 1, "a feature that there is not"),
        ("root", 0, -1, "begins outside"),
    ],
)
def test_a_head_that_would_lead_the_kernel_astray_is_refused(grown, name, at, value, reason):
    arrays = {n: a.copy() for n, a in grown[1]._asdict().items()}
    arrays[name][at] = value
    with pytest.raises(ValueError, match=reason):
        read_trees(arrays, F)


def test_a_damaged_head_is_a_model_error(tmp_path):
    artifact = untrained(("account",), width=8, hidden=8, heads=2)
    plain = no_trees()
    artifact.net.trees = Trees._make(np.zeros(max(1, len(array)), array.dtype) for array in plain)
    artifact.save(tmp_path)
    with pytest.raises(ModelError, match="leads outside it, or back"):
        load(tmp_path)
