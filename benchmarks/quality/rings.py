"""How well risk rings are found on worlds the model never saw: benchmarks/results/ring_quality.json and docs/rings.md.

Example: python -m benchmarks.quality.rings

The model is trained on four made worlds of `WorldConfig.hard`, at 100,000 payments each, and judged on others. Model
and scores are kept under var/quality/rings.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.quality.histories import _prefixed
from benchmarks.quality.ring_rivals import Finder, components, fraudar, louvain, shared_devices_and_cards, ties
from benchmarks.report import RESULTS, ROOT, Figure, show, write
from data.history import History
from data.journal.protocol import SCHEMAS, Events, Kind
from data.world.synthetic import WorldConfig, simulate
from gnn.model.artifact import Artifact, load
from gnn.score.replay import capacity_for, score_history
from gnn.train.targets import TrainConfig
from gnn.train.trainer import train
from graph.dag.protocol import DAY_US
from graph.rings.records import LISTED
from graph.rings.risk.engine import DEFAULT, RiskRings, RiskSettings
from graph.rings.risk.feed import one_by_one
from graph.state import GraphState
from serve.decide.standing import RingStanding

SIZE = 100_000
TEACHING, JUDGING = range(101, 105), range(307, 309)  # 301 to 306 were looked at while the engine was made
FOLDER = ROOT / "var" / "quality" / "rings"
AFTER = 3 * DAY_US  # a ring is judged so long after its last fraud
OURS, ORACLE = "risk rings", "oracle: knows every fraud at once"
RIVALS = {
    "tie rings: shared devices and cards": shared_devices_and_cards,
    "connected components": components,
    "Louvain": louvain,
    "Fraudar": fraudar,
}
ALL, OTHERS, FRAUDS = "honest_payments_with_ring", "honest_payments_of_others_with_ring", "frauds_with_ring"
PAGE = ROOT / "docs" / "rings.md"
Group = tuple[str, set[str], float]  # id, accounts, confidence


def world(seed: int) -> Path:
    folder = FOLDER / f"world_{seed}"
    if not (folder / "members.parquet").exists():
        simulate(replace(WorldConfig.hard(seed), transactions=SIZE)).write(folder)
    return folder


def model() -> Path:
    """A model taught by other worlds side by side."""
    path = FOLDER / "model"
    if not (path / "manifest.json").exists():
        parts = {}
        for name, moment in (("transactions", "timestamp"), ("labels", "reported_at")):
            tables = [_prefixed(pq.read_table(world(seed) / f"{name}.parquet"), f"{seed}.") for seed in TEACHING]
            parts[name] = pa.concat_tables(tables).sort_by(moment)
        end = WorldConfig.hard(0).start + timedelta(days=90)
        history = History.from_arrow(parts["transactions"], parts["labels"]).before(end)
        train(history, TrainConfig(test=0.0, pretraining=0, epochs=6)).save(path)
    return path


def scores(seed: int) -> np.ndarray:
    path = world(seed) / "p.npy"
    if not path.exists():
        np.save(path, score_history(load(model()), history_of(seed)))
    return np.load(path)


def history_of(seed: int) -> History:
    return History.read(world(seed) / "transactions.parquet", world(seed) / "labels.parquet")


class Truth:
    """What the generator planted in a world."""

    def __init__(self, seed: int) -> None:
        truth = pq.read_table(world(seed) / "truth.parquet")
        payments = pq.read_table(world(seed) / "transactions.parquet")
        self.payments = payments
        self.time = payments["timestamp"].cast(pa.int64()).to_numpy()
        self.fraud = truth["is_fraud"].to_numpy(zero_copy_only=False)
        self.members: dict[str, set[str]] = defaultdict(set)
        self.kind: dict[str, str] = {}
        for row in pq.read_table(world(seed) / "members.parquet").to_pylist():
            self.members[row["ring_id"]].add(row["account_id"])
            self.kind[row["ring_id"]] = row["kind"]
        self.frauds: dict[str, list[int]] = defaultdict(list)
        for ring, time, fraud in zip(truth["ring_id"].to_pylist(), self.time.tolist(), self.fraud, strict=True):
            if ring and fraud:
                self.frauds[ring].append(time)
        self.everybody = set().union(*self.members.values())
        self.accounts = len(set(payments["account_id"].to_pylist()))

    def is_ring(self, accounts: set[str]) -> bool:
        """Whether at least half of these accounts belong to one planted ring."""
        return any(2 * len(accounts & members) >= len(accounts) for members in self.members.values())


def run(seed: int, probability: np.ndarray) -> RiskRings:
    """Feed a world."""
    return fed(history_of(seed), load(model()), probability)


def fed(
    history: History, artifact: Artifact, probability: NDArray[np.floating], settings: RiskSettings = DEFAULT
) -> RiskRings:
    """Feed the engine a history with these scores."""
    window = artifact.config.window
    state = GraphState(artifact.roles, capacity_for(len(probability), window), window, history)
    rings = RiskRings(state.store, history, settings)
    for events in history.events:
        for part in one_by_one(events):
            rows = state.apply(part)
            if part.kind is Kind.TRANSACTION:
                rings.extend(rows, probability[rows.start : rows.stop])
                continue
            at = state.transaction_rows(part.batch.column("transaction_id"))
            believed = np.full(len(at), -1, np.int8)
            believed[at >= 0] = state.store.believed(at[at >= 0])
            rings.relabel(at, believed, part.batch.column("reported_at").cast(pa.int64()).to_numpy())
    return rings


def standing(rings: RiskRings, at: int) -> list[Group]:
    """Rings that stood and were listed at a moment, the surest first."""
    found = [
        (r.id, set(r.accounts), r.confidence)
        for r in rings.records(as_of=at, confidence=LISTED)
        if r.ended_at is None and r.confidence >= LISTED
    ]
    return sorted(found, key=lambda group: (-group[2], group[0]))


def rival(truth: Truth, find: Finder) -> Callable[[int], list[Group]]:
    """The groups of a rival as of a moment; each moment is computed once."""

    @cache
    def groups(at: int) -> list[Group]:
        found = find(ties(truth.payments, truth.time, at))
        return [(str(i), group, 1.0) for i, group in enumerate(found)]

    return groups


def carried(rings: RiskRings, payments: pa.Table) -> NDArray[np.bool_]:
    """Which payments' answers would carry a ring, if the investigator journalled each at once; bool [n]."""
    standing = RingStanding()
    for change in rings.changes():
        record = rings.record(change.ring_id, change.at)
        roles = {} if record is None else {(m.role, m.name): str(m.member_role) for m in record.members}
        members = [{"role": r, "name": n, "member_role": roles.get((r, n), "account")} for r, n in change.members]
        row = {"ring_id": change.ring_id, "version": change.version, "state": str(change.state)}
        event = {**row, "confidence": change.confidence, "members": members, "at": change.at}
        batch = pa.RecordBatch.from_pylist([event], schema=SCHEMAS[Kind.RING])
        standing.apply(Events(Kind.RING, change.row, batch))
    (batch,) = payments.combine_chunks().to_batches()
    return np.array([found is not None for found in standing.of(batch, range(len(payments)))])


def judged(truth: Truth, groups_at: Any) -> Iterator[dict[str, Any]]:
    """Of each planted ring, how the group that holds most of it does, three days after its last fraud."""
    for ring, times in sorted(truth.frauds.items()):
        members = truth.members[ring]

        def best(at: int, members: set[str] = members) -> set[str]:
            return max((g[1] for g in groups_at(at)), key=lambda g: len(g & members), default=set())

        late = best(max(times) + AFTER)
        fourth = best(sorted(times)[min(3, len(times) - 1)])
        yield {
            "kind": truth.kind[ring],
            "recall": len(late & members) / len(members),
            "precision": len(late & members) / max(1, len(late)),
            "by_fourth": len(fourth & members) / len(members),
        }


def measures(rows: list[dict[str, Any]]) -> dict[str, float]:
    found = {name: float(np.mean([row[name] for row in rows])) for name in ("recall", "precision")}
    found["found"] = float(np.mean([row["recall"] >= 0.5 and row["precision"] >= 0.5 for row in rows]))
    found["named_by_4th_fraud"] = float(np.median([row["by_fourth"] for row in rows]))
    for kind in sorted({row["kind"] for row in rows}):
        found[f"recall, {kind}"] = float(np.mean([row["recall"] for row in rows if row["kind"] == kind]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=len(JUDGING))
    seeds = JUDGING[: parser.parse_args().worlds]
    tables: dict[str, list[dict[str, Any]]] = defaultdict(list)
    shares: dict[str, NDArray[np.int64]] = defaultdict(lambda: np.zeros(2, np.int64))
    months, false, top, listed = 0.0, 0, [], []
    for seed in seeds:
        truth = Truth(seed)
        rings = run(seed, scores(seed))
        tables[OURS] += judged(truth, lambda at, rings=rings: standing(rings, at))
        for name, find in RIVALS.items():
            tables[name] += judged(truth, rival(truth, find))
        inside = carried(rings, truth.payments)
        outside = np.array([a not in truth.everybody for a in truth.payments["account_id"].to_pylist()])
        for name, chosen in ((ALL, ~truth.fraud), (OTHERS, ~truth.fraud & outside), (FRAUDS, truth.fraud)):
            shares[name] += np.array([inside[chosen].sum(), chosen.sum()])
        months += (truth.accounts - len(truth.everybody)) * 3
        last: dict[str, Group] = {}
        for at in range(int(truth.time[0]) + 10 * DAY_US, int(truth.time[-1]), DAY_US):
            day = standing(rings, at)
            top.append(sum(not truth.is_ring(group) for _, group, _ in day[:20]))
            last.update({group[0]: group for group in day})
        listed += [(confidence, truth.is_ring(group)) for _, group, confidence in last.values()]
        false += sum(2 * len(group & truth.everybody) < len(group) for _, group, _ in last.values())
        known = run(seed, truth.fraud.astype(float))
        tables[ORACLE] += judged(truth, lambda at, known=known: standing(known, at))
        print(f"world {seed} is judged", flush=True)
    found = {name: measures(rows) for name, rows in tables.items()}
    ours, peers = found[OURS], {n: m for n, m in found.items() if n != OURS}
    goals = {"recall": 0.85, "precision": 0.9, "named_by_4th_fraud": 0.5, "found": 0.8}
    goals |= {name: 0.7 for name in ours if name.startswith("recall, ")}
    figures = {
        name: Figure(value, "1", goals.get(name), "higher", {n: m[name] for n, m in peers.items()})
        for name, value in ours.items()
    }
    for name, goal in ((ALL, 0.01), (OTHERS, 0.01), (FRAUDS, None)):
        figures[name] = Figure(float(shares[name][0] / shares[name][1]), "1", goal, "lower")
    figures["false_rings"] = Figure(1e5 * false / months, "of 100,000 honest account-months", 1.0, "lower")
    figures["worst_day_no_ring_in_top_20"] = Figure(float(max(top)), "rings", 2.0, "lower")
    stated, real = (float(np.mean([x[i] for x in listed])) for i in (0, 1))
    figures["mean_confidence"] = Figure(stated, "1", None, "higher", {"rings among them": real})
    figures["rings_listed"] = Figure(float(len(listed)), "rings", 300.0)
    facts = {"account_months": months, "worlds": list(seeds), "planted": len(tables[OURS])}
    write("ring_quality", figures, about=__doc__, facts=facts)
    show("ring_quality", figures)
    page()


def page() -> None:
    """Write docs/rings.md from the result."""
    content = json.loads((RESULTS / "ring_quality.json").read_text())
    facts = content["facts"]
    lines = [
        "# Rings",
        "",
        "Made by `make quality-rings`. Risk rings on made worlds of `WorldConfig.hard` that the model never saw:",
        "scores are those of each payment when it came, by a model trained on four other worlds. Each planted ring is",
        "judged by the listed ring that holds most of its accounts, victims included, three days after its last fraud.",
        "It is *found* if half of its accounts are there and half of those there are its. Families, offices and lone",
        "fraud live in the same worlds.",
        "",
        f"{facts['planted']} planted rings in worlds {facts['worlds']}, {facts['account_months']:,.0f} honest "
        f"account-months; commit {content['commit']}, {content['date'][:10]}.",
        "",
        "| figure | risk rings | goal | met | beside it |",
        "|---|---|---|---|---|",
    ]
    for name, f in content["figures"].items():
        goal = "" if f["goal"] is None else f"{'>=' if f['better'] == 'higher' else '<='} {f['goal']:g}"
        met = {None: "", True: "yes", False: "**no**"}[f["met"]]
        beside = ", ".join(f"{k} {v:.3g}" for k, v in (f["peer"] or {}).items())
        lines.append(f"| {name} ({f['unit']}) | {f['value']:.3g} | {goal} | {met} | {beside} |")
    lines += [
        "",
        "The oracle is the same engine told of every fraud at its payment: what is missing with it, ties and",
        "communities miss, not the scores. The others look at all payments of 30 days, without scores or labels.",
        "Not yet measured: incremental peels, and the share of fraud money held after a ring",
        "is named.",
        "",
        *outside(),
    ]
    PAGE.write_text("\n".join(lines) + "\n")


def outside() -> list[str]:
    """What `benchmarks.quality.rings_outside` measured, for the page."""
    path = RESULTS / "ring_outside.json"
    if not path.exists():
        return []
    content = json.loads(path.read_text())
    names = list(content["figures"]["accounts, F1"]["peer"])
    lines = [
        "## Transfers of a generator that others wrote",
        "",
        "AMLGentex (aidotse, Apache-2.0), 144,058 transfers, 56 planted rings; by",
        "`python -m benchmarks.quality.rings_outside FOLDER`. The model is trained on the first half of the time with",
        "default settings; of each finder the best setting is chosen on the second quarter and judged on the second",
        "half, each week: which accounts it lists, and how like the planted rings its groups are (mean best Jaccard).",
        "",
        "| | " + " | ".join(("risk rings", *names)) + " |",
        "|---|" + "---|" * (1 + len(names)),
    ]
    for name, f in content["figures"].items():
        values = (f["value"], *(f["peer"][other] for other in names))
        lines.append(f"| {name} | " + " | ".join(f"{v:.3f}" for v in values) + " |")
    return lines


if __name__ == "__main__":
    main()
