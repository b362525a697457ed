"""The riskiest rings of a history: found, listed and drawn."""

import csv
import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from rich.table import Table

from data.currency import format_totals
from data.history import History
from data.report import Report, silent
from gnn.model.artifact import Artifact
from gnn.score.replay import open_model, score_events
from graph.rings.index import Ring
from graph.rings.picture import draw_ring
from graph.rings.protocol import RingQueries
from graph.state import GraphState
from serve.http.wire import RingOut, ring_out

_RINGS: Final = TypeAdapter(list[RingOut])
_NUMBERS: Final = ("known_frauds", "risk")


def find_rings(
    artifact: Artifact, history: History, limit: int = 10, report: Report = silent, as_of: int | None = None
) -> tuple[GraphState, list[Ring]]:
    """Replay a history, and rank the rings as of its last event: what has expired by then is left out.

    Args:
        artifact: The model; its scores weigh in the ranking.
        history: Payments and labels.
        limit: Rings, riskiest first.
        report: Told of progress.
        as_of: An earlier moment, us, for a history whose last labels come long after its last payments.

    Returns:
        The graph as of the end of the history, which names entities from it, and the rings.
    """
    expected = len(history.payments)
    state, scorer = open_model(artifact, rows=expected, source=history)
    probability = np.zeros(expected, np.float64)
    for scored in score_events(state, scorer, history.events):
        probability[scored.rows.start : scored.rows.stop] = scored.probability
        report("replaying", scored.rows.stop / max(1, expected))

    def score(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return probability[rows]

    return state, _view(state, as_of).rings(limit, score=score)


def _view(state: GraphState, as_of: int | None) -> RingQueries:
    return state.rings.publish(now=state.store.clock if as_of is None else as_of)


def draw_rings(state: GraphState, found: list[Ring], folder: Path, as_of: int | None = None) -> list[Path]:
    """Draw each ring as `<id>.png` into a folder; `as_of` is that of `find_rings`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths, view = [], _view(state, as_of)
    for ring in found:
        path = folder / f"{ring.id}.png"
        draw_ring(ring, view.subgraph(ring), path)
        paths.append(path)
    return paths


def rings_json(state: GraphState, found: list[Ring]) -> str:
    """For programs: as `GET /v1/ties` answers."""
    return _RINGS.dump_json(_out(state, found), indent=2).decode() + "\n"


def rings_csv(state: GraphState, found: list[Ring]) -> str:
    """For spreadsheets: a line for each ring. Lists are separated by blanks; money is in minor units."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(("id", "accounts", "shared", "first_seen", "last_seen", "transactions", "at_risk", *_NUMBERS))
    for ring in _out(state, found):
        shared = " ".join(f"{entity.role}:{entity.name}" for entity in ring.shared)
        lists = (" ".join(ring.accounts), shared, ring.first_seen.isoformat(), ring.last_seen.isoformat())
        lines.writerow(
            (ring.id, *lists, " ".join(ring.transactions), _money(ring), *(getattr(ring, name) for name in _NUMBERS))
        )
    return text.getvalue()


def _out(state: GraphState, found: list[Ring]) -> list[RingOut]:
    return [ring_out(ring, state.transaction_ids(np.array(ring.transactions, np.int64))) for ring in found]


def _money(ring: RingOut) -> str:
    return " ".join(f"{currency}:{amount}" for currency, amount in sorted(ring.at_risk.items()))


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
            format_totals(ring.at_risk),
            str(ring.known_frauds),
            f"{ring.risk:.2f}",
        )
    return table
