"""Re-scoring on Ray gives the scores that the service gave; the command line says what is wrong in one line."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.journal import Kind, SqliteJournal
from gnn.artifact import untrained
from gnn.replay import open_model, score_events
from tests.world import label_batch, payment_batch

ROOT = Path(__file__).parents[2]


def ringwatch(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serve", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)


@pytest.mark.ray
def test_rescore_equals_the_service_on_a_journal_and_on_files(tmp_path):
    untrained(("account", "merchant", "device"), neighbours=6).save(tmp_path / "model")
    from gnn.artifact import load

    payments = payment_batch(5000, seed=2)
    labels = label_batch(payments, np.arange(0, 3000, 7), np.arange(0, 3000, 7) % 2 == 0, delay_us=3_600_000_000)
    pq.write_table(pa.Table.from_batches([payments]), tmp_path / "t.parquet")
    pq.write_table(pa.Table.from_batches([labels]), tmp_path / "l.parquet")
    from data.sources import merged

    with SqliteJournal(tmp_path / "j.sqlite") as journal:
        for kind, batch in merged(tmp_path / "t.parquet", tmp_path / "l.parquet"):
            with journal.begin() as commit:
                commit.append(kind, batch)
        state, scorer = open_model(load(tmp_path / "model"))
        online = np.concatenate([s.probability for s in score_events(state, scorer, journal.replay(chunk=100))])
        assert {e.kind for e in journal.replay()} == {Kind.TRANSACTION, Kind.LABEL}
    sources = (
        ["--journal", tmp_path / "j.sqlite"],
        ["--transactions", tmp_path / "t.parquet", "--labels", tmp_path / "l.parquet"],
    )
    for source in sources:
        done = ringwatch("rescore", "--model", tmp_path / "model", "--out", tmp_path / "out", *source, "--actors", "2")
        assert done.returncode == 0, done.stderr
        scores = pq.read_table(tmp_path / "out" / "scores.parquet")
        assert scores["transaction_id"].to_pylist() == payments.column("transaction_id").to_pylist()
        np.testing.assert_allclose(scores["fraud_probability"].to_numpy(), online, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["evaluate", "--model", "nowhere", "--transactions", "t.parquet", "--labels", "l.parquet"],
            "no readable model",
        ),
        (["train", "--transactions", "nowhere.parquet", "--labels", "l.csv", "--out", "x"], "l.csv"),
        (["rescore", "--model", "m", "--out", "x"], "either --transactions or --journal"),
        (["serve", "--model", "m"], "RINGWATCH_API_KEYS"),
        (["demo", "--from", "yesterday"], "ISO 8601"),
    ],
)
def test_bad_input_is_one_clear_line_and_status_2(words, said):
    done = ringwatch(*words)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command", ["simulate", "dataset", "train", "evaluate", "serve", "ingest", "rescore", "rings", "demo"]
)
def test_every_command_has_help_with_an_example(command):
    done = ringwatch(command, "--help")
    assert done.returncode == 0
    assert f"ringwatch {command}" in done.stdout
