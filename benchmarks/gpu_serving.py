"""The CUDA path as the service, the jobs and the training use it, measured on a GPU (see `benchmarks.gpu_bench`)."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.gpu_figures import ROLES, Figures, K, Sizes, figure, timed
from benchmarks.peers import Stream
from data.history import History
from data.journal.protocol import Events, Kind
from gnn.device.batch import Bucket, DoubleBuffer
from gnn.device.bulk import bulk
from gnn.device.net import DeviceNet
from gnn.model.artifact import untrained
from gnn.model.groups import group_names
from gnn.score.cpu_scorer import CpuScorer
from gnn.score.shapley import pair_masks
from graph.dag.protocol import Window
from graph.dag.store import GraphStore
from graph.device.launch import Device
from graph.device.store import DeviceStore
from graph.state import GraphState


def settle() -> None:
    """Wait for PyTorch's own work on a GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def columns(rest: Stream, first: int, last: int) -> dict[str, NDArray[Any]]:
    """Payments [first, last) of a stream as `DeviceStore.stage` takes them."""
    n, part = last - first, slice(first, last)
    return {
        "time": rest.time[part],
        "amount": rest.amount[part],
        "entity": rest.entity[part],
        "late": np.zeros(n, np.uint32),
        "label": np.full(n, -1, np.int32),
        "ring_back": np.zeros(n, np.uint32),
        "ring": np.zeros((n, 4), np.uint16),
        "category": np.zeros((n, 4), np.uint8),
    }


def micro_batches(device: Device, twin: DeviceStore, rest: Stream, sizes: Sizes) -> Figures:
    """Micro-batches that go on from the history, and what the allocators see of them."""
    net = DeviceNet(twin, untrained(ROLES, cache="int8").net)
    buckets, out, at, begun = {n: Bucket(net, n) for n in (1, 64)}, {}, 0, sizes.micro // 6
    for n, name in ((64, "micro_batch_64"), (1, "payment")):
        times, taken = [], _Taken(device)
        for i in range(sizes.micro):
            given = columns(rest, at, at + n)
            if i == begun:
                taken.begin()
            begin = time.perf_counter()
            buckets[n].score(given, twin.oldest)
            times.append((time.perf_counter() - begin) * 1e3)
            at += n
        count = taken.end()
        if n == 64:
            out["steady_allocations"] = figure("steady_allocations", count * 1000 / (sizes.micro - begun))
        for p in (50, 99):
            out[f"{name}_p{p}"] = figure(f"{name}_p{p}", float(np.percentile(times[begun:], p)))
    return out


class _Taken:
    """Allocations of both allocators, counted."""

    def __init__(self, device: Device) -> None:
        self.count, self._hook = 0, None
        cuda = getattr(device.xp, "cuda", None)
        if cuda is not None:
            counter = self

            class Counting(cuda.MemoryHook):  # type: ignore[misc]
                name = "counting"

                def malloc_preprocess(self, **_: Any) -> None:
                    counter.count += 1

            self._hook = Counting()

    def begin(self) -> None:
        self._before = _torch_allocations()
        if self._hook is not None:
            self._hook.__enter__()

    def end(self) -> float:
        if self._hook is not None:
            self._hook.__exit__(None, None, None)
        return float(self.count + _torch_allocations() - self._before)


def _torch_allocations() -> int:
    return torch.cuda.memory_stats().get("allocation.all.allocated", 0) if torch.cuda.is_available() else 0


def replaying(device: Device, twin: DeviceStore, rest: Stream, sizes: Sizes) -> Figures:
    """The largest micro-batches one after the other, and overlapped."""
    net, n, half = DeviceNet(twin, untrained(ROLES, cache="int8").net), sizes.largest, sizes.run // 2
    alone, turns = Bucket(net, n), DoubleBuffer(net, n)
    begin = time.perf_counter()
    for at in range(0, half, n):
        alone.score(columns(rest, at, at + n), twin.oldest)
    before, first = time.perf_counter() - begin, twin.rows
    begin = time.perf_counter()
    for _ in turns.run(
        first, first + half, lambda r: columns(rest, half + r[0] - first, half + r[-1] + 1 - first), twin.oldest
    ):
        pass
    rate = half / (time.perf_counter() - begin)
    return {"replay": figure("replay", rate, {"one after the other": half / before})}


def explaining(device: Device, twin: DeviceStore, sizes: Sizes) -> Figures:
    """Reasons of 64 payments: by the CPU, as the service has them, and what the kernels would take."""
    from tests.world import payment_batch

    model = untrained(ROLES, cache="int8")
    state = GraphState(ROLES, 1 << 14, Window(rows=1 << 13))
    state.apply(Events(Kind.TRANSACTION, 0, payment_batch(4096)))
    cpu = CpuScorer(model, state, threads=1)
    cpu.score(0, 4096)
    rows, masks = np.arange(4000, 4064), pair_masks(len(group_names(ROLES)))
    cpu.reasons(rows)
    here = _seconds(lambda: cpu.reasons(rows), sizes.rounds)
    net = DeviceNet(twin, model.net)
    there = _seconds(lambda: net.fetched(rows, masks), sizes.rounds)
    return {"reasons_64": figure("reasons_64", here * 1e3, {"ms of the device's kernels": there * 1e3})}


def rescoring(device: Device, twin: DeviceStore, rest: Stream, sizes: Sizes) -> Figures:
    """Past payments once more, from the cache."""
    net = DeviceNet(twin, untrained(ROLES, cache="int8").net)
    with device.on():
        chosen = np.random.default_rng(2).integers(sizes.rows // 2, sizes.rows, sizes.readers // 4)
        rows = device.xp.asarray(chosen)
    rate = len(rows) / timed(device, lambda: net.outcome(rows), sizes.rounds // 4)
    rivals = {f"PyG, batches of {batch}": pyg(rest, batch) for batch in (64, 4096) if torch.cuda.is_available()}
    return {"rescore": figure("rescore", rate, rivals or None)}


def whole_history(device: Device, store: GraphStore, sizes: Sizes) -> Figures:
    """All payments of a history from nothing, as `ringwatch rescore` does on each card."""
    net = untrained(ROLES, cache="int8").net
    held = DeviceStore(
        device,
        store.roles,
        store.role_type,
        sizes.rows,
        store.window,
        nodes=1,
        settle_us=net.config.settle_us,
    )
    held.adopt_slice(store, 0, sizes.rows)
    on_card = DeviceNet(held, net)
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        bulk(on_card, 0, sizes.rows)
        times.append(time.perf_counter() - begin)
    return {"rescore_history": figure("rescore_history", sizes.rows / min(times))}


def pyg(rest: Stream, batch: int) -> float:
    """Payments/s of PyG's way on the same card: last neighbours, then two attention layers over the subgraph."""
    from torch_geometric.nn import TransformerConv
    from torch_geometric.nn.models.tgn import LastNeighborLoader

    count = int(rest.entity.max()) + 1
    loader = LastNeighborLoader(count, size=K, device=torch.device("cuda"))
    first, second = TransformerConv(32, 8, heads=4).cuda().eval(), TransformerConv(32, 8, heads=4).cuda().eval()
    x, pairs = torch.randn(count, 32, device="cuda"), torch.from_numpy(rest.entity.astype(np.int64)).cuda()
    times = []
    with torch.inference_mode():
        for at in range(0, min(40 * batch, len(pairs) - batch), batch):
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


def training() -> Figures:
    """The same training on the CPU, and on the card in both precisions."""
    from gnn.train.trainer import TrainConfig, train
    from tests.world import label_batch, payment_batch

    payments, rng = payment_batch(10_000, 3, 1000, 75, 500), np.random.default_rng(3)
    chosen = np.sort(rng.choice(8_500, 1500, replace=False))
    runs = [(Kind.TRANSACTION, payments), (Kind.LABEL, label_batch(payments, chosen, rng.random(1500) < 0.2))]
    short = TrainConfig(epochs=2, pretraining=150, test=0.0, label_delay_days=1, refit=False)
    rates, learnt = {}, {}
    for name, config in (
        ("cpu", short),
        ("float32", replace(short, device="cuda")),
        ("bf16", replace(short, device="cuda", precision="bf16")),
    ):
        begin = time.perf_counter()
        facts = train(History(runs), config).facts["training"]
        rates[name], learnt[name] = len(payments) / (time.perf_counter() - begin), facts["epochs"][-1]["loss"]
    beside = {"this machine's CPU": rates["cpu"], "loss": learnt["float32"]}
    return {
        "training": figure("training", rates["float32"], beside),
        "training_bf16": figure("training_bf16", rates["bf16"], {"loss": learnt["bf16"]}),
    }


def _seconds(work: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return float(np.median(times))
