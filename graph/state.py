"""The state that the journal builds: one function, `apply`, that the service, the trainer and the re-scorer share."""

import zlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data.journal import Events, Kind
from data.schema import CATEGORIES, role
from graph.errors import GraphError
from graph.rings import RingIndex
from graph.store import Batch, GraphStore, Window

CATEGORY_BUCKETS = 128  # codes 1..127; 0 is missing. Feature hashing (Weinberger et al., ICML 2009)


class GraphState:
    """The transaction DAG, its labels and its rings, as of one place in the journal.

    Args:
        roles: Roles kept in the graph; others in the data are ignored.
        capacity: Rows held, a power of two.
        window: How far back a reader sees.
    """

    def __init__(self, roles: Sequence[str], capacity: int = 1 << 22, window: Window | None = None) -> None:
        self.store = GraphStore(roles, capacity, window)
        self.rings = RingIndex(self.store)
        self.applied = 0  # the journal offset expected next
        self._rows: dict[str, int] = {}  # transaction id -> row

    def apply(self, events: Events) -> range:
        """Take in the next events of the journal. A label of a payment that the buffer does not hold changes nothing.

        Args:
            events: They must begin at `applied`.

        Returns:
            The rows of the payments among them; empty for other kinds.

        Raises:
            GraphError: The events do not follow on.
        """
        if events.offset != self.applied:
            raise GraphError(f"events at offset {events.offset} do not follow offset {self.applied}")
        rows = range(self.store.rows, self.store.rows)
        if events.kind is Kind.TRANSACTION:
            rows = self._append(events)
        elif events.kind is Kind.LABEL:
            self._label(events)
        self.applied += len(events.batch)
        return rows

    def row_of(self, transaction_id: str) -> int | None:
        """The row of a payment, or None where it was never seen or has left the buffer."""
        row = self._rows.get(transaction_id)
        return row if row is not None and row >= self.store.oldest else None

    def transaction_rows(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Rows of many payments, int64 [n]; -1 where never seen."""
        get = self._rows.get
        return np.fromiter((get(i, -1) for i in ids), np.int64, len(ids))

    def _append(self, events: Events) -> range:
        store, batch = self.store, events.batch
        entity = np.empty((len(batch), len(store.roles)), np.int32)
        for r, name in enumerate(store.roles):
            entity[:, r] = store.ids.encode(int(store.role_type[r]), batch.column(role(name).column))
        category = np.empty((len(batch), len(CATEGORIES)), np.uint8)
        for c, name in enumerate(CATEGORIES):
            category[:, c] = _codes(batch.column(name))
        rows = store.append(
            Batch(
                entity=entity,
                time=batch.column("timestamp").cast(pa.int64()).to_numpy(),
                amount=batch.column("amount").to_numpy(),
                category=category,
            ),
            events.offset,
        )
        self._rows.update(zip(batch.column("transaction_id").to_pylist(), rows, strict=True))
        if len(self._rows) > 2 * store.capacity:
            self._rows = {i: row for i, row in self._rows.items() if row >= store.oldest}
        self.rings.extend(rows.start, rows.stop)
        return rows

    def _label(self, events: Events) -> None:
        ids = events.batch.column("transaction_id").to_pylist()
        rows = self.transaction_rows(ids)
        fraud = events.batch.column("is_fraud").cast(pa.int8()).to_numpy(zero_copy_only=False)
        time = events.batch.column("reported_at").cast(pa.int64()).to_numpy()
        deltas = self.store.label(rows, fraud, events.offset, time)
        changed = deltas != 0
        if changed.any():
            self.rings.relabel(rows[changed], deltas[changed])


def _codes(column: pa.Array) -> NDArray[np.uint8]:
    if column.null_count == len(column):
        return np.zeros(len(column), np.uint8)
    encoded = pc.dictionary_encode(column)
    codes = np.zeros(len(encoded.dictionary) + 1, np.uint8)
    for i, text in enumerate(encoded.dictionary.to_pylist()):
        codes[i] = zlib.crc32(text.encode()) % (CATEGORY_BUCKETS - 1) + 1
    return codes[encoded.indices.fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False)]
