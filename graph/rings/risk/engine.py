"""Risk rings: who belongs together among the few risky payments, under one name for as long as it lasts.

`RiskRings` is fed in journal order by whoever holds the graph and the model. Its rings are a function of the journal
and of the probabilities: the same however payments and labels were grouped into calls.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.journal.protocol import PaymentSource
from data.schema import role as role_named
from graph.dag.protocol import DAY_US, Store
from graph.errors import GraphError
from graph.rings.records import LISTED, RingRecord, RingState
from graph.rings.risk.judging import FEATURES
from graph.rings.risk.ledger import NEVER, STEP, At, Case, Joined, Paid, Span, Version
from graph.rings.risk.record import record_of
from graph.rings.risk.stream import learn, take_in
from graph.rings.risk.tables import (
    AGED,
    CLEARED,
    CLOCK,
    DROPPED,
    ENDED,
    FOUNDED,
    FRAUD,
    JOINED,
    JUDGED,
    KNOWN,
    LEFT,
    LOGGED,
    PARENT,
    REVIVED,
    TAIL,
    TAKEN_UP,
    TOOK,
    Rules,
    Tables,
    empty_tables,
    with_room,
)
from graph.rings.risk.weights import WEIGHTS

ROWS_PER_CALL: Final = 4096  # rows that a compiled pass takes: bounds the room that must be ready for it
PLACES_AHEAD: Final = 256


@dataclass(frozen=True)
class RiskSettings:
    """What a risk ring is.

    Attributes:
        tau: Fraud probability from which a payment is risky, if it is not known to be legitimate.
        window_us: How long a payment counts; never longer than the store's window.
        min_accounts: Accounts that make a community a ring.
        shares: Share of an entity's payments that are risky, from which it ties: weakly, well, strongly.
        honest: Payments that are added to an entity's own, so that a few risky ones make no high share.
        resolution: Of the communities, in hundredths; higher makes smaller ones.
    """

    tau: float = 0.3
    window_us: int = 30 * DAY_US
    min_accounts: int = 3
    shares: tuple[float, ...] = (0.1, 0.3, 0.6)
    honest: int = 2
    resolution: int = 20


@dataclass(frozen=True)
class RingChange:
    """A version of a ring that was named, for the journal: who is in it now.

    Attributes:
        ring_id: Of the ring.
        version: Its number.
        state: Its state.
        confidence: Calibrated.
        members: (role, name), accounts first.
        at: Journal time, us.
        row: Row of the event: the payment that came, or for a label or an expiry the next payment's.
    """

    ring_id: str
    version: int
    state: RingState
    confidence: float
    members: tuple[tuple[str, str], ...]
    at: int
    row: int


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

    def __init__(
        self, store: Store, source: PaymentSource | None = None, settings: RiskSettings = RiskSettings()
    ) -> None:
        kinds = [role_named(name).entity_type for name in store.roles[1:]]
        if len(set(kinds)) < len(kinds):
            raise GraphError(f"risk rings: two of the roles {list(store.roles[1:])} share their entities")
        self.store, self.source, self.settings = store, source, settings
        self.rules = Rules(
            tau=np.float32(settings.tau),
            window_us=min(settings.window_us, store.window.span_us),
            window_rows=store.window.rows,
            min_accounts=settings.min_accounts,
            shares=np.array(settings.shares, np.float64),
            honest=settings.honest,
            resolution=settings.resolution,
            payee=store.roles.index("payee") if "payee" in store.roles else -1,
            weights=np.array([*(WEIGHTS[name] for name in FEATURES), WEIGHTS["constant"]], np.float64),
        )
        self._role_of = {store.role_type[r]: name for r, name in enumerate(store.roles) if name != "payee"}
        self._t: Tables = empty_tables(store.capacity, len(store.roles))
        self._next = store.rows  # row that comes next
        self._t.now[TAIL] = store.rows
        self._count = 0  # entries of the log so far
        self._began = 0  # and when the present event began
        self._now = 0  # the readers' time
        self._cases: dict[int, Case] = {}  # by slot of the ring table
        self._slot: dict[str, int] = {}
        self._keys: dict[int, tuple[str, str]] = {}  # of nodes that are in a ring
        self._paid: dict[int, Paid] = {}
        self._of_row: dict[int, set[int]] = {}  # rings that a row is kept for
        self._of_entity: dict[tuple[str, str], dict[str, None]] = {}
        self._changes: list[RingChange] = []

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
            self._read_log()

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
            for slot in self._of_row.get(row, ()):
                if held:
                    self._cases[slot].stopped.setdefault(row, (at, self._count))
                else:
                    self._cases[slot].stopped.pop(row, None)

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
        found, self._changes = self._changes, []
        return found

    def records(self, as_of: int | None = None, confidence: float = 0.0) -> list[RingRecord]:
        """Every ring that ever stood, ended ones too, in order of founding.

        Args:
            as_of: As they were at this moment, us; by default now.
            confidence: Only those that ever had this confidence.
        """
        at = self._moment(as_of)
        chosen = (case for case in self._cases.values() if case.born <= at and case.highest(at) >= confidence)
        return [self._record(case, at) for case in chosen]

    def record(self, ring_id: str, as_of: int | None = None) -> RingRecord | None:
        """A ring as of a moment, us, by default now; None where there is none, or was none yet."""
        at, slot = self._moment(as_of), self._slot.get(ring_id)
        if slot is None or self._cases[slot].born > at:
            return None
        return self._record(self._cases[slot], at)

    def versions(self, ring_id: str) -> list[RingRecord]:
        """How a ring came to be what it is, oldest first; empty where there is none."""
        slot = self._slot.get(ring_id)
        return [] if slot is None else [self._record(self._cases[slot], v.at) for v in self._cases[slot].versions]

    def rings_of(self, role: str, name: str) -> list[str]:
        """Ids of the rings that an entity is or was in, newest first."""
        return list(reversed(self._of_entity.get(("account" if role == "payee" else role, name), {})))

    def evidence_rows(self, ring_id: str) -> list[int]:
        """Rows of the payments that a ring rests on, newest first."""
        slot = self._slot.get(ring_id)
        return [] if slot is None else self._cases[slot].rests_on(self._moment(None))

    # Inside.

    def _moment(self, as_of: int | None) -> At:
        return (self.clock if as_of is None else as_of, NEVER[0])

    def _record(self, case: Case, at: At) -> RingRecord:
        number = sum(v.at <= at for v in case.versions)
        return record_of(case, self._paid, self.store.roles, at, max(1, number))

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
            self._read_log()

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

    def _read_log(self) -> None:
        """Bring what is kept of rings up to date with what the pass told."""
        n = int(self._t.now[LOGGED])
        if not n:
            return
        entries = self._t.log[:n].tolist()
        self._t.now[LOGGED] = 0
        self._look_up(entries)
        start = 0
        for end in range(1, n + 1):  # entries of one event together: a ring has a version for them all
            if end == n or entries[end][4:6] != entries[start][4:6]:
                touched: dict[int, None] = {}
                self._began = self._count
                for entry in entries[start:end]:
                    self._count += 1
                    touched.update(dict.fromkeys(self._note(*entry)))
                for slot in touched:
                    self._version(self._cases[slot], entries[start][4], (entries[start][5], self._count))
                start = end

    def _look_up(self, entries: list[list[int]]) -> None:
        """Read the names and payments that the entries speak of, all at once."""
        rows = {e[2] for e in entries if e[0] in (TOOK, FRAUD) or (e[0] == KNOWN and e[1] >= 0)} - self._paid.keys()
        nodes = np.array(list({e[2]: None for e in entries if e[0] == JOINED}), np.int64)
        newest = self.store.newest(nodes) if len(nodes) else nodes
        wanted = np.array(sorted(rows.union(newest[newest >= 0].tolist())), np.int64)
        store = self.store
        entity = store.column("entity", wanted)
        table = None if self.source is None else self.source.take(store.offsets.of(wanted))
        names = _Names(store, table, entity)
        time, amount = store.raw_time(wanted).tolist(), store.column("amount", wanted).tolist()
        index = {row: i for i, row in enumerate(wanted.tolist())}
        currency = None if table is None else table["currency"]
        ids = None if table is None else table["transaction_id"]
        for row in rows:
            i = index[row]
            self._paid[row] = Paid(
                f"#{row}" if ids is None else ids[i].as_py(),
                time[i],
                amount[i],
                "" if currency is None else currency[i].as_py(),
                names.of(i),
            )
        for node, row in zip(nodes.tolist(), newest.tolist(), strict=True):
            kind = self._role_of[store.ids.kind(node)]
            self._keys[node] = kind, names.name(index.get(row, -1), node)

    def _note(self, kind: int, slot: int, a: int, b: int, row: int, us: int, more: int) -> Iterator[int]:
        """Note one entry; gives the rings that it matters to."""
        at = (us, self._count)
        if kind == KNOWN:
            self._note_known(slot, a, b, at)
            return
        if kind == FOUNDED:
            self._cases[slot] = Case(slot, f"K-{a}", at, row, stands=[Span(at)])
            self._slot[f"K-{a}"] = slot
        case = self._cases[slot]
        if kind == PARENT:
            case.parents.append((at, self._cases[a].id))
        elif kind == JOINED:
            key = self._keys[a]
            case.members.setdefault(key, []).append(Joined(*key, Span(at), b >> 1, more))
            self._of_entity.setdefault(key, {})[case.id] = None
            yield slot
        elif kind == LEFT:
            span = case.members[self._keys[a]][-1].span
            span.until, span.why = at, b
            yield slot
        elif kind == TOOK:
            self._keep(a, slot)
            case.evidence.setdefault(a, []).append(Span(at))
            if b:
                case.stopped.setdefault(a, at)
        elif kind == DROPPED and a in case.evidence:
            span = case.evidence[a][-1]
            span.until, span.why = at, b
        elif kind == FRAUD:
            self._keep(a, slot)
            case.frauds.setdefault(a, Span(at))
        elif kind == JUDGED:
            case.confidence.append((at, a / 1e6))
            yield slot
        elif kind == TAKEN_UP:
            heir = self._cases[a]
            case.merged_into = at, heir.id
            heir.parents.append((at, case.id))
            case.stands[-1].until, case.stands[-1].why = at, self._began
            yield slot
        elif kind == ENDED:
            case.stands[-1].until, case.stands[-1].why = at, self._began
            yield slot
        elif kind == REVIVED:
            case.stands.append(Span(at))
            yield slot

    def _keep(self, row: int, slot: int) -> None:
        self._of_row.setdefault(row, set()).add(slot)

    def _note_known(self, slot: int, row: int, known: int, at: At) -> None:
        """What is known of a payment now: 0 nothing, 1 legitimate, 2 fraud."""
        if known == 2:
            if slot >= 0:
                self._keep(row, slot)
            for of in self._of_row.get(row, ()):
                span = self._cases[of].frauds.get(row)
                if span is None or not span.current(at):
                    self._cases[of].frauds[row] = Span(at)
            return
        for of in self._of_row.get(row, ()):
            case = self._cases[of]
            if row in case.frauds:
                case.frauds[row].until = min(case.frauds[row].until, at)
            spans = case.evidence.get(row)
            if known == 1 and spans and spans[-1].why == AGED:
                spans[-1].until, spans[-1].why = at, CLEARED

    def _version(self, case: Case, row: int, at: At) -> None:
        """Give a ring a new version if something about it changed that matters."""
        confidence = case.confidence_at(at)
        last = case.versions[-1] if case.versions else None
        stands = case.stands_at(at)
        if not stands:
            state = RingState.ENDED
        else:
            listed = confidence >= LISTED or case.named_at(at) is not None
            state = RingState.ACTIVE if listed else RingState.FORMING
        moved = last is None or any(
            j[-1].span.since > last.at or last.at < j[-1].span.until <= at for j in case.members.values()
        )
        same = last is not None and state == last.state and (confidence >= LISTED) == (last.confidence >= LISTED)
        if same and not moved and last is not None and abs(confidence - last.confidence) < STEP:
            return
        case.versions.append(Version(len(case.versions) + 1, at, row, state, confidence))
        case.trim()
        if case.named_at(at) is not None:
            members = sorted(key for key, j in case.members.items() if j[-1].span.current(at))
            members.sort(key=lambda key: key[0] != "account")
            self._changes.append(RingChange(case.id, len(case.versions), state, confidence, tuple(members), at[0], row))


class _Names:
    """Names of the entities of some payments."""

    def __init__(self, store: Store, table: pa.Table | None, entity: NDArray[np.int32]) -> None:
        self.store, self.entity = store, entity
        self.columns = None if table is None else [table[role_named(name).column].to_pylist() for name in store.roles]

    def of(self, i: int) -> tuple[str | None, ...]:
        """By role; None where the payment has none."""
        if self.columns is not None:
            return tuple(column[i] for column in self.columns)
        return tuple(self.store.ids.pseudonym(n) if n >= 0 else None for n in self.entity[i].tolist())

    def name(self, i: int, node: int) -> str:
        """Of a node that payment `i` holds, a pseudonym without one."""
        if self.columns is not None and i >= 0:
            for r, held in enumerate(self.entity[i].tolist()):
                if held == node:
                    return str(self.columns[r][i])
        return self.store.ids.pseudonym(node)
