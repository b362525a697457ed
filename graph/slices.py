"""A stretch of the transaction DAG on its way to another process, and the store there that it is added to.

One process builds the graph, once and in order: rows, what they remember, rings, ids. Whoever only reads rows needs
none of the tables behind that, because a row holds all of it as of itself. So a stretch is the rows as they lie, their
jumps, and the labels that became known on the way. A store that is given one stretch after another holds the last
window of the same bytes, and its readers compute the same bits.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph.dag.jumps import Sums
from graph.dag.protocol import Window
from graph.dag.rows import Records
from graph.dag.store import GraphStore
from graph.errors import GraphError

NO_LABEL = -1


@dataclass(frozen=True)
class Stretch:
    """Rows [first, last) of a graph, n of them, and what their readers need beside the rows before.

    Attributes:
        first: First row.
        last: One past the last.
        rows: As they lie in the store, [n] of `graph.dag.rows.row_dtype`.
        velocity: Their jumps, [n] of `graph.dag.jumps.velocity_dtype`.
        sums: Large sums in use by then, see `graph.dag.jumps.Sums`.
        span: Of those.
        labels: Label events that a row of [first, last) is the first to see, in order, [m] of `graph.dag.rows.LABEL`.
        clock: Journal time by then, us.
    """

    first: int
    last: int
    rows: Records
    velocity: Records
    sums: NDArray[np.int64]
    span: NDArray[np.int64]
    labels: Records
    clock: int


def cut(store: GraphStore, first: int, last: int, *, all_labels: bool = False) -> Stretch:
    """Rows [first, last) of a store that holds them, as a copy.

    Args:
        store: The graph, whose newest row is `last - 1`.
        first: First row.
        last: One past the last.
        all_labels: Whether labels known before `first` go with it, too: for a store that begins here.

    Raises:
        GraphError: The store does not hold them, or holds later ones.
    """
    if first < store.oldest or last != store.rows:
        raise GraphError(f"rows {first} to {last} are not the newest of a store that holds {store.oldest}-{store.rows}")
    slots = np.arange(first, last) % store.capacity
    seen_from = store.labels["seen_from"]
    begin = 0 if all_labels else int(np.searchsorted(seen_from, first, "left"))
    end = int(np.searchsorted(seen_from, last, "left"))
    rows = store.row_data[slots]
    rows["label"] = NO_LABEL  # a place in this store's events, which means nothing elsewhere
    return Stretch(
        first,
        last,
        rows,
        store.velocity[slots],
        store.sums.values.copy(),
        store.sums.span.copy(),
        store.labels[begin:end].copy(),
        store.clock,
    )


class StretchStore(GraphStore):
    """A store that is filled by stretches alone: it reads as the graph that they were cut from, a window back.

    Args:
        roles: As those of the graph.
        capacity: Slots: a window and the longest stretch, at least.
        window: Of the graph.
    """

    def __init__(self, roles: tuple[str, ...], capacity: int, window: Window) -> None:
        super().__init__(roles, capacity, window)
        self.begins = -1  # the first row that was ever given, -1 before that

    def extend(self, stretch: Stretch) -> None:
        """Add the next rows; the first stretch may begin anywhere.

        Raises:
            GraphError: They do not follow on, or are more than fit beside a window.
        """
        if self.begins >= 0 and stretch.first != self.rows:
            raise GraphError(f"rows from {stretch.first} on do not follow row {self.rows - 1}")
        if len(stretch.rows) > self.capacity:
            raise GraphError(f"{len(stretch.rows):,} rows do not fit into {self.capacity:,} slots")
        slots = np.arange(stretch.first, stretch.last) % self.capacity
        self.row_data[slots], self.velocity[slots] = stretch.rows, stretch.velocity
        self.sums = Sums(stretch.sums, stretch.span)
        self.rows, self.clock = stretch.last, stretch.clock
        self.begins = stretch.first if self.begins < 0 else self.begins
        self._add_labels(stretch.labels)

    def _add_labels(self, events: Records) -> None:
        """Append label events, each behind the row's event before, and let the rows point to the newest of theirs."""
        events = events[events["row"] >= max(self.begins, self.oldest)]
        if not len(events):
            return
        if self.label_count + len(events) > len(self.label_data):
            self._compact(len(events))
        at, slots = np.arange(self.label_count, self.label_count + len(events)), events["row"] % self.capacity
        order = np.argsort(events["row"], kind="stable")  # of one row they stay in the order of the journal
        again = np.flatnonzero(events["row"][order][1:] == events["row"][order][:-1])
        before: NDArray[Any] = self.row_data["label"][slots]
        before[order[again + 1]] = at[order[again]]
        self.label_data[at] = events
        self.label_data["before"][at] = before
        self.label_count += len(events)
        self.row_data["label"][slots[order]] = at[order]  # of several writes to one slot the last one stays
