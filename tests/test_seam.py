"""A store that is nothing but the seam gives what the CPU's store gives, all the way from the journal to the answer."""

from typing import Any

import numpy as np
import pytest

from data.history import History
from data.journal.sqlite import SqliteJournal
from gnn.model.artifact import untrained
from gnn.model.network import uncached
from gnn.score.cpu_scorer import CpuScorer
from gnn.score.reasons import OTHER
from gnn.score.rules import rules_score
from gnn.train.targets import TrainConfig
from gnn.train.trainer import train
from graph.bridges import to_hetero_data, to_networkx
from graph.dag.protocol import DAY_US, Nodes, Store, Window
from graph.dag.store import GraphStore
from graph.snapshot import restore, save
from graph.state import GraphState
from serve.replica.replica import Replica
from serve.settings import Settings
from tests.graph.history import HOUR_US, sharing

ROLES = ("account", "merchant", "device", "card")
WINDOW = Window(200, 20 * DAY_US)
N = 700


class Narrow:
    """What a protocol names of something, and nothing else."""

    def __init__(self, held: Any, names: type) -> None:
        declared = {*dir(names), *getattr(names, "__annotations__", {})}
        self._held, self._names = held, {n for n in declared if not n.startswith("_")} | {"__len__"}

    def __getattr__(self, name: str) -> Any:
        if name not in self._names:
            raise AttributeError(f"the seam has no {name}")
        found = getattr(self._held, name)
        return Narrow(found, Nodes) if name == "ids" else found

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, value)
        else:
            setattr(self._held, name, value)


def elsewhere(roles: tuple[str, ...], capacity: int, window: Window | None, *, entities: int = 0) -> Any:
    return Narrow(GraphStore(roles, capacity, window, entities=entities), Store)


def grown(make: Any, capacity: int = 1 << 11) -> GraphState:
    state = GraphState(ROLES, capacity, WINDOW, make=make)
    for events in sharing(4, N, most=100, gap_us=HOUR_US // 2):
        state.apply(events)
    return state


@pytest.fixture(scope="module")
def states() -> tuple[GraphState, GraphState]:
    return grown(GraphStore), grown(elsewhere)


def test_the_stand_in_has_no_more_than_the_protocol_names(states):
    with pytest.raises(AttributeError):
        _ = states[1].store.view
    with pytest.raises(AttributeError):
        _ = states[1].store.ids.head


def test_graph_rings_and_exports_are_the_same(states):
    here, there = states
    rows = np.arange(N)
    for name in ("time", "amount", "entity", "category", "ring"):
        np.testing.assert_array_equal(here.store.column(name, rows), there.store.column(name, rows))
    np.testing.assert_array_equal(here.store.ring_ids(rows), there.store.ring_ids(rows))
    assert here.rings.rings() == there.rings.rings() != []
    for ring in here.rings.rings(3):
        assert here.rings.subgraph(ring).edges == there.rings.subgraph(ring).edges
    assert to_networkx(here, [("account", "a1")]).edges == to_networkx(there, [("account", "a1")]).edges
    a, b = (to_hetero_data(state.store, rows[-5:], 4) for state in states)
    np.testing.assert_array_equal(a["payment"].x, b["payment"].x)
    assert rules_score(here, rows[-5:])[1] == rules_score(there, rows[-5:])[1]


def test_scores_and_reasons_are_the_same(states):
    artifact = untrained(ROLES, neighbours=6)
    here, there = (CpuScorer(artifact, state) for state in states)
    np.testing.assert_allclose(there.score(0, N), here.score(0, N), atol=1e-5)
    rows = np.arange(N - 20, N)
    for a, b in zip(here.reasons(rows), there.reasons(rows), strict=True):
        assert a.baseline == pytest.approx(b.baseline, abs=2e-4)
        said, also = ({r.code: r.message for r in e.reasons if r.code != OTHER} for e in (a, b))
        shared = said.keys() & also.keys()  # rounding may choose another one of two that weigh the same
        assert len(shared) >= len(said) - 1
        assert {code: said[code] for code in shared} == {code: also[code] for code in shared}
        assert sum(r.contribution for r in a.reasons) == pytest.approx(sum(r.contribution for r in b.reasons), abs=2e-4)
    logit = uncached(artifact.net, states[1].store, rows)[1]
    np.testing.assert_allclose(there.logits(rows), logit, atol=1e-5)


def test_snapshots_go_from_one_to_the_other(states, tmp_path):
    here = restore(save(states[0], tmp_path / "here"), make=elsewhere).state
    there = restore(save(states[1], tmp_path / "there")).state
    rows = np.arange(N)
    np.testing.assert_array_equal(here.store.features(rows), states[0].store.features(rows))
    np.testing.assert_array_equal(there.store.features(rows), states[0].store.features(rows))
    assert here.rings.rings() == there.rings.rings() == states[0].rings.rings() != []


def test_a_replica_runs_on_it(tmp_path):
    artifact = untrained(ROLES, neighbours=6, window_rows=200, window_days=20)
    config = Settings(model=tmp_path, journal=tmp_path / "journal.sqlite", insecure=True)
    journal = SqliteJournal(config.journal)
    for events in sharing(4, N, most=100, gap_us=HOUR_US // 2):
        with journal.begin() as commit:
            commit.append(events.kind, events.batch)
    journal.close()
    scored = []
    for make in (GraphStore, elsewhere):
        replica = Replica(artifact, config)
        replica.follow_with(GraphState(ROLES, 1 << 11, artifact.config.window, replica.journal, make=make))
        replica.open()
        assert replica.slot.scored == N
        scored.append(replica.slot.probabilities(np.arange(N)))
        replica.close()
    np.testing.assert_allclose(scored[1], scored[0], atol=1e-5)


def test_training_reads_no_more(monkeypatch):
    """The learner gets the same features, ties and beliefs, so the same seed gives the same weights."""
    known = History((e.kind, e.batch) for e in sharing(4, 1500, most=100, labels=0.8, gap_us=HOUR_US // 2))
    config = TrainConfig(epochs=1, test=0.0, label_delay_days=1.0, validation=0.4)
    shape = {"layers": 1, "neighbours": 4, "window_rows": 200}
    here = train(known, config, shape)

    def state(device: str, roles: tuple[str, ...], capacity: int, window: Window) -> GraphState:
        return GraphState(roles, capacity, window, make=elsewhere)

    monkeypatch.setattr("gnn.train.trainer.state_for", state)
    there = train(known, config, shape)
    for a, b in zip(here.net.weights(), there.net.weights(), strict=True):
        np.testing.assert_array_equal(a, b)
