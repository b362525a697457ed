"""A history of any length scored by several workers, block by block, in memory that a window bounds.

Whoever builds the graph cuts it into blocks of rows (`graph.slices`). Each worker is given every block, and keeps the
rows, keys and values of the last window. It scores a slice of each block: first all slices are embedded, then each
layer runs over all of them, and between layers the workers hand each other the keys and values of their slices. So
rows see each other as if they had been scored one by one, whatever the blocks, the slices and the workers are, and
nothing is computed twice. Neither a worker nor who drives them ever holds more than a window and some blocks.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gnn.device.bulk import Bulk, bulk_bytes
from gnn.device.net import DeviceNet
from gnn.errors import ModelError
from gnn.model.artifact import Artifact
from gnn.model.cache import KeysValues, KeyValueCache
from gnn.model.engines import make_engine, part
from gnn.model.kernels import Work
from gnn.score.cpu_scorer import ROWS_PER_BATCH, new_work
from graph.device.launch import Device
from graph.device.staging import to_host
from graph.device.store import DeviceStore
from graph.slices import Stretch, StretchStore

BEHIND = 2  # blocks beside the window that a worker has room for: the one at hand, and the next one's beginning


class SliceWorker(Protocol):
    """Scores slices of blocks. n rows of a slice, D the network's width."""

    def extend(self, stretch: Stretch) -> None:
        """Take the graph of the next block, or, at first, of the window before it."""

    def encode(self, first: int, last: int) -> KeysValues:
        """Begin a slice: embed its rows by themselves. Returns their keys and values of the first layer, [n, 2D]."""

    def take(self, layer: int, first: int, kept: KeysValues) -> None:
        """Take keys and values [m, 2D] that another worker computed for a layer, of rows from `first` on."""

    def attend(self, layer: int) -> KeysValues | None:
        """Run a layer over the slice. Returns keys and values of the next layer, [n, 2D], None after the last one."""

    def finish(self) -> NDArray[np.float32]:
        """End the slice: its uncalibrated log-odds, float32 [n]."""


class CpuSlices:
    """A worker on the CPU; its kernels are those of the service.

    Args:
        artifact: The model.
        block: Rows of the longest block.
        threads: By default one for each core.
    """

    def __init__(self, artifact: Artifact, block: int, threads: int | None = None) -> None:
        config = artifact.config
        self.store = StretchStore(artifact.roles, config.window.rows + BEHIND * block, config.window)
        self._engine = make_engine(artifact.net, self.store, "cpu", threads)
        self._cache = KeyValueCache(config, artifact.net.weights().kv_scale, self.store)
        self._config = config
        self._rows = np.empty(0, np.int64)
        self._work: Work | None = None

    def extend(self, stretch: Stretch) -> None:
        """Take the graph of the next block."""
        self.store.extend(stretch)

    def encode(self, first: int, last: int) -> KeysValues:
        """Begin a slice."""
        self._rows = np.arange(first, last)
        if self._work is None or len(self._work.h) < last - first:
            self._work = new_work(self._config, last - first)  # kept for the next slice: fresh pages cost time

        def step(rows: NDArray[np.int64], work: Work) -> None:
            self._engine.describe(rows, work)
            self._engine.gather(rows, work)
            self._engine.encode(rows, work)
            self._cache.put(0, rows, self._engine.keys_values(0, work))

        self._each(step)
        return self.kept(0, self._rows)

    def take(self, layer: int, first: int, kept: KeysValues) -> None:
        """Take another worker's keys and values."""
        self._cache.data[layer, self.store.slots(np.arange(first, first + len(kept)))] = kept

    def attend(self, layer: int) -> KeysValues | None:
        """Run a layer over the slice."""
        last = layer + 1 == self._config.layers

        def step(rows: NDArray[np.int64], work: Work) -> None:
            self._engine.attend(layer, self._cache.layer(layer), work)
            if last:
                self._engine.finish(work)
            else:
                self._cache.put(layer + 1, rows, self._engine.keys_values(layer + 1, work))

        self._each(step)
        return None if last else self.kept(layer + 1, self._rows)

    def finish(self) -> NDArray[np.float32]:
        """End the slice."""
        assert self._work is not None
        return self._work.logit[: len(self._rows)].copy()

    def kept(self, layer: int, rows: NDArray[np.int64]) -> KeysValues:
        """Keys and values of rows in a layer, as they are kept, [n, 2D]."""
        found: KeysValues = self._cache.data[layer, self.store.slots(rows)]
        return found

    def _each(self, step: Callable[[NDArray[np.int64], Work], None]) -> None:
        assert self._work is not None
        for i in range(0, len(self._rows), ROWS_PER_BATCH):
            j = min(len(self._rows), i + ROWS_PER_BATCH)
            step(self._rows[i:j], part(self._work, i, j))


class DeviceSlices:
    """A worker on a GPU. The graph is read from the host again for each block, and keys and values stay there.

    Args:
        artifact: The model.
        block: Rows of the longest block.
        device: Where.

    Raises:
        ModelError: A window and the blocks beside it do not fit into the device's memory.
    """

    def __init__(self, artifact: Artifact, block: int, device: Device) -> None:
        config = artifact.config
        self.store = StretchStore(artifact.roles, config.window.rows + BEHIND * block, config.window)
        capacity = self.store.capacity
        if (needed := bulk_bytes(artifact.net, capacity, block)) > (free := device.free_bytes()):
            raise ModelError(
                f"a window of {config.window.rows:,} payments and blocks of {block:,} need {needed / 2**30:.2f} GiB of "
                f"a GPU, and {free / 2**30:.2f} GiB are free: use --device cpu, or smaller blocks"
            )
        self._held = DeviceStore(
            device,
            self.store.roles,
            self.store.role_type,
            capacity,
            config.window,
            nodes=1,
            settle_us=config.settle_us,
        )
        self._net = DeviceNet(self._held, artifact.net)
        self._config = config
        self._run: Bulk | None = None

    def extend(self, stretch: Stretch) -> None:
        """Take the graph of the next block."""
        self.store.extend(stretch)
        begin = max(self.store.begins, self.store.oldest, stretch.first - self._config.window.rows)
        self._held.adopt_slice(self.store, begin, stretch.last)

    def encode(self, first: int, last: int) -> KeysValues:
        """Begin a slice."""
        self._run = Bulk(self._net, first, last)
        self._run.encode()
        return self.kept(0, first, last)

    def take(self, layer: int, first: int, kept: KeysValues) -> None:
        """Take another worker's keys and values."""
        with self._net.device.on():
            xp = self._net.device.xp
            slots = xp.asarray(np.arange(first, first + len(kept)) % self._held.capacity)
            self._net.cache[layer, slots] = xp.asarray(np.ascontiguousarray(kept))

    def attend(self, layer: int) -> KeysValues | None:
        """Run a layer over the slice."""
        assert self._run is not None
        self._run.attend(layer)
        return None if layer + 1 == self._config.layers else self.kept(layer + 1, self._run.first, self._run.last)

    def finish(self) -> NDArray[np.float32]:
        """End the slice."""
        assert self._run is not None
        found, self._run = self._run.finish(), None
        return found

    def kept(self, layer: int, first: int, last: int) -> KeysValues:
        """Keys and values of rows in a layer, as they are kept, [n, 2D] on the host."""
        with self._net.device.on():
            slots = self._net.device.xp.asarray(np.arange(first, last) % self._held.capacity)
            found = self._net.cache[layer, slots]
        return to_host(self._net.device, found)


def slice_bounds(first: int, last: int, workers: int) -> list[int]:
    """Where each worker's slice of a block begins, and its end; fewer slices than workers where rows are few."""
    count = max(1, min(workers, -(-(last - first) // ROWS_PER_BATCH)))
    return np.linspace(first, last, count + 1).astype(int).tolist()


def score_block(
    workers: Sequence[Any], stretch: Any, bounds: Sequence[int], layers: int, call: Callable[..., Any]
) -> tuple[list[Any], list[list[Any]]]:
    """Score a block over its slices, one worker for each; every worker is told of all of it.

    Args:
        workers: `SliceWorker`s, or what stands for them elsewhere.
        stretch: The block's graph, or what stands for it.
        bounds: The first row of each slice, and one past the last.
        layers: Of the network.
        call: Calls a method of a worker by its name, and gives its result, or what stands for it until it is there. The
            calls of one worker must be kept in order.

    Returns:
        The slices' log-odds, and for each layer the slices' keys and values, or what stands for both.
    """
    for worker in workers:
        call(worker, "extend", stretch)
    active = workers[: len(bounds) - 1]
    made = [call(worker, "encode", i, j) for worker, (i, j) in zip(active, pairwise(bounds), strict=True)]
    kept = []
    for layer in range(layers):
        kept.append(made)
        for worker in workers:
            for other, first, found in zip(active, bounds, made, strict=False):
                if other is not worker:
                    call(worker, "take", layer, first, found)
        made = [call(worker, "attend", layer) for worker in active]
    return [call(worker, "finish") for worker in active], kept
