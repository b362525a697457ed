"""Small random payments for tests of everything but quality."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from data.schema import LABEL_SCHEMA, TRANSACTION_SCHEMA

START_US = 1_700_000_000_000_000
UTC_US = pa.timestamp("us", tz="UTC")


def payment_batch(n: int, seed: int = 0, accounts: int = 150, merchants: int = 25, devices: int = 60) -> pa.RecordBatch:
    """Payments a minute apart on average, in time order, with missing devices and some transfers."""
    rng = np.random.default_rng(seed)

    def some(prefix: str, size: int, missing: float = 0.0) -> pa.Array:
        chosen = rng.integers(0, size, n)
        return pa.array([None if m else f"{prefix}{i}" for i, m in zip(chosen, rng.random(n) < missing, strict=True)])

    columns = {
        "transaction_id": pa.array([f"t{seed}-{i}" for i in range(n)]),
        "timestamp": pa.array(START_US + np.cumsum(rng.integers(0, 120_000_000, n))).cast(UTC_US),
        "account_id": some("a", accounts),
        "merchant_id": some("m", merchants),
        "device_id": some("d", devices, 0.2),
        "amount": pa.array(rng.integers(0, 100_000, n)),
        "currency": pa.array(rng.choice(["EUR", "USD"], n)),
        "payee_id": some("a", accounts, 0.8),
        "channel": pa.array(rng.choice(["ecom", "pos"], n)),
    }
    return transactions(columns)


def transactions(columns: dict[str, pa.Array]) -> pa.RecordBatch:
    """A batch of payments from some of its columns; the others are missing."""
    n = len(columns["transaction_id"])
    arrays = [columns.get(field.name, pa.nulls(n, field.type)) for field in TRANSACTION_SCHEMA]
    return pa.RecordBatch.from_arrays(arrays, schema=TRANSACTION_SCHEMA)


def reports(ids: Sequence[str], fraud: Sequence[bool], times_us: Sequence[int]) -> pa.RecordBatch:
    """A batch of labels."""
    return pa.RecordBatch.from_arrays(
        [
            pa.array(ids, pa.string()),
            pa.array(np.asarray(fraud, bool)),
            pa.array(np.asarray(times_us, np.int64)).cast(UTC_US),
        ],
        schema=LABEL_SCHEMA,
    )


def label_batch(
    payments: pa.RecordBatch, rows: Sequence[int], fraud: Sequence[bool], delay_us: int = 86_400_000_000
) -> pa.RecordBatch:
    """Labels of some payments, each reported `delay_us` after its payment."""
    chosen = pa.array(np.asarray(rows, np.int64))
    reported = payments.column("timestamp").take(chosen).cast(pa.int64()).to_numpy() + delay_us
    return reports(payments.column("transaction_id").take(chosen), fraud, reported)
