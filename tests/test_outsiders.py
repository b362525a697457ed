"""Histories as other people have them, through the command line: a model and its figures, or one clear line."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from gnn.quality import audit
from gnn.rivals import comparison
from gnn.train import head
from gnn.train.boosted_trees import BoostingConfig, Setting
from serve.cli.main import app
from tests.odd_histories import HOPELESS, ORDINARY

FEW_TREES = (Setting(leaves=7, rows=20),)
QUICK = ("--epochs", "1", "--pretraining", "0", "--neighbours", "4")
HARDLY_ANY = {"200 payments with 5 frauds"}


@pytest.fixture(autouse=True)
def _few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = partial(BoostingConfig, settings=FEW_TREES, trees=10, step=5, neighbours=4)
    monkeypatch.setattr(comparison, "BoostingConfig", quick)
    monkeypatch.setattr(audit, "TREES", replace(audit.TREES, settings=FEW_TREES, trees=10, step=5))
    for name in ("STACKED_TREES", "PLAIN_TREES"):
        monkeypatch.setattr(head, name, replace(getattr(head, name), trees=10, step=5))


def ringwatch(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    """Exit status, stdout and stderr; an error that is no plain line leaves the test."""
    with pytest.raises(SystemExit) as left:
        app([str(word) for word in words])
    told = capsys.readouterr()
    assert isinstance(left.value.code, int)
    return left.value.code, told.out, told.err


@pytest.mark.parametrize("name", ORDINARY)
def test_a_model_its_rivals_its_card_and_its_audit(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--transactions", ORDINARY[name].write(tmp_path / "history"))
    status, _, said = ringwatch(capsys, "train", *given, "--out", tmp_path / "model", *QUICK)
    assert status == 0, said
    training = json.loads((tmp_path / "model" / "manifest.json").read_text())["training"]
    assert training["validation"]["frauds"] > 0
    judged = ("--model", tmp_path / "model", *given, "--from", training["test"]["from"])
    status, told, said = ringwatch(capsys, "evaluate", *judged, "--against")
    if name in HARDLY_ANY:  # its test may hold none
        assert status == 0 or "choose others with --from and --until" in said
        judged = judged[:-2]
    else:
        assert status == 0, said
        assert "trees: raw history" in told
        assert "trees: forty columns" in told
    status, _, said = ringwatch(capsys, "card", *judged, "--out", tmp_path / "CARD.md")
    assert status == 0, said
    assert " nan" not in (tmp_path / "CARD.md").read_text()
    status, told, said = ringwatch(capsys, "audit", *given)
    if name in HARDLY_ANY:
        assert status in (0, 2)
        assert status == 0 or "--test-from" in said
    else:
        assert (status, "nothing from the future reaches the scores" in told) == (0, True), told + said


def test_few_frauds_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--transactions", ORDINARY["200 payments with 5 frauds"].write(tmp_path))
    _, _, said = ringwatch(capsys, "train", *given, "--out", tmp_path / "model", *QUICK)
    assert "only 1 known fraud in the validation window" in said
    assert "in the test window" in said
    words = ("--model", tmp_path / "model", *given)
    _, _, said = ringwatch(capsys, "evaluate", *words)
    assert "known frauds here" in said
    assert "these figures are too good (use --from)" in said
    _, _, said = ringwatch(capsys, "card", *words, "--out", tmp_path / "CARD.md")
    assert "too few frauds for an interval" in (tmp_path / "CARD.md").read_text()


@pytest.mark.parametrize("name", HOPELESS)
def test_one_line_with_what_helps(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd, help_ = HOPELESS[name]
    given = ("--transactions", odd.write(tmp_path))
    weekly = ("prequential", *given, "--first", "2026-03-01", "--weeks", "1", "--epochs", "1")
    for words in (("train", *given, "--out", tmp_path / "model", *QUICK), ("audit", *given), weekly):
        status, _, said = ringwatch(capsys, *words)
        assert status == 2
        assert len(said.strip().splitlines()) == 1
    status, _, said = ringwatch(capsys, "train", *given, "--out", tmp_path / "model", *QUICK)
    assert help_ in said


@pytest.mark.parametrize("name", ["200 payments with 5 frauds", "one merchant"])
def test_week_by_week_there_are_figures_or_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--transactions", ORDINARY[name].write(tmp_path))
    words = ("prequential", *given, "--first", "2026-03-01", "--weeks", "1", "--epochs", "1")
    status, told, said = ringwatch(capsys, *words)
    assert status in (0, 2)
    assert "AP" in told if status == 0 else len(said.strip().splitlines()) == 1, told + said
