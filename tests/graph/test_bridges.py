"""Exports: what the walk finds, nothing later, and enough for PyG to learn from."""

import networkx as nx
import numpy as np
import pyarrow as pa
import pytest
import torch
from torch_geometric.nn import HeteroConv, SAGEConv

from data.journal.memory import MemoryJournal
from data.journal.protocol import Events, Kind
from graph.bridges import to_hetero_data, to_networkx
from graph.dag.protocol import DAY_US, Window
from graph.dag.sampler import neighbours
from graph.errors import GraphError
from graph.state import GraphState
from tests.world import label_batch, payment_batch

ROLES = ("account", "merchant", "device", "payee")
N = 1200
PAYMENTS = payment_batch(N, seed=21, accounts=90, devices=40)


def built(upto: int = N) -> GraphState:
    parts = []
    for i in range(0, upto, 100):
        parts.append((Kind.TRANSACTION, PAYMENTS.slice(i, 100)))
        parts.append((Kind.LABEL, label_batch(PAYMENTS, [i, i + 7, i + 30], [True, False, i % 200 > 0])))
    offsets = np.cumsum([0, *(len(b) for _, b in parts)])
    kept = MemoryJournal(Events(kind, int(at), b) for (kind, b), at in zip(parts, offsets[:-1], strict=True))
    state = GraphState(ROLES, 2000, Window(1500, 90 * DAY_US), kept)
    for events in kept.replay():
        state.apply(events)
    return state


@pytest.fixture(scope="module")
def state() -> GraphState:
    return built()


def test_trees_hold_what_the_walk_finds(state):
    seeds = np.array([1100, 300, 1199])
    data = to_hetero_data(state.store, seeds, k=5, hops=2)
    near = neighbours(state.store.view, seeds, 5)
    assert data["payment"].row[:3].tolist() == seeds.tolist()
    assert data["payment"].seed_mask.sum() == 3
    for r, name in enumerate(ROLES):
        source, target = data["payment", f"before_by_{name}", "payment"].edge_index
        for b in range(3):
            got = data["payment"].row[source[target == b]].tolist()
            assert got == near[b, r][near[b, r] >= 0].tolist()
        assert (data["payment"].row[source] < data["payment"].row[target]).all()
        assert (data["payment"].seed[source] == data["payment"].seed[target]).all()  # trees do not mix
    assert data["payment"].hop.max() == 2
    for kind, role in (("account", "account"), ("account", "payee"), ("merchant", "merchant"), ("device", "device")):
        entity, payment = data[kind, f"{role}_of", "payment"].edge_index
        stored = state.store.column("entity", data["payment"].row.numpy())[:, ROLES.index(role)]
        assert data[kind].node[entity].tolist() == stored[payment.numpy()].tolist()
        assert torch.equal(data[kind].seed[entity], data["payment"].seed[payment])  # nor do they meet in an entity
    known = data["payment"].y[data["payment"].known]
    assert set(known.tolist()) == {0, 1}
    assert (data["payment"].y[:3] == -1).all()


def test_later_events_change_nothing(state):
    seeds = np.arange(500, 520)
    early, late = to_hetero_data(built(600).store, seeds), to_hetero_data(state.store, seeds)
    for name in ("x", "row", "time", "y", "seed"):
        assert torch.equal(early["payment"][name], late["payment"][name])
    for name in ROLES:
        edge = ("payment", f"before_by_{name}", "payment")
        assert torch.equal(early[edge].edge_index, late[edge].edge_index)
        assert torch.equal(early[edge].edge_attr, late[edge].edge_attr)


@pytest.mark.parametrize("seeds", [[], [-1], [N]])
def test_seeds_outside_the_buffer_are_refused(state, seeds):
    with pytest.raises(GraphError, match="seeds"):
        to_hetero_data(state.store, np.array(seeds, np.int64))
    with pytest.raises(GraphError, match="hops"):
        to_hetero_data(state.store, np.array([5]), hops=0)


class _Net(torch.nn.Module):
    """Two rounds of HeteroConv, then a score for each seed."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.first = torch.nn.Linear(inputs, 16)
        self.rounds = torch.nn.ModuleList(
            HeteroConv({("payment", f"before_by_{r}", "payment"): SAGEConv(16, 16) for r in ROLES}) for _ in range(2)
        )
        self.last = torch.nn.Linear(16, 1)

    def forward(self, data):
        h = {"payment": torch.relu(self.first(data["payment"].x / 10))}
        for layer in self.rounds:
            read = layer(h, {e: data[e].edge_index for e in data.edge_types if e[1].startswith("before_by")})
            h = {"payment": torch.relu(h["payment"] + read["payment"])}
        return self.last(h["payment"][data["payment"].seed_mask])[:, 0]


def test_a_pyg_model_learns_from_the_export(state):
    """Whether a payment's account has paid with this device before: the walk tells, the own amount does not."""
    torch.manual_seed(0)
    seeds = np.arange(400, 900)
    entity = state.store.column("entity")
    seen = [any((entity[:i, 0] == entity[i, 0]) & (entity[:i, 2] == entity[i, 2])) for i in seeds]
    target = torch.tensor(np.array(seen) & (entity[seeds, 2] >= 0), dtype=torch.float32)
    data = to_hetero_data(state.store, seeds, k=4)
    net = _Net(data["payment"].x.shape[1])
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    losses = []
    for _ in range(60):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(net(data), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_an_investigator_sees_names_payments_and_frauds(state):
    graph = to_networkx(state, [("device", "d3")])
    assert nx.is_connected(graph)
    column = PAYMENTS.column("device_id").to_pylist()
    rows = [i for i, name in enumerate(column) if name == "d3"]
    assert sorted(n for n, d in graph.nodes(data=True) if d["kind"] == "payment") == rows
    accounts = {f"account:{PAYMENTS.column('account_id')[i].as_py()}" for i in rows}
    assert accounts <= set(graph)
    row = rows[0]
    assert graph.nodes[row]["transaction_id"] == PAYMENTS.column("transaction_id")[row].as_py()
    assert graph.nodes[row]["amount"] == PAYMENTS.column("amount")[row].as_py()
    assert graph.edges["device:d3", row]["role"] == "device"
    frauds = sum(d.get("fraud") is True for _, d in graph.nodes(data=True) if d["kind"] == "payment")
    assert graph.nodes["device:d3"]["frauds"] == frauds
    wider = to_networkx(state, [("device", "d3")], hops=2, max_payments=100)
    assert len(wider) > len(graph)
    assert sum(d["kind"] == "payment" for _, d in wider.nodes(data=True)) <= 100
    for bad in ([("device", "nobody")], [("planet", "d3")]):
        with pytest.raises(GraphError):
            to_networkx(state, bad)


def test_a_fraud_that_someone_pays_themselves_counts_once():
    batch = payment_batch(2, seed=2, accounts=1, devices=1)
    batch = batch.set_column(batch.schema.get_field_index("payee_id"), "payee_id", pa.array(["a0", None]))
    state = GraphState(ROLES, 2000, Window(1500, 90 * DAY_US))
    state.apply(Events(Kind.TRANSACTION, 0, batch))
    state.apply(Events(Kind.LABEL, 2, label_batch(batch, [0, 1], [True, False])))
    graph = to_networkx(state, [("account", "a0")])
    (account,) = (node for node, d in graph.nodes(data=True) if d["kind"] == "account")
    assert graph.nodes[account]["frauds"] == 1
    assert [graph.edges[account, row]["role"] for row in (0, 1)] == ["account+payee", "account"]


def test_an_export_says_whether_it_was_cut(state):
    asked = [("device", "d3")]
    whole = to_networkx(state, asked, hops=2, max_payments=N)
    held = sum(d["kind"] == "payment" for _, d in whole.nodes(data=True))
    assert not whole.graph["cut"]
    assert not to_networkx(state, asked, hops=2, max_payments=held).graph["cut"]
    for most in (held - 1, 5, 1):
        cut = to_networkx(state, asked, hops=2, max_payments=most)
        assert cut.graph["cut"]
        assert sum(d["kind"] == "payment" for _, d in cut.nodes(data=True)) == most


def test_a_payment_brings_its_amount_and_its_categories(state):
    payment = to_hetero_data(state.store, np.array([1100, 300]), k=5)["payment"]
    rows = payment.row.numpy()
    assert payment.amount.tolist() == PAYMENTS.column("amount").take(pa.array(rows)).to_pylist()
    assert payment.category.shape == (len(rows), 4)
    for column, name in enumerate(("currency", "channel")):
        words = PAYMENTS.column(name).take(pa.array(rows)).to_pylist()
        codes = payment.category[:, column].tolist()
        assert len(set(zip(words, codes, strict=True))) == len(set(words)) == 2
    assert not payment.category[:, 2:].any()  # not given
    assert payment.whole.all()


@pytest.mark.parametrize("span_us", [90 * DAY_US, 4 * 60 * 60 * 1_000_000])
def test_features_that_the_buffer_has_lost_a_part_of_are_marked(span_us):
    window = Window(200, span_us)
    states = [GraphState(ROLES, capacity, window) for capacity in (700, 2000)]
    for state in states:
        for i in range(0, N, 50):
            state.apply(Events(Kind.TRANSACTION, i, PAYMENTS.slice(i, 50)))
    short, long = (state.store for state in states)
    old = to_hetero_data(short, np.arange(short.oldest, short.oldest + 400), k=4, hops=1)["payment"]
    same = np.isclose(old.x.numpy(), long.features(old.row.numpy()), atol=1e-6).all(1)
    assert same[old.whole.numpy()].all()
    assert not same.all()
    assert 0 < old.whole.sum() < len(same)
    newest = np.arange(N - 20, N)  # two hops from these, the features of the last see three windows back
    assert to_hetero_data(short, newest, k=8, hops=2)["payment"].whole.all()
    assert to_hetero_data(long, newest, k=8, hops=4)["payment"].whole.all()


def test_a_long_chain_is_followed_to_its_end():
    n = 300
    batch = payment_batch(n, seed=2, accounts=1, devices=5)
    batch = batch.set_column(0, "transaction_id", pa.array([f"x{i}" for i in range(n)]))
    state = GraphState(ROLES, 2000, Window(1500, 90 * DAY_US))
    state.apply(Events(Kind.TRANSACTION, 0, batch))
    graph = to_networkx(state, [("account", "a0")])
    assert sum(d["kind"] == "payment" for _, d in graph.nodes(data=True)) == n
