"""Public data sets read into the schema, with their published splits.

The files are not part of Ringwatch: each function says where they come from.
"""

import io
import zipfile
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from data.errors import DataError
from data.files.options import LabelColumn, ReadOptions
from data.files.sources import merged
from data.journal.protocol import Kind
from data.schema import LABEL_SCHEMA, TIMESTAMP, TRANSACTION_SCHEMA, check_labels, check_transactions

WEEK: Final = timedelta(days=7)
_S_FFSD_START: Final = datetime(2020, 1, 1, tzinfo=UTC)
_S_FFSD_STEP: Final = timedelta(minutes=1)


def handbook(source: Path, label_delay: timedelta = WEEK) -> tuple[pa.Table, pa.Table]:
    """The simulated card payments of the Fraud Detection Handbook (Le Borgne et al., 2022).

    `source` is its raw data as one Parquet file: the daily pickles of
    github.com/Fraud-Detection-Handbook/simulated-data-raw put together. Customer becomes account, terminal becomes
    merchant, euros become cents; there is no device. Labels are what a bank sees: only frauds are ever reported,
    `label_delay` after the payment.

    Args:
        source: The Parquet file, with the columns TRANSACTION_ID, TX_DATETIME, CUSTOMER_ID, TERMINAL_ID, TX_AMOUNT and
            TX_FRAUD.
        label_delay: From a fraud to its report.

    Returns:
        Transactions in order of time (ties in file order) and labels in order of their report.

    Raises:
        DataError: The file cannot be read, lacks a column, or holds an amount that is not in whole cents.
    """
    options = ReadOptions.of(
        [
            "transaction_id=TRANSACTION_ID,timestamp=TX_DATETIME,account_id=CUSTOMER_ID,merchant_id=TERMINAL_ID",
            "amount=TX_AMOUNT:major",
        ],
        ["currency=EUR"],
    )
    options = replace(options, label=LabelColumn("TX_FRAUD", label_delay, only_frauds=True))
    held: dict[Kind, list[pa.RecordBatch]] = {Kind.TRANSACTION: [], Kind.LABEL: []}
    for kind, batch in merged(source, strict=True, options=options, chunk=1 << 16):
        held[kind].append(batch)
    return (
        pa.Table.from_batches(held[Kind.TRANSACTION], TRANSACTION_SCHEMA).combine_chunks(),
        pa.Table.from_batches(held[Kind.LABEL], LABEL_SCHEMA).combine_chunks(),
    )


def s_ffsd(source: Path, label_delay: timedelta = WEEK) -> tuple[pa.Table, pa.Table]:
    """S-FFSD, simulated and partly labelled payments (Xiang et al., AAAI 2023).

    `source` is data/S-FFSD.zip of github.com/AI4Risk/antifraud. Source becomes account, Target merchant, Location
    location, Type channel. The unit of Amount is not stated: EUR stands in. Amounts become hundredths, which loses
    nothing (measured: all are whole hundredths up to 2e-11 of float noise; others would be rounded). Time is the
    number of the row: row n is put n minutes after 2020-01-01. Labels 0 and 1 become labels `label_delay` after the
    payment, rows labelled 2 (unknown) get none.

    Args:
        source: The zip archive.
        label_delay: From a payment to its label; `timedelta(0)` is the known-at-once variant.

    Returns:
        Transactions in order of time and labels in order of their report.

    Raises:
        DataError: The archive cannot be read or lacks a column.
    """
    try:
        with zipfile.ZipFile(source) as archive, archive.open("S-FFSD.csv") as member:
            raw = pa_csv.read_csv(io.BytesIO(member.read())).combine_chunks()
        cents, _ = _minor_units(raw["Amount"].cast(pa.float64()).to_numpy())
        number = raw["Time"].cast(pa.int64()).to_numpy()
        transactions = {
            "transaction_id": raw["Time"].cast(pa.string()),
            "timestamp": pa.array(_microseconds(_S_FFSD_START) + number * _ticks(_S_FFSD_STEP), TIMESTAMP),
            "account_id": raw["Source"],
            "merchant_id": raw["Target"],
            "amount": cents,
            "currency": pa.repeat("EUR", len(raw)),
            "location_id": raw["Location"],
            "channel": raw["Type"],
        }
        labelled, fraud = pc.less(raw["Labels"], 2), pc.equal(raw["Labels"], 1)
    except (OSError, KeyError, zipfile.BadZipFile, pa.ArrowException) as error:
        raise DataError(f"cannot read {source}: {error}") from error
    return _tables(transactions, labelled, fraud, label_delay, source)


def handbook_split(
    timestamps: NDArray[np.int64],
    accounts: NDArray[np.integer],
    is_fraud: NDArray[np.bool_],
    *,
    train_start: date = date(2018, 7, 25),
    train_days: int = 7,
    delay_days: int = 7,
    test_days: int = 7,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The chronological split of the Fraud Detection Handbook (chapter 3, `get_train_test_set`).

    Training days, then a gap as long as labels take, then test days. A test day leaves out the customers whose card is
    known to be compromised: those with a fraud in the training days, and those whose fraud has become known since,
    that is on the days from the end of training to `delay_days` + 1 days before the test day.

    Args:
        timestamps: UTC microseconds since 1970, int64 [n].
        accounts: A number for each customer, integers [n].
        is_fraud: The truth, whether or not it was known at the time, bool [n].
        train_start: First training day.
        train_days: Length of the training period.
        delay_days: Days between training and test.
        test_days: Length of the test period.

    Returns:
        Masks of the training and of the test rows, bool [n] each.
    """
    day = timestamps // _ticks(timedelta(days=1))
    first = (train_start - date(1970, 1, 1)).days
    train = (day >= first) & (day < first + train_days)
    test = np.zeros(len(day), bool)
    # Account numbers may be sparse: dense codes make membership one look-up.
    _, codes = np.unique(accounts, return_inverse=True)
    compromised = np.zeros(int(codes.max(initial=-1)) + 1, bool)
    compromised[codes[train & is_fraud]] = True
    for number in range(test_days):
        today = first + train_days + delay_days + number
        if number:
            compromised[codes[(day == today - delay_days - 1) & is_fraud]] = True
        test |= (day == today) & ~compromised[codes]
    return train, test


def s_ffsd_split(
    timestamps: NDArray[np.int64], labelled: NDArray[np.bool_], train_share: float = 0.7
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The labelled rows of the first part of all rows in order of time for training, the other labelled ones to test.

    For a partly labelled set such as S-FFSD; its published results rest on a random split, which lets a model see the
    future.

    Args:
        timestamps: UTC microseconds, int64 [n].
        labelled: Whether the row has a label, bool [n].
        train_share: Length of the first part, as a share of all rows, labelled or not.

    Returns:
        Masks of the training and of the test rows, bool [n] each.
    """
    rank = np.empty(len(timestamps), np.int64)
    rank[np.argsort(timestamps, kind="stable")] = np.arange(len(timestamps))
    early = rank < int(train_share * len(timestamps))
    return labelled & early, labelled & ~early


def _microseconds(moment: datetime) -> int:
    return _ticks(moment - datetime(1970, 1, 1, tzinfo=UTC))


def _ticks(span: timedelta) -> int:
    return span // timedelta(microseconds=1)


def _minor_units(amounts: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Amounts in hundredths, and what rounding took or gave, in hundredths."""
    exact = amounts * 100
    whole = np.rint(exact)
    return whole.astype(np.int64), np.abs(exact - whole)


def _tables(
    columns: dict[str, pa.Array], labelled: pa.Array, fraud: pa.Array, delay: timedelta, source: Path
) -> tuple[pa.Table, pa.Table]:
    transactions, refused = check_transactions(pa.table(columns), str(source))
    if refused:
        raise DataError(f"{len(refused)} rows break the schema, the first is {refused[0]}")
    reported = pa.array(transactions.column("timestamp").cast(pa.int64()).to_numpy() + _ticks(delay), TIMESTAMP)
    events = pa.table(
        {"transaction_id": transactions.column("transaction_id"), "is_fraud": fraud, "reported_at": reported}
    ).filter(labelled)
    labels, refused = check_labels(events, str(source))
    if refused:
        raise DataError(f"{len(refused)} labels break the schema, the first is {refused[0]}")
    return (
        pa.Table.from_batches([transactions], TRANSACTION_SCHEMA),
        pa.Table.from_batches([labels], LABEL_SCHEMA),
    )
