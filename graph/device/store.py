"""The transaction DAG in a device's memory: the same bytes as `graph.dag.store.GraphStore` keeps, by CUDA kernels.

Names become numbers, and times become one clock, on the host, where the order of the journal is; everything else
happens here: pointers, jumps, labels, walks and features. Rows, jumps, label events and heads are byte for byte those
of the store on the host, so a snapshot of either opens in both, and `follow` keeps the one up to date with the other.

No call waits for the device, apart from those that hand results to the host, `label` among them.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph.dag.features import counterparts, feature_names
from graph.dag.jumps import Sums, velocity_dtype
from graph.dag.protocol import NEVER_US, Batch, Window
from graph.dag.rows import LABEL, MAX_LATENESS_MS, row_dtype
from graph.dag.sampler import EDGE_FEATURES
from graph.dag.store import GraphStore
from graph.device.labels import DeviceLabels
from graph.device.launch import CUDA, Device, filled
from graph.device.layout import store_defines
from graph.device.staging import FRAME, THREADS, StagingBuffer, blocks, set_frame, to_host
from graph.errors import GraphError

ROWS_PER_APPEND = 1 << 20  # payments appended at once
SEARCHED = 4096  # payments up to which a batch's chains are found by looking, not by sorting
SUMS = 1 << 16  # amounts above 32 bits to have room for at first
COLUMNS = ("time", "amount", "late", "label", "ring_back", "entity", "ring", "category")
EDGE = len(EDGE_FEATURES)


class DeviceStore:
    """The rows, the newest row of each node, and the label events, in the memory of a device.

    Args:
        device: Where.
        roles: Names of the roles.
        role_type: Entity type of each role, int32 [R], as the store on the host numbers them.
        capacity: Slots, taken at once.
        window: How far back a reader sees.
        velocity: Whether to keep what exact counts and sums over time windows need.
        nodes: Entities to make room for; it grows.
        settle_us: Age, in microseconds, at which its reader takes a payment without a label for legitimate.
    """

    def __init__(
        self,
        device: Device,
        roles: tuple[str, ...],
        role_type: NDArray[np.int32],
        capacity: int,
        window: Window,
        *,
        velocity: bool = True,
        nodes: int = 1 << 16,
        settle_us: int = NEVER_US,
    ) -> None:
        xp, r = device.xp, len(roles)
        self.device, self.roles, self.capacity, self.window = device, roles, capacity, window
        self.settle_us = settle_us
        self.rows = self.clock = 0
        self._row, self._velocity = row_dtype(r), velocity_dtype(r)
        self._keeps_velocity = velocity
        self._shares_type = len(set(role_type.tolist())) < r  # so that a payment may hold an entity twice
        defines = store_defines(r)
        self._append = device.load(CUDA / "append.cu", defines)
        self._bulk = device.load(CUDA / "bulk.cu", defines)
        self._walk = device.load(CUDA / "walk.cu", defines)
        self._features = device.load(CUDA / "features.cu", defines)
        with device.on():
            self.row_data = xp.zeros(capacity * self._row.itemsize, np.uint8)
            self.velocity = xp.zeros(capacity * self._velocity.itemsize if velocity else 0, np.uint8)
            self.sums, self.span = xp.zeros(SUMS, np.int64), xp.zeros(4, np.int64)
            self.head = xp.zeros(nodes, np.uint32)
            self._role_type = xp.asarray(role_type)
            self._pairs = xp.asarray(counterparts(roles))
        self._sums_most = 0  # amounts above 32 bits in use, at most
        self._rooms: dict[tuple[int, int], StagingBuffer] = {}
        self.labels = DeviceLabels(self, defines)
        self.moved()

    @property
    def oldest(self) -> int:
        """The oldest row still in the buffer."""
        return max(0, self.rows - self.capacity)

    def members(self) -> dict[str, Any]:
        """What every frame says of the store."""
        return {
            "rows": self.row_data,
            "velocity": self.velocity if self._keeps_velocity else None,
            "sums": self.sums,
            "span": self.span,
            "labels": self.labels.data,
            "head": self.head,
            "role_type": self._role_type,
            "capacity": self.capacity,
            "sums_size": len(self.sums),
            "window_rows": self.window.rows,
            "window_us": self.window.span_us,
            "settle_us": self.settle_us,
            "pairs": self._pairs,
            "pairs_width": self._pairs.shape[1],
            "features": len(feature_names(self.roles)),
        }

    def room(self, n: int, turn: int = 0, **results: Any) -> StagingBuffer:
        """Room for batches of up to n payments, kept; `results` are members of its frame that tell where to write."""
        if (n, turn) not in self._rooms:
            room = self._rooms[n, turn] = StagingBuffer(self.device, n, len(self.roles), self._keeps_velocity)
            room.results = results
            set_frame(self.device, room, self.members())
        return self._rooms[n, turn]

    def append(
        self, batch: Batch, ring: NDArray[np.uint16] | None = None, ring_back: NDArray[np.uint32] | None = None
    ) -> range:
        """Write payments, in order.

        Args:
            batch: The payments.
            ring: Columns of their rings, uint16 [n, 4]; zeros without.
            ring_back: 1 + rows back to the payment that founded each ring, uint32 [n].

        Returns:
            Their rows.
        """
        first, n = self.rows, len(batch.time)
        time, late = raised(batch.time, self.clock)
        columns: dict[str, NDArray[Any]] = {**batch._asdict(), "time": time, "late": late}
        columns["ring"] = np.zeros((n, 4), np.uint16) if ring is None else ring
        columns["ring_back"] = np.zeros(n, np.uint32) if ring_back is None else ring_back
        columns["label"] = np.full(n, -1, np.int32)
        if n:
            self.clock = int(time[-1])
        self.append_columns(columns)
        return range(first, first + n)

    def append_columns(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Write any number of payments that have their places: `columns` as those of `StagingBuffer`.

        Two rooms take turns: while the device works on one part, the next goes up.
        """
        n, step = len(columns["time"]), min(ROWS_PER_APPEND, self.capacity)
        for turn, start in enumerate(range(0, n, step)):
            stop = min(n, start + step)
            # A few sizes of room only: each is kept.
            room = self.room(min(step, 1 << (stop - start - 1).bit_length()), turn % 2)
            self.stage(room, {name: column[start:stop] for name, column in columns.items()})
            room.packed.put_ahead()
            self.launch_append(room, stop - start)
            room.packed.sent()

    def stage(self, room: StagingBuffer, columns: Mapping[str, NDArray[Any]], oldest: int | None = None) -> None:
        """Pack the next payments for `room.packed.put` and `launch_append`; from here on they count as appended.

        Args:
            room: Where.
            columns: By the names of `room.packed.columns`; `time` is journal time.
            oldest: The oldest row that readers may see, if later than what this buffer holds.
        """
        n = len(columns["time"])
        self._ready(n, int(columns["entity"].max(initial=-1)) + 1)
        room.packed.ready()
        for name, target in room.packed.columns.items():
            target[:n] = columns[name]
        control = room.packed.control
        control["first"], control["n"] = self.rows, n
        self.rows += n
        control["oldest"] = self.oldest if oldest is None else max(oldest, self.oldest)

    def launch_append(self, room: StagingBuffer, n: int) -> None:
        """Start the kernels that append what was put; for a recording, n is the room's size."""
        launch, frame, items = self._append, room.frame, n * len(self.roles)
        if not n:
            return
        launch("stage", blocks(n), THREADS, frame)
        if n <= SEARCHED:
            for kernel in ("link_searched", "chain", *(["number_counted"] if self._keeps_velocity else [])):
                launch(kernel, blocks(items), THREADS, frame)
        else:
            self._launch_sorted(room, items)
        words = (self._row.itemsize + (self._velocity.itemsize if self._keeps_velocity else 0)) // 4
        launch("commit", blocks(n * words), THREADS, frame)

    def _launch_sorted(self, room: StagingBuffer, items: int) -> None:
        xp, launch, frame, scratch = self.device.xp, self._bulk, room.frame, room.scratch

        def running(*names: str) -> None:
            with self.device.on():
                for name in names:
                    part = scratch[name][:items]
                    part[...] = xp.cumsum(part, dtype=part.dtype)

        launch("keys", blocks(items), THREADS, frame)
        with self.device.on():
            scratch["order"][:items].sort()  # by node, then by number: a stable sort by node
        launch("chain_sorted", blocks(items), THREADS, frame)
        running("before")
        launch("decided", blocks(items), THREADS, frame)
        launch("fill", blocks(items), THREADS, frame)
        if self._keeps_velocity:
            launch("amounts", blocks(items), THREADS, frame)
            running("low", "high")
            launch("sums_sorted", blocks(items), THREADS, frame)
            running("large")
            launch("number_summed", blocks(items), THREADS, frame)
        if self._shares_type:
            launch("aliases", blocks(items), THREADS, frame)

    def forget(self, nodes: NDArray[np.int32]) -> None:
        """Nodes whose numbers were given back (`GraphStore.expire`) have no newest row any more."""
        self.labels.forget(nodes)

    def label(self, rows: NDArray[np.int64], fraud: NDArray[np.int8], time: NDArray[np.int64]) -> NDArray[np.int8]:
        """Write label events, in order; see `GraphStore.label`. Waits for the changes of belief."""
        if len(time):
            self.clock = max(self.clock, int(time.max()))
        return self.labels.write(rows, fraud, time)

    def neighbours(self, rows: Any, k: int) -> Any:
        """Walk back from each row along each role: int64 [B, R, K] on the device; see `graph.dag.sampler`."""
        near = self.device.xp.empty((len(rows), len(self.roles), k), np.int64)
        self._walk("walk", blocks(len(rows) * len(self.roles)), THREADS, self.reading(rows, near=near, depth=k))
        return near

    def edges(self, rows: Any, near: Any) -> Any:
        """Describe each neighbour as its reader saw it: float32 [B, R, K, E], see `graph.dag.sampler.edges`."""
        edge = self.device.xp.empty((*near.shape, EDGE), np.float32)
        frame = self.reading(rows, near=near, edge=edge, depth=near.shape[2])
        self._walk("edges", blocks(near.size), THREADS, frame)
        return edge

    def features(self, rows: Any) -> Any:
        """The features of rows still in the buffer, as of each: float32 [B, F], see `graph.dag.features.features`."""
        x = self.device.xp.empty((len(rows), len(feature_names(self.roles))), np.float32)
        self.describe(len(rows), self.reading(rows, x=x))
        return x

    def describe(self, readers: int, frame: Any) -> None:
        """Start the kernel that finds neighbours, ties and features of up to so many readers."""
        self._features("describe", readers * len(self.roles), 32, frame)

    def column(self, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        """A field of `row_dtype` for some rows in the buffer, on the host."""
        with self.device.on():
            table = self.row_data.reshape(self.capacity, self._row.itemsize)
            found = to_host(self.device, table[self.device.xp.asarray(rows % self.capacity)])
        return found.view(self._row)[:, 0][name]

    def parts(self) -> dict[str, NDArray[Any]]:
        """The store's arrays on the host, by the names of `GraphState.parts`."""
        arrays = {"rows": self.row_data, "velocity": self.velocity, "sums.values": self.sums, "ids.head": self.head}
        dtypes = {"rows": self._row, "velocity": self._velocity, "labels": LABEL}
        arrays |= {"sums.span": self.span[:2], "labels": self.labels.data}
        found = {name: to_host(self.device, array) for name, array in arrays.items()}
        return {name: array.view(dtypes[name]) if name in dtypes else array for name, array in found.items()}

    def adopt(self, store: GraphStore) -> None:
        """Take the place of a store on the host, of the same shape: all that it holds is copied here."""
        xp, slots = self.device.xp, min(store.rows, self.capacity)
        with self.device.on():
            for target, array in ((self.row_data, store.row_data), (self.velocity, store.velocity)):
                raw = array[:slots].view(np.uint8).reshape(-1)
                target[: len(raw)] = xp.asarray(raw)
            self.sums, self.span = xp.array(store.sums.values), xp.zeros(4, np.int64)
            self.span[:2] = xp.asarray(store.sums.span)
            self.head = xp.array(store.ids.head[: max(1, store.ids.numbered)])
        self._sums_most = int(store.sums.span[1] - store.sums.span[0])
        self.rows, self.clock = store.rows, store.clock
        self.labels.adopt(store)
        self.moved()

    def adopt_slice(self, store: GraphStore, first: int, last: int) -> None:
        """Take rows [first, last) of a store on the host, to be read only: `capacity` is how many they are.

        A row says how far back its entity's previous one is, so a part of a history reads as the whole does, to the
        reach of what is held. Names of entities' newest rows are left out: only an append asks for them.
        """
        xp = self.device.xp
        with self.device.on():
            for target, array in ((self.row_data, store.row_data), (self.velocity, store.velocity)):
                table = target.reshape(-1, array.dtype.itemsize)
                for start in range(first, last if len(array) else first, ROWS_PER_APPEND):
                    rows = np.arange(start, min(last, start + ROWS_PER_APPEND))
                    raw = array[rows % store.capacity].view(np.uint8).reshape(len(rows), -1)
                    table[xp.asarray(rows % self.capacity)] = xp.asarray(raw)
            self.sums, self.span = xp.array(store.sums.values), xp.zeros(4, np.int64)
            self.span[:2] = xp.asarray(store.sums.span)
        self.rows, self.clock = last, store.clock
        self.labels.adopt(store)
        self.moved()

    def give(self, store: GraphStore) -> None:
        """Copy everything to a store on the host of the same shape, as for a snapshot; names stay what they are there.

        Raises:
            GraphError: It is of another shape.
        """
        if (store.roles, store.capacity, store.window) != (self.roles, self.capacity, self.window):
            raise GraphError("the store on the host has other roles, another capacity or another window")
        found, slots = self.parts(), min(self.rows, self.capacity)
        store.row_data[:slots] = found["rows"][:slots]
        if self._keeps_velocity and len(store.velocity):
            store.velocity[:slots] = found["velocity"][:slots]
        store.sums = Sums(found["sums.values"], found["sums.span"])
        store.label_data, store.label_count = found["labels"], self.labels.count
        store.compactions += 1
        known = min(len(found["ids.head"]), len(store.ids.head))
        store.ids.head[:known] = found["ids.head"][:known]
        store.rows, store.clock = self.rows, self.clock

    def follow(self, store: GraphStore, upto: int) -> None:
        """Take up what a store on the host has had since: rows before `upto`, and all label events."""
        if store.rows - self.rows >= self.capacity:
            raise GraphError("the store on the device is a whole buffer behind")
        self.labels.follow(store)
        self.clock = store.clock
        if upto > self.rows:
            rows = np.arange(self.rows, upto)
            self.append_columns(columns_of(store, rows))

    def _ready(self, n: int, nodes: int) -> None:
        """Room for the heads and the large amounts of n more payments; hardly ever is anything to be done."""
        if nodes > len(self.head):
            with self.device.on():
                larger = self.device.xp.zeros(max(nodes, 2 * len(self.head)), np.uint32)
                larger[: len(self.head)] = self.head
                self.head = larger
            self.moved()
        if not self._keeps_velocity:
            return
        items = n * len(self.roles)
        if self._sums_most + items > len(self.sums):
            self._sums_to(items)
        self._sums_most += items

    def _sums_to(self, more: int) -> None:
        """Learn from the device how many large amounts are in use, and make room for more where they are too many."""
        with self.device.on():
            xp = self.device.xp
            first, last = (int(v) for v in to_host(self.device, self.span)[:2])
            self._sums_most = last - first
            if self._sums_most + 2 * more > len(self.sums):
                values = xp.zeros(1 << (2 * (self._sums_most + 2 * more) - 1).bit_length(), np.int64)
                numbers = xp.arange(first, last)
                values[numbers % len(values)] = self.sums[numbers % len(self.sums)]
                self.sums = values
                self.moved()

    def read_as(self, settle_us: int) -> None:
        """Read from now on as one who takes a payment of that age (us) without a label for legitimate."""
        if settle_us != self.settle_us:
            self.settle_us = settle_us
            self.moved()

    def moved(self) -> None:
        """An array lies elsewhere now: tell the frames."""
        members = self.members()
        for room in self._rooms.values():
            set_frame(self.device, room, members)
        self.labels.moved(members)

    def reading(self, rows: Any, **results: Any) -> Any:
        """A frame for readers by their numbers."""
        xp = self.device.xp
        with self.device.on():
            readers = xp.asarray(rows, np.int64)
            control = xp.asarray(np.array([self.rows, 0, self.oldest, 0, 0], np.int64))
        frame = filled(
            self.device,
            FRAME,
            {**self.members(), "readers": readers, "readers_n": len(rows), "control": control, **results},
        )
        # A frame holds addresses alone: what they lead to must outlive the kernels that it is given to.
        self._last = (readers, control, frame, results)
        return frame


def raised(time: NDArray[np.int64], clock: int) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Journal times and lateness of payments in their order, as `GraphStore.append` gives them.

    Args:
        time: Timestamps as sent, us, int64 [n].
        clock: Journal time of the event before, us.

    Returns:
        Journal times, us, int64 [n], and by how much each was raised, ms, uint32 [n].
    """
    journal = np.maximum(np.maximum.accumulate(time), clock) if len(time) else time
    return journal, np.minimum((journal - time + 500) // 1000, MAX_LATENESS_MS).astype(np.uint32)


def columns_of(store: GraphStore, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Rows of a store on the host as a device store takes them up."""
    found = store.row_data[rows % store.capacity]
    return {name: found[name] for name in COLUMNS}
