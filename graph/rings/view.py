"""Rings as of one payment, for readers on other threads: what changes is copied, what does not is read where it is.

`RingIndex.publish` copies members and label events' places under its caller's lock. Ranking, evidence and names, which
take a thousand times as long, come afterwards and read only what no longer changes: rows that were there, and the
payments in the journal. A row's slot is written again once the buffer has gone round; a view that would read such a
slot says so (`StaleRings`) and does not guess.

A view may be of a later moment than the newest payment: it leaves out what has expired by then (`graph.rings.expiry`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from data.jit import jit, prefetch
from data.schema import CATEGORIES
from graph.dag.categories import CurrencyNames
from graph.dag.offsets import Offsets
from graph.dag.protocol import DAY_US, LabelEvents, Store
from graph.errors import StaleRings
from graph.rings.expiry import ACCOUNTS, FRAUDS, MOST, ROOT, SHARED, at_most, largest_part
from graph.rings.forest import Forest, Records, Rules, Ties, find
from graph.rings.protocol import Names, Ring, Scores, SharedEntity

EVIDENCE = 4096  # payments looked at for one ring, at most
SHOWN = 200  # payments listed as evidence, at most
PREFETCHED = 8  # rings whose reads are asked for before they are copied
MOST_PAYMENTS = 1 << 16  # of one entity that are looked at to tell which of its ties have expired


class RingTable(NamedTuple):
    """All rings and their nodes. K rings, those that have merged among them; M nodes."""

    rings: NDArray[
        np.int64
    ]  # [K, 5] root (-1: it has merged), accounts, tying entities, known frauds, most on one entity
    start: NDArray[np.int64]  # [K + 1] where each ring's nodes begin
    node: NDArray[np.int32]  # [M] ring after ring, those of one in no order that matters
    tied: NDArray[np.int32]  # [M] accounts united through it
    account: NDArray[np.bool_]  # [M]


def ring_table(f: Forest, t: Ties) -> RingTable:
    """The rings of a forest, in order of id, in one pass over their nodes."""
    k, room = int(f.counts[0]), len(f.nodes)  # of what is not written, no memory is taken
    table = RingTable(
        np.full((k, 5), -1, np.int64),
        np.zeros(k + 1, np.int64),
        np.empty(room, np.int32),
        np.empty(room, np.int32),
        np.empty(room, np.bool_),
    )
    _fill_table(f, t, table)
    nodes = int(table.start[-1])
    return table._replace(node=table.node[:nodes], tied=table.tied[:nodes], account=table.account[:nodes])


@jit()
def _fill_table(f: Forest, t: Ties, out: RingTable) -> None:
    at, rings = 0, out.rings
    for k in range(rings.shape[0]):
        if k + PREFETCHED < rings.shape[0]:
            prefetch(f.nodes, f.rings[k + PREFETCHED].anchor)
        root = find(f, int(f.rings[k].anchor))
        n = f.nodes[root]
        if n.ring - 1 == f.rings[k].id:
            rings[k, ROOT], rings[k, ACCOUNTS], rings[k, SHARED], rings[k, FRAUDS] = (
                root,
                n.accounts,
                n.shared,
                n.frauds,
            )
            node = root
            for _ in range(n.size):
                out.node[at] = node
                out.tied[at] = f.nodes[node].tied
                out.account[at] = t.uses[node].account == 1
                rings[k, MOST] = max(rings[k, MOST], out.tied[at])
                node = f.nodes[node].next
                at += 1
        out.start[k + 1] = at


@dataclass(frozen=True)
class _Component:
    """A ring's nodes, ascending. n of them."""

    node: NDArray[np.int32]  # [n]
    tied: NDArray[np.int32]  # [n] accounts united through it
    account: NDArray[np.bool_]  # [n]
    newest: NDArray[np.int64]  # [n] its newest row, -1 where that has left the buffer


def in_component(c: _Component, nodes: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which of some nodes are in a component, bool [m]."""
    at = np.minimum(np.searchsorted(c.node, nodes), len(c.node) - 1)
    found: NDArray[np.bool_] = c.node[at] == nodes
    return found


@dataclass(frozen=True)
class RingView:
    """Rings as of one payment. Nothing in it changes while the graph goes on; one or several threads may read it.

    Made by `RingIndex.publish`, and good until the buffer's slots of what it reads are written again.

    Attributes:
        rows: Rows of the store then.
        clock: Journal time of the newest payment, or the later moment that it is of, us.
    """

    rows: int
    clock: int
    _store: Store
    _rules: Rules
    _names: Names
    _currencies: CurrencyNames
    _written: Callable[[], int]  # rows written, or about to be
    _cut: int  # oldest row inside the window
    _expired: bool  # whether rows have left the window that a payment at the newest one's time would still see
    _table: RingTable
    _rings: Records  # [K] RING
    _heirs: Records  # [Q] HEIR
    _newest: NDArray[np.int64]  # [M] the newest row of each member, -1 where that has left the buffer
    _labels: LabelEvents
    _offsets: Offsets
    _gone: dict[int, tuple[int, str]] = field(repr=False)  # entity type and pseudonym of members whose rows have left

    def rings(self, limit: int = 100, min_accounts: int = 3, score: Scores | None = None) -> list[Ring]:
        """The riskiest rings, riskiest first.

        Args:
            limit: How many, at most.
            min_accounts: Accounts that a listed ring has, at least.
            score: Fraud probabilities of rows, int64 [n] -> float64 [n]. They order the rings that structure and labels
                put into the first 100 + 4 `limit`.

        Raises:
            StaleRings: The buffer has gone on too far.
        """
        table = self._counts
        listed = np.flatnonzero((table[:, ROOT] >= 0) & (table[:, ACCOUNTS] >= min_accounts))
        first = listed[np.argsort(-self._structure(table[listed], listed), kind="stable")]
        wanted = limit if score is None and not self._expired else 100 + 4 * limit
        found: list[Ring] = []
        for at in first.tolist():
            if len(found) == wanted:
                break
            ring = self._ring(at, score, min_accounts)
            if ring is not None:
                found.append(ring)
        return sorted(found, key=lambda ring: (-ring.risk, _number(ring.id)))[:limit]

    def ring(self, ring_id: str, score: Scores | None = None) -> Ring | None:
        """The ring of that id, or the one it has merged into; None where there is none (any more). See `rings`."""
        number = _number(ring_id)
        while number >= 0:
            at = self._at(number)
            if at >= 0:
                return self._ring(at, score, self._rules.min_accounts if self._expired else 0)
            # The newest entry counts; an heir is always older than the ring it follows, so this ends.
            entries = np.flatnonzero(self._heirs["id"] == number)
            number = int(self._heirs["heir"][entries[-1]]) if len(entries) else -1
        return None

    def subgraph(self, ring: Ring) -> nx.Graph:
        """Who shares what, for investigators.

        Returns:
            Nodes "role:name" with `role`, `name`, `first` (us, first payment seen that ties it) and `frauds` (known,
            among the payments seen); edges with `count`, `first`, `last` (us) and `amount` (minor units).

        Raises:
            StaleRings: The buffer has gone on too far.
        """
        graph, at = nx.Graph(), self._at(_number(ring.id))
        if at < 0:
            return graph
        c = self._component(at)
        with self._reading(c):
            self._draw(c, ring, graph)
        return graph

    def _draw(self, c: _Component, ring: Ring, graph: nx.Graph) -> None:
        store = self._store
        name = self._named(c, np.ones(len(c.node), np.bool_))
        key = {}
        shared = {(entity.role, entity.name) for entity in ring.shared}
        for node, is_account in zip(c.node.tolist(), c.account.tolist(), strict=True):
            role = "account" if is_account else store.roles[self._rules.links[self._link(node)]]
            if is_account or (role, name[node]) in shared:
                key[node] = f"{role}:{name[node]}"
                graph.add_node(key[node], role=role, name=name[node], first=ring.last_seen, frauds=0)
        rows = self._evidence(c)[::-1]
        columns = (store.column(field, rows).tolist() for field in ("time", "amount", "entity"))
        for time, amount, entity, fraud in zip(*columns, self._believed(rows).tolist(), strict=True):
            account = key.get(entity[0])
            if account is None:
                continue
            for link in self._rules.links.tolist():
                other = key.get(entity[link])
                if other is None or other == account:
                    continue
                edge = graph.get_edge_data(account, other, {"count": 0, "first": time, "amount": 0})
                total = edge["amount"] + amount
                graph.add_edge(account, other, count=edge["count"] + 1, first=edge["first"], last=time, amount=total)
                for end in (account, other):
                    graph.nodes[end]["first"] = min(graph.nodes[end]["first"], time)
            graph.nodes[account]["frauds"] += int(fraud == 1)

    def members(self) -> dict[str, NDArray[np.int32]]:
        """The accounts of every ring by its id, as nodes, ascending, int32."""
        out = {}
        for at in np.flatnonzero(self._table.rings[:, ROOT] >= 0).tolist():
            c = self._component(at)
            if not self._expired or c.account.sum() >= self._rules.min_accounts:
                out[f"R-{self._rings['id'][at]}"] = c.node[c.account]
        return out

    def offsets(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Journal offsets of rows, such as `Ring.transactions`, int64 [n]."""
        return self._offsets.of(rows)

    def _at(self, number: int) -> int:
        """Place of a ring in the table by the number in its id, -1 where it has merged or never was."""
        ids = self._rings["id"]
        at = int(np.searchsorted(ids, number))
        return at if at < len(ids) and ids[at] == number and self._table.rings[at, ROOT] >= 0 else -1

    @cached_property
    def _counts(self) -> NDArray[np.int64]:
        """The ring table as of the clock; where rows have expired, no column is too low."""
        t = self._table
        if not self._expired:
            return t.rings
        k = len(t.rings)
        of = np.repeat(np.arange(k), np.diff(t.start))
        by_node = np.argsort(t.node, kind="stable")
        with self._reading():
            payers = self._payers_of_frauds
        place = np.minimum(np.searchsorted(t.node, payers, sorter=by_node), max(0, len(t.node) - 1))
        inside = t.node[by_node[place]] == payers if len(t.node) else np.zeros(len(payers), np.bool_)
        frauds = np.bincount(of[by_node[place[inside]]], minlength=k)
        return at_most(t.rings, of, t.account, t.tied, self._newest >= self._cut, frauds)

    @cached_property
    def _payers_of_frauds(self) -> NDArray[np.int32]:
        """The account of each known fraud inside the window, int32 [n]."""
        rows = self._cut + np.flatnonzero(self._beliefs == 1)
        payers: NDArray[np.int32] = self._store.column("entity", rows)[:, 0]
        return payers

    def _structure(self, counts: NDArray[np.int64], at: NDArray[np.int64]) -> NDArray[np.float64]:
        """Risk by structure and labels of the rings at `at` by their rows of a ring table, float64 [n].

        Many known frauds for its size, many accounts on one entity, and many accounts in little time.
        """
        _, accounts, _, frauds, most = counts.T.astype(np.float64)
        days = (self.clock - self._rings["born"][at]) / DAY_US
        logit = -4 + np.log1p(frauds) + 4 * np.minimum(1, frauds / accounts)
        logit += most / accounts + 0.5 * np.log1p(accounts / (1 + days))
        risk: NDArray[np.float64] = 1 / (1 + np.exp(-logit))
        return risk

    def _ring(self, at: int, score: Scores | None, min_accounts: int) -> Ring | None:
        """The ring at a place; None where fewer accounts than a ring has are left of it."""
        c = self._component(at)
        if c.account.sum() < min_accounts:
            return None
        with self._reading(c):
            return self._described(at, c, score)

    def _described(self, at: int, c: _Component, score: Scores | None) -> Ring:
        store = self._store
        rows = self._evidence(c)
        shown = rows[:SHOWN]
        counts = self._table.rings[at]
        if self._expired:
            frauds = in_component(c, self._payers_of_frauds).sum()
            counts = np.array([0, c.account.sum(), (c.tied >= 2).sum(), frauds, c.tied.max(initial=0)])
        risk = float(self._structure(counts[None], np.array([at]))[0])
        if score is not None and len(shown):
            risk = 1 - (1 - risk) * (1 - float(np.mean(score(shown))))
        tying = c.tied >= 2
        name = self._named(c, c.account | tying)
        shared = [
            SharedEntity(store.roles[self._rules.links[self._link(node)]], name[node], tied)
            for node, tied in zip(c.node[tying].tolist(), c.tied[tying].tolist(), strict=True)
        ]
        born = int(self._rings["born"][at])
        return Ring(
            id=f"R-{self._rings['id'][at]}",
            accounts=tuple(name[node] for node in c.node[c.account].tolist()),
            shared=tuple(sorted(shared, key=lambda e: (-e.accounts, e.role, e.name))),
            transactions=tuple(shown.tolist()),
            first_seen=born,
            last_seen=max(born, int(store.column("time", rows[:1])[0]) if len(rows) else born),
            at_risk=self._money(rows[self._believed(rows) != 0]),
            known_frauds=int(counts[FRAUDS]),
            risk=risk,
        )

    def _money(self, rows: NDArray[np.int64]) -> dict[str, int]:
        """Sums of payments by currency, minor units."""
        currency = self._store.column("category", rows)[:, CATEGORIES.index("currency")]
        return self._currencies.totals(currency, self._store.column("amount", rows))

    def _component(self, at: int) -> _Component:
        t = self._table
        held = slice(t.start[at], t.start[at + 1])
        order = np.argsort(t.node[held])
        c = _Component(t.node[held][order], t.tied[held][order], t.account[held][order], self._newest[held][order])
        return self._unexpired(c) if self._expired else c

    def _unexpired(self, c: _Component) -> _Component:
        """What payments inside the window still tie together of a component."""
        with self._reading(c):
            rows, entity = self._through(c, 1, MOST_PAYMENTS)
            nodes, tied = largest_part(self._store.column("entity", rows)[:, 0], entity, c.node[c.account])
        at = np.searchsorted(c.node, nodes)
        return _Component(nodes, np.minimum(tied, c.tied[at]), c.account[at], c.newest[at])

    @contextmanager
    def _reading(self, c: _Component | None = None) -> Iterator[None]:
        """What is read inside was as it was then, or `StaleRings` is raised, whatever reading it has led to."""
        try:
            yield
        finally:  # afterwards: what has been announced by now may have been written at any time before
            needed = min([self._cut, *(c.newest[c.newest >= 0].tolist() if c else ())])
            if self._written() - self._store.capacity > needed:
                raise StaleRings(
                    f"these rings are as of row {self.rows:,}, and the graph goes on to row {self._written():,}: its "
                    f"buffer of {self._store.capacity:,} rows no longer holds row {needed:,}, which they need. Publish "
                    "them again, and read them at once"
                )

    def _named(self, c: _Component, which: NDArray[np.bool_]) -> dict[int, str]:
        """Names of some nodes of a component."""
        there = which & (c.newest >= 0)
        nodes, rows = c.node[there].astype(np.int64), c.newest[there]
        names = self._names(nodes, rows, self._offsets.of(rows)) if len(nodes) else []
        lost = c.node[which & ~there].tolist()
        return {**dict(zip(nodes.tolist(), names, strict=True)), **{node: self._gone[node][1] for node in lost}}

    def _link(self, node: int) -> int:
        """Which linking role an entity ties by."""
        kind = self._gone[node][0] if node in self._gone else self._store.ids.kind(node)
        return int(np.flatnonzero(self._store.role_type[self._rules.links] == kind)[0])

    def _evidence(self, c: _Component) -> NDArray[np.int64]:
        """Payments of members through what ties them, inside the window, newest first, int64 [n]."""
        tying = 1 if self._rules.transfer.any() else 2
        steps = max(64, EVIDENCE // max(1, int((c.tied >= tying).sum())))
        return np.unique(self._through(c, tying, steps)[0])[::-1]

    def _through(self, c: _Component, least: int, steps: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Payments of members through entities that tie `least` accounts or more, inside the window.

        Returns:
            Rows, up to `steps` of an entity, int64 [n], and the entity of each, int32 [n].
        """
        store, rules = self._store, self._rules
        tying = c.tied >= least
        nodes, newest = c.node[tying], c.newest[tying]
        rows = [
            store.history(node, steps, self._cut, newest=row)
            for node, row in zip(nodes.tolist(), newest.tolist(), strict=True)
        ]
        if not rows:
            return np.empty(0, np.int64), np.empty(0, np.int32)
        every, of = np.concatenate(rows), np.repeat(np.arange(len(nodes)), [len(r) for r in rows])
        columns = rules.links[[self._link(node) for node in nodes.tolist()]]
        entity = store.column("entity", every)
        here = (entity[np.arange(len(every)), columns[of]] == nodes[of]) & in_component(c, entity[:, 0])
        return every[here], nodes[of[here]]

    def _believed(self, rows: NDArray[np.int64]) -> NDArray[np.int8]:
        """What is known of rows inside the window: 1 fraud, 0 legitimate, -1 nothing; int8 [n]."""
        return self._beliefs[rows - self._cut]

    @cached_property
    def _beliefs(self) -> NDArray[np.int8]:
        # Not `Store.believed`: a label may come after this view and before the next payment, and events move.
        out = np.full(self.rows - self._cut, -1, np.int8)
        inside = self._labels.row >= self._cut
        out[self._labels.row[inside] - self._cut] = self._labels.fraud[inside]  # of several of a row the last stays
        return out


def _number(ring_id: str) -> int:
    prefix, _, number = ring_id.partition("-")
    return int(number) if prefix == "R" and number.isascii() and number.isdigit() and len(number) < 19 else -1
