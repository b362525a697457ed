"""What people and programs meet around the work: outputs, pipes, addresses and empty histories."""

import csv
import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.schema import TRANSACTION_SCHEMA
from gnn.model.artifact import untrained
from serve.cli.main import app
from serve.terminal import _Lines
from tests.serve.cli.test_cli import ringwatch
from tests.world import payment_batch


@pytest.fixture
def model(tmp_path: Path) -> Path:
    untrained(("account", "merchant", "device"), neighbours=4, window_rows=1 << 12).save(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def payments(tmp_path: Path) -> Path:
    return written(tmp_path / "t.parquet", ["a1", "a2", "a3"])


def written(path: Path, accounts: list[str]) -> Path:
    """A file of payments of accounts that share a device."""
    batch = payment_batch(len(accounts), seed=1)
    columns = {name: batch.column(name) for name in batch.schema.names}
    columns |= {"account_id": pa.array(accounts), "device_id": pa.array(["d1"] * len(accounts))}
    pq.write_table(pa.table(columns, schema=batch.schema), path)
    return path


@pytest.mark.parametrize("root", [True, False])
@pytest.mark.parametrize(
    ("words", "option", "is_folder"),
    [
        (["train", "--transactions", "t", "--labels", "l"], "--out", True),
        (["rescore", "--model", "m", "--transactions", "t"], "--out", True),
        (["simulate"], "--out", True),
        (["dataset", "handbook", "--source", "s"], "--out", True),
        (["demo"], "--out", True),
        (["rings", "--ties", "--model", "m", "--transactions", "t"], "--draw", True),
        (["ingest", "--transactions", "t"], "--answers", False),
        (["card", "--model", "m", "--transactions", "t", "--labels", "l", "--from", "2026-01-01"], "--out", False),
    ],
)
def test_an_output_that_cannot_be_written_is_said_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], option: str, is_folder: bool, root: bool
) -> None:
    if root:  # the very place is of the wrong kind
        place = tmp_path / "there"
        place.write_text("a file") if is_folder else place.mkdir()
        said = "is a file" if is_folder else "is a folder"
    else:  # or one above it
        (tmp_path / "there").write_text("a file")
        place, said = tmp_path / "there" / "below", "is a file"
    with pytest.raises(SystemExit) as left:
        app([*words, option, str(place)])
    assert left.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_rings_are_whole_when_piped_and_come_as_json_and_csv(model: Path, payments: Path) -> None:
    words = ("rings", "--ties", "--model", model, "--transactions", payments)
    table = ringwatch(*words)
    assert table.returncode == 0, table.stderr
    assert "…" not in table.stdout
    found = json.loads(ringwatch(*words, "--json").stdout)
    assert sorted(found[0]["accounts"]) == ["a1", "a2", "a3"]
    (row,) = csv.DictReader(io.StringIO(ringwatch(*words, "--csv").stdout))
    assert row["id"] == found[0]["id"]
    assert row["accounts"].split() == found[0]["accounts"]
    assert row["first_seen"].replace("+00:00", "Z") == found[0]["first_seen"]
    assert dict(pair.split(":") for pair in row["at_risk"].split()) == {
        currency: str(amount) for currency, amount in found[0]["at_risk"].items()
    }
    assert ringwatch(*words, "--csv", "--json").returncode == 2


def test_what_a_locale_cannot_write_is_replaced(model: Path, tmp_path: Path) -> None:
    written(tmp_path / "t.parquet", ["zoë-1", "zoë-2", "zoë-3"])
    command = [
        sys.executable,
        "-m",
        "serve",
        "rings",
        "--ties",
        "--model",
        model,
        "--transactions",
        tmp_path / "t.parquet",
    ]
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([*command, "--csv"], capture_output=True, text=True, env=env, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert "zo?-1" in done.stdout


def test_a_history_without_payments_has_nothing_to_score(model: Path, tmp_path: Path) -> None:
    pq.write_table(TRANSACTION_SCHEMA.empty_table(), tmp_path / "none.parquet")
    done = ringwatch("rescore", "--model", model, "--transactions", tmp_path / "none.parquet", "--out", tmp_path / "o")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "no payment" in done.stderr


def test_a_cluster_that_is_gone_is_said_at_once(
    model: Path, payments: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    for words in (
        ("rescore", "--model", model, "--transactions", payments, "--out", tmp_path / "o"),
        ("serve", "--model", model, "--insecure", "--journal", tmp_path / "journal.sqlite"),
    ):
        done = ringwatch(*words)
        assert done.returncode == 2
        assert f"RAY_ADDRESS is 127.0.0.1:{port}, and no Ray cluster answers there" in done.stderr


def test_long_work_says_how_far_it_is_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("serve.terminal.time.monotonic", lambda: now[0])
    lines = _Lines()
    for second in range(13):
        now[0] = 100.0 + second
        lines("reading", second / 13)
    now[0] = 116.0
    lines("scoring", 0.0)
    now[0] = 122.0
    lines("scoring · 9 payments/s", 0.5)  # a rate beside a stage begins no other stage
    said = [line for line in capsys.readouterr().err.splitlines() if line]
    assert said == [
        "reading: 38 % after 5 s, about 8 s left",
        "reading: 77 % after 10 s, about 3 s left",
        "scoring: 0 % after 0 s",
        "scoring · 9 payments/s: 50 % after 6 s, about 6 s left",
    ]
