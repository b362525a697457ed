"""Options of reading: columns of other names, labels from a column, defaults, and how many rows may be refused."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from data.errors import DataError, SchemaError, TooManyRefused
from data.files.options import LabelColumn, ReadOptions
from data.files.sources import merged, read_labels, read_transactions
from data.schema import TRANSACTION_SCHEMA, Refusal
from tests.data.files.test_readers import ids, line, put, text

EPOCH = datetime(2020, 1, 1, tzinfo=UTC)


def test_a_public_file_is_read_as_it_is_published(tmp_path: Path) -> None:
    path = put(
        tmp_path / "paysim.csv",
        "step,type,amount,nameOrig,nameDest,isFraud\n1,PAYMENT,9839.64,C1,M1,0\n1,TRANSFER,181.00,C2,C9,1\n",
    )
    options = ReadOptions.of(
        ["transaction_id=#,timestamp=step:h@2020-01-01,account_id=nameOrig,payee_id=nameDest",
         "amount=amount:major,channel=type"],
        ["currency=USD,merchant_id=transfer"],
        label_column="isFraud",
        label_delay="7d",
    )  # fmt: skip
    [(_, payments), (_, labels)] = merged(path, strict=True, options=options)
    assert payments.to_pylist()[1] == dict.fromkeys(TRANSACTION_SCHEMA.names) | {
        "transaction_id": "1",
        "timestamp": EPOCH + timedelta(hours=1),
        "account_id": "C2",
        "merchant_id": "transfer",
        "payee_id": "C9",
        "amount": 18100,
        "currency": "USD",
        "channel": "TRANSFER",
    }
    reported = EPOCH + timedelta(days=7, hours=1)
    assert labels.to_pylist() == [
        {"transaction_id": "0", "is_fraud": False, "reported_at": reported},
        {"transaction_id": "1", "is_fraud": True, "reported_at": reported},
    ]


def test_a_label_column_may_report_frauds_only_or_not_know(tmp_path: Path) -> None:
    path = put(tmp_path / "t.csv", text([line(f"t{i}", f=value) for i, value in enumerate(["0", "1", "", "2"])]))

    def labelled(text: str) -> list[tuple[str, bool]]:
        options = ReadOptions.of(label_column=text, label_delay="1d")
        told: list[Refusal] = []
        rows = [row for b in read_labels(path, options=options, on_refusal=told.append) for row in b.to_pylist()]
        assert [(r.row, r.column) for r in told] == ([] if "unknown" in text else [(3, "f")])
        return [(row["transaction_id"], row["is_fraud"]) for row in rows]

    assert labelled("f") == labelled("f:unknown=2") == [("t0", False), ("t1", True)]
    assert labelled("f:frauds") == [("t1", True)]


def test_a_default_fills_missing_values_and_columns(tmp_path: Path) -> None:
    path = put(tmp_path / "t.csv", text([line("t1", merchant_id=""), line("t2")]))
    options = ReadOptions.of(defaults=["merchant_id=transfer,channel=web"])
    [batch] = read_transactions(path, strict=True, options=options)
    assert batch.column("merchant_id").to_pylist() == ["transfer", "m"]
    assert batch.column("channel").to_pylist() == ["web", "web"]


def test_ids_of_row_numbers_differ_between_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        put(tmp_path / f"{name}.csv", text([line("x"), line("x")]))
    assert ids(tmp_path, columns={"transaction_id": "#"}) == ["0-0", "0-1", "1-0", "1-1"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"mapping": ["amount"]}, "is not written as COLUMN=VALUE"),
        ({"mapping": ["colour=x"]}, "has no column 'colour'"),
        ({"mapping": ["amount=a,amount=b"]}, "is given twice"),
        ({"mapping": ["amount=a:cents"]}, "minor or major, not 'cents'"),
        ({"mapping": ["timestamp=t:week"]}, "is not a unit of time"),
        ({"mapping": ["account_id=t:s"]}, "has no unit 's'"),
        ({"amount_unit": "euro"}, "minor or major, not 'euro'"),
        ({"label_column": "f"}, "needs --label-delay"),
        ({"label_delay": "7d"}, "--label-delay needs --label-column"),
        ({"label_column": "f", "label_delay": "soon"}, "not a length of time"),
        ({"label_column": "f:x", "label_delay": "1d"}, "neither frauds nor unknown"),
        ({"max_refused": 5.0}, "share from 0 to 1"),
    ],
)
def test_options_that_make_no_sense_say_why(words: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        ReadOptions.of(**words)


def test_a_mapped_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    path = put(tmp_path / "t.csv", text([line("t1")]))
    with pytest.raises(SchemaError, match="no column TX_AMOUNT for amount; there are: transaction_id, timestamp"):
        ids(path, columns={"amount": "TX_AMOUNT"})


@pytest.mark.parametrize(
    ("bad", "hint"),
    [
        ({"timestamp": "1577836800"}, "name the unit .--map timestamp=COLUMN:s"),
        ({"timestamp": "31/01/2020"}, "name the pattern .--map timestamp=COLUMN:%d/%m/%Y"),
        ({"amount": "€41.55"}, "leave out the currency sign"),
        ({"amount": "41,55"}, "a decimal comma is read with --decimal-comma"),
    ],
)
def test_too_many_refused_rows_are_an_error_with_a_hint(tmp_path: Path, bad: dict[str, str], hint: str) -> None:
    path = put(tmp_path / "t.csv", text([line(f"t{i}", **(bad if i < 2 else {})) for i in range(100)]))
    share = r"2 of 100 rows refused \(2\.0%\), more than 1\.0% \(--max-refused\)"
    reason = rf"{share}; 2 because of their {next(iter(bad))}.*{hint}"
    for read in (read_transactions, merged):
        with pytest.raises(TooManyRefused, match=reason):
            list(read(path, options=ReadOptions(max_refused=0.01)))
        assert list(read(path, options=ReadOptions(max_refused=0.02)))


def test_labels_of_unknown_payments_count_as_refused(tmp_path: Path) -> None:
    path = put(tmp_path / "t.csv", text([line("t1")]))
    labels = put(tmp_path / "l.csv", "transaction_id,is_fraud,reported_at\nt1,1,2020-01-02\nt2,1,2020-01-02\n")
    with pytest.raises(TooManyRefused, match=r"labels of .*1 of 2 rows refused"):
        list(merged(path, labels, options=ReadOptions(max_refused=0.01)))
    with pytest.raises(DataError, match="not from both"):
        merged(path, labels, options=ReadOptions(label=LabelColumn("f", timedelta())))
