"""The contests on payment histories: the Fraud Detection Handbook, S-FFSD and the seeded world."""

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.quality.contest import Contest, numbers
from benchmarks.report import ROOT
from data.files.datasets import handbook as read_handbook
from data.files.datasets import s_ffsd as read_s_ffsd
from data.files.datasets import s_ffsd_split
from data.files.sources import Run
from data.history import History, LabelledPayments
from data.journal.protocol import Kind
from data.schema import LABEL_SCHEMA, TIMESTAMP
from data.world.synthetic import WorldConfig, simulate
from gnn.evaluate.protocols import selection
from gnn.quality.audit import at_once
from gnn.train.targets import Targets, TrainConfig
from graph.dag.protocol import DAY_US
from graph.state import GraphState

DATASETS = Path(os.environ.get("RINGWATCH_DATASETS", ROOT.parent / "shared" / "datasets"))
RAW = DATASETS / "handbook" / "transactions_raw_to_08-31.parquet"
OUTSIDE_TRAINING = 0.7  # share of the time of an outside history that teaches
FILES = ROOT / "var" / "quality" / "files"
WEEK = timedelta(days=7)
TEACHING, JUDGING = range(12), range(200, 205)  # seeds of worlds; those that judge no trial has seen


def handbook(name: str, test_start: datetime, days: int | None = None) -> Contest:
    """A test week of the book, trained on what was known when it began.

    Labels come seven days after the payment, so the payments that teach end seven days before the test week; those of
    the week between are context. Cards known for fraud are left out of each test day, as in the book.

    Args:
        name: Of the benchmark.
        test_start: First test day.
        days: Teach with the last so many days of settled payments only; the history before them stays context.
    """
    stop = test_start + WEEK
    history = History.read(*handbook_files(), stop=stop)
    judged = history.labelled()
    rows = np.flatnonzero(selection(judged, test_start, stop, "handbook"))
    config = TrainConfig(test=0, label_delay_days=7)
    contest = _contest(name, history.before(test_start), history, judged, rows, config)
    return replace(contest, cards=True, taught=None if days is None else _LastDays(days))


def handbook_files() -> tuple[Path, Path]:
    """Its payments and labels in our schema."""
    return _written("handbook", lambda: read_handbook(RAW))


class _LastDays:
    """Teaches with the last days of settled payments: the last fifth of them chooses and calibrates."""

    def __init__(self, days: int) -> None:
        self.days = days

    def __call__(self, state: GraphState, targets: Targets) -> Targets:
        time = state.store.column("time")
        rows = np.concatenate([targets.train, targets.validation])
        end = int(time[rows[-1]])
        first = (end // DAY_US + 1 - self.days) * DAY_US  # whole days
        rows = rows[time[rows] >= first]
        cut = first + int(0.8 * (end - first))
        return replace(targets, train=rows[time[rows] < cut], validation=rows[time[rows] >= cut])


def s_ffsd(variant: str) -> Contest:
    """S-FFSD, the labelled payments of the last 30 % of all rows as the test, trained on those before.

    Args:
        variant: `no_labels`: the network never sees a label, only the trainer does. `at_once`: every label is in the
            graph right behind its payment, as the published tables have it. `delayed`: a label is in the graph, and at
            the trainer's hand, seven days (10,080 rows) after its payment.
    """
    delay = {"no_labels": timedelta(0), "at_once": timedelta(0), "delayed": WEEK}[variant]
    paths = _written(f"s_ffsd_{delay.days}", lambda: read_s_ffsd(DATASETS / "s_ffsd" / "S-FFSD.zip", delay))
    whole = History.read(*paths)
    judged = whole.labelled()
    time = judged.payments["timestamp"].cast(pa.int64()).to_numpy()
    test = s_ffsd_split(time, judged.labelled)[1]
    first = int(np.flatnonzero(test)[0])
    # Its times are the numbers of the rows: there is no time of day in them and no day of the week.
    made_up = ("payment.hour", "payment.week")
    rows, config = np.flatnonzero(test), TrainConfig(test=0, label_delay_days=delay.days, without=made_up)
    if variant == "delayed":
        stop = datetime.fromtimestamp(time[first] / 1e6, UTC)
        return _contest("s_ffsd_delayed", whole.before(stop), whole, judged, rows, config)
    early = LabelledPayments(judged.payments.slice(0, first), judged.fraud[:first], judged.labelled[:first])
    if variant == "at_once":
        return _contest("s_ffsd_at_once", History(at_once(early)), History(at_once(judged)), judged, rows, config)
    blind = [(Kind.TRANSACTION, batch) for batch in judged.payments.to_batches()]
    taught = [*((Kind.TRANSACTION, batch) for batch in early.payments.to_batches()), *_afterwards(early)]
    return _contest("s_ffsd_no_labels", History(taught), History(blind), judged, rows, config)


def outside(name: str) -> Contest:
    """A history of a generator that nobody here wrote, judged on the last 30 % of its time.

    Trained on what was known when the test begins, with default settings; judged by all that was ever reported.

    Args:
        name: `amlgentex` (transfers between accounts) or `sparkov` (card payments).
    """
    folder = DATASETS / name
    whole = History.read(folder / "transactions.parquet", folder / "labels.parquet")
    judged = whole.labelled()
    time = judged.payments["timestamp"].cast(pa.int64()).to_numpy()
    start = datetime.fromtimestamp((time[0] + OUTSIDE_TRAINING * (time[-1] - time[0])) / 1e6, UTC)
    rows = np.flatnonzero(selection(judged, start))
    return _contest(name, whole.before(start), whole, judged, rows, TrainConfig(test=0))


def _afterwards(judged: LabelledPayments) -> Iterator[Run]:
    """All labels behind the last payment: known to the trainer, seen by no payment."""
    known = np.flatnonzero(judged.labelled)
    moment = judged.payments["timestamp"][-1].as_py()
    ids = judged.payments["transaction_id"].combine_chunks().take(pa.array(known))
    reported = pa.array([moment] * len(known), TIMESTAMP)
    yield Kind.LABEL, pa.RecordBatch.from_arrays([ids, pa.array(judged.fraud[known]), reported], schema=LABEL_SCHEMA)


def world(
    teaching: range = TEACHING, judging: range = JUDGING, context_days: int = 30, instant: bool = False
) -> Contest:
    """Train on made worlds side by side and test on others, whose entities nobody has seen.

    One world has no thousand frauds that teach, of six kinds of ring: too few for any model. The first days of the
    worlds that judge are context.

    Args:
        teaching: Seeds of the worlds that teach.
        judging: Seeds of the worlds that judge.
        context_days: At the beginning of the latter, not judged.
        instant: Every fraud is reported right behind its payment, none missing and none wrong: what no bank could know.
    """
    folder, other = worlds(teaching), worlds(judging)
    end = WorldConfig.hard(0).start + timedelta(days=90)  # labels that come after the last payment teach nothing
    early, later = (History.read(p, stop=end) for p in (folder, other))
    judged = later.labelled(other / "truth.parquet")
    time = judged.payments["timestamp"].cast(pa.int64()).to_numpy()
    rows = np.flatnonzero(time >= time[0] // DAY_US * DAY_US + context_days * DAY_US)
    if instant:
        known = truth_of(teaching)
        early = History(at_once(LabelledPayments(early.payments, known, known)))
        later = History(at_once(LabelledPayments(judged.payments, judged.fraud, judged.fraud)))
    contest = _contest("world", early, later, judged, rows, TrainConfig(test=0))
    kinds = pq.read_table(other / "truth.parquet", columns=["ring_kind"])["ring_kind"].to_pylist()
    return replace(contest, kind=np.array([kind or "" for kind in kinds], object)[rows])


def audited() -> dict[str, tuple[tuple[Path, Path], dict[str, Any]]]:
    """Histories for the leakage audit, by name: files, and options of `gnn.quality.audit.audit`."""
    made = worlds(range(1))
    ffsd = _written("s_ffsd_7", lambda: read_s_ffsd(DATASETS / "s_ffsd" / "S-FFSD.zip", WEEK))
    return {
        "seeded world": ((made / "transactions.parquet", made / "labels.parquet"), {}),
        "S-FFSD": (ffsd, {}),
        "Handbook": (handbook_files(), {}),
    }


def worlds(seeds: range) -> Path:
    """Made worlds side by side in one history, its truth and its rings: the same days, and no entity in common."""
    folder = FILES / f"worlds_{seeds[0]}_{seeds[-1]}"
    if not (folder / "members.parquet").exists():
        folder.mkdir(parents=True, exist_ok=True)
        parts = {
            name: pa.concat_tables(
                _prefixed(pq.read_table(_world(seed) / f"{name}.parquet"), f"{seed}.") for seed in seeds
            )
            for name in ("transactions", "truth", "labels", "members")
        }
        order = pc.sort_indices(parts["transactions"]["timestamp"])
        for name in ("transactions", "truth"):
            parts[name] = parts[name].take(order)
        parts["labels"] = parts["labels"].sort_by("reported_at")
        for name, part in parts.items():
            pq.write_table(part, folder / f"{name}.parquet")
    return folder


def truth_of(seeds: range) -> NDArray[np.bool_]:
    """What the payments of worlds side by side were, in their order, bool [N]."""
    fraud: NDArray[np.bool_] = pq.read_table(worlds(seeds) / "truth.parquet")["is_fraud"].to_numpy()
    return fraud


def _world(seed: int) -> Path:
    folder = FILES / f"world_{seed}"
    if not (folder / "members.parquet").exists():
        simulate(WorldConfig.hard(seed)).write(folder)
    return folder


def _prefixed(table: pa.Table, prefix: str) -> pa.Table:
    for i, field in enumerate(table.schema):
        if field.name.endswith("_id") or field.name == "ip":
            name = pc.binary_join_element_wise(prefix, table[field.name].cast(pa.string()), "")
            table = table.set_column(i, field, name)
    return table


def _contest(
    name: str,
    train: History,
    test: History,
    judged: LabelledPayments,
    rows: NDArray[np.int64],
    config: TrainConfig,
) -> Contest:
    return Contest(
        name=name,
        train=train,
        test=test,
        rows=rows,
        fraud=judged.fraud[rows],
        account=numbers(judged.payments["account_id"])[rows],
        time=judged.payments["timestamp"].cast(pa.int64()).to_numpy()[rows],
        config=config,
    )


def _written(name: str, read: object) -> tuple[Path, Path]:
    """A public data set in our schema, as files."""
    folder = FILES / name
    paths = folder / "transactions.parquet", folder / "labels.parquet"
    if not paths[1].exists():
        folder.mkdir(parents=True, exist_ok=True)
        for part, path in zip(read(), paths, strict=True):  # type: ignore[operator]
            pq.write_table(part, path)
    return paths
