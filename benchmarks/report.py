"""Figures with the machine, the command and the commit that made them: benchmarks/results/*.json, docs/benchmarks.md.

Example: python -m benchmarks.report
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
TABLE = ROOT / "docs" / "benchmarks.md"
INTRODUCTION = """
# Benchmarks

Made by `python -m benchmarks.report` from the files in `benchmarks/results`. Times are those of the machine that each
section names.

- **goal** was set before the measurement. **no** means that it was missed.
- **beside it** is what the same run measured in turn with the figure: a rival, or a limit of the machine.
- p50 and p99 are the median and the 99th percentile. M is a million. A `+dirty` commit had uncommitted changes.
- *uniform* and *zipf* say how payments choose their entities: all with the same probability, or a few of them far more
  often.
"""
ABOUT = {  # what each benchmark measures
    "cache_formats": "How much average precision (AP) a smaller key-value cache costs: the same trained models score a "
    "simulated world with float32, half-precision and int8 keys and values.",
    "cuda": "The CUDA kernels on one GPU, called from Python, without HTTP and journal. `copy` and `gather_128` are "
    "what the card does at best: copying, and reading lines of 128 bytes at random places. `launch` and `ask` are "
    "overheads. A walk finds the last 16 payments of each of a payment's three entities; `describe` adds features. "
    "Shares are of the bytes a second of `gather_128`. A micro-batch goes from host memory to scores in host memory.",
    "decision_quality": "What decisions cost beside fixed thresholds ([costs](costs.md)): the share saved beside the "
    "best threshold on probability, beside three of them, and beside the best on probability x amount, chosen on an "
    "earlier period. Beside it: costs of the judged period in EUR. `off_policy_error`: of values of a policy that "
    "never ran, estimated from another's log.",
    "faults": "Faults injected into a running service while payments arrive at a fixed rate: the share of answers "
    "inside the time budget and 10 ms. Beside it: who answered, and the slowest answer.",
    "forecast": "An account's next payment beside rivals: pinball loss of when (days) and how much (log amount), and "
    "how many of the nominal 80 % intervals hold. See docs/anticipation.md.",
    "graph": "The transaction store on one core, 20 million payments. `append` writes payments, `with_velocity` also "
    "the jump pointers of exact time windows. A walk finds the last 16 payments of each of a payment's three "
    "entities (a seed is the payment that it begins from). `gather` reads cached keys and values. `of_limit` "
    "compares with as many random reads at places that are known beforehand.",
    "graph_files": "From files to scores: Parquet with text ids into the store, in the journal's order, and with "
    "rings; snapshots; scoring 200,000 payments in bulk, and 1 or 64 at a time, with an untrained model.",
    "graph_memory": "The memory that a whole graph with rings and caches uses, beside what `ringwatch capacity` plans.",
    "graph_peers": "Append and sample: for each payment, find the last 16 payments of its entities, then write it. "
    "Ours beside other libraries on the same million payments, each with its best batch size and number of threads.",
    "graph_scale": "The store from 1 million to 100 million payments. `of_limit` compares with as many random reads "
    "in as much memory.",
    "guidance": "What an account's owner is told, on seeded households with planted cases and traps, and how long an "
    "account takes. See docs/anticipation.md.",
    "handbook_service": "The Fraud Detection Handbook's test week sent through the running service, one payment at a "
    "time, measured on the HTTP answers. `largest_difference_from_evaluate` compares them with offline scores.",
    "hijacked_agents": "Payments of hijacked agents among honest ones, other frauds left out, on two made worlds that "
    "the model never saw, each scored when it came ([mandates](mandates.md#agents-and-scores)). Recall is that of the "
    "highest 1 % of payments. `limit` is told which payments are those of agents that took up new shops together, not "
    "which of these are a ring's.",
    "journal": "What a payment with reasons takes of the SQLite journal when it is sent alone, in a commit of its own: "
    "pages of the file divided by payments, ids and kept answers included.",
    "load": "The service at .5, 1, 2 and 4 times the throughput that it reaches when callers wait for answers "
    "(`saturation`), with requests sent at a fixed rate. Goodput is what the model scores inside the time budget of 50 "
    "ms. Caller and service share the machine.",
    "mandates": "A million payments of agents race for the budgets of 4,000 mandates over two replicas, processes that "
    "are killed before, in the middle of and behind their commits ([mandates](mandates.md)). What each was told is "
    "compared with a plain sum over the journal.",
    "pictures": "A ring's page in headless Chromium without a GPU, 1280 x 800 pixels, with 200 to 10,000 nodes: "
    "frames a second while the view moves with all nodes shown, the time from opening to the first picture, the "
    "time to make the page, and its size. `slider_steps_per_s`: how often the time slider redraws. "
    "`webgl_without_gpu`: the same by sigma where the processor does WebGL, which the page avoids.",
    "policy": "Deciding by a policy of 30 rules beside deciding by thresholds, in turn on one replica: the whole way "
    "of a payment, from its journal commit to its answer with reasons, alone and in micro-batches of 32.",
    "rescore": "`ringwatch rescore` from Parquet to Parquet, without Ray, with an untrained model of two layers and a "
    "head ([batch](batch.md)). Other work shared the two cores: processor time says what a payment takes. "
    "`kills.wrong`: histories whose run was killed again and again and whose files then differed from those of an "
    "undisturbed run.",
    "rings": "Keeping risk rings current on one core: a payment of a stream with 1 % risky ones, with a full window; "
    "and a payment that touches a ring of 500 members. `static` finds all communities anew, once.",
    "serve": "One `POST /v1/score` beside a POST that does nothing, on one connection, with an untrained model. The "
    "stages are the service's own timings: journal commit, graph update, score, reasons.",
}


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes:
        value: As measured; None where it has not been.
        unit: Of the value.
        goal: What was asked for, if anything.
        better: "higher" or "lower".
        peer: What was measured beside it in the same run.
    """

    value: float | None
    unit: str
    goal: float | None = None
    better: str = "higher"
    peer: dict[str, float] | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without one, or where nothing was measured."""
        if self.goal is None or self.value is None:
            return None
        return bool(self.value >= self.goal if self.better == "higher" else self.value <= self.goal)


def write(name: str, figures: dict[str, Figure], **extra: Any) -> Path:
    """Write the figures of one benchmark, reached or missed."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {
        "bench": name,
        "figures": {key: {**asdict(figure), "met": figure.met} for key, figure in figures.items()},
        "machine": machine(),
        # Of a file elsewhere its name: where it lay is of no use on another machine.
        "command": "python " + " ".join([_module(), *(Path(a).name if a.startswith("/") else a for a in sys.argv[1:])]),
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **extra,
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def show(name: str, figures: dict[str, Figure]) -> None:
    """Print them."""
    table = Table(title=name)
    for column in ("figure", "value", "unit", "goal", "met", "beside"):
        table.add_column(column)
    for key, f in figures.items():
        beside = ", ".join(f"{k} {v:,.4g}" for k, v in (f.peer or {}).items())
        met = {None: "", True: "yes", False: "no"}[f.met]
        table.add_row(key, said(f.value), f.unit, "" if f.goal is None else f"{f.goal:,g}", met, beside)
    Console().print(table)


def said(value: float | None) -> str:
    """A value for people."""
    return "unmeasured" if value is None else f"{value:,.4g}"


def paired(a: Callable[[], object], b: Callable[[], object], rounds: int = 7) -> tuple[float, float, list[float]]:
    """Time two calls in turn, once each to warm up; medians in seconds, and the ratio b / a of each round."""
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(rounds + 1):
        for call, kept in zip((a, b), times, strict=True):
            begin = time.perf_counter()
            call()
            if i:
                kept.append(time.perf_counter() - begin)
    return float(np.median(times[0])), float(np.median(times[1])), [y / x for x, y in zip(*times, strict=True)]


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        names = [
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ]
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory, 1),
        "python": platform.python_version(),
    }


def commit() -> str:
    """The commit measured, with `+dirty` where the tree differed from it.

    Of a copy that has another history, or none, RINGWATCH_COMMIT says which it is.
    """
    if said_to_be := os.environ.get("RINGWATCH_COMMIT"):
        return said_to_be
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        return "unknown"
    status = subprocess.run(
        [*git, "status", "--porcelain", "--untracked-files=no", "--", ":!benchmarks/results", ":!docs"],
        capture_output=True,
        text=True,
        check=False,
    )
    return head.stdout.strip() + ("+dirty" if status.stdout.strip() else "")


def rebuild(page: Path = TABLE) -> None:
    """Write docs/benchmarks.md from all results."""
    lines = INTRODUCTION.strip().split("\n")
    for path in sorted(RESULTS.glob("*.json")):
        if path.name.startswith("quality_"):
            continue  # those have a page of their own: docs/quality.md
        content = json.loads(path.read_text())
        made = content["machine"]
        lines += [
            "",
            f"## {content['bench']}",
            "",
            *([about, ""] if (about := ABOUT.get(content["bench"].split("-")[0])) else []),
            f"`{content['command']}` at commit {content['commit']}, {content['date'][:10]}, {made['cores']} cores of "
            f"{made['cpu']}, {made['memory_gib']} GiB, Python {made['python']}.",
            "",
            "| figure | value | unit | goal | met | beside it |",
            "|---|---|---|---|---|---|",
        ]
        for key, f in content["figures"].items():
            goal = "" if f["goal"] is None else f"{'>=' if f['better'] == 'higher' else '<='} {f['goal']:,g}"
            met = {None: "", True: "yes", False: "**no**"}[f["met"]]
            beside = ", ".join(f"{k} {v:,.4g}" for k, v in (f["peer"] or {}).items())
            lines.append(f"| {key} | {said(f['value'])} | {f['unit']} | {goal} | {met} | {beside} |")
    page.write_text("\n".join(lines) + "\n")


def _module() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"-m {spec.name.removesuffix('.__main__')}" if spec is not None else sys.argv[0]


if __name__ == "__main__":
    rebuild()
