"""The riskiest rings of a history: found, listed and drawn."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from data.files.readers import OnRefusal
from data.files.sources import merged
from data.journal.memory import MemoryJournal
from data.journal.protocol import Kind
from data.journal.sqlite import SqliteJournal
from gnn.model.artifact import load
from gnn.score.replay import numbered, open_model, score_events
from graph.rings.index import Ring
from graph.rings.picture import draw_ring
from graph.state import GraphState
from serve.errors import ServeError

Report = Callable[[str, float], None]


def find_rings(
    model: Path,
    journal: Path | None = None,
    transactions: Path | str | None = None,
    labels: Path | str | None = None,
    limit: int = 10,
    report: Report = lambda what, share: None,
    *,
    strict: bool = False,
    on_refusal: OnRefusal | None = None,
) -> tuple[GraphState, list[Ring]]:
    """Replay a journal or files, and rank the rings as of their end.

    Args:
        model: Folder of the artifact; its scores weigh in the ranking.
        journal: A service's journal, or
        transactions: a file of payments, with
        labels: their labels.
        limit: Rings, riskiest first.
        report: Called with progress.
        strict: Stop at the first refused row.
        on_refusal: Told of each refused row.

    Raises:
        ServeError: There is no such journal.
    """
    artifact = load(model)
    if journal is not None:
        if not journal.exists():
            raise ServeError(f"no journal at {journal}")
        with SqliteJournal(journal, readonly=True) as opened:
            kept = MemoryJournal(opened.replay())
    else:
        assert transactions is not None
        kept = MemoryJournal(numbered(merged(transactions, labels, strict=strict, on_refusal=on_refusal)))
    expected = sum(len(e.batch) for e in kept.replay() if e.kind is Kind.TRANSACTION)
    state, scorer = open_model(artifact, rows=expected, source=kept)
    probability = np.zeros(expected, np.float64)
    for scored in score_events(state, scorer, kept.replay()):
        probability[scored.rows.start : scored.rows.stop] = scored.probability
        report("replaying", scored.rows.stop / max(1, expected))

    def score(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return probability[rows]

    return state, state.rings.rings(limit, score=score)


def draw_rings(state: GraphState, found: list[Ring], folder: Path) -> list[Path]:
    """Draw each ring as `<id>.png` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for ring in found:
        path = folder / f"{ring.id}.png"
        draw_ring(ring, state.rings.subgraph(ring), path)
        paths.append(path)
    return paths


def rings_table(found: list[Ring]) -> Table:
    """For people."""
    table = Table(title="riskiest rings")
    for name in ("ring", "accounts", "shared", "first seen", "payments", "at risk", "known frauds", "risk"):
        table.add_column(name, justify="left" if name in ("ring", "shared", "first seen") else "right")
    for ring in found:
        shared = ", ".join(f"{entity.role} {entity.name} ({entity.accounts})" for entity in ring.shared[:2])
        more = f" +{len(ring.shared) - 2}" if len(ring.shared) > 2 else ""
        table.add_row(
            ring.id,
            str(len(ring.accounts)),
            shared + more,
            f"{datetime.fromtimestamp(ring.first_seen / 1e6, UTC):%Y-%m-%d %H:%M}",
            f"{len(ring.transactions):,}",
            f"{ring.amount_at_risk / 100:,.2f}",
            str(ring.known_frauds),
            f"{ring.risk:.2f}",
        )
    return table
