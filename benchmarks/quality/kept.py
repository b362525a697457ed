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
# What judges, explains, exports or stores scores does not make them.
ASIDE: dict[str, tuple[str, ...]] = {
    "gnn": (
        "audit",
        "leaks",
        "card",
        "evaluate",
        "jobs",
        "against",
        "baselines",
        "explain",
        "groups",
        "shift",
        "prequential",
        "snapml",  # a rival of its own, whose runs no other needs
        *("cuda", "device_batch", "device_bulk", "device_net"),  # these benchmarks run on the CPU
    ),
    "graph": (
        *("bridges", "draw", "capacity", "snapshot"),
        *("cuda_device", "device", "device_labels", "device_room", "launch", "twin", "waiting"),
    ),
    "data": ("journal",),  # these benchmarks read events from files
}
# What makes the model and none of its rivals: they need not run again while only the model changes.
MODEL = (
    *("model", "train", "feed", "pretrain", "prospects", "head", "trees"),
    *("kernels", "scorer", "engines", "cache", "artifact"),
)


@cache
def sources(rivals: bool = False) -> str:
    """A digest of everything that enters a score, of the model or of its rivals."""
    digest = hashlib.sha256()
    for package, aside in ASIDE.items():
        for source in sorted((ROOT / package).glob("*.py")):
            if source.stem not in aside and not (rivals and package == "gnn" and source.stem in MODEL):
                digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


def folder(bench: str, rivals: bool = False) -> Path:
    """Where a benchmark's runs by these sources are kept, and the models that made them."""
    return ROOT / "var" / "quality" / bench / sources(rivals)


def is_kept(bench: str, run: str, rivals: bool = False) -> bool:
    """Whether a run is there."""
    return (folder(bench, rivals) / f"{run}.npz").exists()


def kept(
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
