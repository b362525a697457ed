"""Scores as a table, and its files: Parquet, a folder for each day (`date=2026-01-31/`), a file for each block."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data.schema import CATEGORIES, TIMESTAMP
from serve.batch.manifest import checksum
from serve.decide.decision import Decided
from serve.decide.standing import Standing

DAY_US: Final = 86_400_000_000
SCORES: Final = pa.schema(
    [
        ("transaction_id", pa.string()),
        ("journal_offset", pa.int64()),
        ("timestamp", TIMESTAMP),
        ("amount", pa.int64()),
        *((name, pa.string()) for name in CATEGORIES),
        ("fraud_probability", pa.float64()),
        ("log_odds", pa.float64()),
        ("decision", pa.string()),
        ("action", pa.string()),
        ("policy_version", pa.string()),
        ("ring_id", pa.string()),
        ("model_version", pa.string()),
    ]
)
"""Columns of the files, in this order; with reasons, `reasons` comes behind them. Amounts are in minor units;
`log_odds` are calibrated, and `fraud_probability` is their logistic function."""
REASON: Final = pa.struct([("code", pa.string()), ("message", pa.string()), ("contribution", pa.float64())])
_TEXTS: Final = (*CATEGORIES, "decision", "action", "policy_version", "ring_id", "model_version")


def score_table(
    payments: pa.RecordBatch,
    offsets: NDArray[np.int64],
    log_odds: NDArray[np.float64],
    probability: NDArray[np.float64],
    decided: Sequence[Decided],
    rings: Sequence[Standing | None],
    version: str,
) -> pa.Table:
    """The scores of n payments, columns of `SCORES`.

    Args:
        payments: Canonical, [n].
        offsets: In the journal, int64 [n].
        log_odds: Calibrated, float64 [n].
        probability: Of fraud, float64 [n].
        decided: [n].
        rings: [n], None where a payment stands in none.
        version: Of the model.
    """
    columns: dict[str, Any] = {
        **{name: payments.column(name) for name in ("transaction_id", "timestamp", "amount", *CATEGORIES)},
        "journal_offset": offsets,
        "fraud_probability": probability,
        "log_odds": log_odds,
        "decision": [d.decision for d in decided],
        "action": [d.action for d in decided],
        "policy_version": [d.policy for d in decided],
        "ring_id": [None if ring is None else ring.ring_id for ring in rings],
        "model_version": pa.repeat(version, len(payments)),
    }
    return pa.table(
        [pa.array(columns[f.name], f.type) if isinstance(columns[f.name], list) else columns[f.name] for f in SCORES],
        schema=SCORES,
    )


def write_days(table: pa.Table, folder: Path, first: int) -> list[dict[str, Any]]:
    """Write a block's scores, a file for each day; a file is there whole or not at all.

    Args:
        table: Columns of `SCORES`, and whatever else.
        folder: Of the run.
        first: The block's first row, which names its files.

    Returns:
        Path in the folder, rows, bytes and checksum of each.
    """
    days = table["timestamp"].cast(pa.int64()).to_numpy() // DAY_US
    order = np.argsort(days, kind="stable")
    if (np.diff(days) < 0).any():
        table, days = table.take(pa.array(order)), days[order]
    begins = np.concatenate([[0], np.flatnonzero(np.diff(days)) + 1, [len(days)]])
    parts = []
    for i, j in zip(begins[:-1].tolist(), begins[1:].tolist(), strict=True):
        day = np.datetime64(int(days[i]), "D")
        path = folder / f"date={day}" / f"part-{first:012d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f".{path.name}.tmp")
        pq.write_table(table.slice(i, j - i), staged, compression="zstd", compression_level=1)
        with staged.open("rb+") as written:
            os.fsync(written.fileno())
        found = checksum(staged)
        staged.replace(path)
        parts.append({"path": path.relative_to(folder).as_posix(), "rows": j - i, **found})
    return parts
