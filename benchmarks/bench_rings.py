"""What it costs to keep risk rings current: benchmarks/results/rings.json.

Example: python -m benchmarks.bench_rings --payments 2000000
"""

import argparse
import time

import numpy as np

from benchmarks.report import Figure, rebuild, show, write
from graph.dag.protocol import DAY_US, Batch, Window
from graph.dag.store import GraphStore
from graph.rings.risk.communities import louvain
from graph.rings.risk.engine import RiskRings
from graph.rings.risk.touched import gather

ROLES = ("account", "merchant", "device", "card", "payee")
TYPES = (0, 1, 2, 3, 0)
RISKY = 0.01
MEMBERS = 500


def stream(rng: np.random.Generator, n: int, start: int, step_us: float) -> Batch:
    """Payments of many accounts at merchants of very different sizes."""
    accounts, merchants = n // 28 + 1000, n // 110 + 100
    account = rng.integers(0, accounts, n)
    merchant = (merchants * rng.random(n) ** 3).astype(np.int64)
    device = account + (rng.random(n) < 0.1)
    payee = np.where(rng.random(n) < 0.1, rng.integers(0, accounts, n), -1)
    base = np.array([0, accounts, accounts + merchants, 2 * accounts + merchants + 2, 0])
    entity = np.stack([account, merchant, device, account, payee], axis=1)
    entity = np.where(entity >= 0, entity + base, -1).astype(np.int32)
    moment = start + np.cumsum(rng.exponential(step_us, n)).astype(np.int64)
    return Batch(entity, moment, rng.integers(100, 10_000, n), np.zeros((n, 4), np.uint8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--payments", type=int, default=2_000_000, help="In the window; twice as many are fed.")
    n = parser.parse_args().payments
    rng = np.random.default_rng(0)
    total = 2 * n
    store = GraphStore(ROLES, 1 << (total + n).bit_length(), Window(total + 1, 30 * DAY_US), velocity=False)
    batch = stream(rng, total, 1_767_225_600_000_000, 30 * DAY_US / n)
    nodes = int(batch.entity.max()) + 1
    kinds = np.zeros(nodes, np.uint64)
    for r, kind in enumerate(TYPES):
        used = batch.entity[:, r]
        kinds[used[used >= 0]] = kind
    store.ids.meta[0] = store.ids.meta[2] = nodes + 2 * MEMBERS  # numbered without names
    store.ids.digests[:nodes, 1] = kinds
    members = np.arange(nodes, nodes + MEMBERS, dtype=np.int32)
    hubs = np.arange(nodes + MEMBERS, nodes + MEMBERS + 40, dtype=np.int32)
    store.ids.digests[hubs, 1] = 2
    rings = RiskRings(store)
    rings.extend(store.append(Batch(*(c[:1000] for c in batch)), 0), np.zeros(1000))  # compiles
    rest = Batch(*(c[1000:] for c in batch))
    spent, second_half = 0.0, 0.0
    for start in range(0, total - 1000, 1 << 16):
        part = Batch(*(c[start : start + (1 << 16)] for c in rest))
        rows = store.append(part, 1000 + start)
        scores = np.where(rng.random(len(rows)) < RISKY, rng.uniform(0.2, 1, len(rows)), 0.01)
        begin = time.perf_counter()
        rings.extend(rows, scores)
        took = time.perf_counter() - begin
        spent += took
        second_half += took if start >= n else 0.0
    each = []
    clock = int(batch.time[-1])
    for i in range(6 * MEMBERS):
        hub = hubs[rng.integers(0, 4)]
        entity = np.array([[members[i % MEMBERS], batch.entity[i, 1], hub, -1, -1]], np.int32)
        rows = store.append(
            Batch(entity, np.array([clock + i]), np.array([100]), np.zeros((1, 4), np.uint8)), total + i
        )
        begin = time.thread_time()
        rings.extend(rows, np.array([0.9]))
        each.append(time.thread_time() - begin)
    touched = np.array(each[3 * MEMBERS :]) * 1e6
    t = rings._t
    size = int(t.rings["accounts"].max())
    accounts = np.flatnonzero(t.entities["first_own"]).astype(np.int64)
    begin = time.thread_time()
    part = gather(t, rings.rules, accounts, len(accounts))
    louvain(len(part.node), part.a, part.b, part.weight, rings.rules.resolution)
    static = (time.thread_time() - begin) * 1e6
    figures = {
        "payment": Figure(second_half / (total - 1000 - n) * 1e6, "us, with a full window", 5.0, "lower"),
        "touched.p50": Figure(float(np.quantile(touched, 0.5)), "us of processor time", None, "lower"),
        "touched.p99": Figure(float(np.quantile(touched, 0.99)), "us of processor time", 1000.0, "lower"),
        "touched.members": Figure(float(size), "accounts in that ring"),
        "static": Figure(
            static, "us, all communities anew", None, "lower", {"ratio": static / float(np.median(touched))}
        ),
    }
    write("rings", figures, payments=n, risky=RISKY)
    show("rings", figures)
    rebuild()


if __name__ == "__main__":
    main()
