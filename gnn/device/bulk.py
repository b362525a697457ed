"""A whole history scored layer by layer, on one device or spread over several.

Each layer is one pass over all rows, so that rows see each other as if they had been scored one by one. Several devices
take consecutive slices of the rows. A slice needs the rows a window before it, for its features and neighbours, and in
each layer those rows' keys and values, which the devices before it have by then: nothing is computed twice, and the
scores are those of one device.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnn.device.net import DeviceNet
from gnn.errors import ModelError
from gnn.model.cache import KeysValues
from gnn.model.network import EDGE, RingwatchNet
from graph.dag.jumps import velocity_dtype
from graph.dag.rows import row_dtype
from graph.dag.store import GraphStore
from graph.device.launch import Device
from graph.device.staging import to_host
from graph.device.store import DeviceStore

ROWS_PER_STEP = 1 << 16  # rows worked on at once


class Bulk:
    """Rows [first, last) of a device's store on their way through the network.

    Rows before `first` must have their keys and values in each layer by the time that it is run.
    """

    def __init__(self, net: DeviceNet, first: int, last: int) -> None:
        self.net, self.first, self.last, xp = net, first, last, net.device.xp
        with net.device.on():
            self._h = xp.empty((last - first, net.config.width), np.float32)
            self._logit = xp.zeros(last - first, np.float32)

    def encode(self) -> None:
        """Embed the rows by themselves, and write their first keys and values."""
        for rows, part in self._parts():
            frame = self._described(rows)
            self.net.encode(self.net.net(0, graph=frame, write=1, **part), len(rows))

    def attend(self, layer: int) -> None:
        """Run a layer, and write the keys and values of the next."""
        net, k = self.net, self.net.config.neighbours
        for rows, part in self._parts():
            near = net.store.neighbours(rows, k)
            frame = net.store.reading(rows, near=near, edge=net.store.edges(rows, near), depth=k)
            net.attend(net.net(layer, graph=frame, write=1, **part), len(rows))

    def finish(self) -> NDArray[np.float32]:
        """Run the head, if the model has one; log-odds, float32 [last - first], on the host."""
        # Features are not kept for so many rows: the head has them computed once more.
        for rows, part in self._parts() if self.net.headed else ():
            self.net.finish(self.net.net(0, graph=self._described(rows), logit=part["logit"]), len(rows))
        return to_host(self.net.device, self._logit)

    def _described(self, rows: Any) -> Any:
        with self.net.device.on():
            x = self.net.device.xp.empty((len(rows), self.net.config.inputs), np.float32)
        frame = self.net.store.reading(rows, x=x)
        self.net.store.describe(len(rows), frame)
        return frame

    def _parts(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        n, xp = self.last - self.first, self.net.device.xp
        for i in range(0, n, ROWS_PER_STEP):
            j = min(n, i + ROWS_PER_STEP)
            with self.net.device.on():
                rows = xp.arange(self.first + i, self.first + j)
            yield rows, {"h": self._h[i:j], "logit": self._logit[i:j]}


def bulk(net: DeviceNet, first: int, last: int) -> NDArray[np.float32]:
    """Score rows [first, last) of the store from nothing, and write their keys and values.

    Rows before `first` must have theirs.

    Returns:
        Log-odds, float32, on the host.
    """
    run = Bulk(net, first, last)
    run.encode()
    for layer in range(net.config.layers):
        run.attend(layer)
    return run.finish()


class Shard:
    """A slice of a history on a device that holds no more than it takes.

    Args:
        store: The whole history, on the host.
        net: The network, on the CPU.
        device: Where.
        first: First row of the slice.
        last: One past the last.

    Raises:
        ModelError: It does not fit into the device's memory.
    """

    def __init__(self, store: GraphStore, net: RingwatchNet, device: Device, first: int, last: int) -> None:
        begin = max(store.oldest, first - store.window.rows)
        needed, free = shard_bytes(net, last - begin, last - first), device.free_bytes()
        if needed > free:
            raise ModelError(
                f"a slice of {last - first:,} payments needs {needed / 2**30:.2f} GiB of a GPU, and {free / 2**30:.2f} "
                "GiB are free: spread it over more GPUs, or use --device cpu"
            )
        settle_us = net.config.settle_us
        held = DeviceStore(
            device, store.roles, store.role_type, last - begin, store.window, nodes=1, settle_us=settle_us
        )
        held.adopt_slice(store, begin, last)
        self._run = Bulk(DeviceNet(held, net), first, last)

    def encode(self) -> None:
        """Embed the slice's rows by themselves, and write their keys and values for the first layer."""
        self._run.encode()

    def attend(self, layer: int) -> None:
        """Run a layer over the slice, and write the keys and values of the next.

        The keys and values of the window before the slice must have been taken (`take`) for this layer.
        """
        self._run.attend(layer)

    def finish(self) -> NDArray[np.float32]:
        """Run the head, if the model has one; the slice's log-odds, float32 [last - first], on the host."""
        return self._run.finish()

    def kept(self, layer: int, first: int, last: int) -> KeysValues:
        """Keys and values of some rows in a layer, as they are kept, [n, 2D] on the host."""
        net = self._run.net
        with net.device.on():
            part = net.cache[layer, net.device.xp.asarray(np.arange(first, last) % net.store.capacity)]
        return to_host(net.device, part)

    def take(self, layer: int, first: int, kept: KeysValues) -> None:
        """Write keys and values that another device has computed, of rows from `first` on."""
        net = self._run.net
        with net.device.on():
            slots = net.device.xp.asarray(np.arange(first, first + len(kept)) % net.store.capacity)
            net.cache[layer, slots] = net.device.xp.asarray(kept)


def score_sharded(
    shards: Sequence[Any], bounds: Sequence[int], layers: int, window_rows: int, call: Callable[..., Any]
) -> list[Any]:
    """Score a history over consecutive shards.

    Args:
        shards: `Shard`s, or what stands for them elsewhere.
        bounds: The first row of each, and one past the last row.
        layers: Of the network.
        window_rows: Rows back that a payment sees.
        call: Calls a method of a shard by its name and gives its result, or what stands for it until it is there. The
            calls of one shard must be kept in order.

    Returns:
        What the calls gave, those of `Shard.finish` last.
    """
    made = [call(shard, "encode") for shard in shards]
    for layer in range(layers):
        for i, first in enumerate(bounds[:-1]):
            for j, (begin, end) in enumerate(pairwise(bounds[: i + 1])):
                if (begin := max(begin, first - window_rows)) < end:
                    made.append(call(shards[i], "take", layer, begin, call(shards[j], "kept", layer, begin, end)))
        made += [call(shard, "attend", layer) for shard in shards]
    return made + [call(shard, "finish") for shard in shards]


def shard_bytes(net: RingwatchNet, held: int, scored: int) -> int:
    """Memory of a device that a slice takes, bytes, apart from label events.

    Args:
        net: The network.
        held: Rows held, those of the window before the slice included.
        scored: Rows of the slice.
    """
    c, roles = net.config, len(net.config.roles)
    row = row_dtype(roles).itemsize + velocity_dtype(roles).itemsize
    near = roles * c.neighbours * (8 + 4 * EDGE)
    kept = c.layers * 2 * c.width * np.dtype(c.cache).itemsize
    return held * (row + kept) + scored * 4 * (c.width + 1) + ROWS_PER_STEP * (near + 4 * c.inputs)
