"""The book of rings: what the compiled pass tells of is written down here, under names that stay."""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from data.journal.protocol import PaymentSource
from graph.dag.protocol import Store
from graph.rings.records import LISTED, RingState
from graph.rings.risk.company import company_of
from graph.rings.risk.ledger import STEP, At, Case, Joined, Paid, RingChange, Span, Version
from graph.rings.risk.names import Names
from graph.rings.risk.tables import (
    AGED,
    CLEARED,
    DROPPED,
    ENDED,
    FOUNDED,
    FRAUD,
    JOINED,
    JUDGED,
    KNOWN,
    LEFT,
    LOGGED,
    LOOSE,
    MOVED,
    PARENT,
    REVIVED,
    TAIL,
    TAKEN_UP,
    TOOK,
    Tables,
)

_NOBODY: Final = np.empty(0, np.int64)


class Book:
    """What is kept of every ring, and of the payments it rests on.

    Args:
        store: The rows.
        source: Where names, transaction ids and currencies are read; without one, pseudonyms and row numbers.
        company: Share of an entity's accounts that are a ring's, from which the others are its company.
    """

    def __init__(self, store: Store, source: PaymentSource | None, company: float) -> None:
        self.store, self.source, self.company = store, source, company
        self.cases: dict[int, Case] = {}  # by slot of the ring table
        self.slot: dict[str, int] = {}
        self.paid: dict[int, Paid] = {}
        self.of_row: dict[int, set[int]] = {}  # rings that a row is kept for
        self.of_entity: dict[tuple[str, str], dict[str, None]] = {}
        self.changes: list[RingChange] = []
        self.count = 0  # entries so far
        self._began = 0  # and when the present event began
        self._keys: dict[int, tuple[str, str]] = {}  # of nodes that are or were in a ring
        self._bringers: dict[int, set[int]] = {}  # rings that an entity brings company to
        self._role_of = {store.role_type[r]: name for r, name in enumerate(store.roles) if name != "payee"}

    def read(self, t: Tables, upto: int) -> None:
        """Write down what one event told, and empty the log; `upto` is the row after the last that was taken in."""
        n = int(t.now[LOGGED])
        if not n:
            return
        entries = t.log[:n].tolist()  # of one event: a ring has one version for them all
        t.now[LOGGED] = 0
        self._look_up(entries)
        touched: dict[int, None] = {}
        self._began = self.count
        for entry in entries:
            self.count += 1
            touched.update(dict.fromkeys(self._note(*entry)))
        row, us = entries[0][4:6]
        self._keep_company(t, upto, entries, touched, us)
        for slot in touched:
            self._version(self.cases[slot], row, (us, self.count))

    def _keep_company(self, t: Tables, upto: int, entries: list[list[int]], touched: dict[int, None], us: int) -> None:
        """Bring the company of rings up to date, at the entities of the payments and members that an event told of."""
        at = {e[2]: None for e in entries if e[0] in (JOINED, LEFT)}
        rows = [e[2] for e in entries if e[0] in (TOOK, DROPPED) and e[2] >= self.store.oldest]
        at.update(dict.fromkeys(self.store.column("entity", np.array(rows, np.int64))[:, 1:].ravel().tolist()))
        for node in at:
            key = self._keys.get(node)
            if key is None or key[0] == "account":
                continue
            slot = int(t.entities["ring"][node]) - 1
            for other in self._bringers.get(node, set()) - {slot}:
                self._bring(t, self.cases[other], node, _NOBODY, us)
            if slot < 0:
                continue
            found = company_of(self.store, t.entities, node, slot, int(t.now[TAIL]), upto, self.company)
            if len(found) or node in self.cases[slot].company:
                touched[slot] = None
                self._bring(t, self.cases[slot], node, found, us)

    def _bring(self, t: Tables, case: Case, node: int, found: NDArray[np.int64], us: int) -> None:
        """Have an entity bring these accounts, and no others, into a ring's company."""
        before = case.company.get(node, _NOBODY)
        names = dict(zip(found.tolist(), self._names_of(found), strict=True))
        held = {("account", name) for name in names.values()}
        at = (us, self.count)
        for key in [key for key, by in case.bringers.items() if node in by and key not in held]:
            case.bringers[key].discard(node)
            if not case.bringers[key]:
                del case.bringers[key]
                last = case.members[key][-1]
                if last.company and last.span.current(at):
                    last.span.until, last.span.why = at, LOOSE
                    case.moved = True
        for account, name in names.items():
            key = "account", name
            case.bringers.setdefault(key, set()).add(node)
            times = case.members.setdefault(key, [])
            if not times or not times[-1].span.current(at):
                e = t.entities[account]
                times.append(Joined(*key, Span(at), int(e["own"]), int(e["since"]), company=True))
                case.moved = True
                self.of_entity.setdefault(key, {})[case.id] = None
        bringing = self._bringers.setdefault(node, set())
        if len(found):
            case.company[node] = found
            bringing.add(case.slot)
        elif len(before):
            del case.company[node]
            bringing.discard(case.slot)

    def _names_of(self, nodes: NDArray[np.int64]) -> list[str]:
        """Names of nodes that have a payment in the buffer."""
        if not len(nodes):
            return []
        rows = self.store.newest(nodes)
        table = None if self.source is None else self.source.take(self.store.offsets.of(rows))
        names = Names(self.store, table, self.store.column("entity", rows))
        return [names.name(i, node) for i, node in enumerate(nodes.tolist())]

    def _look_up(self, entries: list[list[int]]) -> None:
        """Read the names and payments that the entries speak of, all at once."""
        rows = {e[2] for e in entries if e[0] in (TOOK, FRAUD) or (e[0] == KNOWN and e[1] >= 0)} - self.paid.keys()
        nodes = np.array(list({e[2]: None for e in entries if e[0] == JOINED}), np.int64)
        newest = self.store.newest(nodes) if len(nodes) else nodes
        wanted = np.array(sorted(rows.union(newest[newest >= 0].tolist())), np.int64)
        store = self.store
        entity = store.column("entity", wanted)
        table = None if self.source is None else self.source.take(store.offsets.of(wanted))
        names = Names(store, table, entity)
        time, amount = store.raw_time(wanted).tolist(), store.column("amount", wanted).tolist()
        index = {row: i for i, row in enumerate(wanted.tolist())}
        currency = None if table is None else table["currency"]
        ids = None if table is None else table["transaction_id"]
        for row in rows:
            i = index[row]
            self.paid[row] = Paid(
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
        at = (us, self.count)
        if kind == KNOWN:
            self._note_known(slot, a, b, at)
            return
        if kind == FOUNDED:
            self.cases[slot] = Case(slot, f"K-{a}", at, row, stands=[Span(at)])
            self.slot[f"K-{a}"] = slot
        case = self.cases[slot]
        if kind == PARENT:
            case.parents.append((at, self.cases[a].id))
        elif kind == JOINED:
            key = self._keys[a]
            times = case.members.setdefault(key, [])
            if times and times[-1].span.current(at):  # it was there in company only
                times[-1].span.until, times[-1].span.why = at, MOVED
            times.append(Joined(*key, Span(at), b >> 1, more))
            case.moved = True
            self.of_entity.setdefault(key, {})[case.id] = None
            yield slot
        elif kind == LEFT:
            span = case.members[self._keys[a]][-1].span
            span.until, span.why = at, b
            case.moved = True
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
            case.was_named |= a / 1e6 >= LISTED
            yield slot
        elif kind == TAKEN_UP:
            heir = self.cases[a]
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
        self.of_row.setdefault(row, set()).add(slot)

    def _note_known(self, slot: int, row: int, known: int, at: At) -> None:
        """What is known of a payment now: 0 nothing, 1 legitimate, 2 fraud."""
        if known == 2:
            if slot >= 0:
                self._keep(row, slot)
            for of in self.of_row.get(row, ()):
                span = self.cases[of].frauds.get(row)
                if span is None or not span.current(at):
                    self.cases[of].frauds[row] = Span(at)
            return
        for of in self.of_row.get(row, ()):
            case = self.cases[of]
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
        state = RingState.ENDED if not stands else RingState.ACTIVE if case.was_named else RingState.FORMING
        same = last is not None and state == last.state and (confidence >= LISTED) == (last.confidence >= LISTED)
        if same and not case.moved and last is not None and abs(confidence - last.confidence) < STEP:
            return
        case.versions.append(Version(len(case.versions) + 1, at, row, state, confidence))
        case.moved = False
        case.trim()
        if case.was_named:
            members = sorted(key for key, j in case.members.items() if j[-1].span.current(at))
            members.sort(key=lambda key: key[0] != "account")
            self.changes.append(RingChange(case.id, len(case.versions), state, confidence, tuple(members), at[0], row))
