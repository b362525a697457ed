"""A small stream with one ring in it: six accounts on one phone, whose payments are reported as fraud."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from data.journal.protocol import Kind
from data.journal.sqlite import SqliteJournal
from gnn.model.artifact import Artifact, untrained
from gnn.model.calibration import PlattScaling
from serve.settings import Settings
from tests.world import START_US, UTC_US, payment_batch, reports, transactions

ROLES = ("account", "merchant", "device", "payee")
HONEST = payment_batch(600, seed=3, accounts=120, devices=90)
MEMBERS = tuple(f"r{i}" for i in range(6))
PHONE = "phone-9"
HOUR_US = 3_600_000_000
FIRST_US = START_US + 2 * HOUR_US


def artifact() -> Artifact:
    """A model that takes nothing for fraud: what is risky here, labels say."""
    made = untrained(ROLES, neighbours=4, window_rows=1 << 10)
    return replace(made, calibration=PlattScaling(1.0, -40.0))


def ring_payments(n: int = 12, first: int = 0) -> pa.RecordBatch:
    """Payments of the ring, five minutes apart, its accounts in turn."""
    at = np.arange(first, first + n)
    return transactions(
        {
            "transaction_id": pa.array([f"ring-{i}" for i in at]),
            "timestamp": pa.array(FIRST_US + at * 300_000_000).cast(UTC_US),
            "account_id": pa.array([MEMBERS[i % 6] for i in at]),
            "merchant_id": pa.array([f"m{i % 25}" for i in at]),
            "device_id": pa.array([PHONE] * n),
            "amount": pa.array(1_000 + 100 * at),
            "currency": pa.array(["EUR" if i % 2 == 0 else "USD" for i in at]),
        }
    )


def fraud_reports(payments: pa.RecordBatch, fraud: bool = True, delay_us: int = HOUR_US) -> pa.RecordBatch:
    """A label of each payment."""
    times = payments.column("timestamp").cast(pa.int64()).to_numpy() + delay_us
    return reports(payments.column("transaction_id").to_pylist(), [fraud] * len(payments), times.tolist())


def settings(folder: Path) -> Settings:
    """Of an investigator and a replica on one journal."""
    return Settings(model=folder, journal=folder / "journal.sqlite", insecure=True, device="cpu", snapshot_every=0)


def write(folder: Path, *batches: tuple[Kind, pa.RecordBatch]) -> None:
    """Append to the journal, a commit for each batch."""
    with SqliteJournal(folder / "journal.sqlite") as journal:
        for kind, batch in batches:
            with journal.begin() as commit:
                commit.append(kind, batch)


def in_time(*batches: pa.RecordBatch) -> pa.RecordBatch:
    """Payments together, in order of time."""
    table = pa.Table.from_batches(batches).sort_by("timestamp").combine_chunks()
    (batch,) = table.to_batches()
    return batch
