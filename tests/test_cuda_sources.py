"""Every CUDA source compiles for the card, where there is a compiler; the installed package brings them."""

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from gnn.device_net import defines
from gnn.model import ModelConfig
from graph.launch import source

ROOT = Path(__file__).resolve().parents[1]
NVCC = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
SOURCES = sorted([*ROOT.glob("graph/cuda/*.cu"), *ROOT.glob("gnn/cuda/*.cu")])


def test_the_sources_are_there_and_packaged():
    assert len(SOURCES) >= 5
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert content["tool"]["setuptools"]["package-data"] == {
        "graph": ["cuda/*.cu", "cuda/*.cuh"],
        "gnn": ["cuda/*.cu", "cuda/*.cuh"],
    }


@pytest.mark.skipif(NVCC is None, reason="no nvcc here")
@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
@pytest.mark.parametrize("cache", ["float32", "int8"])
def test_nvcc_compiles_it(path, cache, tmp_path):
    if cache == "int8" and path.parts[-3] == "graph":
        pytest.skip("the graph does not depend on the cache")
    config = ModelConfig(("account", "merchant", "device", "payee"), cache=cache)
    text = tmp_path / path.name
    text.write_text(source(path))
    options = ["-arch=sm_90", "-std=c++17", "-Werror", "all-warnings", "-cubin"]
    options += [f"-D{name}={value}" for name, value in defines(config).items()]
    made = subprocess.run(
        [
            NVCC,
            "-arch=sm_90",
            "-std=c++17",
            "-Werror",
            "all-warnings",
            *options,
            "-cubin",
            "-o",
            tmp_path / "out",
            text,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr + made.stdout
