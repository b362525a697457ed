"""`ringwatch account`."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from data.journal.protocol import SCHEMAS, Kind
from data.journal.sqlite import SqliteJournal
from serve.cli.main import app
from tests.world import UTC_US, transactions


def payments() -> pa.RecordBatch:
    """Six months of a subscription at a shop, and of a salary."""
    rows = [(f"s{m}", datetime(2026, m, 12, 9, tzinfo=UTC), "anna", "films", None, 1_299) for m in range(1, 7)]
    rows += [(f"w{m}", datetime(2026, m, 27, 9, tzinfo=UTC), "works", "bank", "anna", 250_000) for m in range(1, 7)]
    rows.sort(key=lambda row: row[1])
    columns = list(zip(*rows, strict=True))
    return transactions(
        {
            "transaction_id": pa.array(columns[0]),
            "timestamp": pa.array(columns[1]).cast(UTC_US),
            "account_id": pa.array(columns[2]),
            "merchant_id": pa.array(columns[3]),
            "payee_id": pa.array(columns[4], pa.string()),
            "amount": pa.array(columns[5]),
            "currency": pa.array(["EUR"] * len(rows)),
        }
    )


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    member = {"role": "merchant", "name": "films", "member_role": "hub"}
    ring = {"ring_id": "K-7", "version": 1, "state": "active", "confidence": 0.93, "members": [member], "at": 0}
    with SqliteJournal(tmp_path / "journal.sqlite") as held, held.begin() as commit:
        commit.append(Kind.TRANSACTION, payments())
        commit.append(Kind.RING, pa.RecordBatch.from_pylist([ring], schema=SCHEMAS[Kind.RING]))
    return tmp_path / "journal.sqlite"


def test_an_account_is_shown_with_its_contracts_and_what_to_tell_its_owner(journal: Path) -> None:
    shown = CliRunner().invoke(app, ["account", "anna", "--journal", str(journal)])
    assert shown.exit_code == 0, shown.output
    for words in ("merchant films", "12.99 EUR", "2026-07-12", "account works", "ring K-7", "Next payment"):
        assert words in " ".join(shown.output.split())


def test_json_has_profile_and_guidance(journal: Path) -> None:
    shown = CliRunner().invoke(app, ["account", "anna", "--journal", str(journal), "--balance", "EUR:100", "--json"])
    found = json.loads(shown.stdout)
    assert [one["name"] for one in found["profile"]["recurring"]] == ["films"]
    assert {one["kind"]: one["ring_id"] for one in found["guidance"]["advice"]} == {
        "ring": "K-7",
        "upcoming_bills": None,
        "shortfall": None,
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["nobody"], "no payment of account 'nobody'"), (["anna", "--balance", "12"], "--balance: must be a currency")],
)
def test_what_cannot_be_shown_is_refused_in_one_line(journal: Path, arguments: list[str], words: str) -> None:
    shown = CliRunner().invoke(app, ["account", *arguments, "--journal", str(journal)])
    assert (shown.exit_code, words in shown.output) == (2, True), shown.output
