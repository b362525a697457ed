"""Rings: accounts that rare shared devices and cards tie together, with stable names and the evidence for them.

`RingIndex` keeps the components (`graph.rings.components`) in step with the store and writes into each payment's row
what its ring was at that moment: accounts, tying entities, known frauds. These three feed the score, so they rest on
structure and known labels only. Model scores weigh in where rings are ranked for people.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from graph.dag.categories import CurrencyNames
from graph.dag.protocol import DAY_US, Store
from graph.errors import GraphError
from graph.memory import ArrayPart
from graph.rings.components import READY, REST, Arrivals, RingColumns, extend, relabel
from graph.rings.events import Log, RingEvent, RingEventKind, empty_log, tell_takeover
from graph.rings.forest import (
    Forest,
    Rules,
    Ties,
    empty_forest,
    empty_ties,
    forest_with_room,
    ties_with_room,
)
from graph.rings.protocol import Names, Ring, Scores, SharedEntity
from graph.rings.view import RingView, ring_table

__all__ = ["Ring", "RingIndex", "SharedEntity"]

ROWS_PER_CALL = 4096  # rows a kernel call takes: bounds the room that must be ready for it
REMEMBERED_MERGES = 1 << 20  # merged rings whose ids still lead to the older ring, at most

# Measured on the payment world (150 k payments, 5 k accounts, 30 days): ties by addresses of at most 5 accounts put 900
# accounts into one component (3500 at 40), ties by every transfer 4100, for people move between home, office and mobile
# networks and pay their friends. By devices and cards the largest component has 70. So the other roles are off.
MAX_ACCOUNTS: Mapping[str, int] = MappingProxyType({"device": 40, "card": 40, "ip": 0, "payee": 0})


class RingIndex:
    """The rings of a store, kept current payment by payment.

    Args:
        store: The rows; entities are linked in those of its roles that `max_accounts` names.
        window_us: How long a tie lasts after its newest payment. It leaves with a generation, so it can stay longer by
            the payments of two generations, about ties / stride each. No tie outlasts the store's window.
        max_accounts: For each linking role, how many accounts an entity ties before it is a hub that ties nobody;
            below 2 the role ties nobody at all.
        min_accounts: Accounts that make a component a ring.
        stride: Ties renewed for each payment.
        rest: Payments between generations, at least.
        names: What people call nodes; by default pseudonyms, since the graph holds no names.
        currencies: Which currency the code in a row stands for; by default none is named.
        listen: Whether to tell what happens to rings, see `take_events`.

    Raises:
        GraphError: `stride` cannot keep up with the ties that a payment can bring, or a role cannot tie.

    Example:
        A `GraphState` has one and keeps it current. Three accounts use one phone:

        >>> import pyarrow as pa
        >>> from datetime import UTC, datetime
        >>> from data.history import History
        >>> from graph.state import GraphState
        >>> history = History.from_arrow(pa.table({
        ...     "transaction_id": ["t1", "t2", "t3", "t4"], "account_id": ["ann", "bob", "cem", "dan"],
        ...     "timestamp": [datetime(2026, 1, 1, hour, tzinfo=UTC) for hour in range(4)],
        ...     "merchant_id": ["kiosk"] * 4, "device_id": ["phone", "phone", "phone", "laptop"],
        ...     "amount": [100, 250, 400, 50], "currency": ["EUR"] * 4,
        ... }))
        >>> state = GraphState(history.roles, source=history)  # names are looked up in the history
        >>> for events in history.events:
        ...     rows = state.apply(events)
        >>> [ring] = state.rings.rings(10)
        >>> ring.id, ring.accounts  # made a ring by row 2, the third payment
        ('R-2', ('ann', 'bob', 'cem'))
        >>> ring.shared[0].role, ring.shared[0].name, ring.at_risk
        ('device', 'phone', {'EUR': 750})
    """

    def __init__(
        self,
        store: Store,
        window_us: int = 30 * DAY_US,
        max_accounts: Mapping[str, int] = MAX_ACCOUNTS,
        min_accounts: int = 3,
        stride: int = 4,
        rest: int = 512,
        names: Names | None = None,
        currencies: CurrencyNames | None = None,
        listen: bool = False,
    ) -> None:
        unknown = set(max_accounts) - set(MAX_ACCOUNTS)
        roles = [name for name in store.roles if max_accounts.get(name, 0) >= 2]
        if unknown or stride <= len(roles):
            raise GraphError(
                f"rings: roles {sorted(unknown)} cannot tie" if unknown else f"rings: stride {stride} is short"
            )
        self.store = store
        self.currencies = currencies or CurrencyNames()
        self.names: Names = names or (lambda nodes, rows, offsets: [store.ids.pseudonym(n) for n in nodes.tolist()])
        self.rules = Rules(
            links=np.array([store.roles.index(name) for name in roles], np.int64),
            limits=np.array([max_accounts[name] for name in roles], np.int64),
            transfer=np.array([name == "payee" for name in roles], np.bool_),
            window_us=min(window_us, store.window.span_us),
            window_rows=store.window.rows,
            min_accounts=min_accounts,
            stride=stride,
            rest=rest,
            listen=listen,
        )
        self._live = empty_forest(1024, 64)
        self._builder = empty_forest(1024, 64)
        self._ties = empty_ties()
        self._announced = 0  # rows written, or about to be
        self._log: Log = empty_log()
        self._events: list[RingEvent] = []

    def announce(self, last: int) -> None:
        """Rows before `last` are about to be appended to the store: what the buffer held in their slots goes."""
        self._announced = last

    def extend(self, first: int, last: int) -> None:
        """Take in the rows [first, last), just appended, and write what their rings are."""
        store, rules = self.store, self.rules
        while first < last:
            rows = np.arange(first, min(last, first + ROWS_PER_CALL))
            self._make_room(len(rows))
            time = store.column("time", rows)
            cut = np.maximum(rows - rules.window_rows, store.first_rows_at(time - rules.window_us))
            found = RingColumns(np.empty((len(rows), 3), np.uint16), np.empty(len(rows), np.uint32))
            arrived = Arrivals(store.column("entity", rows), time, cut)
            n = extend(arrived, self._live, self._builder, self._ties, rules, first, found, self._log)
            store.write_rings(rows[:n], found.size[:n], found.back[:n])
            first += n
            if self._ties.progress["phase"][0] == READY:
                self._take_over()
            if rules.listen:
                self._keep_events()

    def relabel(self, rows: NDArray[np.int64], deltas: NDArray[np.int8]) -> None:
        """Take in changes of belief.

        Args:
            rows: Payments whose label changed, int64 [n], all in the buffer.
            deltas: +1 now known as fraud, -1 no longer, int8 [n].
        """
        self._make_room(len(rows))
        accounts = self.store.column("entity", rows)[:, 0]
        for row, account, delta in zip(rows.tolist(), accounts.tolist(), deltas.tolist(), strict=True):
            relabel(self._live, self._builder, self._ties, self.rules, row, account, delta, self._log)

    @property
    def safe(self) -> int:
        """No node last seen before this row is in any tie or forest, now or later: its number may be given back."""
        return int(self._ties.progress["safe"][0])

    def forget(self, nodes: NDArray[np.int32]) -> None:
        """The numbers of these nodes were given back, and will stand for others."""
        if len(nodes) and len(self._ties.uses) > int(nodes.max()):
            self._ties.uses[nodes] = np.zeros(1, self._ties.uses.dtype)

    def take_events(self) -> list[RingEvent]:
        """What happened to rings since the last call, in order; nothing where the index does not listen.

        It costs nothing unless asked for (`listen`); then, beside the events themselves, a pass over the members of all
        rings for each generation of ties. Events that were not taken before a snapshot are not in it.
        """
        found, self._events = self._events, []
        return found

    def publish(self, names: Names | None = None, now: int | None = None) -> RingView:
        """The rings as they are now, for readers on other threads.

        Whoever applies events must wait meanwhile: for one pass over the members of all rings. They need not wait
        while the view is read.

        Args:
            names: Looks names up for these readers, where a source of names serves one thread only.
            now: The readers' own time, us: what has expired by then is left out. By default, and at the earliest, the
                time of the newest payment, with which ties expire a little later, as they do for a score.
        """
        store, progress = self.store, self._ties.progress[0]
        clock, cut = int(progress["clock"]), max(int(progress["cut"]), store.oldest)
        later = cut
        if now is not None and now > clock:
            clock, later = now, max(cut, int(store.first_rows_at(np.array([now - self.rules.window_us]))[0]))
        self._announced = max(self._announced, store.rows)
        table = ring_table(self._live, self._ties)
        newest = store.newest(table.node.astype(np.int64))
        gone = table.node[newest < 0].tolist()
        return RingView(
            rows=store.rows,
            clock=clock,
            _store=store,
            _rules=self.rules,
            _names=names or self.names,
            _currencies=self.currencies,
            _written=lambda: self._announced,
            _cut=later,
            _expired=later > cut,
            _table=table,
            _rings=self._live.rings[: len(table.rings)].copy(),
            _heirs=self._ties.heirs[: int(progress["retired"])],  # entries do not change: see `_make_room`
            _newest=newest,
            _labels=store.label_events(),
            _offsets=store.offsets.frozen(),
            _gone={node: (store.ids.kind(node), store.ids.pseudonym(node)) for node in gone},
        )

    def rings(self, limit: int = 100, min_accounts: int = 3, score: Scores | None = None) -> list[Ring]:
        """The riskiest rings as of now, riskiest first; see `RingView.rings`."""
        return self.publish().rings(limit, min_accounts, score)

    def ring(self, ring_id: str, score: Scores | None = None) -> Ring | None:
        """The ring of that id as of now, or the one it has merged into; see `RingView.ring`."""
        return self.publish().ring(ring_id, score)

    def subgraph(self, ring: Ring) -> nx.Graph:
        """Who shares what as of now, for investigators; see `RingView.subgraph`."""
        return self.publish().subgraph(ring)

    def parts(self) -> dict[str, ArrayPart]:
        """Everything that the index keeps, by name: for snapshots."""
        held: dict[str, Any] = {"live": self._live, "builder": self._builder, "ties": self._ties}
        now = self._ties.progress[0]
        used = {"ties.list": int(now["ties"]), "ties.heirs": int(now["retired"])}
        used |= {f"{name}.rings": int(held[name].counts[0]) for name in ("live", "builder")}
        arrays = {f"{name}.{field}": getattr(t, field) for name, t in held.items() for field in t._fields}
        return {name: ArrayPart(array, used.get(name, len(array))) for name, array in arrays.items()}

    def adopt(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from the `arrays` of another index of the same settings over the same history."""
        self._live, self._builder = (Forest(*(arrays[f"{n}.{f}"] for f in Forest._fields)) for n in ("live", "builder"))
        self._ties = Ties(*(arrays[f"ties.{f}"] for f in Ties._fields))

    @property
    def generation(self) -> int:
        """How many times the ties have been renewed."""
        return int(self._ties.progress["generation"][0])

    def _make_room(self, rows: int) -> None:
        """For that many more payments or labels."""
        progress, nodes = self._ties.progress[0], self.store.ids.numbered
        rings = int(self._live.counts[0]) + rows
        retired = int(progress["retired"])
        if retired > REMEMBERED_MERGES:
            kept = np.zeros_like(self._ties.heirs)  # a view may hold the entries from before
            kept[: retired // 2] = self._ties.heirs[retired - retired // 2 : retired]
            self._ties = self._ties._replace(heirs=kept)
            progress["retired"] = retired // 2
        self._live = forest_with_room(self._live, nodes, rings)
        self._builder = forest_with_room(self._builder, nodes, rings)
        self._ties = ties_with_room(
            self._ties,
            int(progress["ties"]) + rows * max(1, len(self.rules.links)),
            nodes,
            int(progress["retired"]) + 3 * rings,
        )

        if self.rules.listen:
            room = 2 * (nodes + rows) + 4 * (len(self._live.rings) + len(self._builder.rings))
            if len(self._log.events) < room:
                self._log = empty_log(2 * room)

    def _keep_events(self) -> None:
        """Give events the names that stay: nodes may stand for others after this call."""
        log, pseudonym, kinds = self._log, self.store.ids.pseudonym, list(RingEventKind)
        for kind, node, ring, other, row, time in log.events[: log.at[0]].tolist():
            parts, heir = (other, -1) if kind == RingEventKind.SPLIT else (0, other)
            self._events.append(
                RingEvent(
                    kind=kinds[kind],
                    ring=f"R-{ring}",
                    row=row,
                    time=time,
                    other=f"R-{heir}" if heir >= 0 else None,
                    account=pseudonym(node) if node >= 0 else None,
                    node=node,
                    parts=parts,
                )
            )
        log.at[0] = 0

    def _take_over(self) -> None:
        if self.rules.listen:
            heirs = self._ties.heirs[: self._ties.progress["retired"][0]]
            order = np.argsort(heirs["id"], kind="stable")
            retired, heir = heirs["id"][order], heirs["heir"][order]
            tell_takeover(self._log, self._live, self._builder, self._ties, retired, heir)
        self._live = self._builder
        self._builder = empty_forest(len(self._live.nodes), len(self._live.rings))
        now = self._ties.progress[0]
        # What is live now has nothing from before its scan's cut; the list of ties, nothing from before the last one's.
        now["safe"], now["past_cut"] = now["past_cut"], now["scan_cut"]
        now["phase"], now["at"], now["age"], now["generation"] = REST, 0, 0, self.generation + 1
