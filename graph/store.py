"""The transaction DAG: payments as rows, each pointing back to the previous payment of every entity it touches.

Rows are never changed after they are written, apart from the label and ring fields, so a walk along a row's own
pointers reaches only what happened before it: the graph is causal by construction and there is no filter to forget.
A row is one record of 64 bytes (three roles), one line of the processor's cache: what a reader wants of a neighbour
comes with the read that found it. Rows live in a circular buffer: row `r` is in slot `r % capacity`. A pointer is the
distance back, so it needs no relocation, and one that reaches further than the reader's window is a null.

For counts and sums over any time window each (row, role) also keeps one skew-binary jump pointer (Myers, "An
applicative random-access stack", IPL 1983) with the number and amount of the payments it jumps over (`graph.jumps`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.digests import Key
from data.jit import jit, prefetch, signed
from data.schema import role
from graph.errors import GraphError
from graph.ids import HEAD_SPAN, Ids
from graph.jumps import Sums, alias, empty_sums, forget, jump_from, role_in, sums_with_room, velocity_dtype
from graph.memory import grown, reserve
from graph.offsets import Offsets

Records = NDArray[np.void]

DAY_US = 86_400_000_000
RING_COLUMNS = 3  # accounts, tying entities, known frauds
LATE_MS = (1 << 32) - 1  # lateness is kept to the millisecond and up to this
RING_MOST = (1 << 16) - 1  # counts of a ring are kept up to this
STEP = 1 << 16  # rows written at once: bounds the room that must be ready for them
AHEAD = 32  # rows whose reads are asked for before the first of them is written
SWEEP = 2  # nodes looked at for each entity of a row appended, so that the sweep outruns the newcomers


@dataclass(frozen=True)
class Window:
    """How far back a reader sees, counted from the reader and not from what the buffer happens to hold.

    Attributes:
        rows: Rows back, at most. The buffer must hold more than this.
        span_us: Journal time back, in microseconds, at most.
    """

    rows: int = 1 << 21
    span_us: int = 90 * DAY_US


def row_dtype(roles: int) -> np.dtype[np.void]:
    """A row of R roles: 40 + 8 R bytes."""
    return np.dtype(
        [
            ("time", "i8"),  # journal time, us: the timestamp, raised to that of the event before
            ("amount", "i8"),  # minor units
            ("late", "u4"),  # by how much the journal time was raised, ms
            ("label", "i4"),  # newest label event of the row, -1 where there is none
            ("ring", "u2", (4,)),  # accounts, tying entities, known frauds of its ring as of the payment; spare
            ("ring_back", "u4"),  # 1 + rows back to the payment that founded its ring, 0 where there is none
            ("category", "u1", (4,)),  # hashed currency, channel, mcc, country; 0 where missing
            ("entity", "i4", (roles,)),  # node in each role, -1 where the role is missing
            ("prev", "u4", (roles,)),  # distance back to the entity's previous row, 0 where there is none
        ]
    )


LABEL = np.dtype(
    [
        ("row", "i8"),  # the labelled row
        ("seen_from", "i8"),  # the first row that was appended after the label became known
        ("before", "i4"),  # the row's previous label event, -1 where there is none
        ("fraud", "i4"),  # 1 fraud, 0 legitimate
    ]
)  # label events in journal order: what was believed at any time can be read back


class View(NamedTuple):
    """Everything a kernel reads, by value or by reference. C slots, R roles; rows are absolute (int64)."""

    rows: Records  # [C] of `row_dtype`
    velocity: Records  # [C] of `graph.jumps.velocity_dtype`, [0] in a store without
    sums: Sums
    labels: Records  # [n] LABEL
    role_type: NDArray[np.int32]  # [R] entity type of each role
    window_rows: int
    window_us: int
    oldest: int  # row still in the buffer: a reader whose window begins before sees what is left of it


class Batch(NamedTuple):
    """Payments with their ids numbered, ready to be appended. n rows."""

    entity: NDArray[np.int32]  # [n, R]
    time: NDArray[np.int64]  # [n] timestamp as sent, us
    amount: NDArray[np.int64]  # [n] minor units
    category: NDArray[np.uint8]  # [n, 4]


class GraphStore:
    """The rows, the newest row of each node, and the label events, in the memory of the CPU.

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
        if not window.rows < capacity < HEAD_SPAN // 2:
            raise GraphError(f"a capacity of {capacity} rows must be above the window's {window.rows}, below 2^31")
        if not roles or roles[0] != "account" or len(set(roles)) != len(roles):
            raise GraphError(f"roles {list(roles)} must be distinct and begin with 'account'")
        self.roles = tuple(roles)
        self.capacity = capacity
        self.window = window
        types = list(dict.fromkeys(role(name).entity_type for name in roles))
        self.role_type = np.array([types.index(role(name).entity_type) for name in roles], np.int32)
        # Every row can bring an entity of its own in each role; the rings may need it for three windows, and it waits
        # for the sweep (measured, where every entity is new: 3.2 buffers). Room that is not used costs addresses only.
        self.ids = Ids(types, len(roles) * (4 * capacity + STEP), entities, key)
        self.rows = 0
        self.clock = 0  # journal time of the newest event, us
        self.offsets = Offsets()
        self.row_data: Records = reserve(capacity, row_dtype(len(roles)))
        self.velocity: Records = reserve(capacity if velocity else 0, velocity_dtype(len(roles)))
        self.sums = empty_sums()
        self.label_data: Records = np.zeros(1024, LABEL)
        self.label_count = 0
        self.compactions = 0  # times that label events moved: what others know of their places is void

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
        """What kernels read; good until the next append or label."""
        return View(
            self.row_data,
            self.velocity,
            self.sums,
            self.labels,
            self.role_type,
            self.window.rows,
            self.window.span_us,
            self.oldest,
        )

    def column(self, name: str, rows: NDArray[np.int64] | None = None) -> NDArray[Any]:
        """A field of `row_dtype` for some rows in the buffer, or for all of them from the oldest on."""
        if rows is None:
            rows = np.arange(self.oldest, self.rows)
        return self.row_data[name][rows % self.capacity]

    def raw_time(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Timestamps as sent, us, to the millisecond where they were late."""
        return self.column("time", rows) - self.column("late", rows).astype(np.int64) * 1000

    def ring_ids(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The ring of each payment as of then: the row that founded it, -1 where there was none."""
        back = self.column("ring_back", rows).astype(np.int64)
        return np.where(back > 0, rows - back + 1, -1)

    def newest(self, node: int) -> int:
        """The newest row of a node, -1 where it has none in the buffer."""
        if not 0 <= node < self.ids.numbered or not self.ids.head[node]:
            return -1
        back = (self.rows % HEAD_SPAN + 1 - int(self.ids.head[node])) % HEAD_SPAN
        return self.rows - back if back <= self.rows - self.oldest else -1

    def append(self, batch: Batch, offset: int) -> range:
        """Write payments, in order.

        Args:
            batch: The payments.
            offset: Journal offset of the first; the others follow without a gap.

        Returns:
            Their rows.
        """
        first, n = self.rows, len(batch.time)
        self.offsets.note(first, offset, self.oldest)
        for start in range(0, n, min(STEP, self.capacity)):
            part = Batch._make(column[start : start + min(STEP, self.capacity)] for column in batch)
            if len(self.velocity):
                self.sums = sums_with_room(self.sums, part.entity.size)
            self.clock = _append(
                self.row_data, self.velocity, self.sums, self.ids.head, self.role_type, part, self.rows, self.clock
            )
            self.rows += len(part.time)
        return range(first, first + n)

    def expire(self, appended: int, before: int) -> NDArray[np.int32]:
        """Take back the numbers of entities last seen before a row, a share of them for each row appended.

        Args:
            appended: Rows appended since the last call.
            before: Row that an entity must have been seen at or after to stay, or in the buffer.

        Returns:
            The nodes given back, int32.
        """
        return self.ids.sweep(SWEEP * appended * len(self.roles), self.rows, min(before, self.oldest))

    def label(self, rows: NDArray[np.int64], fraud: NDArray[np.int8], time: NDArray[np.int64]) -> NDArray[np.int8]:
        """Write label events, in order; rows appended from now on see them.

        Args:
            rows: Labelled rows, int64 [n]; -1 (a payment that has left the buffer) is counted but not kept.
            fraud: 1 fraud, 0 legitimate, int8 [n].
            time: When each was reported, us, int64 [n].

        Returns:
            Change of belief for each event, int8 [n]: +1 now fraud, -1 no longer fraud, 0 no change.
        """
        n = len(rows)
        if self.label_count + n > len(self.label_data):
            self._compact(n)
        kept, deltas = _label(self.row_data, self.label_data, rows, fraud, self.label_count, self.rows, self.oldest)
        self.label_count += kept
        if n:
            self.clock = max(self.clock, int(time.max()))
        return deltas

    def _compact(self, room: int) -> None:
        """Drop the events of rows that have left the buffer, and make room."""
        self.label_count = _drop_old(self.row_data, self.label_data, self.label_count, self.oldest)
        self.compactions += 1
        # At least half free afterwards, so that the work for an event stays bounded.
        self.label_data = grown(self.label_data, 2 * self.label_count + room)


@jit()
def _ask_ahead(velocity: Records, head: NDArray[np.uint32], entity: NDArray[np.int32], first: int) -> None:
    """Ask for what the next rows will read: heads, the rows they point to, and where those rows' jumps lead."""
    n, roles = entity.shape
    for b in range(n):
        for r in range(roles):
            if entity[b, r] >= 0:
                prefetch(head, entity[b, r])
    if velocity.shape[0] == 0:
        return
    capacity, now = velocity.shape[0], first % HEAD_SPAN + 1
    for jumps in range(2):
        for b in range(n):
            for r in range(roles):
                if entity[b, r] < 0 or head[entity[b, r]] == 0:
                    continue
                back = (now - signed(head[entity[b, r]])) % HEAD_SPAN
                if 0 < back < capacity:
                    slot = (first - back) % capacity
                    if jumps:
                        slot = (slot - signed(velocity[slot].jump[r])) % capacity
                    prefetch(velocity, slot)


@jit()
def _append(
    rows: Records,
    velocity: Records,
    sums: Sums,
    head: NDArray[np.uint32],
    role_type: NDArray[np.int32],
    batch: Batch,
    first: int,
    clock: int,
) -> int:
    capacity, roles = rows.shape[0], role_type.shape[0]
    for b in range(batch.time.shape[0]):
        if b % AHEAD == 0:
            _ask_ahead(velocity, head, batch.entity[b : b + AHEAD], first + b)
        row = first + b
        s = row % capacity
        x = rows[s]
        clock = max(clock, batch.time[b])
        x.time = clock
        x.late = min((clock - batch.time[b] + 500) // 1000, LATE_MS)
        x.amount = batch.amount[b]
        x.label = -1
        x.ring_back = 0
        for i in range(4):
            x.ring[i] = 0
            x.category[i] = batch.category[b, i]
        if velocity.shape[0] and row >= capacity:
            forget(velocity, sums, s)
        now = row % HEAD_SPAN + 1
        for r in range(roles):
            node = batch.entity[b, r]
            x.entity[r] = node
            x.prev[r] = 0
            back = 0
            if node >= 0:
                if head[node]:
                    back = (now - signed(head[node])) % HEAD_SPAN
                if back == 0 and head[node]:  # a self-transfer moves its head once
                    same = role_in(rows, role_type, s, r, node)
                    x.prev[r] = x.prev[same]
                    if velocity.shape[0]:
                        alias(velocity, s, r, same)
                    continue
                head[node] = now
                if back >= capacity:  # already overwritten
                    back = 0
                x.prev[r] = back
            if velocity.shape[0]:
                jump_from(rows, velocity, sums, role_type, row, r, node, back)
    return clock


@jit()
def _label(
    rows: Records,
    labels: Records,
    labelled: NDArray[np.int64],
    fraud: NDArray[np.int8],
    start: int,
    seen_from: int,
    oldest: int,
) -> tuple[int, NDArray[np.int8]]:
    deltas = np.zeros(labelled.shape[0], np.int8)
    at = start
    for i in range(labelled.shape[0]):
        if labelled[i] < oldest:
            continue
        x = rows[labelled[i] % rows.shape[0]]
        before = x.label
        deltas[i] = fraud[i] - (labels[before].fraud if before >= 0 else 0)
        labels[at].row = labelled[i]
        labels[at].seen_from = seen_from
        labels[at].fraud = fraud[i]
        labels[at].before = before
        x.label = at
        at += 1
    return at - start, deltas


@jit()
def _drop_old(rows: Records, labels: Records, n: int, oldest: int) -> int:
    kept = 0
    for i in range(n):
        row = labels[i].row
        if row < oldest:
            continue
        x = rows[row % rows.shape[0]]
        # Events of a row come in order: the row's own pointer holds the new place of its last one kept so far.
        first = labels[i].before < 0
        labels[kept].row = row
        labels[kept].seen_from = labels[i].seen_from
        labels[kept].fraud = labels[i].fraud
        labels[kept].before = -1 if first else x.label
        x.label = kept
        kept += 1
    return kept


@jit(inline=True)
def believed(view: View, slot: int, reader: int) -> int:
    """What was known of the row in `slot` when row `reader` arrived: 1 fraud, 0 legitimate, -1 nothing."""
    event = view.rows[slot].label
    while event >= 0:
        if view.labels[event].seen_from <= reader:
            return int(view.labels[event].fraud)
        event = view.labels[event].before
    return -1
