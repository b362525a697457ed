"""Tie rings against a plain, slow reference, after every payment and every label."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from graph.rings.view import FRAUDS, ROOT, ring_table
from tests.graph.rings.streams import Rule, steps

RULES = st.builds(
    Rule,
    last=st.sampled_from(["card", "payee"]),
    window_rows=st.integers(8, 40),
    window_days=st.integers(1, 8),
    limit=st.integers(2, 4),
    min_accounts=st.integers(2, 4),
    stride=st.integers(3, 6),
    rest=st.integers(0, 6),
    spare=st.integers(1, 12),
)


def compared(rule: Rule, seed: int, n: int) -> Counter:
    """Run both over a stream, compare them at every step, and count what happened."""
    state, plain = rule.state(), rule.plain()
    index, called, names = state.rings, {}, set()
    for offset, step in enumerate(steps(seed, n, rule.last)):
        row = state.store.rows
        state.apply(step.events(row, offset))
        if step.entities is None:
            plain.label(step.row, f"a{step.account}", step.fraud, step.time)
        else:
            expected = plain.pay(step.time, step.names())
            rows = np.array([row])
            found = [*state.store.column("ring", rows)[0, :3].tolist(), *state.store.column("ring_back", rows).tolist()]
            assert found == list(expected)
            nodes = state.store.column("entity", rows)[0].tolist()
            called.update(zip(nodes, step.names().values(), strict=True))
            names.update(step.names().items())
        members = index.publish().members()
        named = {int(ring[2:]): {called[node] for node in nodes.tolist()} for ring, nodes in members.items()}
        assert named == plain.table()
        table = ring_table(index._live, index._ties).rings
        ids = index._live.rings["id"][: len(table)]
        frauds = {int(ring): int(entry[FRAUDS]) for ring, entry in zip(ids, table, strict=True) if entry[ROOT] >= 0}
        assert frauds == {ring: plain.known_frauds(ring) for ring in frauds}
        assert index.generation == plain.generation
    plain.live.check()
    view = index.publish()
    for ring in range(state.store.rows):
        found, expected = view.ring(f"R-{ring}"), plain.leads_to(ring)
        assert (found and found.id) == (None if expected is None else f"R-{expected}")
    return Counter(
        plain.seen, generations=plain.generation, reused_numbers=int(state.store.ids.numbered < len(names) - 1)
    )


def test_rings_equal_the_plain_reference_after_every_payment_and_label():
    happened: Counter = Counter()

    @settings(max_examples=60, deadline=None)
    @given(RULES, st.integers(0, 1 << 30))
    def check(rule, seed):
        happened.update(compared(rule, seed, 120))

    check()
    often = ("generations", "retired", "split", "ended", "hub", "expired", "withdrawn", "superseded")
    assert all(happened[what] > 20 for what in often), happened
    assert happened["reused_numbers"] > 5
