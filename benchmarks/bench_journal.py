"""What a payment takes of the journal when it is sent alone: events, ids and the answer that is kept.

Example: python -m benchmarks.bench_journal
"""

import sqlite3
import tempfile
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.report import Figure, show, write
from gnn.model.artifact import untrained
from serve.replica.admission import ScoreCall
from serve.replica.replica import Replica
from serve.settings import Settings
from tests.world import payment_batch

PAYMENTS = 1_500


def size_of(journal: Path) -> int:
    """Bytes of a journal, its log emptied."""
    with sqlite3.connect(journal) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return journal.stat().st_size


def run(folder: Path) -> dict[str, Figure]:
    payments = payment_batch(PAYMENTS, seed=5)
    random = np.random.default_rng(5)
    names = pa.array([str(uuid.UUID(bytes=random.bytes(16))) for _ in range(PAYMENTS)])
    payments = payments.set_column(0, payments.schema.field(0), names)
    journal = folder / "journal.sqlite"
    settings = Settings(model=folder, journal=journal, insecure=True, device="cpu", snapshot_every=0)
    replica = Replica(untrained(("account", "merchant", "device"), neighbours=4, window_rows=1 << 7), settings)
    replica.open()
    before = size_of(journal)
    for i in range(PAYMENTS):
        replica.process([ScoreCall(payments.slice(i, 1))])
        replica.idle()
    replica.close()
    with sqlite3.connect(journal) as connection:
        event = connection.execute("SELECT avg(length(payload)) FROM events").fetchone()[0]
        answer = connection.execute("SELECT avg(length(answer)) FROM answers").fetchone()[0]
    return {
        "bytes_a_payment": Figure((size_of(journal) - before) / PAYMENTS, "bytes", 400, "lower"),
        "event": Figure(event, "bytes"),
        "answer": Figure(answer, "bytes"),
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        figures = run(Path(made))
    show("journal", figures)
    write("journal", figures, payments=PAYMENTS)
