"""Prequential evaluation: week after week, each judged by a model that knows only what was known before it.

Trained anew every week or every few (Gama et al., 2013, on evaluating stream learners; Dal Pozzolo et al., 2018, on
delayed labels): the curve shows what standing still costs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from data.history import History
from data.report import Report, silent
from gnn.errors import ModelError
from gnn.evaluate.evaluate import calibrated_on, judge
from gnn.evaluate.metrics import Metrics
from gnn.evaluate.protocols import check_protocol
from gnn.score.replay import score_history
from gnn.train.targets import TrainConfig
from gnn.train.trainer import train

WEEK = timedelta(days=7)


@dataclass(frozen=True)
class Week:
    """One judged week.

    Attributes:
        start: Its first moment.
        trained: Up to when the model's events went.
        metrics: Of the week's payments; None where they cannot be judged.
        reason: Why they cannot.
    """

    start: datetime
    trained: datetime
    metrics: Metrics | None
    reason: str = ""


def prequential(
    history: History,
    *,
    first: datetime,
    weeks: int,
    every: int = 1,
    config: TrainConfig | None = None,
    shape: Mapping[str, Any] | None = None,
    protocol: str = "plain",
    report: Report = silent,
) -> list[Week]:
    """Train and judge in turn.

    Args:
        history: All of it; a model knows the labels reported before it was trained, a score those reported before it.
        first: First moment of the first week that is judged.
        weeks: How many weeks are judged.
        every: Weeks from one training to the next.
        config: How to train; nothing of the history is held out for a test.
        shape: Fields of `ModelConfig` that differ from its defaults.
        protocol: See `gnn.evaluate.protocols.selection`.
        report: Told of progress.

    Returns:
        The weeks, in order.

    Raises:
        ModelError: Too little history before `first`, or no week that can be judged.
    """
    check_protocol(protocol)
    if weeks < 1 or every < 1:
        raise ModelError(f"weeks = {weeks} and every = {every} must be at least 1")
    config = replace(config or TrainConfig(), test=0.0)
    found = []
    for begin in range(0, weeks, every):
        trained, stop = first + begin * WEEK, first + min(weeks, begin + every) * WEEK

        def said(what: str, share: float, done: int = begin) -> None:
            report(f"week {done + 1} of {weeks}: {what}", (done + share * every) / weeks)

        artifact = train(history.before(trained), config, dict(shape or {}), said)
        seen = history.before(stop)
        probability, known = score_history(artifact, seen, report=said), seen.labelled()
        for week in range(begin, min(weeks, begin + every)):
            start = first + week * WEEK
            try:
                metrics = judge(known, probability, start, start + WEEK, protocol, calibrated_on(artifact))
                found.append(Week(start, trained, metrics))
            except ModelError as error:  # a week without frauds does not undo the others
                found.append(Week(start, trained, None, str(error)))
    if not any(week.metrics for week in found):
        raise ModelError(f"no week can be judged: {found[0].reason}")
    return found


def draw(curves: Mapping[str, Mapping[str, float]], path: Path, bold: str = "") -> None:
    """The average precision of weeks as a picture.

    Args:
        curves: By name, average precision by the first day of a week (ISO).
        path: PNG to write.
        bold: The curve that stands out.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.6), layout="constrained")
    for name, weeks in curves.items():
        days = [datetime.fromisoformat(day) + timedelta(days=3.5) for day in weeks]
        axes.plot(days, list(weeks.values()), marker="o", linewidth=2.2 if name == bold else 1.2, label=name)
    axes.set_ylabel("average precision of the week")
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
