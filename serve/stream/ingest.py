"""Stream the events of a history through a running service, in the journal's order."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import RefusedRow, TooManyRefused
from data.files.sources import Run
from data.journal.protocol import Kind
from data.report import Report, silent
from serve.http.client import Refused, RingwatchClient

UNKNOWN_SHOWN: Final = 100  # ids of unknown payments that are kept; all are counted


@dataclass
class Ingested:
    """What went through.

    Attributes:
        transactions: Payments acknowledged.
        accepted: Labels recorded, and believed.
        repeated: Labels that were recorded before.
        superseded: Labels recorded, but older than another of their payment.
        unknown: Labels of payments that the service does not know; they are not recorded.
        unknown_ids: The ids of the first of these.
        seconds: Wall time.
    """

    transactions: int = 0
    accepted: int = 0
    repeated: int = 0
    superseded: int = 0
    unknown: int = 0
    unknown_ids: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def labels(self) -> int:
        """Labels sent."""
        return self.accepted + self.repeated + self.superseded + self.unknown

    def judge(self, most: float) -> None:
        """Judge the share of labels of unknown payments.

        Raises:
            TooManyRefused: It is above `most`.
        """
        if self.unknown > most * self.labels:
            raise TooManyRefused(
                f"the service knows no payment of {self.unknown:,} of {self.labels:,} labels "
                f"({self.unknown / self.labels:.1%}), more than {most:.1%} (--max-refused): {self.unknown_shown()}; "
                "send the payments first"
            )

    def summary(self) -> str:
        """What went through, for people."""
        text = f"{self.transactions:,} payments and {self.labels:,} labels in {self.seconds:.1f} s"
        if not self.labels:
            return text
        return (
            f"{text}\nlabels: {self.accepted:,} accepted, {self.repeated:,} repeated, {self.superseded:,} superseded, "
            f"{self.unknown:,} of unknown payments"
        )

    def unknown_shown(self, most: int = 5) -> str:
        """The first ids of unknown payments, for messages."""
        more = self.unknown - min(most, len(self.unknown_ids))
        return ", ".join(map(repr, self.unknown_ids[:most])) + (f" and {more:,} more" if more else "")


def ingest_runs(
    client: RingwatchClient,
    runs: Iterable[Run],
    keep: Callable[[pa.Table], None] | None = None,
    sent: Callable[[int], None] = lambda events: None,
    strict: bool = False,
) -> Ingested:
    """Send runs of payments and labels one after the other; each is durable before the next leaves.

    Args:
        client: Of the running service.
        runs: Events in the journal's order; other kinds, which a service journals by itself, are not sent.
        keep: Called with the answers of each run of payments.
        sent: Called with the number of events of each run.
        strict: Stop at the first label of a payment that the service does not know.

    Raises:
        RefusedRow: There is such a label, with `strict`. Nothing of its run is recorded.
        ServeError: The service refused a run, or did not answer.
    """
    begin, done = time.perf_counter(), Ingested()
    for kind, batch in runs:
        if kind is Kind.LABEL:
            _send_labels(client, batch, done, strict)
        elif kind is Kind.TRANSACTION:
            answers = client.score_many(batch, reasons=False)
            done.transactions += len(batch)
            if keep is not None:
                keep(answers)
        sent(len(batch))
    done.seconds = time.perf_counter() - begin
    return done


def _send_labels(client: RingwatchClient, batch: pa.RecordBatch, done: Ingested, strict: bool) -> None:
    """Send labels; those of payments that the service does not know are left out, and noted."""
    while len(batch):
        try:
            said = client.label_many(batch)
        except Refused as refused:
            unknown = unknown_rows(refused)
            if not unknown:
                raise
            ids = batch.column("transaction_id").take(pa.array(unknown)).to_pylist()
            if strict:
                raise RefusedRow(f"the service knows no payment {ids[0]!r} that a label is of") from None
            done.unknown += len(ids)
            done.unknown_ids += ids[: UNKNOWN_SHOWN - len(done.unknown_ids)]
            batch = batch.take(pa.array(np.delete(np.arange(len(batch)), unknown)))
            continue
        done.accepted += said["accepted"]
        done.repeated += said["repeated"]
        done.superseded += said["superseded"]
        return


def unknown_rows(refused: Refused) -> list[int]:
    """Rows of a call whose payments the service does not know, where that is why it was refused."""
    if refused.status != 422 or not str(refused.problem.get("type")).endswith(":unknown-transaction"):
        return []
    return [int(error["field"].split(".")[0]) for error in refused.problem.get("errors", [])]


def ingest(
    client: RingwatchClient,
    runs: Iterable[Run],
    *,
    total: int = 0,
    answers: Path | None = None,
    strict: bool = False,
    report: Report = silent,
) -> Ingested:
    """Send a history through a running service and keep its answers.

    Args:
        client: Of the running service.
        runs: Events in the journal's order, from `data.history.stream` or `History.runs`.
        total: How many events there are, where that is known: for progress.
        answers: Write the answers here, as Parquet.
        strict: As `ingest_runs` has it.
        report: Told of progress.
    """
    events = 0

    def sent(n: int) -> None:
        nonlocal events
        events += n
        report("sending", events / total if total else 0.0)

    kept: list[pa.Table] = []
    done = ingest_runs(client, runs, kept.append if answers else None, sent, strict)
    if answers and kept:
        answers.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.concat_tables(kept), answers)
    return done


def rows_in(path: Path | str | None) -> int:
    """Rows of a Parquet file, from its footer; 0 where that cannot be told cheaply."""
    there = path is not None and str(path).endswith(".parquet") and Path(path).is_file()
    return int(pq.read_metadata(path).num_rows) if there else 0
