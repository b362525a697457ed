"""The CUDA path on a GPU, beside what the card can do and beside the same network in plain PyTorch and PyG.

Times of the device are medians between events on its stream; those of a micro-batch are the host's clock, from columns
in memory to scores in memory. `benchmarks.gpu_check` runs this. Nobody has yet had a GPU to run it on.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.peers import Stream, nodes, stream
from benchmarks.report import Figure
from gnn.artifact import untrained
from gnn.cache import CACHES
from gnn.device_batch import Bucket
from gnn.device_net import DeviceNet
from gnn.model import RingwatchNet
from graph.backend import Batch, Window
from graph.cuda_device import CudaDevice
from graph.device import BULK, DeviceStore, columns_of
from graph.ids import USED
from graph.launch import filled, structure
from graph.rows import row_dtype
from graph.store import GraphStore
from graph.waiting import wait

ROLES = ("account", "merchant", "device")
K = 16
LIMITS = Path(__file__).with_name("limits.cu")
ROWS = 6 << 20
READERS = 1 << 18
FIGURES: dict[str, tuple[str, float | None, str]] = {  # unit, goal, which way is better
    "copy": ("GB/s read and written", None, "higher"),
    "gather_128": ("GB/s of random 128-byte lines", None, "higher"),
    "launch": ("us a recorded kernel that does nothing", None, "lower"),
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
    "rescore": ("payments/s", 5e6, "higher"),
    "steady_allocations": ("in 1,000 micro-batches", 0, "lower"),
    "training": ("payments/s", None, "higher"),
}


def figure(name: str, value: float | None, peer: dict[str, float] | None = None) -> Figure:
    """A figure of `FIGURES`."""
    unit, goal, better = FIGURES[name]
    return Figure(value, unit, goal, better, peer)


def unmeasured() -> dict[str, Figure]:
    """Every figure, with its goal and no value."""
    return {name: figure(name, None) for name in FIGURES}


def timed(device: CudaDevice, work: Callable[[], object], rounds: int = 20) -> float:
    """Median seconds of some work on the device's stream, between events."""
    times = []
    with device.on():
        for i in range(rounds + 3):
            begin, end = device.xp.cuda.Event(), device.xp.cuda.Event()
            begin.record()
            work()
            end.record()
            end.synchronize()
            if i >= 3:
                times.append(device.xp.cuda.get_elapsed_time(begin, end) * 1e-3)
    return float(np.median(times))


def limits(device: CudaDevice) -> dict[str, Figure]:
    """What this card does at best."""
    xp, n, lines = device.xp, 1 << 24, 1 << 25
    with device.on():
        table = xp.zeros(lines * 16, np.uint64)
        half = len(table) // 2
        index = xp.random.randint(0, lines, n, dtype=np.uint32)
        out = xp.zeros(64, np.uint64)
    copied = timed(device, lambda: table[:half].__setitem__(slice(None), table[half:]))
    launch = device.load(LIMITS, {"ROLES": 3})
    frame = filled(device, structure(LIMITS, "Limits"), {"table": table, "index": index, "out": out, "n": n})
    gathered = timed(device, lambda: launch("gather", n * 8 // 128, 128, frame))
    replay = device.record(lambda: [launch("nothing", 1, 32, frame) for _ in range(100)] and None)
    return {
        "copy": figure("copy", 2 * half * 8 / copied / 1e9),
        "gather_128": figure("gather_128", n * 128 / gathered / 1e9),
        "launch": figure("launch", timed(device, replay) / 100 * 1e6),
    }


def history(payments: Stream) -> GraphStore:
    """A store of the CPU that holds a stream."""
    entity, count = nodes(payments)
    store = GraphStore(ROLES, 1 << 23, Window(rows=1 << 22), entities=count)
    store.ids.meta[USED] = count
    category = np.zeros((len(entity), 4), np.uint8)
    store.append(Batch(entity, payments.time, payments.amount, category), 0)
    return store


def appending(device: CudaDevice, store: GraphStore) -> dict[str, Figure]:
    """Batches of 1 M payments that lie on the device."""
    twin = DeviceStore(device, ROLES, store.role_type, store.capacity, store.window, nodes=store.ids.numbered)
    room, seconds = twin.room(BULK), []
    for first in range(0, ROWS, BULK):
        twin.stage(room, columns_of(store, np.arange(first, first + BULK)))
        room.packed.put()
        wait(device.mark(), device.patience_s)
        seconds.append(_once(device, lambda: twin.launch_append(room, BULK)))
    same = twin.parts()["rows"][:ROWS].tobytes() == store.row_data[:ROWS].tobytes()
    if not same:
        raise AssertionError("the device's rows are not the CPU's")
    return {"append": figure("append", BULK / float(np.median(seconds[1:])))}


def walking(device: CudaDevice, twin: DeviceStore, gather: float) -> dict[str, Figure]:
    """Walking back from random rows, and features of as many."""
    rng = np.random.default_rng(0)
    with device.on():
        rows = device.xp.asarray(rng.integers(ROWS // 2, ROWS, READERS))
        near = twin.neighbours(rows, K)
        found = int((near >= 0).sum())
        few = rows[: READERS // 4]
    seconds = timed(device, lambda: twin.neighbours(rows, K))
    described = timed(device, lambda: twin.features(few), rounds=5)
    read = (found + READERS) * row_dtype(len(ROLES)).itemsize / seconds / 1e9
    return {
        "walk_3x16": figure("walk_3x16", READERS / seconds, {"neighbours found, of 48": found / READERS}),
        "walk_share": figure("walk_share", read / gather, {"GB/s": read}),
        "describe": figure("describe", len(few) / described),
    }


def attending(device: CudaDevice, twin: DeviceStore, cache: str, gather: float) -> dict[str, Figure]:
    """One layer over random rows, its neighbours' keys and values from all over the cache."""
    net = DeviceNet(twin, untrained(ROLES, cache=cache).net)
    xp, c, b = device.xp, net.config, READERS // 4
    with device.on():
        rows = xp.asarray(np.random.default_rng(1).integers(ROWS // 2, ROWS, b))
        near, x = twin.neighbours(rows, K), xp.zeros((b, c.inputs), np.float32)
        edge, h, logit = twin.edges(rows, near), xp.zeros((b, c.width), np.float32), xp.zeros(b, np.float32)
        found = int((near >= 0).sum())
    nets = net.nets(graph=twin.reading(rows, near=near, edge=edge, x=x, depth=K), h=h, logit=logit)
    seconds = timed(device, lambda: net.attend(nets[1], b))
    plain = _plain(net, near, edge, h, untrained(ROLES, cache=cache).net) if cache == "float32" else None
    read = found * 2 * c.width * net.cache.dtype.itemsize / seconds / 1e9
    name = f"attention_{cache}"
    return {
        name: figure(name, b / seconds, None if plain is None else {"the layer in plain PyTorch": plain}),
        f"{name}_share": figure(f"{name}_share", read / gather, {"GB/s of keys and values": read}),
    }


def _plain(net: DeviceNet, near: Any, edge: Any, h: Any, plain: RingwatchNet) -> float:
    """Payments/s of a layer as PyTorch runs it, on the very arrays, which it takes without a copy."""
    plain = plain.to("cuda").eval()
    with net.device.on(), torch.inference_mode():
        near, edge, h, cache = (torch.from_dlpack(array) for array in (near, edge, h, net.cache))
        torch.cuda.synchronize()
        times = []
        for _ in range(8):
            begin = time.perf_counter()
            kv = cache[1][near.clamp(min=0) % cache.shape[1]]
            plain.layer(1).attend(h, kv, near >= 0, edge)
            torch.cuda.synchronize()
            times.append(time.perf_counter() - begin)
    return len(near) / float(np.median(times[2:]))


def serving(device: CudaDevice, twin: DeviceStore, rest: Stream) -> dict[str, Figure]:
    """Micro-batches that go on from the history, past payments once more, and what the allocators see of it."""
    net, entity = DeviceNet(twin, untrained(ROLES, cache="int8").net), nodes(rest)[0]
    buckets, out, at = {n: Bucket(net, n) for n in (1, 64)}, {}, 0
    zeros = {
        "late": np.zeros(64, np.uint32),
        "label": np.full(64, -1, np.int32),
        "ring_back": np.zeros(64, np.uint32),
        "ring": np.zeros((64, 4), np.uint16),
        "category": np.zeros((64, 4), np.uint8),
    }
    for n, name in ((64, "micro_batch_64"), (1, "payment")):
        times, taken = [], _Taken(device)
        for i in range(1200):
            part = slice(at, at + n)
            columns = {"time": rest.time[part], "amount": rest.amount[part], "entity": entity[part]}
            if i == 200:
                taken.begin()
            begin = time.perf_counter()
            buckets[n].score({**columns, **{k: v[:n] for k, v in zeros.items()}}, twin.oldest)
            times.append((time.perf_counter() - begin) * 1e3)
            at += n
        if n == 64:
            out["steady_allocations"] = figure("steady_allocations", taken.end())
        for p in (50, 99):
            out[f"{name}_p{p}"] = figure(f"{name}_p{p}", float(np.percentile(times[200:], p)))
    rows = device.xp.asarray(np.random.default_rng(2).integers(ROWS // 2, ROWS, 1 << 16))
    out["rescore"] = figure("rescore", len(rows) / timed(device, lambda: net.outcome(rows), rounds=5))
    return out


class _Taken:
    """Allocations of both allocators, counted."""

    def __init__(self, device: CudaDevice) -> None:
        count = self.count = [0]

        class Counting(device.xp.cuda.MemoryHook):  # type: ignore[name-defined, misc]
            name = "counting"

            def malloc_preprocess(self, **_: Any) -> None:
                count[0] += 1

        self._hook = Counting()

    def begin(self) -> None:
        self._before = torch.cuda.memory_stats().get("allocation.all.allocated", 0)
        self._hook.__enter__()

    def end(self) -> float:
        self._hook.__exit__(None, None, None)
        return float(self.count[0] + torch.cuda.memory_stats().get("allocation.all.allocated", 0) - self._before)


def pyg(rest: Stream, batch: int) -> float:
    """Payments/s of PyG's way on the same card: last neighbours, then two attention layers over the subgraph."""
    from torch_geometric.nn import TransformerConv
    from torch_geometric.nn.models.tgn import LastNeighborLoader

    entity, count = nodes(rest)
    loader = LastNeighborLoader(count, size=K, device=torch.device("cuda"))
    first, second = TransformerConv(32, 8, heads=4).cuda().eval(), TransformerConv(32, 8, heads=4).cuda().eval()
    x, pairs = torch.randn(count, 32, device="cuda"), torch.from_numpy(entity.astype(np.int64)).cuda()
    times = []
    with torch.inference_mode():
        for at in range(0, 40 * batch, batch):
            torch.cuda.synchronize()
            begin = time.perf_counter()
            part = pairs[at : at + batch]
            found, edges, _ = loader(part.unique())
            second(first(x[found], edges).relu(), edges)
            for r in (1, 2):
                loader.insert(part[:, 0], part[:, r])
            torch.cuda.synchronize()
            times.append(time.perf_counter() - begin)
    return batch / float(np.median(times[10:]))


def training() -> dict[str, Figure]:
    """The same training on the card and on the CPU."""
    from data.journal import Kind
    from gnn.train import TrainConfig, train
    from tests.world import label_batch, payment_batch

    payments, rng = payment_batch(40_000, 3, 4000, 300, 2000), np.random.default_rng(3)
    chosen = np.sort(rng.choice(35_000, 6000, replace=False))
    runs = [(Kind.TRANSACTION, payments), (Kind.LABEL, label_batch(payments, chosen, rng.random(6000) < 0.2))]
    rates = {}
    for name in ("cpu", "cuda"):
        begin = time.perf_counter()
        train(runs, TrainConfig(epochs=1, label_delay_days=2, device=name))
        rates[name] = len(payments) / (time.perf_counter() - begin)
    return {"training": figure("training", rates["cuda"], {"this machine's CPU": rates["cpu"]})}


def _once(device: CudaDevice, work: Callable[[], object]) -> float:
    with device.on():
        begin, end = device.xp.cuda.Event(), device.xp.cuda.Event()
        begin.record()
        work()
        end.record()
        end.synchronize()
        return float(device.xp.cuda.get_elapsed_time(begin, end)) * 1e-3


def measure(device: CudaDevice) -> dict[str, Figure]:
    """All figures, in one run on one card."""
    payments = stream(ROWS + (1 << 18), 500_000, 20_000, 700_000, True, 0)
    past, rest = _cut(payments, slice(0, ROWS)), _cut(payments, slice(ROWS, None))
    store, found = history(past), limits(device)
    gather = float(found["gather_128"].value or 0.0)
    found |= appending(device, store)
    twin = DeviceStore(device, ROLES, store.role_type, store.capacity, store.window)
    twin.adopt(store)
    found |= walking(device, twin, gather)
    for cache in CACHES:
        found |= attending(device, twin, cache, gather)
    found |= serving(device, twin, rest)
    rivals = {f"PyG, batches of {batch}": pyg(rest, batch) for batch in (64, 4096)}
    found["rescore"] = figure("rescore", found["rescore"].value, rivals)
    return {**found, **training()}


def _cut(payments: Stream, part: slice) -> Stream:
    columns: tuple[NDArray[Any], ...] = (payments.entity[part], payments.time[part], payments.amount[part])
    return Stream(*columns)
