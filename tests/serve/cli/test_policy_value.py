"""`ringwatch policy value`: estimates from a log in a file, and logs that it refuses by the column."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from serve.cli.main import app

RNG = np.random.default_rng(0)
TAKEN = RNG.integers(0, 2, 1_000)
COLUMNS = {
    "action": np.array(["card", "bank"])[TAKEN],
    "propensity": np.full(1_000, 0.5),
    "reward": 1.0 + TAKEN,
    "target.card": np.zeros(1_000),
    "target.bank": np.ones(1_000),
}


def run(tmp_path: Path, columns: dict[str, object], *words: str) -> tuple[int, str]:
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    done = CliRunner().invoke(app, ["policy", "value", str(tmp_path / "log.parquet"), *words])
    return done.exit_code, done.output


def test_values_and_intervals_are_shown_for_people_and_as_json(tmp_path: Path) -> None:
    status, said = run(tmp_path, COLUMNS)
    assert status == 0
    assert "snips" in said
    assert "1,000 payments" in said
    status, said = run(tmp_path, COLUMNS, "--json")
    found = json.loads(said)
    assert found["actions"] == ["card", "bank"]
    assert [one["method"] for one in found["values"]] == ["ips", "snips"]
    assert found["values"][1]["value"] == pytest.approx(2.0)
    assert found["logged"] == pytest.approx(COLUMNS["reward"].mean())


def test_a_model_in_the_log_adds_the_methods_that_need_one(tmp_path: Path) -> None:
    model = {"model.card": np.ones(1_000), "model.bank": np.full(1_000, 2.0)}
    _, said = run(tmp_path, COLUMNS | model, "--json")
    assert [one["method"] for one in json.loads(said)["values"]][2:] == ["direct", "doubly_robust", "switch"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"propensity": None}, "the column propensity is missing"),
        ({"target.card": None}, "action is 'card' in a row"),
        ({"target.card": None, "target.bank": None}, "no column begins with 'target.'"),
        ({"reward": ["much"] * 1_000}, "reward is string: give numbers"),
        ({"reward": [None] * 1_000}, "reward is null"),
        ({"propensity": np.zeros(1_000)}, "propensity must be above 0"),
        ({"model.card": np.ones(1_000)}, "the column model.bank is missing"),
    ],
)
def test_a_log_of_no_use_is_refused_by_its_column(tmp_path: Path, change: dict[str, object], says: str) -> None:
    columns = {name: values for name, values in (COLUMNS | change).items() if values is not None}
    status, said = run(tmp_path, columns)
    assert status == 2
    assert says in " ".join(said.split())


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (file := tmp_path / "log.csv").write_text("action\ncard\n")
    done = CliRunner().invoke(app, ["policy", "value", str(file)])
    assert done.exit_code == 2
    assert "is no Parquet file" in " ".join(done.output.split())
