"""The model card: what a model was made from, what it is worth on later payments, for whom, and what it cannot do.

Sections after Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019). Everything in it is read from the
artifact or measured on the history given; nothing is written by hand for one model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from data.currency import format_amount
from data.history import History, LabelledPayments
from data.report import Report, silent
from gnn.evaluate.evaluate import calibrated_on, judge, taught_by_them
from gnn.evaluate.metrics import Metrics
from gnn.evaluate.protocols import accounts, check_protocol, selection, times
from gnn.model.artifact import Artifact
from gnn.score.devices import choose_device
from gnn.score.replay import score_history
from gnn.train.regimes import BOTH_CLASSES, FRAUDS_ONLY
from gnn.train.targets import FEW_FRAUDS

ROUNDS: Final = 200  # of the bootstrap
HANDBOOK: Final = ". As in the Fraud Detection Handbook, cards already known as fraudulent are left out of each day"
FEW: Final = 10  # frauds below which a slice has no average precision, and the whole no interval


@dataclass(frozen=True)
class Slice:
    """A part of the judged payments.

    Attributes:
        name: For readers.
        payments: In it.
        frauds: Among them.
        average_precision: None where there are too few frauds to say.
        recall: Share of its frauds among the payments reviewed over all slices.
        predicted: Mean probability.
        observed: Share of frauds.
    """

    name: str
    payments: int
    frauds: int
    average_precision: float | None
    recall: float | None
    predicted: float
    observed: float


@dataclass(frozen=True)
class Card:
    """All that a card says.

    Attributes:
        artifact: The model.
        metrics: Over all judged payments.
        intervals: 95 % by measure: low, high.
        slices: Parts of the judged payments.
        first: Of the judged payments, ISO 8601.
        last: Likewise.
        protocol: How payments were chosen.
    """

    artifact: Artifact
    metrics: Metrics
    intervals: dict[str, tuple[float, float]]
    slices: tuple[Slice, ...]
    first: str
    last: str
    protocol: str


def make_card(
    artifact: Artifact,
    history: History,
    *,
    start: datetime | None = None,
    stop: datetime | None = None,
    protocol: str = "plain",
    truth: Path | str | None = None,
    device: str = "auto",
    report: Report = silent,
) -> Card:
    """Score a history as the service would, and judge the payments in [start, stop) for the card.

    Args:
        artifact: The model.
        history: The payments judged, and those before `start` as their context.
        start: Judge from here on; must be later than what trained the model for an honest card.
        stop: Leave out events from here on.
        protocol: See `gnn.evaluate.protocols.selection`.
        truth: File of a simulated world's truth.
        device: `auto`, `cpu` or `cuda`.
        report: Told of progress.

    Raises:
        ModelError: An unknown protocol, or nothing to judge.
    """
    check_protocol(protocol)
    history = history.before(stop) if stop is not None else history
    probability = score_history(artifact, history, choose_device(device), report)
    known = history.labelled(truth)
    metrics = judge(known, probability, start, stop, protocol, calibrated_on(artifact))
    metrics.cautions.extend(taught_by_them(artifact, known, start, stop, protocol))
    rows = np.flatnonzero(selection(known, start, stop, protocol))
    report("bootstrap", 0.0)
    account, time = accounts(known.payments), times(known.payments)[rows]
    ends = [datetime.fromtimestamp(int(t) / 1e6, UTC).isoformat(timespec="minutes") for t in (time[0], time[-1])]
    return Card(
        artifact=artifact,
        metrics=metrics,
        intervals=bootstrap(probability[rows], known.fraud[rows], account[rows]),
        slices=slices(known, probability, rows, account),
        first=ends[0],
        last=ends[1],
        protocol=protocol,
    )


def bootstrap(
    probability: NDArray[np.float64],
    is_fraud: NDArray[np.bool_],
    account: NDArray[np.integer],
    rounds: int = ROUNDS,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """95 % intervals of average precision and ROC AUC; none where fewer than `FEW` accounts have frauds.

    Whole accounts are drawn, with all their payments: frauds of one account come together, and payments drawn one by
    one would promise more than there is.

    Args:
        probability: float64 [n].
        is_fraud: bool [n].
        account: A number for each account, [n].
        rounds: Draws.
        seed: Of the draws.
    """
    rng = np.random.default_rng(seed)
    _, code = np.unique(account, return_inverse=True)
    accounts = int(code.max()) + 1
    if len(np.unique(code[is_fraud])) < FEW:  # so few, drawn again and again, look surer than they are
        return {}
    found: dict[str, list[float]] = {"average precision": [], "ROC AUC": []}
    for _ in range(rounds):
        weight = rng.multinomial(accounts, np.full(accounts, 1 / accounts))[code].astype(np.float64)
        drawn = weight > 0
        if not 0 < is_fraud[drawn].sum() < drawn.sum():
            continue
        found["average precision"].append(
            float(average_precision_score(is_fraud[drawn], probability[drawn], sample_weight=weight[drawn]))
        )
        found["ROC AUC"].append(float(roc_auc_score(is_fraud[drawn], probability[drawn], sample_weight=weight[drawn])))
    return {
        name: (float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975)))
        for name, values in found.items()
        if values
    }


def slices(
    known: LabelledPayments,
    probability: NDArray[np.float64],
    rows: NDArray[np.int64],
    account: NDArray[np.integer],
    budget: float = 0.01,
) -> tuple[Slice, ...]:
    """New accounts and merchants, missing devices, quarters by amount, ring kinds where they are known."""
    payments, n = known.payments, len(probability)
    merchant = payments["merchant_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    masks: dict[str, NDArray[np.bool_]] = {}
    for name, of in (("account", account), ("merchant", merchant)):
        first = np.zeros(n, bool)
        first[np.unique(of, return_index=True)[1]] = True
        masks[f"first payment of its {name}"] = first[rows]
    missing = pc.is_null(payments["device_id"]).to_numpy()[rows]
    if not missing.all():
        masks["device known"], masks["device missing"] = ~missing, missing
    amount, currency = payments["amount"].to_numpy()[rows], payments["currency"].to_numpy()[rows]
    for code in np.unique(currency).tolist():
        # Amounts of different currencies are not compared: each has its own quarters.
        masks |= _quarters(amount, currency == code, code)
    if known.kind is not None:
        kind = known.kind[rows]
        masks |= {f"ring kind {k}": kind == k for k in sorted(set(kind)) if k}
    score, fraud = probability[rows], known.fraud[rows]
    reviewed = np.zeros(len(rows), bool)
    reviewed[np.argsort(-score, kind="stable")[: max(1, round(budget * len(rows)))]] = True
    found = []
    for name, mask in masks.items():
        if not mask.any():
            continue
        frauds = int(fraud[mask].sum())
        enough = FEW <= frauds < mask.sum()
        found.append(
            Slice(
                name=name,
                payments=int(mask.sum()),
                frauds=frauds,
                average_precision=float(average_precision_score(fraud[mask], score[mask])) if enough else None,
                recall=float(reviewed[mask & fraud].mean()) if frauds else None,
                predicted=float(score[mask].mean()),
                observed=float(fraud[mask].mean()),
            )
        )
    return tuple(found)


def _quarters(amount: NDArray[np.int64], of: NDArray[np.bool_], currency: str) -> dict[str, NDArray[np.bool_]]:
    """Masks of the quarters by amount of the payments in one currency."""
    edges = np.quantile(amount[of], [0.25, 0.5, 0.75])
    quarter = np.searchsorted(edges, amount, "right")
    first, second, third = (format_amount(round(edge), currency) for edge in edges.tolist())
    names = [f"amount below {first}", f"amount {first} to {second}", f"amount {second} to {third}"]
    return {name: of & (quarter == q) for q, name in enumerate([*names, f"amount from {third}"])}


def markdown(card: Card) -> str:
    """The card as a page in Markdown."""
    parts = [
        ("What it is", _what_it_is(card)),
        ("Data", _data(card)),
        ("Quality on later payments", _quality(card)),
        ("Quality by group of payments", _groups(card)),
        ("Calibration", _calibration(card)),
        ("Limits", _limits(card)),
    ]
    lines = [
        f"# Model card: {card.artifact.name} {card.artifact.version}",
        "",
        "Made by `ringwatch card` from the model and from a history that the model scored.",
    ]
    for title, part in parts:
        lines += ["", f"## {title}", "", *part]
    return "\n".join(lines) + "\n"


def _what_it_is(card: Card) -> list[str]:
    a, config = card.artifact, card.artifact.config
    trees = " Its score is averaged with those of boosted trees." if len(a.net.trees.root) else ""
    return [
        f"A temporal attention network over a graph of payments that share {' or '.join(a.roles)}: {config.layers} "
        f"layers of width {config.width}, which read the last {config.neighbours} payments of each entity, up to "
        f"{config.window_days} days back.{trees} The result is the probability that a payment is fraud, from what was "
        f"known when the payment was made. Weights: SHA-256 {a.sha256}.",
        "",
        "Intended use: to rank payments for review, and in rules that hold payments. Not intended for decisions "
        "about a person's credit, employment or account as a whole: it scores single payments.",
    ]


def _data(card: Card) -> list[str]:
    training = card.artifact.facts.get("training", {})
    settings = training.get("config", {})
    windows = [
        (part, w["from"][:16], w["to"][:16], f"{w['payments']:,}", f"{w['frauds']:,}")
        for part in ("train", "validation", "test")
        if (w := training.get(part))
    ]
    refit = " Then it was trained again, with the validation payments added to the training payments."
    return [
        *_rows(("", "from", "to", "payments", "known frauds"), windows),
        "",
        f"{_labels(training)} The number of epochs and of trees was chosen on the "
        f"validation payments, and the model was calibrated on them.{refit if settings.get('refit') else ''}"
        + (f" Features left out: {', '.join(settings['without'])}." if settings.get("without") else ""),
    ]


def _quality(card: Card) -> list[str]:
    m = card.metrics
    return [
        f"Measured on {m.payments:,} payments, {m.frauds:,} of them fraud, from {card.first} to {card.last}. They were "
        "scored in order of time, each with the labels reported by then"
        f"{HANDBOOK if card.protocol == 'handbook' else ''}. In brackets: 95 % interval, by a bootstrap over accounts.",
        "",
        *_rows(("measure", "value"), _measures(card)),
    ]


def _groups(card: Card) -> list[str]:
    rows = [
        (
            s.name,
            f"{s.payments:,}",
            f"{s.frauds:,}",
            "too few" if s.average_precision is None else f"{s.average_precision:.3f}",
            "" if s.recall is None else f"{s.recall:.1%}",
            f"{s.predicted:.2%}",
            f"{s.observed:.2%}",
        )
        for s in card.slices
    ]
    return [
        "AP is average precision. Recall is the share of the group's frauds that are among the "
        f"{card.metrics.budget:.0%} of all payments with the highest scores. Predicted is the mean probability, "
        "observed the share of frauds.",
        "",
        *_rows(("group", "payments", "frauds", "AP", "recall", "predicted", "observed"), rows),
    ]


def _calibration(card: Card) -> list[str]:
    m = card.metrics
    bins = [
        (f"{b.lowest:.4f} to {b.highest:.4f}", f"{b.payments:,}", f"{b.predicted:.2%}", f"{b.observed:.2%}")
        for b in m.reliability
    ]
    return [
        f"Expected calibration error {m.expected_calibration_error:.4f}, Brier score {m.brier:.5f}.",
        "",
        *_rows(("probability", "payments", "predicted", "observed"), bins),
        *_shift(card),
    ]


def _labels(training: dict[str, Any]) -> str:
    """How labels were used in training."""
    regime, days = training.get("labels", FRAUDS_ONLY), training.get("label_delay_days", float("nan"))
    said = f"Labels: {regime}. Most were reported within {days:.1f} days; "
    if regime in (FRAUDS_ONLY, BOTH_CLASSES):
        return said + "an older payment without a label counted as legitimate."
    return said + "payments without a label were not used for training."


def _measures(card: Card) -> list[tuple[str, str]]:
    m = card.metrics

    def value(name: str, figure: float) -> tuple[str, str]:
        if name not in card.intervals:
            return name, f"{figure:.4f} (too few frauds for an interval)"
        low, high = card.intervals[name]
        return name, f"{figure:.4f} ({low:.4f} to {high:.4f})"

    return [
        value("average precision", m.average_precision),
        value("ROC AUC", m.roc_auc),
        (f"share of frauds among the {m.budget:.0%} with the highest scores", f"{m.recall_at_budget:.1%}"),
        ("the same, weighted by amount", f"{m.fraud_money_caught:.1%}"),
        ("card precision at 100 cards a day", f"{m.card_precision_at_100:.3f}"),
    ]


def _shift(card: Card) -> list[str]:
    if (shift := card.metrics.prior_shift) is None:
        return []
    return ["", f"{shift} (method of Saerens et al. 2002; 95 % interval in brackets)."]


def _limits(card: Card) -> list[str]:
    m = card.metrics
    lines = [
        "- The intervals are over accounts. They do not say how much results differ from one month to the next.",
        "- Only reported fraud counts as fraud. Fraud that nobody reports is learnt as legitimate.",
        "- The model does not read name, age, sex, origin or address. Country, currency and device can be proxies for "
        "them: check the groups above before you hold a group's payments automatically.",
        "- The model relies on past payments and labels. A fraudster can hide among many harmless payments of an "
        "entity.",
    ]
    half = 0.5 * m.average_precision
    if weak := [s.name for s in card.slices if s.average_precision is not None and s.average_precision < half]:
        names = ", ".join(weak)
        lines.append(f"- Weakest groups, with less than half of the overall average precision: {names}.")
    if few := [s.name for s in card.slices if s.average_precision is None]:
        lines.append(f"- Groups with too few frauds to measure: {', '.join(few)}.")
    lines += [f"- {caution[0].upper()}{caution[1:]}." for caution in m.cautions]
    if FEW_FRAUDS <= m.frauds < 500:
        lines.append(f"- Only {m.frauds:,} frauds: a few more or fewer change the second decimal of each measure.")
    return lines


def _rows(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        "|---|" + "---:|" * (len(head) - 1),
        *(f"| {' | '.join(map(str, row))} |" for row in rows),
    ]
