"""The demo's table of planted rings: how many were named while they were active."""

from collections import defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table

from graph.dag.protocol import DAY_US
from graph.rings.records import LISTED
from graph.rings.risk.engine import RiskRings

AFTER_US = 3 * DAY_US  # a ring counts as it stood so long after its last fraud


def named_while_active(rings: RiskRings, world: Path) -> Table:
    """How many planted rings were named, by kind.

    One is if half of its accounts were in one listed ring, and half of that ring's accounts were its, three days after
    its last fraud.

    Args:
        rings: Of the whole history.
        world: Folder of the made world.
    """
    planted: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in pq.read_table(world / "members.parquet").to_pylist():
        planted[row["kind"], row["ring_id"]].add(row["account_id"])
    last = _last_frauds(world)
    named: dict[str, list[bool]] = defaultdict(list)
    for (kind, ring), accounts in sorted(planted.items()):
        at = last.get(ring)
        found = [] if at is None else rings.records(as_of=at + AFTER_US, confidence=LISTED)
        named[kind].append(
            any(
                r.ended_at is None
                and r.confidence >= LISTED
                and 2 * len(accounts & set(r.accounts)) >= max(len(accounts), len(r.accounts))
                for r in found
            )
        )
    table = Table(title="planted rings named while they were active")
    table.add_column("kind")
    table.add_column("planted", justify="right")
    table.add_column("named", justify="right")
    for kind, hits in sorted(named.items()):
        table.add_row(kind, str(len(hits)), str(sum(hits)))
    hits = [hit for kind in named.values() for hit in kind]
    table.add_row("all", str(len(hits)), str(sum(hits)))
    return table


def _last_frauds(world: Path) -> dict[str, int]:
    """Journal time of each ring's last fraud, us."""
    truth = pq.read_table(world / "truth.parquet", columns=["is_fraud", "ring_id"]).to_pydict()
    times = pq.read_table(world / "transactions.parquet", columns=["timestamp"])["timestamp"].cast(pa.int64())
    last: dict[str, int] = {}
    for fraud, ring, time in zip(truth["is_fraud"], truth["ring_id"], times.to_pylist(), strict=True):
        if fraud and ring is not None:
            last[ring] = max(last.get(ring, 0), time)
    return last
