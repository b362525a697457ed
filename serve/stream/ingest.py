"""Stream the events of files through a running service, in the journal's order."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data.files.readers import OnRefusal
from data.files.sources import Run, merged
from data.journal.protocol import Kind
from serve.http.client import RingwatchClient

Report = Callable[[str, float], None]


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
        runs: From `data.files.sources.merged`.
        keep: Called with the answers of each run of payments.
        sent: Called with the number of events of each run.
    """
    begin, transactions, labels = time.perf_counter(), 0, 0
    for kind, batch in runs:
        if kind is Kind.LABEL:
            client.label_many(batch)
            labels += len(batch)
        else:
            answers = client.score_many(batch, reasons=False)
            transactions += len(batch)
            if keep is not None:
                keep(answers)
        sent(len(batch))
    return Ingested(transactions, labels, time.perf_counter() - begin)


def ingest_files(
    url: str,
    transactions: Path | str,
    labels: Path | str | None = None,
    *,
    start: datetime | None = None,
    stop: datetime | None = None,
    answers: Path | None = None,
    strict: bool = False,
    on_refusal: OnRefusal | None = None,
    report: Report = lambda what, share: None,
) -> Ingested:
    """Send files through the service at `url`; see `data.files.sources.merged` for their order.

    Args:
        url: Of the service; the key is read from RINGWATCH_API_KEY.
        transactions: Payments; `-` is an Arrow IPC stream on standard input.
        labels: Labels, if any.
        start: Leave out events before it.
        stop: Leave out events from it on.
        answers: Write the answers here, as Parquet.
        strict: Stop at the first refused row.
        on_refusal: Told of each refused row.
        report: Called with progress.
    """
    runs = merged(transactions, labels, start=start, stop=stop, strict=strict, on_refusal=on_refusal)
    events, total = 0, rows_in(transactions) + (rows_in(labels) if labels else 0)

    def sent(n: int) -> None:
        nonlocal events
        events += n
        report("sending", events / total if total else 0.0)

    kept: list[pa.Table] = []
    with RingwatchClient.from_environment(url) as client:
        done = ingest_runs(client, runs, kept.append if answers else None, sent)
    if answers and kept:
        answers.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.concat_tables(kept), answers)
    return done


def rows_in(path: Path | str) -> int:
    """Rows of a Parquet file, from its footer; 0 where that cannot be told cheaply."""
    return pq.read_metadata(path).num_rows if str(path).endswith(".parquet") and Path(path).is_file() else 0
