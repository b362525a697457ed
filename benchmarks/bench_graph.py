"""The transaction store beside the machine's own limits and beside its rivals, in one run.

Kernels of one thread, and the limits beside them, are timed by that thread's own time on its core, in turn: what else
runs on the machine then takes none of it, apart from its share of caches and memory. Everything else goes by the clock.

Example: python -m benchmarks.bench_graph --transactions 20000000
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.peers import BATCHES, CORES, Stream, compare, stream
from benchmarks.report import Figure, show, write
from data.files.sources import merged, read_transactions
from data.history import numbered
from data.jit import jit, prefetch, run_concurrently
from data.journal.protocol import Events, Kind
from data.schema import TRANSACTION_SCHEMA
from gnn.model.artifact import untrained
from gnn.model.kernels import prefetch_keys_values
from gnn.score.cpu_scorer import CpuScorer
from graph.dag.ids import USED
from graph.dag.protocol import DAY_US, ROWS_PER_APPEND, Batch, Window
from graph.dag.sampler import ROWS_PER_BLOCK, neighbours, walk
from graph.dag.store import GraphStore
from graph.memory import reserve
from graph.snapshot import restore, save
from graph.state import GraphState

ROLES = ("account", "merchant", "device")
K = 16
START_US = 1_700_000_000_000_000
READS_IN_FLIGHT = 64  # reads asked for ahead when the limit is measured


@jit()
def read_rows(rows: NDArray[np.void], at: NDArray[np.int64]) -> int:
    """Random reads of records, many in flight: what a walk could reach if it knew beforehand where it goes."""
    total = 0
    for i in range(at.shape[0]):
        if i + READS_IN_FLIGHT < at.shape[0]:
            prefetch(rows, at[i + READS_IN_FLIGHT])
        total += rows[at[i]].time
    return total


@jit()
def read_lines(lines: NDArray[np.int64], at: NDArray[np.int64]) -> int:
    """Random reads of whole lines of 64 bytes [n, 8], many in flight."""
    total = 0
    for i in range(at.shape[0]):
        if i + READS_IN_FLIGHT < at.shape[0]:
            prefetch(lines[at[i + READS_IN_FLIGHT]], 0)
        for j in range(8):
            total += lines[at[i], j]
    return total


@jit()
def gather(kv: NDArray[np.int64], near: NDArray[np.int64]) -> int:
    """Keys and values [n, 8] of all neighbours `near` [B, R, K], found as attention finds them, and nothing more."""
    total = 0
    for b in range(near.shape[0]):
        if b + 1 < near.shape[0]:
            prefetch_keys_values(kv, near[b + 1])
        for r in range(near.shape[1]):
            for k in range(near.shape[2]):
                if near[b, r, k] < 0:
                    break
                slot = near[b, r, k] % kv.shape[0]
                for j in range(8):
                    total += kv[slot, j]
    return total


def on_core(calls: Sequence[Callable[[], object]], rounds: int = 9) -> list[float]:
    """Seconds on its core of the median of some rounds of each call, in turn, after one round that warms up."""
    times = np.empty((rounds + 1, len(calls)))
    for i in range(rounds + 1):
        for j, call in enumerate(calls):
            begin = time.thread_time()
            call()
            times[i, j] = time.thread_time() - begin
    return [float(seconds) for seconds in np.median(times[1:], 0)]


def in_walked_order(seeds: NDArray[np.int64], near: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows that a walk reads, block by block and step by step as it does."""
    blocks = (
        near.reshape(-1, ROWS_PER_BLOCK, *near.shape[1:])
        .transpose(0, 3, 2, 1)
        .reshape(len(seeds) // ROWS_PER_BLOCK, -1)
    )
    rows = np.concatenate([seeds.reshape(-1, ROWS_PER_BLOCK), blocks], 1)
    return np.ascontiguousarray(rows[rows >= 0])


def best(call: Callable[[], object], rounds: int = 5) -> float:
    """Seconds of the median of some calls, after one that warms up."""
    times = []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return float(np.median(times[1:]))


def numbered_store(payments: Stream, velocity: bool) -> tuple[GraphStore, Callable[[], None]]:
    """A store for payments whose entities are numbered already, and what appends all of them from the start."""
    n, sizes = len(payments.time), payments.entity.max(0).astype(np.int64) + 1
    entity = payments.entity + np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int32)
    store = GraphStore(ROLES, n + ROWS_PER_APPEND, Window(n, 3650 * DAY_US), velocity=velocity)
    store.ids.meta[USED] = sizes.sum()
    category = np.zeros((n, 4), np.uint8)

    def fill() -> None:
        store.rows = store.clock = store.offsets.count = 0
        store.ids.head[: sizes.sum()] = 0
        for i in range(0, n, ROWS_PER_APPEND):
            part = slice(i, i + ROWS_PER_APPEND)
            store.append(Batch(entity[part], payments.time[part], payments.amount[part], category[part]), i)

    fill()  # pages are touched, and heads too
    return store, fill


def store_figures(kind: str, payments: Stream, figures: dict[str, Figure]) -> None:
    """Append and walk back; every rate beside the limit measured between its rounds."""
    n = len(payments.time)
    rng = np.random.default_rng(0)
    at = rng.integers(0, n, 4_000_000)
    for velocity in (True, False):
        store, fill = numbered_store(payments, velocity)
        size = store.row_data.itemsize + (store.velocity.itemsize if velocity else 0)
        blob = np.frombuffer(bytes(1 << 28), np.uint8)
        taken, seconds = on_core([lambda blob=blob: blob.copy(), fill], 3)
        copied, rate = (1 << 28) / taken / size, n / seconds
        name = f"append_{kind}" + ("_with_velocity" if velocity else "")
        beside = {"memory copy of as many bytes, M rows/s": copied / 1e6, "bytes a row": size}
        figures[name] = Figure(rate / 1e6, "M rows/s, one core", None if velocity else 10, "higher", beside)
    seeds = rng.integers(n // 2, n, 1 << 16)
    near = np.empty((len(seeds), len(ROLES), K), np.int64)
    walk(store.view, seeds, near)
    same = in_walked_order(seeds, near)
    rows = store.row_data[:n]
    limit_s, seconds, same_s = on_core(
        [lambda: read_rows(rows, at), lambda: walk(store.view, seeds, near), lambda: read_rows(rows, same)]
    )
    limit, reads = len(at) / limit_s, len(same)
    each = reads / len(seeds)
    beside = {"rows read for a seed": each, "as many random reads and nothing else, M seeds/s": limit / each / 1e6}
    figures[f"walk_{kind}"] = Figure(len(seeds) / seconds / 1e6, "M seeds/s, one core", 1.5, "higher", beside)
    beside = {"limit, M reads/s": limit / 1e6, "of the same rows, known beforehand": same_s / seconds}
    figures[f"walk_{kind}_of_limit"] = Figure(reads / seconds / limit, "share of random reads", 0.6, "higher", beside)
    view, one, times = store.view, [seeds[i : i + 1] for i in range(2000)], []
    neighbours(view, one[0], K)
    for seed in one:
        begin = time.perf_counter()
        neighbours(view, seed, K)
        times.append(time.perf_counter() - begin)
    quarters = {"lower quarter": float(np.quantile(times, 0.25) * 1e6), "mean": float(np.mean(times) * 1e6)}
    figures[f"walk_{kind}_one_seed"] = Figure(
        float(np.median(times) * 1e6), "us from Python, median", 8, "lower", quarters
    )
    kv = reserve((n, 8), np.int64)  # 64 bytes: int8 keys and values of a layer of width 32
    kv[:] = 1
    few = near[: 1 << 15]
    same = np.ascontiguousarray(few[few >= 0])
    limit_s, seconds, same_s = on_core(
        [lambda: read_lines(kv, at), lambda: gather(kv, few), lambda: read_lines(kv, same)]
    )
    limit, rate = len(at) / limit_s, len(same) / seconds
    beside = {"limit, M lines/s": limit / 1e6, "gathered, M lines/s": rate / 1e6}
    beside["of the same lines, known beforehand"] = same_s / seconds
    figures[f"gather_{kind}_of_limit"] = Figure(rate / limit, "share of random reads", 0.6, "higher", beside)


def sampled(payments: Stream, batch: int, threads: int) -> float:
    """Payments a second, appended and sampled in batches: by one kernel after the other, or as callers have all cores.

    Those append a batch while they walk back from the one before: rows do not change once they are there, and a view
    knows which of them it may read.
    """
    n = len(payments.time) // batch * batch
    store, _ = numbered_store(payments, velocity=False)
    entity = store.row_data["entity"][:n].copy()
    category = np.zeros((n, 4), np.uint8)
    near = np.empty((batch, len(ROLES), K), np.int64)

    def append(first: int) -> None:
        part = slice(first, min(n, first + batch))
        store.append(Batch(entity[part], payments.time[part], payments.amount[part], category[part]), first)

    def run() -> None:
        store.rows = store.clock = store.offsets.count = 0
        store.ids.head[: store.ids.numbered] = 0
        append(0)
        for after in range(batch, n + 1, batch):  # behind the last batch there is nothing to append
            view, seeds = store.view, np.arange(after - batch, after)
            if threads == 1:
                walk(view, seeds, near)
                append(after)
            else:
                run_concurrently(lambda v=view, s=seeds: neighbours(v, s, K), lambda a=after: append(a), batch)

    return n / best(run, 3)


def peer_figures(kind: str, payments: Stream, figures: dict[str, Figure]) -> None:
    settings = {f"ours, batch {b}, threads {t}": (b, t) for t in (1, CORES) for b in BATCHES}
    ours = {name: sampled(payments, *setting) for name, setting in settings.items()}
    found = {f"{peer.name} {peer.version} ({peer.setting})": peer.rate for peer in compare(payments)}
    top = max(found.values())
    beside = {name: rate / 1e6 for name, rate in {**found, **ours}.items()}
    figures[f"append_and_sample_{kind}"] = Figure(max(ours.values()) / 1e6, "M payments/s", None, "higher", beside)
    store, _ = numbered_store(payments, velocity=False)
    n = len(payments.time)
    near = store.neighbours(np.arange(n), K)
    rows, at = store.row_data[:n], np.random.default_rng(0).integers(0, n, 4_000_000)
    reads = CORES * len(at) / on_core([lambda: read_rows(rows, at)])[0]
    each = 1 + float((near >= 0).sum()) / n
    beside = {"as many random reads on all cores and nothing else": reads / each / top, "rows read for a payment": each}
    ratio = max(ours.values()) / top
    figures[f"append_and_sample_{kind}_over_best_peer"] = Figure(ratio, "ratio", 10, "higher", beside)


def named(payments: Stream) -> pa.Table:
    """The payments with string ids, as a user's file has them."""
    n = len(payments.time)
    columns: dict[str, Any] = {
        "transaction_id": pa.array(np.arange(n)).cast(pa.string()),
        "timestamp": pa.array(START_US + payments.time).cast(pa.timestamp("us", tz="UTC")),
        "amount": pa.array(payments.amount),
        "currency": pa.repeat("EUR", n),
        **{f"{role}_id": pa.array(payments.entity[:, r]).cast(pa.string()) for r, role in enumerate(ROLES)},
    }
    return pa.table([columns.get(f.name, pa.nulls(n, f.type)) for f in TRANSACTION_SCHEMA], TRANSACTION_SCHEMA)


class _NoRings:
    """Stands in for the ring engine where the store alone is measured."""

    safe = 0

    def announce(self, last: int) -> None: ...
    def extend(self, first: int, last: int) -> None: ...
    def forget(self, nodes: NDArray[np.int32]) -> None: ...


def file_figures(payments: Stream, folder: Path, figures: dict[str, Figure]) -> None:
    """Parquet with string ids to the graph, both cores."""
    n, path = len(payments.time), folder / "t.parquet"
    pq.write_table(named(payments), path)

    def load(rings: bool, order: bool) -> GraphState:
        state = GraphState(ROLES, n + ROWS_PER_APPEND, Window(n, 3650 * DAY_US), entities=400_000)
        if not rings:
            state.rings = _NoRings()  # type: ignore[assignment]
        runs = (
            merged(path, chunk=ROWS_PER_APPEND)
            if order
            else ((Kind.TRANSACTION, b) for b in ahead(read_transactions(path)))
        )
        for events in numbered(runs):
            state.apply(events)
        return state

    from data.files.readers import read_ahead as ahead

    seconds = {
        name: best(lambda a=arguments: load(*a), 3)
        for name, arguments in {
            "store": (False, False),
            "store, in the journal's order": (False, True),
            "all": (True, True),
        }.items()
    }
    read = best(lambda: sum(len(b) for b in read_transactions(path)), 3)
    figures["parquet_to_store"] = Figure(
        n / seconds["store"] / 1e6, "M payments/s", 1.5, "higher", {"read and check only": n / read / 1e6}
    )
    figures["parquet_merged_to_store"] = Figure(n / seconds["store, in the journal's order"] / 1e6, "M payments/s")
    figures["parquet_to_graph_with_rings"] = Figure(n / seconds["all"] / 1e6, "M payments/s", 0.3)
    state = load(True, True)
    begin = time.perf_counter()
    saved = save(state, folder / "snapshots")
    wrote = time.perf_counter() - begin
    used = sum(length for part in saved.glob("*.bin") for length in [part.stat().st_blocks * 512])
    verified = best(lambda: restore(saved), 3)
    mapped = best(lambda: restore(saved, verify=False), 3)
    figures["snapshot_write"] = Figure(used / wrote / 1e9, "GB/s", None, "higher", {"GB": used / 1e9})
    figures["snapshot_restore"] = Figure(mapped, "s", None, "lower", {"with every checksum": verified})


def score_figures(payments: Stream, figures: dict[str, Figure]) -> None:
    """The scorer over the store, float32 and int8 keys and values."""
    n = min(len(payments.time), 200_000)
    batch = named(Stream(payments.entity[:n], payments.time[:n], payments.amount[:n])).combine_chunks().to_batches()[0]
    for cache in ("float32", "int8"):
        state = GraphState(ROLES, n + ROWS_PER_APPEND, Window(n, 90 * DAY_US))
        state.apply(Events(Kind.TRANSACTION, 0, batch))
        scorer = CpuScorer(untrained(ROLES, cache=cache), state)
        scorer.warm()
        begin = time.perf_counter()
        scorer.score(0, n)
        figures[f"bulk_score_{cache}"] = Figure(n / (time.perf_counter() - begin), "payments/s", 10_000)
        while scorer.fill(n):
            pass
        for size in (1, 64):
            rows = [np.arange(n // 2 + i * size, n // 2 + (i + 1) * size) for i in range(300)]
            times = []
            for some in rows:
                begin = time.perf_counter()
                scorer.logits(some)
                times.append((time.perf_counter() - begin) * 1e3)
            figures[f"score_{size}_p50_{cache}"] = Figure(float(np.median(times)), "ms", None, "lower")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transactions", type=int, default=20_000_000)
    parser.add_argument("--no-peers", action="store_true", help="leave the rivals out")
    some = parser.add_mutually_exclusive_group()
    some.add_argument("--files-only", action="store_true", help="files, snapshots and the scorer alone")
    some.add_argument("--store-only", action="store_true", help="the store and its rivals alone")
    options = parser.parse_args()
    n = options.transactions
    kinds = () if options.files_only else ("uniform", "zipf")
    figures: dict[str, Figure] = {}
    for kind in kinds:
        store_figures(kind, stream(n, n // 10, n // 200, n // 13, kind == "zipf", 0), figures)
    if figures:
        write("graph", figures)
        show("graph", figures)
    rivals: dict[str, Figure] = {}
    for kind in () if options.no_peers else kinds:
        few = min(n, 1_000_000)
        peer_figures(kind, stream(few, few // 10, few // 100, few // 10, kind == "zipf", 0), rivals)
    if rivals:
        write("graph_peers", rivals)
        show("graph_peers", rivals)
    if options.store_only:
        return
    payments, figures = stream(min(n, 2_000_000), 150_000, 10_000, 120_000, False, 1), {}
    with tempfile.TemporaryDirectory() as folder:
        file_figures(payments, Path(folder), figures)
    score_figures(payments, figures)
    write("graph_files", figures)
    show("graph_files", figures)


if __name__ == "__main__":
    main()
