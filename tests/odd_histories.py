"""Small histories as other people have them: each with one oddity that a service meets in its first week."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tests.world import UTC_US, reports, transactions

START_US = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
DAY_US = 86_400_000_000
BAD = (3, 7, 12)  # merchants at which most payments are frauds


@dataclass(frozen=True)
class Odd:
    """A history to make.

    Attributes:
        payments: How many.
        days: Over how many days.
        frauds: How many of them are frauds; by default two in three at bad merchants.
        labels: Share of the honest payments that get a label; 0 where only frauds are reported.
        fraud_days: Mean delay of a fraud's report.
        honest_days: Until an honest payment is cleared.
        known: Share of the frauds that are reported.
        accounts: How many; 0 for a new one each payment.
        merchants: Likewise.
        devices: Likewise.
        device_from: Share of the payments after which devices are first known.
        cut: Whether reports end where payments do.
    """

    payments: int = 1_200
    days: int = 90
    frauds: int | None = None
    labels: float = 0.0
    fraud_days: float = 4.0
    honest_days: float = 0.0
    known: float = 1.0
    accounts: int = 120
    merchants: int = 20
    devices: int = 60
    device_from: float = 0.0
    cut: bool = False

    def draw(self, seed: int = 0) -> tuple[pa.RecordBatch, pa.RecordBatch, NDArray[np.bool_]]:
        """Payments, labels and what the payments were, bool [n]."""
        rng, n = np.random.default_rng(seed), self.payments
        time = START_US + np.sort(rng.integers(0, self.days * DAY_US, n))

        def some(prefix: str, size: int) -> tuple[NDArray[np.int64], list[str | None]]:
            drawn = rng.integers(0, size, n) if size else np.arange(n)
            return drawn, [f"{prefix}{i}" for i in drawn]

        merchant, merchants = some("m", self.merchants)
        fraud = np.isin(merchant, BAD) & (rng.random(n) < 0.67)
        if self.merchants == 1:
            fraud = rng.random(n) < 0.1
        if self.frauds is not None:
            fraud[:] = False
            fraud[rng.choice(n, self.frauds, replace=False)] = True
        devices = some("d", self.devices)[1]
        devices[: int(self.device_from * n)] = [None] * int(self.device_from * n)
        amount = rng.lognormal(8, 1, n) * np.where(fraud, 2, 1)
        batch = transactions(
            {
                "transaction_id": pa.array([f"t{i}" for i in range(n)]),
                "timestamp": pa.array(time).cast(UTC_US),
                "account_id": pa.array(some("a", self.accounts)[1]),
                "merchant_id": pa.array(merchants),
                "device_id": pa.array(devices, pa.string()),
                "amount": pa.array(amount.astype(np.int64)),
                "currency": pa.array(["EUR"] * n),
            }
        )
        told = np.where(fraud, rng.random(n) < self.known, rng.random(n) < self.labels)
        late = np.where(fraud, rng.gamma(2, self.fraud_days / 2, n), self.honest_days)
        reported = time + (late * DAY_US).astype(np.int64)
        chosen = np.flatnonzero(told & ((reported <= time[-1]) | (not self.cut)))
        chosen = chosen[np.argsort(reported[chosen], kind="stable")]
        return batch, reports([f"t{i}" for i in chosen], fraud[chosen], reported[chosen]), fraud

    def write(self, folder: Path) -> Path:
        """`transactions.parquet` and `labels.parquet`."""
        folder.mkdir(parents=True, exist_ok=True)
        payments, labels, _ = self.draw()
        pq.write_table(pa.Table.from_batches([payments]), folder / "transactions.parquet")
        pq.write_table(pa.Table.from_batches([labels]), folder / "labels.parquet")
        return folder


BOTH = Odd(labels=1.0, honest_days=30)
ORDINARY: dict[str, Odd] = {
    "frauds only": Odd(),
    "frauds only, reports end with the payments": Odd(cut=True),
    "both classes, cleared after 6 days": replace(BOTH, honest_days=6),
    "both classes, cleared after 30 days": BOTH,
    "both classes, cleared after 30 days, reports end with the payments": replace(BOTH, cut=True),
    "known at once": Odd(labels=1.0, fraud_days=0.0),
    "partly labelled": Odd(labels=0.4, known=0.4, fraud_days=1.0, honest_days=2),
    "accounts that pay once": Odd(accounts=0),
    "devices that appear once": Odd(devices=0),
    "a column that is empty until late": Odd(device_from=0.9),
    "one merchant": Odd(merchants=1),
    "200 payments with 5 frauds": Odd(payments=200, frauds=5),
}
HOPELESS: dict[str, tuple[Odd, str]] = {
    "one fraud": (Odd(payments=200, frauds=1), "--test 0"),
    "no fraud": (Odd(payments=200, frauds=0, labels=1.0), "labelled as fraud"),
    "all fraud": (Odd(payments=200, frauds=200), "both classes"),
}
