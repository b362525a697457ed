"""From scores of several seeds to figures: means, intervals over seeds, goals, rivals beside them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.quality.contest import MEAN, OURS
from benchmarks.quality.oracle import LIMIT
from benchmarks.report import Figure, show, write

Table = dict[str, dict[str, list[float]]]  # entrant, measure, one value for each seed


def interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean and 95 % interval (Student) over seeds; without one where there is one seed."""
    mean, n = float(np.mean(values)), len(values)
    half = float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / n**0.5) if n > 1 else None
    bounds = {} if half is None else {"low": mean - half, "high": mean + half}
    return {"mean": mean, **bounds, "values": list(values)}


def figures_of(table: Table, goals: Mapping[str, float], prefix: str = "") -> dict[str, Figure]:
    """The model's figures, each with its goal and with what every rival reached."""
    found = {}
    for measure in table[OURS]:
        if measure not in goals and measure not in ("average_precision", "roc_auc", "card_precision_at_100"):
            continue
        peers = {
            n: float(np.mean(m[measure])) for n, m in table.items() if n not in (OURS, MEAN, LIMIT) and measure in m
        }
        value = float(np.mean(table[OURS][measure]))
        found[prefix + measure] = Figure(value, "1", goals.get(measure), "higher", peers or None)
    return found


def put(
    name: str,
    about: str,
    figures: Mapping[str, Figure],
    tables: Mapping[str, Table],
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write benchmarks/results/quality_<name>.json and print the figures.

    Args:
        name: Of the benchmark.
        about: What is trained on what and judged by what, for readers.
        figures: Reached or missed.
        tables: Every entrant's measures by variant; one variant may be nameless.
        facts: Anything else.
    """
    spread = {
        variant: {n: {m: interval(values) for m, values in of.items()} for n, of in table.items()}
        for variant, table in tables.items()
    }
    seeds = max((len(v) for t in tables.values() for of in t.values() for v in of.values()), default=0)
    write(f"quality_{name}", dict(figures), about=about, seeds=seeds, tables=spread, facts=dict(facts or {}))
    show(f"quality_{name}", dict(figures))
