"""Write the golden files: `python -m tests.golden.record`, or with `--histories` their histories and models too."""

import json
import platform
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.world.synthetic import WorldConfig, simulate
from gnn.model.artifact import untrained
from tests.golden.replayed import FOLDER, HISTORIES, answers, files, scores
from tests.world import UTC_US, label_batch, payment_batch, transactions

DAY = 86_400_000_000
SHAPES = {
    "world": {"roles": ("account", "merchant", "device"), "settle_days": 20.0, "neighbours": 8},
    "ties": {"roles": ("account", "merchant", "device"), "window_rows": 900, "window_days": 40, "neighbours": 5},
    "sparse": {"roles": ("account", "merchant", "device", "ip", "card", "payee"), "layers": 3, "neighbours": 4},
}


def histories() -> None:
    """Three histories: a simulated world; ties that merge, split and expire; every role, mostly missing."""
    world = simulate(WorldConfig(transactions=2_400, seed=11, days=40))
    made = {"world": (world.transactions, world.labels)}
    payments = payment_batch(2_400, seed=3, accounts=400, devices=220)
    spread = pa.array(np.linspace(0, 120 * DAY, 2_400).astype(np.int64))  # 120 days: ties and windows expire
    times = pa.array(payments.column("timestamp").cast(pa.int64()).to_numpy() + spread.to_numpy()).cast(UTC_US)
    columns = {name: payments.column(name) for name in payments.schema.names} | {"timestamp": times}
    made["ties"] = _with_labels(transactions(columns), overturn=5)
    rng = np.random.default_rng(5)
    columns = {name: payments.column(name) for name in payments.schema.names}
    for name, prefix, size in (("ip", "i", 90), ("card", "c", 300)):
        column = next(field for field in payments.schema.names if field.startswith(name))
        chosen = rng.integers(0, size, 2_400)
        columns[column] = pa.array([f"{prefix}{i}" if i % 3 else None for i in chosen.tolist()])
    made["sparse"] = _with_labels(transactions(columns), overturn=3)
    for name, (rows, labels) in made.items():
        folder = FOLDER / name
        folder.mkdir(exist_ok=True)
        for table, path in zip((rows, labels), files(name), strict=True):
            pq.write_table(table, path, compression="zstd")
        shape = dict(SHAPES[name])
        untrained(shape.pop("roles"), seed=len(name), cache="int8", **shape).save(folder / "model")


def _with_labels(payments: pa.RecordBatch, overturn: int) -> tuple[pa.Table, pa.Table]:
    rows = list(range(0, 2_300, 31))
    first = label_batch(payments, rows, [row % 4 > 0 for row in rows], 2 * DAY)
    again = label_batch(payments, rows[::overturn], [row % 4 == 0 for row in rows[::overturn]], 9 * DAY)
    return pa.Table.from_batches([payments]), pa.Table.from_batches([first, again]).sort_by("reported_at")


def record() -> None:
    """The results, and the kind of machine that they are of."""
    for name in HISTORIES:
        np.savez_compressed(FOLDER / name / "scores.npz", **scores(name))
        lines = "\n".join(json.dumps(answer, sort_keys=True) for answer in answers(name))
        (FOLDER / name / "answers.jsonl").write_text(lines + "\n")
    (FOLDER / "machine.json").write_text(json.dumps({"processor": processor(), "system": platform.system()}) + "\n")


def processor() -> str:
    """The processor, as far as results depend on it: libm picks its functions by what it can do."""
    try:
        with open("/proc/cpuinfo") as lines:
            found = next(line for line in lines if line.startswith("flags")).split()
    except (OSError, StopIteration):
        return platform.machine()
    return " ".join([platform.machine(), *(flag for flag in ("fma", "avx2", "avx512f") if flag in found)])


if __name__ == "__main__":
    if "--histories" in sys.argv:
        histories()
    record()
