"""All CUDA tests and benchmarks in one command: no Ray, no network, the machine's own torch (`make gpu-check`).

The figures go to benchmarks/results/cuda-<card>.json. Where there is no GPU it says so and stops with status 0.
"""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
ROLES = ("account", "merchant", "device", "payee")
N = 200_000


def main() -> int:
    """Run the tests, then the benchmark."""
    import torch

    if not torch.cuda.is_available():
        print("gpu-check: no CUDA device here; every figure of the CUDA path stays unmeasured. Nothing was run.")
        return 0
    card = torch.cuda.get_device_name(0)
    print(f"gpu-check: {card}, torch {torch.__version__}, Python {sys.version.split()[0]}")
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "cuda", "tests/gnn", "-s", "-p", "no:cacheprovider"],
        cwd=ROOT,
        check=False,
    )
    measure(card.lower().replace(" ", "-"))
    return tests.returncode


def measure(card: str) -> None:
    """Time the torch engine on the card beside the fused kernels on the CPU, in turn, in one run."""
    from benchmarks.report import Figure, show, write
    from data.journal import Events, Kind
    from gnn.artifact import untrained
    from gnn.scorer import Scorer
    from graph.state import GraphState
    from tests.world import payment_batch

    state = GraphState(ROLES, 1 << 22)
    state.apply(Events(Kind.TRANSACTION, 0, payment_batch(N, 1, 20_000, 1_000, 10_000)))
    artifact = untrained(ROLES)
    cpu, cuda = Scorer(artifact, state), Scorer(artifact, state, "cuda")
    for scorer in (cpu, cuda):
        scorer.score(0, N // 2)
    figures = {}
    for batch in (1, 64, 4096):
        times: dict[str, list[float]] = {"cpu": [], "cuda": []}
        for i in range(60):
            first = N // 2 + (i * batch) % (N // 2 - batch)
            for scorer in (cpu, cuda):
                begin = time.perf_counter()
                scorer.score(first, first + batch)
                times[scorer.device_name].append((time.perf_counter() - begin) * 1e3)
        p50 = {name: float(np.median(values[10:])) for name, values in times.items()}
        goal = {64: 0.3}.get(batch)
        figures[f"score_{batch}_p50"] = Figure(
            p50["cuda"], "ms", goal, "lower", {"fused kernels on this machine's CPU": p50["cpu"]}
        )
    write(f"cuda-{card}", figures)
    show(f"cuda-{card}", figures)


if __name__ == "__main__":
    sys.exit(main())
