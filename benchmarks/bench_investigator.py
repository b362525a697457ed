"""What an investigator beside a scoring replica costs a payment: benchmarks/results/investigator.json.

One replica on one core, the investigator with its console on the other, both on the journal that `ringwatch demo`
leaves.
Payments are sent one after the other on one connection, some hundreds with the investigator running and as many with it
stopped (SIGSTOP), in turn; the ratio of a pair is that of its 99th percentiles.

Example: python -m benchmarks.bench_investigator --demo var/demo
"""

import argparse
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq

from benchmarks.report import Figure, show, write
from serve import children
from serve.cli.demo import service
from serve.http.client import RingwatchClient

PAIRS, PAYMENTS, WARM = 10, 400, 200
PORT = 8491


def payments(demo: Path) -> list[dict[str, Any]]:
    """The world's payments again, under other ids and an hour after its last."""
    rows = pq.read_table(demo / "world/transactions.parquet").slice(0, WARM + 2 * PAIRS * PAYMENTS).to_pylist()
    last = pq.read_table(demo / "world/transactions.parquet", columns=["timestamp"])["timestamp"].to_pylist()[-1]
    start = int(last.timestamp() * 1e6) + 3_600_000_000
    made = []
    for i, row in enumerate(rows):
        kept = {name: value for name, value in row.items() if value is not None}
        made.append({**kept, "transaction_id": f"again-{i}", "timestamp": start + i * 1_000_000})
    return made


def timed(client: RingwatchClient, rows: list[dict[str, Any]]) -> np.ndarray:
    """Milliseconds of each, sent one after the other."""
    found = np.empty(len(rows))
    for i, row in enumerate(rows):
        begin = time.perf_counter()
        client.score(row)
        found[i] = 1e3 * (time.perf_counter() - begin)
    return found


def group(process: subprocess.Popen[bytes], number: int) -> None:
    os.killpg(process.pid, number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("var/demo"))
    demo = parser.parse_args().demo
    ratios, with_it, without = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal.sqlite"
        for file in demo.glob("journal.sqlite*"):
            shutil.copy(file, folder)
        os.sched_setaffinity(0, {0})
        with service(demo / "model", journal) as client:
            command = children.command("investigate", "--model", str(demo / "model"), "--journal", str(journal))
            beside = subprocess.Popen(
                ["taskset", "-c", "1", *command, "--port", str(PORT), "--insecure"],
                start_new_session=True,
                env=children.environment(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                until = time.monotonic() + 300
                while time.monotonic() < until:
                    try:
                        if httpx.get(f"http://127.0.0.1:{PORT}/readyz", timeout=5).status_code == 200:
                            break
                    except httpx.TransportError:
                        pass
                    time.sleep(0.5)
                rows = payments(demo)
                timed(client, rows[:WARM])
                at = WARM
                for pair in range(PAIRS):
                    found = {}
                    for runs in (True, False) if pair % 2 == 0 else (False, True):
                        group(beside, signal.SIGCONT if runs else signal.SIGSTOP)
                        time.sleep(1.0)
                        found[runs] = timed(client, rows[at : at + PAYMENTS])
                        at += PAYMENTS
                    with_it.append(found[True])
                    without.append(found[False])
                    ratios.append(float(np.quantile(found[True], 0.99) / np.quantile(found[False], 0.99)))
                    print(f"pair {pair}: p99 {ratios[-1]:.3f}", flush=True)
            finally:
                group(beside, signal.SIGCONT)
                beside.terminate()  # it ends Ray's processes in good order
                try:
                    beside.wait(60)
                except subprocess.TimeoutExpired:
                    group(beside, signal.SIGKILL)
    together, alone = np.concatenate(with_it), np.concatenate(without)
    figures = {
        "p99_ratio": Figure(float(np.median(ratios)), "with / without, median of pairs", 1.1, "lower"),
        "p50_ratio": Figure(float(np.median(together) / np.median(alone)), "with / without", 1.1, "lower"),
        "p99_with": Figure(float(np.quantile(together, 0.99)), "ms"),
        "p99_without": Figure(float(np.quantile(alone, 0.99)), "ms"),
    }
    write("investigator", figures, about=__doc__, facts={"pairs": ratios, "payments": PAYMENTS})
    show("investigator", figures)


if __name__ == "__main__":
    main()
