"""`ringwatch journal verify`, and that commands which only read a journal open it for reading."""

import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from data.files import streams
from data.history import History
from data.journal.protocol import Kind
from data.journal.sqlite import SqliteJournal
from data.schema import TRANSACTION_SCHEMA
from gnn.model.artifact import load, untrained
from serve.batch import rings
from serve.cli.main import app
from tests.data.journal.test_damage import without_rights
from tests.world import label_batch, payment_batch

ROOT = Path(__file__).parents[3]


def ringwatch(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "serve", *map(str, words)], capture_output=True, text=True, cwd=ROOT, timeout=120
    )


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "journal.sqlite"
    payments = payment_batch(40, seed=5)
    with SqliteJournal(path) as made:
        for start in (0, 20):
            with made.begin() as commit:
                commit.append(Kind.TRANSACTION, payments.slice(start, 20))
        with made.begin() as commit:
            commit.append(Kind.LABEL, label_batch(payments, [3], [True]))
    return path


def test_verify_says_what_a_whole_journal_holds(journal: Path) -> None:
    done = ringwatch("journal", "verify", "--journal", journal)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert done.stdout == f"{journal}: 41 events, 40 of them payments, 0 answers: whole\n"
    done = ringwatch("journal", "verify", "--journal", journal, "--json")
    assert (done.returncode, json.loads(done.stdout)["ok"]) == (0, True)


def test_verify_names_each_fault_and_ends_with_status_1(journal: Path) -> None:
    other = sqlite3.connect(journal)
    other.execute("UPDATE events SET checksum = checksum + 1 WHERE first = 20")
    other.execute("DELETE FROM ids WHERE position = 7")
    other.commit()
    other.close()
    done = ringwatch("journal", "verify", "--journal", journal)
    assert done.returncode == 1
    assert "events at offset 20 are damaged: they do not match their checksum; restore a backup" in done.stderr
    assert "at offset 7 is not in the index of ids" in done.stderr
    assert "DAMAGED" in done.stdout
    done = ringwatch("journal", "verify", "--journal", journal, "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert (found["ok"], found["events"], len(found["faults"])) == (False, 21, 3)


def test_verify_of_no_journal_is_bad_input(tmp_path: Path) -> None:
    done = ringwatch("journal", "verify", "--journal", tmp_path / "nowhere")
    assert done.returncode == 2
    assert "no journal at" in done.stderr


def test_rings_of_a_journal_are_listed_without_the_right_to_write(journal: Path) -> None:
    with SqliteJournal(journal) as made, made.begin() as commit:
        rows = [{"transaction_id": f"x{i}", "account_id": f"x{i}", "device_id": "shared"} for i in range(4)]
        like = payment_batch(41, seed=5).slice(40, 1).to_pylist()[0]
        batch = pa.RecordBatch.from_pylist([{**like, **row} for row in rows], TRANSACTION_SCHEMA)
        commit.append(Kind.TRANSACTION, batch)
    model = Path(tempfile.mkdtemp())
    try:
        untrained(("account", "merchant", "device")).save(model)
        for path in (model, *model.rglob("*")):
            path.chmod(0o755)
        words = ["rings", "--ties", "--model", str(model), "--journal"]
        wanted = CliRunner().invoke(app, [*words, str(journal)])  # every kernel is there now
        assert "shared" in wanted.output
        with without_rights(journal) as there:
            found = CliRunner().invoke(app, [*words, str(there)])
        assert (found.exit_code, found.output) == (0, wanted.output)
    finally:
        shutil.rmtree(model)


def test_rings_of_a_journal_open_it_for_reading(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def spy(path: Path, **options: Any) -> SqliteJournal:
        opened.append(options)
        return SqliteJournal(path, **options)

    untrained(("account", "merchant", "device")).save(journal.parent / "model")
    monkeypatch.setattr(streams, "SqliteJournal", spy)
    state, _ = rings.find_rings(load(journal.parent / "model"), History.read(journal))
    assert state.applied == 41
    assert opened == [{"readonly": True}]
