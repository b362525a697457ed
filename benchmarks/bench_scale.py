"""The store from 1 M to 100 M payments, beside the random reads that the machine can do at each footprint.

Times are those of the one thread on its core, as in `bench_graph`.

Example: python -m benchmarks.bench_scale --most 100000000
"""

import argparse
import ctypes
import gc
import time
from pathlib import Path

import matplotlib
import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure as Plot

from benchmarks.bench_graph import ROLES, K, on_core, read_rows
from benchmarks.report import ROOT, Figure, show, write
from graph.capacity import Deployment, estimate
from graph.dag.protocol import DAY_US, ROWS_PER_APPEND, Batch, Window
from graph.dag.sampler import walk
from graph.dag.store import GraphStore

matplotlib.use("Agg")
PICTURE = ROOT / "docs" / "graph_scale.png"
# What an append does beside writing 96 bytes in order: for each role it reads the entity's head, the jump of the row
# that the head points to and the jump of the row where that one leads, and it writes the head: that line goes back.
READS, WRITES = 9, 3
SHARES = {"account": 0.3, "merchant": 0.005, "device": 0.2}  # entities for each payment


def resident() -> int:
    """Bytes of this process in memory that it uses: what batches took and gave back is no part of a graph.

    The allocators of Arrow and of the C library keep up to a hundred megabytes of it for the next batch.
    """
    gc.collect()
    pa.default_memory_pool().release_unused()
    ctypes.CDLL(None).malloc_trim(0)
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no Rss in /proc/self/smaps_rollup")


def measure(n: int) -> dict[str, float]:
    """Rates at n payments, and what they take."""
    before = resident()
    entities = {role: max(100, int(share * n)) for role, share in SHARES.items()}
    store = GraphStore(ROLES, n + ROWS_PER_APPEND, Window(n, 3650 * DAY_US), entities=sum(entities.values()))
    first = []
    for kind, (role, many) in enumerate(entities.items()):
        first.append(store.ids.numbered)
        for i in range(0, many, 1 << 20):
            names = pa.array(np.arange(i, min(many, i + (1 << 20)))).cast(pa.string())
            store.ids.encode(kind, names)
        assert store.ids.numbered == first[-1] + many, role
    rng = np.random.default_rng(0)
    sizes, start = np.array(list(entities.values())), np.array(first)
    clock = 0
    category = np.zeros((1 << 20, 4), np.uint8)

    def appended(m: int) -> float:
        nonlocal clock
        entity = (rng.random((m, 3)) * sizes + start).astype(np.int32)
        moment = clock + np.cumsum(rng.integers(0, 50_000, m))
        clock = int(moment[-1])
        batch = Batch(entity, moment, rng.integers(0, 100_000, m), category[:m])
        begin = time.thread_time()
        store.append(batch, store.rows)
        return time.thread_time() - begin

    filling = [appended(min(1 << 20, n - i)) for i in range(0, n, 1 << 20)]
    del names
    used = resident() - before
    parts = estimate(Deployment(n, {role: entities[role] for role in ROLES}))
    planned = sum(p.total for p in parts if p.what.startswith(("row:", "jumps", "id index")))
    # Then as it goes on: the buffer is full, its memory taken, and each row takes the place of the oldest.
    more = min(n, 8 << 20) >> 20
    seconds = sum(appended(1 << 20) for _ in range(max(1, more)))
    at = rng.integers(0, n, 4_000_000)
    seeds = store.rows - 1 - rng.integers(0, n // 2, 1 << 16)
    near = np.zeros((len(seeds), 3, K), np.int64)
    rows = store.row_data[:n]
    limit, walked = on_core([lambda: read_rows(rows, at), lambda: walk(store.view, seeds, near)])
    reads = float((near >= 0).sum()) + len(seeds)
    return {
        "append": (max(1, more) << 20) / seconds,
        "filling": n / sum(filling),
        "seeds": len(seeds) / walked,
        "walk reads": reads / walked,
        "limit": len(at) / limit,
        "used": used,
        "planned": planned,
    }


def picture(found: dict[int, dict[str, float]]) -> None:
    """Reads a second against payments held."""
    plot = Plot(figsize=(8, 5), dpi=110)
    axes = plot.add_subplot()
    n = list(found)
    axes.plot(n, [found[i]["limit"] / 1e6 for i in n], "k--", label="random 64-byte reads, many in flight")
    axes.plot(n, [found[i]["walk reads"] / 1e6 for i in n], "o-", label="rows read by walks of 3 x 16")
    each = READS + WRITES
    axes.plot(n, [each * found[i]["append"] / 1e6 for i in n], "s-", label=f"random accesses of appends ({each} each)")
    axes.set(xscale="log", yscale="log", xlabel="payments held", ylabel="M reads/s, one core")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    plot.tight_layout()
    plot.savefig(PICTURE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=100_000_000)
    most = parser.parse_args().most
    sizes = [n for n in (1_000_000, 3_000_000, 10_000_000, 30_000_000, 100_000_000) if n <= most]
    measure(200_000)  # compiles
    found, figures = {}, {}
    for n in sizes:
        f = found[n] = measure(n)
        name = f"{n // 1_000_000}m"
        beside = {"limit, M reads/s": f["limit"] / 1e6, "append, M rows/s": f["append"] / 1e6}
        beside["walk, M seeds/s"] = f["seeds"] / 1e6
        figures[f"walk_of_limit_{name}"] = Figure(f["walk reads"] / f["limit"], "share", 0.6, "higher", beside)
        share = f["append"] / f["limit"]
        beside = {"its reads alone": READS * share, "while memory is first taken, M rows/s": f["filling"] / 1e6}
        figures[f"append_of_limit_{name}"] = Figure((READS + WRITES) * share, "share", 0.6, "higher", beside)
        if n >= 10_000_000:
            figures[f"estimate_error_{name}"] = Figure(
                abs(f["planned"] / f["used"] - 1),
                "share of memory used",
                0.05,
                "lower",
                {"used, GB": f["used"] / 1e9, "planned, GB": f["planned"] / 1e9},
            )
    picture(found)
    write("graph_scale", figures)
    show("graph_scale", figures)


if __name__ == "__main__":
    main()
