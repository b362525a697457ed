"""Training fed from a device's store, its kernels run on the CPU."""

import numpy as np
import pytest
import torch

from data.history import History
from gnn.train.feed import Feed
from gnn.train.trainer import TrainConfig, train
from graph.dag.protocol import DAY_US, Window
from graph.dag.store import GraphStore
from graph.device.twin import TwinStore, twin_store_maker
from graph.state import GraphState
from tests.cuda_host.host import GXX, HostDevice
from tests.graph.history import HOUR_US, sharing

pytestmark = pytest.mark.skipif(GXX is None, reason="no g++ here to compile the CUDA sources for the CPU")
ROLES = ("account", "merchant", "device", "payee")


def test_a_store_with_a_twin_is_a_store():
    """Through laps of the buffer, rings and labels: walks, ties and features are those of the store without."""
    made = [
        GraphState(ROLES, 512, Window(300, 60 * DAY_US), make=make)
        for make in (GraphStore, twin_store_maker(HostDevice()))
    ]
    rng = np.random.default_rng(0)
    for event in sharing(2, 1300, most=60, labels=0.4):
        for state in made:
            state.apply(event)
        here, there = (state.store for state in made)
        assert isinstance(there, TwinStore)
        if rng.random() < 0.3:
            rows = rng.integers(here.oldest, here.rows, 20)
            near = here.neighbours(rows, 5)
            np.testing.assert_array_equal(there.neighbours(rows, 5), near)
            np.testing.assert_allclose(there.edges(rows, near), here.edges(rows, near), rtol=1e-6, atol=1e-7)
            np.testing.assert_allclose(there.features(rows), here.features(rows), rtol=1e-6, atol=1e-6)


def test_the_feed_gives_the_same_from_either_store():
    made = [
        GraphState(ROLES, 1024, Window(300, 60 * DAY_US), make=make)
        for make in (GraphStore, twin_store_maker(HostDevice()))
    ]
    for event in sharing(2, 600, most=60, labels=0.4):
        for state in made:
            state.apply(event)
    rows = np.arange(300, 600, 7)
    cpu = torch.device("cpu")
    here, there = (Feed(state.store, cpu) for state in made)
    for a, b in zip(here.read(rows, 6), there.read(rows, 6), strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(here.features(rows), there.features(rows))


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_training_from_a_twin_and_in_bf16_learns_as_well(monkeypatch, precision):
    runs = [(e.kind, e.batch) for e in sharing(4, 1500, most=100, labels=0.8, gap_us=HOUR_US // 2)]
    shape = {"layers": 1, "neighbours": 4, "window_rows": 200}
    config = {"epochs": 1, "test": 0.0, "label_delay_days": 1.0, "validation": 0.4}
    expected = train(History(runs), TrainConfig(**config), shape)

    def state(device: str, roles: tuple[str, ...], capacity: int, window: Window) -> GraphState:
        return GraphState(roles, capacity, window, make=twin_store_maker(HostDevice()))

    monkeypatch.setattr("gnn.train.trainer.state_for", state)
    found = train(History(runs), TrainConfig(**config, precision=precision), shape)
    before, after = (a.facts["training"]["epochs"][-1] for a in (expected, found))
    assert after["ap"] == pytest.approx(before["ap"], abs=0.01 if precision == "float32" else 0.05)
    assert after["loss"] == pytest.approx(before["loss"], rel=0.01 if precision == "float32" else 0.05)
