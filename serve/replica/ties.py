"""Tie rings for people: read from the graph of a replica while it scores on."""

import threading
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from data.journal.protocol import Journal
from graph.errors import StaleRings
from graph.rings.protocol import Ring, RingQueries
from serve.problems import Problem
from serve.replica.journals import open_journal
from serve.replica.slot import ModelSlot
from serve.settings import Settings


class TieReader:
    """Answers which accounts rare devices and cards tie together; any thread may ask.

    A view of the rings is taken under the lock of the graph. Ranking, evidence and names are read outside it.

    Args:
        settings: They name the journal, which names are read from.
        graph: Held by whoever reads or changes the graph.
        slot: Gives the live model's slot, and with it the graph.
    """

    def __init__(self, settings: Settings, graph: threading.Lock, slot: Callable[[], ModelSlot]) -> None:
        self._settings, self._graph, self._slot = settings, graph, slot
        self._names = threading.Lock()  # of the journal that names are read from, beside the one that is written
        self._journal: Journal | None = None

    def rings(self, limit: int, now: int | None = None) -> list[Ring]:
        """The riskiest rings, as of a moment (us) or the newest payment.

        Raises:
            Problem: 503: the graph moved on faster than they could be read.
        """
        for _ in range(2):
            try:
                return self._view(now).rings(limit, score=self._scores)
            except StaleRings:  # the buffer went once round while they were ranked
                continue
        raise Problem(503, "Unavailable", "the graph moves on faster than rings are listed; ask for fewer")

    def ring(self, ring_id: str, now: int | None = None) -> Ring | None:
        """One ring, as of a moment (us) or the newest payment.

        Raises:
            Problem: 503: the graph moved on faster than it could be read.
        """
        for _ in range(2):
            try:
                return self._view(now).ring(ring_id, score=self._scores)
            except StaleRings:
                continue
        raise Problem(503, "Unavailable", "the graph moves on faster than this ring is read; ask again")

    def transaction_ids(self, rows: Sequence[int]) -> list[str]:
        """The ids of payments, by their rows."""
        with self._graph:
            offsets = self._slot().state.store.offsets.of(np.array(rows, np.int64))
        with self._names:
            found: list[str] = self._reader().take(offsets)["transaction_id"].to_pylist()
        return found

    def close(self) -> None:
        """Let go of the journal."""
        with self._names:
            if self._journal is not None:
                self._journal.close()

    def _view(self, now: int | None) -> RingQueries:
        with self._graph:
            return self._slot().state.rings.publish(names=self._named, now=now)

    def _named(self, nodes: NDArray[np.int64], rows: NDArray[np.int64], offsets: NDArray[np.int64], /) -> list[str]:
        with self._names:
            return self._slot().state.names(nodes, rows, offsets, source=self._reader())

    def _reader(self) -> Journal:
        """The journal once more, for readers beside the thread that scores; `_names` is held."""
        if self._journal is None:
            self._journal = open_journal(self._settings, readonly=True)
        return self._journal

    def _scores(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Probabilities of a ring's payments, as far as they are known; they weigh in where rings are ranked."""
        known = self._slot().known_probabilities(rows)
        return known if len(known) else np.zeros(1)
