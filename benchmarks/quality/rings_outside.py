"""Risk rings on transfers of a generator that this project did not write: benchmarks/results/ring_outside.json.

The folder holds transactions.parquet, labels.parquet and members.parquet (ring_id, account_id). The model is trained on
the first half of the time with default settings and scores everything; of each finder the best of a few settings is
chosen on the second quarter and judged on the second half, as of the end of each week: which accounts are in a group
that is listed, and how like the planted rings these groups are.

Example: python -m benchmarks.quality.rings_outside ../shared/datasets/amlgentex
"""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.quality.ring_rivals import Finder, components, fraudar, louvain, shared_devices_and_cards, ties
from benchmarks.quality.rings import fed
from benchmarks.report import ROOT, Figure, show, write
from data.history import History
from data.journal.protocol import Kind
from gnn.model.artifact import load
from gnn.score.replay import score_history
from gnn.train.targets import TrainConfig
from gnn.train.trainer import train
from graph.dag.protocol import DAY_US
from graph.rings.risk.engine import RiskRings, RiskSettings

CACHE = ROOT / "var" / "quality" / "rings_outside"
TAUS, SHARES = (0.02, 0.05, 0.1, 0.2), (0.0, 0.5)  # of risk rings: probability of a risky payment, confidence listed
RIVALS: dict[str, Finder] = {
    "tie rings: shared devices and cards": shared_devices_and_cards,
    "connected components": components,
    "Louvain": louvain,
    "Fraudar": fraudar,
}
LARGEST = (10, 30, 100, 10**9)  # accounts of a rival's group: larger ones are left out
OURS, ORACLE = "risk rings", "oracle: risk rings that know every reported fraud at once"
Groups = Callable[[int], list[set[str]]]


class Planted:
    """What the generator planted, and when each ring was at work."""

    def __init__(self, folder: Path, payments: History) -> None:
        table = payments.payments
        self.time = table["timestamp"].cast("int64").to_numpy()
        rings = pq.read_table(folder / "members.parquet").to_pydict()
        self.members: dict[str, set[str]] = {}
        for ring, account in zip(rings["ring_id"], rings["account_id"], strict=True):
            self.members.setdefault(ring, set()).add(account)
        of = pq.read_table(folder / "payment_rings.parquet").to_pydict()
        ring_of = dict(zip(of["transaction_id"], of["ring_id"], strict=True))
        self.at: dict[str, list[int]] = {}
        for name, moment in zip(table["transaction_id"].to_pylist(), self.time.tolist(), strict=True):
            if name in ring_of:
                self.at.setdefault(ring_of[name], []).append(moment)

    def active(self, at: int) -> list[set[str]]:
        """Members of the rings that were at work in the 30 days before a moment."""
        return [self.members[r] for r, times in self.at.items() if any(at - 30 * DAY_US < t <= at for t in times)]


def measured(planted: Planted, groups: Groups, moments: Iterable[int]) -> dict[str, float]:
    """Precision and recall of accounts, pooled over moments, and the mean best likeness (Jaccard) of planted rings."""
    hit = listed = there = 0
    alike: list[float] = []
    for at in moments:
        found, rings = groups(at), planted.active(at)
        inside, members = set().union(*found), set().union(*rings)
        hit, listed, there = hit + len(inside & members), listed + len(inside), there + len(members)
        alike += [max((len(g & r) / len(g | r) for g in found), default=0.0) for r in rings]
    precision, recall = hit / max(1, listed), hit / max(1, there)
    both = precision + recall
    return {
        "precision": precision,
        "recall": recall,
        "F1": 2 * precision * recall / both if both else 0.0,
        "Jaccard": float(np.mean(alike)) if alike else 0.0,
    }


def standing(rings: RiskRings, confidence: float, at: int) -> list[set[str]]:
    """Accounts of the rings that stood and were listed at a moment."""
    found = rings.records(as_of=at, confidence=confidence)
    return [set(r.accounts) for r in found if r.ended_at is None and r.confidence >= confidence]


def rival(history: History, time: NDArray[np.int64], find: Finder) -> Groups:
    """The groups of a rival at a moment; each moment is computed once."""
    kept: dict[int, list[set[str]]] = {}

    def groups(at: int) -> list[set[str]]:
        if at not in kept:
            kept[at] = find(ties(history.payments, time, at))
        return kept[at]

    return groups


def at_most(groups: Groups, largest: int, at: int) -> list[set[str]]:
    return [g for g in groups(at) if len(g) <= largest]


def chosen(planted: Planted, settings: dict[str, Groups], early: list[int], late: list[int]) -> dict[str, float]:
    """The setting that is best (F1 plus Jaccard) on the early moments, judged on the late ones."""

    def worth(groups: Groups) -> float:
        found = measured(planted, groups, early)
        return found["F1"] + found["Jaccard"]

    best = max(settings, key=lambda name: worth(settings[name]))
    print("chosen:", best, flush=True)
    return measured(planted, settings[best], late)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    history = History.read(folder / "transactions.parquet", folder / "labels.parquet")
    planted = Planted(folder, history)
    first, last = int(planted.time[0]), int(planted.time[-1])
    half, quarter = first + (last - first) // 2, first + (last - first) // 4
    kept = CACHE / folder.name
    if not (kept / "p.npy").exists():
        train(history.before(datetime.fromtimestamp(half / 1e6, UTC)), TrainConfig(test=0)).save(kept / "model")
        np.save(kept / "p.npy", score_history(load(kept / "model"), history))
    artifact, probability = load(kept / "model"), np.load(kept / "p.npy")
    early, late = list(range(quarter, half, 7 * DAY_US)), list(range(half + 7 * DAY_US, last, 7 * DAY_US))
    tables: dict[str, dict[str, float]] = {}
    ours = {tau: fed(history, artifact, probability, replace(RiskSettings(), tau=tau)) for tau in TAUS}
    settings = {f"tau {t}, confidence {c}": partial(standing, ours[t], c) for t in TAUS for c in SHARES}
    tables[OURS] = chosen(planted, settings, early, late)
    for name, find in RIVALS.items():
        groups = rival(history, planted.time, find)
        tables[name] = chosen(planted, {str(n): partial(at_most, groups, n) for n in LARGEST}, early, late)
        print(name, tables[name], flush=True)
    known = {i for i, fraud in zip(*_reported(history), strict=True) if fraud}
    ids = history.payments["transaction_id"].to_pylist()
    told = fed(history, artifact, np.array([float(i in known) for i in ids]))
    tables[ORACLE] = measured(planted, partial(standing, told, 0.0), late)
    rivals = [m for name, m in tables.items() if name not in (OURS, ORACLE)]
    figures = {
        f"accounts, {name}": Figure(
            tables[OURS][name], "1", max(m[name] for m in rivals) if name in ("F1", "Jaccard") else None, "higher",
            {other: m[name] for other, m in tables.items() if other != OURS},
        )
        for name in ("precision", "recall", "F1", "Jaccard")
    }  # fmt: skip
    write("ring_outside", figures, about=__doc__, facts={"data": folder.name, "weeks judged": len(late)})
    show("ring_outside", figures)


def _reported(history: History) -> tuple[list[str], list[bool]]:
    ids: list[str] = []
    fraud: list[bool] = []
    for events in history.events:
        if events.kind is Kind.LABEL:
            ids += events.batch.column("transaction_id").to_pylist()
            fraud += events.batch.column("is_fraud").to_pylist()
    return ids, fraud


if __name__ == "__main__":
    main()
