"""Risk rings: who belongs together among the few risky payments, under one name for as long as it lasts.

`RiskRings` is fed in journal order by whoever holds the graph and the model. Its rings are a function of the journal
and of the probabilities: the same however payments and labels were grouped into calls.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from data.journal.protocol import PaymentSource
from graph.dag.protocol import Store
from graph.errors import GraphError
from graph.rings.records import LISTED, RingRecord
from graph.rings.risk.book import Book
from graph.rings.risk.ledger import NEVER, At, Case, RingChange
from graph.rings.risk.record import record_of
from graph.rings.risk.settings import RiskSettings, rules_for
from graph.rings.risk.stream import learn, take_in
from graph.rings.risk.tables import CLOCK, TAIL, Tables, empty_tables, with_room

__all__ = ["RingChange", "RiskRings", "RiskSettings"]

ROWS_PER_CALL: Final = 4096  # rows that a compiled pass takes: bounds the room that must be ready for it
PLACES_AHEAD: Final = 256
DEFAULT: Final = RiskSettings()


class RiskRings:
    """The risk rings of a store.

    One thread at a time may use it.

    Args:
        store: The rows.
        source: Where names, transaction ids and currencies are read; without one, pseudonyms and row numbers.
        settings: What a ring is.

    Raises:
        GraphError: The store's window fills its buffer, or two roles beside `account` share an entity type.

    Example:
        >>> from datetime import UTC, datetime
        >>> import numpy as np, pyarrow as pa
        >>> from data.history import History
        >>> from graph.state import GraphState
        >>> history = History.from_arrow(pa.table({
        ...     "transaction_id": ["t1", "t2", "t3", "t4"], "account_id": ["ann", "bob", "cem", "dan"],
        ...     "timestamp": [datetime(2026, 1, 1, hour, tzinfo=UTC) for hour in range(4)],
        ...     "merchant_id": ["kiosk"] * 4, "device_id": ["phone", "phone", "phone", "laptop"],
        ...     "amount": [100, 250, 400, 50], "currency": ["EUR"] * 4,
        ... }))
        >>> state = GraphState(history.roles, source=history)
        >>> rings = RiskRings(state.store, history)
        >>> for events in history.events:
        ...     rows = state.apply(events)
        >>> before = rings.extend(range(4), np.array([0.9, 0.8, 0.9, 0.01]))
        >>> [record] = rings.records()
        >>> record.id, record.accounts, record.money[0].tried
        ('K-2', ('ann', 'bob', 'cem'), 750)
    """

    def __init__(self, store: Store, source: PaymentSource | None = None, settings: RiskSettings = DEFAULT) -> None:
        self.store, self.source = store, source
        self.rules = rules_for(store, settings)
        self._t: Tables = empty_tables(store.capacity, len(store.roles))
        self._next = store.rows  # row that comes next
        self._t.now[TAIL] = store.rows
        self._book = Book(store, source, settings.company)
        self._now = 0  # the readers' time

    # Fed in journal order.

    def extend(self, rows: range, probability: NDArray[np.floating]) -> NDArray[np.int64]:
        """Take in payments just appended and scored.

        Args:
            rows: They must follow on.
            probability: Of fraud, by the model live at each, float [n].

        Returns:
            For each the ring that stood over one of its entities before it came, as the row in its id, or -1 for none;
            int64 [n]. Rings below the listing confidence do not count.

        Raises:
            GraphError: The rows do not follow on or are not scored one by one, or the window has left the buffer.
        """
        if rows.start != self._next or len(rows) != len(probability):
            raise GraphError(
                f"risk rings: rows {rows.start} to {rows.stop} with {len(probability)} scores do not follow "
                f"row {self._next}"
            )
        before = np.full(len(rows), -1, np.int64)
        scores = np.asarray(probability, np.float32)
        for start in range(0, len(rows), ROWS_PER_CALL):
            self._take_in(rows[start : start + ROWS_PER_CALL], scores[start : start + ROWS_PER_CALL], before[start:])
        return before

    def relabel(self, rows: NDArray[np.int64], believed: NDArray[np.int8], times: NDArray[np.int64]) -> None:
        """Take in what is believed of payments now, in the order in which it was reported.

        A row may be there once only, or what was believed in between would be lost: see `graph.rings.risk.feed`.

        Args:
            rows: Labelled payments, int64 [n]; -1 for those that the buffer does not hold.
            believed: 1 fraud, 0 legitimate, -1 nothing known, int8 [n]; as `Store.believed` says.
            times: When it was reported, us, int64 [n].
        """
        if not len(rows):
            return
        store, t = self.store, self._t
        clock = np.maximum.accumulate(np.maximum(times, int(t.now[CLOCK])))
        there = np.maximum(rows, store.oldest)
        entity, row_time = store.column("entity", there), store.column("time", there)
        cut, tail, leaving = self._leaving(np.full(len(rows), self._next), clock)
        known = (believed + 1).astype(np.int8)
        held = np.where(rows < self._next, rows, -1)
        done = 0
        while done < len(rows):
            self._make_room(0)
            done = learn(
                self._t, self.rules, held, known, clock, row_time, entity, cut, leaving, tail, self._next, done
            )
            self._book.read(self._t, self._next)

    def outcomes(self, rows: NDArray[np.int64], stopped: NDArray[np.bool_], at: int) -> None:
        """Take in what became of payments: whether they were declined or reversed.

        Args:
            rows: int64 [n]; -1 for those that the buffer does not hold.
            stopped: bool [n].
            at: Journal time, us.
        """
        for row, held in zip(rows.tolist(), stopped.tolist(), strict=True):
            if self.store.oldest <= row < self._next:
                self._t.payments["stopped"][row % self.store.capacity] = held
            for slot in self._book.of_row.get(row, ()):
                if held:
                    self._book.cases[slot].stopped.setdefault(row, (at, self._book.count))
                else:
                    self._book.cases[slot].stopped.pop(row, None)

    def advance(self, now_us: int) -> None:
        """Readers are at this time, us. It moves no ring: only what a record says of a ring's state follows it."""
        self._now = max(self._now, now_us)

    # Read.

    @property
    def clock(self) -> int:
        """Journal time of the newest event, us; or the readers' time, if that is later."""
        return max(self._now, int(self._t.now[CLOCK]))

    def changes(self) -> list[RingChange]:
        """Versions of rings since the last call, in journal order; of those rings that were named by then."""
        found, self._book.changes = self._book.changes, []
        return found

    def records(self, as_of: int | None = None, confidence: float = 0.0) -> list[RingRecord]:
        """Every ring that ever stood, ended ones too, in order of founding.

        Args:
            as_of: As they were at this moment, us; by default now.
            confidence: Only those that ever had this confidence.
        """
        at = self._moment(as_of)
        chosen = (case for case in self._book.cases.values() if case.born <= at and case.highest(at) >= confidence)
        return [self._record(case, at) for case in chosen]

    def record(self, ring_id: str, as_of: int | None = None) -> RingRecord | None:
        """A ring as of a moment, us, by default now; None where there is none, or was none yet."""
        at, slot = self._moment(as_of), self._book.slot.get(ring_id)
        if slot is None or self._book.cases[slot].born > at:
            return None
        return self._record(self._book.cases[slot], at)

    def versions(self, ring_id: str) -> list[RingRecord]:
        """How a ring came to be what it is, oldest first; empty where there is none."""
        slot = self._book.slot.get(ring_id)
        return (
            []
            if slot is None
            else [self._record(self._book.cases[slot], v.at) for v in self._book.cases[slot].versions]
        )

    def rings_of(self, role: str, name: str) -> list[str]:
        """Ids of the rings that an entity is or was in, newest first."""
        return list(reversed(self._book.of_entity.get(("account" if role == "payee" else role, name), {})))

    def evidence_rows(self, ring_id: str) -> list[int]:
        """Rows of the payments that a ring rests on, newest first."""
        slot = self._book.slot.get(ring_id)
        return [] if slot is None else self._book.cases[slot].rests_on(self._moment(None))

    # Inside.

    def _moment(self, as_of: int | None) -> At:
        return (self.clock if as_of is None else as_of, NEVER[0])

    def _record(self, case: Case, at: At) -> RingRecord:
        number = sum(v.at <= at for v in case.versions)
        return record_of(case, self._book.paid, self.store.roles, at, max(1, number))

    def _take_in(self, rows: range, scores: NDArray[np.float32], before: NDArray[np.int64]) -> None:
        at = np.arange(rows.start, rows.stop)
        time, entity = self.store.column("time", at), self.store.column("entity", at)
        cut, tail, leaving = self._leaving(at, time)
        done = 0
        while done < len(at):
            self._make_room(PLACES_AHEAD)
            done += take_in(
                self._t,
                self.rules,
                rows.start + done,
                time[done:],
                entity[done:],
                scores[done:],
                cut[done:],
                leaving,
                tail,
                LISTED,
                before[done:],
            )
            self._next = rows.start + done
            self._book.read(self._t, self._next)

    def _leaving(
        self, rows: NDArray[np.int64], time: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], int, NDArray[np.int32]]:
        """First row inside the window of each event, and the nodes of the rows that leave meanwhile."""
        store, tail = self.store, int(self._t.now[TAIL])
        cut = np.maximum(rows - self.rules.window_rows, store.first_rows_at(time - self.rules.window_us))
        cut = np.minimum(np.maximum.accumulate(np.maximum(cut, tail)), rows)
        if tail < store.oldest:
            raise GraphError(
                f"risk rings: row {tail} of the window has left the buffer: feed payments sooner, or make it larger"
            )
        return cut, tail, store.column("entity", np.arange(tail, int(cut[-1])))

    def _make_room(self, places: int) -> None:
        self._t = with_room(self._t, self.store.ids.numbered, places + 1)
