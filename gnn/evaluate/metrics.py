"""What scores are worth, as numbers: metrics of probabilities beside what their payments were."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from gnn.errors import ModelError
from gnn.evaluate.shift import Bin, CalibratedOn, PriorShift, calibration_error, prior_shift, reliability
from gnn.train.targets import FEW_FRAUDS, counted

DAY_US = 86_400_000_000
CARDS = 100  # cards that the Handbook's investigators check a day


@dataclass(frozen=True)
class Metrics:
    """Detection quality. Shares are of 1.

    Attributes:
        payments: Judged.
        frauds: Among them.
        average_precision: Area under the precision-recall curve.
        roc_auc: Area under the ROC curve.
        budget: Share of the payments that are reviewed, those scored highest.
        recall_at_budget: Share of the frauds among them.
        fraud_money_caught: Share of the frauds' amount among them.
        card_precision_at_100: Mean over days of the share of compromised cards among the 100 scored highest, cards
            once detected left out (Fraud Detection Handbook, chapter 4).
        expected_calibration_error: Over 20 bins of equal mass.
        brier: Mean squared error of the probabilities.
        recall_by_kind: Share of each ring kind's frauds among the reviewed.
        reliability: The reliability curve, bins of equal mass.
        prior_shift: What a correction for a moved base rate does, if what calibrated the scores is known.
        cautions: What whoever reads these figures should know, a sentence each.
    """

    payments: int
    frauds: int
    average_precision: float
    roc_auc: float
    budget: float
    recall_at_budget: float
    fraud_money_caught: float
    card_precision_at_100: float
    expected_calibration_error: float
    brier: float
    recall_by_kind: dict[str, float] = field(default_factory=dict)
    reliability: list[Bin] = field(default_factory=list)
    prior_shift: PriorShift | None = field(default=None, compare=False)
    cautions: list[str] = field(default_factory=list, compare=False)


def measure(
    probability: NDArray[np.float64],
    is_fraud: NDArray[np.bool_],
    amount: NDArray[np.int64],
    account: NDArray[np.integer],
    time_us: NDArray[np.int64],
    kind: NDArray[np.object_] | None = None,
    budget: float = 0.01,
    calibrated: CalibratedOn | None = None,
) -> Metrics:
    """Judge scores.

    Args:
        probability: Fraud probabilities, float64 [n].
        is_fraud: What they were, bool [n].
        amount: Minor units, int64 [n].
        account: A number for each account, [n].
        time_us: UTC microseconds, int64 [n].
        kind: Ring kind of each fraud, if known, [n].
        budget: Share of payments that can be reviewed.
        calibrated: What is known of the payments that calibrated the scores.

    Raises:
        ModelError: There is no fraud, or nothing else, to judge by.
    """
    n, frauds = len(probability), int(is_fraud.sum())
    if not 0 < frauds < n:
        raise ModelError(
            f"cannot evaluate {n:,} payments of which {frauds:,} are fraud: both classes are needed "
            "(choose others with --from and --until)"
        )
    # Ties are broken by arrival, as a reviewer who works through a queue would.
    reviewed = np.zeros(n, bool)
    reviewed[np.argsort(-probability, kind="stable")[: max(1, round(budget * n))]] = True
    caught = reviewed & is_fraud
    kinds = (
        {}
        if kind is None
        else {k: float(caught[kind == k].sum() / is_fraud[kind == k].sum()) for k in _kinds(kind, is_fraud)}
    )
    return Metrics(
        payments=n,
        frauds=frauds,
        average_precision=float(average_precision_score(is_fraud, probability)),
        roc_auc=float(roc_auc_score(is_fraud, probability)),
        budget=budget,
        recall_at_budget=float(caught.sum() / frauds),
        fraud_money_caught=float(amount[caught].sum() / max(1, amount[is_fraud].sum())),
        card_precision_at_100=card_precision(probability, is_fraud, account, time_us),
        expected_calibration_error=calibration_error(probability, is_fraud),
        brier=float(brier_score_loss(is_fraud, probability)),
        recall_by_kind=kinds,
        reliability=reliability(probability, is_fraud),
        prior_shift=prior_shift(probability, is_fraud, calibrated) if calibrated else None,
        cautions=[f"only {counted(frauds)} here: a few more or fewer change these figures"]
        if frauds < FEW_FRAUDS
        else [],
    )


def card_precision(
    probability: NDArray[np.float64],
    is_fraud: NDArray[np.bool_],
    account: NDArray[np.integer],
    time_us: NDArray[np.int64],
    cards: int = CARDS,
) -> float:
    """CP@k of the Fraud Detection Handbook: see `Metrics.card_precision_at_100`."""
    day, detected, precision = time_us // DAY_US, np.zeros(0, account.dtype), []
    for today in np.unique(day):
        rows = np.flatnonzero((day == today) & ~np.isin(account, detected))
        names, code = np.unique(account[rows], return_inverse=True)
        score, compromised = np.full(len(names), -np.inf), np.zeros(len(names), bool)
        np.maximum.at(score, code, probability[rows])
        np.logical_or.at(compromised, code, is_fraud[rows])
        top = np.argsort(-score, kind="stable")[:cards]
        hits = top[compromised[top]]
        precision.append(len(hits) / cards)
        detected = np.concatenate([detected, names[hits]])
    return float(np.mean(precision))


def to_dict(metrics: Metrics) -> dict[str, Any]:
    """For JSON."""
    return asdict(metrics)


def as_table(metrics: Metrics, title: str = "detection") -> Table:
    """For people."""
    m = metrics
    table = Table(title=f"{title}: {m.payments:,} payments, {m.frauds:,} frauds")
    table.add_column("metric")
    table.add_column("", justify="right")
    rows = [
        ("average precision", f"{m.average_precision:.4f}"),
        ("ROC AUC", f"{m.roc_auc:.4f}"),
        (f"frauds in the top {m.budget:.1%}", f"{m.recall_at_budget:.1%}"),
        (f"fraud money in the top {m.budget:.1%}", f"{m.fraud_money_caught:.1%}"),
        ("card precision at 100", f"{m.card_precision_at_100:.3f}"),
        ("expected calibration error", f"{m.expected_calibration_error:.4f}"),
        ("Brier score", f"{m.brier:.5f}"),
        *((f"  {kind}", f"{share:.1%}") for kind, share in sorted(m.recall_by_kind.items())),
    ]
    for row in rows:
        table.add_row(*row)
    return table


def reliability_table(metrics: Metrics) -> Table:
    """For people: the reliability curve, and what the base rate has to do with its error."""
    m, caption = metrics, str(metrics.prior_shift or "")
    table = Table(title=f"reliability, expected calibration error {m.expected_calibration_error:.4f}", caption=caption)
    for column in ("probability", "payments", "predicted", "observed"):
        table.add_column(column, justify="right")
    for b in m.reliability:
        table.add_row(
            f"{b.lowest:.4f} to {b.highest:.4f}", f"{b.payments:,}", f"{b.predicted:.2%}", f"{b.observed:.2%}"
        )
    return table


def _kinds(kind: NDArray[np.object_], is_fraud: NDArray[np.bool_]) -> list[str]:
    return sorted({str(k) for k in kind[is_fraud] if k})
