"""One table of what is accepted: JSON and Arrow over HTTP, Parquet, Arrow files, CSV and JSON lines agree on it."""

import csv
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import DataError
from data.files.options import ReadOptions
from data.files.sources import read_labels, read_transactions
from data.schema import LABEL_SCHEMA, TRANSACTION_SCHEMA
from serve.http.wire import Label, Payment, arrow_bytes, batch_of, parse, read_arrow
from serve.problems import Problem

NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)
US = 1_577_880_000_000_000  # noon
PAYMENT = {
    "transaction_id": "t1",
    "timestamp": "2020-01-01T12:00:00Z",
    "account_id": "a",
    "merchant_id": "m",
    "amount": 5,
    "currency": "EUR",
}
LABEL = {"transaction_id": "t1", "is_fraud": True, "reported_at": "2020-01-01T12:00:00Z"}
REFUSED = object()
DOORS = ("json", "arrow", "parquet", "arrow file", "csv", "json lines")

TEXT: list[tuple[str, str, Any]] = [
    # column, text as it is written, what becomes of it: the same at all six doors
    ("timestamp", "2020-01-01T12:00:00Z", NOON),
    ("timestamp", "2020-01-01T12:00:00", NOON),
    ("timestamp", "2020-01-01 12:00", NOON),
    ("timestamp", "2020-01-01 12:00:00 UTC", NOON),
    ("timestamp", "2020-01-01t12:00:00z", NOON),
    ("timestamp", "2020-01-01T13:00:00+01", NOON),
    ("timestamp", "2020-01-01T13:30:00+0130", NOON),
    ("timestamp", "2020-01-01T12:00:00.000000999Z", NOON),
    ("timestamp", "20200101T120000Z", NOON),
    ("timestamp", "2020-01-01", NOON.replace(hour=0)),
    ("timestamp", "2020-02-30T12:00:00Z", REFUSED),
    ("timestamp", "01/02/2020", REFUSED),
    ("timestamp", "1999-12-31T23:59:59Z", REFUSED),
    ("timestamp", "noon", REFUSED),
    ("amount", "4200", 4200),
    ("amount", " 12", 12),
    ("amount", "3e3", 3000),
    ("amount", "1e+05", 100_000),
    ("amount", "4200.0", REFUSED),
    ("amount", "42.5", REFUSED),
    ("amount", "-1", REFUSED),
    ("amount", "€5", REFUSED),
    ("account_id", "Ab", "Ab"),
    ("account_id", "1.50", "1.50"),
    ("account_id", "a b", "a b"),
    ("account_id", "é", "é"),
    ("account_id", " a", REFUSED),
    ("account_id", "a\u00a0", REFUSED),
    ("account_id", "a\u200b", REFUSED),
    ("account_id", "a\x7f", REFUSED),
    ("account_id", "e\u0301", REFUSED),
    ("account_id", "a" * 129, REFUSED),
    ("transaction_id", "t" * 65, REFUSED),
    ("currency", "eur", REFUSED),
    ("is_fraud", "TRUE", True),
    ("is_fraud", "no", False),
    ("is_fraud", "1.0", True),
    ("is_fraud", "0", False),
    ("is_fraud", "2", REFUSED),
    ("is_fraud", "fraud", REFUSED),
]
TYPED: list[tuple[str, Any, Any]] = [
    # values that have a type: at every door that has types
    ("amount", 4200, 4200),
    ("amount", 4200.0, REFUSED),
    ("amount", 42.5, REFUSED),
    ("amount", -1, REFUSED),
    ("amount", 10**15 + 1, REFUSED),
    ("amount", True, REFUSED),
    ("account_id", 17, "17"),
    ("account_id", 17.0, REFUSED),
    ("account_id", True, REFUSED),
    ("is_fraud", True, True),
    ("is_fraud", 0, False),
    ("is_fraud", 1.0, True),
    ("is_fraud", 0.5, REFUSED),
    ("is_fraud", 2, REFUSED),
    ("currency", 978, REFUSED),
    ("timestamp", 1.5, REFUSED),
    ("timestamp", True, REFUSED),
]


def through(door: str, column: str, value: Any, folder: Path, options: ReadOptions | None = None) -> Any:
    """The canonical value that comes out behind a door, or REFUSED."""
    label = column == "is_fraud"
    item = {**(LABEL if label else PAYMENT), column: value}
    schema, shape = (LABEL_SCHEMA, Label) if label else (TRANSACTION_SCHEMA, Payment)
    path = folder / "x"
    try:
        if door == "json":
            batch = batch_of([parse(shape, json.dumps(item).encode())], schema)
        elif door == "arrow":
            batch, _ = read_arrow(arrow_bytes(pa.Table.from_pylist([item])), schema, 10)
        else:
            if door == "parquet":
                pq.write_table(pa.Table.from_pylist([item]), path)
            elif door == "arrow file":
                table = pa.Table.from_pylist([item])
                with pa.ipc.new_file(str(path), table.schema) as writer:
                    writer.write_table(table)
            elif door == "json lines":
                path.write_text(json.dumps(item))
            else:
                with path.open("w", newline="") as out:
                    writer = csv.DictWriter(out, list(item))
                    writer.writeheader()
                    writer.writerow(item)
            batches = list((read_labels if label else read_transactions)(path, options=options))
            if not batches:
                return REFUSED
            [batch] = batches
    except (Problem, DataError):
        return REFUSED
    return batch.column(column)[0].as_py()


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("column", "value", "expected"), TEXT)
def test_text_is_judged_alike_at_every_door(tmp_path: Path, door: str, column: str, value: str, expected: Any) -> None:
    assert through(door, column, value, tmp_path) == expected


@pytest.mark.parametrize("door", [d for d in DOORS if d != "csv"])
@pytest.mark.parametrize(("column", "value", "expected"), TYPED)
def test_typed_values_are_judged_alike_at_every_door_that_has_types(
    tmp_path: Path, door: str, column: str, value: Any, expected: Any
) -> None:
    assert through(door, column, value, tmp_path) == expected


@pytest.mark.parametrize("door", DOORS)
def test_an_epoch_is_microseconds_over_http_and_named_for_files(tmp_path: Path, door: str) -> None:
    http = door in ("json", "arrow")
    assert through(door, "timestamp", US, tmp_path) == (NOON if http else REFUSED)
    assert through(door, "timestamp", US // 10**6, tmp_path) is REFUSED
    for unit, value in (("s", US // 10**6), ("ms", US // 1000), ("us", US), ("s", US / 10**6)):
        options = ReadOptions.of([f"timestamp=timestamp:{unit}"])
        if not http:
            assert through(door, "timestamp", value, tmp_path, options) == NOON


@pytest.mark.parametrize("door", [d for d in DOORS if "json" not in d and d != "csv"])
def test_types_that_json_lacks_are_judged_alike_too(tmp_path: Path, door: str) -> None:
    for column, value, expected in (
        ("account_id", Decimal(17), "17"),
        ("account_id", Decimal("17.0"), REFUSED),
        ("amount", Decimal(17), 17),
        ("amount", Decimal("17.00"), REFUSED),
        ("is_fraud", Decimal("1.0"), True),
        ("timestamp", NOON, NOON),
        ("timestamp", NOON.replace(tzinfo=None), NOON),
        ("timestamp", NOON.date(), NOON.replace(hour=0)),
    ):
        assert through(door, column, value, tmp_path) == expected, (column, value)
