"""Modules in the working directory never stand in for ours, nor for the standard library's."""

import subprocess
import sys
from pathlib import Path

import pytest

import ringwatch
from serve import children

ROOT = Path(__file__).parents[2]
SHADOWS = ("data.py", "graph.py", "gnn.py", "http.py", "serve.py", "queue.py")


@pytest.fixture
def littered(tmp_path: Path) -> Path:
    for name in SHADOWS:
        (tmp_path / name).write_text(f"raise SystemExit('{name} of the working directory was imported')\n")
    return tmp_path


def said(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, env=children.environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_child_process_finds_our_packages_beside_files_of_their_names(littered: Path) -> None:
    assert "Write a model card" in said([*children.command("card", "--help")], littered)
    program = "import data.schema, graph, gnn, serve, http.client; print(data.schema.__file__)"
    assert str(ROOT) in said([sys.executable, "-P", "-c", program], littered)


def test_python_m_ringwatch_finds_our_packages_beside_files_of_their_names(littered: Path) -> None:
    assert "Write a model card" in said([sys.executable, "-m", "ringwatch", "card", "--help"], littered)


@pytest.mark.ray
def test_workers_of_ray_find_our_packages_beside_files_of_their_names(littered: Path) -> None:
    program = littered / "program_of_a_user.py"
    program.write_text(
        "import ray\n"
        "from serve.children import safe_folder\n"
        "with safe_folder():\n"
        "    ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False, num_cpus=1)\n"
        "@ray.remote\n"
        "def where():\n"
        "    import data.schema\n"
        "    return data.schema.__file__\n"
        "print(ray.get(where.remote()))\n"
    )
    assert str(ROOT / "data/schema.py") in said([sys.executable, "-P", str(program)], littered)


def test_ringwatch_gives_every_name_that_it_promises() -> None:
    for name in ringwatch.__all__:
        assert getattr(ringwatch, name) is not None
    assert dir(ringwatch) == sorted(ringwatch.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        ringwatch.nonsense  # noqa: B018
