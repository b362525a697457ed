"""The risk rings of a history: every one that ever stood, found as the investigator would, listed and written."""

import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.table import Table

from data.currency import format_totals
from data.history import History
from data.report import Report, silent
from data.schema import TIMESTAMP
from gnn.model.artifact import Artifact
from gnn.score.replay import open_model
from gnn.score.ring_feed import RingFeed
from graph.rings.records import LISTED, RingRecord, RingState, totals
from graph.rings.risk.engine import RiskRings
from graph.state import GraphState
from serve.settings import Settings

_MONEY: Final = pa.list_(pa.struct([("currency", pa.string()), ("amount", pa.int64())]))
KINDS_OF_MONEY: Final = ("tried", "lost", "stopped")
RINGS_SCHEMA: Final[pa.Schema] = pa.schema(
    [
        ("ring_id", pa.string()),
        ("state", pa.string()),
        ("first_seen", TIMESTAMP),
        ("named_at", TIMESTAMP),  # null for a ring that never had the listing confidence
        ("last_seen", TIMESTAMP),
        ("ended_at", TIMESTAMP),
        ("confidence", pa.float64()),
        ("accounts", pa.int32()),
        ("payments", pa.int32()),
        ("known_frauds", pa.int32()),
        *((f"money_{kind}", _MONEY) for kind in KINDS_OF_MONEY),
        ("parent_ids", pa.list_(pa.string())),
        ("merged_into", pa.string()),
        ("reasons", pa.string()),
    ]
)
MEMBERS_SCHEMA: Final[pa.Schema] = pa.schema(
    [
        ("ring_id", pa.string()),
        ("role", pa.string()),
        ("entity_id", pa.string()),
        ("joined_at", TIMESTAMP),
        ("named_at", TIMESTAMP),
        ("member_role", pa.string()),
    ]
)


class RiskHistory(NamedTuple):
    """A history that was replayed, and its risk rings as of its end.

    Attributes:
        history: The payments and labels.
        state: Their graph.
        rings: Every ring that ever stood.
        probability: What the model said of each payment, float64 [n].
    """

    history: History
    state: GraphState
    rings: RiskRings
    probability: NDArray[np.float64]


DECLINE: Final[float] = Settings.model_fields["decline"].default


def find_risk_rings(
    artifact: Artifact, history: History, report: Report = silent, decline: float = DECLINE
) -> RiskHistory:
    """Replay a history, and keep its risk rings on the way.

    Args:
        artifact: The model; its CPU scores decide which payments are risky.
        history: Payments and labels.
        report: Told of progress.
        decline: Probability from which the service declines a payment: its money counts as stopped.

    Returns:
        The graph and the rings as of the end of the history; names are read from it.
    """
    expected = len(history.payments)
    probability = np.zeros(expected)
    state, scorer = open_model(artifact, rows=expected, source=history)
    rings = RiskRings(state.store, history)
    feed = RingFeed(state, scorer, rings, decline)
    for events in history.events:
        for scored in feed.apply(events):
            probability[scored.rows.start : scored.rows.stop] = scored.probability
            report("replaying", scored.rows.stop / max(1, expected))
    for scored in feed.settle():
        probability[scored.rows.start : scored.rows.stop] = scored.probability
        report("replaying", scored.rows.stop / max(1, expected))
    return RiskHistory(history, state, rings, probability)


def ranked(records: list[RingRecord], limit: int | None = None) -> list[RingRecord]:
    """Those that were ever named, those that stand first, of the highest confidence first, then the newest."""
    named = (r for r in records if r.named_at is not None and r.merged_into is None)
    return sorted(named, key=lambda r: (r.state is RingState.ENDED, -r.confidence, -r.first_seen, r.id))[:limit]


def write_rings(records: list[RingRecord], folder: Path) -> tuple[Path, Path]:
    """Write `rings.parquet` and `members.parquet`, of `RINGS_SCHEMA` and `MEMBERS_SCHEMA`, in order of founding."""
    folder.mkdir(parents=True, exist_ok=True)
    rings = [_flat(record) for record in records]
    members = [
        {
            "ring_id": record.id,
            "role": member.role,
            "entity_id": member.name,
            "joined_at": member.joined_at,
            "named_at": member.named_at,
            "member_role": member.member_role.value,
        }
        for record in records
        for member in record.members
    ]
    paths = folder / "rings.parquet", folder / "members.parquet"
    for path, rows, schema in zip(paths, (rings, members), (RINGS_SCHEMA, MEMBERS_SCHEMA), strict=True):
        pq.write_table(pa.Table.from_pylist(rows, schema), path)
    return paths


def _flat(record: RingRecord) -> dict[str, Any]:
    def money(kind: str) -> list[dict[str, Any]]:
        return [{"currency": code, "amount": amount} for code, amount in totals(record.money, kind)]

    return {
        "ring_id": record.id,
        "state": record.state.value,
        **{name: getattr(record, name) for name in ("first_seen", "named_at", "last_seen", "ended_at", "confidence")},
        "accounts": len(record.accounts),
        "payments": len(record.evidence),
        "known_frauds": len(record.known_frauds),
        **{f"money_{kind}": money(kind) for kind in KINDS_OF_MONEY},
        "parent_ids": list(record.parents),
        "merged_into": record.merged_into,
        "reasons": record.reasons,
    }


def risk_rings_json(found: list[RingRecord]) -> str:
    """For programs: records, times in ISO 8601, money in minor units by currency."""

    def plain(record: RingRecord) -> dict[str, Any]:
        flat = _flat(record)
        times = {name: _iso(flat[name]) for name in ("first_seen", "named_at", "last_seen", "ended_at")}
        members = [
            {
                "role": m.role,
                "name": m.name,
                "member_role": m.member_role.value,
                "joined_at": _iso(m.joined_at),
                "named_at": _iso(m.named_at),
            }
            for m in record.members
        ]
        evidence = {"evidence": list(record.evidence), "known_frauds": list(record.known_frauds)}
        return {**flat, **times, "accounts": list(record.accounts), "members": members, **evidence}

    return json.dumps([plain(record) for record in found], indent=2, ensure_ascii=False) + "\n"


def risk_rings_csv(found: list[RingRecord]) -> str:
    """For spreadsheets: a line for each ring. Lists are separated by blanks; money is `EUR:500`, in minor units."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    times = ("first_seen", "named_at", "last_seen", "ended_at")
    money = tuple(f"money_{kind}" for kind in KINDS_OF_MONEY)
    lines.writerow(
        ("ring_id", "state", "confidence", "accounts", "shared", *times, "known_frauds", *money, "evidence", "reasons")
    )
    for r in found:
        shared = " ".join(f"{m.role}:{m.name}" for m in r.members if m.role != "account")
        sums = [" ".join(f"{code}:{n}" for code, n in totals(r.money, kind)) for kind in KINDS_OF_MONEY]
        moments = [_iso(getattr(r, name)) or "" for name in times]
        lists = (" ".join(r.accounts), shared)
        lines.writerow(
            (r.id, r.state, r.confidence, *lists, *moments, len(r.known_frauds), *sums, " ".join(r.evidence), r.reasons)
        )
    return text.getvalue()


def risk_rings_table(found: list[RingRecord], stood: int) -> Table:
    """For people; `stood` is how many rings there ever were."""
    table = Table(
        title=f"{len(found)} of {stood} risk rings, those that stand first", caption=f"named from {LISTED:.0%} on"
    )
    for name in ("ring", "state", "confidence", "accounts", "shared", "named", "payments", "tried", "known frauds"):
        table.add_column(name, justify="left" if name in ("ring", "state", "shared", "named") else "right")
    for r in found:
        others = [m for m in r.members if m.role != "account"]
        shared = ", ".join(f"{m.role} {m.name}" for m in others[:2])
        table.add_row(
            r.id,
            r.state.value,
            f"{r.confidence:.2f}",
            str(len(r.accounts)),
            shared + (f" +{len(others) - 2}" if len(others) > 2 else ""),
            "" if r.named_at is None else f"{datetime.fromtimestamp(r.named_at / 1e6, UTC):%Y-%m-%d %H:%M}",
            f"{len(r.evidence):,}",
            format_totals(dict(totals(r.money))),
            str(len(r.known_frauds)),
        )
    return table


def _iso(us: int | None) -> str | None:
    return None if us is None else datetime.fromtimestamp(us / 1e6, UTC).isoformat().replace("+00:00", "Z")
