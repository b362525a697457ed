"""`ringwatch rings`: every risk ring that ever stood, for people, for programs and as files."""

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gnn.model.artifact import untrained
from graph.rings.picture.bundle import made_of
from serve.batch.risk_rings import MEMBERS_SCHEMA, RINGS_SCHEMA
from tests.serve.cli.test_cli import ringwatch


@pytest.fixture
def files(tmp_path: Path) -> list[Path | str]:
    """Four accounts with one phone, all reported as fraud the next day, an honest payment after it, and a model."""
    untrained(("account", "merchant", "device")).save(tmp_path / "model")
    names = "transaction_id,timestamp,account_id,merchant_id,device_id,amount,currency"
    rows = [f"t{i},2026-01-01T0{i}:00:00Z,a{i},m{i},phone,100,{'EUR' if i else 'PLN'}" for i in range(4)]
    rows.append("t9,2026-01-05T00:00:00Z,z,m9,other,100,EUR")
    (tmp_path / "t.csv").write_text("\n".join([names, *rows]) + "\n")
    labels = ["transaction_id,is_fraud,reported_at", *(f"t{i},1,2026-01-02T0{i}:00:00Z" for i in range(4))]
    (tmp_path / "l.csv").write_text("\n".join(labels) + "\n")
    return ["--model", tmp_path / "model", "--transactions", tmp_path / "t.csv", "--labels", tmp_path / "l.csv"]


def test_rings_that_ever_stood_are_written_with_members_and_money_by_currency(
    files: list[Path | str], tmp_path: Path
) -> None:
    done = ringwatch("rings", *files, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "300" not in done.stdout  # euros and zlotys are not added
    rings, members = (pq.read_table(tmp_path / "out" / f"{name}.parquet") for name in ("rings", "members"))
    assert rings.schema.equals(RINGS_SCHEMA)
    assert members.schema.equals(MEMBERS_SCHEMA)
    (ring,) = rings.to_pylist()
    assert ring["money_tried"] == [{"currency": "EUR", "amount": 300}, {"currency": "PLN", "amount": 100}]
    assert ring["money_lost"] == ring["money_tried"]
    assert ring["known_frauds"] == 4
    assert ring["named_at"] is not None
    assert [m["entity_id"] for m in members.to_pylist()] == ["a0", "a1", "a2", "a3", "phone"]
    assert {m["member_role"] for m in members.to_pylist()} == {"first account", "account", "hub"}


def test_rings_come_as_json_and_csv(files: list[Path | str]) -> None:
    (found,) = json.loads(ringwatch("rings", *files, "--json").stdout)
    assert found["accounts"] == ["a0", "a1", "a2", "a3"]
    assert found["first_seen"].startswith("2026-01-02T")
    assert "4 payments of these accounts were reported as fraud" in found["reasons"]
    (row,) = csv.DictReader(io.StringIO(ringwatch("rings", *files, "--csv").stdout))
    assert (row["ring_id"], row["money_tried"]) == (found["ring_id"], "EUR:300 PLN:100")


def test_a_history_without_risk_has_no_rings_and_says_so(files: list[Path | str], tmp_path: Path) -> None:
    done = ringwatch("rings", *files[:4], "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "0 of 0 risk rings" in done.stdout
    assert len(pq.read_table(tmp_path / "out" / "rings.parquet")) == 0


@pytest.mark.skipif(made_of() is None, reason="the pictures' JavaScript was not built: make picture")
def test_each_ring_that_is_shown_is_drawn_as_a_page(files: list[Path | str], tmp_path: Path) -> None:
    done = ringwatch("rings", *files, "--draw", tmp_path / "drawn")
    assert done.returncode == 0, done.stderr
    (page,) = (tmp_path / "drawn").iterdir()
    assert str(page) in done.stdout.replace("\n", "")
    assert page.name.startswith("K-")
    assert all(name in page.read_text() for name in ("a0", "a3", "phone", "4 payments of these accounts"))


def test_ties_have_no_files_of_rings(files: list[Path | str]) -> None:
    done = ringwatch("rings", *files, "--ties", "--out", "o")
    assert done.returncode == 2
    assert "--ties" in done.stderr


def test_the_columns_of_files_do_not_change_unseen() -> None:
    assert RINGS_SCHEMA.names[:4] == ["ring_id", "state", "first_seen", "named_at"]
    assert RINGS_SCHEMA.field("money_tried").type == pa.list_(
        pa.struct([("currency", pa.string()), ("amount", pa.int64())])
    )
