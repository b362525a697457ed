"""Prequential evaluation on the Handbook: week after week, each judged by models that know only what was known then.

The network, trees on its point-in-time features and a PyG model of the same sampled history are trained anew every
week, and trees once and never again, to show what standing still costs. Features of a payment are the same whenever
they are read, so one graph of the whole history serves all weeks; which labels teach is worked out at each week's first
moment.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score
from threadpoolctl import threadpool_limits

from benchmarks.quality.contest import OURS, RESEARCH, built
from benchmarks.quality.histories import WEEK, handbook_files
from benchmarks.quality.research import score_research
from benchmarks.quality.runs import Scores, cached_run, is_cached
from benchmarks.report import ROOT
from data.history import History, LabelledPayments
from data.journal.protocol import Events, Kind
from data.schema import TIMESTAMP
from gnn.evaluate.protocols import selection
from gnn.quality.audit import TREES
from gnn.rivals.boosting import categories, rival_inputs
from gnn.score.replay import capacity_for, score_history
from gnn.train.boosted_trees import fit_trees, grow_trees, sample_training_rows
from gnn.train.targets import Targets, TrainConfig, make_targets
from gnn.train.trainer import train
from graph.dag.protocol import Window
from graph.state import GraphState

FIRST, WEEKS = datetime(2018, 6, 6, tzinfo=UTC), 12
ROLES = ("account", "merchant")
CONFIG = TrainConfig(test=0, label_delay_days=7)
SETTLE_US = 7 * 86_400_000_000  # as the model has it: without a label by then, a payment counts as legitimate
PICTURE = ROOT / "docs" / "prequential.png"
MAX_VALIDATION_ROWS = 20_000  # validation payments that choose the number of trees


@dataclass(frozen=True)
class Weeks:
    """The history, and the payments of each test week.

    Attributes:
        state: The graph of all of it.
        judged: All payments with their labels.
        starts: First moment of each week.
        rows: Judged rows of each week: cards known for fraud are left out, as in the book.
    """

    state: GraphState
    judged: LabelledPayments
    starts: tuple[datetime, ...]
    rows: tuple[NDArray[np.int64], ...]


def read(weeks: int = WEEKS) -> Weeks:
    """The history up to the end of the last week."""
    starts = tuple(FIRST + k * WEEK for k in range(weeks))
    history = History.read(*handbook_files(), stop=starts[-1] + WEEK)
    judged = history.labelled()
    rows = tuple(np.flatnonzero(selection(judged, start, start + WEEK, "handbook")) for start in starts)
    state = built(history, ROLES)
    return Weeks(state, judged, starts, rows)


class Past:
    """The graph as of one moment after another, built once.

    Args:
        history: Payments and labels.
    """

    def __init__(self, history: History) -> None:
        window = Window()
        self._state = GraphState(ROLES, capacity_for(len(history.payments), window), window)
        self._left = list(history.events)[::-1]

    def targets(self, moment: datetime) -> Targets:
        """Which payments teach at a moment, by the labels reported before it; moments never run backwards."""
        stop = int(pa.scalar(moment, TIMESTAMP).value)
        while self._left:
            events = self._left.pop()
            name = "timestamp" if events.kind is Kind.TRANSACTION else "reported_at"
            before = int(np.searchsorted(events.batch.column(name).cast(pa.int64()).to_numpy(), stop))
            if before:
                self._state.apply(Events(events.kind, events.offset, events.batch.slice(0, before)))
            if before < len(events.batch):
                self._left.append(Events(events.kind, events.offset + before, events.batch.slice(before)))
                break
        return make_targets(self._state, CONFIG)


def trees(weeks: Weeks, targets: Targets | None, judged: Sequence[int]) -> tuple[Scores, dict[str, Any]]:
    """Trees taught by what was known at a moment, and their scores of some weeks by number."""
    assert targets is not None  # only a run that is kept needs none
    rows, validation = sample_training_rows(targets, TREES), targets.validation
    if len(validation) > MAX_VALIDATION_ROWS:
        validation = np.sort(np.random.default_rng(0).choice(validation, MAX_VALIDATION_ROWS, replace=False))
    final, categorical = (
        sample_training_rows(targets.with_validation_in_training, TREES),
        categories(ROLES, "features", 0),
    )
    x, judge, z = (rival_inputs(weeks.state, r, "features", 0, SETTLE_US) for r in (rows, validation, final))
    y, known, last = (targets.fraud[r] > 0 for r in (rows, validation, final))
    with threadpool_limits(1, "openmp"):
        _, facts = fit_trees(x, y, judge, known, TREES, categorical)
        setting = TREES.settings[facts["setting"]]
        model = grow_trees(z, last, setting, replace(TREES, trees=facts["trees"]), categorical)
    scores = {
        str(w): model.decision_function(rival_inputs(weeks.state, weeks.rows[w], "features", 0, SETTLE_US))
        for w in judged
    }
    return scores, {**facts, "payments": len(targets.train)}


def research(weeks: Weeks, targets: Targets | None, judged: Sequence[int]) -> tuple[Scores, dict[str, Any]]:
    """The PyG model, likewise."""
    assert targets is not None
    rows = np.concatenate([weeks.rows[w] for w in judged])
    score, facts = score_research(weeks.state, targets, weeks.state, rows, CONFIG)
    ends = np.cumsum([len(weeks.rows[w]) for w in judged])[:-1]
    return {str(w): part for w, part in zip(judged, np.split(score, ends), strict=True)}, facts


def network(weeks: Weeks, trained: datetime, judged: Sequence[int]) -> tuple[Scores, dict[str, Any]]:
    """The network trained at a moment, and its scores of some weeks by number."""
    history = History.read(*handbook_files(), stop=weeks.starts[max(judged)] + WEEK)
    artifact = train(history.before(trained), CONFIG)
    probability = score_history(artifact, history)
    return {str(w): probability[weeks.rows[w]] for w in judged}, {}


def run(every: int | None = 1, weeks: int = WEEKS) -> dict[str, dict[str, float]]:
    """Average precision by entrant and week.

    Args:
        every: Weeks between two trainings of the network; None leaves the network out.
        weeks: How many.
    """
    history = read(weeks)
    found: dict[str, dict[str, float]] = {}

    def enter(name: str, scores: Scores) -> None:
        for key, score in scores.items():
            w = int(key)
            ap = average_precision_score(history.judged.fraud[history.rows[w]], score)
            found.setdefault(name, {})[history.starts[w].date().isoformat()] = float(ap)

    if every is not None:
        for first in range(0, weeks, every):
            start, of = history.starts[first], range(first, min(weeks, first + every))
            enter(
                OURS,
                cached_run("prequential", f"network-{start.date()}", lambda s=start, o=of: network(history, s, o))[0],
            )
    past = Past(History.read(*handbook_files(), stop=history.starts[-1]))
    weekly, once = "trees: features, every week", "trees: features, once"
    for w, start in enumerate(history.starts):
        entrants = [
            (weekly, f"trees-{start.date()}", trees, [w]),
            (RESEARCH, f"research-{start.date()}", research, [w]),
        ]
        if w == 0:
            entrants.append((once, "trees-once", trees, list(range(weeks))))
        there = all(is_cached("prequential", name, True) for _, name, _, _ in entrants)
        targets = None if there else past.targets(start)
        for entrant, name, make, of in entrants:
            made = cached_run("prequential", name, lambda make=make, of=of, t=targets: make(history, t, of), True)
            enter(entrant, made[0])
    return found
