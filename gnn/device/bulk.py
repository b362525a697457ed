"""Many rows scored layer by layer on a device.

Each layer is one pass over all rows, so that rows see each other as if they had been scored one by one. How a history
of any length is spread over several devices is in `gnn.score.slices`.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnn.device.net import DeviceNet
from gnn.model.network import EDGE, RingwatchNet
from graph.dag.jumps import velocity_dtype
from graph.dag.rows import row_dtype
from graph.device.staging import to_host

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


def bulk_bytes(net: RingwatchNet, held: int, scored: int) -> int:
    """Memory of a device that rows take which it holds, and a slice that it scores, bytes, apart from label events.

    Args:
        net: The network.
        held: Rows held, those before the slice included.
        scored: Rows of the longest slice.
    """
    c, roles = net.config, len(net.config.roles)
    row = row_dtype(roles).itemsize + velocity_dtype(roles).itemsize
    near = roles * c.neighbours * (8 + 4 * EDGE)
    kept = c.layers * 2 * c.width * np.dtype(c.cache).itemsize
    return held * (row + kept) + scored * 4 * (c.width + 1) + ROWS_PER_STEP * (near + 4 * c.inputs)
