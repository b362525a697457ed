"""The notebook is stored without output and runs."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "01_first_ring.ipynb"


def test_the_first_ring_is_found_and_drawn():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in code)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute(cwd=str(NOTEBOOK.parent))
    assert "image/png" in code[-1].outputs[0].data
    assert "R-" in code[-2].outputs[0].data["text/plain"]
