"""Rings: components against networkx, whatever the batch; ids, labels and a picture."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.journal.memory import MemoryJournal
from data.journal.protocol import Events, Kind
from graph.dag.protocol import DAY_US, Window
from graph.rings.picture import draw_ring
from graph.state import GraphState
from tests.world import label_batch, payment_batch

ROLES = ("account", "merchant", "device")


def built(payments, group: int) -> GraphState:
    kept = MemoryJournal(Events(Kind.TRANSACTION, i, payments.slice(i, group)) for i in range(0, len(payments), group))
    state = GraphState(ROLES, 1 << 13, Window(1 << 12, 90 * DAY_US), kept)
    for events in kept.replay():
        state.apply(events)
    return state


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([7, 64, 400]), st.integers(20, 200))
def test_components_equal_networkx_whatever_the_batch(seed, group, devices):
    payments = payment_batch(400, seed=seed, accounts=150, devices=devices)
    one, many = built(payments, 1), built(payments, group)
    np.testing.assert_array_equal(one.store.column("ring"), many.store.column("ring"))
    np.testing.assert_array_equal(one.store.ring_ids(np.arange(400)), many.store.ring_ids(np.arange(400)))
    graph = nx.Graph()
    for account, device in zip(*(payments.column(c).to_pylist() for c in ("account_id", "device_id")), strict=True):
        if device is not None:
            graph.add_edge(("account", account), ("device", device))
    expected = sorted(
        sorted(name for kind, name in component if kind == "account") for component in nx.connected_components(graph)
    )
    found = sorted(sorted(ring.accounts) for ring in many.rings.rings(1000))
    assert found == [accounts for accounts in expected if len(accounts) >= 3]


@pytest.fixture(scope="module")
def state() -> GraphState:
    return built(payment_batch(600, seed=4, accounts=80, devices=70), 50)


def test_a_ring_is_found_by_its_id_and_drawn(state, tmp_path):
    ring = state.rings.rings(1)[0]
    assert state.rings.ring(ring.id) == ring
    assert state.rings.ring("R-nothing") is None
    graph = state.rings.subgraph(ring)
    assert {data["name"] for _, data in graph.nodes(data=True) if data["role"] == "account"} == set(ring.accounts)
    draw_ring(ring, graph, tmp_path / "ring.png")
    assert (tmp_path / "ring.png").read_bytes().startswith(b"\x89PNG")


def test_known_frauds_follow_the_labels():
    payments = payment_batch(300, seed=6, accounts=40, devices=30)
    state = built(payments, 100)
    before = state.rings.rings(1)[0]
    row = before.transactions[0]
    for fraud, expected in ((True, before.known_frauds + 1), (True, before.known_frauds + 1), (False, 0)):
        state.apply(Events(Kind.LABEL, state.applied, label_batch(payments, [row], [fraud])))
        assert state.rings.ring(before.id).known_frauds == expected
