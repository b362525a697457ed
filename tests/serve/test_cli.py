"""The command line: each command has an example in its help, and says what is wrong in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def ringwatch(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serve", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)


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
