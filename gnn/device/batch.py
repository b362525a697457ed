"""Micro-batches on a device: recorded once for each size, and run in turn where several follow one another.

Nothing in them allocates, and nothing waits but the host for the scores, and for no longer than the device's patience.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnn.device.net import DeviceNet
from gnn.model.network import EDGE
from graph.device.staging import Packed
from graph.device.waiting import Mark, wait

Columns = dict[str, NDArray[Any]]


class Bucket:
    """A micro-batch of up to n payments, recorded: append, features, encoder, layers.

    Args:
        net: The network and its store.
        n: Payments, at most.
        turn: Which of several of this size it is.
        beside: Whether copies go beside the device's other work, on streams of their own. Else the copies up and down
            are part of the recording: for a micro-batch that comes alone, one launch is soonest done.
    """

    def __init__(self, net: DeviceNet, n: int, turn: int = 0, *, beside: bool = False) -> None:
        self.net, self.n, self._beside, c, device = net, n, beside, net.config, net.device
        xp, store = device.xp, net.store
        with device.on():
            near = xp.zeros((n, len(c.roles), c.neighbours), np.int64)
            results = {
                "near": near,
                "edge": xp.zeros((*near.shape, EDGE), np.float32),
                "x": xp.zeros((n, c.inputs), np.float32),
            }
            h = xp.zeros((n, c.width), np.float32)
        self.room = store.room(n, turn=2 + turn, depth=c.neighbours, **results)
        self._out = Packed(device, {"logit": ("f4", (n,)), "written": (c.cache, (c.layers, n, 2 * c.width))})
        self.logit, self.written = self._out.columns["logit"], self._out.columns["written"]
        places = {name: self._out.addresses[name] for name in ("logit", "written")}
        self._nets = net.nets(graph=self.room.frame, h=h, write=1, **places)
        self._keep = (results, h)
        self.room.packed.control["n"] = 0
        self.room.packed.put()
        self._replay = device.record(self._work if beside else self._alone)
        self._back: Mark = device.mark()
        self._taken = 0

    def _work(self) -> None:
        store = self.net.store
        store.launch_append(self.room, self.n)
        store.describe(self.n, self.room.frame)
        self.net.run(self._nets, self.n)

    def _alone(self) -> None:
        self.room.packed.put()
        self._work()
        self._out.get()

    def score(self, columns: Columns, oldest: int) -> NDArray[np.float32]:
        """`start`, then `finish`."""
        self.start(columns, oldest)
        return self.finish()

    def start(self, columns: Columns, oldest: int) -> None:
        """Append the next payments and begin to score them; what was started before must be finished.

        Args:
            columns: As `DeviceStore.stage` takes them, n rows at most.
            oldest: The oldest row that they may see.
        """
        self._taken = len(columns["time"])
        self.net.store.stage(self.room, columns, oldest)
        if not self._beside:
            self._replay()
            self._back = self.net.device.mark()
            return
        self.room.packed.put_ahead()
        self._replay()
        self.room.packed.sent()
        self._back = self._out.get_behind()

    def finish(self) -> NDArray[np.float32]:
        """Wait for the scores.

        Returns:
            Log-odds, float32; a view that the next `start` overwrites, as it does `written` [L, n, 2D].

        Raises:
            HungError: They do not come in time.
        """
        wait(self._back, self.net.device.patience_s)
        return self.logit[: self._taken]


class DoubleBuffer:
    """Micro-batches of the largest size one after the other: while the device works on one, the next goes up.

    Args:
        net: The network and its store.
        n: Payments of one.
    """

    def __init__(self, net: DeviceNet, n: int) -> None:
        self._slots = [Bucket(net, n, turn=1 + i, beside=True) for i in range(2)]
        self.n = n

    def run(
        self, first: int, last: int, columns: Callable[[NDArray[np.int64]], Columns], oldest: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[Any]]]:
        """Append and score rows [first, last), in order.

        A slot is written to again only when its scores are back, and so all that was read of it before.

        Args:
            first: The first row.
            last: One past the last.
            columns: Gives rows as `DeviceStore.stage` takes them.
            oldest: The oldest row that they may see.

        Yields:
            For each micro-batch in turn its rows, their log-odds, and their keys and values [L, n, 2D]: views that the
            next step overwrites.
        """
        begun: list[tuple[Bucket, NDArray[np.int64]]] = []
        for i, at in enumerate(range(first, last, self.n)):
            slot, rows = self._slots[i % 2], np.arange(at, min(last, at + self.n))
            if len(begun) == 2:
                yield self._finished(*begun.pop(0))
            slot.start(columns(rows), oldest)
            begun.append((slot, rows))
        for slot, rows in begun:
            yield self._finished(slot, rows)

    @staticmethod
    def _finished(slot: Bucket, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[Any]]:
        return rows, slot.finish(), slot.written[:, : len(rows)]
