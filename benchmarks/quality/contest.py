"""The model and its rivals trained on the same payments and judged on the same later ones."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.metrics import average_precision_score, roc_auc_score
from threadpoolctl import threadpool_limits

from benchmarks.quality.research import score_research
from benchmarks.quality.runs import Scores, cached_run, folder, is_cached
from data.history import History
from data.report import Report
from gnn.evaluate.metrics import card_precision
from gnn.rivals.boosting import fit_rivals
from gnn.rivals.forty import fit_forty
from gnn.rivals.snapml import fit_snapml, installed
from gnn.score.replay import capacity_for, score_history
from gnn.score.rules import rules_score
from gnn.train.boosted_trees import BoostingConfig
from gnn.train.targets import Targets, TrainConfig, make_targets
from gnn.train.trainer import train
from graph.dag.protocol import Window
from graph.state import GraphState

OURS, RESEARCH = "ringwatch", "PyG HeteroConv"
MEAN = "ringwatch, mean of all seeds' networks"  # as many times the work for each payment
MIN_PROBABILITY = 1e-9
Taught = Callable[[GraphState, Targets], Targets]  # leaves out rows that must not teach


@dataclass(frozen=True)
class Contest:
    """What all train on and are judged by.

    Attributes:
        name: Of the benchmark.
        train: What was known when training.
        test: The history that the test payments come from, whole; its own past is their context.
        rows: Test payments, rows of `test`, int64 [n].
        fraud: What they were, bool [n].
        account: A number for each one's account, [n].
        time: UTC microseconds, int64 [n].
        config: How to train.
        epochs: Of the research network.
        kind: Ring kind of each, if known.
        taught: Narrows the payments that teach, if given.
        shape: Of the network, where it is not the default.
        cards: Whether days and cards are real enough to count compromised cards a day.
    """

    name: str
    train: History
    test: History
    rows: NDArray[np.int64]
    fraud: NDArray[np.bool_]
    account: NDArray[np.integer]
    time: NDArray[np.int64]
    config: TrainConfig
    epochs: int = 3
    kind: NDArray[np.object_] | None = None
    taught: Taught | None = None
    shape: dict[str, Any] = field(default_factory=dict)
    cards: bool = False

    @cached_property
    def roles(self) -> tuple[str, ...]:
        return self.train.roles

    @cached_property
    def past(self) -> GraphState:
        """The graph as of the end of the training's events."""
        return built(self.train, self.roles)

    @cached_property
    def graph(self) -> GraphState:
        """The graph of the test payments."""
        return built(self.test, self.roles)

    @cached_property
    def targets(self) -> Targets:
        return self.choose(self.past, self.config)

    def choose(self, state: GraphState, config: TrainConfig) -> Targets:
        """Which payments teach and choose, for the model and for its rivals."""
        found = make_targets(state, config)
        return self.taught(state, found) if self.taught else found

    def new(self, role: str) -> NDArray[np.bool_]:
        """Which test payments are the first that their graph sees of an entity, bool [n]."""
        if role not in self.roles:
            return np.zeros(len(self.rows), bool)
        r = self.roles.index(role)
        first = self.graph.store.column("prev", self.rows)[:, r] == 0
        return first & (self.graph.store.column("entity", self.rows)[:, r] >= 0)


def built(history: History, roles: Sequence[str]) -> GraphState:
    """The graph of a history."""
    window = Window()
    state = GraphState(roles, capacity_for(len(history.payments), window), window)
    for events in history.events:
        state.apply(events)
    return state


def ours(contest: Contest, seed: int) -> tuple[Scores, dict[str, Any]]:
    """Train the model and score the test payments as the service would."""
    from dataclasses import replace

    begin = time.perf_counter()
    artifact = train(contest.train, replace(contest.config, seed=seed), contest.shape, _progress(), contest.choose)
    seconds = time.perf_counter() - begin
    artifact.save(folder(contest.name) / f"model-{seed}")
    probability = score_history(artifact, contest.test)[contest.rows]
    return {OURS: probability}, {"training_s": seconds, "training": artifact.facts["training"]}


def trees(contest: Contest, seed: int) -> tuple[Scores, dict[str, Any]]:
    """Rules, and trees and a regression on the model's own rows, labels and validation."""
    with threadpool_limits(1, "openmp"):
        config = _boosting(contest, seed)
        rivals = [
            *fit_rivals(contest.past, contest.targets, config),
            fit_forty(contest.past, contest.targets, config),
        ]
        scores = {rival.name: rival.probability(contest.graph, contest.rows) for rival in rivals}
    scores["rules"] = rules_score(contest.graph, contest.rows)[0]
    return scores, {rival.name: rival.facts for rival in rivals}


def research(contest: Contest, seed: int) -> tuple[Scores, dict[str, Any]]:
    """A two-layer HeteroConv on the same sampled histories."""
    begin = time.perf_counter()
    scores, facts = score_research(
        contest.past, contest.targets, contest.graph, contest.rows, contest.config, epochs=contest.epochs, seed=seed
    )
    return {RESEARCH: scores}, {**facts, "seconds": time.perf_counter() - begin}


def _boosting(contest: Contest, seed: int) -> BoostingConfig:
    return BoostingConfig(refit=contest.config.refit, without=contest.config.without, seed=seed)


def snapml(contest: Contest, seed: int) -> tuple[Scores, dict[str, Any]]:
    """Trees on Snap ML's features."""
    begin = time.perf_counter()
    with threadpool_limits(1, "openmp"):
        rival = fit_snapml(contest.past, contest.targets, _boosting(contest, seed), _progress())
        scores = rival.probability(contest.graph, contest.rows)
    return {rival.name: scores}, {**rival.facts, "seconds": time.perf_counter() - begin}


def entrants(contest: Contest, seeds: int, rivals: bool) -> list[Scores]:
    """Scores by name, one dictionary for each seed."""
    found = []
    for seed in range(seeds):
        scores, _ = cached_run(contest.name, f"ours-{seed}", lambda seed=seed: ours(contest, seed))
        scores = dict(scores)
        for name, make in (("trees", trees), ("snapml", snapml), ("research", research)):
            run = f"{name}-{seed}"
            wanted = rivals and (name != "snapml" or installed())
            if wanted or is_cached(contest.name, run, True):  # a rival that is there costs nothing to show
                scores |= cached_run(contest.name, run, lambda make=make, seed=seed: make(contest, seed), True)[0]
        found.append(scores)
    return found


def measures(contest: Contest, score: NDArray[np.float64], budget: float = 0.01) -> dict[str, float]:
    """Metrics of one entrant's scores; slices of entities that were never seen before among them."""
    fraud = contest.fraud
    found = {
        "average_precision": float(average_precision_score(fraud, score)),
        "roc_auc": float(roc_auc_score(fraud, score)),
    }
    if contest.cards:
        found["card_precision_at_100"] = card_precision(score, fraud, contest.account, contest.time)
    for role in ("account", "merchant", "device"):
        new = contest.new(role)
        if 10 <= fraud[new].sum() < new.sum():
            found[f"average_precision, new {role}"] = float(average_precision_score(fraud[new], score[new]))
    if contest.kind is not None:
        reviewed = np.zeros(len(score), bool)
        reviewed[np.argsort(-score, kind="stable")[: round(budget * len(score))]] = True
        for kind in sorted({str(k) for k in contest.kind[fraud] if k}):
            of = fraud & (contest.kind == kind)
            found[f"recall, {kind}"] = float(reviewed[of].mean())
    return found


def numbers(column: pa.ChunkedArray) -> NDArray[np.integer]:
    """A number for each name."""
    codes: NDArray[np.integer] = column.combine_chunks().dictionary_encode().indices.to_numpy()
    return codes


def _progress() -> Report:
    last = [""]

    def report(what: str, share: float) -> None:
        if what != last[0]:
            last[0] = what
            print(f"    {time.strftime('%H:%M:%S')} {what}", flush=True)

    return report


def table(contest: Contest, runs: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, dict[str, list[float]]]:
    """Metrics by entrant and measure, a value for each seed; for the mean of all seeds' log-odds, one."""
    found: dict[str, dict[str, list[float]]] = {}
    for scores in runs:
        for name, score in scores.items():
            for measure, value in measures(contest, score).items():
                found.setdefault(name, {}).setdefault(measure, []).append(value)
    if len(runs) > 1:
        clipped = [np.clip(scores[OURS], MIN_PROBABILITY, 1 - MIN_PROBABILITY) for scores in runs]
        mean = expit(np.mean([logit(p) for p in clipped], 0))
        found[MEAN] = {measure: [value] for measure, value in measures(contest, mean).items()}
    return found
