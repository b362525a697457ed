"""The command line: each command has an example in its help, and says what is wrong in one line."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from data.history import History
from data.journal.protocol import Kind
from data.journal.sqlite import SqliteJournal
from gnn.errors import ModelError
from gnn.model.artifact import untrained
from gnn.score.devices import choose_precision
from serve.cli.main import app
from tests.documents import commands
from tests.graph.history import HOUR_US, sharing

ROOT = Path(__file__).parents[3]
TRAIN = ["train", "--transactions", "t.parquet", "--labels", "l.csv", "--out", "x"]


def ringwatch(*words: str | int | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serve", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["evaluate", "--model", "nowhere", "--transactions", "t.parquet", "--labels", "l.parquet"],
            "no readable model",
        ),
        (["train", "--transactions", "nowhere.parquet", "--labels", "l.csv", "--out", "x"], "nowhere.parquet"),
        (["train", "--transactions", "t.parquet", "--out", "x"], "--labels is missing; or name a column"),
        (["train", "--out", "x"], "either --transactions or --journal"),
        (["audit", "--labels", "l.csv"], "--labels needs --transactions"),
        ([*TRAIN, "--journal", "j"], "either --transactions or --journal"),
        (["train", "--journal", "nowhere", "--out", "x"], "no journal at nowhere"),
        (["train", "--journal", "pyproject.toml", "--out", "x"], "pyproject.toml is not a journal"),
        ([*TRAIN, "--precision", "fp8"], "--precision must be float32 or bf16, not 'fp8'"),
        ([*TRAIN, "--cache", "int4"], "--cache must be one of float32, float16, int8, not 'int4'"),
        (["rescore", "--model", "m", "--out", "x"], "either --transactions or --journal"),
        (["serve", "--model", "m"], "RINGWATCH_API_KEYS"),
        (["serve", "--model", "m", "--insecure", "--device", "tpu"], "auto, cpu or cuda"),
        (["demo", "--from", "yesterday"], "ISO 8601"),
        (["dataset", "mnist", "--source", "x", "--out", "x"], "handbook, s-ffsd"),
        (["ingest", "--transactions", "nowhere.parquet"], "nowhere.parquet"),
        (["ingest", "--labels", "nowhere.parquet"], "nowhere.parquet"),
        (["ingest", "--labels", "l.parquet", "--journal", "j"], "--labels needs --transactions"),
        (["ingest"], "either --transactions or --journal"),
        (["rings", "--model", "nowhere", "--journal", "j"], "no readable model"),
        (["capacity", "--transactions", "inf", "--accounts", "1"], "finite"),
        (["capacity", "--transactions", "3e9", "--accounts", "1"], "fewer than"),
        (["capacity", "--window-rows", "1e9", "--accounts", "1"], "fewer than"),
    ],
)
def test_bad_input_is_one_clear_line_and_status_2(words, said):
    done = ringwatch(*words)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_serve_says_at_once_what_keeps_it_from_serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGWATCH_API_KEYS", "key")
    untrained(("account",)).save(tmp_path / "model")
    (tmp_path / "text").write_text("no journal\n" * 100)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for words, said in (
            (["--model", "nowhere"], "no readable model in nowhere"),
            (["--model", tmp_path / "model", "--journal", tmp_path / "text"], "cannot open the journal"),
            (["--model", tmp_path / "model", "--journal", tmp_path / "j", "--port", port], "Address already in use"),
            (["--model", tmp_path / "model", "--journal", tmp_path / "j", "--host", "192.0.2.1"], "cannot listen on"),
        ):
            done = ringwatch("serve", *words)
            assert done.returncode == 2, done.stderr
            assert said in done.stderr
            assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_wrong_options_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    for words, wrong in (
        (["simulate"], "--out"),
        (["simulate", "--out", "x", "--transactions", "1"], "--transactions"),
        (["serve", "--model", "m", "--port", "x"], "--port"),
        (["dance"], "dance"),
    ):
        with pytest.raises(SystemExit) as left:
            app(words)
        assert left.value.code == 2
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert last.startswith("Error: ")
        assert wrong in last


COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        app([command, "--help"])
    assert left.value.code == 0
    assert f"Example: ringwatch {command}" in capsys.readouterr().out


def test_the_readme_shows_every_command() -> None:
    shown = {command.words[1] for command in commands(ROOT / "README.md") if command.words[0] == "ringwatch"}
    assert shown == {*COMMANDS, *(group.name for group in app.registered_groups)}


def test_train_takes_a_precision_and_a_cache(tmp_path, monkeypatch, capsys):
    """On the CPU too; the words of the command line come to the training and into the model's manifest."""
    events = list(sharing(4, 1500, most=100, labels=0.8, gap_us=HOUR_US // 2))
    for kind, name in ((Kind.TRANSACTION, "t.parquet"), (Kind.LABEL, "l.parquet")):
        pq.write_table(pa.Table.from_batches([e.batch for e in events if e.kind is kind]), tmp_path / name)
    words = ["train", "--transactions", "t.parquet", "--labels", "l.parquet", "--out", "m", "--epochs", "1"]
    monkeypatch.chdir(tmp_path)
    app([*words, "--test", "0", "--precision", "bf16", "--cache", "float16"], standalone_mode=False)
    manifest = json.loads((tmp_path / "m" / "manifest.json").read_text())
    assert manifest["training"]["config"]["precision"] == "bf16"
    assert manifest["config"]["cache"] == "float16"
    assert manifest["version"].endswith("-float16")


def test_commands_read_files_folders_and_journals_alike(tmp_path, capsys):
    events = list(sharing(4, 1500, most=100, labels=0.8, gap_us=HOUR_US // 2))
    for kind, name in ((Kind.TRANSACTION, "transactions.parquet"), (Kind.LABEL, "labels.parquet")):
        pq.write_table(pa.Table.from_batches([e.batch for e in events if e.kind is kind]), tmp_path / name)
    with SqliteJournal(tmp_path / "journal") as journal:
        for kind, batch in History.read(tmp_path).runs():
            with journal.begin() as commit:
                commit.append(kind, batch)
    files = ["--transactions", str(tmp_path / "transactions.parquet"), "--labels", str(tmp_path / "labels.parquet")]
    said = []
    for number, source in enumerate(
        (files, ["--transactions", str(tmp_path)], ["--journal", str(tmp_path / "journal")])
    ):
        model = str(tmp_path / f"model{number}")
        words = ["--epochs", "1", "--test", "0", "--pretraining", "0", "--no-refit"]
        app(["train", *source, "--out", model, *words], standalone_mode=False)
        app(["rings", "--ties", *source, "--model", model], standalone_mode=False)
        said.append(capsys.readouterr().out.replace(model, "model"))
    assert "riskiest rings" in said[0]
    assert said[0] == said[1] == said[2]


@pytest.mark.parametrize("source", ["files", "journal"])
def test_rings_are_listed_as_of_the_last_event(tmp_path, capsys, source):
    """Four known frauds, and a label of another payment 150 days later: by then nothing ties anybody."""
    untrained(("account", "merchant", "device")).save(tmp_path / "model")
    names = "transaction_id,timestamp,account_id,merchant_id,device_id,amount,currency"
    rows = [f"t{i},2026-01-01T00:00:0{i}Z,a{i % 5},m1,{'own' if i == 9 else 'shared'},100,EUR" for i in range(10)]
    (tmp_path / "t.csv").write_text("\n".join([names, *rows]) + "\n")
    labels = ["transaction_id,is_fraud,reported_at", *(f"t{i},1,2026-01-02" for i in range(4))]
    for late, listed in (("2026-01-30", True), ("2026-05-31", False)):
        (tmp_path / "l.csv").write_text("\n".join([*labels, f"t9,0,{late}"]) + "\n")
        words = ["--transactions", str(tmp_path / "t.csv"), "--labels", str(tmp_path / "l.csv")]
        if source == "journal":
            path = tmp_path / f"{late}.journal"
            with SqliteJournal(path) as journal:
                for kind, batch in History.read(tmp_path / "t.csv", tmp_path / "l.csv").runs():
                    with journal.begin() as commit:
                        commit.append(kind, batch)
            words = ["--journal", str(path)]
        drawn = tmp_path / f"{late}.drawn"
        words = ["--ties", *words, "--model", str(tmp_path / "model"), "--draw", str(drawn)]
        app(["rings", *words], standalone_mode=False)
        assert ("R-2" in capsys.readouterr().out) is listed
        assert [path.name for path in drawn.iterdir()] == (["R-2.png"] if listed else [])


def test_bf16_is_refused_where_the_card_has_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "an old card")
    with pytest.raises(ModelError, match="an old card has no bf16"):
        choose_precision("bf16", "cuda")
    assert choose_precision("bf16", "cpu") == "bf16"


def test_rings_of_a_file_tell_how_many_rows_were_refused(tmp_path):
    untrained(("account", "merchant", "device")).save(tmp_path / "model")
    file = tmp_path / "t.csv"
    rows = [f"t{i},2026-01-01T00:00:0{i}Z,a{i},m1,d1,{100 if i else -5},EUR" for i in range(5)]
    names = "transaction_id,timestamp,account_id,merchant_id,device_id,amount,currency"
    file.write_text("\n".join([names, *rows]) + "\n")
    words = ("rings", "--model", tmp_path / "model", "--transactions", file)
    done = ringwatch(*words, "--max-refused", 0.2)
    assert done.returncode == 0, done.stderr
    assert "row 0: amount" in done.stdout + done.stderr
    assert "1 row" in done.stdout + done.stderr
    done = ringwatch(*words)
    assert done.returncode == 2
    assert "1 of 5 rows refused (20.0%), more than 1.0%" in done.stderr
    assert ringwatch(*words, "--strict").returncode == 2
