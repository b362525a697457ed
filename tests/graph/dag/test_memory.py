"""What rows remember of their entities: the same as a search through the journal, at any batch and after a snapshot."""

from collections.abc import Sequence

import numpy as np
import pytest

from data.journal.protocol import Events, Kind
from graph.dag.memory import MOST_HELD, head_inputs, head_names, layout
from graph.dag.protocol import DAY_US, Window
from graph.state import GraphState
from tests.graph.history import sharing

ROLES = ("account", "merchant", "device", "payee")
WINDOW = Window(400, 25 * DAY_US)


def grown(events: Sequence[Events], capacity: int = 1 << 11, step: int | None = None) -> GraphState:
    state = GraphState(ROLES, capacity, WINDOW)
    for event in events:
        for at in range(0, len(event.batch), step or len(event.batch)):
            state.apply(Events(event.kind, event.offset + at, event.batch.slice(at, step or len(event.batch))))
    return state


def codes(state: GraphState) -> np.ndarray:
    return state.store.column("ring")[:, 3]


class Plain:
    """The same by dictionaries, from what the store says of its rows."""

    def __init__(self) -> None:
        self.last = dict[int, tuple[int, int]]()  # node -> its newest row and time
        self.frauds = dict[int, int]()  # node -> known frauds
        self.met = dict[tuple[int, int], tuple[int, int, int]]()  # pair -> newest row, its time, meetings
        self.rows = list[tuple[int, list[int]]]()

    def see(self, row: int, since: tuple[int, int]) -> bool:
        return len(self.rows) - row <= WINDOW.rows and since[1] - since[0] <= WINDOW.span_us

    def payment(self, time: int, entity: list[int]) -> list[int]:
        row, found = len(self.rows), []
        for node in entity:
            if node >= 0 and not (node in self.last and self.see(self.last[node][0], (self.last[node][1], time))):
                self.frauds[node] = 0
        for r, node in enumerate(entity):
            found.append(min(self.frauds[node], int(layout(ROLES).mask[r])) if node >= 0 else 0)
        met, pair = 0, (entity[0], entity[3])
        if min(pair) >= 0:
            held = self.met.get(pair)
            if held and self.see(held[0], (held[1], time)):
                met = min(held[2] + 1, int(layout(ROLES).mask[-1]))
            self.met[pair] = row, time, met
        for node in entity:
            if node >= 0:
                self.last[node] = row, time
        self.rows.append((time, entity))
        return [*found, met]

    def label(self, row: int, change: int) -> None:
        if not self.rows or not self.see(row, (self.rows[row][0], self.rows[-1][0])):
            return
        for node in {node for node in self.rows[row][1] if node >= 0}:
            self.frauds[node] = min(max(self.frauds[node] + change, 0), MOST_HELD)


@pytest.mark.parametrize("seed", [2, 3])
def test_rows_remember_what_a_search_through_the_journal_finds(seed: int) -> None:
    state, plain, expected = GraphState(ROLES, 1 << 12, WINDOW), Plain(), list[list[int]]()
    for event in sharing(seed, 1500, labels=0.9, fresh=0.08, reach=300, overdue=0.2):
        labelled = event.kind is Kind.LABEL
        for at in range(len(event.batch)):
            before = state.store.believed(np.arange(state.store.rows)) == 1
            state.apply(Events(event.kind, event.offset + at, event.batch.slice(at, 1)))
            if labelled:
                after = state.store.believed(np.arange(state.store.rows)) == 1
                for row in np.flatnonzero(after != before):
                    plain.label(int(row), 1 if after[row] else -1)
        if not labelled:
            rows = np.arange(len(plain.rows), state.store.rows)
            time, entity = state.store.column("time", rows), state.store.column("entity", rows)
            expected += [plain.payment(int(t), e.tolist()) for t, e in zip(time, entity, strict=True)]
    found = head_inputs(ROLES, state.store.column("category"), state.store.column("ring"))
    assert found.shape == (1500, len(head_names(ROLES)))
    np.testing.assert_array_equal(found[:, 4:], expected)
    assert (found[:, 4:].max(0) > 0).all()


def test_neither_batch_nor_buffer_nor_snapshot_changes_a_bit() -> None:
    events = list(sharing(5, 3000, most=60, labels=0.8, fresh=0.1, reach=300))
    whole = grown(events, 1 << 12)
    first = whole.store.rows - 500
    for other in (grown(events, 1 << 12, step=1), grown(events, 512), grown(events, 700, step=7)):
        np.testing.assert_array_equal(codes(other)[-500:], codes(whole)[first:])
    half = grown(events[: len(events) // 2], 600)
    copy = GraphState(ROLES, 600, WINDOW)
    copy.adopt({name: part.array.copy() for name, part in half.parts().items()}, half.facts(), half.applied)
    for event in events[len(events) // 2 :]:
        copy.apply(event)
    np.testing.assert_array_equal(codes(copy)[-500:], codes(whole)[first:])


@pytest.mark.parametrize(
    "roles",
    [
        ("account",),
        ("account", "merchant"),
        ("account", "merchant", "device", "ip", "card", "payee", "location"),
    ],
)
def test_the_bits_of_a_row_hold_each_item_apart(roles: tuple[str, ...]) -> None:
    plan = layout(roles)
    taken = [int(m) << int(s) for s, m in zip(plan.shift, plan.mask, strict=True)]
    assert sum(taken) == np.bitwise_or.reduce(taken) < 1 << 16
    assert len(set(plan.names)) == len(plan.names) == len(taken)
    assert plan.names[: len(roles)] == tuple(f"{name}.frauds_known" for name in roles)
