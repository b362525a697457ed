"""The service under more load than it can take: open loop, and what every caller gets.

Saturation is the throughput of a closed loop. At 0.5, 1, 2 and 4 times that, requests leave at a fixed rate whatever
becomes of those before them: what the model scores inside the budget is goodput, and everybody else must be answered in
time as well, by rules. Load goes to the loopback of this machine only, and the caller takes its share of the cores.

Example: python -m benchmarks.load --seconds 20 --long 600
"""

import argparse
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil

from benchmarks.open_loop import Run, closed_loop, open_loop
from benchmarks.report import Figure, show, write
from gnn.model.artifact import untrained
from serve.cli.demo import service

BUDGET_S = 0.05
LOADS = (0.5, 1.0, 2.0, 4.0)
CALLERS = 64
BACK_WITHIN = 0.9  # of saturation x 0.5, that counts as full speed again


class Memory:
    """Watches the resident memory of the replicas, MiB."""

    def __init__(self) -> None:
        self.seen: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(1.0):
            self.seen.append(max((p.memory_info().rss for p in replicas()), default=0) / 2**20)

    def stop(self) -> tuple[float, float]:
        """Memory in the first and in the last tenth, MiB."""
        self._stop.set()
        self._thread.join()
        tenth = max(1, len(self.seen) // 10)
        return float(np.median(self.seen[:tenth])), float(np.median(self.seen[-tenth:]))


def replicas() -> list[psutil.Process]:
    """The processes of the replicas of this machine."""
    return [p for p in psutil.process_iter() if p.name().startswith("ray::ServeReplica")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load")
    parser.add_argument("--long", type=float, default=600.0, help="seconds at twice the saturation")
    given = parser.parse_args()
    figures: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        untrained(("account", "merchant", "device")).save(folder / "model")
        with service(folder / "model", folder / "journal.sqlite", "--insecure") as client:
            closed_loop(client.url, "", CALLERS, 5, "warm-")
            saturation = closed_loop(client.url, "", CALLERS, given.seconds, "closed-").summary()["goodput/s"]
            figures["saturation"] = Figure(saturation, "scores/s")
            print(f"saturation: {saturation:,.0f} scores/s in a closed loop of {CALLERS}", flush=True)
            for load in LOADS:
                seconds = given.long if load == 2.0 else given.seconds
                memory = Memory()
                run = open_loop(client.url, "", load * saturation, seconds, f"x{load}-", BUDGET_S)
                first, last = memory.stop()
                figures |= _figures(load, run, saturation, first, last)
                if load == 2.0:
                    after = open_loop(client.url, "", 0.5 * saturation, 15, "after-", BUDGET_S)
                    figures["full_speed_after"] = Figure(_seconds_to_full(after, saturation), "s", 5, "lower")
                print(f"{load:g}x: {run.summary()}", flush=True)
                time.sleep(3)
    write("load", figures)
    show("load", figures)


def _figures(load: float, run: Run, saturation: float, first: float, last: float) -> dict[str, Figure]:
    found = run.summary()
    name, judged = f"x{load:g}".replace(".", "_"), load <= 2.0
    beside = {key: found[key] for key in ("asked/s", "by rules/s", "refused/s", "p50, ms", "p99, ms")}
    goal = 0.9 * min(1.0, load) if judged else None
    return {
        f"{name}_goodput_of_saturation": Figure(found["goodput/s"] / saturation, "share", goal, "higher", beside),
        f"{name}_answered_in_budget_and_10_ms": Figure(
            found["answered in time, share"], "share", 1.0 if judged else None, "higher",
            {"unanswered": found["unanswered"], "p99 by model, ms": found["p99 by model, ms"]},
        ),
        f"{name}_memory_growth": Figure(last - first, "MiB", None, "lower", {"first, MiB": first, "last, MiB": last}),
    }  # fmt: skip


def _seconds_to_full(run: Run, saturation: float) -> float:
    """Seconds of a run after which its goodput is what is asked for."""
    good = run.goodput_by_second() >= BACK_WITHIN * 0.5 * saturation
    return float(np.argmax(good)) if good.any() else float("inf")


if __name__ == "__main__":
    main()
