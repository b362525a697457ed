"""Whatever a writer may write is read, wherever it lies; what is not read says what was found."""

import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import DataError, SchemaError
from data.files import delimited
from data.files.options import ReadOptions
from data.files.sources import read_transactions
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
