"""Rings: accounts that rare shared devices and cards tie together, with stable names and the evidence for them.

`RingIndex` keeps the components (`graph.rings.components`) in step with the store and writes into each payment's row
what its ring was at that moment: accounts, tying entities, known frauds. These three feed the score, so they rest on
structure and known labels only. Model scores weigh in where rings are ranked for people.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from data.jit import jit, signed
from graph.dag.protocol import DAY_US, Store
from graph.errors import GraphError
from graph.memory import ArrayPart
from graph.rings.components import READY, REST, Payments, Rings, extend, relabel
from graph.rings.forest import (
    Forest,
    Rules,
    Ties,
    empty_forest,
    empty_ties,
    find,
    forest_with_room,
    members,
    ties_with_room,
)

CHUNK = 4096  # rows a kernel call takes: bounds the room that must be ready for it
EVIDENCE = 4096  # payments looked at for one ring, at most
SHOWN = 200  # payments listed as evidence, at most
HEIRS = 1 << 20  # merged rings that are remembered, at most

Names = Callable[[NDArray[np.int64]], list[str]]  # of nodes
Scores = Callable[[NDArray[np.int64]], NDArray[np.float64]]

# Measured on the payment world (150 k payments, 5 k accounts, 30 days): ties by addresses of at most 5 accounts put 900
# accounts into one component (3500 at 40), ties by every transfer 4100, for people move between home, office and mobile
# networks and pay their friends. By devices and cards the largest component has 70. So the other roles are off.
MAX_ACCOUNTS: Mapping[str, int] = MappingProxyType({"device": 40, "card": 40, "ip": 0, "payee": 0})


@dataclass(frozen=True)
class SharedEntity:
    """What members share: its role, its name, and how many accounts it ties."""

    role: str
    name: str
    accounts: int


@dataclass(frozen=True)
class Ring:
    """Accounts tied by what they share, as of the newest payment.

    Attributes:
        id: "R-<row of the payment that made it a ring>"; it stays through growth, merges (the older survives) and
            splits (the part with most members keeps it).
        accounts: Names, in order of first appearance.
        shared: Entities that tie at least two members, most accounts first.
        transactions: Rows of the payments that tie members, newest first, at most `SHOWN`.
        first_seen: Journal time of the payment that made it a ring, us.
        last_seen: Journal time of the newest payment that ties members, us.
        amount_at_risk: Sum of those payments inside the window that are not known to be legitimate, minor units.
        known_frauds: Payments of members inside the window that are known to be frauds.
        risk: 0 to 1, for ranking: structure and labels, raised by the scores of its payments where these are given.
    """

    id: str
    accounts: tuple[str, ...]
    shared: tuple[SharedEntity, ...]
    transactions: tuple[int, ...]
    first_seen: int
    last_seen: int
    amount_at_risk: int
    known_frauds: int
    risk: float


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

    Raises:
        GraphError: `stride` cannot keep up with the ties that a payment can bring, or a role cannot tie.
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
    ) -> None:
        unknown = set(max_accounts) - set(MAX_ACCOUNTS)
        roles = [name for name in store.roles if max_accounts.get(name, 0) >= 2]
        if unknown or stride <= len(roles):
            raise GraphError(
                f"rings: roles {sorted(unknown)} cannot tie" if unknown else f"rings: stride {stride} is short"
            )
        self.store = store
        self.names = names or (lambda nodes: [store.ids.pseudonym(node) for node in nodes.tolist()])
        self.rules = Rules(
            links=np.array([store.roles.index(name) for name in roles], np.int64),
            limits=np.array([max_accounts[name] for name in roles], np.int64),
            transfer=np.array([name == "payee" for name in roles], np.bool_),
            window_us=min(window_us, store.window.span_us),
            window_rows=store.window.rows,
            min_accounts=min_accounts,
            stride=stride,
            rest=rest,
        )
        self._live = empty_forest(1024, 64)
        self._builder = empty_forest(1024, 64)
        self._ties = empty_ties()

    def extend(self, first: int, last: int) -> None:
        """Take in the rows [first, last), just appended, and write what their rings are."""
        store, rules = self.store, self.rules
        while first < last:
            rows = np.arange(first, min(last, first + CHUNK))
            self._make_room(len(rows))
            time = store.column("time", rows)
            cut = np.maximum(rows - rules.window_rows, store.first_rows_at(time - rules.window_us))
            found = Rings(np.empty((len(rows), 3), np.uint16), np.empty(len(rows), np.uint32))
            taken = Payments(store.column("entity", rows), time, cut)
            n = extend(taken, self._live, self._builder, self._ties, rules, first, found)
            store.write_rings(rows[:n], found.size[:n], found.back[:n])
            first += n
            if self._ties.progress["phase"][0] == READY:
                self._take_over()

    def relabel(self, rows: NDArray[np.int64], deltas: NDArray[np.int8]) -> None:
        """Take in changes of belief.

        Args:
            rows: Payments whose label changed, int64 [n], all in the buffer.
            deltas: +1 now known as fraud, -1 no longer, int8 [n].
        """
        self._make_room(len(rows))
        accounts = self.store.column("entity", rows)[:, 0]
        for row, account, delta in zip(rows.tolist(), accounts.tolist(), deltas.tolist(), strict=True):
            relabel(self._live, self._builder, self._ties, self.rules, row, account, delta)

    @property
    def safe(self) -> int:
        """No node last seen before this row is in any tie or forest, now or later: its number may be given back."""
        return int(self._ties.progress["safe"][0])

    def forget(self, nodes: NDArray[np.int32]) -> None:
        """The numbers of these nodes were given back, and will stand for others."""
        if len(nodes) and len(self._ties.uses) > int(nodes.max()):
            self._ties.uses[nodes] = np.zeros(1, self._ties.uses.dtype)

    def ring(self, ring_id: str, score: Scores | None = None) -> Ring | None:
        """The ring of that id, or the one it has merged into; None where there is none (any more). See `rings`."""
        number = _number(ring_id)
        heirs = self._ties.heirs[: self._ties.progress["retired"][0]]
        table = standing(self._live)
        while number >= 0:
            at = int(np.searchsorted(self._ids, number))
            if at < len(self._ids) and self._ids[at] == number and table[at, 0] >= 0:
                return self._ring(at, table[at], score)
            # The newest entry counts; an heir is always older than the ring it follows, so this ends.
            entries = np.flatnonzero(heirs["id"] == number)
            number = int(heirs["heir"][entries[-1]]) if len(entries) else -1
        return None

    def rings(self, limit: int = 100, min_accounts: int = 3, score: Scores | None = None) -> list[Ring]:
        """The riskiest rings, riskiest first.

        Args:
            limit: How many, at most.
            min_accounts: Accounts that a listed ring has, at least.
            score: Fraud probabilities of rows, int64 [n] -> float64 [n]. They order the rings that structure and labels
                put into the first 100 + 4 `limit`.
        """
        table = standing(self._live)
        listed = np.flatnonzero((table[:, 0] >= 0) & (table[:, 1] >= min_accounts))
        first = listed[np.argsort(-self._structure(listed, table), kind="stable")]
        found = [self._ring(int(at), table[at], score) for at in first[: limit if score is None else 100 + 4 * limit]]
        return sorted(found, key=lambda ring: (-ring.risk, _number(ring.id)))[:limit]

    def subgraph(self, ring: Ring) -> nx.Graph:
        """Who shares what, for investigators.

        Returns:
            Nodes "role:name" with `role`, `name`, `first` (us, first payment seen that ties it) and `frauds` (known,
            among the payments seen); edges with `count`, `first`, `last` (us) and `amount` (minor units).
        """
        store, graph, root = self.store, nx.Graph(), self._root(ring)
        if root < 0:
            return graph
        nodes = members(self._live, root)
        name = dict(zip(nodes.tolist(), self.names(nodes.astype(np.int64)), strict=True))
        is_account = dict(zip(nodes.tolist(), (self._ties.uses["account"][nodes] == 1).tolist(), strict=True))
        key = {}
        shared = {(entity.role, entity.name) for entity in ring.shared}
        for node in nodes.tolist():
            role = "account" if is_account[node] else store.roles[self.rules.links[self._link(node)]]
            if is_account[node] or (role, name[node]) in shared:
                key[node] = f"{role}:{name[node]}"
                graph.add_node(key[node], role=role, name=name[node], first=ring.last_seen, frauds=0)
        rows = self._evidence(root)[::-1]
        columns = (store.column(field, rows).tolist() for field in ("time", "amount", "entity"))
        for time, amount, entity, fraud in zip(*columns, store.believed(rows).tolist(), strict=True):
            account = key.get(entity[0])
            if account is None:
                continue
            for link in self.rules.links.tolist():
                other = key.get(entity[link])
                if other is None or other == account:
                    continue
                edge = graph.get_edge_data(account, other, {"count": 0, "first": time, "amount": 0})
                total = edge["amount"] + amount
                graph.add_edge(account, other, count=edge["count"] + 1, first=edge["first"], last=time, amount=total)
                for end in (account, other):
                    graph.nodes[end]["first"] = min(graph.nodes[end]["first"], time)
            graph.nodes[account]["frauds"] += int(fraud == 1)
        return graph

    def _root(self, ring: Ring) -> int:
        """Root of a ring's component, -1 where it is gone."""
        at = int(np.searchsorted(self._ids, _number(ring.id)))
        return int(standing(self._live)[at, 0]) if at < len(self._ids) and self._ids[at] == _number(ring.id) else -1

    def parts(self) -> dict[str, ArrayPart]:
        """Everything that the index keeps, by name: for snapshots."""
        held: dict[str, Any] = {"live": self._live, "builder": self._builder, "ties": self._ties}
        now = self._ties.progress[0]
        used = {"ties.list": int(now["ties"]), "ties.heirs": int(now["retired"])}
        used |= {f"{name}.rings": int(held[name].counts[0]) for name in ("live", "builder")}
        arrays = {f"{name}.{field}": getattr(t, field) for name, t in held.items() for field in t._fields}
        return {name: ArrayPart(array, used.get(name, len(array))) for name, array in arrays.items()}

    def adopt(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from the `arrays` of another index over the same history."""
        self._live, self._builder = (Forest(*(arrays[f"{n}.{f}"] for f in Forest._fields)) for n in ("live", "builder"))
        self._ties = Ties(*(arrays[f"ties.{f}"] for f in Ties._fields))

    @property
    def generation(self) -> int:
        """How many times the ties have been renewed."""
        return int(self._ties.progress["generation"][0])

    @property
    def _ids(self) -> NDArray[np.int64]:
        ids: NDArray[np.int64] = self._live.rings["id"][: self._live.counts[0]]
        return ids

    def _structure(self, at: NDArray[np.int64], table: NDArray[np.int64]) -> NDArray[np.float64]:
        """Risk by structure and labels of the rings at `at`.

        Many known frauds for its size, many accounts on one entity, and many accounts in little time.
        """
        _, accounts, _, frauds, most = table[at].T.astype(np.float64)
        days = (self._ties.progress["clock"][0] - self._live.rings["born"][at]) / DAY_US
        logit = -4 + np.log1p(frauds) + 4 * np.minimum(1, frauds / accounts)
        logit += most / accounts + 0.5 * np.log1p(accounts / (1 + days))
        risk: NDArray[np.float64] = 1 / (1 + np.exp(-logit))
        return risk

    def _ring(self, at: int, entry: NDArray[np.int64], score: Scores | None) -> Ring:
        store, f = self.store, self._live
        root = int(entry[0])
        nodes = members(f, root)
        rows = self._evidence(root)
        shown = rows[:SHOWN]
        risk = float(self._structure(np.array([at]), entry[None].repeat(at + 1, 0))[0])
        if score is not None and len(shown):
            risk = 1 - (1 - risk) * (1 - float(np.mean(score(shown))))
        tying = nodes[f.nodes["tied"][nodes] >= 2]
        shared = [
            SharedEntity(store.roles[self.rules.links[self._link(node)]], name, int(f.nodes["tied"][node]))
            for node, name in zip(tying.tolist(), self.names(tying.astype(np.int64)), strict=True)
        ]
        born = int(f.rings["born"][at])
        return Ring(
            id=f"R-{f.rings['id'][at]}",
            accounts=tuple(self.names(nodes[self._ties.uses["account"][nodes] == 1].astype(np.int64))),
            shared=tuple(sorted(shared, key=lambda e: (-e.accounts, e.role, e.name))),
            transactions=tuple(shown.tolist()),
            first_seen=born,
            last_seen=max(born, int(store.column("time", rows[:1])[0]) if len(rows) else born),
            amount_at_risk=int(store.column("amount", rows)[store.believed(rows) != 0].sum()),
            known_frauds=int(entry[3]),
            risk=risk,
        )

    def _link(self, node: int) -> int:
        """Which linking role an entity ties by."""
        return int(np.flatnonzero(self.store.role_type[self.rules.links] == self.store.ids.kind(node))[0])

    def _evidence(self, root: int) -> NDArray[np.int64]:
        """Payments of members through what ties them, inside the window, newest first, int64 [n]."""
        store, f = self.store, self._live
        nodes = members(f, root)
        nodes = nodes[f.nodes["tied"][nodes] >= 1] if self.rules.transfer.any() else nodes[f.nodes["tied"][nodes] >= 2]
        oldest = int(self._ties.progress["cut"][0])
        steps = max(64, EVIDENCE // max(1, len(nodes)))
        rows = [store.history(node, steps, oldest) for node in nodes.tolist()]
        if not rows:
            return np.empty(0, np.int64)
        every, of = np.concatenate(rows), np.repeat(np.arange(len(nodes)), [len(r) for r in rows])
        columns = self.rules.links[[self._link(node) for node in nodes.tolist()]]
        entity = store.column("entity", every)
        here = (entity[np.arange(len(every)), columns[of]] == nodes[of]) & under(f, root, entity[:, 0])
        return np.unique(every[here])[::-1]

    def _make_room(self, rows: int) -> None:
        """For that many more payments or labels."""
        progress, nodes = self._ties.progress[0], self.store.ids.numbered
        rings = int(self._live.counts[0]) + rows
        retired = int(progress["retired"])
        if retired > HEIRS:
            self._ties.heirs[: retired // 2] = self._ties.heirs[retired - retired // 2 : retired]
            progress["retired"] = retired // 2
        self._live = forest_with_room(self._live, nodes, rings)
        self._builder = forest_with_room(self._builder, nodes, rings)
        self._ties = ties_with_room(
            self._ties,
            int(progress["ties"]) + rows * max(1, len(self.rules.links)),
            nodes,
            int(progress["retired"]) + 3 * rings,
        )

    def _take_over(self) -> None:
        self._live = self._builder
        self._builder = empty_forest(len(self._live.nodes), len(self._live.rings))
        now = self._ties.progress[0]
        # What is live now has nothing from before its scan's cut; the list of ties, nothing from before the last one's.
        now["safe"], now["past_cut"] = now["past_cut"], now["scan_cut"]
        now["phase"], now["at"], now["age"], now["generation"] = REST, 0, 0, self.generation + 1


def _number(ring_id: str) -> int:
    prefix, _, number = ring_id.partition("-")
    return int(number) if prefix == "R" and number.isascii() and number.isdigit() and len(number) < 19 else -1


@jit()
def standing(f: Forest) -> NDArray[np.int64]:
    """Each ring's root (-1: it has merged), accounts, tying entities, known frauds, most on one entity: [K, 5]."""
    out = np.full((f.counts[0], 5), -1, np.int64)
    for k in range(out.shape[0]):
        root = find(f, int(f.rings[k].anchor))
        n = f.nodes[root]
        if n.ring - 1 != f.rings[k].id:
            continue
        out[k, 0], out[k, 1], out[k, 2], out[k, 3] = root, n.accounts, n.shared, n.frauds
        node = root
        for _ in range(n.size):
            out[k, 4] = max(out[k, 4], f.nodes[node].tied)
            node = f.nodes[node].next
    return out


@jit()
def under(f: Forest, root: int, nodes: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Whether nodes are in the component of `root`, bool [n]; one that the forest has not met is not."""
    out = np.empty(nodes.shape[0], np.bool_)
    for i in range(nodes.shape[0]):
        out[i] = f.nodes[nodes[i]].parent != 0 and find(f, signed(nodes[i])) == root
    return out
