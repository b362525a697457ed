"""Whatever a writer may write is read, wherever it lies; what is not read says what was found."""

import bz2
import csv
import gzip
import io
import json
import random
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import DataError, SchemaError, TooManyRefused
from data.files import delimited
from data.files.options import LabelColumn, ReadOptions
from data.files.sources import merged, read_labels, read_transactions
from data.journal.protocol import Kind
from data.schema import TRANSACTION_SCHEMA, Refusal

EPOCH = datetime(2020, 1, 1, tzinfo=UTC)
NAMES = ["transaction_id", "timestamp", "account_id", "merchant_id", "amount", "currency"]
PADDED = " Transaction_ID , Timestamp,account_id,merchant_id,Amount,CURRENCY"
HEADER = ",".join(NAMES) + "\n"


def line(name: str, day: int = 1, **more: Any) -> dict[str, Any]:
    one = {"transaction_id": name, "timestamp": f"2020-01-{day:02}T00:00:00Z", "account_id": "a", "merchant_id": "m"}
    return {**one, "amount": "5", "currency": "EUR", **more}


def text(rows: list[dict[str, Any]], **style: Any) -> str:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), **style)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def ids(where: Any, **options: Any) -> list[str]:
    batches = read_transactions(where, strict=True, options=ReadOptions(**options))
    return [name for batch in batches for name in batch.column("transaction_id").to_pylist()]


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# CSV


def test_quoted_line_breaks_across_the_edge_of_a_block_lose_nothing(tmp_path: Path) -> None:
    rows = [
        line(f"t{i}", merchant_id="m", note=f'street {i}\nfloor "{i % 7}", door\r\n{"x" * (i % 300)}')
        for i in range(40_000)
    ]
    path = put(tmp_path / "t.csv", text(rows))
    assert path.stat().st_size > 2 * delimited.BLOCK
    assert ids(path) == [row["transaction_id"] for row in rows]


cells = st.text(st.sampled_from("ab\",;\t\r\n '|"), max_size=6)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(cells, cells), min_size=1, max_size=30),
    st.integers(1, 40),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_what_the_csv_writer_of_python_writes_is_read_at_any_size_of_block(
    tmp_path_factory: pytest.TempPathFactory,
    notes: list[tuple[str, str]],
    block: int,
    delimiter: str,
    quoting: Any,
    end: str,
    mark: bool,
) -> None:
    # Python's writer leaves a bare carriage return without quotes where lines end in another way.
    notes = [(a.replace("\r", ""), b.replace("\r", "")) for a, b in notes] if end == "\n" else notes
    rows = [{"before": a, **line(f"t{i}"), "behind": b} for i, (a, b) in enumerate(notes)]
    content = ("\ufeff" if mark else "") + text(rows, delimiter=delimiter, quoting=quoting, lineterminator=end)
    path = put(tmp_path_factory.mktemp("csv") / "t.csv", content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data.files.readers.BLOCK", block)
        assert ids(path) == [f"t{i}" for i in range(len(rows))]


def test_rows_keep_their_numbers_behind_line_breaks_and_short_rows(tmp_path: Path) -> None:
    rows = [line(f"t{i}", note="a\nb\nc", amount="x" if i == 7 else "5") for i in range(10)]
    content = text(rows).replace("t3,", "short\r\nt3,", 1)
    told: list[Refusal] = []
    [batch] = read_transactions(put(tmp_path / "t.csv", content), on_refusal=told.append)
    assert len(batch) == 9
    assert sorted((r.row, r.column) for r in told) == [(3, "(row)"), (8, "amount")]


def test_rows_keep_their_numbers_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.files.readers.BLOCK", 64)
    content = HEADER + "".join(
        "short\n" if i % 5 == 2 else f"t{i},2020-01-01,a,m,{'x' if i % 5 == 4 else 5},EUR\n" for i in range(50)
    )
    told: list[Refusal] = []
    kept = list(read_transactions(put(tmp_path / "t.csv", content), on_refusal=told.append))
    assert sum(map(len, kept)) == 30
    assert sorted((r.row, r.column) for r in told) == sorted(
        (i, "(row)" if i % 5 == 2 else "amount") for i in range(50) if i % 5 in (2, 4)
    )


@pytest.mark.parametrize(
    "content",
    [
        text([line("t1"), line("t2")], delimiter=";"),
        text([line("t1"), line("t2")], delimiter="\t"),
        text([line("t1"), line("t2")], delimiter="|"),
        "sep=;\r\n" + text([line("t1"), line("t2")], delimiter=";"),
        "\n\n" + text([line("t1"), line("t2")]),
        text([line("t1"), line("t2")]).replace("\r\n", "\r"),
        text([line("t1"), line("t2")]).rstrip(),
        text([line("t1"), line("t2")]).replace(HEADER.strip(), HEADER.strip().upper()),
        text([line("t1"), line("t2")]).replace(HEADER.strip(), PADDED),
        text([line("t1", amount=" 12"), line("t2", amount="3e3")]),
        ("\ufeff" + text([line("t1"), line("t2")])).encode("utf-16-le"),
        ("\ufeff" + text([line("t1"), line("t2")])).encode("utf-16-be"),
    ],
)  # fmt: skip
def test_csv_of_every_style_is_read(tmp_path: Path, content: str | bytes) -> None:
    assert ids(put(tmp_path / "t.csv", content)) == ["t1", "t2"]


def test_two_columns_that_differ_in_case_are_an_error(tmp_path: Path) -> None:
    path = put(tmp_path / "t.csv", text([{**line("t1"), "AMOUNT": 1}]).replace("amount", "Amount", 1))
    with pytest.raises(SchemaError, match="2 columns could be amount"):
        ids(path)
    assert ids(path, columns={"amount": "AMOUNT"}) == ["t1"]


def test_a_quote_that_is_never_closed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "MOST", 1 << 20)
    path = put(tmp_path / "t.csv", HEADER + 't1,2020-01-01,"a,m,5,EUR\n' + "t2,2020-01-01,a,m,5,EUR\n" * 400_000)
    with pytest.raises(DataError, match="a quote is not closed"):
        ids(path)


# JSON lines


def test_json_lines_are_read_with_their_types_and_row_numbers(tmp_path: Path) -> None:
    rows = [{**line(f"t{i}"), "amount": 5, "account_id": i, "note": {"a": [1]}} for i in range(4)]
    rows[2]["amount"] = -1
    content = "\n".join(json.dumps(row) for row in rows) + '\n\n[1]\n{"transaction_id": \n'
    told: list[Refusal] = []
    [batch] = read_transactions(put(tmp_path / "t.jsonl", content), on_refusal=told.append)
    assert batch.column("account_id").to_pylist() == ["0", "1", "3"]
    assert sorted((r.row, r.column) for r in told) == [(2, "amount"), (4, "(row)"), (5, "(row)")]


def test_keys_of_json_lines_may_come_up_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.files.readers.BLOCK", 300)
    rows = [{**line(f"t{i}"), "amount": 5, **({"device_id": "d"} if i == 9 else {})} for i in range(10)]
    path = put(tmp_path / "t.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    found = pa.Table.from_batches(read_transactions(path, strict=True), TRANSACTION_SCHEMA)
    assert found["device_id"].to_pylist() == [None] * 9 + ["d"]


def test_decimals_in_json_lines_refuse_the_column_and_major_units_read_them(tmp_path: Path) -> None:
    rows = [{**line("t1"), "amount": 5}, {**line("t2"), "amount": 12.34}]
    path = put(tmp_path / "t.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(SchemaError, match=r"holds decimals, such as 5\.0"):
        ids(path)
    [batch] = read_transactions(path, options=ReadOptions.of(amount_unit="major"))
    assert batch.column("amount").to_pylist() == [500, 1234]


# Places


@pytest.mark.parametrize("kind", ["gzip", "zstd", "bz2", "zip", "two gzips"])
@pytest.mark.parametrize("inner", ["csv", "jsonl", "arrow", "stream"])
def test_compressed_files_are_read_and_cut_ones_are_an_error(tmp_path: Path, kind: str, inner: str) -> None:
    rows = [line(f"t{i}", account_id=random.Random(i).randbytes(8).hex()) for i in range(3000)]
    if inner == "csv":
        content = text(rows).encode()
    elif inner == "jsonl":
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    else:
        sink = pa.BufferOutputStream()
        table = pa.Table.from_pylist(rows)
        with (pa.ipc.new_file if inner == "arrow" else pa.ipc.new_stream)(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=700)
        content = bytes(sink.getvalue())
    half = len(content) // 2
    if kind == "zip":
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("t.csv", content)
        packed = out.getvalue()
    else:
        packed = {
            "gzip": lambda: gzip.compress(content),
            "two gzips": lambda: gzip.compress(content[:half]) + gzip.compress(content[half:]),
            "zstd": lambda: bytes(pa.Codec("zstd").compress(content)),
            "bz2": lambda: bz2.compress(content),
        }[kind]()
    path = put(tmp_path / "t.dat", packed)
    assert ids(path) == [row["transaction_id"] for row in rows]
    with pytest.raises(DataError, match="cannot read"):
        ids(put(tmp_path / "cut", packed[: len(packed) // 2]))


def folder(root: Path, days: list[int]) -> Path:
    for day in days:
        put(root / f"day{day}.csv", text([line(f"t{day}", day), line(f"u{day}", day)]))
    put(root / "_SUCCESS", "done")
    put(root / ".day1.csv.crc", b"\0\1")
    put(root / "day0.csv", "")
    return root


@pytest.mark.parametrize("how", ["folder", "glob", "list", "file address", "memory", "memory glob", "memory as a Path"])
def test_folders_globs_lists_and_addresses_are_read_in_order_of_their_numbers(tmp_path: Path, how: str) -> None:
    days = [1, 2, 9, 10, 11]
    root = folder(tmp_path / "in", days)
    memory = fsspec.filesystem("memory")
    for path in root.iterdir():
        memory.pipe(f"/bucket/{tmp_path.name}/{path.name}", path.read_bytes())
    bucket = f"memory://bucket/{tmp_path.name}"
    where: Any = {
        "folder": root,
        "glob": root / "day[1-9]*.csv",
        "list": [root / f"day{d}.csv" for d in days],
        "file address": root.as_uri(),
        "memory": bucket,
        "memory glob": f"{bucket}/day[1-9]*.csv",
        "memory as a Path": Path(bucket),
    }[how]
    assert ids(where) == [f"{letter}{day}" for day in days for letter in "tu"]


def test_refusals_name_the_file_of_a_folder_and_the_row_in_it(tmp_path: Path) -> None:
    put(tmp_path / "a.csv", text([line("t1"), line("t2", amount="-1")]))
    put(tmp_path / "b.csv", text([line("t3"), line("t1", 2, amount="7")]))
    told: list[Refusal] = []
    assert sum(len(b) for _, b in merged(tmp_path, on_refusal=told.append)) == 2
    assert [str(r) for r in told] == [
        f"{tmp_path}/a.csv: row 1: amount: -1 is negative",
        f"{tmp_path}/b.csv: row 1: transaction_id: 't1' came before with other content",
    ]


def test_folders_that_name_columns_give_them(tmp_path: Path) -> None:
    rows = [{k: v for k, v in line(f"t{i}").items() if k != "currency"} for i in range(2)]
    put(tmp_path / "currency=EUR" / "Country=D%45" / "p.csv", text(rows[:1]))
    table = pa.Table.from_pylist([{**rows[1], "amount": 5}])
    (tmp_path / "currency=JPY" / "country=__HIVE_DEFAULT_PARTITION__").mkdir(parents=True)
    pq.write_table(table, tmp_path / "currency=JPY" / "country=__HIVE_DEFAULT_PARTITION__" / "p.parquet")
    found = pa.Table.from_batches(read_transactions(tmp_path, strict=True), TRANSACTION_SCHEMA)
    assert found["currency"].to_pylist() == ["EUR", "JPY"]
    assert found["country"].to_pylist() == ["DE", None]


@pytest.mark.parametrize("apart", [True, False])
def test_files_are_merged_in_order_of_time_whatever_their_names(tmp_path: Path, apart: bool) -> None:
    put(tmp_path / "a.csv", text([line("t3", 3), line("t4", 4 if apart else 6)]))
    put(tmp_path / "b.csv", text([line("t1", 1), line("t2", 2 if apart else 5)]))
    [(kind, batch)] = merged(tmp_path, strict=True)
    assert kind is Kind.TRANSACTION
    assert batch.column("transaction_id").to_pylist() == (
        ["t1", "t2", "t3", "t4"] if apart else ["t1", "t3", "t2", "t4"]
    )


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"SQLite format 3\0" + bytes(50), "an SQLite database"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"\x80\x04\x95" + bytes(20), "a Python pickle: save it as Parquet"),
        (b"<!DOCTYPE html>\n<html>", "a page in HTML or XML"),
        (b'[{"transaction_id": "t1"}]', "a JSON array: write one object a line"),
        (bytes(257) + b"ustar" + bytes(300), "a tar archive"),
        (gzip.compress(b"PAR1" + bytes(50)), "Parquet inside an archive"),
        (bytes(range(256)), "neither Parquet, Arrow, CSV nor JSON lines"),
        (b"a,b\n1,2\n", "required column transaction_id is missing.*Columns there: a, b"),
    ],
)
def test_what_is_not_read_says_what_was_found(tmp_path: Path, content: bytes, found: str) -> None:
    with pytest.raises(DataError, match=f"(?s)x.*{found}"):
        ids(put(tmp_path / "x", content))


def test_a_workbook_and_an_archive_of_several_files_say_so(tmp_path: Path) -> None:
    for names, found in ((["[Content_Types].xml", "xl/workbook.xml"], "Excel workbook"), (["a", "b"], "of 2 files")):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            for name in names:
                archive.writestr(name, "x")
        with pytest.raises(DataError, match=found):
            ids(tmp_path / "x.zip")


def test_nothing_there_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for where, reason in (
        (tmp_path / "none.csv", "no such file or folder"),
        (tmp_path / "empty", "no files there"),
        (tmp_path / "*.csv", "no files there"),
        ("memory://nowhere/x", "no such file or folder"),
        ("nonsense://x/y", "Protocol not known"),
    ):
        with pytest.raises(DataError, match=reason):
            ids(where)


# Mapping


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
        ({"mapping": ["amount=a,amount=b"]}, "is there twice"),
        ({"mapping": ["amount=a:cents"]}, "minor or major, not 'cents'"),
        ({"mapping": ["timestamp=t:week"]}, "is no unit of time"),
        ({"mapping": ["account_id=t:s"]}, "has no unit 's'"),
        ({"amount_unit": "euro"}, "minor or major, not 'euro'"),
        ({"label_column": "f"}, "needs --label-delay"),
        ({"label_delay": "7d"}, "goes with --label-column"),
        ({"label_column": "f", "label_delay": "soon"}, "no span of time"),
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


# Too many refused rows


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
    reason = (
        rf"2 of 100 rows refused \(2\.0%\), more than 1\.0% \(--max-refused\); 2 for their {next(iter(bad))}.*{hint}"
    )
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
