"""Every scorer keeps the protocol: the same checks on the CPU's, on CUDA's under g++, and on a GPU if there is one."""

import inspect
from collections.abc import Callable

import numpy as np
import pytest

from data.journal.protocol import Kind
from gnn.errors import ModelError
from gnn.model.artifact import Artifact, untrained
from gnn.model.groups import group_names
from gnn.score.cpu_scorer import CpuScorer
from gnn.score.cuda_scorer import CudaScorer
from gnn.score.protocol import Scorer
from graph.dag.protocol import DAY_US, Window
from graph.state import GraphState
from tests.devices import DEVICES, opened
from tests.graph.history import sharing

ROLES = ("account", "merchant", "device", "payee")
HISTORY = list(sharing(13, 600, most=30, labels=0.3, reach=60, gap_us=DAY_US // 200))
MEMBERS = [name for name in vars(Scorer) if not name.startswith("_")]
BOUND = 1e-5  # of a probability, between devices


def new_state() -> GraphState:
    return GraphState(ROLES, 1024, Window(200, 90 * DAY_US))


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return untrained(ROLES, neighbours=6, window_rows=200)


@pytest.fixture(scope="module", params=["cpu", *DEVICES])
def make(request, artifact) -> Callable[[GraphState], Scorer]:
    """Makes a scorer of one kind over a state, warm."""

    def made(state: GraphState) -> Scorer:
        scorer: Scorer = CpuScorer(artifact, state)
        if request.param != "cpu":
            assert isinstance(scorer, CpuScorer)
            scorer = CudaScorer(scorer, opened(request.param), buckets=(1, 8, 64))
        scorer.warm()
        return scorer

    return made


@pytest.fixture(scope="module")
def scored(make) -> tuple[Scorer, np.ndarray]:
    """A scorer that has scored a history, events in their order, and what it gave."""
    scorer, out = make(new_state()), []
    for event in HISTORY:
        if rows := scorer.state.apply(event):
            out.append(scorer.score(rows.start, rows.stop))
    return scorer, np.concatenate(out)


@pytest.mark.parametrize("kind", [CpuScorer, CudaScorer])
@pytest.mark.parametrize("name", [name for name in MEMBERS if callable(getattr(Scorer, name))])
def test_a_method_takes_what_the_protocol_says(kind, name):
    declared, found = (
        [(p.name, p.default, p.kind) for p in inspect.signature(getattr(of, name)).parameters.values()]
        for of in (Scorer, kind)
    )
    assert found == declared


def test_a_scorer_has_every_member_of_the_protocol(scored, artifact):
    scorer, _ = scored
    for name in MEMBERS:
        assert hasattr(scorer, name), name
    assert scorer.artifact is artifact
    assert scorer.device_name in ("cpu", "cuda")
    assert (scorer.ready, scorer.lost) == (True, False)


def test_scores_are_probabilities_one_for_each_row(scored, artifact):
    scorer, found = scored
    assert (found.dtype, found.shape) == (np.float64, (scorer.state.store.rows,))
    assert ((found > 0) & (found < 1)).all()
    assert found.std() > 0.01
    reference, expected = CpuScorer(artifact, new_state()), []
    for event in HISTORY:
        if rows := reference.state.apply(event):
            expected.append(reference.score(rows.start, rows.stop))
    np.testing.assert_allclose(found, np.concatenate(expected), atol=BOUND)


def test_past_rows_score_the_same_again_in_any_order_and_none_gives_none(scored, artifact):
    scorer, expected = scored
    rows = np.random.default_rng(0).permutation(len(expected))
    np.testing.assert_array_equal(scorer.rescore(rows), expected[rows])
    np.testing.assert_array_equal(artifact.calibration.probability(scorer.logits(rows)), expected[rows])
    none = np.empty(0, np.int64)
    assert scorer.rescore(none).shape == scorer.logits(none).shape == (0,)
    assert scorer.logits(none).dtype == np.float64
    assert scorer.embed(none).shape == (0, artifact.config.width)
    assert scorer.reasons(none) == []


def test_embeddings_are_those_of_the_cpu(scored, artifact):
    scorer, expected = scored
    rows = np.arange(0, len(expected), 3)
    found = scorer.embed(rows)
    assert (found.dtype, found.shape) == (np.float32, (len(rows), artifact.config.width))
    other = CpuScorer(artifact, scorer.state, cache=scorer.cache)
    np.testing.assert_allclose(found, other.embed(rows), atol=1e-4)


def test_the_cache_is_current_so_that_another_scorer_can_go_on(make, artifact):
    half = len(HISTORY) // 2
    scorer, expected, found = make(new_state()), make(new_state()), []
    for event in HISTORY[:half]:
        rows = scorer.state.apply(event)
        expected.state.apply(event)
        if rows:
            scorer.score(rows.start, rows.stop)
            expected.score(rows.start, rows.stop)
    other = CpuScorer(artifact, scorer.state, cache=scorer.cache)
    assert scorer.cache.complete_from == 0
    for event in HISTORY[half:]:
        rows = scorer.state.apply(event)
        expected.state.apply(event)
        if rows:
            found = other.score(rows.start, rows.stop)
            np.testing.assert_allclose(found, expected.score(rows.start, rows.stop), atol=BOUND)
    assert len(found)


@pytest.mark.parametrize("exact", [False, True])
def test_reasons_add_up_to_the_log_odds_of_the_score(scored, exact):
    scorer, expected = scored
    rows = np.arange(len(expected) - 3, len(expected))
    for why, probability in zip(scorer.reasons(rows, exact), expected[rows], strict=True):
        assert 1 <= len(why.reasons) <= 5
        total = why.baseline + sum(reason.contribution for reason in why.reasons)
        assert total == pytest.approx(np.log(probability / (1 - probability)), abs=1e-3)


def test_log_odds_without_parts_of_the_evidence(scored):
    scorer, expected = scored
    rows, groups = np.arange(len(expected) - 40, len(expected)), len(group_names(ROLES))
    found = scorer.score_ablated(rows, np.array([0, 1, (1 << groups) - 1]))
    assert (found.dtype, found.shape) == (np.float64, (40, 3))
    np.testing.assert_allclose(found[:, 0], np.log(expected[rows] / (1 - expected[rows])), atol=1e-3)
    assert np.ptp(found[:, 2]) < 1e-6 < np.ptp(found[:, 0])  # of which nothing is known, all payments are alike


def test_a_model_that_joins_a_running_graph_is_filled_and_scores_as_if_it_had_been_there(make, scored):
    _, expected = scored
    half = next(i for i, e in enumerate(HISTORY) if e.kind is Kind.TRANSACTION and e.offset > 300)
    state = new_state()
    for event in HISTORY[:half]:
        state.apply(event)
    scorer, steps = make(state), 0
    assert scorer.cache.complete_from == state.store.rows
    if not scorer.ready:
        with pytest.raises(ModelError, match="not ready"):
            scorer.score(state.store.rows, state.store.rows)
    while scorer.fill(100):
        steps += 1
    assert scorer.ready
    assert scorer.cache.complete_from == 0
    assert steps == (state.store.rows - 1) // 100
    joined = state.store.rows
    np.testing.assert_allclose(scorer.rescore(np.arange(joined)), expected[:joined], atol=BOUND)
    rows = state.apply(HISTORY[half])
    np.testing.assert_allclose(scorer.score(rows.start, rows.stop), expected[rows.start : rows.stop], atol=BOUND)
