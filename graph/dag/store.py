"""The transaction DAG: payments as rows, each pointing back to the previous payment of every entity it touches.

Rows are never changed after they are written, apart from the label and ring fields, so a walk along a row's own
pointers reaches only what happened before it: the graph is causal by construction and there is no filter to forget. For
counts and sums over any time window each (row, role) also keeps one skew-binary jump pointer (Myers, "An applicative
random-access stack", IPL 1983) with the number and amount of the payments it jumps over (`graph.dag.jumps`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.digests import Key
from data.schema import role
from graph.dag import rows as kernels
from graph.dag.features import features
from graph.dag.ids import HEAD_MODULUS, Ids
from graph.dag.jumps import Sums, empty_sums, velocity_dtype, with_room_for
from graph.dag.memory import Memory
from graph.dag.offsets import Offsets
from graph.dag.protocol import NEVER_US, ROWS_PER_APPEND, Batch, LabelEvents, Window
from graph.dag.rows import LABEL, RING_COLUMNS, Records, View, row_dtype
from graph.dag.sampler import edges, neighbours
from graph.errors import GraphError
from graph.memory import ArrayPart, grown, reserve

NODES_SWEPT_PER_ENTITY = 2  # nodes looked at for each entity of a new row: more than 1, so that the sweep keeps ahead


class GraphStore:
    """The store in the memory of the CPU: rows, the newest row of each node, and label events; a `protocol.Store`.

    Args:
        roles: Names of the roles kept, a subset of `data.schema.ROLES`, `account` first.
        capacity: Slots. Memory is taken as rows arrive.
        window: How far back a reader sees.
        velocity: Whether to keep what exact counts and sums over time windows need; `features` needs it.
        entities: Entities to make room for at once.
        key: Secret of the digests that stand for ids; by default the environment's.

    Raises:
        GraphError: The roles are not distinct, or the capacity does not exceed the window.
    """

    def __init__(
        self,
        roles: Sequence[str],
        capacity: int = 1 << 22,
        window: Window | None = None,
        *,
        velocity: bool = True,
        entities: int = 0,
        key: Key | None = None,
    ) -> None:
        window = window or Window(rows=min(Window.rows, capacity // 2))
        if not window.rows < capacity < HEAD_MODULUS // 2:
            raise GraphError(f"a capacity of {capacity} rows must be above the window's {window.rows}, below 2^31")
        if not roles or roles[0] != "account" or len(set(roles)) != len(roles):
            raise GraphError(f"roles {list(roles)} must be distinct and begin with 'account'")
        self.roles = tuple(roles)
        self.capacity = capacity
        self.window = window
        types = list(dict.fromkeys(role(name).entity_type for name in roles))
        self.role_type = np.array([types.index(role(name).entity_type) for name in roles], np.int32)
        # Every row can bring a new entity in each role. The rings may need it for three windows, and it then waits for
        # the sweep (measured 3.2 buffers where every entity is new). Memory that is not used costs addresses only.
        self.ids = Ids(types, len(roles) * (4 * capacity + ROWS_PER_APPEND), entities, key)
        self.rows = 0
        self.clock = 0  # journal time of the newest event, us
        self.offsets = Offsets()
        self.row_data: Records = reserve(capacity, row_dtype(len(roles)))
        self.velocity: Records = reserve(capacity if velocity else 0, velocity_dtype(len(roles)))
        self.sums = empty_sums()
        self.label_data: Records = np.zeros(1024, LABEL)
        self.label_count = 0
        self.memory = Memory(self.roles, self.ids.most)
        self.compactions = 0  # times that label events moved: places that others remember are then void

    @property
    def oldest(self) -> int:
        """The oldest row still in the buffer."""
        return max(0, self.rows - self.capacity)

    @property
    def labels(self) -> Records:
        """The label events so far, those of rows that have left the buffer left out, [n] of LABEL."""
        return self.label_data[: self.label_count]

    @property
    def view(self) -> View:
        """What kernels read. Take a new one after each append or label. No missing label counts as legitimate."""
        return self.view_for(NEVER_US)

    def view_for(self, settle_us: int) -> View:
        """What the kernels of one reader read. Take a new one after each append or label.

        Args:
            settle_us: Age, in microseconds, at which a payment without a label counts as legitimate.
        """
        return View(
            self.row_data,
            self.velocity,
            self.sums,
            self.labels,
            self.role_type,
            self.window.rows,
            self.window.span_us,
            settle_us,
            self.oldest,
        )

    def column(self, name: str, rows: NDArray[np.int64] | None = None) -> NDArray[Any]:
        """A field of `row_dtype` of some rows, or of all rows in the buffer, [n, ...] in its own dtype."""
        if rows is None:
            rows = np.arange(self.oldest, self.rows)
        return self.row_data[name][rows % self.capacity]

    def raw_time(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Timestamps as sent, int64 [n] us: the journal time less the lateness, which is kept to the millisecond."""
        return self.column("time", rows) - self.column("late", rows).astype(np.int64) * 1000

    def ring_ids(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows that founded the rings of payments as of then, int64 [n]; -1 where there was no ring."""
        back = self.column("ring_back", rows).astype(np.int64)
        return np.where(back > 0, rows - back + 1, -1)

    def write_rings(self, rows: NDArray[np.int64], ring: NDArray[np.uint16], back: NDArray[np.uint32]) -> None:
        """Write the rings of rows int64 [n]: counts uint16 [n, 3], and 1 + rows back to the founder, uint32 [n]."""
        slots = self.slots(rows)
        self.row_data["ring"][slots, :RING_COLUMNS] = ring
        self.row_data["ring_back"][slots] = back

    def believed(self, rows: NDArray[np.int64], reader: int | None = None) -> NDArray[np.int8]:
        """What was known of rows when row `reader` arrived, or now: 1 fraud, 0 legitimate, -1 nothing; int8 [n]."""
        out = np.empty(len(rows), np.int8)
        kernels.all_believed(self.view, rows, self.rows if reader is None else reader, out)
        return out

    def label_events(self) -> LabelEvents:
        """The label events of rows in the buffer, in journal order."""
        return LabelEvents(*(self.labels[name] for name in LabelEvents._fields))

    def first_rows_at(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """The first row at or after each journal time (us, ascending), else `rows`; int64 [n]."""
        out = np.empty(len(times), np.int64)
        kernels.first_rows_at(self.row_data, self.oldest, self.rows, times, out)
        return out

    def newest(self, nodes: NDArray[np.int64]) -> NDArray[np.int64]:
        """The newest row of each node, int64 [n]; -1 where it has none in the buffer."""
        head = self.ids.head[nodes].astype(np.int64)
        back = (self.rows % HEAD_MODULUS + 1 - head) % HEAD_MODULUS
        return np.where((head > 0) & (back <= self.rows - self.oldest), self.rows - back, -1)

    def history(self, node: int, most: int, oldest: int = 0, newest: int | None = None) -> NDArray[np.int64]:
        """Rows of a node, newest first, at most `most`, none before row `oldest`, from row `newest` on; int64."""
        out = np.empty(max(0, most), np.int64)
        if newest is None:
            newest = int(self.newest(np.array([node]))[0])
        return out[: kernels.history(self.row_data, node, newest, max(oldest, self.oldest), out)]

    def slots(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Slots of rows, int64 [n]: where arrays with an item for each slot keep them."""
        return rows % self.capacity

    def neighbours(self, rows: NDArray[np.int64], k: int) -> NDArray[np.int64]:
        """The last `k` rows of each entity before each row, int64 [n, R, k]; -1 where there are no more."""
        return neighbours(self.view, rows, k)

    def edges(self, rows: NDArray[np.int64], near: NDArray[np.int64], settle_us: int = NEVER_US) -> NDArray[np.float32]:
        """What ties neighbours int64 [n, R, k] to their readers, float32 [n, R, k, E] of `EDGE_FEATURES`."""
        return edges(self.view_for(settle_us), rows, near)

    def features(self, rows: NDArray[np.int64], settle_us: int = NEVER_US) -> NDArray[np.float32]:
        """Features of rows as of themselves, float32 [n, F], in the order of `graph.dag.features.feature_names`."""
        return features(self.view_for(settle_us), self.roles, rows)

    def parts(self) -> dict[str, ArrayPart]:
        """Every array by name, with how much of it is in use: what a snapshot keeps."""
        ids, slots = self.ids, min(self.rows, self.capacity)
        return {
            "rows": ArrayPart(self.row_data, slots),
            "velocity": ArrayPart(self.velocity, slots),
            "sums.values": ArrayPart(self.sums.values, len(self.sums.values)),
            "sums.span": ArrayPart(self.sums.span, 2),
            "labels": ArrayPart(self.label_data, self.label_count),
            "offsets": ArrayPart(self.offsets.runs, self.offsets.count),
            "ids.digests": ArrayPart(ids.digests, ids.numbered),
            "ids.head": ArrayPart(ids.head, ids.numbered),
            "ids.buckets": ArrayPart(ids.buckets, len(ids.buckets)),
            "ids.meta": ArrayPart(ids.meta, len(ids.meta)),
            "memory.frauds": ArrayPart(self.memory.frauds, ids.numbered),
        }

    def facts(self) -> dict[str, Any]:
        """What goes with the arrays, as JSON: shape, window, and how many rows, labels and offsets there are."""
        return {
            "roles": self.roles,
            "capacity": self.capacity,
            "window": (self.window.rows, self.window.span_us),
            "rows": self.rows,
            "clock": self.clock,
            "labels": self.label_count,
            "offsets": self.offsets.count,
        }

    def adopt(self, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> None:
        """Go on from the arrays and facts of another store of the same roles, capacity and window."""
        ids = self.ids
        self.row_data, self.velocity = arrays["rows"], arrays["velocity"]
        self.sums = Sums(arrays["sums.values"], arrays["sums.span"])
        self.label_data, self.label_count = arrays["labels"], facts["labels"]
        self.offsets.runs, self.offsets.count = arrays["offsets"], facts["offsets"]
        self.rows, self.clock = facts["rows"], facts["clock"]
        ids.digests, ids.head = arrays["ids.digests"], arrays["ids.head"]
        ids.buckets, ids.meta = arrays["ids.buckets"], arrays["ids.meta"]
        self.memory.frauds = arrays["memory.frauds"]
        self.memory.forget_pairs()

    def append(self, batch: Batch, offset: int) -> range:
        """Write payments in order, the first at a journal offset and the others after it; returns their rows."""
        first, n = self.rows, len(batch.time)
        self.offsets.note(first, offset, self.oldest)
        for start in range(0, n, min(ROWS_PER_APPEND, self.capacity)):
            part = Batch._make(column[start : start + min(ROWS_PER_APPEND, self.capacity)] for column in batch)
            if len(self.velocity):
                self.sums = with_room_for(self.sums, part.entity.size)
            self.clock = kernels.append(
                self.row_data, self.velocity, self.sums, self.ids.head, self.role_type, part, self.rows, self.clock
            )
            self.memory.write(self.row_data, self.rows, len(part.time), self.window.rows, self.window.span_us)
            self.rows += len(part.time)
        return range(first, first + n)

    def expire(self, appended: int, before: int) -> NDArray[np.int32]:
        """Take back some of the nodes last seen before row `before` and before the buffer; returns them, int32."""
        return self.ids.sweep(NODES_SWEPT_PER_ENTITY * appended * len(self.roles), self.rows, min(before, self.oldest))

    def label(self, rows: NDArray[np.int64], fraud: NDArray[np.int8], time: NDArray[np.int64]) -> NDArray[np.int8]:
        """Write label events in order; returns the change of belief for each, int8 [n]: +1, 0 or -1 fraud more.

        One that was reported (`time`, us) before another label of its row that is there already changes nothing.
        """
        n = len(rows)
        if self.label_count + n > len(self.label_data):
            self._compact(n)
        kept, deltas = kernels.label(
            self.row_data, self.label_data, rows, fraud, time, self.label_count, self.rows, self.oldest
        )
        self.label_count += kept
        self.memory.label(self.row_data, rows, deltas, self.rows, self.window.rows, self.window.span_us)
        if n:
            self.clock = max(self.clock, int(time.max()))
        return deltas

    def _compact(self, room: int) -> None:
        """Drop the events of rows that have left the buffer, and make room for `room` more."""
        self.label_data = self.label_data.copy()  # readers may hold the events from before (`label_events`)
        self.label_count = kernels.drop_old(self.row_data, self.label_data, self.label_count, self.oldest)
        self.compactions += 1
        # At least half free afterwards, so that the work for an event stays bounded.
        self.label_data = grown(self.label_data, 2 * self.label_count + room)
