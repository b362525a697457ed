"""The leakage audit: one history under its published split, a clean one and the strictly causal one, and the gaps.

All three are judged with the same fast boosted trees, so that what separates them is the protocol and nothing else:

- published: as most tables are made. Test payments are drawn at random (or by the Fraud Detection Handbook's split),
  every label is known as soon as its payment is made, entities are counted over the whole history.
- clean: the same, tested on later payments only.
- strict: tested on the same later payments; labels are known from their report on, by the trainer and by every feature,
  and features are as of the payment. This is what the service can do.

Beside the gaps stand the columns that the detector of `gnn.quality.leaks` names in each, and two planted leaks that it
must name.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich.table import Table
from sklearn.metrics import average_precision_score, roc_auc_score
from threadpoolctl import threadpool_limits

from data.files.datasets import handbook_split
from data.files.sources import Run
from data.history import History, LabelledPayments, numbered
from data.journal.protocol import Kind
from data.report import Report, silent
from data.schema import LABEL_SCHEMA
from gnn.errors import ModelError
from gnn.evaluate.protocols import accounts, selection, times
from gnn.quality.leaks import CAUSAL, PLANTED, WHOLE_HISTORY, Inputs, LabelTimes, build, choose_probes, leaking
from gnn.train.boosted_trees import BoostingConfig, Setting, fit_trees, sample_training_rows
from gnn.train.targets import Targets, TrainConfig, choosing_from, make_targets
from graph.state import GraphState

PUBLISHED: Final = ("random", "handbook")
TREES: Final = BoostingConfig(settings=(Setting(leaves=15, rows=50),), trees=150, step=50, negatives=10)
JUDGED: Final = 100_000  # test payments that a case is judged by, drawn where there are more
TAUGHT: Final = 60_000  # training payments that its trees learn from, likewise
VALIDATION: Final = 0.12  # of the training payments, as in `TrainConfig`
PROBES: Final = 240
HELP: Final = "give a longer history, or test from another moment on (--test-from)"


@dataclass(frozen=True)
class Case:
    """One protocol or planted leak, and what came of it.

    Attributes:
        name: As in the table.
        payments: Test payments judged.
        frauds: Among them.
        average_precision: Of boosted trees.
        roc_auc: Likewise.
        leaks: Columns that read what was not yet known at the payment.
    """

    name: str
    payments: int
    frauds: int
    average_precision: float
    roc_auc: float
    leaks: tuple[str, ...]


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        splits: `published`, `clean` and `strict`.
        planted: `strict` with one planted leak each.
        probes: Rows whose inputs were recomputed on the journal cut behind them.
        early_labels: Labels that the strict graph showed otherwise than the journal had them at the time.
        labels_checked: Neighbours looked at for that.
        early_at_once: The same count for the graph in which labels are known at once: what the check must catch.
        early_targets: Training payments taught as fraud before any label of theirs was journalled.
    """

    splits: tuple[Case, ...]
    planted: tuple[Case, ...]
    probes: int
    early_labels: int
    labels_checked: int
    early_at_once: int
    early_targets: int

    @property
    def sound(self) -> bool:
        """Whether the strict protocol leaks nothing and every planted leak was caught."""
        caught = all(any(name.startswith("planted.") for name in case.leaks) for case in self.planted)
        return caught and not (self.splits[-1].leaks or self.early_labels or self.early_targets)


def audit(
    history: History,
    *,
    published: str = "random",
    test_start: datetime | None = None,
    seed: int = 0,
    report: Report = silent,
) -> Audit:
    """Audit a history.

    Args:
        history: Payments and labels; labels reported after its end judge, too.
        published: How the published tables of this data split it: `random`, 30 % to test, or `handbook`, a week to
            train and after a week's delay a week to test, without cards known for fraud.
        test_start: Test on payments from here on; by default the last 30 % of the payments.
        seed: Of draws.
        report: Told of progress.

    Raises:
        ModelError: Too few payments or known frauds to learn from or to judge by, or `published` is unknown.
    """
    if published not in PUBLISHED:
        raise ModelError(f"--published must be one of {', '.join(PUBLISHED)}, not {published!r}")
    return _Auditor(history, published, test_start, seed, report).run()


class _Auditor:
    """One history, read into two graphs: with labels in their place, and with labels known at once."""

    def __init__(
        self, history: History, published: str, test_start: datetime | None, seed: int, report: Report
    ) -> None:
        self.judged = judged = history.labelled()
        self.published, self.seed, self.report = published, seed, report
        self.roles, n = history.roles, len(judged.fraud)
        if n == 0:
            raise ModelError("there is no payment to audit")
        self.time = times(judged.payments)
        begin = test_start or datetime.fromtimestamp(self.time[int(0.7 * n)] / 1e6, UTC)
        protocol = "handbook" if published == "handbook" else "plain"
        chosen = selection(judged, begin, None, protocol)
        self.test_us = int(pa.scalar(begin, pa.timestamp("us", tz="UTC")).value)
        self.later = self._drawn(np.flatnonzero(chosen))
        # Where labels also say "legitimate", a payment without one is unknown: it neither teaches nor judges.
        whole = (judged.labelled & ~judged.fraud).sum() <= judged.fraud.sum()
        self.usable = np.ones(n, bool) if whole else judged.labelled
        self.probes = choose_probes(judged.labelled, judged.fraud, PROBES, seed)
        self.inputs: dict[str, Inputs] = {"causal": CAUSAL, "whole history": WHOLE_HISTORY, **PLANTED}
        report("building the graph, labels in their place", 0.0)
        self.graph, self.cut = build(history.events, self.roles, n, self.probes, self.inputs)
        report("building the graph, labels known at once", 0.0)
        self.oracle, _ = build(numbered(at_once(judged)), self.roles, n)
        self.times = LabelTimes(history.events, self.graph)

    def run(self) -> Audit:
        """Judge every case."""
        targets = replace(make_targets(self.graph, TrainConfig(), self.test_us), test=self.later)
        published = self._published()
        clean = self._targets(np.flatnonzero(self.usable & (self.time < self.test_us)))
        open_inputs, causal = ("causal", "whole history"), ("causal",)
        if self.published == "handbook":  # the book's features wait for labels and see the past only
            first = self._case("published", self.graph, published, causal)
        else:
            first = self._case("published", self.oracle, published, open_inputs)
        splits = (
            first,
            self._case("clean", self.oracle, clean, open_inputs),
            self._case("strict", self.graph, targets, causal),
        )
        planted = tuple(self._case(f"planted: {name}", self.graph, targets, ("causal", name)) for name in PLANTED)
        early, looked = self.times.early(self.graph, self.probes)
        return Audit(
            splits=splits,
            planted=planted,
            probes=len(self.probes),
            early_labels=early,
            labels_checked=looked,
            early_at_once=self.times.early(self.oracle, self.probes)[0],
            early_targets=self._early_targets(targets),
        )

    def _published(self) -> Targets:
        """The split of published tables: training and validation payments, and their own test payments."""
        if self.published == "handbook":
            account = accounts(self.judged.payments)
            first = datetime.fromtimestamp(self.test_us / 1e6, UTC).date().toordinal() - 14
            train, _ = handbook_split(
                self.time, account, self.judged.fraud, train_start=datetime.fromordinal(first).date()
            )
            return self._targets(np.flatnonzero(train))
        order = np.random.default_rng(self.seed).permutation(np.flatnonzero(self.usable))
        cut = int(0.7 * len(order))
        return self._targets(order[:cut], np.sort(order[cut:]))

    def _targets(self, train: NDArray[np.int64], test: NDArray[np.int64] | None = None) -> Targets:
        """The last of the training payments in their order choose; labels are final."""
        cut = choosing_from(self.judged.fraud[train].astype(np.float32), VALIDATION)
        return Targets(
            train=np.sort(train[:cut]),
            validation=np.sort(train[cut:]),
            test=self.later if test is None else self._drawn(test),
            fraud=self.judged.fraud.astype(np.float32),
            label_delay_us=0,
        )

    def _case(self, name: str, state: GraphState, targets: Targets, inputs: Sequence[str]) -> Case:
        self.report(f"judging {name}", 0.0)
        names = [column for i in inputs for column in self.inputs[i].names(self.roles)]
        rows, fraud = self._drawn(sample_training_rows(targets, TREES), TAUGHT), targets.fraud > 0
        for part, chosen in (("training", rows), ("validation", targets.validation)):
            if not 0 < fraud[chosen].sum() < len(chosen):
                raise ModelError(f"{name}: the {part} payments are all fraud or all legitimate; {HELP}")
        test, truth = targets.test, self.judged.fraud[targets.test]
        if not 0 < truth.sum() < len(truth):
            raise ModelError(f"{name}: the test payments are all fraud or all legitimate; {HELP}")
        categorical = np.array([column.startswith("category.") for column in names])
        validation = self._drawn(targets.validation)
        x, known = self._read(state, rows, inputs), self._read(state, validation, inputs)
        # One thread: on a machine that others use too, threads that wait for each other cost tenfold.
        with threadpool_limits(1, "openmp"):
            trees, _ = fit_trees(x, fraud[rows], known, fraud[validation], TREES, categorical)
        score = trees.decision_function(self._read(state, test, inputs))
        cut = np.concatenate([self.cut[i] for i in inputs], 1)
        return Case(
            name=name,
            payments=len(test),
            frauds=int(truth.sum()),
            average_precision=float(average_precision_score(truth, score)),
            roc_auc=float(roc_auc_score(truth, score)),
            leaks=leaking(self._read(state, self.probes, inputs), cut, names),
        )

    def _read(self, state: GraphState, rows: NDArray[np.int64], inputs: Sequence[str]) -> NDArray[np.float32]:
        return np.concatenate([self.inputs[i].read(state, rows) for i in inputs], 1)

    def _drawn(self, rows: NDArray[np.int64], most: int = JUDGED) -> NDArray[np.int64]:
        if len(rows) <= most:
            return rows
        return np.sort(np.random.default_rng(self.seed).choice(rows, most, replace=False))

    def _early_targets(self, targets: Targets) -> int:
        rows = np.concatenate([targets.train, targets.validation])
        taught = rows[targets.fraud[rows] > 0]
        first = int(np.searchsorted(self.graph.store.column("time"), self.test_us))
        before = np.full(len(taught), self.times.payment[first])
        return int((self.times.known(taught, before) != 1).sum())


def at_once(judged: LabelledPayments) -> Iterator[Run]:
    """The same payments, each labelled payment's newest label right behind it."""
    payments = judged.payments.combine_chunks()
    begin = 0
    for end in [*np.flatnonzero(judged.labelled).tolist(), None]:
        piece = payments.slice(begin, None if end is None else end + 1 - begin)
        for batch in piece.to_batches():
            yield Kind.TRANSACTION, batch
        if end is None:
            return
        begin = end + 1
        columns = [piece["transaction_id"][-1:].combine_chunks(), pa.array(judged.fraud[end : end + 1])]
        moment = piece["timestamp"][-1:].combine_chunks()
        yield Kind.LABEL, pa.RecordBatch.from_arrays([*columns, moment], schema=LABEL_SCHEMA)


def to_dict(found: Audit) -> dict[str, Any]:
    """For JSON."""
    return {**asdict(found), "sound": found.sound}


def as_tables(found: Audit) -> list[Table]:
    """For people: the splits and their gaps, then the checks."""
    table = Table(title="one history, three protocols, the same boosted trees")
    for column in ("", "payments", "frauds", "AP", "gap to strict", "ROC AUC", "gap to strict"):
        table.add_column(column, justify="right" if column else "left")
    last = found.splits[-1]
    for case in (*found.splits, *found.planted):
        table.add_row(
            case.name,
            f"{case.payments:,}",
            f"{case.frauds:,}",
            f"{case.average_precision:.4f}",
            "" if case is last else f"{case.average_precision - last.average_precision:+.4f}",
            f"{case.roc_auc:.4f}",
            "" if case is last else f"{case.roc_auc - last.roc_auc:+.4f}",
            style="bold" if case is last else None,
        )
    checks = Table(title=f"inputs of {found.probes:,} payments, recomputed on the journal cut behind each")
    checks.add_column("")
    checks.add_column("columns that read what was not yet known")
    for case in (*found.splits, *found.planted):
        checks.add_row(case.name, _grouped(case.leaks) or "none")
    labels = Table(title=f"labels of {found.labels_checked:,} neighbours, beside what the journal had said by then")
    for column in ("", "seen too early"):
        labels.add_column(column, justify="right" if column else "left")
    labels.add_row("strict", f"{found.early_labels:,}")
    labels.add_row("labels known at once", f"{found.early_at_once:,}")
    labels.add_row("taught before they were reported", f"{found.early_targets:,}")
    return [table, checks, labels]


def _grouped(columns: Sequence[str]) -> str:
    """Columns in a few words: `fraud, labelled of account, merchant` for those of every window."""
    scopes: dict[str, list[str]] = {}
    for column in columns:
        scope, what, *_ = column.split(".")
        if scope == "planted":
            scope, what = column, ""
        scopes.setdefault(scope, [])
        if what not in scopes[scope]:
            scopes[scope].append(what)
    alike: dict[str, list[str]] = {}
    for scope, found in scopes.items():
        alike.setdefault(", ".join(found), []).append(scope)
    return "; ".join(f"{what} of {', '.join(of)}" if what else ", ".join(of) for what, of in alike.items())
