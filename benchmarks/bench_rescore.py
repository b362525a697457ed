"""Re-scoring from Parquet to Parquet: speed, memory, how both grow, and runs that are killed.

Writes benchmarks/results/rescore.json. Each run is a process of its own, with an untrained model of two layers and a
head, and without Ray. Processor time is given beside the time on the clock: other work on the machine adds to the one.

Example: python -m benchmarks.bench_rescore --payments 200000 1000000 --kills 50
"""

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.report import Figure, rebuild, show, write
from data.schema import TRANSACTION_SCHEMA
from gnn.model.artifact import untrained
from serve.batch.manifest import SUCCESS
from serve.batch.rescore import rescore
from serve.batch.source import open_source

ROLES = ("account", "merchant", "device")
START_US = 1_767_225_600_000_000
CHUNK = 1 << 17
SMALL, SMALL_BLOCK = 60_000, 4_096  # of the runs that are killed


def make(path: Path, n: int, seed: int = 1) -> Path:
    """Payments of many accounts at merchants of very different sizes, four seconds apart."""
    rng = np.random.default_rng(seed)
    with pq.ParquetWriter(path, TRANSACTION_SCHEMA) as out:
        for first in range(0, n, CHUNK):
            m = min(CHUNK, n - first)
            account = rng.integers(0, n // 20, m)
            device = np.where(rng.random(m) < 0.9, account, rng.integers(0, n // 20, m))
            merchant = (n // 200 * rng.random(m) ** 3).astype(np.int64)
            columns = {
                "transaction_id": [f"t{i}" for i in range(first, first + m)],
                "timestamp": START_US + np.arange(first, first + m) * 4_000_000,
                "account_id": [f"a{i}" for i in account],
                "merchant_id": [f"m{i}" for i in merchant],
                "device_id": [f"d{i}" for i in device],
                "amount": rng.integers(0, 100_000, m),
                "currency": rng.choice(["EUR", "USD"], m),
            }
            out.write_table(
                pa.table(
                    [
                        pa.array(columns[f.name]).cast(f.type) if f.name in columns else pa.nulls(m, f.type)
                        for f in TRANSACTION_SCHEMA
                    ],
                    schema=TRANSACTION_SCHEMA,
                )
            )
    return path


def child(model: str, source: str, out: str, block: int) -> None:
    """One run, in this process; prints what it took."""
    done = rescore(model, open_source(source), out, actors=0, block_rows=block, snapshot_every_s=5.0)
    used = resource.getrusage(resource.RUSAGE_SELF)
    facts = {"scored": done.scored, "seconds": done.seconds, "stages": done.stages}
    print(json.dumps({**facts, "cpu": used.ru_utime + used.ru_stime, "memory": used.ru_maxrss * 1024}))


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "benchmarks.bench_rescore", "--child", *map(str, arguments)]


def measured(model: Path, source: Path, out: Path, block: int = 1 << 16) -> dict[str, Any]:
    done = subprocess.run(command(model, source, out, block), capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def files(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.glob("date=*/*")}


def killed(model: Path, source: Path, folder: Path, kills: int) -> tuple[int, int]:
    """Kill runs at random moments until so many are dead; returns how many histories came out wrong, and how many."""
    took = measured(model, source, folder / "undisturbed", SMALL_BLOCK)["seconds"]
    expected, dead, wrong, histories = files(folder / "undisturbed"), 0, 0, 0
    chosen = random.Random(7)
    while dead < kills:
        out = folder / f"killed-{histories}"
        while not (out / SUCCESS).exists():
            run = subprocess.Popen(command(model, source, out, SMALL_BLOCK), stdout=subprocess.DEVNULL)
            try:
                # Starting Python takes some seconds, in which there is nothing to go wrong.
                run.wait(3.0 + chosen.uniform(0, took) if dead < kills else None)
            except subprocess.TimeoutExpired:
                os.kill(run.pid, signal.SIGKILL)
                run.wait()
                dead += 1
        histories += 1
        wrong += files(out) != expected
    return wrong, histories


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--payments", type=int, nargs="+", default=[200_000, 1_000_000])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--child", nargs=4)
    given = parser.parse_args()
    if given.child:
        child(*given.child[:3], int(given.child[3]))
        return
    begin = time.perf_counter()
    figures: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        untrained(ROLES, layers=2).save(folder / "model")
        measured(folder / "model", make(folder / "warm.parquet", 20_000), folder / "warm")  # compiles
        runs = []
        for n in sorted(given.payments):
            runs.append(measured(folder / "model", make(folder / f"{n}.parquet", n), folder / f"out-{n}"))
            print(n, runs[-1], flush=True)
        last, n = runs[-1], max(given.payments)
        figures["payments"] = Figure(last["scored"] / last["seconds"], f"payments/s, {n:,} of them", 60_000)
        figures["processor"] = Figure(
            last["cpu"] / last["scored"] * 1e6, "us of processor time for each", None, "lower"
        )
        figures["memory"] = Figure(last["memory"] / 2**30, "GiB, the one process", None, "lower")
        each = [run["seconds"] / run["scored"] for run in runs]
        figures["growth"] = Figure(each[-1] / each[0], "time for each, beside the smallest history", None, "lower")
        for stage, seconds in last["stages"].items():
            figures[f"share.{stage}"] = Figure(seconds / last["seconds"], "of the time, in the driver")
        if given.kills:
            wrong, histories = killed(folder / "model", make(folder / "small.parquet", SMALL), folder, given.kills)
            figures["kills"] = Figure(given.kills, "runs killed at random moments")
            figures["kills.wrong"] = Figure(wrong, f"of {histories} histories not the undisturbed bytes", 0, "lower")
    write("rescore", figures, payments=sorted(given.payments), runs=runs, seconds=time.perf_counter() - begin)
    show("rescore", figures)
    rebuild()


if __name__ == "__main__":
    main()
