"""The model beside its rivals: the same payments, the same labels as known when the model was trained."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from data.files.readers import OnRefusal
from data.files.sources import merged
from data.journal.protocol import Events, Kind
from gnn.errors import ModelError
from gnn.evaluate.jobs import check_protocol, judge, selection, with_labels
from gnn.evaluate.metrics import Metrics, to_dict
from gnn.model.artifact import Artifact, load
from gnn.rivals.boosting import Rival, fit_rivals
from gnn.rivals.snapml import SnapRival, fit_snapml, installed
from gnn.score.devices import choose_device
from gnn.score.replay import numbered, open_model, score_events
from gnn.train.boosted_trees import BoostingConfig
from gnn.train.targets import Targets, TrainConfig, make_targets
from graph.state import GraphState

OURS = "ringwatch"
Report = Callable[[str, float], None]
Rule = Callable[[GraphState, NDArray[np.int64]], NDArray[np.float64]]  # probabilities of rows, without training


@dataclass(frozen=True)
class Against:
    """Metrics of the model and of its rivals on the same payments.

    Attributes:
        metrics: By name, the model first.
        facts: How each rival was chosen, by name.
    """

    metrics: dict[str, Metrics]
    facts: dict[str, dict[str, Any]]


def evaluate_against(
    model: Path | str,
    transactions: Path | str,
    labels: Path | str,
    *,
    rules: Mapping[str, Rule] | None = None,
    start: datetime | None = None,
    stop: datetime | None = None,
    protocol: str = "plain",
    truth: Path | str | None = None,
    device: str = "auto",
    config: BoostingConfig | None = None,
    strict: bool = False,
    on_refusal: OnRefusal | None = None,
    report: Report = lambda what, share: None,
) -> Against:
    """Train the rivals on what the model was trained on, and judge all on the payments in [start, stop).

    Args:
        model: Folder of the artifact.
        transactions: The history, beginning where the training's did.
        labels: Labels; see `gnn.evaluate.jobs.evaluate_files`.
        rules: Rivals that need no training, by name.
        start: Judge from here on; by default from where the training's events end.
        stop: Read no event from here on.
        protocol: See `gnn.evaluate.jobs.selection`.
        truth: Truth of a simulated world.
        device: Of the model: `auto`, `cpu` or `cuda`.
        config: How to train the trees.
        strict: Stop at the first refused row.
        on_refusal: Told of each refused row.
        report: Called with progress.

    Raises:
        ModelError: The model was not trained on the beginning of this history, or there is nothing to judge.
    """
    check_protocol(protocol)
    artifact = load(model)
    runs = list(merged(transactions, labels, strict=strict, on_refusal=on_refusal, stop=stop))
    total = sum(len(batch) for kind, batch in runs if kind is Kind.TRANSACTION)
    state, scorer = open_model(artifact, choose_device(device), total)
    early, late = cut(numbered(runs), _trained_on(artifact))
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
    judged = with_labels(runs, labels, truth)
    start = start or _moment(state, first)
    rows = np.flatnonzero(selection(judged, start, stop, protocol))
    if rows[0] < first:
        raise ModelError(
            f"the model knows labels reported before {_moment(state, first)}: judge from there on (--from)"
        )
    metrics = {OURS: judge(judged, probability, start, stop, protocol, truth)}
    facts: dict[str, dict[str, Any]] = {}

    def enter(name: str, scores: NDArray[np.float64]) -> None:
        full = np.zeros(len(probability))
        full[rows] = scores
        metrics[name] = judge(judged, full, start, stop, protocol, truth)

    for name, rule in (rules or {}).items():
        enter(name, rule(state, rows))
    config = as_the_model(artifact, config or BoostingConfig())
    rivals: list[Rival | SnapRival] = [*fit_rivals(state, targets, config, report)]
    if installed():
        rivals.append(fit_snapml(state, targets, config, report))
    for rival in rivals:
        enter(rival.name, rival.probability(state, rows))
        facts[rival.name] = rival.facts
    return Against(metrics, facts)


def cut(events: Iterator[Events], offset: int) -> tuple[Iterator[Events], Iterator[Events]]:
    """Events before a place in the journal, and from there on; the first must be read to its end before the second."""
    left: list[Events] = []

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


def against_dict(against: Against) -> dict[str, Any]:
    """For JSON: the model's metrics as `evaluate` writes them, and all of them by name."""
    return {
        **to_dict(against.metrics[OURS]),
        "against": {name: to_dict(metrics) for name, metrics in against.metrics.items()},
        "rivals": against.facts,
    }


def against_table(against: Against) -> Table:
    """For people."""
    ours = against.metrics[OURS]
    table = Table(title=f"the same {ours.payments:,} payments, {ours.frauds:,} frauds")
    for column in ("", "AP", "ROC AUC", "CP@100", f"recall at {ours.budget:.1%}", "money", "calibration error"):
        table.add_column(column, justify="right" if column else "left", no_wrap=not column)
    for name, m in against.metrics.items():
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
