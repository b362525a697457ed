"""Runs that are kept, so that an interrupted benchmark goes on where it stopped.

A run is scores of test payments and a few facts, not metrics: those are worked out from the scores each time. It is
kept under the state of the sources that made it; other sources, another run.
"""

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import ROOT

Scores = dict[str, NDArray[Any]]
PACKAGES = ("data", "graph", "gnn")
# What judges, explains, exports or stores scores does not make them. Folders of these and single modules.
ASIDE = (
    "data/journal/sqlite",  # these benchmarks read events from files
    *("data/history", "graph/bridges", "graph/capacity", "graph/snapshot", "graph/rings/picture", "graph/device"),
    *("gnn/device", "gnn/score/cuda_scorer", "gnn/score/reasons", "gnn/score/rules", "gnn/score/shapley"),
    *("gnn/evaluate", "gnn/quality", "gnn/rivals/book", "gnn/rivals/comparison", "gnn/rivals/pyg"),
    "gnn/rivals/snapml",  # a rival of its own, whose runs no other needs
)
# What makes the model and none of its rivals: they need not run again while only the model changes.
MODEL = (
    *("gnn/model", "gnn/score"),
    *(f"gnn/train/{name}" for name in ("trainer", "feed", "pretrain", "prospects", "head")),
)


@cache
def sources(rivals: bool = False) -> str:
    """A digest of everything that enters a score, of the model or of its rivals, folders within folders included."""
    aside = (*ASIDE, *MODEL) if rivals else ASIDE
    digest = hashlib.sha256()
    for package in PACKAGES:
        for source in sorted((ROOT / package).rglob("*.py")):
            name = source.relative_to(ROOT).with_suffix("").as_posix()
            if not any(name == other or name.startswith(f"{other}/") for other in aside):
                digest.update(f"{name}\n".encode() + source.read_bytes())
    return digest.hexdigest()[:12]


def folder(bench: str, rivals: bool = False) -> Path:
    """Where a benchmark's runs by these sources are kept, and the models that made them."""
    return ROOT / "var" / "quality" / bench / sources(rivals)


def is_cached(bench: str, run: str, rivals: bool = False) -> bool:
    """Whether a run is there."""
    return (folder(bench, rivals) / f"{run}.npz").exists()


def cached_run(
    bench: str, run: str, make: Callable[[], tuple[Scores, dict[str, Any]]], rivals: bool = False
) -> tuple[Scores, dict[str, Any]]:
    """The scores and facts of a run, made only where they are not there yet.

    Args:
        bench: Name of the benchmark.
        run: Name of the run in it, such as `ours-0`.
        make: Makes them.
        rivals: Whether they are a rival's, which the model's own sources do not enter.
    """
    home = folder(bench, rivals)
    path = home / f"{run}.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as held:
            found = {name: held[name] for name in held.files}
        facts = json.loads(str(found.pop("facts")))
        print(f"{bench}: {run} was kept", flush=True)
        return found, facts
    print(f"{bench}: {run} ...", flush=True)
    scores, facts = make()
    home.mkdir(parents=True, exist_ok=True)
    partial = home / f".{run}.npz"
    np.savez_compressed(partial, facts=np.array(json.dumps(facts)), **scores)
    partial.rename(path)  # whole or not at all
    return scores, facts
