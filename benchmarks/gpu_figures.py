"""The figures of the CUDA path: what each is, its goal, how large the work is, and how a device's time is taken."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.peers import Stream
from benchmarks.report import Figure
from graph.dag.ids import USED
from graph.dag.protocol import Batch, Window
from graph.dag.store import GraphStore
from graph.device.launch import Device
from graph.device.waiting import wait

ROLES = ("account", "merchant", "device")
K = 16
FIGURES: dict[str, tuple[str, float | None, str]] = {  # unit, goal, which way is better
    "copy": ("GB/s read and written", None, "higher"),
    "gather_128": ("GB/s of random 128-byte lines", None, "higher"),
    "launch": ("us a recorded kernel that does nothing", None, "lower"),
    "ask": ("us to ask whether the device is done", None, "lower"),
    "append": ("rows/s, batches of 1 M", 200e6, "higher"),
    "walk_3x16": ("seeds/s", 50e6, "higher"),
    "walk_share": ("of the random gather", 0.5, "higher"),
    "describe": ("payments/s, features and neighbours", None, "higher"),
    "attention_int8": ("payments/s a layer", None, "higher"),
    "attention_int8_share": ("of the random gather", 0.5, "higher"),
    "attention_float16": ("payments/s a layer", None, "higher"),
    "attention_float16_share": ("of the random gather", 0.5, "higher"),
    "attention_float32": ("payments/s a layer", None, "higher"),
    "attention_float32_share": ("of the random gather", 0.5, "higher"),
    "micro_batch_64_p50": ("ms", 0.3, "lower"),
    "micro_batch_64_p99": ("ms", 1.0, "lower"),
    "payment_p50": ("ms", None, "lower"),
    "payment_p99": ("ms", 0.5, "lower"),
    "steady_allocations": ("in 1,000 micro-batches", 0, "lower"),
    "replay": ("payments/s, micro-batches of 4,096 that overlap", None, "higher"),
    "reasons_64": ("ms of this machine's CPU, one thread", None, "lower"),
    "rescore": ("payments/s", 5e6, "higher"),
    "rescore_history": ("payments/s, a whole history layer by layer", 5e6, "higher"),
    "training": ("payments/s", None, "higher"),
    "training_bf16": ("payments/s", None, "higher"),
}
Figures = dict[str, Figure]


@dataclass(frozen=True)
class Sizes:
    """How large the work is.

    Attributes:
        rows: Payments of the history, a multiple of `batch`.
        batch: Payments appended at once.
        readers: Payments that walk at once.
        lines: Of 128 bytes in the table that is read at random.
        micro: Micro-batches of each size.
        largest: Payments of the largest micro-batch.
        run: Payments of two replays, each a multiple of `largest`.
        rounds: Repetitions of what is timed.
        entities: Accounts, merchants and devices of the history.
    """

    rows: int = 6 << 20
    batch: int = 1 << 20
    readers: int = 1 << 18
    lines: int = 1 << 25
    micro: int = 1200
    largest: int = 4096
    run: int = 1 << 17
    rounds: int = 20
    entities: tuple[int, int, int] = (500_000, 20_000, 700_000)


def figure(name: str, value: float | None, peer: dict[str, float] | None = None) -> Figure:
    """A figure of `FIGURES`."""
    unit, goal, better = FIGURES[name]
    return Figure(value, unit, goal, better, peer)


def unmeasured() -> Figures:
    """Every figure, with its goal and no value."""
    return {name: figure(name, None) for name in FIGURES}


def once(device: Device, work: Callable[[], object]) -> float:
    """Seconds of some work on the device's stream: between events, or by the host's clock where the device is none."""
    cuda = getattr(device.xp, "cuda", None)
    with device.on():
        if cuda is None:
            start = time.perf_counter()
            work()
            wait(device.mark(), device.patience_s)
            return time.perf_counter() - start
        begin, end = cuda.Event(), cuda.Event()
        begin.record()
        work()
        end.record()
        wait(end, device.patience_s)
        return float(cuda.get_elapsed_time(begin, end)) * 1e-3


def timed(device: Device, work: Callable[[], object], rounds: int) -> float:
    """Median seconds of some work on the device's stream."""
    return float(np.median([once(device, work) for _ in range(rounds + 3)][3:]))


def history(payments: Stream, count: int, sizes: Sizes) -> GraphStore:
    """A store of the CPU that holds a stream, whose entities are numbered through, below `count`."""
    entity = payments.entity
    room = 1 << (sizes.rows + sizes.run + (1 << 17)).bit_length()
    store = GraphStore(ROLES, room, Window(rows=min(1 << 22, room // 2)), entities=count)
    store.ids.meta[USED] = count
    store.append(Batch(entity, payments.time, payments.amount, np.zeros((len(entity), 4), np.uint8)), 0)
    return store
