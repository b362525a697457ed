"""A published view of the rings answers as the index did then, whatever happens to the graph meanwhile."""

import threading
from functools import partial

import networkx as nx
import numpy as np

from data.journal.memory import MemoryJournal
from data.journal.protocol import Kind
from graph.dag.offsets import Offsets
from graph.dag.protocol import DAY_US, Window
from graph.errors import StaleRings
from graph.rings.index import RingIndex
from graph.snapshot import restore, save
from graph.state import GraphState
from tests.graph.history import sharing

ROLES = ("account", "merchant", "device", "card")
WINDOW = 150


class CountingSource:
    """A place to read payments again that knows how often it was asked."""

    def __init__(self, kept: MemoryJournal) -> None:
        self.kept, self.asked = kept, 0

    def take(self, offsets):
        self.asked += 1
        return self.kept.take(offsets)


def new(capacity: int, kept: MemoryJournal) -> GraphState:
    engine = partial(RingIndex, window_us=30 * DAY_US, max_accounts={"device": 6, "card": 6}, rest=16)
    return GraphState(ROLES, capacity, Window(WINDOW, 90 * DAY_US), kept, rings=engine)


def kept(seed: int, n: int = 3000) -> MemoryJournal:
    return MemoryJournal(sharing(seed, n, reach=250, labels=0.6, fresh=0.4, overdue=0.3))


def answers(queries, score=None):
    """Everything that can be asked of rings; `queries` is an index or a view."""
    found = queries.rings(50, score=score)
    drawn = [queries.subgraph(ring) for ring in found[:5]]
    return found, [queries.ring(ring.id, score=score) for ring in found], [nx.to_dict_of_dicts(g) for g in drawn]


def test_a_view_answers_as_the_index_did_while_labels_rows_and_node_numbers_go_on():
    history = kept(5)
    state = new(WINDOW + 300, history)
    score = np.random.default_rng(0).random(4000)
    held, compared, changed = [], 0, 0
    for events in history.replay():
        state.apply(events)
        held.append((state.rings.publish(), answers(state.rings, lambda rows: score[rows]), state.store.rows))
        if events.kind is Kind.LABEL:
            later = [h for h in held if h[2] >= state.store.rows - 90]
            view, expected, _ = later[0]
            assert answers(view, lambda rows: score[rows]) == expected
            changed += answers(state.rings, lambda rows: score[rows]) != expected
            compared += len(expected[0])
            held = later
    assert compared > 500
    assert changed > 50
    assert state.store.ids.numbered < 4000  # numbers were given back, and stood for others


def test_a_label_after_the_view_and_before_the_next_payment_does_not_show_in_it():
    history = kept(8, 600)
    state, changed = new(WINDOW + 300, history), 0
    for events in history.replay():
        view = state.rings.publish()
        expected = state.rings.rings(50)
        state.apply(events)
        if events.kind is Kind.LABEL:
            assert view.rings(50) == expected
            changed += state.rings.rings(50) != expected
    assert changed > 5


def test_a_view_whose_rows_have_left_the_buffer_says_so():
    history = kept(5, 1500)
    state, told = new(WINDOW + 60, history), 0
    every = list(history.replay())
    for i in range(0, len(every), 12):
        view, expected = state.rings.publish(), state.rings.rings(50)
        for events in every[i : i + 12]:
            state.apply(events)
        try:
            assert view.rings(50) == expected
        except StaleRings as error:
            told += "Publish them again" in str(error)
    assert told > 3


def test_a_view_is_told_of_rows_before_they_are_written():
    history = kept(5, 1000)
    state, written = new(WINDOW + 60, history), []
    append = state.store.append

    def watched(batch, offset):
        written.append((state.store.rows + len(batch.time), view._written()))
        return append(batch, offset)

    state.store.append = watched
    view = state.rings.publish()
    for events in history.replay():
        state.apply(events)
    assert written
    assert all(rows == told for rows, told in written)


def test_journal_offsets_of_a_view_outlast_those_of_the_store():
    offsets = Offsets()
    for row in range(60):
        offsets.note(row, 3 * row, 0)
    frozen = offsets.frozen()
    for row in range(60, 400):
        offsets.note(row, 3 * row, row - 10)
    assert frozen.of(np.arange(60)).tolist() == [3 * row for row in range(60)]
    assert offsets.of(np.arange(390, 400)).tolist() == [3 * row for row in range(390, 400)]


def test_views_are_read_on_other_threads_while_the_graph_goes_on():
    history = kept(11, 4000)
    state, lock, views, wrong, done = new(1 << 13, history), threading.Lock(), [], [], threading.Event()
    compared = [0, 0]

    def read(reader: int) -> None:
        while not done.is_set() or views:
            try:
                view, expected = views.pop()
            except IndexError:
                done.wait(0.001)
                continue
            if answers(view) != expected:
                wrong.append(view.rows)
            compared[reader] += len(expected[0])

    readers = [threading.Thread(target=read, args=(i,)) for i in range(2)]
    for reader in readers:
        reader.start()
    for i, events in enumerate(history.replay()):
        with lock:
            state.apply(events)
            if i % 10 == 0:
                views.append((state.rings.publish(), answers(state.rings)))
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert min(compared) > 0


def test_readers_may_bring_a_source_of_names_of_their_own():
    history = kept(5, 600)
    state, theirs = new(1 << 11, history), CountingSource(history)
    for events in history.replay():
        state.apply(events)
    view = state.rings.publish(names=partial(state.names, source=theirs))
    state.source = None
    found = view.rings(5)
    assert theirs.asked > 0
    assert all(name.startswith("a") for ring in found for name in ring.accounts)
    rows = np.array(found[0].transactions)
    assert (view.offsets(rows) == state.store.offsets.of(rows)).all()


def test_an_engine_of_rings_is_injected_into_the_graph_and_into_a_restored_one(tmp_path):
    made = []

    class Told(RingIndex):
        def __init__(self, store, names=None, currencies=None):
            super().__init__(store, names=names, currencies=currencies)
            made.append(self)

    state = GraphState(ROLES, 1 << 10, Window(WINDOW), rings=Told)
    for events in kept(5, 300).replay():
        state.apply(events)
    restored = restore(save(state, tmp_path), rings=Told).state
    assert made == [state.rings, restored.rings]
    assert restored.rings.rings() == state.rings.rings() != []
