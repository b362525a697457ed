"""Endless new ids in a small graph: memory stays level, and nothing of an old entity leaks to the next with its number.

The oracle is a graph whose buffer holds the whole history, so that it never gives a number back: what is read off a
payment must be a function of the journal and not of the buffer.
"""

from collections.abc import Iterator

import numpy as np
import pytest

import graph.rings.index
from data.journal.protocol import Events, Kind
from graph.dag.features import features
from graph.dag.protocol import DAY_US, Window
from graph.dag.sampler import edges, neighbours
from graph.rings.index import Ring, RingIndex
from graph.state import GraphState
from tests.graph.history import HOUR_US, payments, sharing
from tests.world import START_US

ROLES = ("account", "merchant", "device", "card")


def new(capacity: int, window: int, rest: int, hub: int, ring_days: int = 30, last: str = "card") -> GraphState:
    """A graph that ties accounts by devices, and by cards or by whom they pay."""
    state = GraphState((*ROLES[:3], last), capacity, Window(window, 90 * DAY_US))
    state.rings = RingIndex(state.store, ring_days * DAY_US, {"device": hub, last: hub}, rest=rest, names=state.names)
    return state


def sizes(state: GraphState) -> dict[str, int]:
    """Lengths of everything that could grow."""
    held = {name: len(part.array) for name, part in state.parts().items() if part.axis == 0}
    return held | {"numbered": state.store.ids.numbered, "in use": len(state.store.ids)}


def rings_of(state: GraphState) -> dict[str, Ring]:
    """All rings by id; members in an order that does not depend on their numbers."""
    found = state.rings.rings(10**6, min_accounts=1)
    return {ring.id: Ring(**{**vars(ring), "accounts": tuple(sorted(ring.accounts))}) for ring in found}


def assert_sees_the_same(small: GraphState, large: GraphState, new_rows: range) -> None:
    """Ring columns of new rows that are still held, and walks, ties and features of those whose window is."""
    rows = np.arange(max(new_rows.start, small.store.oldest), new_rows.stop)
    for name in ("ring", "ring_back"):
        np.testing.assert_array_equal(small.store.column(name, rows), large.store.column(name, rows))
    rows = rows[rows - small.store.window.rows >= small.store.oldest][-6:]
    near = neighbours(small.store.view, rows, 8)
    np.testing.assert_array_equal(near, neighbours(large.store.view, rows, 8))
    np.testing.assert_array_equal(edges(small.store.view, rows, near), edges(large.store.view, rows, near))
    np.testing.assert_array_equal(
        features(small.store.view, small.store.roles, rows), features(large.store.view, small.store.roles, rows)
    )


# Window, slots, rest, accounts on a hub, days of a tie, and the last role; then what the history is like.
WORLDS = [
    (150, 191, 16, 5, 30, "card", {"most": 40, "fresh": 0.25, "labels": 0.3, "reach": 400}),
    (97, 101, 0, 3, 5, "card", {"most": 25, "fresh": 0.8, "labels": 0.5, "reach": 150}),
    (300, 353, 50, 40, 1, "card", {"most": 400, "fresh": 0.15, "labels": 0.2, "reach": 700, "gap_us": DAY_US // 2000}),
    (211, 223, 5, 2, 30, "card", {"most": 1, "fresh": 0.3, "labels": 0.6, "reach": 230, "gap_us": DAY_US // 3}),
    (180, 199, 10, 4, 30, "payee", {"most": 30, "fresh": 0.3, "labels": 0.3, "reach": 400}),
    (120, 131, 0, 40, 10, "payee", {"most": 60, "fresh": 0.6, "labels": 0.3, "reach": 250}),
]


@pytest.mark.parametrize("world", range(len(WORLDS)))
def test_what_is_read_is_a_function_of_the_journal_and_not_of_the_buffer(world):
    window, capacity, rest, hub, days, last, history = WORLDS[world]
    n = 4000 if history["most"] == 1 else 9000
    small, large = (new(slots, window, rest, hub, days, last) for slots in (capacity, n))
    largest: dict[str, int] = {}
    told = 0
    for events in sharing(world, n, **history):
        rows = small.apply(events)
        assert large.apply(events) == rows
        if not rows:
            continue
        assert_sees_the_same(small, large, rows)
        if rows.stop // 500 > rows.start // 500:
            told += len(found := rings_of(small))
            assert found == rings_of(large)
            assert small.rings.generation == large.rings.generation
        if rows.start > n // 3:
            now = sizes(small)
            largest = largest or now
            assert all(now[name] <= 2 * size + 64 for name, size in largest.items()), (now, largest)
    assert small.rings.generation > 8
    assert large.store.ids.numbered > 10 * capacity
    assert small.store.ids.numbered < large.store.ids.numbered / 4
    assert told > 20
    assert (large.store.column("ring")[:, :3].max(0) > [2, 1, 0]).all()  # rings of some size, and known frauds


@pytest.mark.parametrize("group", [7, 64])
def test_recycling_does_not_depend_on_batches(group):
    """Numbers are given back at other moments, and to others, when payments come in other batches."""
    one, many, first = new(131, 110, 8, 4), new(131, 110, 8, 4), 0
    for events in sharing(9, 3000, reach=250):
        for state, size in ((one, 1), (many, group)):
            step = size if events.kind is Kind.TRANSACTION else len(events.batch)
            for i in range(0, len(events.batch), step):
                state.apply(Events(events.kind, events.offset + i, events.batch.slice(i, step)))
        if one.store.rows > first:
            assert_sees_the_same(one, many, range(first, one.store.rows))
            first = one.store.rows
    assert rings_of(one) == rings_of(many)
    assert (one.store.column("entity") != many.store.column("entity")).any()


def strangers(kind: str, n: int) -> Iterator[Events]:
    """Every payment brings entities never seen before."""
    for i in range(0, n, 100):
        row = np.arange(i, i + 100)
        entities = {
            "all": {"account": row, "merchant": row, "device": row, "card": row},
            "devices": {"account": row % 200, "merchant": row % 20, "device": row, "card": row},
            "rings": {"account": row, "merchant": row % 20, "device": row // 3, "card": row},
            "one ring": {"account": row // 2, "merchant": row % 20, "device": (row + 1) // 2, "card": row // 40},
        }[kind]
        yield Events(Kind.TRANSACTION, i, payments(i, entities, START_US + row * HOUR_US // 60, row))


@pytest.mark.parametrize("kind", ["all", "devices", "rings", "one ring"])
def test_the_rings_keep_pace_with_strangers_and_memory_stays_level(kind):
    """However many ties payments bring, generations follow each other, so entities give their numbers back in time."""
    window, capacity, n = 500, 510, 20_000
    state, levels = new(capacity, window, 16, 40), []
    for events in strangers(kind, n):
        rows = state.apply(events)
        if rows.stop % 2000 == 0:
            levels.append(sizes(state))
            assert state.store.rows - state.rings.safe < 4 * window
    assert state.rings.generation > n / (2 * window)
    # What `GraphStore` makes room for, its slack left out.
    assert levels[-1]["in use"] <= levels[-1]["numbered"] <= len(ROLES) * 4 * capacity
    grown = {name for name in levels[2] if levels[-1][name] > levels[2][name]}
    assert grown <= {"in use", "numbered", "rings.ties.heirs"}  # bounded above, and see below


def test_merged_rings_are_remembered_up_to_a_bound(monkeypatch):
    monkeypatch.setattr(graph.rings.index, "REMEMBERED_MERGES", 30)
    states, seen = (new(191, 150, 16, 40), new(6000, 150, 16, 40)), set()
    for events in sharing(21, 6000, fresh=0.5):
        for state in states:
            state.apply(events)
        store = states[0].store
        seen.update(store.ring_ids(np.arange(store.oldest, store.rows)).tolist())
    small, large = states
    followed = 0
    for number in sorted(seen - {-1}):
        a, b = small.rings.ring(f"R-{number}"), large.rings.ring(f"R-{number}")
        assert (a and a.id) == (b and b.id)
        followed += a is not None and a.id != f"R-{number}"
    assert followed
    assert 15 <= small.rings._ties.progress["retired"][0] < 60
