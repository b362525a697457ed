"""Endless random histories: people come and go, share devices and cards, and their labels are late and revised."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from data.journal.protocol import Events, Kind
from graph.dag.protocol import DAY_US
from tests.world import START_US, UTC_US, reports, transactions

COLUMNS = {"account": "account_id", "merchant": "merchant_id", "device": "device_id"}
COLUMNS |= {"card": "card_id", "payee": "payee_id"}
HOUR_US = DAY_US // 24


def named(kind: str, numbers: Sequence[int]) -> pa.Array:
    """Names of entities; -1 is a missing one. Accounts and payees share theirs."""
    letter = {"account": "a", "payee": "a", "merchant": "m", "device": "d", "card": "c"}[kind]
    return pa.array([f"{letter}{i}" if i >= 0 else None for i in numbers], pa.string())


def payments(
    first: int, entities: dict[str, Sequence[int]], times: Sequence[int], amounts: Sequence[int]
) -> pa.RecordBatch:
    """A batch whose payments are called `t{first}`, `t{first + 1}`, ..."""
    n = len(times)
    return transactions(
        {
            "transaction_id": pa.array([f"t{first + i}" for i in range(n)]),
            "timestamp": pa.array(np.asarray(times, np.int64)).cast(UTC_US),
            "amount": pa.array(np.asarray(amounts, np.int64)),
            "currency": pa.array(["EUR"] * n),
            **{COLUMNS[name]: named(name, numbers) for name, numbers in entities.items()},
        }
    )


def sharing(
    seed: int,
    n: int,
    most: int = 40,
    fresh: float = 0.25,
    labels: float = 0.3,
    reach: int = 300,
    gap_us: int = HOUR_US,
    overdue: float = 0.0,
) -> Iterator[Events]:
    """Payments of accounts that share devices and cards, and pay each other, for a while, and are followed by others.

    Now and then an account of long ago comes back, a device becomes a hub, time stands still for a whole batch or
    jumps by weeks. Labels follow, of payments up to `reach` rows back, known or unknown to the graph by then. Some are
    overturned.

    Args:
        seed: Of the history.
        n: Payments.
        most: Payments of a batch.
        fresh: New accounts for each payment.
        labels: Label events for each payment.
        reach: Rows back that labels go.
        gap_us: Mean time between payments.
        overdue: Share of the labels that come long after they were reported, behind later ones.
    """
    rng, behind = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    row, offset, base, time = 0, 0, 0.0, START_US
    while row < n:
        size = min(n - row, int(rng.integers(1, most + 1)))
        account = (base + rng.integers(0, 30, size)).astype(np.int64)
        account = np.where(rng.random(size) < 0.08, rng.integers(0, int(base) + 30, size), account)
        device = 10 * (account // 4) + (rng.random(size) < 0.3) * rng.integers(1, 10, size)
        device = np.where(rng.random(size) < 0.06, 5 + 10 * rng.integers(0, int(base) // 4 + 8, size), device)
        device = np.where(rng.random(size) < 0.05, 9_000_000 + int(base) // 40, device)  # hubs
        device[rng.random(size) < 0.15] = -1
        card = np.where(rng.random(size) < 0.5, 1_000_000 + account // 6, 2_000_000 + row + np.arange(size))
        card[rng.random(size) < 0.4] = -1
        payee = np.where(rng.random(size) < 0.1, account, account // 5 * 5 + rng.integers(0, 6, size))
        payee = np.where(rng.random(size) < 0.04, int(base) // 30 * 30, payee)  # whom many pay
        payee[rng.random(size) < 0.6] = -1
        kind = rng.random()
        gaps = rng.exponential(gap_us, size).astype(np.int64)
        if kind < 0.1:
            gaps[:] = 0
        elif kind < 0.13:
            gaps[rng.integers(size)] += int(rng.choice([3, 20, 45])) * DAY_US
        times = time + np.cumsum(gaps)
        time = int(times[-1])
        entities = {"account": account, "merchant": rng.integers(0, 20, size), "device": device}
        entities |= {"card": card, "payee": payee}
        late = np.where(rng.random(size) < 0.1, rng.integers(0, 3 * DAY_US, size), 0)
        yield Events(Kind.TRANSACTION, offset, payments(row, entities, times - late, rng.integers(0, 10_000, size)))
        offset += size
        row += size
        base += fresh * size
        if (count := int(rng.binomial(size, labels))) > 0:
            chosen = np.maximum(0, row - 1 - rng.integers(0, reach, count))
            reported = time - np.where(behind.random(count) < overdue, behind.integers(0, 20 * DAY_US, count), 0)
            yield Events(Kind.LABEL, offset, reports([f"t{i}" for i in chosen], rng.random(count) < 0.6, reported))
            offset += count
