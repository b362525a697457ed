"""Every bad value is refused with file, row, column and reason; every format gives the same canonical batch."""

import hashlib
import unicodedata
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import SchemaError
from data.schema import (
    CATEGORIES,
    LABEL_SCHEMA,
    MAX_AMOUNT,
    ROLES,
    TRANSACTION_SCHEMA,
    Refusal,
    check_labels,
    check_transactions,
    content_hashes,
    role,
)

UUID = "00000000-0000-0000-0000-000000000000"
NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)
GOOD: dict[str, Any] = {
    "transaction_id": "t1",
    "timestamp": NOON,
    "account_id": "a1",
    "merchant_id": "m1",
    "device_id": None,
    "amount": 1234,
    "currency": "EUR",
}
TEXT = [n for n in TRANSACTION_SCHEMA.names if n not in ("timestamp", "amount")]


def rows(column: str, values: list[Any] | pa.Array, kind: pa.DataType | None = None) -> pa.Table:
    """Good rows but for one column."""
    columns = {k: pa.repeat(pa.scalar(v, TRANSACTION_SCHEMA.field(k).type), len(values)) for k, v in GOOD.items()}
    values = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, kind)
    return pa.table({**columns, column: values})


def test_roles_and_categories_are_columns() -> None:
    assert {r.column for r in ROLES} | set(CATEGORIES) <= set(TRANSACTION_SCHEMA.names)
    assert role("payee").entity_type == role("account").entity_type == "account"
    with pytest.raises(SchemaError, match="no role named 'x'"):
        role("x")


def test_missing_optional_columns_are_null_and_others_ignored() -> None:
    batch, refusals = check_transactions(rows("colour", ["red", "blue"]))
    assert not refusals
    assert batch.schema.equals(TRANSACTION_SCHEMA)
    assert batch.column("card_id").null_count == 2
    assert check_transactions(TRANSACTION_SCHEMA.empty_table())[0].num_rows == 0


BAD: list[tuple[str, Any, pa.DataType | None, str]] = [
    ("transaction_id", None, pa.string(), "is missing"),
    ("account_id", None, pa.string(), "is missing"),
    ("amount", None, pa.int64(), "is missing"),
    ("timestamp", None, pa.timestamp("us"), "is missing"),
    ("currency", None, pa.string(), "is missing"),
    ("merchant_id", "", None, "is empty"),
    ("device_id", "", None, "is empty"),
    ("transaction_id", "x" * 65, None, "longer than 64"),
    ("merchant_id", "é" * 129, None, "longer than 128"),
    ("mcc", "a\x00b", None, "control"),
    ("ip", "a\x7f", None, "control"),
    ("card_id", "a\u0085", None, "control"),
    ("payee_id", b"\xff", None, "not UTF-8"),
    ("amount", -1, None, "negative"),
    ("amount", MAX_AMOUNT + 1, None, "more than 1000000000000000"),
    ("amount", 2**64 - 1, pa.uint64(), "more than"),
    ("amount", "12,50", None, "not a number"),
    ("amount", "9" * 30, None, "more than"),
    ("amount", "9" * 40, None, "too large"),
    ("amount", "1e999", None, "too large"),
    ("amount", "-3e3", None, "negative"),
    ("amount", "€41", None, "leave out the currency sign"),
    ("amount", "41 EUR", None, "leave out the currency sign"),
    ("amount", "1,234,567", None, "separator of thousands"),
    ("merchant_id", " m", None, "begins or ends with a blank"),
    ("merchant_id", "m ", None, "begins or ends with a blank"),
    ("account_id", "a\u00a0", None, "begins or ends with a blank"),
    ("account_id", "a\u200bb", None, "zero-width"),
    ("account_id", "\ufeffa", None, "zero-width"),
    ("account_id", "a\u3164", None, "zero-width"),
    ("account_id", "a\u2028b", None, "line separator"),
    ("account_id", "e\u0301", None, "composed form"),
    ("country", " DE", None, "begins or ends with a blank"),
    ("amount", "", None, "not a number"),
    ("currency", "eur", None, "three upper-case"),
    ("currency", "EURO", None, "three upper-case"),
    ("currency", "EUR\n", None, "three upper-case"),
    ("timestamp", datetime(1900, 1, 1), None, "outside"),
    ("timestamp", datetime(1999, 12, 31, 23, 59, 59, 999999), None, "outside"),
    ("timestamp", datetime(2100, 1, 1), None, "outside"),
    ("timestamp", datetime(2300, 1, 1), None, "outside"),
    ("timestamp", 2**60, pa.timestamp("s"), "outside"),
    ("timestamp", "yesterday", None, "ISO 8601"),
    ("timestamp", "2020-02-30T00:00:00Z", None, "ISO 8601"),
    ("timestamp", "2020-01-01T25:00:00", None, "ISO 8601"),
    ("timestamp", "1900-01-01T00:00:00Z", None, "outside"),
    ("timestamp", "1577880000", None, "COLUMN:s)"),
    ("timestamp", "1577880000000", None, "COLUMN:ms)"),
    ("timestamp", "31/01/2020 12:00", None, "%d/%m/%Y"),
    ("timestamp", "31.01.2020", None, "write 2020-01-31"),
    ("timestamp", "2020/01/31", None, "%Y/%m/%d"),
]


@pytest.mark.parametrize(("column", "value", "kind", "reason"), BAD)
@pytest.mark.parametrize("as_table", [True, False])
def test_a_bad_value_is_refused(column: str, value: Any, kind: pa.DataType | None, reason: str, as_table: bool) -> None:
    fine = None if value is None or column not in GOOD else _fine(value, GOOD[column])
    table = rows(column, [fine, value, fine] if fine is not None else [value], kind)
    table = table.slice(0) if as_table else table.combine_chunks().to_batches()[0]
    batch, refusals = check_transactions(table, "some.csv", 100)
    [refusal] = refusals
    assert (refusal.file, refusal.column) == ("some.csv", column)
    assert refusal.row == 100 + (fine is not None)
    assert reason in refusal.reason
    assert str(refusal) == f"some.csv: row {refusal.row}: {column}: {refusal.reason}"
    assert "\n" not in str(refusal)
    assert batch.num_rows == (2 if fine is not None else 0)
    assert batch.schema.equals(TRANSACTION_SCHEMA)
    batch.validate(full=True)


def _fine(bad: Any, good: Any) -> Any:
    """A good value of the same Arrow type as a bad one."""
    if isinstance(bad, str):
        return good if isinstance(good, str) else "2020-01-01T12:00:00" if isinstance(good, datetime) else "12"
    if isinstance(bad, bytes):
        return b"x"
    if isinstance(bad, datetime):
        return good.replace(tzinfo=None)
    return int(NOON.timestamp()) if isinstance(good, datetime) else type(bad)(12)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("amount", pa.array([True])),
        ("amount", pa.array([NOON])),
        ("timestamp", pa.array([1_600_000_000])),
        ("timestamp", pa.array([1.5])),
        ("account_id", pa.array([1.5])),
        ("account_id", pa.array([["a"]])),
        ("device_id", pa.array([{"a": 1}])),
        ("currency", pa.array([978])),
        ("account_id", pa.array([Decimal("1.0")])),
        ("amount", pa.array([7.0])),
        ("amount", pa.array([Decimal("7.00")])),
        ("amount", pa.array(["7.00"])),
        ("amount", pa.array(["12", "7.5"])),
    ],
)
def test_a_type_of_no_use_is_an_error(column: str, values: pa.Array) -> None:
    with pytest.raises(SchemaError, match=f"f.parquet: column {column}"):
        check_transactions(rows(column, values), "f.parquet")


def test_a_missing_or_double_column_is_an_error() -> None:
    table = rows("ip", ["1.2.3.4"])
    with pytest.raises(SchemaError, match=r"f: the required column amount is missing"):
        check_transactions(table.drop_columns(["amount"]), "f")
    with pytest.raises(SchemaError, match="ip occurs 2 times"):
        check_transactions(table.append_column("ip", table["ip"]), "f")


def test_a_damaged_array_is_an_error() -> None:
    offsets = pa.py_buffer(np.array([0, 99, 1], np.int32))
    damaged = pa.StringArray.from_buffers(2, offsets, pa.py_buffer(b"a"))
    with pytest.raises(SchemaError, match="device_id is damaged"):
        check_transactions(rows("device_id", damaged))


def test_one_refusal_a_row_by_its_first_bad_column() -> None:
    table = rows("amount", [-1, 5]).set_column(2, "account_id", pa.array(["", "a"]))
    _, refusals = check_transactions(table)
    assert refusals == [Refusal("<memory>", 0, "account_id", "is empty")]


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("account_id", pa.array(["x", "y"]).dictionary_encode(), ["x", "y"]),
        ("account_id", pa.array(["x", "y"], pa.large_string()), ["x", "y"]),
        ("account_id", pa.array(["x", "y"], pa.string_view()), ["x", "y"]),
        ("account_id", pa.array([b"x", b"y"]), ["x", "y"]),
        ("mcc", pa.array([5411, None], pa.int16()), ["5411", None]),
        ("ip", pa.nulls(2), [None, None]),
        ("amount", pa.array([0, 255], pa.uint8()), [0, 255]),
        ("account_id", pa.array([Decimal(12345678901234567890), Decimal(7)]), ["12345678901234567890", "7"]),
        ("account_id", pa.array([bytes(16), bytes(15) + b"\xab"], pa.uuid()), [UUID, f"{UUID[:-2]}ab"]),
        ("account_id", pa.array(["Ab", "aB"]), ["Ab", "aB"]),
        ("account_id", pa.array(["Müller & Söhne", "株式会社"]), ["Müller & Söhne", "株式会社"]),
        ("amount", pa.array([" 12 ", "+0007"]), [12, 7]),
        ("amount", pa.array(["3e3", "1e+05"]), [3000, 100_000]),
        ("amount", pa.array(["1.5e+07", "0"]), [15_000_000, 0]),
        ("amount", pa.array([Decimal(12), Decimal(7)]), [12, 7]),
        ("timestamp", pa.array([NOON, NOON], pa.timestamp("s")), [NOON, NOON]),
        ("timestamp", pa.array([NOON, NOON], pa.timestamp("ns", tz="Asia/Tokyo")), [NOON, NOON]),
        ("timestamp", pa.array(["2020-01-01 12:00", "2020-01-01T14:00:00.000000999+02:00"]), [NOON, NOON]),
        ("timestamp", pa.array(["2020-01-01 12:00:00 UTC", "2020-01-01t12:00:00z"]), [NOON, NOON]),
        ("timestamp", pa.array([" 2020-01-01T12:00Z", "2020-01-01 12:00:00 +0000 UTC"]), [NOON, NOON]),
        ("timestamp", pa.array(["2020-01-01T07:00:00-0500", "2020-01-01 14:00:00 +02:00"]), [NOON, NOON]),
        ("timestamp", pa.array(["20200101T120000Z", "2020-01-01T12Z"]), [NOON, NOON]),
        ("timestamp", pa.array(["2020-01-01 12:00:00,000", "2020-01-01T12:00:00.0000000000001Z"]), [NOON, NOON]),
        ("timestamp", pa.array([date(2020, 1, 1)] * 2), [NOON - timedelta(hours=12)] * 2),
    ],
)
def test_what_is_safe_is_cast(column: str, values: pa.Array, expected: list[Any]) -> None:
    batch, refusals = check_transactions(rows(column, values))
    assert not refusals
    assert batch.column(column).to_pylist() == expected
    assert batch.schema.equals(TRANSACTION_SCHEMA)


def oracle(value: str | None, column: str) -> bool:
    """Whether a text is good, in plain Python."""
    if value is None:
        return column not in GOOD or column == "device_id"
    if column == "currency":
        return len(value) == 3 and all("A" <= c <= "Z" for c in value)
    limit = 64 if column == "transaction_id" else 128
    blank, bad = ("Zs", "Zl", "Zp"), ("Cc", "Cf", "Zl", "Zp")
    return (
        1 <= len(value) <= limit
        and not any(unicodedata.category(c) in bad or c in "\u034f\u115f\u1160\u3164\uffa0" for c in value)
        and not any(c in "\u17b4\u17b5\u180b\u180c\u180d" for c in value)
        and unicodedata.category(value[0]) not in blank
        and unicodedata.category(value[-1]) not in blank
        and unicodedata.normalize("NFC", value) == value
    )


texts = st.one_of(
    st.none(),
    st.sampled_from(
        [
            "",
            "EUR",
            "USD",
            "A" * 64,
            "A" * 65,
            "é" * 128,
            "é" * 129,
            "🙂" * 64,
            "\x1f",
            "\u00a0",
            "\u0080",
            " a",
            "a ",
            "a b",
            "é ",
            "\u00ad",
        ]
    ),
    st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=5),
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(TEXT), st.lists(texts, max_size=8), st.integers(0, 3))
def test_texts_are_judged_as_in_plain_python(column: str, values: list[str | None], skip: int) -> None:
    batch, refusals = check_transactions(rows(column, values, pa.string()).slice(skip), first_row=skip)
    good = [oracle(v, column) for v in values]
    assert [r.row for r in refusals] == [i for i, ok in enumerate(good) if not ok and i >= skip]
    assert {r.column for r in refusals} <= {column}
    assert batch.column(column).to_pylist() == [v for i, v in enumerate(values) if good[i] and i >= skip]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.integers(-2, MAX_AMOUNT + 2)), max_size=8))
def test_amounts_are_judged_as_in_plain_python_whatever_their_type(values: list[int | None]) -> None:
    good = [v is not None and 0 <= v <= MAX_AMOUNT for v in values]
    as_text = pa.array([None if v is None else str(v) for v in values], pa.string())
    for column in (pa.array(values, pa.int64()), as_text):
        batch, refusals = check_transactions(rows("amount", column))
        assert [r.row for r in refusals] == [i for i, ok in enumerate(good) if not ok]
        assert batch.column("amount").to_pylist() == [v for v, ok in zip(values, good, strict=True) if ok]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.none(), st.datetimes(datetime(1960, 1, 1), datetime(2200, 1, 1))), max_size=8))
def test_times_are_judged_as_in_plain_python_whatever_their_type(values: list[datetime | None]) -> None:
    good = [v is not None and datetime(2000, 1, 1) <= v < datetime(2100, 1, 1) for v in values]
    naive = pa.array(values, pa.timestamp("us"))
    text = [None if v is None else v.isoformat() + ("" if i % 2 else "Z") for i, v in enumerate(values)]
    for column in (naive, naive.cast(pa.timestamp("ns")), naive.cast(pa.timestamp("us", "UTC")), pa.array(text)):
        batch, refusals = check_transactions(rows("timestamp", column))
        assert [r.row for r in refusals] == [i for i, ok in enumerate(good) if not ok]
        kept = [v.replace(tzinfo=UTC) for v, ok in zip(values, good, strict=True) if v is not None and ok]
        assert batch.column("timestamp").to_pylist() == kept


def test_labels_of_every_type_are_cast_or_refused_by_row() -> None:
    ids, at = ["a", "b", "c", "d"], [NOON] * 4
    for flags in (
        [0, 1, 2, None],
        [0.0, 1.0, 0.5, None],
        [Decimal("0.0"), Decimal("1.0"), Decimal("2.0"), None],
        ["false", "TRUE", "maybe", None],
        ["No", " y ", "-", None],
        ["0.0", "1", "2", None],
        [False, True, None, None],
    ):
        batch, refusals = check_labels(pa.table({"transaction_id": ids, "is_fraud": flags, "reported_at": at}), "l.csv")
        assert batch.schema.equals(LABEL_SCHEMA)
        assert batch.column("is_fraud").to_pylist() == [False, True]
        assert [(r.row, r.column) for r in refusals] == [(2, "is_fraud"), (3, "is_fraud")]
    with pytest.raises(SchemaError, match="is_fraud"):
        check_labels(pa.table({"transaction_id": ids, "is_fraud": at, "reported_at": at}))


def test_content_hashes_tell_every_column_apart() -> None:
    full = {n: f"{n[:3].upper()}" for n in TEXT} | {"timestamp": NOON, "amount": 5}
    variants = [full]
    for name in TRANSACTION_SCHEMA.names:
        other = {"timestamp": NOON + timedelta(microseconds=1), "amount": 6}.get(name, "XYZ")
        variants.append({**full, name: other})
        if TRANSACTION_SCHEMA.field(name).nullable:
            variants.append({**full, name: None})
    batch = pa.RecordBatch.from_pylist(variants, TRANSACTION_SCHEMA)
    hashes = content_hashes(batch)
    assert len(set(hashes)) == len(variants)
    assert content_hashes(batch.slice(3, 2)) == hashes[3:5]
    # Journals hold these digests: this one may change only with a new journal format.
    text = "\x1f".join(
        str(int(full[n].timestamp()) * 10**6) if n == "timestamp" else str(full[n]) for n in TRANSACTION_SCHEMA.names
    )
    assert hashes[0] == hashlib.blake2b(text.encode(), digest_size=16).digest()


def test_control_characters_are_seen_in_a_slice() -> None:
    for control in ("\x1f", "\x7f", "\x9f"):
        table = rows("device_id", ["longer than the rest", "b", control]).slice(1)
        assert [r.row for r in check_transactions(table)[1]] == [1]


def test_a_payment_without_an_agent_has_the_digest_it_had_before_there_were_agents() -> None:
    row = {"transaction_id": "t", "timestamp": 5, "account_id": "a", "merchant_id": "m", "amount": 7, "currency": "EUR"}
    plain, by_agent = (
        pa.RecordBatch.from_pylist([{**row, **more}], schema=TRANSACTION_SCHEMA) for more in ({}, {"agent_id": "g"})
    )
    text = "\x1f".join(["t", "5", "a", "m", "", "7", "EUR"] + [""] * 7)
    before = hashlib.blake2b(text.encode(), digest_size=16).digest()
    both = pa.Table.from_batches([plain, by_agent]).combine_chunks().to_batches()[0]
    assert content_hashes(plain) == [before]
    assert content_hashes(both) == [before, *content_hashes(by_agent)]
    assert content_hashes(by_agent) != [before]
