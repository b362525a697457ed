"""Every CUDA source compiles for the card, where there is a compiler; the built wheel holds them."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from benchmarks import gpu_check
from benchmarks.gpu_figures import FIGURES, unmeasured
from gnn.device.net import defines
from gnn.errors import ModelError
from gnn.model.network import ModelConfig
from graph.dag import sampler
from graph.device.cuda_device import CudaDevice
from graph.device.launch import source
from graph.device.layout import store_defines
from graph.errors import GraphError
from tests.cuda_host.host import GXX, compiled

ROOT = Path(__file__).resolve().parents[1]
NVCC = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
SOURCES = sorted(
    [*ROOT.glob("graph/device/cuda/*.cu"), *ROOT.glob("gnn/device/cuda/*.cu"), *ROOT.glob("benchmarks/*.cu")]
)


DEVICE_ALONE = {  # what the CPU's kernels have no counterpart of
    *("DEEP", "KS", "LIMB", "LIMBS", "AT_ONCE", "THREADS", "AGED", "RECENT", "COUNTED"),
    *("ALIAS", "BEFORE", "VELOCITY_BYTES", "TABLE", "PAIRS", "READ", "FULL", "SIZE", "KV_WORDS"),
}
MACRO = re.compile(r"^#define (\w+)(\([^)]*\))?[ \t]*(.*?)[ \t]*(?://.*)?$", re.MULTILINE)
CUDA = [*SOURCES, *ROOT.glob("graph/device/cuda/*.cuh"), *ROOT.glob("gnn/device/cuda/*.cuh")]


def macros() -> dict[str, str]:
    """Every macro that a CUDA source defines itself, and what it stands for."""
    return {name: body for path in CUDA for name, _, body in MACRO.findall(path.read_text())}


def test_no_number_of_the_cpus_kernels_is_typed_again_in_a_cuda_source():
    exported = set(defines(ModelConfig(("account", "merchant", "device"))))
    assert not exported & set(macros())
    assert set(macros()) - DEVICE_ALONE == set()  # a new one is exported from Python, or listed above with the others
    text = "".join(re.sub(r"//.*", "", path.read_text()) for path in CUDA)
    unused = {name for name in exported if not re.search(rf"\b{name}\b", text)}
    assert unused == set()


def test_no_macro_falls_apart_where_it_is_put_in():
    """`1 << LABELS` with LABELS as `2 + 1` would be `(1 << 2) + 1`."""
    loose = {name: body for name, body in macros().items() if not re.fullmatch(r"[\w.]*|\(.*\)", body)}
    closed = {name for name, body in macros().items() if body.startswith("(") and _closes_at(body) != len(body) - 1}
    assert (loose, closed) == ({}, set())


def _closes_at(body: str) -> int:
    """Where the bracket that a text begins with is closed."""
    depth = 0
    for at, letter in enumerate(body):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return at
    return -1


@pytest.mark.skipif(GXX is None, reason="no g++ here to compile the CUDA sources for the CPU")
@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("EDGE", 9, "eight ties"),
        ("WINDOWS", 5, "four windows"),
        ("PAYMENT_FEATURES", 7, "six features"),
        ("SETTLED_COUNT", 9, "five features and one for each band"),
    ],
)
def test_a_layout_that_a_kernel_does_not_unroll_does_not_compile(name, value, says, capfd):
    given = {**store_defines(3), name: value}
    with pytest.raises(subprocess.CalledProcessError):
        compiled(ROOT / "graph" / "device" / "cuda" / "features.cu", given)
    assert says in capfd.readouterr().err


def test_ties_that_the_kernels_do_not_unroll_are_an_error(monkeypatch):
    monkeypatch.setattr(sampler, "EDGE_FEATURES", (*sampler.EDGE_FEATURES, "ninth"))
    code = compile((ROOT / "gnn" / "model" / "kernels.py").read_text(), "kernels.py", "exec")
    with pytest.raises(ModelError, match="ninth"):
        exec(code, {"__name__": "kernels_again"})


@pytest.mark.skipif(int(version("setuptools").split(".")[0]) < 77, reason="pyproject.toml needs setuptools 77 to build")
def test_a_built_wheel_holds_every_module_and_cuda_source_and_nothing_else(tmp_path):
    tree, packages = tmp_path / "tree", ("data", "graph", "gnn", "serve", "ringwatch")
    for name in (*packages, "tests", "benchmarks"):  # what must not be packaged lies beside it, as in a checkout
        shutil.copytree(
            ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "results", "golden", "node_modules")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    made = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *offline, "--wheel-dir", tmp_path, tree],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    (wheel,) = tmp_path.glob("ringwatch-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = [path for package in packages for path in (ROOT / package).rglob("*")]
    kept = {path.relative_to(ROOT).as_posix() for path in files if path.suffix in (".py", ".cu", ".cuh", ".typed")}
    kept |= {path.relative_to(ROOT).as_posix() for path in files if path.name == "bundle.js"}  # built, not committed
    pages = [path for folder in ("templates", "static") for path in (ROOT / "serve/console" / folder).iterdir()]
    kept |= {path.relative_to(ROOT).as_posix() for path in pages}
    assert held == kept
    assert sum(name.endswith((".cu", ".cuh")) for name in held) >= 10


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


def test_gpu_check_without_a_gpu_shows_every_figure_as_unmeasured_and_ends_well(monkeypatch, capsys):
    def missing():
        raise GraphError("CuPy finds no GPU")

    monkeypatch.setattr("graph.device.cuda_device.CudaDevice", missing)
    monkeypatch.setenv("COLUMNS", "200")
    assert gpu_check.main() == 0
    printed = capsys.readouterr().out
    assert "CuPy finds no GPU" in printed
    shown = {name: line for line in printed.splitlines() for name in FIGURES if f"│ {name} " in line}
    assert shown.keys() == FIGURES.keys()
    assert all("unmeasured" in line for line in shown.values())


def test_the_words_by_which_the_sanitizer_chooses_tests_each_find_one():
    names = re.findall(r"^def (test_\w+)", (ROOT / gpu_check.TESTS[0]).read_text(), re.MULTILINE)
    (words,) = re.findall(r"\((.*)\)", gpu_check.SANITIZER_TESTS)
    assert [word for word in words.split(" or ") if not any(word in name for name in names)] == []


def test_the_goals_in_the_results_of_each_card_are_those_of_today():
    results = list((ROOT / "benchmarks" / "results").glob("cuda-*.json"))
    assert results
    for path in results:
        kept = json.loads(path.read_text())
        assert {name: f["goal"] for name, f in kept["figures"].items()} == {n: f.goal for n, f in unmeasured().items()}


def test_cupy_is_imported_only_when_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # as if it were not installed
    with pytest.raises(GraphError, match=r"ringwatch\[cuda\]"):
        CudaDevice()
    code = "import sys, serve.replica.replica, gnn.train.trainer; sys.exit('cupy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
