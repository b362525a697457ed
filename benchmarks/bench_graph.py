"""Parquet with string ids into the graph, and the CPU scorer.

Example: python -m benchmarks.bench_graph --transactions 300000
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.report import Figure, show, write
from data.journal import Kind
from data.sources import merged, read_transactions
from data.synthetic import WorldConfig, simulate
from gnn.artifact import untrained
from gnn.replay import numbered, open_model
from graph.state import GraphState

ROLES = ("account", "merchant", "device")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transactions", type=int, default=300_000)
    n = parser.parse_args().transactions
    figures = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        simulate(WorldConfig(transactions=n, seed=1)).write(folder)
        path = folder / "transactions.parquet"
        rates: dict[str, list[float]] = {"graph": [], "read only": []}
        for _ in range(4):
            begin = time.perf_counter()
            for _ in read_transactions(path):
                pass
            rates["read only"].append(n / (time.perf_counter() - begin))
            begin = time.perf_counter()
            state = GraphState(ROLES)
            for events in numbered((Kind.TRANSACTION, batch) for batch in read_transactions(path)):
                state.apply(events)
            rates["graph"].append(n / (time.perf_counter() - begin))
        median = {key: float(np.median(values[1:])) for key, values in rates.items()}
        figures["parquet_to_graph"] = Figure(
            median["graph"], "payments/s", 300_000, "higher", {"read and check only": median["read only"]}
        )
        state, scorer = open_model(untrained(ROLES), rows=n)
        for events in numbered(merged(path)):
            state.apply(events)
    scorer.warm()
    begin = time.perf_counter()
    scorer.score(0, state.store.rows)
    figures["bulk_score"] = Figure(state.store.rows / (time.perf_counter() - begin), "payments/s", 10_000)
    for batch in (1, 64):
        times = []
        for i in range(300):
            first = n // 2 + i * batch
            begin = time.perf_counter()
            scorer.score(first, first + batch)
            times.append((time.perf_counter() - begin) * 1e3)
        figures[f"score_{batch}_p50"] = Figure(float(np.median(times)), "ms", None, "lower")
    write("graph", figures)
    show("graph", figures)


if __name__ == "__main__":
    main()
