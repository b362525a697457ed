"""The CPU's store with one on a device beside it: written as the CPU's is, and read where reading is work."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph.dag.protocol import NEVER_US, StoreMaker, Window
from graph.dag.store import GraphStore
from graph.device.launch import Device
from graph.device.staging import to_host
from graph.device.store import DeviceStore


class TwinStore(GraphStore):
    """A `graph.dag.protocol.Store` whose walks, ties and features a device computes.

    The device follows when it is asked, in large batches, so that building a graph costs what it costs on the CPU.

    Args:
        device: Where.
        roles: Names of the roles kept, `account` first.
        capacity: Slots of the buffer; more than `window.rows`.
        window: How far back a reader sees.
        entities: Entities to have room for at once.
    """

    def __init__(
        self, device: Device, roles: Sequence[str], capacity: int, window: Window | None = None, *, entities: int = 0
    ) -> None:
        super().__init__(roles, capacity, window, entities=entities)
        self._device, self._stale = device, True
        self._twin: DeviceStore | None = None

    @property
    def current(self) -> DeviceStore:
        """The store on the device, with all that this one holds."""
        if self._twin is None:
            self._twin = DeviceStore(self._device, self.roles, self.role_type, self.capacity, self.window)
        if self._stale or self.rows - self._twin.rows >= self.capacity:
            self._twin.adopt(self)
            self._stale = False
        else:
            self._twin.follow(self, self.rows)
        return self._twin

    def write_rings(self, rows: NDArray[np.int64], ring: NDArray[np.uint16], back: NDArray[np.uint32]) -> None:
        """Write what the rings of payments are as of then; see `Store.write_rings` for the layouts.

        Where the device has some of the rows already, it copies the whole store when it is next asked.
        """
        super().write_rings(rows, ring, back)
        self._stale = self._stale or (self._twin is not None and bool((rows < self._twin.rows).any()))

    def adopt(self, arrays: Any, facts: Any) -> None:
        """Take the place of a store of the same roles, capacity and window; the device copies it when next asked."""
        super().adopt(arrays, facts)
        self._stale = True

    def neighbours(self, rows: NDArray[np.int64], k: int) -> NDArray[np.int64]:
        """The last k rows of each row's entity in each role, newest first, -1 for none; int64 [n, R, k]."""
        return to_host(self._device, self.current.neighbours(rows, k))

    def read_as(self, settle_us: int) -> DeviceStore:
        """The store on the device, with all that this one holds, for one reader; see `Store.features`."""
        twin = self.current
        twin.read_as(settle_us)
        return twin

    def edges(self, rows: NDArray[np.int64], near: NDArray[np.int64], settle_us: int = NEVER_US) -> NDArray[np.float32]:
        """What ties neighbours to their readers, to 1e-6 of what the CPU computes.

        Args:
            rows: The readers, int64 [n].
            near: Their neighbours, int64 [n, R, k].
            settle_us: The reader's: age, us, at which a payment without a label counts as legitimate.

        Returns:
            float32 [n, R, k, E], in the order of `graph.dag.sampler.EDGE_FEATURES`.
        """
        twin = self.read_as(settle_us)
        with self._device.on():
            there = self._device.xp.asarray(near)
        return to_host(self._device, twin.edges(rows, there))

    def features(self, rows: NDArray[np.int64], settle_us: int = NEVER_US) -> NDArray[np.float32]:
        """Features of rows, each as of itself, to 1e-6 of what the CPU computes.

        Args:
            rows: int64 [n].
            settle_us: The reader's: age, us, at which a payment without a label counts as legitimate.

        Returns:
            float32 [n, F], in the order of `graph.dag.features.feature_names`.
        """
        return to_host(self._device, self.read_as(settle_us).features(rows))


def twin_store_maker(device: Device) -> StoreMaker:
    """What makes stores with a twin on a device."""

    def make(roles: Sequence[str], capacity: int, window: Window | None, *, entities: int = 0) -> TwinStore:
        return TwinStore(device, roles, capacity, window, entities=entities)

    return make
