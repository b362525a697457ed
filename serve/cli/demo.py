"""The main job on one machine: history in, model out, service up, payments through HTTP, and what was caught."""

import json
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.table import Table

from data.currency import format_totals
from data.files.streams import stream
from data.history import History
from data.journal.protocol import Kind
from data.report import Report
from data.world.synthetic import WorldConfig, simulate
from gnn.evaluate.evaluate import judge
from gnn.evaluate.metrics import Metrics, as_table, to_dict
from gnn.evaluate.protocols import check_protocol
from gnn.train.targets import TrainConfig
from gnn.train.trainer import train
from graph.errors import GraphError
from serve import children
from serve.batch.ring_pages import draw_rings
from serve.batch.risk_rings import find_risk_rings, ranked, risk_rings_table
from serve.cli.demo_rings import named_while_active
from serve.errors import ServeError
from serve.http.client import RingwatchClient
from serve.stream.ingest import ingest_runs
from serve.terminal import Refusals, out, progress, warn

TOGETHER = 4096  # payments of history in one request
DRAWN = 5  # rings shown at the end
FLAGGED = ("review", "decline")  # decisions that stop a payment for a person or for good


@dataclass(frozen=True)
class DemoConfig:
    """What to run.

    Attributes:
        out: Folder of all that is made.
        transactions: Payments; a made world if None.
        labels: Their labels.
        start: Send payments one by one from here on; by default the last fifth of the time.
        stop: And up to here.
        train_until: Train on what was known before this moment; `start` by default.
        protocol: See `gnn.evaluate.protocols.selection`.
        seed: Of the made world and the model.
        epochs: For each layer, at most.
        pretraining: Steps before each layer's first epoch; none by default, so that the demo takes minutes.
        size: Payments of the made world.
    """

    out: Path = Path("var/demo")
    transactions: Path | str | None = None
    labels: Path | str | None = None
    start: datetime | None = None
    stop: datetime | None = None
    train_until: datetime | None = None
    protocol: str = "plain"
    seed: int = 7
    epochs: int = 6
    pretraining: int = 0
    size: int = 100_000


@dataclass(frozen=True)
class DemoResult:
    """What came of it.

    Attributes:
        metrics: Of the answers given over HTTP to the payments judged.
        probability: Fraud probabilities from the answers of all payments sent, in journal order.
        latency_ms: Of each payment sent by itself, float64.
        replayed: Payments of the history that went through the service first.
        history: The events sent, in order.
    """

    metrics: Metrics
    probability: NDArray[np.float64]
    latency_ms: NDArray[np.float64]
    replayed: int
    history: History = field(repr=False)


def run_demo(config: DemoConfig) -> DemoResult:
    """Run it, and print what was caught.

    Left in `config.out`: the model, the journal, `answers.parquet` (the probability answered over HTTP for each
    payment, in journal order), `metrics.json` (what these are worth, of the payments judged) and pictures of rings.

    Raises:
        ModelError: An unknown protocol, or too little to learn from.
        ServeError: The service does not come up, or there is no history or no payment to send.
    """
    check_protocol(config.protocol)
    config.out.mkdir(parents=True, exist_ok=True)
    truth = None
    transactions, labels = config.transactions, config.labels
    with progress() as report:
        if transactions is None or labels is None:
            report("simulating a payment world", 0.0)
            simulate(WorldConfig(transactions=config.size, seed=config.seed)).write(config.out / "world")
            transactions, labels = config.out / "world/transactions.parquet", config.out / "world/labels.parquet"
            truth = config.out / "world/truth.parquet"
        start = config.start or _last_fifth(transactions)
        if config.train_until and config.train_until > start:
            raise ServeError(
                "--train-until is later than --from: the model would be trained on what it is evaluated on"
            )
        report("reading", 0.0)
        refusals = Refusals()
        history = History.read(transactions, labels, stop=config.stop, on_refusal=refusals)
        early, live = history.before(start), history.between(start, None)
        _expect_payments(early, live, start, config.stop)
        settings = TrainConfig(epochs=config.epochs, pretraining=config.pretraining, seed=config.seed, test=0.0)
        artifact = train(history.before(config.train_until or start), settings, report=report)
        model = config.out / "model"
        artifact.save(model)
        journal = config.out / "journal.sqlite"
        for stale in config.out.glob("journal.sqlite*"):
            stale.unlink()
        report("starting the service", 0.0)
        with service(model, journal) as client:
            sent = _send(client, early, live, report)
            # The last labels may come months after the last payment: rings are shown as they were then.
            paid = int(pc.max(history.payments["timestamp"].cast(pa.int64())).as_py())
        replayed = find_risk_rings(artifact, History.read(journal), report)
        records = replayed.rings.records(as_of=paid)
        try:
            pictures, undrawn = draw_rings(replayed, ranked(records, DRAWN), config.out / "rings"), ""
        except GraphError as error:  # where nobody built their JavaScript
            pictures, undrawn = [], str(error)
    refusals.summary()
    known = history.labelled(truth)
    metrics = judge(known, sent.probability, start, config.stop, config.protocol)
    answers = {"transaction_id": known.payments["transaction_id"], "fraud_probability": sent.probability}
    pq.write_table(pa.table(answers), config.out / "answers.parquet")
    (config.out / "metrics.json").write_text(json.dumps(to_dict(metrics), indent=2) + "\n")
    out.print(as_table(metrics))
    out.print(_caught(sent, known.fraud, known.payments))
    out.print(risk_rings_table(ranked(records, DRAWN), len(records)))
    if truth is not None:
        out.print(named_while_active(replayed.rings, config.out / "world"))
    if undrawn:
        warn(undrawn)
    if pictures:
        out.print(f"play how a ring grew, in a browser: {pictures[0]}", soft_wrap=True)
    command = f"ringwatch investigate --model {model} --journal {journal} --insecure"
    out.print(f"investigate, on http://127.0.0.1:8400: {command}", soft_wrap=True)
    return DemoResult(metrics, sent.probability, sent.latency_ms, sent.replayed, history)


@contextmanager
def service(model: Path, journal: Path, *options: str) -> Iterator[RingwatchClient]:
    """A service of its own process on a free port of the loopback, stopped at the end.

    Raises:
        ServeError: It does not become ready.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    key = secrets.token_urlsafe(24)
    log = journal.with_suffix(".log")
    command = children.command("serve", "--model", str(model), "--journal", str(journal))
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [*command, "--port", str(port), *options],
            env=children.environment(RINGWATCH_API_KEYS=key, RINGWATCH_API_KEYS_FILE=""),
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        with RingwatchClient(f"http://127.0.0.1:{port}", key=key) as client:
            until = time.monotonic() + 180
            while not client.is_ready():
                if process.poll() is not None or time.monotonic() > until:
                    raise ServeError(f"the service did not become ready; its log: {log}")
                time.sleep(0.2)
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@dataclass(frozen=True)
class _Sent:
    probability: NDArray[np.float64]  # of all payments
    latency_ms: NDArray[np.float64]  # of those sent one by one
    decisions: list[str]  # of those sent one by one
    replayed: int  # payments before them


def _expect_payments(early: History, live: History, start: datetime, stop: datetime | None) -> None:
    """Say what is missing before hours of training, not after."""
    until = f" to {stop:%Y-%m-%d %H:%M}" if stop else ""
    for events, what in (
        (early, f"before --from ({start:%Y-%m-%d %H:%M}): nothing to train on"),
        (live, f"from {start:%Y-%m-%d %H:%M}{until}: nothing to send"),
    ):
        if not len(events.payments):
            raise ServeError(f"no payment {what}")


def _send(client: RingwatchClient, history: History, live: History, report: Report) -> _Sent:
    """History in batches, then payments one by one with their reasons, labels always in their place."""
    answers: list[pa.Table] = []
    total, done = len(history), 0

    def count(n: int) -> None:
        nonlocal done
        done += n
        report("replaying history through the service", done / total)

    replayed = ingest_runs(client, history.runs(TOGETHER), answers.append, count).transactions
    probability = [table["fraud_probability"].to_numpy() for table in answers]
    latency, decisions, total, done = [], [], len(live), 0
    for kind, batch in live.runs():
        if kind is Kind.LABEL:
            client.label_many(batch)
        else:
            one_by_one = []
            for payment in as_sent(batch):
                sent = time.perf_counter()
                answer = client.score(payment)
                latency.append((time.perf_counter() - sent) * 1e3)
                one_by_one.append(answer["fraud_probability"])
                decisions.append(answer["decision"])
            probability.append(np.array(one_by_one))
        done += len(batch)
        report("sending payments one by one", done / total)
    return _Sent(np.concatenate(probability), np.array(latency), decisions, replayed)


def as_sent(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows as the wire takes them: microseconds, and no nulls."""
    names = batch.schema.names
    columns = [(c.cast(pa.int64()) if pa.types.is_timestamp(c.type) else c).to_pylist() for c in batch.columns]
    return [
        {name: value for name, value in zip(names, row, strict=True) if value is not None}
        for row in zip(*columns, strict=True)
    ]


def _last_fifth(transactions: Path | str) -> datetime:
    batches = [batch.column("timestamp").cast(pa.int64()) for _, batch in stream(transactions)]
    if not batches:
        raise ServeError(f"{transactions}: holds no payment")
    first, last = batches[0][0].as_py(), batches[-1][-1].as_py()
    moment = datetime.fromtimestamp((first + 0.8 * (last - first)) / 1e6, UTC)
    return moment.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)


def _caught(sent: _Sent, fraud: NDArray[np.bool_], payments: pa.Table) -> Table:
    """What the decisions given over HTTP would have stopped; money by currency."""
    n = len(sent.decisions)
    fraud, payments = fraud[-n:], payments.slice(len(payments) - n)
    flagged = np.isin(sent.decisions, FLAGGED)
    money, caught = totals(payments, fraud), totals(payments, fraud & flagged)
    shares = [f"{caught.get(code, 0) / max(1, total):.0%}" for code, total in money.items()]
    table = Table(title=f"{n:,} payments sent one by one over HTTP")
    table.add_column("")
    table.add_column("", justify="right")
    rows = [
        ("frauds", f"{fraud.sum():,}"),
        (
            "frauds held for review or declined",
            f"{(fraud & flagged).sum():,} ({(fraud & flagged).sum() / max(1, fraud.sum()):.0%})",
        ),
        ("fraud money", format_totals(money)),
        ("fraud money held", f"{format_totals(caught)} ({', '.join(shares) or '0%'})"),
        (
            "honest payments held",
            f"{(~fraud & flagged).sum():,} of {(~fraud).sum():,} ({(~fraud & flagged).mean():.2%})",
        ),
        ("latency, one connection: p50", f"{np.quantile(sent.latency_ms, 0.5):.2f} ms"),
        ("p99", f"{np.quantile(sent.latency_ms, 0.99):.2f} ms"),
        ("payments replayed before", f"{sent.replayed:,}"),
    ]
    for row in rows:
        table.add_row(*row)
    return table


def totals(payments: pa.Table, chosen: NDArray[np.bool_]) -> dict[str, int]:
    """Minor units of the chosen payments by currency, the largest sum first."""
    sums = payments.select(["currency", "amount"]).filter(pa.array(chosen)).group_by("currency")
    pairs = sums.aggregate([("amount", "sum")]).to_pylist()
    return {pair["currency"]: pair["amount_sum"] for pair in sorted(pairs, key=lambda pair: -pair["amount_sum"])}
