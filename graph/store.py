"""The transaction DAG: payments as rows, each pointing back to the previous payment of every entity it touches.

Rows are never changed after they are written, apart from the label and ring columns, so a walk along a row's own
pointers reaches only what happened before it: the graph is causal by construction and there is no filter to forget.
Rows live in a circular buffer: row `r` is in slot `r & (capacity - 1)`. A pointer is the distance back, so it needs no
relocation, and one that reaches further than the reader's window is a null.

For counts and sums over any time window each (row, role) also keeps its place in the entity's chain, the running
amount, and one skew-binary jump pointer (Myers, "An applicative random-access stack", IPL 1983), which makes the
search for the oldest row inside a window O(log n).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from data.schema import role
from graph.errors import GraphError
from graph.ids import Ids
from graph.jit import jit

T = TypeVar("T", bound=np.generic)

DAY_US = 86_400_000_000
RING_COLUMNS = 3  # accounts, tying entities, known frauds


@dataclass(frozen=True)
class Window:
    """How far back a reader sees, counted from the reader and not from what the buffer happens to hold.

    Attributes:
        rows: Rows back, at most. The buffer must hold more than this.
        span_us: Journal time back, in microseconds, at most.
    """

    rows: int = 1 << 21
    span_us: int = 90 * DAY_US


class Columns(NamedTuple):
    """The rows, one slot each. C slots (a power of two), R roles.

    A *node* is the number that `Ids` gives an entity, over all entity types.
    """

    entity: NDArray[np.int32]  # [C, R] node in each role, -1 where the role is missing
    prev: NDArray[np.uint32]  # [C, R] distance back to the entity's previous row, 0 where there is none
    jump: NDArray[np.uint32]  # [C, R] distance back along the skew-binary jump, 0 where there is none
    seq: NDArray[np.uint32]  # [C, R] rows of the entity up to and with this one
    total: NDArray[np.int64]  # [C, R] amount of the entity up to and with this row, minor units
    time: NDArray[np.int64]  # [C] journal time, us: the timestamp, raised to that of the event before
    raw_time: NDArray[np.int64]  # [C] timestamp as sent, us
    amount: NDArray[np.int64]  # [C] minor units
    offset: NDArray[np.int64]  # [C] place in the journal
    category: NDArray[np.uint8]  # [C, 4] hashed currency, channel, mcc, country; 0 where missing
    label: NDArray[np.int32]  # [C] newest label event of the row, -1 where there is none
    ring: NDArray[np.float32]  # [C, 3] accounts, tying entities, known frauds of the ring as of the payment
    ring_id: NDArray[np.int64]  # [C] the ring as of the payment, -1 where there is none


class Labels(NamedTuple):
    """Label events in journal order: append-only, so that what was believed at any time can be read back."""

    row: NDArray[np.int64]  # [n] the labelled row
    offset: NDArray[np.int64]  # [n] when it became known: place in the journal
    fraud: NDArray[np.int8]  # [n] 1 fraud, 0 legitimate
    before: NDArray[np.int32]  # [n] the row's previous label event, -1 where there is none


class View(NamedTuple):
    """Everything a kernel reads, by value or by reference. Rows are absolute (int64), C is a power of two."""

    columns: Columns
    labels: Labels
    role_type: NDArray[np.int32]  # [R] entity type of each role
    window_rows: int
    window_us: int


class Batch(NamedTuple):
    """Payments with their ids numbered, ready to be appended. n rows."""

    entity: NDArray[np.int32]  # [n, R]
    time: NDArray[np.int64]  # [n] timestamp as sent, us
    amount: NDArray[np.int64]  # [n] minor units
    category: NDArray[np.uint8]  # [n, 4]


class GraphStore:
    """The rows, the newest row of each node, and the label events.

    Args:
        roles: Names of the roles kept, a subset of `data.schema.ROLES`, `account` first.
        capacity: Slots, a power of two. Memory is taken as rows arrive.
        window: How far back a reader sees.

    Raises:
        GraphError: The capacity is no power of two or does not exceed the window.
    """

    def __init__(self, roles: Sequence[str], capacity: int = 1 << 22, window: Window | None = None) -> None:
        window = window or Window(rows=min(Window.rows, capacity // 2))
        if capacity & (capacity - 1) or capacity <= window.rows:
            raise GraphError(f"capacity {capacity} must be a power of two above the window of {window.rows} rows")
        if not roles or roles[0] != "account" or len(set(roles)) != len(roles):
            raise GraphError(f"roles {list(roles)} must be distinct and begin with 'account'")
        self.roles = tuple(roles)
        self.capacity = capacity
        self.window = window
        types = list(dict.fromkeys(role(name).entity_type for name in roles))
        self.role_type = np.array([types.index(role(name).entity_type) for name in roles], np.int32)
        self.ids = Ids(types)
        self.rows = 0
        self.clock = 0  # journal time of the newest event, us
        self._head = np.full(1024, -1, np.int64)  # newest row of each node
        self._label_count = 0
        self._labels = Labels(
            np.empty(1024, np.int64),
            np.empty(1024, np.int64),
            np.empty(1024, np.int8),
            np.empty(1024, np.int32),
        )
        r, c = len(roles), capacity
        # Zeroed memory comes from the kernel page by page on first write: a large capacity costs only addresses.
        self.columns = Columns(
            entity=np.zeros((c, r), np.int32),
            prev=np.zeros((c, r), np.uint32),
            jump=np.zeros((c, r), np.uint32),
            seq=np.zeros((c, r), np.uint32),
            total=np.zeros((c, r), np.int64),
            time=np.zeros(c, np.int64),
            raw_time=np.zeros(c, np.int64),
            amount=np.zeros(c, np.int64),
            offset=np.zeros(c, np.int64),
            category=np.zeros((c, 4), np.uint8),
            label=np.zeros(c, np.int32),
            ring=np.zeros((c, RING_COLUMNS), np.float32),
            ring_id=np.zeros(c, np.int64),
        )

    @property
    def oldest(self) -> int:
        """The oldest row still in the buffer."""
        return max(0, self.rows - self.capacity)

    @property
    def labels(self) -> Labels:
        """The label events so far."""
        return Labels._make(column[: self._label_count] for column in self._labels)

    @property
    def view(self) -> View:
        """What kernels read; good until the next append or label."""
        return View(self.columns, self.labels, self.role_type, self.window.rows, self.window.span_us)

    def newest(self, node: int) -> int:
        """The newest row of a node, -1 where it has none in the buffer."""
        row = int(self._head[node]) if 0 <= node < len(self._head) else -1
        return row if row >= self.oldest else -1

    def append(self, batch: Batch, offset: int) -> range:
        """Write payments, in order.

        Args:
            batch: The payments.
            offset: Journal offset of the first; the others follow without a gap.

        Returns:
            Their rows.
        """
        first, n = self.rows, len(batch.time)
        self._head = grown(self._head, len(self.ids), -1)
        done = 0
        while done < n:  # a batch above the buffer's size overwrites its own beginning, as single appends would
            step = min(n - done, self.capacity)
            part = Batch._make(column[done : done + step] for column in batch)
            self.clock = _append(
                self.columns, self._head, self.role_type, part, first + done, offset + done, self.clock
            )
            done += step
        self.rows = first + n
        return range(first, first + n)

    def label(
        self, rows: NDArray[np.int64], fraud: NDArray[np.int8], offset: int, time: NDArray[np.int64]
    ) -> NDArray[np.int8]:
        """Write label events, in order.

        Args:
            rows: Labelled rows, int64 [n]; -1 (a payment that has left the buffer) is counted but not kept.
            fraud: 1 fraud, 0 legitimate, int8 [n].
            offset: Journal offset of the first event.
            time: When each was reported, us, int64 [n].

        Returns:
            Change of belief for each event, int8 [n]: +1 now fraud, -1 no longer fraud, 0 no change.
        """
        n, start = len(rows), self._label_count
        self._labels = Labels._make(grown(column, start + n) for column in self._labels)
        kept, deltas = _label(self.columns, self._labels, rows, fraud, offset, start, self.oldest)
        self._label_count = start + kept
        if n:
            self.clock = max(self.clock, int(time.max()))
        return deltas


def grown(array: NDArray[T], size: int, fill: int | None = None) -> NDArray[T]:
    """The array, or a copy of at least twice its length if it is shorter than `size`."""
    if size <= len(array):
        return array
    larger = np.empty((max(size, 2 * len(array)), *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    if fill is not None:
        larger[len(array) :] = fill
    return larger


@jit()
def slot_of(columns: Columns, role_type: NDArray[np.int32], slot: int, role: int, node: int) -> int:
    """In which role an earlier row (at `slot`) holds `node`, coming from a pointer of `role`.

    Roles of one entity type (account and payee) share one chain, or a chain of transfers A -> B -> C would break at B.
    """
    for r in range(role_type.shape[0]):
        if role_type[r] == role_type[role] and columns.entity[slot, r] == node:
            return r  # the first of the type: a self-transfer's two roles hold the same pointers
    return role


@jit()
def _append(
    columns: Columns,
    head: NDArray[np.int64],
    role_type: NDArray[np.int32],
    batch: Batch,
    first: int,
    offset: int,
    clock: int,
) -> int:
    mask = columns.time.shape[0] - 1
    for b in range(batch.time.shape[0]):
        row = first + b
        s = row & mask
        clock = max(clock, batch.time[b])
        columns.time[s] = clock
        columns.raw_time[s] = batch.time[b]
        columns.amount[s] = batch.amount[b]
        columns.offset[s] = offset + b
        columns.label[s] = -1
        columns.ring_id[s] = -1
        columns.ring[s, :] = 0
        columns.category[s, :] = batch.category[b]
        for r in range(role_type.shape[0]):
            node = batch.entity[b, r]
            columns.entity[s, r] = node
            columns.prev[s, r] = 0
            columns.jump[s, r] = 0
            columns.seq[s, r] = 0
            columns.total[s, r] = 0
            if node < 0:
                continue
            before = head[node]
            if before == row:  # a self-transfer moves its head once
                same = slot_of(columns, role_type, s, r, node)
                columns.prev[s, r] = columns.prev[s, same]
                columns.jump[s, r] = columns.jump[s, same]
                columns.seq[s, r] = columns.seq[s, same]
                columns.total[s, r] = columns.total[s, same]
                continue
            head[node] = row
            columns.seq[s, r] = 1
            columns.total[s, r] = batch.amount[b]
            if before < 0 or row - before > mask:  # none, or already overwritten
                continue
            p = before & mask
            q = slot_of(columns, role_type, p, r, node)
            columns.prev[s, r] = row - before
            columns.seq[s, r] = columns.seq[p, q] + 1
            columns.total[s, r] = columns.total[p, q] + batch.amount[b]
            # Myers' rule: if the two jumps ahead have the same length, jump over both, else jump to the row before.
            target = before
            if columns.jump[p, q] > 0:
                j1 = before - columns.jump[p, q]
                if row - j1 <= mask:
                    s1 = j1 & mask
                    q1 = slot_of(columns, role_type, s1, r, node)
                    if columns.jump[s1, q1] > 0:
                        j2 = j1 - columns.jump[s1, q1]
                        if row - j2 <= mask:
                            s2 = j2 & mask
                            q2 = slot_of(columns, role_type, s2, r, node)
                            length1 = columns.seq[p, q] - columns.seq[s1, q1]
                            length2 = columns.seq[s1, q1] - columns.seq[s2, q2]
                            if length1 == length2:
                                target = j2
            columns.jump[s, r] = row - target
    return clock


@jit()
def _label(
    columns: Columns,
    labels: Labels,
    rows: NDArray[np.int64],
    fraud: NDArray[np.int8],
    offset: int,
    start: int,
    oldest: int,
) -> tuple[int, NDArray[np.int8]]:
    mask = columns.time.shape[0] - 1
    deltas = np.zeros(rows.shape[0], np.int8)
    kept = 0
    for i in range(rows.shape[0]):
        if rows[i] < oldest:
            continue
        s = rows[i] & mask
        before = columns.label[s]
        believed = labels.fraud[before] if before >= 0 else np.int8(0)
        deltas[i] = fraud[i] - believed
        at = start + kept
        labels.row[at] = rows[i]
        labels.offset[at] = offset + i
        labels.fraud[at] = fraud[i]
        labels.before[at] = before
        columns.label[s] = at
        kept += 1
    return kept, deltas


@jit()
def believed(columns: Columns, labels: Labels, slot: int, offset: int) -> int:
    """What was known of the row in `slot` just before journal offset `offset`: 1 fraud, 0 legitimate, -1 nothing."""
    event = columns.label[slot]
    while event >= 0:
        if labels.offset[event] < offset:
            return int(labels.fraud[event])
        event = labels.before[event]
    return -1
