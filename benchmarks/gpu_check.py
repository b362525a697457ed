"""All CUDA tests, compute-sanitizer on a small run, and the benchmark: no Ray, no network (`make gpu-check`).

The figures go to benchmarks/results/cuda-<card>.json. Where there is no GPU it says so, shows every figure as
unmeasured and stops with status 0.
"""

import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from benchmarks.report import show, write

ROOT = Path(__file__).resolve().parents[1]
TESTS = [
    "tests/graph/device/test_device.py",
    "tests/gnn/device/test_device.py",
    "tests/gnn/device/test_device_scorer.py",
]
TESTS += ["tests/gnn/device/test_cuda.py", "tests/serve/batch/test_cards.py"]
TIME_LIMIT_S = 480  # all of it
SANITIZER_TESTS = "gpu and (layouts or host_moves or follows)"  # few: the sanitizer is slow


def main() -> int:
    """Run the tests, then the benchmark."""
    from benchmarks import gpu_bench
    from benchmarks.gpu_figures import Figures, Sizes, unmeasured
    from graph.device.cuda_device import CudaDevice
    from graph.errors import GraphError

    begin = time.perf_counter()
    try:
        device = CudaDevice()
    except GraphError as error:
        print(f"gpu-check: {error}. Every figure of the CUDA path stays unmeasured; no kernel was run on a GPU.")
        show("cuda", unmeasured())
        return 0
    import torch

    card = torch.cuda.get_device_name(0)
    print(f"gpu-check: {card}, torch {torch.__version__}, Python {sys.version.split()[0]}", flush=True)
    beside = ["-n", "8"] if find_spec("xdist") else []  # most of their time Numba compiles, on one core each
    failed = pytest([*TESTS, "-m", "cuda", *beside], 240)
    print(f"gpu-check: tests {'failed' if failed else 'passed'}, {time.perf_counter() - begin:.0f} s", flush=True)
    sanitized = sanitize()
    print(f"gpu-check: compute-sanitizer {sanitized}, {time.perf_counter() - begin:.0f} s", flush=True)
    name = f"cuda-{card.lower().replace(' ', '-')}"
    tests = "failed" if failed else "passed"

    def keep(found: Figures) -> None:
        write(name, unmeasured() | found, card=card, torch=torch.__version__, tests=tests, sanitizer=sanitized)
        print(f"gpu-check: {list(found)[-1]}, {time.perf_counter() - begin:.0f} s", flush=True)

    left = TIME_LIMIT_S - 60 - (time.perf_counter() - begin)  # a part takes less than a minute
    figures = unmeasured() | gpu_bench.measure(device, Sizes(), left, keep)
    show(name, figures)
    print(f"gpu-check: {time.perf_counter() - begin:.0f} s in all")
    return int(failed or sanitized == "failed" or any(figure.value is None for figure in figures.values()))


def pytest(arguments: list[str], seconds: float, before: list[str] | None = None) -> bool:
    """Whether tests fail. The project's own options name plugins that the machine may lack."""
    options = ["-q", "-o", "addopts=", "-o", "filterwarnings=default", "-p", "no:cacheprovider", "-rs"]
    command = [*(before or []), sys.executable, "-m", "pytest", "--import-mode=importlib", *options, *arguments]
    try:
        return subprocess.run(command, cwd=ROOT, check=False, timeout=seconds).returncode != 0
    except subprocess.TimeoutExpired:
        print(f"gpu-check: the tests did not end within {seconds:.0f} s")
        return True


def sanitize() -> str:
    """Look for accesses out of bounds in a small run: passed, failed, or that the tool is missing."""
    tool = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if tool is None:
        return "missing: not on PATH"
    before = [tool, "--tool", "memcheck", "--error-exitcode", "9", "--target-processes", "all"]
    return "failed" if pytest([TESTS[0], "-k", SANITIZER_TESTS], 120, before) else "passed"


if __name__ == "__main__":
    sys.exit(main())
