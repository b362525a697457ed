"""The store on a device, its very CUDA kernels run on the CPU, against the store on the host: the same bytes."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from data.journal.protocol import Events, Kind
from graph.dag.features import features
from graph.dag.jumps import SUM_IN_TABLE, velocity_dtype
from graph.dag.protocol import DAY_US, Batch, Window
from graph.dag.rows import LABEL, row_dtype
from graph.dag.sampler import edges, neighbours
from graph.dag.store import GraphStore
from graph.device import store as device_module
from graph.device.cuda_device import NOT_READY, Reached
from graph.device.launch import CUDA, Device, filled
from graph.device.layout import store_defines
from graph.device.staging import FRAME, to_host
from graph.device.store import DeviceStore
from graph.device.waiting import wait
from graph.errors import GraphError
from graph.snapshot import restore, save
from graph.state import GraphState
from tests.devices import DEVICES, opened
from tests.graph.history import sharing
from tests.world import label_batch, payment_batch

ROLES = ("account", "merchant", "device", "card", "payee")
SETTLE_US = 7 * DAY_US  # when a reader takes a missing label for a legitimate payment


@pytest.fixture(scope="module", params=[*DEVICES, "g++ backwards"])
def host(request) -> Device:
    return opened(request.param)


def beside(host: Device, store: GraphStore) -> DeviceStore:
    """A device store that is told whatever a store on the host is told."""
    twin = DeviceStore(host, store.roles, store.role_type, store.capacity, store.window, nodes=16)
    append, label, expire = store.append, store.label, store.expire

    def both_append(batch: Batch, offset: int) -> range:
        twin.append(batch)
        return append(batch, offset)

    def both_label(rows, fraud, time):
        found = twin.label(rows, fraud, time)
        expected = label(rows, fraud, time)
        np.testing.assert_array_equal(found, expected)
        return expected

    def both_expire(appended: int, before: int):
        freed = expire(appended, before)
        twin.forget(freed)
        return freed

    store.append, store.label, store.expire = both_append, both_label, both_expire
    return twin


def assert_same(twin: DeviceStore, store: GraphStore, ring: bool = False) -> None:
    assert (twin.rows, twin.clock, twin.labels.count) == (store.rows, store.clock, store.label_count)
    found, slots = twin.parts(), min(store.rows, store.capacity)
    for name in store.row_data.dtype.names:
        if ring or not name.startswith("ring"):
            np.testing.assert_array_equal(found["rows"][name][:slots], store.row_data[name][:slots], name)
    assert found["velocity"].tobytes()[: slots * store.velocity.itemsize] == store.velocity[:slots].tobytes()
    np.testing.assert_array_equal(found["labels"][: store.label_count], store.labels)
    np.testing.assert_array_equal(found["sums.span"], store.sums.span)
    numbers = np.arange(*store.sums.span)
    np.testing.assert_array_equal(
        found["sums.values"][numbers % len(found["sums.values"])], store.sums.values[numbers % len(store.sums.values)]
    )
    known = min(len(found["ids.head"]), store.ids.numbered)
    np.testing.assert_array_equal(found["ids.head"][:known], store.ids.head[:known])
    assert not store.ids.head[known : store.ids.numbered].any()


def test_structures_have_the_layouts_of_numpys(host):
    for roles in (1, 3, 5):
        near = host.xp.zeros(32, np.int64)
        launch = host.load(CUDA / "append.cu", store_defines(roles))
        launch("layout", 1, 1, filled(host, FRAME, {"near": near}))
        near = to_host(host, near)
        expected: list[int] = []
        for dtype in (row_dtype(roles), velocity_dtype(roles), LABEL):
            expected += [dtype.itemsize, *(dtype.fields[name][1] for name in dtype.names)]
        assert near[: len(expected)].tolist() == expected
        assert near[len(expected)] == FRAME.itemsize


def test_a_device_that_has_failed_is_not_waited_for():
    class Runtime:
        CUDARuntimeError = RuntimeError
        answers: ClassVar[list[int]] = [NOT_READY, 0, NOT_READY, 700]

        def eventQuery(self, pointer: int) -> int:
            return self.answers.pop(0)

    mark = Reached(Runtime(), SimpleNamespace(ptr=1))
    wait(mark, 1.0)
    with pytest.raises(RuntimeError, match="700"):
        wait(mark, 1.0)


@pytest.mark.parametrize("searched", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_the_same_bytes_as_the_store_on_the_host(host, monkeypatch, seed, searched):
    """Through several laps of a small buffer: what is overwritten is read until the batch is in."""
    if not searched:
        monkeypatch.setattr(device_module, "SEARCHED", 0)
    state = GraphState(ROLES, 256, Window(150, 60 * DAY_US))
    twin = beside(host, state.store)
    for event in sharing(seed, 1600, most=int(40 * 2**seed), labels=0.9, overdue=0.3):
        state.apply(event)
        assert_same(twin, state.store)
    assert state.store.compactions > 0


@pytest.mark.parametrize("searched", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_batches_of_any_size_and_few_entities_give_the_same_bytes(host, monkeypatch, seed, searched):
    """Larger than the buffer too: long chains, jumps that lead out of it, and the rows that a batch overwrites."""
    if not searched:
        monkeypatch.setattr(device_module, "SEARCHED", 0)
    rng = np.random.default_rng(seed)
    capacity = int(rng.choice([17, 32, 64, 100, 400]))
    store = GraphStore(("account", "merchant", "payee"), capacity, Window(capacity // 2))
    twin, time = beside(host, store), 0
    store.ids.meta[0] = 22
    for i in range(15):
        n = int(rng.integers(1, 2 * capacity))
        entity = rng.integers(-1, int(rng.integers(1, 12)), (n, 3)).astype(np.int32)
        entity[:, 1] = 20 + rng.integers(0, 2, n)
        times = time + np.cumsum(rng.integers(-5, 50, n))
        amount = rng.integers(0, 1 << 50, n) >> rng.integers(0, 50, n)
        store.append(Batch(entity, times, amount, np.zeros((n, 4), np.uint8)), 5000 * i)
        time = int(times[-1])
        assert_same(twin, store)


@pytest.mark.parametrize("searched", [True, False])
def test_a_store_without_time_windows_has_the_same_rows_and_walks(host, monkeypatch, searched):
    if not searched:
        monkeypatch.setattr(device_module, "SEARCHED", 0)
    rng, store = np.random.default_rng(1), GraphStore(("account", "payee"), 256, Window(100), velocity=False)
    twin = DeviceStore(host, store.roles, store.role_type, 256, store.window, velocity=False)
    store.ids.meta[0] = 9
    for i in range(20):
        entity = rng.integers(-1, 9, (40, 2)).astype(np.int32)
        times = np.arange(40, dtype=np.int64) + 40 * i
        batch = Batch(entity, times, times, np.zeros((40, 4), np.uint8))
        rows = store.append(batch, 40 * i)
        twin.append(batch, store.column("ring", np.arange(rows.start, rows.stop)))
    np.testing.assert_array_equal(twin.parts()["rows"], store.row_data)
    rows = np.arange(twin.oldest, twin.rows)
    np.testing.assert_array_equal(to_host(twin.device, twin.neighbours(rows, 6)), store.neighbours(rows, 6))


def test_amounts_above_32_bits_and_self_transfers_give_the_same_bytes(host, monkeypatch):
    rng, store = np.random.default_rng(0), GraphStore(("account", "merchant", "payee"), 128, Window(100))
    twin = beside(host, store)
    monkeypatch.setattr(device_module, "SUMS", 64)
    time = 1_700_000_000_000_000
    for i in range(60):
        monkeypatch.setattr(device_module, "SEARCHED", 0 if i % 2 else 4096)
        n = int(rng.integers(1, 60))
        entity = rng.integers(-1, 6, (n, 3)).astype(np.int32)
        entity[:, 0] = np.maximum(entity[:, 0], 0)
        entity[:, 1] = rng.integers(10, 12, n)
        store.ids.meta[0] = 12
        times = time + np.cumsum(rng.integers(-10_000_000, 60_000_000, n))
        amount = rng.integers(0, 10**15, n) >> rng.integers(0, 40, n)
        store.append(Batch(entity, times, amount, rng.integers(0, 128, (n, 4)).astype(np.uint8)), 10 * i)
        time = int(times[-1])
        assert_same(twin, store)
    assert (store.velocity["k"] & SUM_IN_TABLE).any()
    assert store.sums.span[0] > 0
    aliased = store.row_data["entity"][:, 0] == store.row_data["entity"][:, 2]
    assert (aliased[:, None] & (store.velocity["k"][:, [2]] & SUM_IN_TABLE > 0)).any()


def shared() -> Iterator[Events]:
    yield from sharing(7, 4000, most=200, labels=0.5, reach=1000, gap_us=DAY_US // 400, overdue=0.3)


def busy() -> Iterator[Events]:
    """Few entities with long chains, transfers among them, and labels of which some are revised."""
    rng, payments, offset = np.random.default_rng(2), payment_batch(5000, 2, 60, 5, 40), 0
    for start in range(0, len(payments), 250):
        yield Events(Kind.TRANSACTION, offset, payments.slice(start, 250))
        chosen = rng.integers(0, start + 250, 60)
        yield Events(Kind.LABEL, offset + 250, label_batch(payments, chosen, rng.random(60) < 0.5))
        offset += 310


@pytest.fixture(scope="module", params=[shared, busy])
def grown(request, host) -> tuple[GraphState, DeviceStore]:
    """A history that fills a buffer more than once."""
    state = GraphState(ROLES, 1 << 11, Window(1800, 60 * DAY_US))
    twin = beside(host, state.store)
    twin.read_as(SETTLE_US)
    for event in request.param():
        state.apply(event)
    return state, twin


def test_walks_and_ties_are_those_of_the_host(grown, host):
    state, twin = grown
    rows = np.random.default_rng(0).integers(twin.oldest, twin.rows, 600)
    near = neighbours(state.store.view, rows, 16)
    assert (near[:, :, -1] >= 0).mean() > 0.1
    np.testing.assert_array_equal(to_host(twin.device, twin.neighbours(rows, 16)), near)
    found, expected = (
        to_host(twin.device, twin.edges(rows, host.xp.asarray(near))),
        edges(state.store.view_for(SETTLE_US), rows, near),
    )
    np.testing.assert_array_equal(found[..., [1, 2, 3, 7]], expected[..., [1, 2, 3, 7]])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    assert found[..., 2].any()


def test_features_are_those_of_the_host(grown, request):
    state, twin = grown
    rows = np.random.default_rng(1).integers(twin.oldest, twin.rows, 300)
    expected = features(state.store.view_for(SETTLE_US), ROLES, rows)
    expected[:, -3:] = 0  # of rings, which the twin was not told of
    np.testing.assert_allclose(to_host(twin.device, twin.features(rows)), expected, rtol=1e-6, atol=1e-6)
    if "busy" in request.node.name:  # chains longer than what is looked at
        assert (neighbours(state.store.view, rows, 256)[:, :, -1] >= 0).mean() > 0.05


def test_a_store_of_the_host_moves_to_the_device_and_goes_on_there(host):
    state = GraphState(ROLES, 512, Window(300, 60 * DAY_US))
    events = list(sharing(3, 1600, labels=0.4))
    for event in events[: len(events) // 2]:
        state.apply(event)
    twin = DeviceStore(host, state.store.roles, state.store.role_type, 512, state.store.window)
    twin.adopt(state.store)
    assert_same(twin, state.store, ring=True)
    for event in events[len(events) // 2 :]:
        state.apply(event)
        twin.follow(state.store, state.store.rows)
    np.testing.assert_array_equal(twin.parts()["rows"], state.store.row_data)
    np.testing.assert_array_equal(twin.parts()["velocity"], state.store.velocity)


@pytest.mark.parametrize("seed", range(3))
def test_a_device_that_follows_in_steps_ends_with_the_bytes_of_the_host(host, seed):
    """Some payments and labels at a time: labels of payments that are yet to come up, and compacted ones, included."""
    rng = np.random.default_rng(seed)
    state = GraphState(ROLES, 512, Window(200, 60 * DAY_US))
    store = state.store
    twin = DeviceStore(host, store.roles, store.role_type, store.capacity, store.window, nodes=16)
    for event in sharing(seed, 2500, most=60, labels=0.9, reach=100, overdue=0.3):
        state.apply(event)
        if rng.random() < 0.5:
            twin.follow(store, int(rng.integers(twin.rows, store.rows + 1)))
    twin.follow(store, store.rows)
    assert store.compactions > 0
    found = twin.parts()
    stale = found["ids.head"][: len(store.ids.head)] != store.ids.head[: len(found["ids.head"])]
    assert not store.ids.head[: len(stale)][stale].any()  # heads of numbers given back
    twin.forget(np.flatnonzero(stale))
    assert_same(twin, store, ring=True)


def test_a_snapshot_of_the_device_opens_on_the_host_and_back(host, tmp_path):
    state = GraphState(ROLES, 512, Window(300, 60 * DAY_US))
    twin = DeviceStore(host, ROLES, state.store.role_type, 512, state.store.window)
    for event in sharing(5, 1500, labels=0.4):
        state.apply(event)
        twin.follow(state.store, state.store.rows)
    other = GraphState(ROLES, 512, Window(300, 60 * DAY_US))
    arrays = {name: part.array.copy() for name, part in state.parts().items()}
    other.adopt(arrays, state.facts(), state.applied)
    other.store.row_data[:] = other.store.velocity[:] = 0  # comes from the device alone
    twin.give(other.store)
    restored = restore(save(other, tmp_path)).state
    np.testing.assert_array_equal(restored.store.row_data, state.store.row_data)
    np.testing.assert_array_equal(restored.store.velocity, state.store.velocity)
    back = DeviceStore(host, ROLES, state.store.role_type, 512, state.store.window)
    back.adopt(restored.store)
    assert_same(back, restored.store, ring=True)
    rows = np.arange(state.store.rows - 50, state.store.rows)
    np.testing.assert_array_equal(to_host(back.device, back.features(rows)), to_host(twin.device, twin.features(rows)))
    with pytest.raises(GraphError, match="other roles"):
        twin.give(GraphStore(ROLES, 256, Window(100)))
