"""The CUDA path on a GPU, beside what the card can do and beside the same network in plain PyTorch and PyG.

Times of the device are medians between events on its stream; those of a micro-batch are the host's clock, from columns
in memory to scores in memory. `benchmarks.gpu_check` runs this; the tests run all of it that needs no PyTorch for CUDA,
small, on the CPU.
"""

import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import gpu_serving as serving
from benchmarks.gpu_figures import ROLES, Figures, K, Sizes, figure, history, once, timed
from benchmarks.peers import Stream, nodes, stream
from gnn.device.net import DeviceNet
from gnn.model.artifact import untrained
from gnn.model.cache import CACHES
from gnn.model.network import RingwatchNet
from graph.dag.rows import row_dtype
from graph.dag.store import GraphStore
from graph.device.launch import Device, filled, structure
from graph.device.layout import store_defines
from graph.device.store import DeviceStore, columns_of
from graph.device.waiting import wait

LIMITS = Path(__file__).with_name("limits.cu")


def limits(device: Device, sizes: Sizes) -> Figures:
    """What this card does at best."""
    xp, lines = device.xp, sizes.lines
    n = lines // 2
    with device.on():
        table = xp.zeros(lines * 16, np.uint64)
        half = len(table) // 2
        index = xp.asarray(np.random.default_rng(3).integers(0, lines, n, dtype=np.uint32))
        out = xp.zeros(64, np.uint64)
    copied = timed(device, lambda: table[:half].__setitem__(slice(None), table[half:]), sizes.rounds)
    launch = device.load(LIMITS, store_defines(len(ROLES)))
    frame = filled(device, structure(LIMITS, "Limits"), {"table": table, "index": index, "out": out, "n": n})
    gathered = timed(device, lambda: launch("gather", n * 8 // 128, 128, frame), sizes.rounds)
    replay = device.record(lambda: [launch("nothing", 1, 32, frame) for _ in range(100)] and None)
    reached = device.mark()
    wait(reached, device.patience_s)
    begin = time.perf_counter()
    for _ in range(1000):
        _ = reached.done
    asked = (time.perf_counter() - begin) / 1000
    return {
        "copy": figure("copy", 2 * half * 8 / copied / 1e9),
        "gather_128": figure("gather_128", n * 128 / gathered / 1e9),
        "launch": figure("launch", timed(device, replay, sizes.rounds) / 100 * 1e6),
        "ask": figure("ask", asked * 1e6),
    }


def appending(device: Device, store: GraphStore, sizes: Sizes) -> Figures:
    """Batches of payments that lie on the device."""
    twin = DeviceStore(device, ROLES, store.role_type, store.capacity, store.window, nodes=store.ids.numbered)
    room, seconds = twin.room(sizes.batch), []
    for first in range(0, sizes.rows, sizes.batch):
        twin.stage(room, columns_of(store, np.arange(first, first + sizes.batch)))
        room.packed.put()
        wait(device.mark(), device.patience_s)
        seconds.append(once(device, lambda: twin.launch_append(room, sizes.batch)))
    same = twin.parts()["rows"][: sizes.rows].tobytes() == store.row_data[: sizes.rows].tobytes()
    if not same:
        raise AssertionError("the device's rows are not the CPU's")
    return {"append": figure("append", sizes.batch / float(np.median(seconds[1:])))}


def walking(device: Device, twin: DeviceStore, gather: float, sizes: Sizes) -> Figures:
    """Walking back from random rows, and features of as many."""
    rng = np.random.default_rng(0)
    with device.on():
        rows = device.xp.asarray(rng.integers(sizes.rows // 2, sizes.rows, sizes.readers))
        few = rows[: sizes.readers // 4]
    near = twin.neighbours(rows, K)
    with device.on():
        found = int((near >= 0).sum())
    seconds = timed(device, lambda: twin.neighbours(rows, K), sizes.rounds)
    described = timed(device, lambda: twin.features(few), sizes.rounds // 4)
    read = (found + sizes.readers) * row_dtype(len(ROLES)).itemsize / seconds / 1e9
    return {
        "walk_3x16": figure("walk_3x16", sizes.readers / seconds, {"neighbours found, of 48": found / sizes.readers}),
        "walk_share": figure("walk_share", read / gather, {"GB/s": read}),
        "describe": figure("describe", len(few) / described),
    }


def attending(device: Device, twin: DeviceStore, cache: str, gather: float, sizes: Sizes) -> Figures:
    """One layer over random rows, its neighbours' keys and values from all over the cache."""
    model = untrained(ROLES, cache=cache).net
    net = DeviceNet(twin, model)
    xp, c, b = device.xp, net.config, sizes.readers // 4
    with device.on():
        rows = xp.asarray(np.random.default_rng(1).integers(sizes.rows // 2, sizes.rows, b))
        x, h, logit = xp.zeros((b, c.inputs), np.float32), xp.zeros((b, c.width), np.float32), xp.zeros(b, np.float32)
    near = twin.neighbours(rows, K)
    edge = twin.edges(rows, near)
    with device.on():
        found = int((near >= 0).sum())
    nets = net.nets(graph=twin.reading(rows, near=near, edge=edge, x=x, depth=K), h=h, logit=logit)
    seconds = timed(device, lambda: net.attend(nets[1], b), sizes.rounds)
    plain = _plain(net, near, edge, h, model) if cache == "float32" else None
    read = found * 2 * c.width * net.cache.dtype.itemsize / seconds / 1e9
    name = f"attention_{cache}"
    return {
        name: figure(name, b / seconds, None if plain is None else {"the layer in plain PyTorch": plain}),
        f"{name}_share": figure(f"{name}_share", read / gather, {"GB/s of keys and values": read}),
    }


def _plain(net: DeviceNet, near: Any, edge: Any, h: Any, plain: RingwatchNet) -> float:
    """Payments/s of a layer as PyTorch runs it, on the very arrays, which it takes without a copy."""
    with net.device.on(), torch.inference_mode():
        near, edge, h, cache = (torch.from_dlpack(array) for array in (near, edge, h, net.cache))
        plain = plain.to(near.device).eval()
        serving.settle()
        times = []
        for _ in range(8):
            begin = time.perf_counter()
            kv = cache[1][near.clamp(min=0) % cache.shape[1]]
            plain.layer(1).attend(h, kv, near >= 0, edge)
            serving.settle()
            times.append(time.perf_counter() - begin)
    return len(near) / float(np.median(times[2:]))


def parts(device: Device, sizes: Sizes) -> Iterator[Callable[[], Figures]]:
    """What is measured, part by part: each gives some of `FIGURES`, and may be left out."""
    payments = stream(sizes.rows + sizes.run + (1 << 17), *sizes.entities, True, 0)
    entity, count = nodes(payments)
    payments = Stream(entity, payments.time, payments.amount)
    past, rest = _cut(payments, slice(0, sizes.rows)), _cut(payments, slice(sizes.rows, None))
    store, known = history(past, count, sizes), {"gather_128": 1.0}

    def limited() -> Figures:
        found = limits(device, sizes)
        known["gather_128"] = float(found["gather_128"].value or 1.0)
        return found

    yield limited
    yield lambda: appending(device, store, sizes)
    twin = DeviceStore(device, ROLES, store.role_type, store.capacity, store.window, nodes=store.ids.numbered)
    twin.adopt(store)
    yield lambda: walking(device, twin, known["gather_128"], sizes)
    for cache in CACHES:
        yield lambda cache=cache: attending(device, twin, cache, known["gather_128"], sizes)  # type: ignore[misc]
    yield lambda: serving.micro_batches(device, twin, rest, sizes)
    yield lambda: serving.replaying(device, twin, _cut(rest, slice(1 << 17, None)), sizes)
    yield lambda: serving.explaining(device, twin, sizes)
    yield lambda: serving.rescoring(device, twin, rest, sizes)
    yield lambda: serving.whole_history(device, store, sizes)
    if hasattr(device.xp, "cuda"):
        yield serving.training


def measure(
    device: Device, sizes: Sizes, seconds: float, keep: Callable[[Figures], object] = lambda figures: None
) -> Figures:
    """All figures, in one run on one card, as far as the time lasts; a part that fails is shown, and the rest goes on.

    Args:
        device: Where.
        sizes: How large the work is.
        seconds: After so many no further part is begun.
        keep: Told what there is after each part, so that nothing measured is lost if the run is cut off.
    """
    begin, found = time.monotonic(), {}
    for part in parts(device, sizes):
        if time.monotonic() - begin > seconds:
            print("gpu-check: no time is left for the rest")
            break
        try:
            found |= part()
        except Exception:
            traceback.print_exc()
            continue
        keep(found)
    return found


def _cut(payments: Stream, part: slice) -> Stream:
    return Stream(payments.entity[part], payments.time[part], payments.amount[part])
