"""The memory of a whole graph, rings, duplicate table and caches included, beside what `ringwatch capacity` plans.

Example: python -m benchmarks.bench_memory --transactions 10000000
"""

import argparse

import numpy as np
import pyarrow as pa

from benchmarks.bench_scale import SHARES, resident
from benchmarks.report import Figure, show, write
from data.journal.protocol import Events, Kind
from gnn.model.artifact import untrained
from gnn.model.cache import KeyValueCache
from graph.capacity import Deployment
from graph.dag.protocol import DAY_US, ROWS_PER_APPEND, Window
from graph.memory import reserve
from graph.state import GraphState
from serve.cli.capacity import capacity_lines
from tests.world import START_US, UTC_US, transactions

ROLES = tuple(SHARES)
OWN_DEVICE = 0.97  # share of payments from the account's own device, which few accounts share


def payments(first: int, n: int, sizes: dict[str, int], rng: np.random.Generator) -> tuple[pa.RecordBatch, np.ndarray]:
    """A batch of payments, half a second apart, and the pairs of account and device in it."""
    account = rng.integers(0, sizes["account"], n)
    device = np.where(rng.random(n) < OWN_DEVICE, account * sizes["device"] // sizes["account"], 0)
    device = np.where(device == 0, rng.integers(0, sizes["device"], n), device)
    number = {"account": account, "device": device, "merchant": rng.integers(0, sizes["merchant"], n)}
    columns = {
        "transaction_id": pa.array(np.arange(first, first + n)).cast(pa.string()),
        "timestamp": pa.array(START_US + np.arange(first, first + n) * 500_000).cast(UTC_US),
        "amount": pa.array(rng.integers(0, 100_000, n)),
        "currency": pa.array(np.full(n, "EUR")),
        **{f"{role}_id": pa.array(number[role]).cast(pa.string()) for role in ROLES},
    }
    return transactions(columns), account << 32 | device


def measure(n: int) -> tuple[dict[str, float], dict[str, float]]:
    """Bytes of each step as used, and as planned."""
    rng = np.random.default_rng(0)
    sizes = {role: max(100, int(share * n)) for role, share in SHARES.items()}
    artifact = untrained(ROLES, cache="int8")
    pairs = []
    before = resident()
    state = GraphState(ROLES, n + 2 * ROWS_PER_APPEND, Window(n, 90 * DAY_US))
    for first in range(0, n, ROWS_PER_APPEND):
        batch, tied = payments(first, min(ROWS_PER_APPEND, n - first), sizes, rng)
        state.apply(Events(Kind.TRANSACTION, first, batch))
        pairs.append(np.unique(tied))
    ties = len(np.unique(np.concatenate(pairs)))
    held = dict.fromkeys(ROLES, 0)
    for node in range(state.store.ids.numbered):  # entities that no payment has drawn are not there
        held[ROLES[state.store.ids.kind(node)]] += 1
    del batch, tied, pairs
    graph = resident()
    cache = KeyValueCache(artifact.config, artifact.net.weights().kv_scale, state.store)
    cache.data[:, :n], cache.depth[:n] = 1, artifact.config.layers
    scores = reserve(state.store.capacity, np.float64)
    scores[:n] = 0.5
    after = resident()
    lines = capacity_lines(Deployment(n, held, ROLES, ties=ties), artifact.config, 1)
    planned = {"all": sum(line.total for line in lines)}
    for name, starts in {"rings": ("rings",), "caches": ("keys", "last"), "duplicates": ("duplicate",)}.items():
        planned[name] = sum(line.total for line in lines if line.what.startswith(starts))
    entities = sum(held.values())
    used = {"all": after - before, "graph": graph - before, "caches": after - graph, "entities": entities, "ties": ties}
    used["process"] = before
    return used, planned


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transactions", type=int, default=10_000_000)
    n = parser.parse_args().transactions
    measure(100_000)  # compiles
    used, planned = measure(n)
    beside = {f"used, {name}, MB": used[name] / 1e6 for name in ("all", "graph", "caches")}
    beside |= {f"planned, {name}, MB": total / 1e6 for name, total in planned.items()}
    beside["the process before, MB"] = used["process"] / 1e6
    beside |= {"payments": n, "entities": used["entities"], "ties": used["ties"]}
    error = abs(planned["all"] / used["all"] - 1)
    figures = {"whole_graph_estimate_error": Figure(error, "share of memory used", 0.05, "lower", beside)}
    write("graph_memory", figures)
    show("graph_memory", figures)


if __name__ == "__main__":
    main()
