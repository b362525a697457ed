"""A history is the same from files, folders, journals and tables; cuts, look-ups and labels against plain lists."""

import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import history as module
from data.errors import DataError, RefusedRow
from data.files.address import Address
from data.files.options import ReadOptions
from data.files.streams import holds_journal, stream
from data.history import KEPT_REFUSALS, History, LabelledPayments
from data.journal.protocol import SCHEMAS, Events, Kind
from data.journal.sqlite import SqliteJournal
from data.schema import LABEL_SCHEMA, TRANSACTION_SCHEMA, Refusal
from tests.data.files.test_sources import at, flat, label, payment, some_labels, some_payments, table, write

Row = dict[str, Any]


def rows(history: History) -> list[tuple[int, Kind, Row]]:
    """Every event with its offset."""
    return [
        (events.offset + i, events.kind, row)
        for events in history.events
        for i, row in enumerate(events.batch.to_pylist())
    ]


def journal(path: Path, events: Iterable[Events]) -> Path:
    with SqliteJournal(path) as opened:
        for one in events:
            with opened.begin() as commit:
                commit.append(one.kind, one.batch)
    return path


def made(payments: list[Row], labels: list[Row]) -> History:
    return History.from_arrow(table(payments), table(labels, LABEL_SCHEMA) if labels and payments else None)


@settings(max_examples=60, deadline=None)
@given(some_payments, some_labels)
def test_files_folders_journals_and_tables_give_the_same_events(
    tmp_path_factory: pytest.TempPathFactory, payments: list[Row], labels: list[Row]
) -> None:
    folder = tmp_path_factory.mktemp("history")
    if not payments:
        labels = []
    files = (
        write(table(payments), folder / "transactions.parquet"),
        write(table(labels, LABEL_SCHEMA), folder / "labels.parquet"),
    )
    read = History.read(*files)
    expected = rows(read)
    assert [offset for offset, _, _ in expected] == list(range(len(read)))
    assert rows(History.read(folder)) == expected
    assert rows(History.read(journal(folder / "journal", read.events))) == expected
    assert rows(History.from_arrow(table(payments), table(labels, LABEL_SCHEMA))) == expected
    assert flat(stream(folder), 4096) == flat(read.runs(), 4096)
    refused: list[Refusal] = []
    again = History.read(folder, on_refusal=refused.append)
    assert read.refused == again.refused == len(refused) == len(read.refusals)


@settings(max_examples=150, deadline=None)
@given(some_payments, some_labels, st.integers(0, 13), st.integers(0, 13))
def test_cuts_equal_a_plain_filter_and_what_reading_with_bounds_gives(
    tmp_path_factory: pytest.TempPathFactory, payments: list[Row], labels: list[Row], start: int, stop: int
) -> None:
    history = made(payments, labels)
    whole = flat(history.runs(), 1 << 16)
    cut = history.between(at(start), at(stop))
    assert flat(cut.runs(), 1 << 16) == [event for event in whole if at(start) <= event[0] < at(stop)]
    assert [offset for offset, _, _ in rows(cut)] == list(range(len(cut)))
    early = history.before(at(stop))
    assert flat(early.runs(), 1 << 16) == [event for event in whole if event[0] < at(stop)]
    assert early.first == min((event[0] for event in whole if event[0] < at(stop)), default=None)
    assert early.last == max((event[0] for event in whole if event[0] < at(stop)), default=None)
    # Labels reported later are no events, but still tell what a payment was: as for whoever reads the whole.
    known = {name: bool(fraud) for name, fraud, _ in label_rows(history)}
    judged = early.labelled()
    names = judged.payments["transaction_id"].to_pylist()
    assert judged.labelled.tolist() == [name in known for name in names]
    assert judged.fraud.tolist() == [known.get(name, False) for name in names]
    if payments:
        folder = tmp_path_factory.mktemp("bounds")
        write(table(payments), folder / "transactions.parquet")
        write(table(labels, LABEL_SCHEMA), folder / "labels.parquet")
        read = History.read(folder, start=at(start), stop=at(stop))
        assert rows(read) == rows(cut)
        same(read.labelled(), cut.labelled())


def label_rows(history: History) -> list[tuple[str, bool, datetime]]:
    return [tuple(row.values()) for row in history.to_arrow()[1].to_pylist()]


def same(one: LabelledPayments, other: LabelledPayments) -> None:
    assert one.payments.equals(other.payments)
    np.testing.assert_array_equal(one.fraud, other.fraud)
    np.testing.assert_array_equal(one.labelled, other.labelled)


def test_the_newest_of_several_labels_counts() -> None:
    history = made(
        [payment("a", 1), payment("b", 2), payment("c", 3)], [label("a", 4), label("b", 5, False), label("a", 6, False)]
    )
    judged = history.labelled()
    assert judged.fraud.tolist() == [False, False, False]
    assert judged.labelled.tolist() == [True, True, False]
    assert history.before(at(6)).labels["is_fraud"].to_pylist() == [True, False]
    assert history.before(at(6)).labelled().fraud.tolist() == [False, False, False]
    assert history.to_arrow()[1].num_rows == history.before(at(2)).to_arrow()[1].num_rows == 3
    assert history.before(at(6)).before(at(5)).to_arrow()[1].num_rows == 3  # a cut of a cut knows as much


def test_the_truth_of_a_world_stands_in_place_of_labels(tmp_path: Path) -> None:
    history = made([payment("a", 1), payment("b", 2), payment("c", 3)], [label("a", 4)])
    names = ["c", "a", "z"]
    truth = pa.table({"transaction_id": names, "is_fraud": [True, False, True], "ring_kind": ["mule", None, "x"]})
    judged = history.labelled(write(truth, tmp_path / "truth.parquet"))
    assert judged.fraud.tolist() == [False, False, True]
    assert judged.labelled.tolist() == [True, False, True]
    assert judged.kind is not None
    assert judged.kind.tolist() == ["", "", "mule"]
    with pytest.raises(DataError, match="truth of a world"):
        history.labelled(tmp_path / "none.parquet")


def test_labels_may_be_a_column_of_the_payments(tmp_path: Path) -> None:
    payments = [
        payment(name, minute, is_fraud=fraud) for name, minute, fraud in (("a", 1, 1), ("b", 2, 0), ("c", 5, 1))
    ]
    folder = tmp_path / "world"
    folder.mkdir()
    written = write(pa.Table.from_pylist(payments), folder / "transactions.parquet")
    options = ReadOptions.of(label_column="is_fraud", label_delay="2min")
    histories = [History.read(Address.of([source], options)) for source in (written, folder)]
    assert [kind.name[0] for _, kind, _ in rows(histories[0])] == list("TTLLTL")
    assert rows(histories[0]) == rows(histories[1])
    for source in (written, folder):
        early = History.read(Address.of([source], options), stop=at(4))
        assert rows(early) == rows(histories[0].before(at(4)))
        assert early.labelled().fraud.tolist() == [True, False]  # the label of b comes at minute 4
        assert early.labelled().labelled.tolist() == [True, True]


def test_a_payment_that_a_journal_took_in_late_was_not_known_before(tmp_path: Path) -> None:
    late = [payment("a", 5), payment("b", 1), payment("c", 9)]
    batch = table(late).cast(TRANSACTION_SCHEMA).to_batches()[0]
    early_report = table([label("a", 2)], LABEL_SCHEMA).cast(LABEL_SCHEMA).to_batches()[0]
    model = pa.RecordBatch.from_pylist([{"name": "n", "version": "v", "sha256": "s", "at": at(0)}], SCHEMAS[Kind.MODEL])
    kinds = ((Kind.MODEL, model), (Kind.TRANSACTION, batch), (Kind.LABEL, early_report))
    history = History.read(journal(tmp_path / "journal", (Events(kind, 0, part) for kind, part in kinds)))
    assert len(history.before(at(5)).payments) == 0
    assert history.before(at(6)).payments["transaction_id"].to_pylist() == ["a", "b"]
    assert len(history.before(at(6)).labels) == 0  # it came after the payment of minute 9
    assert (history.first, history.last) == (at(5), at(9))
    cut = History.read(tmp_path / "journal", stop=at(6))
    assert rows(cut) == rows(history.before(at(6)))
    assert cut.labelled().fraud.tolist() == [True, False]


@settings(max_examples=60, deadline=None)
@given(some_payments, some_labels, st.integers(1, 4), st.randoms(use_true_random=False))
def test_payments_are_looked_up_by_offset(payments: list[Row], labels: list[Row], chunk: int, random: Any) -> None:
    history = History(made(payments, labels).runs(chunk))
    by_offset = {offset: row for offset, kind, row in rows(history) if kind is Kind.TRANSACTION}
    wanted = random.choices(sorted(by_offset), k=8) if by_offset else []
    assert history.take(np.array(wanted, np.int64)).to_pylist() == [by_offset[offset] for offset in wanted]
    for nothing in {-1, len(history), *range(len(history))} - set(by_offset):
        with pytest.raises(DataError, match=f"no transaction at offset {nothing}"):
            history.take(np.array([nothing]))


def test_cuts_share_memory() -> None:
    history = made([payment(f"t{i}", i) for i in range(50)], [])
    cut = history.between(at(10), at(40)).payments["amount"].chunk(0)
    whole = history.payments["amount"].chunk(0)
    assert cut.buffers()[1].address == whole.buffers()[1].address
    assert history.to_arrow()[0]["amount"].chunk(0).buffers()[1].address == whole.buffers()[1].address


def test_refused_rows_are_counted_and_the_first_of_them_kept() -> None:
    many = [payment(f"t{i}", i, -1 if i else 1) for i in range(KEPT_REFUSALS + 20)]
    told: list[Refusal] = []
    history = History.from_arrow(table(many), on_refusal=told.append)
    assert history.refused == len(told) == KEPT_REFUSALS + 19
    assert list(history.refusals) == told[:KEPT_REFUSALS]
    assert history.before(at(9)).refused == history.refused
    with pytest.raises(RefusedRow, match="row 1"):
        History.from_arrow(table(many), strict=True)


def test_what_is_no_history_is_refused_in_one_line(tmp_path: Path) -> None:
    payments = write(table([payment("a", 1)]), tmp_path / "t.parquet")
    none = write(table([]), tmp_path / "none.parquet")
    labels = write(table([label("a", 2)], LABEL_SCHEMA), tmp_path / "l.parquet")
    log = journal(tmp_path / "journal", History.read(payments).events)
    (tmp_path / "empty").mkdir()
    (tmp_path / "world").mkdir()
    (tmp_path / "half").mkdir()
    write(table([label("a", 2)], LABEL_SCHEMA), tmp_path / "half" / "labels.parquet")
    write(table([payment("a", 1)]), tmp_path / "world" / "transactions.parquet")
    assert holds_journal(log)
    assert not holds_journal(payments)
    assert len(History.read(tmp_path / "world")) == 1
    for read, said in (
        (lambda: History.read(tmp_path / "empty"), "empty"),
        (lambda: History.read(tmp_path / "half"), "without transactions.parquet"),
        (lambda: History.read(tmp_path / "world", labels), "give the folder alone"),
        (lambda: History.read(log, labels), "give it alone"),
        (lambda: History.read(none, labels), "holds labels, but .* holds no valid payment"),
        (lambda: History.from_arrow(table([]), table([label("a", 2)], LABEL_SCHEMA)), "holds no valid payment"),
        (lambda: History.read(tmp_path / "nowhere"), "nowhere"),
        (lambda: History.read(payments, stop=datetime(2020, 1, 1)), "no time zone"),
        (lambda: History.read(log, stop=datetime(2020, 1, 1)), "no time zone"),
        (lambda: History.read(payments).before(datetime(2020, 1, 1)), "no time zone"),
        (lambda: History.from_arrow("t.parquet"), "transactions: not a table"),
        (lambda: History.from_pandas(table([payment("a", 1)])), "transactions: not a pandas data frame"),
    ):
        with pytest.raises(DataError, match=said) as error:
            read()
        assert "\n" not in str(error.value)


def test_anything_that_hands_out_arrow_data_is_taken() -> None:
    class Frame:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return table([payment("b", 2), payment("a", 1)]).__arrow_c_stream__(requested_schema)

    assert History.from_arrow(Frame()).payments["transaction_id"].to_pylist() == ["a", "b"]


def test_pandas_and_back() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is an extra")
    payments = pandas.DataFrame([payment("b", 2, device_id=None), payment("a", 1, device_id="d")])
    labels = pandas.DataFrame([label("a", 3)])
    history = History.from_pandas(payments, labels)
    assert rows(history) == rows(History.from_arrow(*(pa.Table.from_pandas(f) for f in (payments, labels))))
    found = history.to_pandas()
    assert rows(History.from_pandas(*found)) == rows(history)


def test_to_pandas_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(DataError, match="pip install pandas"):
        made([payment("a", 1)], []).to_pandas()


def test_a_long_file_is_held_in_few_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 64)
    path = write(table([payment(f"t{i:03}", i) for i in range(300)]), tmp_path / "t.parquet")
    assert [len(events.batch) for events in History.read(path).events] == [64, 64, 64, 64, 44]
    assert [len(batch) for _, batch in stream(path, chunk=100)] == [100, 100, 100]
    assert [len(batch) for _, batch in History.read(path).runs(50)] == [50, 14, 50, 14, 50, 14, 50, 14, 44]


def test_roles_are_those_that_any_payment_fills() -> None:
    assert made([payment("a", 1), payment("b", 2, device_id="d")], []).roles == ("account", "merchant", "device")
    assert History([]).roles == ()
    assert (History([]).first, len(History([]))) == (None, 0)
    assert repr(made([payment("a", 1)], [])) == "History(1 payment, 0 labels, 2020-01-01 00:01 to 2020-01-01 00:01)"
    assert UTC is made([payment("a", 1)], []).first.tzinfo  # type: ignore[union-attr]
