"""Rings as of a moment after the newest payment: what is left of them, against the plain reference."""

from collections import Counter

import networkx as nx
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from graph.dag.protocol import DAY_US
from graph.state import GraphState
from tests.graph.rings.plain import PlainRings
from tests.graph.rings.streams import Rule, steps

RULES = st.builds(
    Rule,
    last=st.sampled_from(["card", "payee"]),
    window_rows=st.integers(20, 60),
    window_days=st.integers(2, 8),
    limit=st.just(10_000),  # no hubs
    spare=st.integers(1, 12),
)


def left(plain: PlainRings, now: int) -> dict[int, list[set[str]]]:
    """The accounts of the largest part of each ring; several where parts are equally large."""
    cut = next((row for row, time in enumerate(plain.times) if time >= now - plain.window_us), len(plain.times))
    last = {tie.key: tie.last for tie in plain.ties}
    found = {}
    for ring, anchor in plain.live.anchor.items():
        members = set(plain.live.component[anchor])
        edges = [(a, e) for a, e in plain.live.edges if a in members and last.get((a, e), -1) >= max(cut, plain.cut)]
        parts = [part & plain.accounts for part in nx.connected_components(nx.Graph(edges))]
        most = max((len(part) for part in parts), default=0)
        if most >= plain.min_accounts:
            found[ring] = [{name for _, name in part} for part in parts if len(part) == most]
    return found


def named(state: GraphState, nodes: np.ndarray, called: dict[int, str]) -> set[str]:
    return {called[node] for node in nodes.tolist()}


def compared(rule: Rule, seed: int, n: int) -> Counter:
    state, plain, called, happened = rule.state(), rule.plain(), {}, Counter()
    ahead = np.random.default_rng(seed)
    for offset, step in enumerate(steps(seed, n, rule.last)):
        row = state.store.rows
        state.apply(step.events(row, offset))
        if step.entities is None:
            plain.label(step.row, f"a{step.account}", step.fraud, step.time)
            continue
        plain.pay(step.time, step.names())
        called.update(
            zip(state.store.column("entity", np.array([row]))[0].tolist(), step.names().values(), strict=True)
        )
        clock = int(state.store.column("time", np.array([row]))[0])
        at_payment = state.rings.publish()
        same = state.rings.publish(now=clock - DAY_US)
        assert same.rings(100) == at_payment.rings(100)
        now = clock + int(ahead.integers(1, (rule.window_days + 1) * DAY_US))
        view = state.rings.publish(now=now)
        if not view._expired:
            assert {ring.id for ring in view.rings(100)} == {ring.id for ring in at_payment.rings(100)}
            continue
        expected = left(plain, now)
        members = {int(ring[2:]): named(state, nodes, called) for ring, nodes in view.members().items()}
        assert members.keys() == expected.keys()
        assert all(members[ring] in parts for ring, parts in expected.items())
        listed = {ring.id: ring for ring in view.rings(100)}
        assert {int(ring[2:]) for ring in listed} == {ring for ring in expected if len(members[ring]) >= 3}
        before = {ring.id: ring for ring in at_payment.rings(100)}
        for name, ring in listed.items():
            assert view.ring(name) == ring
            assert len(ring.accounts) == len(members[int(name[2:])])
            assert ring.known_frauds <= before[name].known_frauds
            assert ring.transactions
            assert set(ring.transactions) <= set(before[name].transactions)
            drawn = view.subgraph(ring)
            assert drawn.number_of_nodes() == len(ring.accounts) + len(ring.shared) or rule.last == "payee"
        happened["whole"] += sum(len(listed[name].accounts) == len(before[name].accounts) for name in listed)
        happened["parts"] += sum(len(listed[name].accounts) < len(before[name].accounts) for name in listed)
        happened["gone"] += len(before) - len(listed)
    later = state.rings.publish(now=state.store.clock + 99 * DAY_US)
    assert later.rings(100) == later.rings(100, min_accounts=1) == []
    assert later.members() == {}
    return happened


def test_what_is_left_of_rings_when_nobody_pays_equals_the_plain_reference():
    happened: Counter = Counter()

    @settings(max_examples=30, deadline=None)
    @given(RULES, st.integers(0, 1 << 30))
    def check(rule, seed):
        happened.update(compared(rule, seed, 100))

    check()
    assert all(happened[what] > 50 for what in ("whole", "parts", "gone")), happened
