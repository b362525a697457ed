"""The SQLite journal killed, written by two processes at once, and given files that are none of its own."""

import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.errors import JournalError
from data.journal.protocol import SCHEMAS, Kind
from data.journal.sqlite import SqliteJournal
from data.journal.stored import checksum, decode, encode
from data.schema import LABEL_SCHEMA, TIMESTAMP, TRANSACTION_SCHEMA, content_hashes
from tests.data.journal import conformance
from tests.data.journal.conformance import rows

ROOT = Path(__file__).parents[3]


def payments(ids: list[str], amount: int = 1) -> pa.RecordBatch:
    n = len(ids)
    columns: dict[str, pa.Array] = {name: pa.nulls(n, pa.string()) for name in TRANSACTION_SCHEMA.names}
    columns |= {name: pa.array(["x"] * n) for name in ("account_id", "merchant_id")}
    columns |= {"transaction_id": pa.array(ids, pa.string()), "currency": pa.array(["EUR"] * n, pa.string())}
    columns |= {"timestamp": pa.array(range(n), TIMESTAMP), "amount": pa.array([amount] * n, pa.int64())}
    return pa.RecordBatch.from_arrays(
        [columns[c].cast(TRANSACTION_SCHEMA.field(c).type) for c in columns], schema=TRANSACTION_SCHEMA
    )


def labels(ids: list[str]) -> pa.RecordBatch:
    n = len(ids)
    return pa.RecordBatch.from_arrays(
        [pa.array(ids, pa.string()), pa.array([True] * n, pa.bool_()), pa.array(range(n), TIMESTAMP)],
        schema=LABEL_SCHEMA,
    )


def flat(journal: SqliteJournal, start: int = 0, stop: int | None = None, chunk: int = 65536) -> list[tuple[Kind, str]]:
    """Every row of a replay; checks on the way that offsets are dense and batches are not too long."""
    found: list[tuple[Kind, str]] = []
    for events in journal.replay(start, stop, chunk):
        assert events.offset == start + len(found)
        assert 1 <= len(events.batch) <= chunk
        assert events.batch.schema.equals(SCHEMAS[events.kind])
        found += [(events.kind, i) for i in events.batch.column(0).to_pylist()]
    return found


def test_known_tells_a_repeat_from_a_change(tmp_path: Path) -> None:
    with SqliteJournal(tmp_path / "j.db") as journal:
        with journal.begin() as commit:
            commit.append(Kind.TRANSACTION, payments(["a", "b"]))
        known = journal.ids.find(["b", "c"])
        assert set(known) == {"b"}
        assert known["b"].offset == 1
        assert [known["b"].content_hash] == content_hashes(payments(["a", "b"]).slice(1))
        assert [known["b"].content_hash] != content_hashes(payments(["b"], amount=2))
        with pytest.raises(JournalError, match="appended twice"), journal.begin() as commit:
            commit.append(Kind.TRANSACTION, payments(["c", "a"]))
        assert journal.end == 2
        assert not journal.ids.find(["c"])


def test_every_kind_comes_back(tmp_path: Path) -> None:
    with SqliteJournal(tmp_path / "j.db") as journal:
        batches = {}
        for kind in SCHEMAS:
            batches[kind] = rows(kind, ["a"])
            with journal.begin() as commit:
                commit.append(kind, batches[kind])
        replayed = list(journal.replay())
        assert [e.kind for e in replayed] == list(Kind)
        assert all(e.batch.equals(batches[e.kind]) for e in replayed)
        with pytest.raises(JournalError, match="must have the columns"), journal.begin() as commit:
            commit.append(Kind.LABEL, batches[Kind.OUTCOME])


def test_small_commits_are_merged(tmp_path: Path) -> None:
    with SqliteJournal(tmp_path / "j.db") as journal:
        for i in range(10):
            with journal.begin() as commit:
                commit.append(Kind.TRANSACTION, payments([str(i)]))
        assert [len(e.batch) for e in journal.replay()] == [10]
        assert [len(e.batch) for e in journal.replay(1, 9, 3)] == [3, 3, 2]


def test_what_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, but long enough to be read as the head of one" * 20)
    with pytest.raises(JournalError, match="text"):
        SqliteJournal(tmp_path / "text")
    with pytest.raises(JournalError, match="cannot open"):
        SqliteJournal(tmp_path)
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE t (x)")
    other.commit()
    other.close()
    with pytest.raises(JournalError, match="not a journal"):
        SqliteJournal(tmp_path / "other.db")
    with SqliteJournal(tmp_path / "new" / "j.db") as journal, pytest.raises(JournalError, match="ends at 0"):
        list(journal.replay(5))


def child(code: str, *args: str) -> subprocess.Popen[str]:
    source = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    source += "from test_journal import Kind, SqliteJournal, payments, labels\n" + textwrap.dedent(code)
    return subprocess.Popen([sys.executable, "-c", source, *args], stdout=subprocess.PIPE, text=True)


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    for life in range(3):
        writer = child(
            """
            journal = SqliteJournal(sys.argv[1])
            for i in range(10**6):
                ids = [f"{sys.argv[2]}-{i}-{k}" for k in range(i % 4 + 1)]
                with journal.begin() as commit:
                    commit.append(Kind.TRANSACTION, payments(ids))
                    commit.append(Kind.LABEL, labels(ids))
                print(*ids, flush=True)
            """,
            str(path),
            str(life),
        )
        assert writer.stdout is not None
        acknowledged: list[str] = []
        for line in writer.stdout:
            acknowledged += line.split()
            if len(acknowledged) > 150 + 50 * life:
                writer.send_signal(signal.SIGKILL)
                break
        # What it still said before it died counts as well, but for a line cut short.
        acknowledged += [
            i for line in writer.stdout.read().splitlines(keepends=True) if line[-1] == "\n" for i in line.split()
        ]
        assert writer.wait() == -signal.SIGKILL
        writer.stdout.close()
        with SqliteJournal(path) as journal:
            rows = flat(journal)
            assert journal.end == len(rows)
            known = journal.ids.find(acknowledged)
            assert set(known) == set(acknowledged)
            assert all(rows[k.offset] == (Kind.TRANSACTION, i) for i, k in known.items())
            # A commit is whole or not there: payments and labels come in pairs.
            assert sum(kind is Kind.LABEL for kind, _ in rows) * 2 == len(rows)


def test_two_processes_append_at_once(tmp_path: Path) -> None:
    path = tmp_path / "made-by-both" / "j.db"
    code = """
        journal = SqliteJournal(sys.argv[1])
        for i in range(100):
            ids = [f"{sys.argv[2]}-{i}-{k}" for k in range(3)]
            with journal.begin() as commit:
                print(commit.append(Kind.TRANSACTION, payments(ids)), *ids)
        """
    writers = [child(code, str(path), name) for name in ("a", "b")]
    spoken = [writer.communicate(timeout=60)[0] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    expected: dict[int, str] = {}
    for line in "".join(spoken).splitlines():
        first, *ids = line.split()
        for k, name in enumerate(ids):
            assert expected.setdefault(int(first) + k, name) == name
    assert sorted(expected) == list(range(600))
    with SqliteJournal(path) as journal:
        assert [i for _, i in flat(journal)] == [expected[i] for i in range(600)]


def test_many_make_the_file_at_once(tmp_path: Path) -> None:
    together = threading.Barrier(3)

    def make(path: Path) -> None:
        together.wait()
        SqliteJournal(path).close()

    with ThreadPoolExecutor(3) as makers:
        for i in range(100):
            list(makers.map(make, [tmp_path / str(i) / "j.db"] * 3))


def test_a_reader_follows_a_writer(tmp_path: Path) -> None:
    with SqliteJournal(tmp_path / "j.db") as writer, SqliteJournal(tmp_path / "j.db") as reader:
        with writer.begin() as commit:
            commit.append(Kind.TRANSACTION, payments(["a"]))
            assert reader.end == 0
        assert reader.end == 1
        replay = reader.replay()
        next(replay)
        with writer.begin() as commit:
            commit.append(Kind.TRANSACTION, payments(["b"]))
        assert not list(replay)
        assert flat(reader, 1) == [(Kind.TRANSACTION, "b")]


def test_commits_wait_for_the_disk(tmp_path: Path) -> None:
    with SqliteJournal(tmp_path / "j.db") as journal:
        journal.answers.keep([(0, b"x")])  # does not wait itself, and must leave the next commit waiting
        pragma = journal._connection.execute
        assert pragma("PRAGMA journal_mode").fetchone() == ("wal",)
        assert pragma("PRAGMA synchronous").fetchone() == (2,)


def test_a_journal_of_the_first_format_is_read_with_the_later_columns_empty(tmp_path: Path) -> None:
    outcome = pa.schema(list(SCHEMAS[Kind.OUTCOME])[:3])
    first = {
        Kind.TRANSACTION: payments(["a", "b"]).select(TRANSACTION_SCHEMA.names[:14]),
        Kind.OUTCOME: pa.RecordBatch.from_pylist([{"transaction_id": "a", "outcome": "decline", "at": 3}], outcome),
    }
    with SqliteJournal(tmp_path / "j.db") as journal:
        pass
    other = sqlite3.connect(tmp_path / "j.db")
    at = 0
    for kind, batch in first.items():
        payload = batch.serialize().to_pybytes()
        row = (at, len(batch), int(kind), 1, payload)
        other.execute("INSERT INTO events VALUES (?,?,?,?,?,?)", (*row, checksum(*row)))
        at += len(batch)
    other.commit()
    other.close()
    with SqliteJournal(tmp_path / "j.db") as journal:
        seen = {events.kind: events.batch for events in journal.replay()}
        assert (
            journal.take(np.array([1])).to_pylist()
            == payments(["b"]).set_column(1, "timestamp", pa.array([1], TIMESTAMP)).to_pylist()
        )
    assert seen[Kind.TRANSACTION].equals(payments(["a", "b"]))
    assert seen[Kind.OUTCOME].to_pylist()[0] | {"at": None} == {
        **dict.fromkeys(SCHEMAS[Kind.OUTCOME].names),
        "transaction_id": "a",
        "outcome": "decline",
    }


def test_events_of_another_version_are_refused_by_number_and_offset(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    for column, said in (
        ("kind", r"offset 2 are of kind 9, this version knows 1 \(transaction\), .*upgrade Ringwatch"),
        ("format", r"offset 2 are of format 9, this version knows up to 3; upgrade Ringwatch"),
    ):
        path.unlink(missing_ok=True)
        with SqliteJournal(path) as journal:
            for ids in (["a", "b"], ["c", "d"], ["e"]):
                with journal.begin() as commit:
                    commit.append(Kind.TRANSACTION, payments(ids))
        other = sqlite3.connect(path)
        other.create_function("checksum", 5, checksum, deterministic=True)
        other.execute(f"UPDATE events SET {column} = 9 WHERE first = 2")
        other.execute("UPDATE events SET checksum = checksum(first, rows, kind, format, payload)")
        other.commit()
        other.close()
        with SqliteJournal(path) as journal:
            assert flat(journal, 0, 2) == [(Kind.TRANSACTION, "a"), (Kind.TRANSACTION, "b")]
            with pytest.raises(JournalError, match=said):
                list(journal.replay())
            with pytest.raises(JournalError, match=said):
                journal.take(np.array([0, 3]))


@pytest.mark.parametrize("sizes", [[1] * 40, [8, 1, 9, 2, 3, 20, 1, 1], [9, 9]])
def test_runs_of_few_and_of_many_rows_are_read_alike(sizes: list[int], tmp_path: Path) -> None:
    expected: list[tuple[Kind, dict[str, Any]]] = []
    with SqliteJournal(tmp_path / "j.db") as journal:
        for n, size in enumerate(sizes):
            kind = list(Kind)[n // 2 % len(Kind)]
            batch = conformance.rows(kind, [f"t{n}-{i}" for i in range(size)], n)
            with journal.begin() as commit:
                commit.append(kind, batch)
            expected += [(kind, row) for row in batch.to_pylist()]
        for chunk in (1, 7, 1000):
            assert conformance.replayed(journal, chunk=chunk) == expected
        assert conformance.replayed(journal, 3, len(expected) - 1) == expected[3:-1]


def test_a_payment_in_a_commit_of_its_own_is_stored_in_150_bytes(tmp_path: Path) -> None:
    batch = conformance.rows(Kind.TRANSACTION, [f"0f8fad5b-d9cb-469f-a165-{n:012}" for n in range(2)])
    assert len(encode(Kind.TRANSACTION, 0, batch.slice(0, 1))[4]) <= 150
    assert decode(encode(Kind.TRANSACTION, 5, batch.slice(1)), 0).batch.equals(batch.slice(1))
