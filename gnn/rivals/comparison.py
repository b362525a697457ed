"""The model beside its rivals: the same payments, the same labels as known when the model was trained."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from data.history import History
from data.journal.protocol import Events
from data.report import Report, silent
from gnn.errors import ModelError
from gnn.evaluate.evaluate import judge
from gnn.evaluate.metrics import Metrics
from gnn.evaluate.metrics import to_dict as metrics_dict
from gnn.evaluate.protocols import check_protocol, selection
from gnn.model.artifact import Artifact
from gnn.rivals.boosting import Rival, fit_rivals
from gnn.rivals.forty import FortyRival, fit_forty
from gnn.rivals.snapml import SnapRival, fit_snapml, installed
from gnn.score.devices import choose_device
from gnn.score.replay import open_model, score_events
from gnn.train.boosted_trees import BoostingConfig
from gnn.train.targets import Targets, TrainConfig, make_targets
from gnn.train.threads import one_thread
from graph.state import GraphState

OURS = "ringwatch"
Rule = Callable[[GraphState, NDArray[np.int64]], NDArray[np.float64]]  # probabilities of rows, without training


@dataclass(frozen=True)
class RivalComparison:
    """Metrics of the model and of its rivals on the same payments.

    Attributes:
        metrics: By name, the model first.
        facts: How each rival was chosen, by name.
    """

    metrics: dict[str, Metrics]
    facts: dict[str, dict[str, Any]]


@one_thread()
def compare(
    artifact: Artifact,
    history: History,
    *,
    rules: Mapping[str, Rule] | None = None,
    start: datetime | None = None,
    stop: datetime | None = None,
    protocol: str = "plain",
    truth: Path | str | None = None,
    device: str = "auto",
    config: BoostingConfig | None = None,
    report: Report = silent,
) -> RivalComparison:
    """Train the rivals on what the model was trained on, and judge all on the payments in [start, stop).

    Args:
        artifact: The model.
        history: It begins where the training's did; labels as in `gnn.evaluate.evaluate.evaluate`.
        rules: Rivals that need no training, by name.
        start: Judge from here on; by default from where the training's events end.
        stop: Leave out events from here on.
        protocol: See `gnn.evaluate.protocols.selection`.
        truth: File of a simulated world's truth.
        device: Of the model: `auto`, `cpu` or `cuda`.
        config: How to train the trees.
        report: Told of progress.

    Raises:
        ModelError: The model was not trained on the beginning of this history, or there is nothing to judge.
    """
    check_protocol(protocol)
    history = history.before(stop) if stop is not None else history
    total = len(history.payments)
    state, scorer = open_model(artifact, choose_device(device), total)
    early, late = cut(history.events, _trained_on(artifact))
    parts = [np.empty(0)]
    for scored in score_events(state, scorer, early):
        parts.append(scored.probability)
        report("scoring", scored.rows.stop / total)
    targets = trained_targets(artifact, state)
    trained = state.store.rows
    for scored in score_events(state, scorer, late):
        parts.append(scored.probability)
        report("scoring", scored.rows.stop / total)
    probability = np.concatenate(parts)
    # What trained the model was labelled up to here; a score of an earlier payment would have seen the future.
    first = int(targets.test[0]) if len(targets.test) else trained
    known = history.labelled(truth)
    start = start or _moment(state, first)
    rows = np.flatnonzero(selection(known, start, stop, protocol))
    if rows[0] < first:
        raise ModelError(
            f"the model knows labels reported before {_moment(state, first)}: evaluate from then on (--from)"
        )
    metrics = {OURS: judge(known, probability, start, stop, protocol)}
    facts: dict[str, dict[str, Any]] = {}

    def enter(name: str, scores: NDArray[np.float64]) -> None:
        full = np.zeros(len(probability))
        full[rows] = scores
        metrics[name] = judge(known, full, start, stop, protocol)

    for name, rule in (rules or {}).items():
        enter(name, rule(state, rows))
    config = as_the_model(artifact, config or BoostingConfig())
    rivals: list[Rival | FortyRival | SnapRival] = [
        *fit_rivals(state, targets, config, report),
        fit_forty(state, targets, config, report),
    ]
    if installed():
        rivals.append(fit_snapml(state, targets, config, report))
    for rival in rivals:
        enter(rival.name, rival.probability(state, rows))
        facts[rival.name] = rival.facts
    return RivalComparison(metrics, facts)


def cut(history: Iterable[Events], offset: int) -> tuple[Iterator[Events], Iterator[Events]]:
    """Events before a place in the journal, and from there on; the first must be read to its end before the second."""
    events, left = iter(history), list[Events]()

    def before() -> Iterator[Events]:
        for event in events:
            keep = offset - event.offset
            if keep >= len(event.batch):
                yield event
                continue
            if keep > 0:
                yield Events(event.kind, event.offset, event.batch.slice(0, keep))
            keep = max(keep, 0)
            left.append(Events(event.kind, event.offset + keep, event.batch.slice(keep)))
            return

    def after() -> Iterator[Events]:
        yield from left
        yield from events

    return before(), after()


def trained_targets(artifact: Artifact, state: GraphState) -> Targets:
    """The payments that trained, chose and calibrated a model, with their labels as known then.

    Args:
        artifact: The model.
        state: The graph as of the end of the training's events.

    Raises:
        ModelError: Those payments are not the ones that the model names.
    """
    training = artifact.facts["training"]
    targets = make_targets(state, TrainConfig(**training["config"]))
    for part in ("train", "validation"):
        rows, window = getattr(targets, part), training[part]
        if (len(rows), int(targets.fraud[rows].sum())) != (window["payments"], window["frauds"]):
            raise ModelError(
                f"the model was trained on {window['payments']:,} payments with {window['frauds']:,} known frauds, "
                f"this history gives {len(rows):,} with {int(targets.fraud[rows].sum()):,}: rivals need the same"
            )
    return targets


def as_the_model(artifact: Artifact, config: BoostingConfig) -> BoostingConfig:
    """How to train rivals, with what must be as the model had it: whether it was learnt anew, what it does not read."""
    settings = artifact.facts["training"]["config"]
    # A model of before these were settings was not learnt anew, and reads all.
    return replace(config, refit=settings.get("refit", False), without=tuple(settings.get("without", ())))


def _moment(state: GraphState, row: int) -> datetime:
    """When a payment was made."""
    if row >= state.store.rows:
        raise ModelError("no payment is later than those that the model was trained on")
    return datetime.fromtimestamp(int(state.store.column("time", np.array([row]))[0]) / 1e6, UTC)


def _trained_on(artifact: Artifact) -> int:
    try:
        return int(artifact.facts["training"]["events"])
    except KeyError:
        raise ModelError("the model does not say what it was trained on") from None


def to_dict(comparison: RivalComparison) -> dict[str, Any]:
    """For JSON: the model's metrics as `evaluate` writes them, and all of them by name."""
    return {
        **metrics_dict(comparison.metrics[OURS]),
        "against": {name: metrics_dict(metrics) for name, metrics in comparison.metrics.items()},
        "rivals": comparison.facts,
    }


def as_table(comparison: RivalComparison) -> Table:
    """For people."""
    ours = comparison.metrics[OURS]
    table = Table(title=f"the same {ours.payments:,} payments, {ours.frauds:,} frauds")
    for column in ("", "AP", "ROC AUC", "CP@100", f"recall at {ours.budget:.1%}", "money", "calibration error"):
        table.add_column(column, justify="right" if column else "left", no_wrap=not column)
    for name, m in comparison.metrics.items():
        table.add_row(
            name,
            f"{m.average_precision:.4f}",
            f"{m.roc_auc:.4f}",
            f"{m.card_precision_at_100:.3f}",
            f"{m.recall_at_budget:.1%}",
            f"{m.fraud_money_caught:.1%}",
            f"{m.expected_calibration_error:.4f}",
            style="bold" if name == OURS else None,
        )
    return table
