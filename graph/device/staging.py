"""Where a batch waits on its way into a device store: a packed buffer that goes up in one copy, and scratch."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph.dag.jumps import velocity_dtype
from graph.dag.rows import LABEL, row_dtype
from graph.device.launch import CUDA, Device, filled, structure
from graph.device.waiting import Mark, wait

CONTROL = structure(CUDA / "layout.cuh", "Control")
FRAME = structure(CUDA / "layout.cuh", "Frame")
HEADER = 64  # bytes in which `Control` lies
THREADS = 128  # of a block
LABELS = 4096  # label events taken up at once: each looks through those before it


class Packed:
    """Columns one after the other in pinned host memory, and their twins on the device.

    Args:
        device: Where.
        columns: Name, dtype and shape of each.
    """

    def __init__(self, device: Device, columns: dict[str, tuple[str, tuple[int, ...]]]) -> None:
        places, size = {}, HEADER
        for name, (dtype, shape) in columns.items():
            places[name] = size
            size += (int(np.prod(shape)) * np.dtype(dtype).itemsize + 15) // 16 * 16
        self._device = device
        self._host = device.pinned(size)
        with device.on():
            self._there = device.xp.zeros(size, np.uint8)
        self.control: NDArray[np.void] = self._host[: CONTROL.itemsize].view(CONTROL)
        self.columns: dict[str, NDArray[Any]] = {
            name: self._host[places[name] :][: int(np.prod(shape)) * np.dtype(dtype).itemsize]
            .view(dtype)
            .reshape(shape)
            for name, (dtype, shape) in columns.items()
        }
        start = device.address(self._there)
        self.addresses = {"control": start, **{name: start + place for name, place in places.items()}}
        self._sent: Mark | None = None  # the last copy has left the host, and been read
        self._used = device.mark()  # what was given to the stream so far is done with it

    def ready(self) -> None:
        """Wait until the columns may be written again."""
        if self._sent is not None:
            wait(self._sent, self._device.patience_s)
            self._sent = None

    def put(self) -> None:
        """Send everything, in order with the stream's other work; returns at once. May be recorded."""
        self._device.put(self._there, self._host)

    def get(self) -> None:
        """Bring everything back, in order with the stream's other work; returns at once. May be recorded."""
        self._device.get(self._there, self._host)

    def get_behind(self) -> Mark:
        """Bring everything back beside the stream's later work; the mark of its arrival."""
        return self._device.get_behind(self._there, self._host)

    def put_ahead(self) -> None:
        """Send everything beside the stream's other work, as soon as what reads the last batch is done."""
        self._device.put_ahead(self._there, self._host, self._used)

    def sent(self) -> None:
        """Note that what was given to the stream so far must be done before `ready` returns."""
        self._sent = self._used = self._device.mark()


class StagingBuffer:
    """What an append of up to n payments needs.

    Args:
        device: Where.
        n: Payments, at most.
        roles: Roles of a payment.
        velocity: Whether the store keeps jumps.
    """

    def __init__(self, device: Device, n: int, roles: int, velocity: bool) -> None:
        xp, items = device.xp, n * roles
        self.n, self.items = n, items
        self.packed = Packed(
            device,
            {
                "time": ("i8", (n,)),
                "amount": ("i8", (n,)),
                "late": ("u4", (n,)),
                "label": ("i4", (n,)),
                "ring_back": ("u4", (n,)),
                "entity": ("i4", (n, roles)),
                "ring": ("u2", (n, 4)),
                "category": ("u1", (n, 4)),
            },
        )
        with device.on():
            self.scratch = {
                "order": xp.zeros(items, np.uint64),
                "target": xp.zeros(items, np.int32),
                "start": xp.zeros(items, np.int32),
                "low": xp.zeros(items, np.int64),
                "high": xp.zeros(items, np.int64),
                "before": xp.zeros(items, np.int32),
                "after": xp.zeros(items, np.int32),
                "sum64": xp.zeros(items, np.int64),
                "large": xp.zeros(items, np.int64),
                "new_rows": xp.zeros(n * row_dtype(roles).itemsize, np.uint8),
                "new_velocity": xp.zeros(n * velocity_dtype(roles).itemsize if velocity else 1, np.uint8),
            }
        self.results: dict[str, Any] = {}  # members of the frame that tell readers where to write
        self.frame: Any = None

    def members(self) -> dict[str, Any]:
        """What it adds to a frame."""
        return {**self.packed.addresses, **self.scratch, **self.results, "batch": self.n}


class LabelStagingBuffer:
    """What up to `LABELS` label events at once need, or as many rows or nodes by number."""

    def __init__(self, device: Device) -> None:
        self.packed = Packed(
            device,
            {
                "label_row": ("i8", (LABELS,)),
                "label_fraud": ("i4", (LABELS,)),
                "label_time": ("i8", (LABELS,)),
                "event": ("u1", (LABELS * LABEL.itemsize,)),
            },
        )
        with device.on():
            self.delta = device.xp.zeros(LABELS, np.int32)
        self.changed = device.pinned(4 * LABELS).view(np.int32)
        self.frame: Any = None

    def members(self) -> dict[str, Any]:
        """What it adds to a frame."""
        return {**self.packed.addresses, "label_delta": self.delta}


def set_frame(device: Device, room: StagingBuffer | LabelStagingBuffer, members: dict[str, Any]) -> None:
    """Make a room's frame, or write it anew where it lies: recorded work reads it from there."""
    room.frame = filled(device, FRAME, {**members, **room.members()}, room.frame)


def blocks(n: int) -> int:
    """Blocks of `THREADS` for n threads."""
    return (n + THREADS - 1) // THREADS


def to_host(device: Device, array: Any) -> NDArray[Any]:
    """A copy of an array of a device, once all work given to it is done.

    Raises:
        HungError: It is not done in time.
    """
    wait(device.mark(), device.patience_s)
    with device.on():
        return array.get() if hasattr(array, "get") else np.array(array)
