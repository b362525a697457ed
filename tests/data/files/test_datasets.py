"""The public data sets, where they are there, and their published splits."""

import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from data.errors import DataError
from data.files.datasets import handbook, handbook_split, s_ffsd, s_ffsd_split
from data.schema import LABEL_SCHEMA, TRANSACTION_SCHEMA, check_transactions

ROOT = Path(__file__).parents[3]
DAY = 86_400_000_000


def dataset(name: str) -> Path:
    folder = Path(os.environ.get("RINGWATCH_DATASETS", ROOT.parent / "shared" / "datasets"))
    if not (folder / name).exists():
        pytest.skip(f"public data set {name} is not in {folder} (name its folder in RINGWATCH_DATASETS)")
    return folder / name


def microseconds(table: pa.Table, column: str = "timestamp") -> np.ndarray:
    return table[column].cast(pa.int64()).to_numpy()


def marked(transactions: pa.Table, labels: pa.Table) -> np.ndarray:
    known = pc.is_in(transactions["transaction_id"], value_set=labels["transaction_id"].combine_chunks())
    return known.to_numpy()


def test_handbook_split_is_the_one_of_the_book() -> None:
    source = dataset("handbook/transactions_raw_to_08-31.parquet")
    transactions, labels = handbook(source)
    assert transactions.schema.equals(TRANSACTION_SCHEMA)
    assert labels.schema.equals(LABEL_SCHEMA)
    assert len(transactions) == 1_466_282
    assert not check_transactions(transactions)[1]
    times = microseconds(transactions)
    assert (np.diff(times) >= 0).all()
    assert (np.diff(microseconds(labels, "reported_at")) >= 0).all()
    assert labels["is_fraud"].to_numpy().all()

    raw = pq.read_table(source)
    assert len(labels) == raw["TX_FRAUD"].to_numpy().sum()
    euros = np.sort(raw["TX_AMOUNT"].to_numpy())
    np.testing.assert_allclose(np.sort(transactions["amount"].to_numpy()) / 100, euros, rtol=0, atol=1e-9)
    assert (transactions["amount"].to_numpy() == 0).sum() == 33

    fraud = marked(transactions, labels)
    train, test = handbook_split(times, transactions["account_id"].cast(pa.int64()).to_numpy(), fraud)
    assert train.sum() == 67_240
    assert (test.sum(), (test & fraud).sum()) == (58_264, 385)
    first = labels.slice(0, 1).to_pylist()[0]
    row = transactions.filter(pa.array(transactions["transaction_id"].to_numpy() == first["transaction_id"]))
    assert first["reported_at"] - row["timestamp"][0].as_py() == timedelta(days=7)


def test_handbook_reads_what_it_should(tmp_path: Path) -> None:
    raw = {
        "TRANSACTION_ID": [7, 8, 9],
        "TX_DATETIME": pa.array([datetime(2018, 4, 2), datetime(2018, 4, 1), datetime(2018, 4, 2)], pa.timestamp("ms")),
        "CUSTOMER_ID": [1, 2, 3],
        "TERMINAL_ID": [4, 5, 6],
        "TX_AMOUNT": [57.16, 81.51, 0.29],
        "TX_FRAUD": [1, 0, 1],
    }
    pq.write_table(pa.table(raw), tmp_path / "raw.parquet")
    transactions, labels = handbook(tmp_path / "raw.parquet", timedelta(days=1))
    assert transactions["transaction_id"].to_pylist() == ["8", "7", "9"]
    assert transactions["amount"].to_pylist() == [8151, 5716, 29]
    assert transactions["merchant_id"].to_pylist() == ["5", "4", "6"]
    assert labels.to_pylist() == [
        {"transaction_id": i, "is_fraud": True, "reported_at": datetime(2018, 4, 3, tzinfo=UTC)} for i in ("7", "9")
    ]
    pq.write_table(pa.table({**raw, "TX_AMOUNT": [1.234, 2.0, 3.0]}), tmp_path / "fine.parquet")
    with pytest.raises(DataError, match="more decimals than its currency"):
        handbook(tmp_path / "fine.parquet")
    pq.write_table(pa.table({"TRANSACTION_ID": [1]}), tmp_path / "thin.parquet")
    with pytest.raises(DataError, match="no column TX_DATETIME"):
        handbook(tmp_path / "thin.parquet")
    with pytest.raises(DataError, match="cannot read"):
        handbook(tmp_path / "none.parquet")


def slow_split(
    days: np.ndarray, accounts: np.ndarray, fraud: np.ndarray, first: int, train_days: int, delay: int, test_days: int
) -> tuple[set[int], set[int]]:
    """get_train_test_set of the book, in sets."""
    rows = range(len(days))
    train = {i for i in rows if first <= days[i] < first + train_days}
    compromised = {accounts[i] for i in train if fraud[i]}
    test: set[int] = set()
    for k in range(test_days):
        known_day = first + train_days + k - 1
        if k:
            compromised |= {accounts[i] for i in rows if days[i] == known_day and fraud[i]}
        today = first + train_days + delay + k
        test |= {i for i in rows if days[i] == today and accounts[i] not in compromised}
    return train, test


@pytest.mark.parametrize(("train_days", "delay", "test_days"), [(7, 7, 7), (3, 0, 4), (1, 2, 6), (5, 9, 1)])
def test_handbook_split_agrees_with_sets(train_days: int, delay: int, test_days: int) -> None:
    rng = np.random.default_rng(train_days)
    start = date(2020, 2, 20)
    first = (start - date(1970, 1, 1)).days
    days = np.sort(rng.integers(first - 3, first + 25, 3000))
    accounts = rng.integers(0, 80, 3000) * 10**12
    fraud = rng.random(3000) < 0.02
    times = days * DAY + rng.integers(0, DAY, 3000)
    train, test = handbook_split(
        times, accounts, fraud, train_start=start, train_days=train_days, delay_days=delay, test_days=test_days
    )
    expected = slow_split(days, accounts, fraud, first, train_days, delay, test_days)
    assert (set(np.flatnonzero(train)), set(np.flatnonzero(test))) == expected


def test_s_ffsd_split_is_ordered_by_time() -> None:
    source = dataset("s_ffsd/S-FFSD.zip")
    transactions, labels = s_ffsd(source, timedelta(0))
    assert (len(transactions), len(labels)) == (77_881, 29_643)
    labelled = marked(transactions, labels)
    fraud = labelled.copy()
    fraud[labelled] = labels["is_fraud"].to_numpy()
    times = microseconds(transactions)
    assert np.array_equal(microseconds(labels, "reported_at"), times[labelled])
    train, test = s_ffsd_split(times, labelled)
    assert (train.sum(), test.sum()) == (20_806, 8_837)
    assert times[train].max() < times[test].min()
    assert fraud[train].mean() == pytest.approx(0.124, abs=5e-4)
    assert fraud[test].mean() == pytest.approx(0.304, abs=5e-4)
    assert (transactions["amount"].to_numpy() == 0).sum() == 6_812
    assert [len(transactions[c].unique()) for c in ("account_id", "merchant_id")] == [30_346, 886]
    assert transactions["location_id"].null_count == transactions["channel"].null_count == 0
    delayed = s_ffsd(source)[1]
    assert (microseconds(delayed, "reported_at") - microseconds(labels, "reported_at") == 7 * DAY).all()


def test_s_ffsd_refuses_other_archives(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot read"):
        s_ffsd(tmp_path / "x.zip")


def test_s_ffsd_split_takes_rows_out_of_order() -> None:
    train, test = s_ffsd_split(np.array([5, 1, 4, 2, 3]), np.array([True, True, False, True, True]), 0.6)
    assert train.tolist() == [False, True, False, True, True]
    assert test.tolist() == [True, False, False, False, False]
