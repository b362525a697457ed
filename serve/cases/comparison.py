"""What is unusual about a ring's accounts: beside accounts of like age and volume that nothing is known against."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graph.dag.protocol import DAY_US, Store
from graph.rings.protocol import Scores

ROWS: Final = 200_000  # newest payments that are looked at
PEERS: Final = 200  # accounts compared with, at most
LIKE: Final = 2.0  # a peer has at most so many times the payments and the age, and at least this part of them
COMPARISON: Final[pa.Schema] = pa.schema(
    [
        ("metric", pa.string()),
        ("ring", pa.float64()),  # median of the ring's accounts
        ("low", pa.float64()),  # tenth percentile of the peers
        ("median", pa.float64()),
        ("high", pa.float64()),  # ninetieth percentile of the peers
        ("unusual", pa.bool_()),  # whether the ring lies outside
        ("peers", pa.int64()),
    ]
)
_AGE, _PAYMENTS = "days since the first payment", "payments"


def compare(store: Store, accounts: NDArray[np.int64], suspects: NDArray[np.int64], probability: Scores) -> pa.Table:
    """Compare accounts with peers, in the newest payments of a graph.

    Args:
        store: The graph.
        accounts: Nodes of the ring's accounts, int64 [n].
        suspects: Nodes of accounts that are no peers: those of any ring, int64 [m].
        probability: Fraud probabilities of rows.

    Returns:
        A line for each metric, of `COMPARISON`; no line where nobody is like these accounts.
    """
    rows = np.arange(max(store.oldest, store.rows - ROWS), store.rows)
    entity = store.column("entity", rows)
    metrics = _metrics(store, rows, entity)
    nodes = metrics.pop("node").astype(np.int64)
    ours = np.isin(nodes, accounts)
    if not ours.any():
        return COMPARISON.empty_table()
    chosen = ~ours & ~np.isin(nodes, suspects)
    for name in (_AGE, _PAYMENTS):
        middle = float(np.median(metrics[name][ours]))
        least = middle / LIKE if middle > 1 else 0.0  # a day old or younger, one payment: all these are alike
        chosen &= (metrics[name] >= least) & (metrics[name] <= max(LIKE, middle * LIKE))
    peers = np.flatnonzero(chosen)
    peers = peers[np.linspace(0, len(peers) - 1, min(PEERS, len(peers))).astype(np.int64)]
    if not len(peers):
        return COMPARISON.empty_table()
    metrics["highest fraud probability"] = _highest(
        entity[:, 0], rows, nodes, np.r_[np.flatnonzero(ours), peers], probability
    )
    lines = [_line(name, values[ours], values[peers]) for name, values in metrics.items()]
    return pa.Table.from_pylist(lines, schema=COMPARISON)


def _metrics(store: Store, rows: NDArray[np.int64], entity: NDArray[np.int32]) -> dict[str, NDArray[np.float64]]:
    """A value for each account of the rows, by metric; `node` says which account it is."""
    time, amount = store.column("time", rows), store.column("amount", rows)
    nodes, of, counts = np.unique(entity[:, 0], return_inverse=True, return_counts=True)
    first = np.full(len(nodes), np.iinfo(np.int64).max)
    np.minimum.at(first, of, time)
    largest = np.zeros(len(nodes))
    np.maximum.at(largest, of, amount)
    mean = np.bincount(of, amount) / counts
    found: dict[str, NDArray[np.float64]] = {
        "node": nodes.astype(np.float64),
        _AGE: (store.clock - first) / DAY_US,
        _PAYMENTS: counts.astype(np.float64),
        "largest payment over the mean": largest / np.maximum(mean, 1),
        "payments in the busiest hour": _busiest(of, time, len(nodes)),
    }
    for r, name in enumerate(store.roles):
        if name != "account":
            there = entity[:, r] >= 0
            found[f"different {_PLURAL.get(name, name + 's')}"] = _distinct(of[there], entity[there, r], len(nodes))
            if name in ("device", "card", "ip"):
                found[f"accounts on its busiest {name}"] = _busiest_entity(of[there], entity[there, r], len(nodes))
    return found


_PLURAL: Final = {"ip": "addresses"}


def _pairs(of: NDArray[np.int64], other: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each pair of an account and an entity once."""
    pair = np.unique((of.astype(np.int64) << 32) | other.astype(np.int64))
    return pair >> 32, pair & 0xFFFFFFFF


def _distinct(of: NDArray[np.int64], other: NDArray[np.int32], n: int) -> NDArray[np.float64]:
    return np.bincount(_pairs(of, other)[0], minlength=n).astype(np.float64)


def _busiest_entity(of: NDArray[np.int64], other: NDArray[np.int32], n: int) -> NDArray[np.float64]:
    """Accounts on the entity of each account that most accounts are on."""
    account, entity = _pairs(of, other)
    out = np.zeros(n)
    if len(entity):
        np.maximum.at(out, account, np.bincount(entity)[entity])
    return out


def _busiest(of: NDArray[np.int64], time: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """Most payments of each account within one hour of the clock."""
    out = np.zeros(n)
    pair, counts = np.unique(np.stack([of, time // 3_600_000_000]), axis=1, return_counts=True)
    np.maximum.at(out, pair[0], counts)
    return out


def _highest(
    account: NDArray[np.int32],
    rows: NDArray[np.int64],
    nodes: NDArray[np.int64],
    wanted: NDArray[np.int64],
    probability: Scores,
) -> NDArray[np.float64]:
    """The highest probability among the payments of some accounts, 0 for the others."""
    out = np.zeros(len(nodes))
    mine = np.flatnonzero(np.isin(account, nodes[wanted]))
    if len(mine):
        np.maximum.at(out, np.searchsorted(nodes, account[mine]), probability(rows[mine]))
    return out


def _line(name: str, ring: NDArray[np.float64], peers: NDArray[np.float64]) -> dict[str, object]:
    middle = float(np.median(ring))
    low, median, high = (float(v) for v in np.quantile(peers, [0.1, 0.5, 0.9]))
    return {
        "metric": name,
        "ring": middle,
        "low": low,
        "median": median,
        "high": high,
        "unusual": middle < low or middle > high,
        "peers": len(peers),
    }


def likeness(ring: NDArray[np.float32], others: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Cosine of a ring's mean embedding with those of others, from which the mean of all is taken away.

    Args:
        ring: float32 [D].
        others: float32 [D], n of them.

    Returns:
        float64 [n], -1 to 1.
    """
    every = np.stack([ring, *others]).astype(np.float64)
    every -= every.mean(axis=0)
    norm = np.linalg.norm(every, axis=1)
    found: NDArray[np.float64] = every[1:] @ every[0] / np.maximum(norm[1:] * norm[0], 1e-12)
    return found
