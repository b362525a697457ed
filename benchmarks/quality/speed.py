"""What a trained model costs: time to train it, and to score payments one by one and 64 together, cache filled."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.contest import Contest
from benchmarks.report import Figure
from data.journal.protocol import Events, Kind
from gnn.model.artifact import load
from gnn.score.replay import open_model

TIMED = {1: 1000, 64: 200}  # micro-batches by size


def speed(contest: Contest, model: Path, facts: Mapping[str, Any]) -> dict[str, Figure]:
    """Figures of one run.

    Args:
        contest: Whose history the model is timed on: its last payments, all before them in the graph.
        model: Folder of the artifact.
        facts: Of the run that trained it.
    """
    payments = len(contest.train.payments)
    found = {
        "training_s_a_million": Figure(
            facts["training_s"] / payments * 1e6, "s, of payments, graph and head included", 600, "lower"
        )
    }
    total = len(contest.test.payments)
    state, scorer = open_model(load(model), "cpu", total)
    scorer.warm()
    first = total - sum(size * times for size, times in TIMED.items())  # the first payment that is timed
    spent: dict[int, list[float]] = {size: [] for size in TIMED}
    seen, filled = 0, False
    for events in contest.test.events:
        if events.kind is not Kind.TRANSACTION:
            state.apply(events)
            continue
        at = min(len(events.batch), max(0, first - seen))
        seen += len(events.batch)
        state.apply(Events(events.kind, events.offset, events.batch.slice(0, at)))
        if at < len(events.batch) and not filled:
            # As after a start: the rows that are there are missing in the cache, and are filled in the background.
            scorer.cache.complete_from = scorer.cache.upto = state.store.rows
            while scorer.fill(1 << 14):
                pass
            filled = True
        while at < len(events.batch):
            size = next((size for size, times in TIMED.items() if len(spent[size]) < times), max(TIMED))
            rows = state.apply(Events(events.kind, events.offset + at, events.batch.slice(at, size)))
            begin = time.perf_counter()
            scorer.score(rows.start, rows.stop)
            if len(rows) == size:
                spent[size].append(time.perf_counter() - begin)
            at += len(rows)
    for size, goal in ((1, 0.15), (64, 2.0)):
        beside = {"p99, ms": float(np.quantile(spent[size], 0.99)) * 1e3}
        found[f"score_{size}_p50"] = Figure(
            float(np.median(spent[size])) * 1e3, "ms, head included", goal, "lower", beside
        )
    return found
