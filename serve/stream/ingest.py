"""Stream the events of a history through a running service, in the journal's order."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data.files.sources import Run
from data.journal.protocol import Kind
from data.report import Report, silent
from serve.http.client import RingwatchClient


@dataclass(frozen=True)
class Ingested:
    """What went through.

    Attributes:
        transactions: Payments acknowledged.
        labels: Labels acknowledged.
        seconds: Wall time.
    """

    transactions: int
    labels: int
    seconds: float


def ingest_runs(
    client: RingwatchClient,
    runs: Iterable[Run],
    keep: Callable[[pa.Table], None] | None = None,
    sent: Callable[[int], None] = lambda events: None,
) -> Ingested:
    """Send runs of payments and labels one after the other; each is durable before the next leaves.

    Args:
        client: Of the running service.
        runs: Events in the journal's order; other kinds, which a service journals by itself, are not sent.
        keep: Called with the answers of each run of payments.
        sent: Called with the number of events of each run.
    """
    begin, transactions, labels = time.perf_counter(), 0, 0
    for kind, batch in runs:
        if kind is Kind.LABEL:
            client.label_many(batch)
            labels += len(batch)
        elif kind is Kind.TRANSACTION:
            answers = client.score_many(batch, reasons=False)
            transactions += len(batch)
            if keep is not None:
                keep(answers)
        sent(len(batch))
    return Ingested(transactions, labels, time.perf_counter() - begin)


def ingest(
    client: RingwatchClient,
    runs: Iterable[Run],
    *,
    total: int = 0,
    answers: Path | None = None,
    report: Report = silent,
) -> Ingested:
    """Send a history through a running service and keep its answers.

    Args:
        client: Of the running service.
        runs: Events in the journal's order, from `data.history.stream` or `History.runs`.
        total: How many events there are, where that is known: for progress.
        answers: Write the answers here, as Parquet.
        report: Told of progress.
    """
    events = 0

    def sent(n: int) -> None:
        nonlocal events
        events += n
        report("sending", events / total if total else 0.0)

    kept: list[pa.Table] = []
    done = ingest_runs(client, runs, kept.append if answers else None, sent)
    if answers and kept:
        answers.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.concat_tables(kept), answers)
    return done


def rows_in(path: Path | str | None) -> int:
    """Rows of a Parquet file, from its footer; 0 where that cannot be told cheaply."""
    there = path is not None and str(path).endswith(".parquet") and Path(path).is_file()
    return int(pq.read_metadata(path).num_rows) if there else 0
