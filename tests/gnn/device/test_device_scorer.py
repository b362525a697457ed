"""Scoring with the store and the cache on a device, its kernels run on the CPU: faults, and what the CPU takes over."""

import numpy as np
import pytest

from data.journal.protocol import Kind
from gnn.errors import ModelError
from gnn.model.artifact import untrained
from gnn.score.cpu_scorer import CpuScorer
from gnn.score.cuda_scorer import CudaScorer
from gnn.score.protocol import Scorer
from graph.dag.protocol import DAY_US, Window
from graph.state import GraphState
from tests.cuda_host.host import GXX, HostDevice
from tests.graph.history import sharing

pytestmark = pytest.mark.skipif(GXX is None, reason="no g++ here to compile the CUDA sources for the CPU")
ROLES = ("account", "merchant", "device", "payee")
BOUND = 1e-5  # of a probability
HISTORY = list(sharing(11, 700, most=30, labels=0.3, reach=60, gap_us=DAY_US // 200))


@pytest.fixture(scope="module")
def artifact():
    return untrained(ROLES, neighbours=6, window_rows=200)


def pair(artifact) -> tuple[GraphState, HostDevice, CudaScorer, Scorer]:
    state, host = GraphState(ROLES, 512, Window(200, 90 * DAY_US)), HostDevice()
    cpu = CpuScorer(artifact, state)
    return state, host, CudaScorer(cpu, host, buckets=(1, 8, 32)), cpu


@pytest.fixture(scope="module")
def expected(artifact) -> np.ndarray:
    state = GraphState(ROLES, 512, Window(200, 90 * DAY_US))
    scorer, out = CpuScorer(artifact, state), []
    for event in HISTORY:
        if rows := state.apply(event):
            out.append(scorer.score(rows.start, rows.stop))
    return np.concatenate(out)


def test_scores_reasons_and_the_cpus_cache_are_those_of_the_cpu_alone(artifact, expected):
    """Through a lap of the buffer, with labels between, and events applied that are scored later."""
    state, _, scorer, cpu = pair(artifact)
    scorer.warm()
    found, first = [], 0
    for i, event in enumerate(HISTORY):
        state.apply(event)
        if i % 3 == 0 or event is HISTORY[-1]:
            found.append(scorer.score(first, state.store.rows))
            first = state.store.rows
    np.testing.assert_allclose(np.concatenate(found), expected, atol=BOUND)
    rows = np.arange(state.store.oldest + 250, state.store.rows)
    np.testing.assert_allclose(scorer.rescore(rows), expected[rows], atol=BOUND)
    np.testing.assert_allclose(cpu.rescore(rows), expected[rows], atol=BOUND)
    np.testing.assert_allclose(scorer.embed(rows), cpu.embed(rows), atol=1e-4)
    assert scorer.reasons(rows[-5:]) == cpu.reasons(rows[-5:])


@pytest.mark.parametrize("at", ["put", "chain", "describe", "attend_one", "get", "wait"])
def test_a_device_that_fails_anywhere_leaves_the_cpu_able_to_answer(artifact, expected, at):
    state, host, scorer, cpu = pair(artifact)
    scorer.warm()
    found = []
    for event in HISTORY[:24]:
        rows = state.apply(event)
        if not rows:
            continue
        if len(found) == 5:

            def fails(name: str) -> None:
                if name == at:
                    raise RuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")

            host.fails = fails
        try:
            found.append(scorer.score(rows.start, rows.stop))
        except (RuntimeError, ModelError):
            assert len(found) >= 5
            found.append(cpu.score(rows.start, rows.stop))
    assert scorer.lost
    assert not scorer.ready
    found = np.concatenate(found)
    np.testing.assert_allclose(found, expected[: len(found)], atol=BOUND)
    with pytest.raises(ModelError, match="lost"):
        scorer.score(len(found), len(found))


def test_what_the_cpu_scored_meanwhile_is_taken_over(artifact, expected):
    state, _, scorer, cpu = pair(artifact)
    scorer.warm()
    found = []
    for event in HISTORY:
        if rows := state.apply(event):
            which = cpu if 200 < rows.start < 420 else scorer
            found.append(which.score(rows.start, rows.stop))
    np.testing.assert_allclose(np.concatenate(found), expected, atol=BOUND)


def test_a_model_that_joins_later_is_filled_by_the_cpu_first(artifact, expected):
    state = GraphState(ROLES, 512, Window(200, 90 * DAY_US))
    events = [e for e in HISTORY if e.kind is Kind.TRANSACTION or e.offset < 500]
    at = next(i for i, e in enumerate(events) if e.offset > 300)
    for event in events[:at]:
        state.apply(event)
    cpu = CpuScorer(artifact, state)
    scorer = CudaScorer(cpu, HostDevice(), buckets=(1, 64))
    scorer.warm()
    with pytest.raises(ModelError, match="not ready"):
        scorer.score(state.store.rows, state.store.rows)
    while scorer.fill(100):
        pass
    assert scorer.ready
    joined = state.store.rows
    rows = np.arange(joined - 150, joined)
    np.testing.assert_allclose(scorer.rescore(rows), expected[rows], atol=BOUND)
    for event in events[at : at + 6]:
        if event.kind is Kind.TRANSACTION:
            new = state.apply(event)
            np.testing.assert_allclose(scorer.score(new.start, new.stop), expected[new.start : new.stop], atol=BOUND)
        else:
            state.apply(event)
