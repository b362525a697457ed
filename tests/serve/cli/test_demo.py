"""The whole of it by one command on a user's own files, whatever their order and types."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from data.world.synthetic import WorldConfig, simulate
from gnn.errors import ModelError
from serve.cli.demo import DemoConfig, run_demo
from serve.errors import ServeError
from tests.serve.cli.test_cli import ringwatch


@pytest.mark.ray
def test_demo_on_own_files(tmp_path: Path) -> None:
    world = simulate(WorldConfig(transactions=3_000, seed=3, days=40))
    own = world.transactions
    number = pc.replace_substring_regex(own["account_id"], r"\D", "").cast(pa.int64())
    times = own["timestamp"].cast(pa.timestamp("ms"), safe=False)
    own = own.set_column(2, "account_id", number).set_column(1, "timestamp", times)
    own = own.append_column("note", pa.nulls(len(own), pa.string()))
    own = own.set_column(3, "merchant_id", own["merchant_id"].dictionary_encode())
    at = own.schema.get_field_index("amount")
    bad = own.slice(0, 1).set_column(at, own.schema.field(at), pa.array([-5]))
    own = pa.concat_tables([own, bad]).take(np.random.default_rng(0).permutation(len(own) + 1))
    pq.write_table(own, tmp_path / "own.parquet")
    pa_csv.write_csv(world.labels, tmp_path / "labels.csv")

    files = ["--transactions", tmp_path / "own.parquet", "--labels", tmp_path / "labels.csv"]
    done = ringwatch("demo", *files, "--epochs", "1", "--out", tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    assert "1 row refused" in done.stderr
    assert "-5 is negative" in done.stderr
    for said in (
        "frauds held",
        "fraud money held",
        "honest payments held",
        "p50",
        "p99",
        "risk rings, those that stand first",
    ):
        assert said in done.stdout
    answers = pq.read_table(tmp_path / "demo" / "answers.parquet")
    assert answers["transaction_id"].to_pylist() == world.transactions["transaction_id"].to_pylist()
    pictures = list((tmp_path / "demo" / "rings").glob("K-*.html"))
    assert pictures or "make picture" in done.stderr
    assert not pictures or any(str(picture) in done.stdout for picture in pictures)
    assert f"ringwatch investigate --model {tmp_path / 'demo' / 'model'}" in done.stdout


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"start": datetime(2031, 1, 1, tzinfo=UTC)}, "nothing to send"),
        ({"start": datetime(2001, 1, 1, tzinfo=UTC)}, "nothing to train on"),
        ({"start": datetime(2026, 2, 1, tzinfo=UTC), "train_until": datetime(2026, 2, 2, tzinfo=UTC)}, "--train-until"),
        ({"protocol": "book"}, "--protocol must be one of"),
    ],
)
def test_what_cannot_work_is_said_before_training(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    simulate(WorldConfig(transactions=2_000, seed=3, days=40)).write(tmp_path)
    files = {"transactions": tmp_path / "transactions.parquet", "labels": tmp_path / "labels.parquet"}
    with pytest.raises((ServeError, ModelError), match=said):
        run_demo(DemoConfig(out=tmp_path / "demo", **files, **given))
    assert not (tmp_path / "demo" / "model").exists()
