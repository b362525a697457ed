"""How well payments of hijacked agents are found on unseen worlds: benchmarks/results/hijacked_agents.json.

Example: python -m benchmarks.quality.hijacked

One small model is taught by three made worlds side by side (`WorldConfig.hard` with agents) and judged on two others.
Their first days are context. Model and scores are kept under var/quality/hijacked.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from benchmarks.quality import hijacked_oracle
from benchmarks.quality.histories import _prefixed
from benchmarks.report import ROOT, Figure, show, write
from data.history import History
from data.world.agents import HIJACKED
from data.world.synthetic import World, WorldConfig, simulate
from gnn.model.artifact import load
from gnn.rivals.boosting import categories, input_names, rival_inputs
from gnn.score.replay import capacity_for, score_history
from gnn.train.boosted_trees import BoostingConfig, Setting, fit_trees, sample_training_rows
from gnn.train.targets import TrainConfig, make_targets
from gnn.train.trainer import train
from graph.dag.protocol import DAY_US, Window
from graph.state import GraphState

FOLDER = ROOT / "var" / "quality" / "hijacked"
TEACHING, JUDGING = range(501, 504), range(511, 513)
SIZE = dict.fromkeys(TEACHING, 25_000) | dict.fromkeys(JUDGING, 50_000)  # payments before agents add theirs
AGENTS = 0.5  # of the accounts
CONTEXT_DAYS = 10  # not judged; no agent is hijacked before day 13
TOP = 0.01  # of the payments, for recall
GOAL = 0.8
TRAINING: Final = TrainConfig(test=0.0, pretraining=0, epochs=5)
TREES: Final = BoostingConfig(settings=(Setting(),), trees=300)
INPUTS: Final = "features"
Scores = NDArray[np.float64]


def config_of(seed: int) -> WorldConfig:
    return replace(WorldConfig.hard(seed), transactions=SIZE[seed], agents=AGENTS)


@cache
def world(seed: int) -> World:
    """A world, made anew each time: that takes half a second."""
    return simulate(config_of(seed))


def history_of(seed: int) -> History:
    return History.from_arrow(world(seed).transactions, world(seed).labels)


@cache
def lessons() -> History:
    """The teaching worlds side by side, as they were known when their payments ended."""
    parts = {}
    for name, moment in (("transactions", "timestamp"), ("labels", "reported_at")):
        tables = [_prefixed(getattr(world(seed), name), f"{seed}.") for seed in TEACHING]
        parts[name] = pa.concat_tables(tables).sort_by(moment)
    end = WorldConfig.hard(0).start + timedelta(days=90)
    return History.from_arrow(parts["transactions"], parts["labels"]).before(end)


def model() -> Path:
    path = FOLDER / "model"
    if not (path / "manifest.json").exists():
        train(lessons(), TRAINING).save(path)
    return path


def kept(name: str, make: Callable[[], list[Scores]]) -> dict[int, Scores]:
    """Scores of the judged worlds, made only where they are not there yet."""
    paths = {seed: FOLDER / f"{name}-{seed}.npy" for seed in JUDGING}
    if not all(path.exists() for path in paths.values()):
        FOLDER.mkdir(parents=True, exist_ok=True)
        for path, scores in zip(paths.values(), make(), strict=True):
            np.save(path, scores)
    return {seed: np.load(path) for seed, path in paths.items()}


def ours() -> list[Scores]:
    artifact = load(model())
    return [score_history(artifact, history_of(seed)) for seed in JUDGING]


def trees(without: str | None) -> list[Scores]:
    """Log-odds of boosted trees on the features of a payment's entities.

    Args:
        without: The role whose features they do not read.
    """
    roles = lessons().roles
    state = _graph(lessons(), roles)
    targets = make_targets(state, TRAINING)
    names = input_names(roles, INPUTS, TREES.neighbours)
    read = np.array([without is None or not name.startswith(f"{without}.") for name in names])
    assert without is None or not read.all()  # there is such a role

    def inputs(of: GraphState, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.where(read, rival_inputs(of, rows, INPUTS, TREES.neighbours, targets.settle_us), np.float32(0))

    rows, later = sample_training_rows(targets, TREES), targets.validation
    x, v = inputs(state, rows), inputs(state, later)
    y, known = targets.fraud[rows] > 0, targets.fraud[later] > 0
    grown, _ = fit_trees(x, y, v, known, TREES, categories(roles, INPUTS, TREES.neighbours))
    found = []
    for seed in JUDGING:
        judged = _graph(history_of(seed), roles)
        found.append(grown.decision_function(inputs(judged, np.arange(judged.store.rows))))
    return found


def _graph(history: History, roles: tuple[str, ...]) -> GraphState:
    window = Window()
    state = GraphState(roles, capacity_for(len(history.payments), window), window)
    for events in history.events:
        state.apply(events)
    return state


@dataclass(frozen=True)
class Truth:
    """What the judged payments of a world were, each bool [n].

    Attributes:
        judged: Which payments of the world these n are, int64 [n].
        hijacked: Payments of hijacked agents.
        other: Other frauds.
    """

    judged: NDArray[np.int64]
    hijacked: NDArray[np.bool_]
    other: NDArray[np.bool_]


def truth_of(seed: int) -> Truth:
    truth = world(seed).truth
    time = world(seed).transactions["timestamp"].cast(pa.int64()).to_numpy()
    judged = np.flatnonzero(time >= time[0] + CONTEXT_DAYS * DAY_US)
    hijacked = pc.fill_null(pc.equal(truth["ring_kind"], HIJACKED), False).to_numpy()[judged]
    return Truth(judged, hijacked, truth["is_fraud"].to_numpy()[judged] & ~hijacked)


def measures(truth: Truth, scores: Scores) -> dict[str, float]:
    """How well a world's frauds are told from honest payments.

    Args:
        truth: Of n judged payments.
        scores: Of all payments of the world.
    """
    score = scores[truth.judged]
    alone = ~truth.other
    fraud = truth.hijacked | truth.other
    return {
        "average_precision": float(average_precision_score(truth.hijacked[alone], score[alone])),
        "recall_at_1_percent": recall(truth.hijacked[alone], score[alone]),
        "average_precision_other_frauds_as_false": float(average_precision_score(truth.hijacked, score)),
        "average_precision_all_frauds": float(average_precision_score(fraud, score)),
        "recall_at_1_percent_all_frauds": recall(fraud, score),
    }


def recall(fraud: NDArray[np.bool_], score: Scores) -> float:
    """Share of the frauds among the highest scores, `TOP` of all."""
    highest = np.argsort(-score, kind="stable")[: round(TOP * len(score))]
    return float(fraud[highest].sum() / fraud.sum())


def main() -> None:
    """Teach, judge, and write the result."""
    truths = {seed: truth_of(seed) for seed in JUDGING}
    found: dict[str, dict[int, dict[str, float]]] = {}
    entrants: dict[str, tuple[str, Callable[[], list[Scores]]]] = {
        "ringwatch": ("ours", ours),
        "trees on features": ("trees", lambda: trees(None)),
        "trees without the agent's history": ("trees-agentless", lambda: trees("agent")),
    }
    for name, (run, make) in entrants.items():
        scores = kept(run, make)
        found[name] = {seed: measures(truths[seed], scores[seed]) for seed in JUDGING}
        print(name, found[name], flush=True)
    for name, at_once in (("limit: knows the scripts", False), ("limit: and every label at once", True)):
        limit = hijacked_oracle.limit([world(seed) for seed in JUDGING], config_of(JUDGING[0]), at_once)
        found[name] = {seed: measures(truths[seed], s) for seed, s in zip(JUDGING, limit, strict=True)}
        print(name, found[name], flush=True)
    means = {
        name: {key: float(np.mean([m[key] for m in by.values()])) for key in next(iter(by.values()))}
        for name, by in found.items()
    }
    mine = means.pop("ringwatch")
    goals = {"average_precision": GOAL}
    figures = {}
    for key, value in mine.items():
        # Limits know of no other frauds, so that they say nothing of them.
        beside = {n: m[key] for n, m in means.items() if "all_frauds" not in key or not n.startswith("limit")}
        figures[key] = Figure(value, "1", goals.get(key), "higher", beside)
    facts: dict[str, Any] = {
        "worlds": {str(s): {n: by[s]["average_precision"] for n, by in found.items()} for s in JUDGING},
        "taught_by": {"worlds": list(TEACHING), "payments": len(lessons().payments)},
        "judged": {
            "payments": sum(len(t.judged) for t in truths.values()),
            "hijacked": int(sum(t.hijacked.sum() for t in truths.values())),
            "other_frauds": int(sum(t.other.sum() for t in truths.values())),
            "rings": sum(rings_of(seed) for seed in JUDGING),
        },
    }
    write("hijacked_agents", figures, about=__doc__, facts=facts)
    show("hijacked_agents", figures)


def rings_of(seed: int) -> int:
    """Hijacked agents of a world."""
    members = world(seed).members
    return len(set(members.filter(pc.equal(members["kind"], HIJACKED))["ring_id"].to_pylist()))


if __name__ == "__main__":
    main()
