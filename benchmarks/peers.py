"""The rivals of the transaction store, each on the same stream of payments: append, and one sample for each payment.

A sample is the last 16 payments of each entity that the payment touches, or the nearest that the rival has to it; its
note says what it does more or less. Where there is a choice it is made in the rival's favour: it gets the entities
numbered from 0 without gaps, its input in its own format before the clock starts, the best of several batch sizes
(although payments of one batch then do not see each other, as they do in our store), and the beginning of the stream
alone, so that its graph is still small, and a window of 20 days is seldom full before the time is up.

Example: python -m benchmarks.peers --transactions 1000000
"""

import argparse
import functools
import gc
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import nlargest
from importlib.metadata import version
from importlib.util import find_spec
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import Figure, show
from graph.dag.features import WINDOW_NAMES, WINDOWS_US

PAYMENTS_PER_ENTITY = 16  # payments of each entity in a sample
SPAN_US = 60 * 86_400_000_000  # a stream lasts this long, whatever its length
ZIPF_EXPONENT = 1.05  # of the Zipf choice of entities
PAYMENTS_PER_DRAW = 1 << 20  # payments drawn at a time, so that no temporary is as long as the stream
MAX_RIVAL_PAYMENTS = 1_000_000  # payments given to a rival, at most
MAX_SECONDS = 6.0  # measured on the best configuration, at most; choosing it takes about as long
CORES = len(os.sched_getaffinity(0))
BATCHES = (64, 1024, 8192)  # above, few payments would see the one before them

Step = Callable[[int, int], Any]  # sample for payments first .. last, and append them
Build = Callable[["Stream", int], Step]  # for a stream and a batch size
Settings = dict[tuple[int, int], Build]  # by batch size and threads
Peer = Callable[["Stream"], "PeerResult"]


@dataclass(frozen=True)
class Stream:
    """Payments in order of time."""

    entity: NDArray[np.int32]  # [n, 3] account, merchant, device; numbered within each role from 0
    time: NDArray[np.int64]  # [n] us, non-decreasing
    amount: NDArray[np.int64]  # [n] minor units


@dataclass(frozen=True)
class PeerResult:
    """What one rival reached."""

    name: str
    rate: float  # payments/s, append + one sample for each; 0 where it did not run
    note: str  # what it does more or less than our store, or why it did not run
    version: str  # of its package
    payments: int = 0  # how many were measured
    setting: str = ""  # the best of those tried
    tried: dict[str, float] = field(default_factory=dict)  # payments/s of every setting, over a short trial


def stream(n: int, accounts: int, merchants: int, devices: int, zipf: bool, seed: int) -> Stream:
    """Draw `n` payments among so many entities of each role: a Zipf choice of exponent 1.05, or a uniform one."""
    rng = np.random.default_rng(seed)
    sizes = (accounts, merchants, devices)
    # Shuffled, so that popular entities do not share cache lines because their numbers are adjacent.
    numbers = [rng.permutation(size).astype(np.int32) for size in sizes]
    out = Stream(np.empty((n, 3), np.int32), np.empty(n, np.int64), np.empty(n, np.int64))
    power = 1 - ZIPF_EXPONENT
    clock = 0
    for first in range(0, n, PAYMENTS_PER_DRAW):
        m = min(PAYMENTS_PER_DRAW, n - first)
        here = slice(first, first + m)
        for r, size in enumerate(sizes):
            ranks = rng.integers(0, size, m)
            if zipf:  # by inversion of the continuous power law: a table would be as long as the entities
                x = (1 + rng.random(m) * ((size + 1) ** power - 1)) ** (1 / power)
                ranks = np.minimum(x.astype(np.int64) - 1, size - 1)
            out.entity[here, r] = numbers[r][ranks]
        out.time[here] = clock + np.cumsum(rng.integers(0, 2 * SPAN_US // n + 1, m))
        clock = int(out.time[first + m - 1])
        out.amount[here] = 1 + rng.lognormal(8, 1, m).astype(np.int64)
    return out


def head(payments: Stream, most: int) -> Stream:
    """The first payments, their entities numbered anew without gaps: a rival's tables are no longer than it needs."""
    entity = payments.entity[:most]
    columns = [np.unique(entity[:, r], return_inverse=True)[1] for r in range(3)]
    return Stream(np.stack(columns, 1).astype(np.int32), payments.time[:most], payments.amount[:most])


def nodes(payments: Stream) -> tuple[NDArray[np.int32], int]:
    """Entities of all roles in one numbering, int32 [n, 3], and how many numbers that takes."""
    sizes = payments.entity.max(0) + 1
    return (payments.entity + np.concatenate(([0], np.cumsum(sizes)[:-1]))).astype(np.int32), int(sizes.sum())


def pyg_steps(payments: Stream, batch: int, size: int = PAYMENTS_PER_ENTITY) -> Step:
    """`LastNeighborLoader` used as in PyG's TGN example: look up the batch's nodes once each, then insert its edges.

    An edge writes both its ends, and a payment has three. Account-merchant and device-sink give each entity one
    entry for each payment, so that `size` of them are its last `size` payments, as in our store; account-merchant and
    account-device would fill an account's table twice as fast. The edge number tells the payment.
    """
    import torch
    from torch_geometric.nn.models.tgn import LastNeighborLoader

    numbered, count = nodes(payments)
    touched = torch.from_numpy(numbered.astype(np.int64))
    loader = LastNeighborLoader(count + 1, size)
    loader.neighbors.zero_()  # left unset by the loader: its pages would be taken inside the measurement
    sink = torch.full((batch,), count)

    def step(first: int, last: int) -> Any:
        part = touched[first:last]
        found = loader(part.flatten().unique())
        loader.insert(torch.cat((part[:, 0], part[:, 2])), torch.cat((part[:, 1], sink[: last - first])))
        return found

    return step


def _torch(name: str, package: str, note: str, steps: Callable[..., Step], size: int, payments: Stream) -> PeerResult:
    """`_best` of every batch size, on one thread and on all cores."""
    import torch

    def build(part: Stream, batch: int, threads: int) -> Step:
        torch.set_num_threads(threads)
        return steps(part, batch, size)

    before = torch.get_num_threads()  # they are the whole process's
    settings = {(b, t): functools.partial(build, threads=t) for t in dict.fromkeys((1, CORES)) for b in BATCHES}
    try:
        return _best(name, package, note, settings, payments)
    finally:
        torch.set_num_threads(before)


def pyg_last_neighbor(payments: Stream, size: int = PAYMENTS_PER_ENTITY, most: int = MAX_RIVAL_PAYMENTS) -> PeerResult:
    """PyG's table of the last neighbours of each node, in PyTorch."""
    note = (
        "less: no time, amount or window; a sample for each entity of a batch, not for each payment; above 16 payments"
    )
    note += " of one in a batch not always its last, as its sort is not stable. More: GPU, relabelled subgraph"
    return _torch("PyG LastNeighborLoader", "torch-geometric", note, pyg_steps, size, head(payments, most))


def tgm_steps(payments: Stream, batch: int, size: int = PAYMENTS_PER_ENTITY) -> Step:
    """The recency hook, called on batches as its loader calls it, without the loader's own cost.

    Directed, an entry is written for the source alone, so each entity has one edge to the row number of each payment.
    The batch's number serves as time: the hook sorts by `node * (newest time + 1) + time` in 32 bits, which overflows
    with real times and mixes nodes; with one even time for the whole batch the keys of two nodes stay distinct.
    """
    import torch
    from tgm import DGBatch
    from tgm.hooks import RecencyNeighborHook

    numbered, count = nodes(payments)
    touched = torch.from_numpy(numbered)
    rows = torch.arange(len(numbered), dtype=torch.int32)
    hook = RecencyNeighborHook(count, [size], ["edge_src"], ["edge_time"], directed=True)
    graph: Any = SimpleNamespace(device=torch.device("cpu"), edge_x_dim=0)  # all that the hook asks of a graph

    def step(first: int, last: int) -> Any:
        source = touched[first:last].flatten()
        clock = torch.full((len(source),), 2 * (first // batch), dtype=torch.int64)
        event = DGBatch(edge_src=source, edge_dst=rows[first:last].repeat_interleave(3), edge_time=clock)
        return hook(graph, event).nbr_nids[0]

    return step


def tgm_recency(payments: Stream, size: int = PAYMENTS_PER_ENTITY, most: int = MAX_RIVAL_PAYMENTS) -> PeerResult:
    """TGM's circular buffers of recent neighbours, in PyTorch."""
    note = "less: row numbers alone, no amount, no window. More: GPU, neighbours before any time inside its buffer"
    return _torch("tgm recency sampler", "tgm-lib", note, tgm_steps, size, head(payments, most))


# Statistics are those of the amount (column 4); the package's own choice is the time stamp, of no use here. Its graph
# goes back as far as the longest window of a *pattern* (12 h for fan), and its vertex statistics no further, whatever
# their own window says, unless `time_window` is given.
PATTERNS = dict.fromkeys(("degree", "scatter-gather", "temp-cycle", "lc-cycle"), True)
SNAPML: dict[str, tuple[dict[str, Any], str]] = {  # settings, and what they do less or more
    "fan only": ({"vertex_stats": False}, "less: no device, no amounts, fans of 12 h alone"),
    "cheapest": ({"vertex_stats_feats": [1, 4]}, "less: no device, count and sum over 12 h alone. More: fans"),
    "default": ({}, "less: one window of 12 h. More: fans, variance, skew, kurtosis"),
    "20 days": ({"time_window": 480 * 3600}, "less: one window. More: fans, variance, skew, kurtosis"),
    "patterns": (PATTERNS, "less: one window. More: as 20 days, scatter-gather, and cycles (none can close here)"),
}


def snapml_edges(payments: Stream, setting: str) -> tuple[NDArray[np.float64], int]:
    """Edge list [n * edges, 5] as Snap ML takes it (id, source, target, s, amount), and edges for each payment.

    The lighter settings get one edge, which is less than our three roles: what Snap ML does at its fastest. The
    others get a device's edge to its account, then the account's to its merchant, so that accounts that share a
    device and pay one merchant form a scatter-gather pattern.
    """
    account, merchant, device = nodes(payments)[0].T
    pairs = [(account, merchant)] if setting in ("fan only", "cheapest") else [(device, account), (account, merchant)]
    k = len(pairs)
    edges = np.stack([np.stack((a, a, b, payments.time * 1e-6, payments.amount), 1) for a, b in pairs], 1)
    edges = edges.reshape(-1, 5)  # [n * k, 5], an account's edge after its device's
    edges[:, 0] = np.arange(len(edges))
    return edges, k


def snapml_steps(payments: Stream, batch: int, setting: str, threads: int) -> Step:
    """`transform` inserts a batch's edges, then describes each with all of them in place."""
    from snapml import GraphFeaturePreprocessor

    edges, k = snapml_edges(payments, setting)
    processor = GraphFeaturePreprocessor()
    processor.set_params({"num_threads": threads, "vertex_stats_cols": [4], **SNAPML[setting][0]})
    return lambda first, last: processor.transform(edges[first * k : last * k])


def snapml_gfp(payments: Stream, cheapest: bool, setting: str = "", most: int = MAX_RIVAL_PAYMENTS) -> PeerResult:
    """IBM's Graph Feature Preprocessor, in C++: the cheapest setting with amounts, the default one, or any named."""
    setting = setting or ("cheapest" if cheapest else "default")
    # Its threads wait for each other within every batch: several help in large batches on idle cores, if at all.
    builds: Settings = {
        (b, t): functools.partial(snapml_steps, setting=setting, threads=t)
        for b, t in ((16, 1), (128, 1), (2048, 1), (2048, CORES), (8192, CORES))
    }
    note = f"no neighbours, but statistics; {SNAPML[setting][1]}; counts the later payments of its batch too"
    return _best(f"Snap ML, {setting}", "snapml", note, builds, head(payments, most))


def networkx_steps(payments: Stream, batch: int, incidence: bool) -> Step:
    """Payments as edges account-merchant and account-device with the row number as key, or payments as nodes.

    The first is the multigraph as one would draw it: an entity's newest edges can only be had by looking at all of its
    edges. In the second a payment is a node tied to its entities; a node's neighbours stand in order of arrival, so
    the last are read from the end of the dictionary. `_adj` is read directly, as NetworkX's own algorithms do: the
    views in front of it cost several times more.
    """
    import networkx as nx

    numbered, count = nodes(payments)
    touched = numbered.tolist()
    graph = nx.MultiGraph()

    def newest(node: int) -> list[int]:
        near = graph._adj.get(node, {})
        if incidence:
            return [payment - count for payment in islice(reversed(near), PAYMENTS_PER_ENTITY)]
        # A set, as an account has both a merchant's and a device's edge for each payment.
        return nlargest(PAYMENTS_PER_ENTITY, {key for keys in near.values() for key in keys})

    def step(first: int, last: int) -> list[list[list[int]]]:
        found = []
        for row in range(first, last):
            account, merchant, device = entities = touched[row]
            found.append([newest(node) for node in entities])
            if incidence:
                graph.add_edges_from([(node, count + row) for node in entities])
            else:
                graph.add_edges_from([(account, merchant, row), (account, device, row)])
        return found

    return step


def networkx_multigraph(payments: Stream, incidence: bool = False, most: int = 200_000) -> PeerResult:
    """NetworkX in two forms: payments as edges, or as nodes beside their entities."""
    build = functools.partial(networkx_steps, incidence=incidence)
    name = f"NetworkX multigraph, payments as {'nodes' if incidence else 'edges'}"
    note = "less: row numbers alone, no expiry, kilobytes for a payment. More: any graph algorithm, payment by payment"
    gc.disable()  # it goes through the whole graph again and again, for up to a third of the time
    try:
        return _best(name, "networkx", note, {(1, 1): build}, head(payments, most))
    finally:
        gc.enable()


ROLES = ("account", "merchant", "device")


def duckdb_features(payments: Stream) -> Any:
    """Load the payments into DuckDB, query count and sum before each payment, and return the connection.

    The table `features` has `row`, and `{role}_count_{window}` and `{role}_sum_{window}` without the payment itself.
    Time is an integer: the same windows over TIMESTAMP with INTERVAL were 8-30 % slower when tried, and fetching the
    result was no faster than creating a table from it.
    """
    import duckdb
    import pyarrow as pa

    table = {role: payments.entity[:, r].copy() for r, role in enumerate(ROLES)}
    table |= {"time": payments.time, "amount": payments.amount, "row": np.arange(len(payments.time))}
    connection = duckdb.connect()
    connection.execute("SET preserve_insertion_order = false")
    connection.register("arrived", pa.table(table))
    connection.execute("CREATE TABLE payments AS SELECT * FROM arrived")
    columns, windows = ["row"], []
    for role in ROLES:
        for name, span in zip(WINDOW_NAMES, WINDOWS_US, strict=True):
            frame = f"RANGE BETWEEN {span} PRECEDING AND CURRENT ROW EXCLUDE CURRENT ROW"
            windows.append(f"{role}_{name} AS (PARTITION BY {role} ORDER BY time {frame})")
            columns.append(f"count(*) OVER {role}_{name} AS {role}_count_{name}")
            columns.append(f"coalesce(sum(amount) OVER {role}_{name}, 0) AS {role}_sum_{name}")
    query = f"SELECT {', '.join(columns)} FROM payments WINDOW {', '.join(windows)}"
    connection.execute(f"CREATE TABLE features AS {query}")
    return connection


def duckdb_windows(payments: Stream, most: int = MAX_RIVAL_PAYMENTS) -> PeerResult:
    """DuckDB's window functions: the velocity features of all payments at once."""
    part = head(payments, most)
    duckdb_features(head(part, 10_000)).close()  # to warm up
    begin = time.perf_counter()
    duckdb_features(part).close()
    rate = len(part.time) / (time.perf_counter() - begin)
    note = "count and sum over 4 windows of 3 roles, no neighbours; batch only: a new payment needs a new query; those "
    note += "of the same microsecond see each other. More: any SQL, larger than memory"
    return PeerResult(
        "DuckDB window queries", rate, note, version("duckdb"), len(part.time), f"one batch, threads {CORES}"
    )


def _best(name: str, package: str, note: str, builds: Settings, payments: Stream) -> PeerResult:
    """Try each setting shortly, then measure the fastest for each number of threads, and keep the better.

    Threads that meet at a barrier are ten times slower and worse as soon as something else runs on one of the cores
    (seen with PyTorch and Snap ML), so a good trial on all cores says little about the time after it.
    """
    tried: dict[tuple[int, int], float] = {}
    for (batch, threads), build in builds.items():
        for _ in (1, 2):  # twice, as the first call also takes the package's buffers and threads
            rate, _ = _rate(build, batch, payments, MAX_SECONDS / 15)
            tried[batch, threads] = max(rate, tried.get((batch, threads), 0.0))
    finals = [max((key for key in tried if key[1] == t), key=tried.__getitem__) for t in {t for _, t in tried}]
    results = {key: _rate(builds[key], key[0], payments, MAX_SECONDS / len(finals)) for key in finals}
    words = {key: f"batch {key[0]}, threads {key[1]}" for key in tried}
    rate, done, best = max((*result, words[key]) for key, result in results.items())
    return PeerResult(name, rate, note, version(package), done, best, {words[key]: r for key, r in tried.items()})


def _rate(build: Build, batch: int, payments: Stream, seconds: float) -> tuple[float, int]:
    """Payments a second, and how many, until `seconds` have passed or the stream ends."""
    step = build(payments, batch)
    done, n = 0, len(payments.time)
    begin = now = time.perf_counter()
    while done < n and now - begin < seconds:
        last = min(done + batch, n)
        step(done, last)
        done, now = last, time.perf_counter()
    return done / (now - begin), done


def peers() -> list[tuple[str, str, Peer]]:
    """Every rival: module, package and run."""
    return [
        ("torch_geometric", "torch-geometric", pyg_last_neighbor),
        ("tgm", "tgm-lib", tgm_recency),
        *(("snapml", "snapml", functools.partial(snapml_gfp, cheapest=False, setting=key)) for key in SNAPML),
        ("networkx", "networkx", networkx_multigraph),
        ("networkx", "networkx", functools.partial(networkx_multigraph, incidence=True)),
        ("duckdb", "duckdb", duckdb_windows),
    ]


def available() -> list[Peer]:
    """The rivals whose package is installed."""
    return [run for module, _, run in peers() if find_spec(module) is not None]


def compare(payments: Stream) -> list[PeerResult]:
    """Run the rivals one after the other; those that are not installed stand at the end, without a rate."""
    absent = dict.fromkeys(package for module, package, _ in peers() if find_spec(module) is None)
    return [run(payments) for run in available()] + [PeerResult(name, 0.0, "not installed", "") for name in absent]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transactions", type=int, default=MAX_RIVAL_PAYMENTS)
    n = parser.parse_args().transactions
    accounts, merchants = max(1, n // 10), max(1, n // 100)
    for kind in ("uniform", "zipf"):
        results = compare(stream(n, accounts, merchants, accounts, kind == "zipf", seed=1))
        names = {f"{r.name} {r.version} ({r.setting or r.note})": r for r in results}
        figures = {key: Figure(r.rate, "payments/s", None, "higher", {"of": r.payments}) for key, r in names.items()}
        show(f"append + one sample, {kind}", figures)
        for r in results:
            print(f"{r.name}: {r.note}. Tried: " + "; ".join(f"{key} {rate:,.0f}" for key, rate in r.tried.items()))


if __name__ == "__main__":
    main()
