"""Files are read wherever they lie: archives, folders, globs and addresses; what is not read says what was found."""

import bz2
import gzip
import io
import json
import random
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import DataError
from data.files.sources import merged, read_transactions
from data.journal.protocol import Kind
from data.schema import TRANSACTION_SCHEMA, Refusal
from tests.data.files.test_readers import ids, line, put, text


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
        (tmp_path / "empty", "no files found"),
        (tmp_path / "*.csv", "no files found"),
        ("memory://nowhere/x", "no such file or folder"),
        ("nonsense://x/y", "Protocol not known"),
    ):
        with pytest.raises(DataError, match=reason):
            ids(where)
