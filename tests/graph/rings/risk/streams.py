"""Streams for tests of risk rings, and a way to feed them."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.history import History
from data.journal.protocol import Events, Kind
from data.world.synthetic import WorldConfig, simulate
from graph.rings.risk.engine import RiskRings, RiskSettings
from graph.rings.risk.feed import one_by_one
from graph.state import GraphState


@cache
def small_world(seed: int = 3) -> tuple[History, NDArray[np.float64]]:
    """A world of few payments, with scores that know most frauds and suspect some others."""
    world = simulate(WorldConfig(transactions=6000, seed=seed, days=60))
    rng = np.random.default_rng(seed)
    fraud = world.truth["is_fraud"].to_numpy(zero_copy_only=False)
    scores = np.where(fraud, rng.uniform(0, 1, len(fraud)) ** 0.5, rng.uniform(0, 1, len(fraud)) ** 40)
    return History.from_arrow(world.transactions, world.labels), scores


def pieces(history: History, size: int) -> Iterator[Events]:
    """The events of a history, at most `size` at a time."""
    for events in history.events:
        for part in one_by_one(events):
            for start in range(0, len(part.batch), size):
                yield Events(part.kind, part.offset + start, part.batch.slice(start, size))


def feed(
    history: History, scores: NDArray[np.float64], size: int = 1 << 30, settings: RiskSettings | None = None
) -> tuple[RiskRings, NDArray[np.int64], GraphState]:
    """An engine that has seen a history, and the ring over each payment before it came."""
    state = GraphState(history.roles, capacity=1 << 17, source=history)
    rings = RiskRings(state.store, history, settings or RiskSettings())
    before = []
    for events in pieces(history, size):
        rows = state.apply(events)
        if events.kind is Kind.TRANSACTION:
            before.append(rings.extend(rows, scores[rows.start : rows.stop]))
        else:
            label(rings, state, events)
    return rings, np.concatenate(before), state


def label(rings: RiskRings, state: GraphState, events: Events) -> None:
    """Tell an engine of labels that the graph has taken in."""
    rows = state.transaction_rows(events.batch.column("transaction_id"))
    believed = np.full(len(rows), -1, np.int8)
    believed[rows >= 0] = state.store.believed(rows[rows >= 0])
    rings.relabel(rows, believed, events.batch.column("reported_at").cast(pa.int64()).to_numpy())
