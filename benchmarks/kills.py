"""A service whose replica is killed with -9 again and again: what was acknowledged, and who else is served meanwhile.

First, payments and labels come without a pause while the replica is killed. Its address must come back, and every
acknowledged payment and label must be in the journal once, with the score that a replay gives. Then a service is held
with half-open connections and sent Arrow bodies that unfold to a hundred times their size, while others call it.

Example: python -m benchmarks.kills --kills 26
"""

import argparse
import socket
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa

from benchmarks.load import Memory, replicas
from benchmarks.open_loop import open_loop
from benchmarks.report import Figure, show, write
from data.journal.protocol import Kind
from data.journal.sqlite import SqliteJournal
from gnn.model.artifact import Artifact, load, untrained
from gnn.score.cpu_scorer import CpuScorer
from gnn.score.replay import capacity_for
from graph.state import GraphState
from serve.cli.demo import service
from serve.errors import ServeError
from serve.http.client import RingwatchClient

HALF_OPEN, ARROW_ROWS, TEXT = 1_000, 10_000, 100_000
RATE, BUDGET_S = 100.0, 0.05
BEFORE_KILL_S, WAITED_S = 2.0, 60.0


class Caller:
    """Sends payments and labels, one after the other, until it is stopped; keeps what was acknowledged."""

    def __init__(self, client: RingwatchClient, name: str) -> None:
        self.payments: dict[str, tuple[float, str]] = {}  # score and who made it, by id
        self.labels: set[str] = set()
        self.refused: Counter[str] = Counter()
        self._client, self._name, self._stop = client, name, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        random, n = np.random.default_rng(sum(self._name.encode())), 0
        while not self._stop.is_set():
            payment = {
                "transaction_id": f"{self._name}-{n}",
                "timestamp": time.time_ns() // 1000,
                "account_id": f"a{random.integers(200)}",
                "merchant_id": f"m{random.integers(50)}",
                "device_id": f"d{random.integers(150)}",
                "amount": int(random.integers(100, 50_000)),
                "currency": "EUR",
            }
            n += 1
            try:
                answer = self._client.score(payment)
                if answer["recorded"]:
                    found = (answer["fraud_probability"], answer["scored_by"])
                    self.payments[answer["transaction_id"]] = found
                    if n % 10 == 0:
                        self._client.label(answer["transaction_id"], bool(n % 20), payment["timestamp"])
                        self.labels.add(answer["transaction_id"])
            except (ServeError, OSError) as error:
                self.refused[type(error).__name__] += 1

    def stop(self) -> None:
        """Stop, and wait for the last answer."""
        self._stop.set()
        self._thread.join(WAITED_S)


def killed(folder: Path, kills: int) -> dict[str, Figure]:
    """Kill the replica so many times while payments and labels come."""
    journal, back = folder / "journal.sqlite", []
    with service(folder / "model", journal, "--insecure") as client:
        callers = [Caller(RingwatchClient(client.url), f"c{n}") for n in range(2)]
        for kill in range(kills):
            time.sleep(BEFORE_KILL_S)
            for process in replicas():
                process.kill()
            begun = time.monotonic()
            while client.is_ready() and time.monotonic() - begun < 1:
                time.sleep(0.02)
            while not client.is_ready() and time.monotonic() - begun < WAITED_S:
                time.sleep(0.05)
            back.append(time.monotonic() - begun)
            print(f"kill {kill + 1}: back after {back[-1]:.1f} s", flush=True)
        time.sleep(BEFORE_KILL_S)
        for caller in callers:
            caller.stop()
    payments = {name: given for caller in callers for name, given in caller.payments.items()}
    labels = {name for caller in callers for name in caller.labels}
    lost, doubled, labels_lost, other = _compared(journal, load(folder / "model"), payments, labels)
    beside = {"acknowledged": float(len(payments)), "labels": float(len(labels)), "kills": float(kills)}
    return {
        "kills_address_kept": Figure(sum(b < WAITED_S for b in back) / kills, "share of kills", 1.0, "higher", beside),
        "kills_back_after": Figure(float(np.median(back)), "s", None, "lower", {"slowest": max(back)}),
        "kills_payments_lost": Figure(lost, "payments", 0, "lower", beside),
        "kills_payments_doubled": Figure(doubled, "payments", 0, "lower", beside),
        "kills_labels_lost": Figure(labels_lost, "labels", 0, "lower", beside),
        "kills_scores_not_those_of_a_replay": Figure(other, "scores", 0, "lower", beside),
    }


def _compared(
    path: Path, artifact: Artifact, payments: dict[str, tuple[float, str]], labels: set[str]
) -> tuple[int, int, int, int]:
    """Acknowledged payments that are lost, those that are there twice, labels lost, and scores other than replayed."""
    with SqliteJournal(path, readonly=True) as journal:
        state = GraphState(artifact.roles, capacity_for(journal.end, artifact.config.window), artifact.config.window)
        ids: list[str] = []
        labelled: set[str] = set()
        for events in journal.replay():
            state.apply(events)
            names = events.batch.column("transaction_id").to_pylist()
            if events.kind is Kind.TRANSACTION:
                ids += names
            elif events.kind is Kind.LABEL:
                labelled |= set(names)
    replayed = dict(zip(ids, CpuScorer(artifact, state).score(0, len(ids)).tolist(), strict=True))
    other = sum(by == "cpu" and replayed.get(name) != score for name, (score, by) in payments.items())
    return len(set(payments) - set(ids)), len(ids) - len(set(ids)), len(labels - labelled), other


def pressed(folder: Path) -> dict[str, Figure]:
    """Hold half-open connections and send bodies that unfold, while others call."""
    with service(folder / "model", folder / "pressed.sqlite", "--insecure") as client:
        open_loop(client.url, "", RATE, 2.0, "warm-", BUDGET_S)
        host, port = client.url.removeprefix("http://").split(":")
        before, memory = max(p.memory_info().rss for p in replicas()) / 2**20, Memory()
        held = []
        for _ in range(HALF_OPEN):
            connection = socket.create_connection((host, int(port)), 5)
            connection.sendall(b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n")
            held.append(connection)
        sending = threading.Thread(target=lambda: [_unfolding(client) for _ in range(20)])
        sending.start()
        run = open_loop(client.url, "", RATE, 10.0, "beside-", BUDGET_S)
        sending.join()
        peak = max(memory.seen)
        memory.stop()
        for connection in held:
            connection.close()
    found = run.summary()
    return {
        "pressed_others_answered_in_time": Figure(
            found["answered in time, share"], "share", 1.0, "higher", {"goodput/s": found["goodput/s"], "asked/s": RATE}
        ),
        "pressed_memory": Figure(peak, "MiB", 1024, "lower", {"before": before}),
    }


def _unfolding(client: RingwatchClient) -> None:
    """A body of 10,000 rows whose ids all are one text of 100,000 characters."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * ARROW_ROWS, pa.int32()), pa.array(["x" * TEXT]))
    sink = pa.BufferOutputStream()
    batch = pa.record_batch({"transaction_id": text})
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    with socket.create_connection(tuple(client.url.removeprefix("http://").split(":")), 30) as connection:  # type: ignore[arg-type]
        body = bytes(sink.getvalue())
        head = "POST /v1/scores HTTP/1.1\r\nHost: x\r\nContent-Type: application/vnd.apache.arrow.stream\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = connection.recv(4096)
        assert b" 413 " in answer or b" 422 " in answer, answer[:200]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=26)
    given = parser.parse_args()
    figures: dict[str, Figure] = {}
    assert not replicas(), f"another service runs here: {[p.pid for p in replicas()]}, of {psutil.Process().username()}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        untrained(("account", "merchant", "device")).save(folder / "model")
        figures |= pressed(folder)
        show("kills", figures)
        figures |= killed(folder, given.kills)
    write("kills", figures)
    show("kills", figures)


if __name__ == "__main__":
    main()
