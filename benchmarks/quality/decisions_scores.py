"""Three histories with a model's probabilities, kept in files: what policies are compared on.

Each history has a part that teaches the model, a later one on which policies may choose their settings, and one later
still on which they are judged. The Handbook's model is taught by its own past; a made world has too few frauds for
that, so its model is taught by other worlds, and its first days are context.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.quality.histories import _prefixed, handbook_files
from benchmarks.report import ROOT
from data.history import History
from data.world.synthetic import WorldConfig, simulate
from gnn.score.replay import score_history
from gnn.train.targets import TrainConfig
from gnn.train.trainer import train
from graph.dag.protocol import DAY_US

FOLDER = ROOT / "var" / "quality" / "decisions"
PAST_DAYS = 30  # of spending, from which the customer's value is estimated
TEACHING, JUDGING = range(401, 404), (411, 412)  # seeds of worlds
WORLD_PAYMENTS = {"teaching": 70_000, "judging": 100_000}
# Small and quick: what is compared are policies, which all read the same probabilities.
QUICK: Final = {"test": 0.0, "pretraining": 0, "epochs": 4}
HANDBOOK_DAYS = {name: datetime(2018, month, day, tzinfo=UTC) for name, month, day in (
    ("begin", 6, 15), ("choose", 7, 11), ("judge", 8, 8), ("end", 9, 1))}  # fmt: skip
WORLD_DAYS = {"choose": 20, "judge": 55}  # of 90


@dataclass(frozen=True)
class Scored:
    """A history and its scores.

    Attributes:
        name: For people.
        probability: Calibrated, float64 [n].
        amount: Minor units, int64 [n].
        fraud: What each was, bool [n].
        spent: What its account spent in the 30 days before, minor units, int64 [n].
        time: UTC microseconds, int64 [n], non-decreasing.
        account: A number for each account, int64 [n].
        known: When its label as fraud was reported, UTC microseconds, int64 [n]; -1 where it never was.
        choose: Payments on which policies may choose, bool [n].
        judge: Later payments on which they are judged, bool [n].
    """

    name: str
    probability: NDArray[np.float64]
    amount: NDArray[np.int64]
    fraud: NDArray[np.bool_]
    spent: NDArray[np.int64]
    time: NDArray[np.int64]
    account: NDArray[np.int64]
    known: NDArray[np.int64]
    choose: NDArray[np.bool_]
    judge: NDArray[np.bool_]

    def part(self, mask: NDArray[np.bool_]) -> "Scored":
        """Some of its payments."""
        arrays = {name: value[mask] for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return replace(self, **arrays)


def all_scored() -> dict[str, Scored]:
    """The Handbook and two made worlds; trains and scores what is not kept yet."""
    found = {"handbook": _kept("handbook", _handbook)}
    for seed in JUDGING:
        found[f"world {seed}"] = _kept(f"world_{seed}", lambda seed=seed: _world(seed))
    return found


def _kept(name: str, make: Callable[[], dict[str, Any]]) -> Scored:
    path = FOLDER / f"{name}.npz"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **make())
    with np.load(path, allow_pickle=False) as held:
        return Scored(name=name.replace("_", " "), **{key: held[key] for key in held.files})


def spent_before(account: NDArray[np.int64], time: NDArray[np.int64], amount: NDArray[np.int64]) -> NDArray[np.int64]:
    """What each payment's account spent in the days before it, int64 [n]; times do not run backwards."""
    order = np.argsort(account, kind="stable")
    span = int(time[-1] - time[0]) + PAST_DAYS * DAY_US + 1
    key = account[order] * span + (time[order] - time[0]) + PAST_DAYS * DAY_US  # non-decreasing
    total = np.concatenate([[0], np.cumsum(amount[order])])
    first = np.searchsorted(key, np.maximum(key - PAST_DAYS * DAY_US, account[order] * span), "left")
    found = np.empty(len(account), np.int64)
    found[order] = total[: len(account)] - total[first]
    return found


def _arrays(
    transactions: pa.Table, fraud: NDArray[np.bool_], labels: pa.Table, moments: tuple[int, int]
) -> dict[str, Any]:
    account = transactions["account_id"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    time = transactions["timestamp"].cast(pa.int64()).to_numpy()
    amount = transactions["amount"].to_numpy()
    reported = labels.filter(pc.field("is_fraud"))
    at = pc.index_in(transactions["transaction_id"], reported["transaction_id"].combine_chunks())
    when = np.append(reported["reported_at"].cast(pa.int64()).to_numpy(), -1)
    choose, judge = moments
    return {
        "amount": amount,
        "fraud": fraud,
        "spent": spent_before(account, time, amount),
        "time": time,
        "account": account,
        "known": when[at.fill_null(len(when) - 1).to_numpy()],
        "choose": (time >= choose) & (time < judge),
        "judge": time >= judge,
    }


def _us(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000


def _handbook() -> dict[str, Any]:
    begin, choose, judge, end = HANDBOOK_DAYS.values()
    transactions, labels = (pq.read_table(path) for path in handbook_files())
    when = transactions["timestamp"]
    transactions = transactions.filter(pc.and_(pc.greater_equal(when, begin), pc.less(when, end)))
    truth = pc.is_in(transactions["transaction_id"], labels["transaction_id"].combine_chunks())
    labels = labels.filter(pc.is_in(labels["transaction_id"], transactions["transaction_id"].combine_chunks()))
    history = History.from_arrow(transactions, labels)
    artifact = train(history.before(choose), TrainConfig(label_delay_days=7, **QUICK))
    probability = score_history(artifact, history)
    fraud = truth.to_numpy()
    return {"probability": probability, **_arrays(transactions, fraud, labels, (_us(choose), _us(judge)))}


def _made(seed: int, payments: int) -> Path:
    folder = FOLDER / f"files_{seed}"
    if not (folder / "members.parquet").exists():
        simulate(replace(WorldConfig.hard(seed), transactions=payments)).write(folder)
    return folder


def _teacher() -> Path:
    path = FOLDER / "model"
    if not (path / "manifest.json").exists():
        parts = {}
        for name, moment in (("transactions", "timestamp"), ("labels", "reported_at")):
            tables = [
                _prefixed(pq.read_table(_made(seed, WORLD_PAYMENTS["teaching"]) / f"{name}.parquet"), f"{seed}.")
                for seed in TEACHING
            ]
            parts[name] = pa.concat_tables(tables).sort_by(moment)
        end = WorldConfig.hard(0).start + timedelta(days=90)
        train(History.from_arrow(parts["transactions"], parts["labels"]).before(end), TrainConfig(**QUICK)).save(path)
    return path


def _world(seed: int) -> dict[str, Any]:
    from gnn.model.artifact import load

    folder = _made(seed, WORLD_PAYMENTS["judging"])
    transactions, labels, truth = (
        pq.read_table(folder / f"{name}.parquet") for name in ("transactions", "labels", "truth")
    )
    probability = score_history(load(_teacher()), History.from_arrow(transactions, labels))
    start = _us(WorldConfig.hard(0).start)
    moments = start + WORLD_DAYS["choose"] * DAY_US, start + WORLD_DAYS["judge"] * DAY_US
    fraud = truth["is_fraud"].to_numpy(zero_copy_only=False)
    return {"probability": probability, **_arrays(transactions, fraud, labels, moments)}
