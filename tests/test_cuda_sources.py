"""Every CUDA source compiles for the card, where there is a compiler; the installed package brings them."""

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from benchmarks.gpu_figures import unmeasured
from gnn.device.net import defines
from gnn.model.network import ModelConfig
from graph.device.cuda_device import CudaDevice
from graph.device.launch import source
from graph.errors import GraphError

ROOT = Path(__file__).resolve().parents[1]
NVCC = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
SOURCES = sorted(
    [*ROOT.glob("graph/device/cuda/*.cu"), *ROOT.glob("gnn/device/cuda/*.cu"), *ROOT.glob("benchmarks/*.cu")]
)


def test_the_sources_are_there_and_packaged():
    assert len(SOURCES) >= 5
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert content["tool"]["setuptools"]["package-data"] == {
        "graph": ["device/cuda/*"],
        "gnn": ["device/cuda/*"],
    }


@pytest.mark.skipif(NVCC is None, reason="no nvcc here")
@pytest.mark.parametrize(
    ("path", "cache"),
    [
        (path, cache)
        for path in SOURCES
        for cache in ("float32", "float16", "int8")
        if cache == "int8" or path.stem == "network"
    ],
    ids=lambda p: p.stem if isinstance(p, Path) else p,
)
def test_nvcc_compiles_it(path, cache, tmp_path):
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


def test_without_a_gpu_every_figure_is_unmeasured():
    figures = unmeasured()
    assert {f.value for f in figures.values()} == {f.met for f in figures.values()} == {None}


def test_what_a_card_was_measured_by_is_what_is_measured_today():
    for path in (ROOT / "benchmarks" / "results").glob("cuda-*.json"):
        kept = json.loads(path.read_text())
        assert {name: f["goal"] for name, f in kept["figures"].items()} == {n: f.goal for n, f in unmeasured().items()}


def test_cupy_is_imported_only_when_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # as if it were not installed
    with pytest.raises(GraphError, match=r"ringwatch\[cuda\]"):
        CudaDevice()
    code = "import sys, serve.replica.replica, gnn.train.trainer; sys.exit('cupy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
