"""Files of every format, good and bad, and the merge of payments and labels against a plain sort."""

import io
import sys
import unicodedata
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import DataError, RefusedRow, SchemaError
from data.files.readers import ROWS
from data.files.sources import merged, read_labels, read_transactions
from data.journal.protocol import Kind
from data.schema import LABEL_SCHEMA, TRANSACTION_SCHEMA, Refusal

EPOCH = datetime(2020, 1, 1, tzinfo=UTC)
HEADER = "transaction_id,timestamp,account_id,merchant_id,device_id,amount,currency\n"


def at(minute: int) -> datetime:
    return EPOCH + timedelta(minutes=minute)


def payment(name: str, minute: int, amount: int = 1, **more: Any) -> dict[str, Any]:
    one = {"transaction_id": name, "timestamp": at(minute), "account_id": "a", "merchant_id": "m", "currency": "EUR"}
    return {**one, "amount": amount, **more}


def label(name: str, minute: int, is_fraud: bool = True) -> dict[str, Any]:
    return {"transaction_id": name, "is_fraud": is_fraud, "reported_at": at(minute)}


def table(rows: list[dict[str, Any]], schema: pa.Schema = TRANSACTION_SCHEMA) -> pa.Table:
    # Nullable, so that a test may write a missing value.
    return pa.Table.from_pylist(rows, pa.schema([f.with_nullable(True) for f in schema]))


def write(data: pa.Table, path: Path) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(data, path, row_group_size=7)
    elif path.suffix == ".csv":
        pa_csv.write_csv(data, path)
    else:
        make = pa.ipc.new_file if path.suffix == ".arrow" else pa.ipc.new_stream
        with make(str(path), data.schema) as writer:
            writer.write_table(data, max_chunksize=7)
    return path


SUFFIXES = (".parquet", ".csv", ".arrow", ".stream")
# Blanks, zero-width characters and uncomposed text are refused: that is tested with the schema.
characters = st.characters(exclude_categories=["Cs", "C", "Z", "M"], exclude_characters="\u115f\u1160\u3164\uffa0")
identifier = st.text(characters, min_size=1, max_size=6).map(partial(unicodedata.normalize, "NFC"))
good_payment = st.fixed_dictionaries(
    {
        "transaction_id": identifier,
        "timestamp": st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31), timezones=st.just(UTC)),
        "account_id": identifier,
        "merchant_id": identifier,
        "device_id": st.none() | identifier,
        "amount": st.integers(0, 10**15),
        "currency": st.sampled_from(["EUR", "USD"]),
        "ip": st.none() | identifier,
        "country": st.none() | identifier,
    }
)


@settings(max_examples=30, deadline=None)
@given(st.lists(good_payment, max_size=20))
def test_every_format_gives_the_same_batches(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    folder = tmp_path_factory.mktemp("formats")
    data = table(rows)
    for suffix in SUFFIXES:
        batches = list(read_transactions(write(data, folder / f"t{suffix}"), strict=True))
        read = pa.Table.from_batches(batches, TRANSACTION_SCHEMA)
        assert read.to_pylist() == data.to_pylist(), suffix


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_bad_rows_are_refused_with_their_number(tmp_path: Path, suffix: str) -> None:
    n = ROWS + 100
    data = table([payment(f"t{i}", i // 60) for i in range(n)])
    bad = {3: "amount", ROWS + 2: "currency", n - 1: "account_id"}
    for row, column in bad.items():
        value = {"amount": -5, "currency": "eur", "account_id": None}[column]
        kind = data.schema.field(column).type
        swapped = pa.concat_arrays(
            [data[column][:row].combine_chunks(), pa.array([value], kind), data[column][row + 1 :].combine_chunks()]
        )
        data = data.set_column(data.schema.get_field_index(column), data.schema.field(column), swapped)
    path = write(data, tmp_path / f"t{suffix}")
    told: list[Refusal] = []
    assert sum(len(b) for b in read_transactions(path, on_refusal=told.append)) == n - 3
    assert [(r.file, r.row, r.column) for r in told] == [(str(path), row, column) for row, column in bad.items()]
    with pytest.raises(RefusedRow, match=r"row 3: amount: -5 is negative"):
        list(read_transactions(path, strict=True))


def test_csv_rows_of_the_wrong_length_keep_the_count_right(tmp_path: Path) -> None:
    line = "t{},2020-01-01 00:00,a,m,,{},EUR\n"
    lines = [line.format(i, -1 if i in (0, 4, 9) else 5) for i in range(10)]
    lines[2], lines[3], lines[8] = "short\n", "1,2,3,4,5,6,7,8\n", "short\n"
    path = tmp_path / "t.csv"
    path.write_text(HEADER + "".join(lines))
    told: list[Refusal] = []
    [batch] = read_transactions(path, on_refusal=told.append)
    assert batch.column("transaction_id").to_pylist() == ["t1", "t5", "t6", "t7"]
    assert sorted((r.row, r.column) for r in told) == [
        (0, "amount"), (2, "(row)"), (3, "(row)"), (4, "amount"), (8, "(row)"), (9, "amount")
    ]  # fmt: skip
    assert "has 8 columns, not 7" in str(told)
    path.write_text(HEADER + "short\n")
    assert not list(read_transactions(path))
    with pytest.raises(RefusedRow, match="row 0"):
        list(read_transactions(path, strict=True))


def test_csv_takes_what_people_write(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    text = "\ufeffnote,amount,currency,transaction_id,timestamp,account_id,merchant_id,device_id\n"
    text += '1,5,EUR,007,2020-01-01T02:00:00+02:00,"a ""b"", c",m,""\n'
    text += "x, 6e0,EUR,NaN,2020-01-01,null,m,d\n"
    path.write_text(text)
    [batch] = read_transactions(path, strict=True)
    assert batch.column("transaction_id").to_pylist() == ["007", "NaN"]
    assert batch.column("account_id").to_pylist() == ['a "b", c', "null"]
    assert batch.column("timestamp").to_pylist() == [EPOCH, EPOCH]
    assert batch.column("amount").to_pylist() == [5, 6]
    assert batch.column("device_id").to_pylist() == [None, "d"]
    path.write_bytes(HEADER.encode() + b"t1,2020-01-01,\xff,m,,1,EUR\nt2,2020-01-01,a,m,,1,EUR\n")
    told: list[Refusal] = []
    assert [b.num_rows for b in read_transactions(path, on_refusal=told.append)] == [1]
    assert [str(r) for r in told] == [f"{path}: row 0: account_id: is not UTF-8"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "required column transaction_id is missing"),
        (b"a,b\n1,2\n", "required column transaction_id is missing"),
        (HEADER.replace("amount", "amount,amount").encode(), "amount occurs 2 times"),
        (b"PAR1 and then nothing of the kind", "cannot read"),
        (b"ARROW1 and then nothing of the kind", "cannot read"),
        (b"\xff\xff\xff\xff\x10\x00\x00\x00....", "cannot read"),
        (bytes(range(256)) * 50, "neither Parquet, Arrow, CSV nor JSON lines"),
    ],
)
def test_garbage_is_one_clear_error(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_transactions(tmp_path / "x"))
    with pytest.raises(DataError):
        list(merged(tmp_path / "x"))


def test_files_that_are_not_there_or_cut_short(tmp_path: Path) -> None:
    for path in (tmp_path / "none.parquet", tmp_path):
        with pytest.raises(DataError, match="cannot read"):
            list(read_transactions(path))
    whole = write(table([payment(f"t{i}", i) for i in range(50)]), tmp_path / "t.stream").read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot read"):
        list(read_transactions(tmp_path / "cut"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_without_rows_still_needs_its_columns(tmp_path: Path, suffix: str) -> None:
    assert not list(read_transactions(write(TRANSACTION_SCHEMA.empty_table(), tmp_path / f"t{suffix}")))
    thin = TRANSACTION_SCHEMA.empty_table().drop_columns(["amount"])
    with pytest.raises(SchemaError, match="amount is missing"):
        list(read_transactions(write(thin, tmp_path / f"u{suffix}")))


# The merge. The oracle sorts Python tuples.


def plain_merge(
    payments: list[dict[str, Any]], labels: list[dict[str, Any]]
) -> tuple[list[tuple[datetime, Kind, str]], int]:
    """(time, kind, id) of every event in order, and the number of refusals."""
    labels = [one for n, one in enumerate(labels) if one not in labels[:n]]
    events = [(p["timestamp"], 0, n, p) for n, p in enumerate(payments)]
    events += [(e["reported_at"], 1, n, e) for n, e in enumerate(labels)]
    seen: dict[str, dict[str, Any]] = {}
    order: list[tuple[datetime, Kind, str]] = []
    refused = 0
    for time, kind, _, row in sorted(events, key=lambda e: e[:3]):
        name = row["transaction_id"]
        if kind == 0 and name in seen:
            refused += seen[name] != row
        elif kind == 1 and name not in seen:
            refused += 1
        else:
            order.append((time, Kind.LABEL if kind else Kind.TRANSACTION, name))
            if not kind:
                seen[name] = row
    return order, refused


def flat(runs: Any, chunk: int) -> list[tuple[datetime, Kind, str]]:
    """The events of runs; checks that runs are maximal."""
    found = []
    before: tuple[Kind, int] | None = None
    for kind, batch in runs:
        assert 1 <= len(batch) <= chunk
        assert batch.schema.equals(TRANSACTION_SCHEMA if kind is Kind.TRANSACTION else LABEL_SCHEMA)
        assert before is None or before[0] is not kind or before[1] == chunk
        before = kind, len(batch)
        time = batch.column("timestamp" if kind is Kind.TRANSACTION else "reported_at")
        found += list(
            zip(time.to_pylist(), [kind] * len(batch), batch.column("transaction_id").to_pylist(), strict=True)
        )
    return found


names = st.sampled_from("abcdefghijklmnop")
some_payments = st.lists(st.builds(payment, names, st.integers(0, 9), st.sampled_from([1, 1, 1, 2])), max_size=16)
some_labels = st.lists(st.builds(label, names, st.integers(0, 12), st.booleans()), max_size=12)


@settings(max_examples=150, deadline=None)
@given(some_payments, some_labels, st.booleans(), st.integers(1, 6), st.integers(0, 13), st.integers(0, 13))
def test_merged_is_a_stable_sort(
    tmp_path_factory: pytest.TempPathFactory,
    payments: list[dict[str, Any]],
    labels: list[dict[str, Any]],
    in_order: bool,
    chunk: int,
    start: int,
    stop: int,
) -> None:
    if in_order:
        payments = sorted(payments, key=lambda p: p["timestamp"])
    folder = tmp_path_factory.mktemp("merge")
    # Small batches: seven rows of a stream, so that ties and labels fall across their edges.
    first = write(table(payments), folder / "t.stream")
    second = write(table(labels, LABEL_SCHEMA), folder / "l.parquet")
    expected, refused = plain_merge(payments, labels)
    told: list[Refusal] = []
    assert flat(merged(first, second, chunk=chunk, on_refusal=told.append), chunk) == expected
    assert len(told) == refused
    assert all(r.column == "transaction_id" for r in told)
    cut = flat(merged(first, second, start=at(start), stop=at(stop), chunk=chunk), chunk)
    assert cut == [event for event in expected if at(start) <= event[0] < at(stop)]
    if refused:
        with pytest.raises(RefusedRow):
            list(merged(first, second, strict=True))


def test_merged_says_what_it_refused(tmp_path: Path) -> None:
    payments = [payment("b", 5), payment("a", 1), payment("b", 5), payment("a", 7, 2)]
    first = write(table(payments), tmp_path / "t.parquet")
    second = write(table([label("z", 9), label("b", 4), label("a", 2)], LABEL_SCHEMA), tmp_path / "l.parquet")
    told: list[Refusal] = []
    events = flat(merged(first, second, on_refusal=told.append), 4096)
    assert [(kind.name[0], name) for _, kind, name in events] == [("T", "a"), ("L", "a"), ("T", "b")]
    assert {str(r) for r in told} == {
        f"{first}: row 3: transaction_id: 'a' came before with other content",
        f"{second}: row 0: transaction_id: no payment 'z' came before this label",
        f"{second}: row 1: transaction_id: no payment 'b' came before this label",
    }
    with pytest.raises(DataError, match="no time zone"):
        merged(first, start=datetime(2020, 1, 1))


def test_labels_are_read_like_payments(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_text(
        "transaction_id,is_fraud,reported_at\na,1,2020-01-01\nb,perhaps,2020-01-01\nc,false,2020-01-01T00:01Z\n"
    )
    told: list[Refusal] = []
    [batch] = read_labels(path, on_refusal=told.append)
    assert batch.to_pylist() == [label("a", 0), label("c", 1, False)]
    assert [(r.row, r.column) for r in told] == [(1, "is_fraud")]


def test_standard_input_is_taken_as_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    payments = [payment("a", 5), payment("b", 3), payment("c", 4), payment("d", 8), payment("e", 1)]
    content = write(table(payments), tmp_path / "t.stream").read_bytes()

    class Stdin:
        buffer = io.BytesIO(content)

    monkeypatch.setattr(sys, "stdin", Stdin())
    labels = write(table([label("a", 4), label("b", 5), label("c", 6)], LABEL_SCHEMA), tmp_path / "l.parquet")
    told: list[Refusal] = []
    runs = [
        (kind.name[0], b.column("transaction_id").to_pylist())
        for kind, b in merged("-", labels, on_refusal=told.append)
    ]
    # Journal time is 5, 5, 5, 8, 8: the label at 4 is too early.
    assert runs == [("T", ["a", "b", "c"]), ("L", ["b", "c"]), ("T", ["d", "e"])]
    assert [r.row for r in told] == [0]


def test_order_and_ties_hold_across_the_batches_of_a_file(tmp_path: Path) -> None:
    # Streams are written in batches of seven rows: the eighth row opens the second batch.
    tied = write(table([payment(f"t{i}", 1) for i in range(8)]), tmp_path / "tied.stream")
    labels = write(table([label("t7", 1)], LABEL_SCHEMA), tmp_path / "l.parquet")
    assert [(kind, len(b)) for kind, b in merged(tied, labels, strict=True)] == [(Kind.TRANSACTION, 8), (Kind.LABEL, 1)]
    back = write(table([payment(f"t{i}", 9 if i < 7 else 1) for i in range(8)]), tmp_path / "back.stream")
    [(_, batch)] = merged(back)
    assert batch.column("transaction_id").to_pylist() == ["t7", *(f"t{i}" for i in range(7))]


def test_a_refusal_of_the_merge_counts_refused_rows_too(tmp_path: Path) -> None:
    rows = [payment("x", 0, -1), payment("a", 1), payment("a", 2, 2)]
    told: list[Refusal] = []
    list(merged(write(table(rows), tmp_path / "t.parquet"), on_refusal=told.append))
    assert [(r.row, r.column) for r in told] == [(0, "amount"), (2, "transaction_id")]
