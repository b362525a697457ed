"""A history scored by slices of blocks: the bits of one scorer that scores row after row, whoever shares the work."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest

from data.journal.protocol import Events
from gnn.errors import ModelError
from gnn.model.artifact import Artifact, untrained
from gnn.score.cpu_scorer import CpuScorer
from gnn.score.replay import capacity_for
from gnn.score.slices import CpuSlices, DeviceSlices, SliceWorker, score_block, slice_bounds
from graph.dag.protocol import DAY_US, ROWS_PER_APPEND, Window
from graph.errors import GraphError
from graph.slices import StretchStore, cut
from graph.state import GraphState
from tests.cuda_host.host import GXX, HostDevice
from tests.devices import DEVICES, opened
from tests.graph.history import sharing

ROLES = ("account", "merchant", "device", "payee", "card")
WINDOW = Window(200, 90 * DAY_US)
N = 1_500


def model(cache: str = "float32") -> Artifact:
    return untrained(ROLES, neighbours=6, layers=3, window_rows=WINDOW.rows, cache=cache)


def history() -> Iterator[Events]:
    return sharing(11, N, most=30, labels=0.3, reach=150, gap_us=DAY_US // 200, overdue=0.2)


@pytest.fixture(scope="module", params=["float32", "int8"])
def expected(request: pytest.FixtureRequest) -> tuple[Artifact, np.ndarray]:
    """The model, and log-odds as the service computes them: row after row, over a graph that holds everything."""
    artifact = model(request.param)
    state = GraphState(ROLES, capacity_for(N, WINDOW), WINDOW)
    scorer = CpuScorer(artifact, state)
    parts = []
    for event in history():
        rows = state.apply(event)
        parts.append(scorer.score(rows.start, rows.stop) if len(rows) else np.empty(0))
    return artifact, artifact.calibration.logit(np.concatenate(parts))


def blocks(
    artifact: Artifact, make: Callable[[], SliceWorker], count: int, block: int, cut_slices: Callable[..., list[int]]
) -> np.ndarray:
    """Log-odds of all rows, by workers that see no more than a window and a block; the graph is as small."""
    state = GraphState(ROLES, WINDOW.rows + block + 2 * ROWS_PER_APPEND, WINDOW)
    workers, logits, first = [make() for _ in range(count)], [], 0

    def call(worker: SliceWorker, method: str, *arguments: object) -> object:
        return getattr(worker, method)(*arguments)

    for event in history():
        for piece in pieces(event, state, first + block):
            state.apply(piece)
            if state.store.rows in (first + block, N):
                last = state.store.rows
                bounds = cut_slices(first, last, count)
                found, _ = score_block(workers, cut(state.store, first, last), bounds, artifact.config.layers, call)
                logits += found
                first = last
    assert first == N
    return np.concatenate(logits)


def pieces(event: Events, state: GraphState, stop: int) -> Iterator[Events]:
    """An event, cut where a block ends."""
    if event.kind.name != "TRANSACTION":
        yield event
        return
    left, at = stop - state.store.rows, 0
    while at < len(event.batch):
        part = event.batch.slice(at, left)
        yield Events(event.kind, event.offset + at, part)
        at, left = at + len(part), 10**9


def evenly(first: int, last: int, count: int) -> list[int]:
    return np.linspace(first, last, min(count, last - first) + 1).astype(int).tolist()


@pytest.mark.parametrize(("count", "block"), [(1, 64), (2, 310), (7, 97)])
def test_any_number_of_workers_gives_the_scores_of_the_service(expected, count, block):
    artifact, logits = expected
    found = blocks(artifact, partial(CpuSlices, artifact, block, 1), count, block, evenly)
    np.testing.assert_allclose(found, logits, rtol=0, atol=1e-5)
    alone = blocks(artifact, partial(CpuSlices, artifact, N, 1), 1, N, evenly)
    np.testing.assert_array_equal(found, alone)  # to the bit


@pytest.mark.parametrize("kind", DEVICES)
def test_cards_give_the_scores_of_the_service(expected, kind):
    artifact, logits = expected
    if artifact.config.cache != "float32":
        pytest.skip("a device may round a key to the step beside the CPU's: tests/gnn/device says how far that goes")
    found = blocks(artifact, lambda: DeviceSlices(artifact, 310, opened(kind)), 2, 310, evenly)
    np.testing.assert_allclose(found, logits, rtol=0, atol=1e-5)
    alone = blocks(artifact, lambda: DeviceSlices(artifact, N, opened(kind)), 1, N, evenly)
    np.testing.assert_array_equal(found, alone)


@pytest.mark.skipif(GXX is None, reason="no g++ here to compile the CUDA sources for the CPU")
def test_a_window_that_does_not_fit_into_a_card_says_what_it_needs():
    device = HostDevice()
    device.free_bytes = lambda: 1000  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="smaller blocks"):
        DeviceSlices(model(), 64, device)


def test_slices_are_as_many_as_workers_where_rows_are_many():
    assert slice_bounds(0, 1 << 16, 2) == [0, 1 << 15, 1 << 16]
    assert slice_bounds(10, 20, 7) == [10, 20]


def test_a_store_begun_in_the_middle_reads_as_the_whole():
    """Rows, and labels from before its first row and after it."""
    state, whole = GraphState(ROLES, 1 << 12, WINDOW), GraphState(ROLES, 1 << 12, WINDOW)
    part = StretchStore(ROLES, 700, WINDOW)
    first = 0
    for event in history():
        whole.apply(event)
        state.apply(event)
        if state.store.rows - first >= 250:
            begin = max(0, first - WINDOW.rows) if part.begins < 0 and first else first
            if first:
                part.extend(cut(state.store, begin, state.store.rows, all_labels=part.begins < 0))
            first = state.store.rows
    rows = np.arange(part.rows - 240, part.rows)
    np.testing.assert_array_equal(part.features(rows), whole.store.features(rows))
    near = whole.store.neighbours(rows, 6)
    np.testing.assert_array_equal(part.neighbours(rows, 6), near)
    np.testing.assert_array_equal(part.edges(rows, near), whole.store.edges(rows, near))


def test_stretches_must_follow_on():
    state, part = GraphState(ROLES, 1 << 12, WINDOW), StretchStore(ROLES, 700, WINDOW)
    for event in history():
        state.apply(event)
    last = state.store.rows
    with pytest.raises(GraphError, match="not the newest"):
        cut(state.store, 0, last - 1)
    part.extend(cut(state.store, last - 300, last))
    with pytest.raises(GraphError, match="do not follow"):
        part.extend(cut(state.store, last - 100, last))
    with pytest.raises(GraphError, match="do not fit"):
        StretchStore(ROLES, 700, WINDOW).extend(cut(state.store, last - 701, last))
