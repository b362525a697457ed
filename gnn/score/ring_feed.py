"""Risk rings fed by a model: payments are scored in batches, and reach the rings in the order of the journal."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.journal.protocol import Events, Kind
from data.outcomes import whole
from gnn.score.cpu_scorer import ROWS_PER_BATCH
from gnn.score.replay import Scored
from graph.rings.risk.engine import RiskRings
from graph.rings.risk.feed import one_by_one
from graph.state import GraphState


class ScoresRows(Protocol):
    """The one thing that is needed of a `Scorer`."""

    def score(self, first: int, last: int) -> NDArray[np.float64]:
        """Fraud probabilities of the rows [first, last), just appended; float64 [last - first]."""


class RingFeed:
    """Keeps the graph and its risk rings current with a journal.

    A payment is scored as of itself, so that scores may wait for a batch; what labels said waits with them.

    Args:
        state: The graph.
        scorer: Scores its payments: the CPU's, since a GPU's differ in the last places and would cross the threshold
            of risk elsewhere.
        rings: The risk rings of `state.store`.
        decline: Probability from which the service declines a payment: its money counts as stopped, unless an outcome
            says otherwise.
    """

    def __init__(self, state: GraphState, scorer: ScoresRows, rings: RiskRings, decline: float = float("inf")) -> None:
        self.state, self.scorer, self.rings, self.decline = state, scorer, rings, decline
        self._scored = state.store.rows  # rows before it are in the rings
        # What waits for the payments before it: the first row after it, labels or outcomes.
        self._labels: list[tuple[int, NDArray[np.int64], NDArray[np.int8], NDArray[np.int64]]] = []

    def apply(self, events: Events) -> Iterator[Scored]:
        """Take in the next events; gives scores of payments as they are made.

        Raises:
            GraphError: See `GraphState.apply`.
        """
        for part in one_by_one(events):
            for start in range(0, len(part.batch), ROWS_PER_BATCH):
                piece = Events(part.kind, part.offset + start, part.batch.slice(start, ROWS_PER_BATCH))
                self.state.apply(piece)
                if part.kind is Kind.LABEL:
                    self._labelled(piece)
                elif part.kind is Kind.OUTCOME:
                    yield from self.settle()
                    self._became(piece)
                elif self.state.store.rows - self._scored >= ROWS_PER_BATCH:
                    yield from self.settle()

    def settle(self) -> Iterator[Scored]:
        """Score what waits, and bring the rings up to date with all that was applied; gives the scores."""
        first, last = self._scored, self.state.store.rows
        probability = self.scorer.score(first, last) if last > first else np.empty(0)
        at = first
        for before, rows, believed, times in [*self._labels, (last, *_NOTHING)]:
            if before > at:
                self._extend(range(at, before), probability[at - first : before - first])
                at = before
            self.rings.relabel(rows, believed, times)
        self._labels, self._scored = [], last
        if last > first:
            yield Scored(range(first, last), probability)

    def _extend(self, rows: range, probability: NDArray[np.float64]) -> None:
        self.rings.extend(rows, probability)
        declined = rows.start + np.flatnonzero(probability >= self.decline)
        for row, at in zip(declined, self.state.store.column("time", declined).tolist(), strict=True):
            self.rings.outcomes(np.array([row]), np.array([True]), at)

    def _labelled(self, events: Events) -> None:
        rows = self.state.transaction_rows(events.batch.column("transaction_id"))
        believed = np.full(len(rows), -1, np.int8)
        believed[rows >= 0] = self.state.store.believed(rows[rows >= 0])
        times = events.batch.column("reported_at").cast(pa.int64()).to_numpy()
        self._labels.append((self.state.store.rows, rows, believed, times))

    def _became(self, events: Events) -> None:
        """A payment's money is safe, or is gone, by the last outcome that says so; most say neither."""
        rows = self.state.transaction_rows(events.batch.column("transaction_id"))
        paid = np.zeros(len(rows), np.int64)
        paid[rows >= 0] = self.state.store.column("amount", rows[rows >= 0])
        outcomes, amounts = (events.batch.column(name).to_pylist() for name in ("outcome", "amount"))
        stopped = whole(outcomes, amounts, paid.tolist())
        for row, held, at in zip(rows, stopped, events.batch.column("at").cast(pa.int64()).to_numpy(), strict=True):
            if held is not None:
                self.rings.outcomes(np.array([row]), np.array([held]), int(at))


_NOTHING = (np.empty(0, np.int64), np.empty(0, np.int8), np.empty(0, np.int64))
