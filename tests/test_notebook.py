"""Notebooks are stored without output, fit a screen cell by cell, and run as they are."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from data.files.sources import merged
from data.journal.sqlite import SqliteJournal
from data.world.synthetic import WorldConfig, simulate
from tests.serve.cases.ringed import artifact

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"
SCREEN = 30  # lines
Run = Callable[[str], list[Any]]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make demo` leaves, smaller, and with a model that knows nothing: rings are found from reports alone."""
    folder = tmp_path_factory.mktemp("demo")
    simulate(WorldConfig(transactions=8000, seed=3, days=40)).write(folder / "world")
    with SqliteJournal(folder / "journal.sqlite") as journal:
        for kind, batch in merged(folder / "world/transactions.parquet", folder / "world/labels.parquet", chunk=2048):
            with journal.begin() as commit:
                commit.append(kind, batch)
    artifact().save(folder / "model")
    return folder


@pytest.fixture
def run(demo: Path, tmp_path: Path) -> Run:
    """Runs a notebook where it finds the demo's folder; gives its code cells."""

    def run(name: str) -> list[Any]:
        shutil.copytree(demo, tmp_path / "var/demo")
        (tmp_path / "notebooks").mkdir()
        (tmp_path / "docs").mkdir()
        shutil.copy(ROOT / "docs/policy.yaml", tmp_path / "docs")
        notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
        NotebookClient(notebook, timeout=240, kernel_name="python3").execute(cwd=str(tmp_path / "notebooks"))
        return [cell for cell in notebook.cells if cell.cell_type == "code"]

    return run


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_output_and_no_cell_is_longer_than_a_screen(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    assert not any(cell.get("outputs") for cell in cells)
    assert max(len(cell.source.splitlines()) for cell in cells) <= SCREEN


@pytest.mark.parametrize("name", ["02_investigate_a_ring", "03_hunt", "04_model_and_policy"])
def test_a_notebook_starts_with_two_lines(name: str) -> None:
    cells = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells
    first = next(cell.source for cell in cells if cell.cell_type == "code")
    assert len(first.splitlines()) == 2
    assert "ringwatch.Workbench" in first


def test_the_first_ring_is_found_and_drawn(run: Run) -> None:
    code = run("01_first_ring.ipynb")
    assert "image/png" in code[-1].outputs[0].data
    assert "R-" in code[-2].outputs[0].data["text/plain"]


def test_a_ring_is_investigated_up_to_a_verdict_that_is_in_the_journal(run: Run, tmp_path: Path) -> None:
    code = run("02_investigate_a_ring.ipynb")
    assert "'fraud'" in code[-2].outputs[0].data["text/plain"]
    with SqliteJournal(tmp_path / "var/demo/journal.sqlite", readonly=True) as journal:
        (verdict,) = [row for e in journal.replay() if e.kind.name == "VERDICT" for row in e.batch.to_pylist()]
    assert verdict["is_fraud"]
    assert verdict["transaction_ids"]


def test_the_hunt_asks_the_journal_in_sql(run: Run) -> None:
    code = run("03_hunt.ipynb")
    assert "mean_probability" in code[1].outputs[0].data["text/plain"]
    assert "likeness" in code[-1].outputs[0].data["text/plain"]


def test_thresholds_cost_slices_and_a_policy_are_computed(run: Run) -> None:
    code = run("04_model_and_policy.ipynb")
    assert "precision" in code[3].outputs[0].data["text/plain"]
    assert "image/png" in code[5].outputs[0].data
    assert "channel" in code[6].outputs[0].data["text/plain"]
    sides, rules = (code[at].outputs[0].data["text/plain"] for at in (7, 8))
    assert "card-payments@" in sides
    assert "fraud_money_approved EUR" in sides
    assert "crowded-device" in rules
