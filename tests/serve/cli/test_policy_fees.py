"""`ringwatch policy fees`: who pays what, against what it loses; and what it needs."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from serve.cli.main import app

POLICY = "policy: p\notherwise:\n  probability: {challenge: 5%, review: 20%, decline: 60%}\npricing:\n"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    n = 40
    ids = [f"t{i}" for i in range(n)]
    payments = {
        "transaction_id": ids,
        "timestamp": [NOON] * n,
        "account_id": ["a"] * n,
        "merchant_id": ["m"] * n,
        "amount": [10_000] * n,
        "currency": ["EUR"] * n,
        "country": ["DE", "FR"] * (n // 2),
    }
    pq.write_table(pa.table(payments), tmp_path / "t.parquet")
    (tmp_path / "scores" / "date=2026-03-01").mkdir(parents=True)
    scores = {"transaction_id": ids[::-1], "fraud_probability": [0.2, 0.001] * (n // 2)}  # FR first: it is t39
    pq.write_table(pa.table(scores), tmp_path / "scores" / "date=2026-03-01" / "part.parquet")
    labels = {"transaction_id": ["t0"], "is_fraud": [True], "reported_at": [NOON]}
    pq.write_table(pa.table(labels), tmp_path / "l.parquet")
    (tmp_path / "p.yaml").write_text(POLICY)
    return tmp_path


def run(folder: Path, *words: str, policy: str = "p.yaml") -> tuple[int, str]:
    files = [folder / policy, "--transactions", folder / "t.parquet", "--scores", folder / "scores", *words]
    done = CliRunner().invoke(app, ["policy", "fees", *map(str, files)])
    return done.exit_code, " ".join(done.output.split())


def test_a_risky_country_is_held_at_the_cap_and_so_pays_less_for_its_loss(folder: Path) -> None:
    status, said = run(folder, "--labels", str(folder / "l.parquet"), "--json")
    assert status == 0, said
    found = {one["segment"]: one for one in json.loads(said)}
    assert found["FR"]["mean_bps"] == 300
    assert found["DE"]["mean_bps"] == pytest.approx(32)
    assert found["FR"]["against_expected"] < 1 < found["DE"]["against_expected"]
    assert (found["DE"]["lost"], found["FR"]["lost"]) == (12_000, 0)
    status, said = run(folder, "--by", "amount")
    assert status == 0
    assert "50 to 200" in said


def test_what_is_missing_is_named_with_the_way_out(folder: Path) -> None:
    (folder / "none.yaml").write_text(POLICY.replace("pricing:\n", ""))
    assert "prices nothing: add a section" in run(folder, policy="none.yaml")[1]
    assert "must be one of country" in run(folder, "--by", "region")[1]
    assert "no such file" in run(folder, "--labels", str(folder / "other.parquet"))[1]
    scores = folder / "scores" / "date=2026-03-01" / "part.parquet"
    pq.write_table(pq.read_table(scores).slice(3), scores)
    status, said = run(folder)
    assert status == 2
    assert "has no score of 3 payments" in said
