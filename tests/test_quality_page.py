"""The pages of the benchmarks: intervals, goals that were missed, the table that opens, and today's texts."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks import report
from benchmarks.quality import ablation, about, contest, histories, oracle, page, prequential, summary
from benchmarks.quality.about import ABOUT
from benchmarks.quality.contest import OURS


def test_an_interval_is_students_and_one_seed_has_none() -> None:
    values = [0.71, 0.74, 0.72, 0.75]
    found = summary.interval(values)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert (found["low"], found["high"]) == (pytest.approx(low), pytest.approx(high))
    assert "low" not in summary.interval([0.7])


def test_the_page_tells_what_was_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    measured = {OURS: {"average_precision": [0.7, 0.72]}, "trees": {"average_precision": [0.65, 0.66]}}
    figures = summary.figures_of(measured, {"average_precision": 0.74})
    assert figures["average_precision"].peer == {"trees": pytest.approx(0.655)}
    assert figures["average_precision"].met is False
    summary.put("handbook", "What it is.", figures, {"": measured})
    content = json.loads((tmp_path / "quality_handbook.json").read_text())
    assert content["figures"]["average_precision"]["goal"] == 0.74
    assert content["seeds"] == 2
    assert {"machine", "command", "commit"} <= set(content)
    page.rebuild(tmp_path, tmp_path / "quality.md")
    text = (tmp_path / "quality.md").read_text()
    assert "| AP | 0.7100 | >= 0.74 | **no** |" in text
    assert text.index("**ringwatch**") < text.index("| trees |")


def test_the_page_opens_with_ours_beside_the_best_rival_and_the_limit_of_each_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    table = {
        OURS: {"average_precision": [0.70, 0.72]},
        contest.MEAN: {"average_precision": [0.99]},  # our own, and so no rival
        oracle.LIMIT: {"average_precision": [0.98]},
        "trees": {"average_precision": [0.65]},
        "rules": {"average_precision": [0.66]},
    }
    summary.put("handbook", "What it is.", {}, {"": table})
    summary.put("amlsim", "What it is.", {}, {"": {OURS: table[OURS], "trees": table["trees"]}})
    page.rebuild(tmp_path, tmp_path / "quality.md")
    text = (tmp_path / "quality.md").read_text()
    book, amlsim = text.splitlines()[4:6]
    made = json.loads((tmp_path / "quality_handbook.json").read_text())
    assert [cell.split(" (")[0].strip() for cell in book.split("|")[2:-1]] == [
        *("AP", "0.7100", "0.6600, rules", "0.9800", f"{made['commit']}, {made['date'][:10]}")
    ]
    assert "no network" in amlsim
    assert "**two rounds of trees, no network**" in text.split("## amlsim")[1]
    assert (tmp_path / "quality.png").stat().st_size > 1000


def test_the_pages_are_those_that_the_results_and_todays_texts_give(tmp_path: Path) -> None:
    texts = {
        **ABOUT,
        "prequential": about.prequential(prequential.WEEKS, prequential.FIRST.date(), 1),
        "world": about.world(len(histories.TEACHING), len(histories.JUDGING)),
        "ablation": about.ablation(ablation.WORLDS),
    }
    results = {path.stem.removeprefix("quality_"): path for path in report.RESULTS.glob("quality_*.json")}
    assert {name: json.loads(path.read_text())["about"] for name, path in results.items()} == texts
    page.rebuild(page=tmp_path / "quality.md")
    assert (tmp_path / "quality.md").read_text() == page.PAGE.read_text()
    report.rebuild(tmp_path / "benchmarks.md")
    assert (tmp_path / "benchmarks.md").read_text() == report.TABLE.read_text()
