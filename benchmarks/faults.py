"""Every fault at every stage while payments come: who got an answer, by whom, and how late.

The service runs in this process, behind its own listener on the loopback; payments come from another. For each fault
it is brought up anew, payments come at a fixed rate, the fault holds for a second, and goes; five times each. An answer
counts as in time inside the budget and 10 ms.

Example: python -m benchmarks.faults --times 5
"""

import argparse
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.open_loop import Run, open_loop
from benchmarks.report import Figure, show, write
from data.errors import JournalError
from gnn.model.artifact import Artifact, untrained
from gnn.score.cpu_scorer import CpuScorer
from gnn.score.protocol import Scorer
from graph.state import GraphState
from serve.http.app import build_app
from serve.http.listener import Listener, listen
from serve.replica.replica import Replica
from serve.settings import Settings

BUDGET_S, RATE, HOLDS_S, BEFORE_S, SECONDS = 0.05, 100.0, 1.0, 0.5, 2.5
Fault = Callable[[Replica], Any]


class Card(CpuScorer):
    """Stands for a GPU: the CPU's scorer, which fails as it is told."""

    device_name = "cuda"
    fails: Callable[[], None] | None = None
    fails_reasons: Callable[[], None] | None = None

    def score(self, first: int, last: int) -> "np.ndarray[Any, np.dtype[np.float64]]":
        if self.fails is not None:
            self.fails()
        return super().score(first, last)

    def reasons(self, rows: Any, exact: bool = False) -> Any:
        if self.fails_reasons is not None:
            self.fails_reasons()
        return super().reasons(rows, exact)


class Processor(Card):
    """The CPU's scorer, which fails as it is told."""

    device_name = "cpu"


def scorers(model: Artifact, state: GraphState) -> list[Scorer]:
    card = Card(model, state)
    return [card, Processor(model, state, cache=card.cache)]


def raises(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@contextmanager
def scorer_fails(replica: Replica, which: int, fail: Callable[[], None], stage: str = "fails") -> Iterator[None]:
    scorer = replica.slot.scorers[which]
    setattr(scorer, stage, fail)
    yield
    setattr(scorer, stage, None)


@contextmanager
def both_fail(replica: Replica, fail: Callable[[], None]) -> Iterator[None]:
    with scorer_fails(replica, 0, fail), scorer_fails(replica, 1, fail):
        yield


@contextmanager
def journal_begins(
    replica: Replica, before: Callable[[], None] | None, after: Callable[[], None] | None
) -> Iterator[None]:
    """Something happens when a commit is opened, or when it is about to be made durable."""
    journal, begin = replica.journal, replica.journal.begin

    @contextmanager
    def faulty() -> Iterator[Any]:
        if before is not None:
            before()
        with begin() as commit:
            yield commit
            if after is not None:
                after()

    journal.begin = faulty  # type: ignore[method-assign]
    yield
    journal.begin = begin  # type: ignore[method-assign]


@contextmanager
def pragma(replica: Replica, on: str, off: str) -> Iterator[None]:
    connection: sqlite3.Connection = replica.journal._connection  # type: ignore[attr-defined]
    connection.execute(on)
    yield
    connection.execute(off)


@contextmanager
def full_disk(replica: Replica) -> Iterator[None]:
    """The file may not grow by a page."""
    connection: sqlite3.Connection = replica.journal._connection  # type: ignore[attr-defined]
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count={pages}")
    yield
    connection.execute("PRAGMA max_page_count=1073741823")


@contextmanager
def vanished(replica: Replica) -> Iterator[None]:
    """The file is gone, and stays so."""
    for path in replica.settings.journal.parent.glob("journal.sqlite*"):
        path.unlink()
    yield


@contextmanager
def locked(replica: Replica) -> Iterator[None]:
    """Another process holds the file for writing."""
    script = (
        f"import sqlite3, time; c = sqlite3.connect({str(replica.settings.journal)!r}, isolation_level=None)\n"
        f"c.execute('BEGIN IMMEDIATE'); print(flush=True); time.sleep({HOLDS_S})"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield
    process.wait()


def stall() -> None:
    time.sleep(HOLDS_S)


@dataclass(frozen=True)
class Case:
    """A fault at a stage."""

    fault: str
    stage: str
    inject: Fault


def nan_scores(replica: Replica) -> Any:
    """Scores that are not numbers, from both scorers."""

    @contextmanager
    def broken() -> Iterator[None]:
        kept = [scorer.score for scorer in replica.slot.scorers]
        for scorer in replica.slot.scorers:
            scorer.score = lambda first, last, score=scorer.score: np.full_like(score(first, last), np.nan)  # type: ignore[method-assign]
        yield
        for scorer, score in zip(replica.slot.scorers, kept, strict=True):
            scorer.score = score  # type: ignore[method-assign]

    return broken()


CUDA_ERROR, NO_MEMORY = RuntimeError("CUDA error: an illegal memory access"), MemoryError("out of memory")
CASES = (
    Case("CUDA error", "score", lambda r: scorer_fails(r, 0, raises(CUDA_ERROR))),
    Case("CUDA error", "reasons", lambda r: scorer_fails(r, 0, raises(CUDA_ERROR), "fails_reasons")),
    Case("out of memory", "score, GPU", lambda r: scorer_fails(r, 0, raises(NO_MEMORY))),
    Case("out of memory", "score, GPU and CPU", lambda r: both_fail(r, raises(NO_MEMORY))),
    Case("hung kernel", "score", lambda r: scorer_fails(r, 0, stall)),
    Case("hung kernel", "reasons", lambda r: scorer_fails(r, 0, stall, "fails_reasons")),
    Case("scores that are no numbers", "score, GPU and CPU", nan_scores),
    Case("stalled disk", "begin of a commit", lambda r: journal_begins(r, stall, None)),
    Case("stalled disk", "end of a commit", lambda r: journal_begins(r, None, stall)),
    Case("full disk", "commit", full_disk),
    Case("read-only disk", "commit", lambda r: pragma(r, "PRAGMA query_only=1", "PRAGMA query_only=0")),
    Case("failing disk", "end of a commit", lambda r: journal_begins(r, None, raises(JournalError("disk I/O error")))),
    Case("vanished journal", "commit", vanished),
    Case("journal locked by another", "begin of a commit", locked),
)  # fmt: skip


def once(case: Case, model: Path, callers: ProcessPoolExecutor) -> Run:
    """Payments at a fixed rate, and a fault among them."""
    with tempfile.TemporaryDirectory() as name:
        settings = Settings(
            model=model, journal=Path(name) / "journal.sqlite", insecure=True, capacity=1 << 18, snapshot_every=0
        )
        replica = Replica(untrained(("account", "merchant", "device")), settings, scorers)
        replica.open()
        app = build_app(settings, replica)
        listener = Listener(app, listen("127.0.0.1", [0]), express=app.state.express)
        listener.start()
        url = f"http://127.0.0.1:{listener.port}"
        callers.submit(open_loop, url, "", RATE, 1.0, "warm-", BUDGET_S).result()

        def fault() -> None:
            time.sleep(BEFORE_S)
            with case.inject(replica):
                time.sleep(HOLDS_S)

        thread = threading.Thread(target=fault)
        thread.start()
        run = callers.submit(open_loop, url, "", RATE, SECONDS, "t-", BUDGET_S).result()
        thread.join()
        listener.stop()
        return run


def replaying(model: Path, callers: ProcessPoolExecutor) -> Run:
    """Payments while the journal is replayed."""
    with tempfile.TemporaryDirectory() as name:
        settings = Settings(model=model, journal=Path(name) / "journal.sqlite", insecure=True, snapshot_every=0)
        replica = Replica(untrained(("account", "merchant", "device")), settings)
        replay = replica.open

        def slowly(*given: Any) -> int:
            time.sleep(BEFORE_S + HOLDS_S)
            return replay(*given)

        replica.open = slowly  # type: ignore[method-assign]
        app = build_app(settings, replica)
        listener = Listener(app, listen("127.0.0.1", [0]), express=app.state.express)
        listener.start()
        url = f"http://127.0.0.1:{listener.port}"
        run = callers.submit(open_loop, url, "", RATE, SECONDS, "t-", BUDGET_S).result()
        listener.stop()
        return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5, help="of each fault")
    parser.add_argument("--only", default="", help="faults whose name begins so")
    given = parser.parse_args()
    figures: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory() as name, ProcessPoolExecutor(1, get_context("spawn")) as callers:
        model = Path(name) / "model"
        untrained(("account", "merchant", "device")).save(model)
        for case in CASES:
            if case.fault.startswith(given.only):
                runs = [once(case, model, callers) for _ in range(given.times)]
                figures |= _figure(f"{case.fault}: {case.stage}", runs)
        if not given.only:
            figures |= _figure("replay under way: start", [replaying(model, callers) for _ in range(given.times)])
    if not given.only:
        write("faults", figures)
    show("faults", figures)


def _figure(name: str, runs: list[Run]) -> dict[str, Figure]:
    found = [run.summary() for run in runs]
    kinds = [kind for run in runs for kind in run.kind]
    beside = {
        "slowest, ms": max(float(np.nanmax(run.latency)) * 1e3 for run in runs),
        "by the model, share": kinds.count("model") / len(kinds),
        "by rules, share": kinds.count("rules") / len(kinds),
        "unanswered": float(kinds.count("failed")),
    }
    print(name, min(f["answered in time, share"] for f in found), beside, flush=True)
    return {name: Figure(min(f["answered in time, share"] for f in found), "share in time", 1.0, "higher", beside)}


if __name__ == "__main__":
    main()
