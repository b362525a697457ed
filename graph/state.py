"""The state that the journal builds: one function, `apply`, that the service, the trainer and the re-scorer share."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.jit import run_concurrently
from data.journal.protocol import Events, Kind, PaymentSource
from data.schema import CATEGORIES, role
from graph.dag.categories import CurrencyNames, category_codes
from graph.dag.ids import PaymentIds
from graph.dag.protocol import ROWS_PER_APPEND, Batch, Store, StoreMaker, Window
from graph.dag.store import GraphStore
from graph.errors import GraphError
from graph.memory import ArrayPart
from graph.rings.index import RingIndex
from graph.rings.protocol import RingEngine, RingMaker

# Kinds that change nothing in the graph, and why. A kind that is neither here nor handled by `apply` is refused.
UNCHANGING: Final[Mapping[Kind, str]] = MappingProxyType(
    {
        Kind.OUTCOME: "what the service or the bank did with a payment is no evidence of fraud: a score that read it "
        "would learn from its own decisions",
        Kind.VERDICT: "what is said of a ring is for people; what it says of payments comes as labels of theirs",
        Kind.RING: "a ring is found from scores: a score that read it would feed on itself",
        Kind.MANDATE: "what an owner allows an agent is enforced by decisions; a score judges what the agent does",
        Kind.POLICY: "what is decided of a score is no part of it",
        Kind.MODEL: "which model scores is for replicas: the graph is the same for all of them",
    }
)


class GraphState:
    """The transaction DAG, its labels and its rings, as of one place in the journal.

    Args:
        roles: Roles kept in the graph; others in the data are ignored.
        capacity: Rows held.
        window: How far back a reader sees.
        source: Where names of entities and payments are looked up for people; without one they get pseudonyms.
        entities: Entities to make room for at once.
        make: Makes the store: the class of the backend's.
        rings: Makes the engine of rings: its class, or a function that also says how (`functools.partial`).
    """

    def __init__(
        self,
        roles: Sequence[str],
        capacity: int = 1 << 22,
        window: Window | None = None,
        source: PaymentSource | None = None,
        entities: int = 0,
        make: StoreMaker = GraphStore,
        rings: RingMaker = RingIndex,
    ) -> None:
        self.store: Store = make(roles, capacity, window, entities=entities)
        self.currencies = CurrencyNames()
        self.rings: RingEngine = rings(self.store, names=self.names, currencies=self.currencies)
        self.source = source
        self.applied = 0  # the journal offset expected next
        self.payments = PaymentIds(capacity)

    def apply(self, events: Events) -> range:
        """Take in the next events of the journal. A label of a payment that the buffer does not hold changes nothing,
        nor does one that was reported before another that is there (`Store.label`).

        Args:
            events: They must begin at `applied`.

        Returns:
            The rows of the payments among them; empty for other kinds.

        Raises:
            GraphError: The events do not follow on, are of a kind that this version does not know, or the graph has no
                room for more entities. It is unchanged in the first two cases.
        """
        if events.offset != self.applied:
            raise GraphError(f"events at offset {events.offset} do not follow offset {self.applied}")
        first = self.store.rows
        if events.kind is Kind.TRANSACTION:
            # Rings read a window back from the first row of a step, so no step may overwrite that far.
            step = min(ROWS_PER_APPEND, self.store.capacity - self.store.window.rows)
            for start in range(0, len(events.batch), step):
                self._append(events.batch.slice(start, step), events.offset + start)
        elif events.kind is Kind.LABEL:
            self._label(events)
        elif events.kind not in UNCHANGING:
            raise GraphError(
                f"the events at offset {events.offset} are of kind {events.kind!r}: this version does not know what "
                "they change; upgrade Ringwatch"
            )
        self.applied += len(events.batch)
        return range(first, self.store.rows)

    def row_of(self, transaction_id: str) -> int | None:
        """The row of a payment, or None where it was never seen or has left the buffer."""
        row = int(self.transaction_rows(pa.array([transaction_id]))[0])
        return row if row >= 0 else None

    def transaction_rows(self, ids: pa.Array) -> NDArray[np.int64]:
        """Rows of payments by their ids (strings), int64 [n]; -1 where never seen or no longer in the buffer."""
        slots, last = self.payments.find(ids), self.store.rows - 1
        return np.where(slots < 0, -1, last - (last - slots) % self.store.capacity)

    def currencies_of(self, rows: NDArray[np.int64]) -> list[str]:
        """Currencies of payments in the buffer, [n]; see `CurrencyNames`."""
        return self.currencies.of(self.store.column("category", rows)[:, CATEGORIES.index("currency")].tolist())

    def transaction_ids(self, rows: NDArray[np.int64]) -> list[str]:
        """Ids of payments in the buffer; a pseudonym where there is no source to look them up."""
        if self.source is None:
            return [f"#{row}" for row in rows.tolist()]
        found: list[str] = self.source.take(self.store.offsets.of(rows))["transaction_id"].to_pylist()
        return found

    def names(
        self,
        nodes: NDArray[np.int64],
        rows: NDArray[np.int64] | None = None,
        offsets: NDArray[np.int64] | None = None,
        source: PaymentSource | None = None,
    ) -> list[str]:
        """Names of entities, read from their payments; pseudonyms where that cannot be.

        Args:
            nodes: int64 [n].
            rows: A payment of each that the buffer holds, int64 [n]; -1 for none. By default the newest.
            offsets: Journal offsets of those, int64 [n].
            source: Where they are read, by default `self.source`: for a thread that needs one of its own.
        """
        source = source or self.source
        rows = self.store.newest(nodes) if rows is None else rows
        there = np.flatnonzero(rows >= 0)
        if source is None or not len(there):
            return [self.store.ids.pseudonym(node) for node in nodes.tolist()]
        found = [self.store.ids.pseudonym(node) if row < 0 else "" for node, row in zip(nodes, rows, strict=True)]
        nodes, rows = nodes[there], rows[there]
        entity = self.store.column("entity", rows)
        payments = source.take(self.store.offsets.of(rows) if offsets is None else offsets[there])
        for r, name in enumerate(self.store.roles):
            column = payments[role(name).column].to_pylist()
            for at in np.flatnonzero(entity[:, r] == nodes).tolist():
                found[int(there[at])] = column[at]
        return found

    def facts(self) -> dict[str, Any]:
        """What a snapshot says of the graph beside its arrays."""
        return {**self.store.facts(), "payments": self.payments.live, "currencies": self.currencies.facts()}

    def parts(self) -> dict[str, ArrayPart]:
        """Every array of the graph, by name."""
        slots = min(self.store.rows, self.store.capacity)
        return {
            **self.store.parts(),
            "payments.digests": ArrayPart(self.payments.digests, slots),
            "payments.buckets": ArrayPart(self.payments.buckets, len(self.payments.buckets)),
            **{f"rings.{name}": part for name, part in self.rings.parts().items()},
        }

    def adopt(self, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any], applied: int) -> None:
        """Take the place of a snapshot: `arrays` by the names of `parts`, `facts` as `facts` gave them."""
        self.store.adopt(arrays, facts)
        self.payments.digests, self.payments.buckets = arrays["payments.digests"], arrays["payments.buckets"]
        self.payments.live = facts["payments"]
        self.currencies.adopt(facts.get("currencies", ()))
        self.rings.adopt({n.removeprefix("rings."): a for n, a in arrays.items() if n.startswith("rings.")})
        self.applied = applied

    def _append(self, batch: pa.RecordBatch, offset: int) -> None:
        store = self.store
        entity = np.empty((len(batch), len(store.roles)), np.int32)
        for r, name in enumerate(store.roles):
            entity[:, r] = store.ids.encode(int(store.role_type[r]), batch.column(role(name).column))
        category = np.empty((len(batch), len(CATEGORIES)), np.uint8)
        for c, name in enumerate(CATEGORIES):
            category[:, c] = category_codes(batch.column(name))
        self.currencies.see(batch.column("currency"))
        ready = Batch(
            entity=entity,
            time=batch.column("timestamp").cast(pa.int64()).to_numpy(),
            amount=batch.column("amount").to_numpy(),
            category=category,
        )
        ids, first = batch.column("transaction_id"), store.rows
        self.rings.announce(first + len(batch))
        rows = run_concurrently(lambda: store.append(ready, offset), lambda: self.payments.put(ids, first), len(batch))
        self.rings.extend(rows.start, rows.stop)
        self.rings.forget(store.expire(len(rows), self.rings.safe))

    def _label(self, events: Events) -> None:
        rows = self.transaction_rows(events.batch.column("transaction_id"))
        fraud = events.batch.column("is_fraud").cast(pa.int8()).to_numpy(zero_copy_only=False)
        time = events.batch.column("reported_at").cast(pa.int64()).to_numpy()
        changed = (deltas := self.store.label(rows, fraud, time)) != 0
        if changed.any():
            self.rings.relabel(rows[changed], deltas[changed])
