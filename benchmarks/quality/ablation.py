"""What each part of the model is worth on the seeded world: it is trained without it, and judged on the same payments.

Fewer worlds teach than in the contest, and each model is learnt once, so that all variants train in the time of one
contest.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.became import became
from benchmarks.quality.contest import Contest, built, measures
from benchmarks.quality.histories import truth_of, world
from benchmarks.quality.runs import Scores, cached_run
from data.history import History
from data.journal.protocol import Kind
from gnn.model.trees import no_trees
from gnn.score.cpu_scorer import CpuScorer
from gnn.train.boosted_trees import fit_trees, sample_training_rows
from gnn.train.head import PLAIN_TREES
from gnn.train.targets import Targets, TrainConfig
from gnn.train.trainer import train
from graph.state import GraphState

WORLDS, JUDGE = 2, 200  # worlds that teach; the first of those that judge, one for each seed
WHOLE, HEADLESS = "all of it", "no head of trees"
# What no loss can beat that corrects for missing, wrong and late labels.
TRUTH, RECENT = "every label right", "every label right, recent payments too"
# What no model can do that has to wait for reports.
INSTANT = "every fraud known right behind its payment"
FEATURES, BECAME = "trees on features", "trees, and what neighbours became"


@dataclass(frozen=True)
class Variant:
    """A model with a part left out, or put in.

    Attributes:
        config: Fields of the training's configuration that differ.
        shape: Fields of the network's.
        labels: Whether payments see the labels of those before them.
        rings: Whether they see the size of their ring.
        truth: Whether the payments that teach and choose are labelled as they were, none missing and none wrong.
        recent: Whether payments too young for their label teach as well, as they were.
        instant: Whether every fraud is reported right behind its payment, to the test's payments as well.
    """

    config: dict[str, Any] = field(default_factory=dict)
    shape: dict[str, Any] = field(default_factory=dict)
    labels: bool = True
    rings: bool = True
    truth: bool = False
    recent: bool = False
    instant: bool = False


VARIANTS: dict[str, Variant] = {
    WHOLE: Variant(),
    "one layer": Variant(shape={"layers": 1}),
    "no labels in sight": Variant(labels=False),
    "no ring columns": Variant(rings=False),
    "no pre-training": Variant(config={"pretraining": 0}),
    "no prospects": Variant(config={"prospects": 0.0}),
    TRUTH: Variant(truth=True),
    RECENT: Variant(truth=True, recent=True),
    INSTANT: Variant(instant=True),
}


def run(seed: int) -> dict[str, dict[str, float]]:
    """Measures by variant."""
    contest = replace(world(*_worlds(seed)), name=f"ablation_{seed}")
    found = {}
    for name, variant in VARIANTS.items():
        scores, _ = cached_run(
            contest.name, name.replace(" ", "_"), lambda variant=variant: _scored(contest, variant, seed)
        )
        found[name] = measures(contest, scores["ours"])
        if name == WHOLE:  # the same network
            found[HEADLESS] = measures(contest, scores["network"])
    for name, more in ((FEATURES, False), (BECAME, True)):
        scores, _ = cached_run(
            contest.name, name.replace(" ", "_"), lambda more=more: _trees(contest, more, seed), True
        )
        found[name] = measures(contest, scores["trees"])
    return found


def _worlds(seed: int) -> tuple[range, range]:
    """Those that teach, and the one that judges."""
    return range(WORLDS * seed, WORLDS * (seed + 1)), range(JUDGE + seed, JUDGE + seed + 1)


def _scored(contest: Contest, variant: Variant, seed: int) -> tuple[Scores, dict[str, Any]]:
    if variant.instant:
        contest = world(*_worlds(seed), instant=True)
    taught = contest.train if variant.labels else labels_last(contest.train)
    config = TrainConfig(**{"test": 0, "seed": seed, "refit": False, **variant.config})
    delay = contest.targets.label_delay_us / 86_400e6  # as labels that are known when they come would have it
    config = replace(config, label_delay_days=delay)

    def choose(state: GraphState, config: TrainConfig) -> Targets:
        if not variant.rings:
            _without_rings(state)
        targets = contest.choose(state, config)
        if variant.truth:
            targets = replace(targets, fraud=truth_of(_worlds(seed)[0]).astype(np.float32))
        if variant.recent:
            rows = np.arange(state.store.rows)
            cut = int(np.searchsorted(rows, 0.88 * len(rows)))
            targets = replace(targets, train=rows[:cut], validation=rows[cut:])
        return targets

    artifact = train(taught, config, variant.shape, choose=choose)
    state = built(contest.test if variant.labels else _payments(contest.test), contest.roles)
    if not variant.rings:
        _without_rings(state)

    def scores() -> NDArray[np.float64]:
        scorer = CpuScorer(artifact, state)
        while scorer.fill(1 << 14):
            pass
        return scorer.rescore(contest.rows)

    found = {"ours": scores()}
    if variant == VARIANTS[WHOLE]:
        artifact.net.trees = no_trees()
        found["network"] = scores()
    return found, {"training": artifact.facts["training"]}


def _trees(contest: Contest, more: bool, seed: int) -> tuple[Scores, dict[str, Any]]:
    targets, config = contest.targets, replace(PLAIN_TREES, seed=seed)
    rows = sample_training_rows(targets, config)

    def inputs(state: GraphState, *parts: NDArray[np.int64]) -> list[NDArray[np.float32]]:
        later = became(state) if more else np.empty((state.store.rows, 0), np.float32)
        return [np.concatenate([state.store.features(part, targets.settle_us), later[part]], 1) for part in parts]

    x, judged = inputs(contest.past, rows, targets.validation)
    (test,) = inputs(contest.graph, contest.rows)
    known = targets.fraud[targets.validation] > 0
    model, facts = fit_trees(x, targets.fraud[rows] > 0, judged, known, config)
    return {"trees": model.decision_function(test)}, facts


def _payments(history: History) -> History:
    return History((Kind.TRANSACTION, batch) for batch in history.payments.to_batches())


def labels_last(history: History) -> History:
    """The same events, all labels behind the last payment: known to the trainer, seen by no payment."""
    labels = history.labels.combine_chunks()
    return History([*_payments(history).runs(), *((Kind.LABEL, batch) for batch in labels.to_batches())])


def _without_rings(state: GraphState) -> None:
    rows = np.arange(state.store.oldest, state.store.rows)
    state.store.write_rings(rows, np.zeros((len(rows), 3), np.uint16), np.zeros(len(rows), np.uint32))
