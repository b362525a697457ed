"""Micro-batches on streams that put their work off: copies beside kernels, and kernels that never return."""

import numpy as np
import pytest

from gnn.device.batch import DoubleBuffer
from gnn.errors import ModelError
from gnn.model.artifact import untrained
from gnn.score.cpu_scorer import CpuScorer
from gnn.score.cuda_scorer import CudaScorer
from gnn.score.protocol import Scorer
from graph.dag.protocol import DAY_US, Window
from graph.device.store import columns_of
from graph.device.waiting import HungError, wait
from graph.state import GraphState
from tests.cuda_host.host import GXX
from tests.cuda_host.streams import Event, StreamDevice
from tests.graph.history import sharing

pytestmark = pytest.mark.skipif(GXX is None, reason="no g++ here to compile the CUDA sources for the CPU")
ROLES = ("account", "merchant", "device", "payee")
BOUND = 1e-5  # of a probability
HISTORY = list(sharing(11, 500, most=30, labels=0.3, reach=60, gap_us=DAY_US // 200))


@pytest.fixture(scope="module")
def artifact():
    return untrained(ROLES, neighbours=4, window_rows=200)


def pair(artifact, device: StreamDevice, patience_s: float = 60.0) -> tuple[GraphState, CudaScorer, Scorer]:
    state = GraphState(ROLES, 512, Window(200, 90 * DAY_US))
    cpu = CpuScorer(artifact, state)
    scorer = CudaScorer(cpu, device, buckets=(1, 8), patience_s=patience_s)
    scorer.warm()
    return state, scorer, cpu


@pytest.fixture(scope="module")
def expected(artifact) -> np.ndarray:
    state = GraphState(ROLES, 512, Window(200, 90 * DAY_US))
    scorer, out = CpuScorer(artifact, state), []
    for event in HISTORY:
        if rows := state.apply(event):
            out.append(scorer.score(rows.start, rows.stop))
    return np.concatenate(out)


@pytest.mark.parametrize("device", [StreamDevice(0), StreamDevice(1), StreamDevice(2, last=True)])
def test_what_overlaps_gives_what_one_after_the_other_gives(artifact, expected, device):
    """Runs of up to a hundred payments in micro-batches of eight, labels between, through a lap of the buffer."""
    state, scorer, cpu = pair(artifact, device)
    found, first = [], 0
    for i, event in enumerate(HISTORY):
        state.apply(event)
        if i % 6 == 0 or event is HISTORY[-1]:
            found.append(scorer.score(first, state.store.rows))
            first = state.store.rows
    np.testing.assert_allclose(np.concatenate(found), expected, atol=BOUND)
    held, there = state.store, scorer.store.parts()
    assert there["rows"].tobytes() == held.row_data.tobytes()
    rows = np.arange(held.oldest + 300, held.rows)
    np.testing.assert_allclose(cpu.rescore(rows), expected[rows], atol=BOUND)


def test_a_slot_is_written_only_when_its_scores_are_back(artifact):
    device = StreamDevice(3)
    state, scorer, _ = pair(artifact, device)
    for event in HISTORY:
        state.apply(event)
    turns, order = DoubleBuffer(scorer.net, 8), []
    for number, slot in enumerate(turns._slots):

        def start(columns, oldest, slot=slot, number=number, begin=slot.start):
            assert slot._back.done
            assert len(columns["time"]) <= 8
            begin(columns, oldest)
            assert not slot._back.reached  # nothing was waited for
            order.append(number)

        slot.start = start  # type: ignore[method-assign]
    at = scorer.store.rows
    seen = [rows for rows, _, _ in turns.run(at, at + 60, lambda r: columns_of(state.store, r), state.store.oldest)]
    assert order == [0, 1, 0, 1, 0, 1, 0, 1]
    np.testing.assert_array_equal(np.concatenate(seen), np.arange(at, at + 60))


@pytest.mark.parametrize("kernel", ["label_taken", "stage", "chain", "describe", "attend_one", "finish"])
@pytest.mark.parametrize("together", [1, 6])
def test_a_kernel_that_never_returns_leaves_the_cpu_able_to_answer(artifact, expected, kernel, together):
    device = StreamDevice(4)
    state, scorer, cpu = pair(artifact, device, patience_s=0.5)  # kernels run on a CPU that may be busy
    found, first, hung = [], 0, 0
    for i, event in enumerate(HISTORY[:42]):
        state.apply(event)
        if i == 20:
            device.stuck = lambda name: name == kernel
        if i % together or state.store.rows == first:
            continue
        try:
            found.append(scorer.score(first, state.store.rows))
        except HungError:
            hung += 1
            found.append(cpu.score(first, state.store.rows))
        except ModelError:
            assert hung
            found.append(cpu.score(first, state.store.rows))
        first = state.store.rows
    assert hung == 1
    assert scorer.lost
    assert not scorer.ready
    found = np.concatenate(found)
    np.testing.assert_allclose(found, expected[: len(found)], atol=BOUND)


def test_a_device_that_hangs_while_a_late_model_is_filled_leaves_the_cpu_to_go_on(artifact):
    device, state = StreamDevice(7), GraphState(ROLES, 512, Window(200, 90 * DAY_US))
    for event in HISTORY[:20]:
        state.apply(event)
    cpu = CpuScorer(artifact, state)
    scorer = CudaScorer(cpu, device, buckets=(1, 8), patience_s=0.5)
    scorer.warm()
    device._streams["work"].append(lambda: False)
    while scorer.fill(50):
        pass
    assert scorer.lost
    assert cpu.cache.complete_from == 0


def test_waiting_asks_and_gives_up():
    device = StreamDevice(5)
    ran: list[int] = []
    device._give("work", lambda: ran.append(1))
    wait(device.mark(), 1.0)
    assert ran == [1]
    with pytest.raises(HungError, match="counts as lost"):
        wait(Event(StreamDevice(6)), 0.0)
