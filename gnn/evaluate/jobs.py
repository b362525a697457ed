"""Training and evaluation on files: what the command line, the demo and the benchmarks run."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data.files.datasets import handbook_split
from data.files.readers import OnRefusal
from data.files.sources import Run, merged, read_labels
from data.journal.protocol import Kind
from data.schema import LABEL_SCHEMA, TRANSACTION_SCHEMA
from gnn.errors import ModelError
from gnn.evaluate.metrics import Metrics, evaluate
from gnn.model.artifact import Artifact, load
from gnn.score.devices import choose_device
from gnn.score.replay import numbered, open_model, score_events
from gnn.train.targets import TrainConfig
from gnn.train.trainer import train

Report = Callable[[str, float], None]
PROTOCOLS = ("plain", "handbook")


@dataclass(frozen=True)
class Judged:
    """Payments with what is now known of them, in time order.

    Attributes:
        payments: Columns of `TRANSACTION_SCHEMA`.
        fraud: The newest label of each, bool [n]; without one, legitimate.
        labelled: Whether it has a label, bool [n].
    """

    payments: pa.Table
    fraud: NDArray[np.bool_]
    labelled: NDArray[np.bool_]


def train_files(
    transactions: Path | str,
    labels: Path | str,
    config: TrainConfig | None = None,
    *,
    shape: dict[str, Any] | None = None,
    start: datetime | None = None,
    stop: datetime | None = None,
    strict: bool = False,
    on_refusal: OnRefusal | None = None,
    report: Report = lambda what, share: None,
) -> Artifact:
    """Train on the events of two files in [start, stop): what was known before `stop`."""
    report("reading", 0.0)
    runs = merged(transactions, labels, strict=strict, on_refusal=on_refusal, start=start, stop=stop, chunk=1 << 16)
    return train(list(runs), config, shape, report)


def evaluate_files(
    model: Path | str,
    transactions: Path | str,
    labels: Path | str,
    *,
    start: datetime | None = None,
    stop: datetime | None = None,
    protocol: str = "plain",
    truth: Path | str | None = None,
    device: str = "auto",
    strict: bool = False,
    on_refusal: OnRefusal | None = None,
    report: Report = lambda what, share: None,
) -> Metrics:
    """Score the whole history before `stop` as the service would, and judge the payments in [start, stop).

    Args:
        model: Folder of the artifact.
        transactions: The history; what lies before `start` is context.
        labels: Labels; each is seen by scores only after its `reported_at`, but all of them judge.
        start: Judge from here on.
        stop: Read no event from here on.
        protocol: See `judge`.
        truth: Truth of a simulated world: judges in place of the labels, and adds recall by ring kind.
        device: `auto`, `cpu` or `cuda`.
        strict: Stop at the first refused row.
        on_refusal: Told of each refused row.
        report: Called with progress.
    """
    check_protocol(protocol)
    artifact = load(model)
    runs = list(merged(transactions, labels, strict=strict, on_refusal=on_refusal, stop=stop))
    probability = score_runs(artifact, runs, choose_device(device), report)
    judged = with_labels(runs, labels, truth)
    return judge(judged, probability, start, stop, protocol, truth, base_rate(artifact))


def score_runs(
    artifact: Artifact, runs: Sequence[Run], device: str = "cpu", report: Report = lambda what, share: None
) -> NDArray[np.float64]:
    """Score all payments of a history, labels in their place; float64, one for each payment in order."""
    total = sum(len(batch) for kind, batch in runs if kind is Kind.TRANSACTION)
    state, scorer = open_model(artifact, device, total)
    parts = []
    for scored in score_events(state, scorer, numbered(runs)):
        parts.append(scored.probability)
        report("scoring", scored.rows.stop / total)
    return np.concatenate([np.empty(0), *parts])


def with_labels(runs: Iterable[Run], labels: Path | str, truth: Path | str | None = None) -> Judged:
    """The payments of a history with their newest labels, whenever those were reported, or with a world's truth."""
    batches = [batch for kind, batch in runs if kind is Kind.TRANSACTION]
    payments = pa.Table.from_batches(batches, TRANSACTION_SCHEMA)
    if truth is not None:
        known = pq.read_table(truth, columns=["transaction_id", "is_fraud"])
    else:
        known = pa.Table.from_batches(list(read_labels(labels)), LABEL_SCHEMA).sort_by("reported_at")
    # The last of several labels wins: a dictionary keeps the last value of a repeated key.
    newest = dict(zip(known["transaction_id"].to_pylist(), known["is_fraud"].to_pylist(), strict=True))
    found = [newest.get(i) for i in payments["transaction_id"].to_pylist()]
    return Judged(
        payments,
        np.fromiter((bool(f) for f in found), bool, len(found)),
        np.fromiter((f is not None for f in found), bool, len(found)),
    )


def judge(
    judged: Judged,
    probability: NDArray[np.float64],
    start: datetime | None = None,
    stop: datetime | None = None,
    protocol: str = "plain",
    truth: Path | str | None = None,
    base_rate: float | None = None,
) -> Metrics:
    """Metrics of the payments in [start, stop).

    Args:
        judged: All payments of the history.
        probability: Their scores.
        start: Judge from here on.
        stop: Judge up to here.
        protocol: See `selection`.
        truth: Truth of a simulated world, for recall by ring kind.
        base_rate: Share of frauds that the scores are calibrated for.

    Raises:
        ModelError: An unknown protocol, or nothing to judge.
    """
    chosen = selection(judged, start, stop, protocol)
    payments = judged.payments
    time, account = _times(payments), _accounts(payments)
    kind = None
    if truth is not None:
        kinds = pq.read_table(truth, columns=["transaction_id", "ring_kind"])
        of = dict(zip(kinds["transaction_id"].to_pylist(), kinds["ring_kind"].to_pylist(), strict=True))
        ids = pc.filter(payments["transaction_id"], pa.array(chosen)).to_pylist()
        kind = np.array([of.get(i) or "" for i in ids], object)
    return evaluate(
        probability[chosen],
        judged.fraud[chosen],
        payments["amount"].to_numpy()[chosen],
        account[chosen],
        time[chosen],
        kind=kind,
        base_rate=base_rate,
    )


def base_rate(artifact: Artifact) -> float | None:
    """Share of frauds among the payments that calibrated a model, if it says."""
    window = artifact.facts.get("training", {}).get("validation")
    return window["frauds"] / window["payments"] if window else None


def selection(
    judged: Judged, start: datetime | None = None, stop: datetime | None = None, protocol: str = "plain"
) -> NDArray[np.bool_]:
    """Which payments of a history are judged.

    Args:
        judged: All payments of the history.
        start: Judge from here on.
        stop: Judge up to here.
        protocol: `plain`: all of them, or, where the labels also say "legitimate", the labelled ones. `handbook`: the
            Fraud Detection Handbook's test set (chapter 3), without cards that are known for fraud on the day.

    Returns:
        bool, one for each payment.

    Raises:
        ModelError: An unknown protocol, or nothing to judge.
    """
    check_protocol(protocol)
    time = _times(judged.payments)
    chosen = np.ones(len(time), bool)
    if start is not None:
        chosen &= time >= _us(start)
    if stop is not None:
        chosen &= time < _us(stop)
    if not chosen.any():
        raise ModelError("no payment to judge between --from and --until")
    if protocol == "handbook":
        first, last = (datetime.fromtimestamp(time[chosen][i] / 1e6, UTC).date() for i in (0, -1))
        train_start = first - timedelta(days=14)  # seven days of training and seven in which their labels arrive
        days = (last - first).days + 1
        chosen &= handbook_split(
            time, _accounts(judged.payments), judged.fraud, train_start=train_start, test_days=days
        )[1]
    elif judged.labelled.any() and (judged.labelled & ~judged.fraud).sum() > judged.fraud.sum():
        chosen &= judged.labelled
    return chosen


def check_protocol(protocol: str) -> None:
    """Refuse an unknown protocol: at once, and not after hours of training.

    Raises:
        ModelError: It is none of `PROTOCOLS`.
    """
    if protocol not in PROTOCOLS:
        raise ModelError(f"--protocol must be one of {', '.join(PROTOCOLS)}, not {protocol!r}")


def _us(moment: datetime) -> int:
    return int(pa.scalar(moment, pa.timestamp("us", tz="UTC")).value)


def _times(payments: pa.Table) -> NDArray[np.int64]:
    times: NDArray[np.int64] = payments["timestamp"].cast(pa.int64()).to_numpy()
    return times


def _accounts(payments: pa.Table) -> NDArray[np.integer]:
    """A number for each account, [n]."""
    numbers: NDArray[np.integer] = payments["account_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    return numbers
