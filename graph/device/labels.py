"""Label events in a device's memory: what was believed of each payment at any time, as `graph.dag.store` keeps it."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graph.dag.rows import LABEL
from graph.dag.store import GraphStore
from graph.device.launch import CUDA
from graph.device.layout import SUPERSEDED, Defines
from graph.device.staging import LABELS, THREADS, LabelStagingBuffer, blocks, set_frame, to_host
from graph.device.waiting import wait

if TYPE_CHECKING:
    from graph.device.store import DeviceStore


class DeviceLabels:
    """The label events of a device store.

    Args:
        store: Whose rows they are of.
        defines: Sizes to compile for.
    """

    def __init__(self, store: "DeviceStore", defines: Defines) -> None:
        self._store, self._device = store, store.device
        self._launch = self._device.load(CUDA / "labels.cu", defines)
        with self._device.on():
            self.data = self._device.xp.zeros(1024 * LABEL.itemsize, np.uint8)
        self.count = 0
        self._compactions = 0  # of the store that is followed
        self._room = LabelStagingBuffer(self._device)

    def moved(self, members: dict[str, Any]) -> None:
        """An array of the store lies elsewhere now."""
        set_frame(self._device, self._room, members)

    def write(self, rows: NDArray[np.int64], fraud: NDArray[np.int8], time: NDArray[np.int64]) -> NDArray[np.int8]:
        """Write label events, in order; see `GraphStore.label`. Waits for the changes of belief."""
        deltas = np.zeros(len(rows), np.int8)
        if self.count + len(rows) > self._most:
            self._compact(len(rows))
        kept = np.flatnonzero(rows >= self._store.oldest)
        for start in range(0, len(kept), LABELS):
            chosen = kept[start : start + LABELS]
            self.each("label_judged", rows[chosen], fraud[chosen], time[chosen])
            self._launch("label", blocks(len(chosen)), THREADS, self._room.frame)
            self._device.get(self._room.delta, self._room.changed)
            self._launch("label_newest", blocks(len(chosen)), THREADS, self._room.frame)
            wait(self._device.mark(), self._device.patience_s)
            changed = self._room.changed[: len(chosen)]
            superseded = changed == SUPERSEDED
            deltas[chosen] = np.where(superseded, 0, changed)
            self.count += len(chosen) - int(superseded.sum())
        return deltas

    def follow(self, store: GraphStore) -> None:
        """Take up the label events of a store on the host; rows that are not here yet bring the places of theirs."""
        if store.compactions != self._compactions:
            self.replace(store.labels, move=True)
            self._compactions = store.compactions
        for start in range(self.count, store.label_count, LABELS):
            fresh = store.labels[start : start + LABELS]
            if start + len(fresh) > self._most:
                self._grow(2 * (start + len(fresh)))
            self.each("label_taken", fresh["row"], events=fresh)
            self.count += len(fresh)

    def adopt(self, store: GraphStore) -> None:
        """Take the events of a store on the host whose rows were copied with the places of theirs."""
        self.replace(store.labels, move=False)
        self._compactions = store.compactions

    def replace(self, events: NDArray[np.void], *, move: bool) -> None:
        """Take other label events in place of all; with `move`, let the rows point to them."""
        if len(events) > self._most:
            self._grow(2 * len(events))
        with self._device.on():
            raw = self._device.xp.asarray(np.ascontiguousarray(events).view(np.uint8))
            self.data[: len(raw)] = raw
        self.count = len(events)
        if not move:
            return
        rows, last = np.unique(events["row"][::-1], return_index=True)
        newest = len(events) - 1 - last
        here = (rows >= self._store.oldest) & (rows < self._store.rows)
        newest, rows = newest[here], rows[here]
        for start in range(0, len(rows), LABELS):
            self.each("label_moved", rows[start : start + LABELS], newest[start : start + LABELS])

    def forget(self, nodes: NDArray[np.int32]) -> None:
        """Nodes that were given back have no newest row: a kernel over numbers, as those of labels are."""
        for start in range(0, len(nodes), LABELS):
            self.each("forget", nodes[start : start + LABELS])

    def each(
        self,
        kernel: str,
        rows: NDArray[Any],
        values: NDArray[Any] | None = None,
        times: NDArray[np.int64] | None = None,
        events: NDArray[np.void] | None = None,
    ) -> None:
        """Run a kernel over up to `LABELS` rows or nodes."""
        room, store = self._room, self._store
        room.packed.ready()
        room.packed.columns["label_row"][: len(rows)] = rows
        if values is not None:
            room.packed.columns["label_fraud"][: len(rows)] = values
        if times is not None:
            room.packed.columns["label_time"][: len(rows)] = times
        if events is not None:
            raw = np.ascontiguousarray(events).view(np.uint8)
            room.packed.columns["event"][: len(raw)] = raw
        control = room.packed.control
        control["first"], control["oldest"] = store.rows, store.oldest
        control["labels"], control["label_n"] = self.count, len(rows)
        room.packed.put()
        self._launch(kernel, blocks(len(rows)), THREADS, room.frame)
        room.packed.sent()

    @property
    def _most(self) -> int:
        return len(self.data) // LABEL.itemsize

    def _compact(self, more: int) -> None:
        """Drop the events of rows that have left the buffer, and make room; waits. See `GraphStore`."""
        events = to_host(self._device, self.data).view(LABEL)[: self.count]
        kept = events["row"] >= self._store.oldest
        place = np.cumsum(kept, dtype=np.int32) - 1
        events = events[kept].copy()
        linked = events["before"] >= 0
        events["before"][linked] = place[events["before"][linked]]
        room = 2 * len(events) + more  # at least half free afterwards, so that the work for an event stays bounded
        if room > self._most:
            self._grow(max(room, 2 * self._most))
        self.replace(events, move=True)

    def _grow(self, events: int) -> None:
        with self._device.on():
            larger = self._device.xp.zeros(events * LABEL.itemsize, np.uint8)
            larger[: len(self.data)] = self.data
            self.data = larger
        self._store.moved()
