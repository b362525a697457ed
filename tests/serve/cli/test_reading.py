"""Files as people have them, through the command line: read with what is named, or refused with what to do."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from data.history import History
from data.journal.protocol import Kind
from gnn.errors import ModelError
from serve.cli.main import app

HEADER = "transaction_id,timestamp,account_id,merchant_id,amount,currency\n"
LABELS = "transaction_id,is_fraud,reported_at\nt0,1,2020-01-09\n"


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The events that `train` would train on."""
    events: list[dict[str, Any]] = []

    def enough(history: History, *_: Any) -> None:
        for kind, batch in history.runs():
            events.extend({"kind": kind, **row} for row in batch.to_pylist())
        raise ModelError("enough")

    monkeypatch.setattr("gnn.train.trainer.train", enough)
    return events


def train(folder: Path, *words: Any) -> str:
    """What the command says; it never gets as far as a model."""
    found = CliRunner().invoke(app, ["train", "--out", str(folder / "model"), *map(str, words)])
    assert found.exit_code == 2, found.output
    assert "Traceback" not in found.output
    return " ".join(found.output.split())


def files(folder: Path, rows: list[str], labels: str = LABELS) -> list[Any]:
    (folder / "t.csv").write_text(HEADER + "".join(row + "\n" for row in rows))
    (folder / "l.csv").write_text(labels)
    return ["--transactions", folder / "t.csv", "--labels", folder / "l.csv"]


def rows(n: int, when: str = "2020-01-01T00:00:{:02}Z", amount: str = "5") -> list[str]:
    return [f"t{i},{when.format(i)},a,m,{amount},EUR" for i in range(n)]


def test_decimal_amounts_are_refused_as_a_whole_with_what_to_do(tmp_path: Path, taken: list[dict[str, Any]]) -> None:
    given = files(tmp_path, [*rows(3, amount="2826.00"), *rows(3, amount="12.34")])
    said = train(tmp_path, *given)
    assert "column amount: holds decimals, such as 2826.00" in said
    assert "--amount-unit major" in said
    assert not taken
    assert "enough" in train(tmp_path, *files(tmp_path, rows(3, amount="2826.00")), "--amount-unit", "major")
    assert [row["amount"] for row in taken if row["kind"] is Kind.TRANSACTION] == [282_600] * 3


@pytest.mark.parametrize(
    ("when", "amount", "hint"),
    [
        ("15778368{:02}", "5", "name the unit (--map timestamp=COLUMN:s)"),
        ("15/01/2020 12:{:02}", "5", "(--map timestamp=COLUMN:%d/%m/%Y)"),
        ("2020-01-01T00:00:{:02}Z", "€41.55", "leave out the currency sign"),
        ("2020-01-01T00:00:{:02}Z", '"41,55"', "--decimal-comma"),
    ],
)
def test_files_of_refused_rows_end_with_status_2_and_a_hint(
    tmp_path: Path, taken: list[dict[str, Any]], when: str, amount: str, hint: str
) -> None:
    said = train(tmp_path, *files(tmp_path, rows(20, when, amount)))
    assert "20 of 20 rows refused (100.0%), more than 1.0% (--max-refused)" in said
    assert hint in said
    assert not taken


def test_a_share_of_refused_rows_may_be_let_pass(tmp_path: Path, taken: list[dict[str, Any]]) -> None:
    given = files(tmp_path, [*rows(19), "t19,2020-01-01T00:00:19Z,a,m,-5,EUR"])
    assert "1 of 20 rows refused (5.0%), more than 1.0%" in train(tmp_path, *given)
    assert "more than 4.0%" in train(tmp_path, *given, "--max-refused", "0.04")
    assert "enough" in train(tmp_path, *given, "--max-refused", "0.05")
    assert "share from 0 to 1" in train(tmp_path, *given, "--max-refused", "5")


def test_several_files_a_folder_and_a_glob_give_the_same_events(tmp_path: Path, taken: list[dict[str, Any]]) -> None:
    _, _, _, labels = files(tmp_path, rows(1))
    (tmp_path / "days").mkdir()
    for day in (2, 10):
        text = HEADER + f"t{day},2020-01-{day:02},a,m,5,EUR\n"
        (tmp_path / f"days/day{day}.csv").write_text(text)
    days = tmp_path / "days"
    for given in (
        ["--transactions", days / "day2.csv", "--transactions", days / "day10.csv"],
        ["--transactions", days],
        ["--transactions", days / "*.csv"],
        ["--transactions", days.as_uri()],
    ):
        taken.clear()
        assert "enough" in train(tmp_path, *given, "--labels", labels, "--max-refused", 1)
        assert [row["transaction_id"] for row in taken] == ["t2", "t10"]


def test_a_public_file_is_mapped_on_the_command_line(tmp_path: Path, taken: list[dict[str, Any]]) -> None:
    (tmp_path / "raw.csv").write_text("TX_ID;TX_TIME;CUSTOMER;TX_AMOUNT;FRAUD\n7;1577836800;17;12,34;1\n")
    words = [
        "--transactions",
        tmp_path / "raw.csv",
        "--decimal-comma",
        "--default",
        "currency=EUR,merchant_id=transfer",
    ]
    words += [
        "--map",
        "transaction_id=TX_ID,timestamp=TX_TIME:s,account_id=CUSTOMER",
        "--map",
        "amount=TX_AMOUNT:major",
    ]
    assert "--labels is missing; or name a column" in train(tmp_path, *words)
    assert "needs --label-delay" in train(tmp_path, *words, "--label-column", "FRAUD")
    assert "enough" in train(tmp_path, *words, "--label-column", "FRAUD", "--label-delay", "7d")
    payment, label = taken
    assert (payment["amount"], payment["merchant_id"], payment["account_id"]) == (1234, "transfer", "17")
    assert (label["transaction_id"], label["is_fraud"], label["reported_at"].day) == ("7", True, 8)
    both = [*words, "--labels", tmp_path / "raw.csv", "--label-column", "FRAUD", "--label-delay", "7d"]
    assert "give --labels or --label-column, not both" in train(tmp_path, *both)


@pytest.mark.parametrize(
    "command", ["train", "evaluate", "ingest", "rescore", "rings", "audit", "card", "prequential", "demo"]
)
def test_every_command_that_reads_files_has_the_options_of_reading(command: str) -> None:
    said = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
    for option in ("--map", "--default", "--amount-unit", "--decimal-comma", "--label-column", "--max-refused"):
        assert option in said
