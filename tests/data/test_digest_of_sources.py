"""Cached machine code and kept runs belong to the sources as they stand, wherever in the tree those are."""

from pathlib import Path

import pytest

from benchmarks.quality import runs
from data.jit import sources_digest


def tree(root: Path) -> Path:
    for name in ("data/jit.py", "graph/dag/rows.py", "gnn/model/kernels.py", "gnn/train/trainer.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"# {name}")
    return root


def test_a_kernel_that_changes_moves_or_goes_has_another_folder_of_machine_code(tmp_path: Path) -> None:
    root = tree(tmp_path)
    seen = [sources_digest(root)]
    assert sources_digest(root) == seen[0]
    kernel = root / "gnn" / "model" / "kernels.py"
    kernel.write_text("# faster")
    seen.append(sources_digest(root))
    (root / "gnn" / "fused").mkdir()
    moved = kernel.rename(root / "gnn" / "fused" / "kernels.py")
    seen.append(sources_digest(root))
    moved.unlink()
    seen.append(sources_digest(root))
    assert len(set(seen)) == 4


def test_kept_runs_are_told_apart_by_modules_in_folders_within_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(tmp_path)
    monkeypatch.setattr(runs, "ROOT", root)

    def digest() -> str:
        runs.sources.cache_clear()
        return runs.sources()

    before = digest()
    (root / "gnn" / "model" / "kernels.py").write_text("# faster")
    changed = digest()
    (root / "gnn" / "model" / "fused").mkdir()
    (root / "gnn" / "model" / "kernels.py").rename(root / "gnn" / "model" / "fused" / "kernels.py")
    moved = digest()
    runs.sources.cache_clear()
    assert len({before, changed, moved}) == 3
