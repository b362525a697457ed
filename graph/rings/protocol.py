"""What an engine of rings gives: to the graph that feeds it, and to people who ask for rings.

`GraphState` is written against `RingEngine` and knows nothing of components, so another notion of a ring is another
class with these methods. `RingIndex` is the one that ties accounts by what they share.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from graph.dag.categories import CurrencyNames
from graph.dag.protocol import Store
from graph.memory import ArrayPart
from graph.rings.events import RingEvent

Scores = Callable[[NDArray[np.int64]], NDArray[np.float64]]
"""Fraud probabilities of rows, int64 [n] -> float64 [n]."""


class Names(Protocol):
    """What people call nodes."""

    def __call__(self, nodes: NDArray[np.int64], rows: NDArray[np.int64], offsets: NDArray[np.int64], /) -> list[str]:
        """Names of nodes, each read from one payment that holds it.

        Args:
            nodes: int64 [n].
            rows: A payment in the buffer for each node, int64 [n].
            offsets: The journal offsets of those payments, int64 [n].
        """


@dataclass(frozen=True)
class SharedEntity:
    """What members share: its role, its name, and how many accounts it ties."""

    role: str
    name: str
    accounts: int


@dataclass(frozen=True)
class Ring:
    """Accounts tied by what they share, as of the newest payment or the moment that was asked for.

    Attributes:
        id: "R-<row of the payment that made it a ring>"; it stays through growth, merges (the older survives) and
            splits (the part with most members keeps it).
        accounts: Names, in order of first appearance.
        shared: Entities that tie at least two members, most accounts first.
        transactions: Rows of the payments that tie members, newest first, at most 200.
        first_seen: Journal time of the payment that made it a ring, us.
        last_seen: Journal time of the newest payment that ties members, us.
        at_risk: Sum of those payments inside the window that are not known to be legitimate, by currency, minor units.
        known_frauds: Payments of members inside the window that are known to be frauds.
        risk: 0 to 1, for ranking: structure and labels, raised by the scores of its payments where these are given.
    """

    id: str
    accounts: tuple[str, ...]
    shared: tuple[SharedEntity, ...]
    transactions: tuple[int, ...]
    first_seen: int
    last_seen: int
    at_risk: Mapping[str, int]
    known_frauds: int
    risk: float


class RingQueries(Protocol):
    """What people ask of rings."""

    def rings(self, limit: int = 100, min_accounts: int = 3, score: Scores | None = None) -> list[Ring]:
        """The riskiest rings, riskiest first.

        Args:
            limit: How many, at most.
            min_accounts: Accounts that a listed ring has, at least.
            score: Fraud probabilities of rows; where given, they weigh in the order.
        """

    def ring(self, ring_id: str, score: Scores | None = None) -> Ring | None:
        """The ring of that id, or the one it has merged into; None where there is none (any more)."""

    def subgraph(self, ring: Ring) -> nx.Graph:
        """Who shares what, for investigators.

        Returns:
            Nodes "role:name" with `role`, `name`, `first` (us, first payment seen that ties it) and `frauds` (known,
            among the payments seen); edges with `count`, `first`, `last` (us) and `amount` (minor units).
        """


class RingEngine(RingQueries, Protocol):
    """Rings kept in step with a store; its answers are as of the newest payment.

    Whoever asks and whoever applies events must take turns. Readers on other threads ask `publish` for a view in their
    turn, and read that whenever they like.
    """

    # Written by the journal's events, in order.

    def announce(self, last: int) -> None:
        """Rows before `last` are about to be appended to the store: what the buffer held in their slots goes."""

    def extend(self, first: int, last: int) -> None:
        """Take in the rows [first, last), just appended, and write what their rings are (`Store.write_rings`)."""

    def relabel(self, rows: NDArray[np.int64], deltas: NDArray[np.int8]) -> None:
        """Take in changes of belief.

        Args:
            rows: Payments whose label changed, int64 [n], all in the buffer.
            deltas: +1 now known as fraud, -1 no longer, int8 [n].
        """

    @property
    def safe(self) -> int:
        """No node last seen before this row is needed, now or later: the store may give its number to another."""

    def forget(self, nodes: NDArray[np.int32]) -> None:
        """The numbers of these nodes were given back, int32 [n], and will stand for others."""

    # Read.

    def take_events(self) -> list[RingEvent]:
        """What happened to rings since the last call, in journal order; nothing from an engine that does not listen.

        A function of the journal: the same however payments were grouped into calls, and after a snapshot.
        """

    def publish(self, names: Names | None = None, now: int | None = None) -> RingQueries:
        """The rings as they are now, for readers on other threads.

        Args:
            names: Looks names up for these readers; by default as the engine does.
            now: The readers' own time, us: what has expired by then is left out. By default, and at the earliest, that
                of the newest payment.
        """

    # Kept, and given to other processes.

    def parts(self) -> dict[str, ArrayPart]:
        """Every array, by name."""

    def adopt(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from the `arrays` of another engine of the same settings over the same history."""


class RingMaker(Protocol):
    """Makes an engine; the class of one is one."""

    def __call__(
        self, store: Store, *, names: Names | None = None, currencies: CurrencyNames | None = None
    ) -> RingEngine:
        """An engine that knows no payment yet, over an empty store."""
