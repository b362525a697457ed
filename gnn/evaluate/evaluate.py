"""Evaluation: a history scored as the service would have scored it, judged by the labels that came later."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.history import History, LabelledPayments
from data.report import Report, silent
from gnn.evaluate.metrics import Metrics, measure
from gnn.evaluate.protocols import accounts, check_protocol, selection, times
from gnn.evaluate.shift import CalibratedOn
from gnn.model.artifact import Artifact
from gnn.score.devices import choose_device
from gnn.score.replay import score_history


def evaluate(
    artifact: Artifact,
    history: History,
    *,
    start: datetime | None = None,
    stop: datetime | None = None,
    protocol: str = "plain",
    truth: Path | str | None = None,
    device: str = "auto",
    report: Report = silent,
) -> Metrics:
    """Score a history as the service would have, and judge the payments in [start, stop).

    Args:
        artifact: The model.
        history: The payments that are judged, and those before them as their context. A score sees a label only after
            its `reported_at`, but all labels judge.
        start: Judge from here on; by default everything, which is honest only if it is all later than the training.
        stop: Leave out events from here on.
        protocol: Which payments are judged, see `gnn.evaluate.protocols.selection`.
        truth: File of a simulated world's truth: judges in place of the labels, and adds recall by ring kind.
        device: `auto`, `cpu` or `cuda`.
        report: Told of progress.

    Raises:
        ModelError: An unknown protocol, or nothing to judge: no payment, or not both classes.
        DataError: The truth cannot be read, or a moment has no time zone.
    """
    check_protocol(protocol)
    history = history.before(stop) if stop is not None else history
    probability = score_history(artifact, history, choose_device(device), report)
    known = history.labelled(truth)
    metrics = judge(known, probability, start, stop, protocol, calibrated_on(artifact))
    metrics.cautions.extend(taught_by_them(artifact, known, start, stop, protocol))
    return metrics


def judge(
    known: LabelledPayments,
    probability: NDArray[np.float64],
    start: datetime | None = None,
    stop: datetime | None = None,
    protocol: str = "plain",
    calibrated: CalibratedOn | None = None,
) -> Metrics:
    """Metrics of the payments in [start, stop), whoever scored them.

    Args:
        known: All payments of the history, with their labels.
        probability: Their scores, float64 [n].
        start: Judge from here on.
        stop: Judge up to here.
        protocol: See `gnn.evaluate.protocols.selection`.
        calibrated: What is known of the payments that calibrated the scores.

    Raises:
        ModelError: An unknown protocol, or nothing to judge.
    """
    chosen = selection(known, start, stop, protocol)
    payments = known.payments
    return measure(
        probability[chosen],
        known.fraud[chosen],
        payments["amount"].to_numpy()[chosen],
        accounts(payments)[chosen],
        times(payments)[chosen],
        kind=None if known.kind is None else known.kind[chosen],
        calibrated=calibrated,
    )


def taught_by_them(
    artifact: Artifact,
    known: LabelledPayments,
    start: datetime | None = None,
    stop: datetime | None = None,
    protocol: str = "plain",
) -> list[str]:
    """A caution where the payments judged begin before those end that taught the model; the arguments are `judge`'s."""
    window = artifact.facts.get("training", {}).get("validation")
    first = times(known.payments)[selection(known, start, stop, protocol)][0]
    if window is None or datetime.fromtimestamp(first / 1e6, UTC) > datetime.fromisoformat(window["to"]):
        return []
    return [
        f"the payments evaluated begin before the end of the model's validation window ({window['to'][:19]}): if it "
        "was trained on them, these figures are too good (use --from)"
    ]


def calibrated_on(artifact: Artifact) -> CalibratedOn | None:
    """What a model says of the payments that calibrated it; None for one of before it said how sure that left it."""
    training = artifact.facts.get("training", {})
    window, covariance = training.get("validation"), training.get("calibration_covariance")
    return CalibratedOn(window["frauds"] / window["payments"], covariance) if window and covariance else None
