"""Payments with what is known of each, for people: from the graph and, where it holds them no more, the journal."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data.journal.protocol import IdIndex, LabelIndex, PaymentSource
from data.schema import ROLES, TIMESTAMP, role
from graph.rings.protocol import Scores
from graph.rings.records import RING_PAYMENTS
from graph.state import GraphState
from serve.cases.protocol import Entity

PER_ENTITY = 2_000  # payments of one entity that are looked at
OF_OTHERS = 40  # newest payments of an entity that a ring shares, members' or others', shown as its neighbourhood
TIED = 100  # entities listed beside one
COUNTED = 1 << 20  # payments of one entity that are counted


class Recorded(PaymentSource, Protocol):
    """What is read of a journal here."""

    @property
    def ids(self) -> IdIndex:
        """Where transaction ids are."""

    @property
    def labels(self) -> LabelIndex:
        """What was reported of payments."""


class Lookup:
    """Reads payments, entities and what ties them. Whoever moves the graph must not do so meanwhile.

    Args:
        journal: Of the payments.
        state: The graph.
        probabilities: What the model said of rows in the graph.
    """

    def __init__(self, journal: Recorded, state: GraphState, probabilities: Scores) -> None:
        self._journal, self._state, self._probabilities = journal, state, probabilities

    def node(self, role_name: str, name: str) -> int:
        """The node of an entity, -1 where it is not in the graph.

        Raises:
            SchemaError: There is no such role.
        """
        kind = role(role_name).entity_type
        types = self._state.store.ids.types
        return self._state.store.ids.get(types.index(kind), name) if kind in types else -1

    def nodes(self, role_name: str, names: Sequence[str]) -> NDArray[np.int64]:
        """Those of some entities' nodes that are in the graph, int64."""
        found = np.array([self.node(role_name, name) for name in names], np.int64)
        return found[found >= 0]

    def rows_of(self, role_name: str, name: str, most: int = PER_ENTITY) -> NDArray[np.int64]:
        """The newest rows of an entity, newest first, int64."""
        node = self.node(role_name, name)
        return np.empty(0, np.int64) if node < 0 else self._state.store.history(node, most)

    def rows(self, rows: NDArray[np.int64], evidence: Sequence[str] = ()) -> pa.Table:
        """Payments in the graph, of `RING_PAYMENTS`, oldest first.

        Args:
            rows: int64 [n].
            evidence: Transaction ids that a ring rests on.
        """
        store, rows = self._state.store, np.unique(rows)
        if not len(rows):
            return RING_PAYMENTS.empty_table()
        payments = self._journal.take(store.offsets.of(rows))
        return self._known(payments, self._probabilities(rows), evidence)

    def payments(self, ids: Sequence[str], evidence: Sequence[str] = ()) -> pa.Table:
        """Payments by their ids, of `RING_PAYMENTS`, oldest first; those that nobody knows are left out.

        The probability of one that has left the graph is null.
        """
        offsets = sorted(known.offset for known in self._journal.ids.find(ids).values())
        if not offsets:
            return RING_PAYMENTS.empty_table()
        payments = self._journal.take(np.array(offsets, np.int64))
        rows = self._state.transaction_rows(payments["transaction_id"].combine_chunks())
        there = rows >= 0
        probability = np.full(len(rows), np.nan)
        probability[there] = self._probabilities(rows[there])
        return self._known(payments, probability, evidence)

    def ring(self, members: Sequence[tuple[str, str]], evidence: Sequence[str], neighbours: bool) -> pa.Table:
        """The payments behind a ring, of `RING_PAYMENTS`, oldest first.

        Args:
            members: Role and name of each.
            evidence: Transaction ids that it rests on.
            neighbours: With the members' other payments, and the newest of others at what the ring shares.
        """
        store = self._state.store
        accounts = [name for name_role, name in members if role(name_role).entity_type == "account"]
        own = [self.rows_of("account", name) for name in accounts]
        rows = np.unique(np.concatenate([*own, np.empty(0, np.int64)]))
        if not neighbours:
            nodes = np.array([self.node(*member) for member in members], np.int64)
            entity = store.column("entity", rows)
            inside = np.isin(entity, nodes[nodes >= 0]).sum(axis=1) >= 2  # the account itself, and one more
            rows = rows[inside]
        else:
            shared = [m for m in members if role(m[0]).entity_type != "account"]
            rows = np.concatenate([rows, *(self.rows_of(*member, OF_OTHERS) for member in shared)])
        in_graph = self.rows(rows, evidence)
        seen = set(in_graph["transaction_id"].to_pylist())
        others = self.payments([name for name in evidence if name not in seen], evidence)
        return pa.concat_tables([in_graph, others]).sort_by("timestamp") if len(others) else in_graph

    def entity(
        self, role_name: str, name: str, limit: int, rings: Sequence[str], evidence: Sequence[str]
    ) -> Entity | None:
        """What is known of an entity; None where it is not in the graph.

        Args:
            role_name: Its role.
            name: Its identifier.
            limit: Payments shown, at most.
            rings: Ids of its rings.
            evidence: Transaction ids that these rest on.

        Raises:
            SchemaError: There is no such role.
        """
        every = self.rows_of(role_name, name, COUNTED)
        if not len(every):
            return None
        time = self._state.store.column("time", every[[0, -1]])
        return Entity(
            role=role_name,
            name=name,
            first_seen=int(time[1]),
            last_seen=int(time[0]),
            payments=self.rows(every[:limit], evidence),
            total=len(every),
            rings=tuple(rings),
            tied=self._tied(self.node(role_name, name), every[:PER_ENTITY]),
        )

    def _tied(self, node: int, rows: NDArray[np.int64]) -> tuple[tuple[str, str, int], ...]:
        """Entities in an entity's payments, most payments together first."""
        store, found = self._state.store, []
        entity = store.column("entity", rows)
        for r, name in enumerate(store.roles):
            nodes, at, counts = np.unique(entity[:, r], return_index=True, return_counts=True)
            found += [
                (int(n), int(other), name, int(rows[i]))
                for other, i, n in zip(nodes.tolist(), at.tolist(), counts.tolist(), strict=True)
                if other >= 0 and other != node
            ]
        found.sort(key=lambda item: (-item[0], item[1]))
        found = found[:TIED]
        nodes, seen = np.array([f[1] for f in found], np.int64), np.array([f[3] for f in found], np.int64)
        names = self._state.names(nodes, seen) if len(found) else []
        return tuple((r, name, n) for (n, _, r, _), name in zip(found, names, strict=True))

    def _known(self, payments: pa.Table, probability: NDArray[np.float64], evidence: Sequence[str]) -> pa.Table:
        """Add what is known of payments."""
        ids = payments["transaction_id"].to_pylist()
        labels, rests_on = self._journal.labels.find(ids), set(evidence)
        newest = [max(labels[name]) if name in labels else None for name in ids]
        fraud_at = [label[0] if label is not None and label[1] else None for label in newest]
        columns = {
            **{name: payments[name] for name in payments.column_names},
            "probability": pa.array(probability, mask=np.isnan(probability)),
            "fraud_reported_at": pa.array(fraud_at, pa.int64()).cast(TIMESTAMP),
            "known_legitimate": pa.array([label is not None and not label[1] for label in newest]),
            "evidence": pa.array([name in rests_on for name in ids]),
        }
        table = pa.table([columns[field.name] for field in RING_PAYMENTS], schema=RING_PAYMENTS)
        return table.take(pc.sort_indices(table, [("timestamp", "ascending"), ("transaction_id", "ascending")]))


def roles() -> tuple[str, ...]:
    """Names of the roles that an entity can be asked for by."""
    return tuple(r.name for r in ROLES)
