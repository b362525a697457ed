"""What a trained model costs: time to train it, and to score payments one by one and 64 together, cache filled."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.contest import Contest
from benchmarks.report import Figure
from data.journal import Events, Kind
from gnn.artifact import load
from gnn.replay import numbered, open_model

TIMED = {1: 1000, 64: 40}  # micro-batches by size


def speed(contest: Contest, model: Path, facts: Mapping[str, Any]) -> dict[str, Figure]:
    """Figures of one run.

    Args:
        contest: Whose history the model is timed on: its last payments, all before them in the graph.
        model: Folder of the artifact.
        facts: Of the run that trained it.
    """
    payments = sum(len(batch) for kind, batch in contest.train if kind is Kind.TRANSACTION)
    found = {
        "training_s_a_million": Figure(
            facts["training_s"] / payments * 1e6, "s, of payments, graph and head included", 600, "lower"
        )
    }
    artifact = load(model)
    state, scorer = open_model(artifact, "cpu", sum(len(b) for k, b in contest.test if k is Kind.TRANSACTION))
    events = list(numbered(contest.test))
    last = max(i for i, e in enumerate(events) if e.kind is Kind.TRANSACTION)
    tail = events[last]
    left = sum(size * times for size, times in TIMED.items())
    head = len(tail.batch) - left
    for before in [*events[:last], Events(tail.kind, tail.offset, tail.batch.slice(0, head))]:
        state.apply(before)
    # As after a start: the rows that are there are missing in the cache, and are filled in the background.
    scorer.cache.complete_from = scorer.cache.upto = state.store.rows
    while scorer.fill(1 << 14):
        pass
    at = head
    for size, times in TIMED.items():
        spent = []
        for _ in range(times):
            rows = state.apply(Events(tail.kind, tail.offset + at, tail.batch.slice(at, size)))
            begin = time.perf_counter()
            scorer.score(rows.start, rows.stop)
            spent.append(time.perf_counter() - begin)
            at += size
        beside = {"p99, ms": float(np.quantile(spent, 0.99)) * 1e3}
        goal = {1: 0.15, 64: 2.0}[size]
        found[f"score_{size}_p50"] = Figure(float(np.median(spent)) * 1e3, "ms, head included", goal, "lower", beside)
    return found
