"""The store, the sampler and the features against the plain reference, over random histories."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.jit import run_concurrently
from graph.dag.features import feature_names, features
from graph.dag.ids import USED
from graph.dag.protocol import DAY_US, NEVER_US, Batch, Window
from graph.dag.sampler import EDGE_FEATURES, edges, neighbours
from graph.dag.store import GraphStore
from graph.errors import GraphError
from tests.graph.plain import PlainGraph

ROLES = ("account", "merchant", "device", "payee")
START = 1_700_000_000_000_000


@st.composite
def histories(draw: st.DrawFn) -> list[tuple]:
    """Payments and labels: few entities, so that chains are long, with gaps from nothing to months."""
    n = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    skewed = rng.random(3) < 0.5
    events: list[tuple] = []
    time, rows = START, 0
    for _ in range(n):
        time += int(
            rng.choice([0, 1, 10_000_000, 3_600_000_000, DAY_US, 20 * DAY_US], p=[0.1, 0.1, 0.3, 0.3, 0.15, 0.05])
        )
        if rows and rng.random() < 0.25:
            events.append(("label", int(rng.integers(rows)), int(rng.random() < 0.6), time))
        else:
            account = int(rng.integers(4)) if skewed[0] else 0
            payee = int(rng.integers(-4, 4))
            entity = (
                account,
                10 + int(rng.integers(3)),
                int(rng.integers(20, 24)) if rng.random() < 0.7 else -1,
                max(payee, -1),
            )
            events.append(("pay", entity, time - int(rng.choice([0, 0, 0, 5 * DAY_US])), int(rng.integers(0, 10_000))))
            rows += 1
    return events


def play(events: list[tuple], window: Window, capacity: int, group: int) -> tuple[GraphStore, PlainGraph]:
    """The same history into both; payments that follow each other are appended up to `group` at a time."""
    store = GraphStore(ROLES, capacity, window)
    store.ids.meta[USED] = 24  # nodes are numbered by hand here
    plain = PlainGraph(tuple(int(t) for t in store.role_type), window)
    waiting: list[tuple] = []

    def flush() -> None:
        if waiting:
            store.append(
                Batch(
                    np.array([e[1] for e in waiting], np.int32),
                    np.array([e[2] for e in waiting], np.int64),
                    np.array([e[3] for e in waiting], np.int64),
                    np.zeros((len(waiting), 4), np.uint8),
                ),
                plain.offset - len(waiting),
            )
            waiting.clear()

    for event in events:
        if event[0] == "pay":
            plain.append(*event[1:])
            waiting.append(event)
            if len(waiting) == group:
                flush()
        else:
            flush()
            plain.label(*event[1:])
            store.label(np.array([event[1]]), np.array([event[2]], np.int8), np.array([event[3]], np.int64))
    flush()
    return store, plain


@settings(max_examples=150, deadline=None)
@given(
    histories(),
    st.sampled_from([(8, 5 * DAY_US, NEVER_US), (40, 90 * DAY_US, 7 * DAY_US), (100, 40 * DAY_US, DAY_US)]),
    st.sampled_from([1, 7, 64]),
)
def test_walks_features_and_labels_equal_the_plain_reference(events, window, group):
    *limits, settle_us = window
    window = Window(*limits)
    store, plain = play(events, window, 128, group)
    plain.settle_us = settle_us
    view = store.view_for(settle_us)
    rows = np.arange(store.rows)
    near = neighbours(view, rows, 5)
    edge = edges(view, rows, near)
    x = features(view, ROLES, rows)
    np.testing.assert_array_equal(store.features(rows, settle_us), x)
    np.testing.assert_array_equal(store.edges(rows, near, settle_us), edge)
    assert x.shape[1] == len(feature_names(ROLES))
    for row in rows:
        np.testing.assert_allclose(x[row], plain.features(row), atol=2e-6, rtol=2e-6)
        for role in range(len(ROLES)):
            chain = plain.chain(row, role, window.span_us)[:5]
            assert near[row, role].tolist() == chain + [-1] * (5 - len(chain))
            for k, back in enumerate(chain):
                belief = plain.believed(back, plain.rows[row].offset)
                tie = dict(zip(EDGE_FEATURES, edge[row, role, k], strict=True))
                assert (tie["labelled"], tie["fraud"]) == (belief >= 0, belief == 1)


@settings(max_examples=60, deadline=None)
@given(histories())
def test_a_small_circular_buffer_sees_what_a_large_one_sees(events):
    """The window is counted back from the reader, so what else the buffer holds must not matter."""
    window = Window(rows=12, span_us=60 * DAY_US)
    small, _ = play(events, window, 16, 1)
    large, _ = play(events, window, 256, 1)
    rows = np.arange(max(0, small.rows - 4), small.rows)  # rows whose whole window the small buffer still holds
    np.testing.assert_array_equal(neighbours(small.view, rows, 8), neighbours(large.view, rows, 8))
    np.testing.assert_array_equal(features(small.view, ROLES, rows), features(large.view, ROLES, rows))


def test_jump_pointers_reach_any_depth_in_logarithmic_steps():
    store = GraphStore(("account",), 1 << 15, Window(rows=1 << 14, span_us=10**18))
    n = 10_000
    store.ids.meta[USED] = 1
    store.append(
        Batch(
            np.zeros((n, 1), np.int32), np.arange(n, dtype=np.int64), np.ones(n, np.int64), np.zeros((n, 4), np.uint8)
        ),
        0,
    )
    at, steps = n - 1, 0
    while at > 0:
        at -= int(store.velocity["jump"][at, 0])
        steps += 1
    assert steps <= 2 * np.log2(n)


def test_a_label_changes_belief_once_and_can_be_overturned():
    store, _plain = play([("pay", (0, 10, -1, -1), START, 100)], Window(100, DAY_US), 128, 1)
    deltas = [
        int(store.label(np.array([0]), np.array([fraud], np.int8), np.array([START]))[0]) for fraud in [1, 1, 0, 0, 1]
    ]
    assert deltas == [1, 0, -1, 0, 1]


@pytest.mark.parametrize(
    ("roles", "capacity", "reason"),
    [
        (("account",), 10, "above the window"),
        (("merchant",), 128, "account"),
        (("account", "account"), 128, "distinct"),
    ],
)
def test_a_store_of_the_wrong_shape_is_refused(roles, capacity, reason):
    with pytest.raises(GraphError, match=reason):
        GraphStore(roles, capacity, Window(rows=10))


def test_payments_may_be_appended_beside_a_walk_from_those_before() -> None:
    """The buffer wraps three times, and holds a window before the batch that is read beside the one that is written."""
    rng, batch, total, window = np.random.default_rng(0), 8192, 9 * 8192, Window(8192, 10_000 * DAY_US)
    entity = np.stack([rng.integers(0, 500, total), rng.integers(500, 520, total)], 1).astype(np.int32)
    time, amount = START + np.arange(total) * 1000, rng.integers(1, 1000, total)

    def graph(capacity: int) -> tuple[GraphStore, Callable[[int], range]]:
        store = GraphStore(("account", "merchant"), capacity, window)
        store.ids.meta[USED] = 520

        def append(first: int) -> range:
            part = slice(first, first + batch)
            return store.append(Batch(entity[part], time[part], amount[part], np.zeros((batch, 4), np.uint8)), first)

        return store, append

    store, append = graph(3 * batch)
    append(0)
    found = []
    for first in range(0, total - batch, batch):
        view, rows = store.view, np.arange(first, first + batch)
        found.append(
            run_concurrently(lambda v=view, r=rows: neighbours(v, r, 16), lambda f=first: append(f + batch), batch)
        )
    whole, append = graph(total)
    for first in range(0, total, batch):
        append(first)
    np.testing.assert_array_equal(np.concatenate(found), neighbours(whole.view, np.arange(total - batch), 16))
