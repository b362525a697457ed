"""External identifiers to dense numbers: entities to nodes, payments to the slots of their rows.

Every account, merchant, device, ... is a *node*. Nodes of all entity types are numbered together, so one array indexed
by node serves every role. A node whose entity was last seen before the buffer gives its number back.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.digests import (
    LOOKUPS_PER_BLOCK,
    MAX_LOAD_FACTOR,
    Digests,
    Key,
    Table,
    bucket_of,
    derive_key,
    digest,
    empty_buckets,
    find,
    key_from_environment,
    prefetch_lookups,
    rebuild_buckets,
    remove,
)
from data.jit import jit, signed
from graph.errors import GraphError
from graph.memory import reserve

# Places in `Ids.meta`: one more than the largest number given out; the first free number + 1, 0 for none; numbers in
# use; the number that the sweep looks at next.
USED, FREE, LIVE, SWEPT = range(4)
TYPE_BITS = 3  # lowest bits of a digest's second word, which hold the entity type
HEAD_MODULUS = (1 << 32) - 1  # heads hold 1 + (row modulo this), so that 0 means "no row"


class Ids:
    """A table (entity type, name) -> node, and each node's newest row.

    Args:
        types: Names of the entity types, 8 at most; a type's position is its number.
        most: Largest number of nodes in use at once.
        expected: Nodes to make room for at once; beyond it the table grows, which takes time.
        key: Secret of the digests; by default the environment's.

    Raises:
        GraphError: Too many entity types.
    """

    def __init__(self, types: Sequence[str], most: int, expected: int = 0, key: Key | None = None) -> None:
        if len(types) > 1 << TYPE_BITS:
            raise GraphError(f"{len(types)} entity types are more than {1 << TYPE_BITS}")
        self.types = tuple(types)
        key = key or key_from_environment()
        self.keys = [derive_key(key, f"entity:{name}") for name in types]
        self.most = most
        self.digests: Digests = reserve((most, 2), np.uint64)
        self.head: NDArray[np.uint32] = reserve(most, np.uint32)  # newest row of each node, see HEAD_MODULUS
        self.buckets = empty_buckets(expected)
        self.meta = np.zeros(4, np.int64)

    def __len__(self) -> int:
        """Nodes in use."""
        return int(self.meta[LIVE])

    @property
    def numbered(self) -> int:
        """One more than the largest number ever given out: the length of arrays indexed by node."""
        return int(self.meta[USED])

    def encode(self, kind: int, column: pa.Array) -> NDArray[np.int32]:
        """Number a column of names, adding those not seen before.

        Args:
            kind: Number of the entity type.
            column: Strings, nullable, shape [n].

        Returns:
            Nodes, int32 [n]; -1 for null.

        Raises:
            GraphError: More entities are in use than there is room for.
        """
        nodes = np.empty(len(column), np.int32)
        if column.null_count == len(column):
            nodes[:] = -1
            return nodes
        wanted = self._digests(kind, column)
        if self.meta[LIVE] + len(column) > MAX_LOAD_FACTOR * len(self.buckets):
            self._grow(int(self.meta[LIVE]) + len(column))
        if not _intern(self._table, self.meta, wanted, nodes):
            raise GraphError(f"more than {self.most:,} entities are in use: give the graph a larger buffer")
        return nodes

    def get(self, kind: int, name: str) -> int:
        """The node of one name, or -1 where it is not known."""
        found = np.empty(1, np.int64)
        find(self._table, self._digests(kind, pa.array([name])), found)
        return int(found[0])

    def pseudonym(self, node: int) -> str:
        """What stands for a node's name where only the graph is at hand: the beginning of its digest."""
        return f"#{self.digests[node, 0]:016x}"

    def kind(self, node: int) -> int:
        """The number of a node's entity type."""
        return int(self.digests[node, 1]) & ((1 << TYPE_BITS) - 1)

    def sweep(self, nodes: int, rows: int, before: int) -> NDArray[np.int32]:
        """Go through some more nodes and take back the numbers of those last seen before a row.

        Args:
            nodes: How many to look at, at most all.
            rows: Rows so far.
            before: Row that a node must have been seen at or after to stay.

        Returns:
            The nodes given back, int32.
        """
        n = min(nodes, self.numbered)
        freed = np.empty(n, np.int32)
        return freed[: _sweep(self._table, self.meta, self.head, n, rows, rows - before, freed)]

    @property
    def _table(self) -> Table:
        return Table(self.digests, self.buckets)

    def _digests(self, kind: int, column: pa.Array) -> Digests:
        found = digest(self.keys[kind], column)
        bits = np.uint64((1 << TYPE_BITS) - 1)
        found[:, 1] = (found[:, 1] & ~bits) | np.uint64(kind)
        if column.null_count:
            found[column.is_null().to_numpy(zero_copy_only=False)] = 0
        return found

    def _grow(self, names: int) -> None:
        self.buckets = empty_buckets(names)
        rebuild_buckets(self.digests, self.numbered, self.buckets)


class PaymentIds:
    """A table transaction id -> slot of its row.

    Args:
        capacity: Slots.
        key: Secret of the digests; by default the environment's.
    """

    def __init__(self, capacity: int, key: Key | None = None) -> None:
        self.key = derive_key(key or key_from_environment(), "transaction")
        self.digests: Digests = reserve((capacity, 2), np.uint64)  # by slot
        self.buckets = empty_buckets(0)
        self.live = 0

    def put(self, ids: pa.Array, first: int) -> None:
        """Note the ids of rows just appended; those of the rows that they overwrote are forgotten.

        Args:
            ids: Strings, shape [n], n at most the capacity.
            first: Row of the first.
        """
        if self.live + len(ids) > MAX_LOAD_FACTOR * len(self.buckets):
            # Twice as many, as the capacity bounds them: each time costs a pass over all slots used so far.
            self.buckets = empty_buckets(min(len(self.digests), 2 * self.live) + len(ids))
            rebuild_buckets(self.digests, min(first, len(self.digests)), self.buckets)
        self.live += _put(Table(self.digests, self.buckets), digest(self.key, ids), first)

    def find(self, ids: pa.Array) -> NDArray[np.int64]:
        """Slots of payments, int64 [n]; -1 where the buffer has none of that id."""
        out = np.empty(len(ids), np.int64)
        find(Table(self.digests, self.buckets), digest(self.key, ids), out)
        return out


@jit()
def _intern(t: Table, meta: NDArray[np.int64], wanted: NDArray[np.uint64], nodes: NDArray[np.int32]) -> bool:
    for n in range(nodes.shape[0]):
        if n % LOOKUPS_PER_BLOCK == 0 and nodes.shape[0] > 1:
            prefetch_lookups(t, wanted, n)
        high, low = wanted[n, 0], wanted[n, 1]
        if high == 0 and low == 0:
            nodes[n] = -1
            continue
        at = bucket_of(t, high, low)
        node = signed(t.buckets[at]) - 1
        if node < 0:
            node = meta[FREE] - 1
            if node >= 0:
                meta[FREE] = signed(t.digests[node, 0])  # free numbers are a list through their digests
            elif meta[USED] < t.digests.shape[0]:
                node = meta[USED]
                meta[USED] += 1
            else:
                return False
            t.digests[node, 0] = high
            t.digests[node, 1] = low
            t.buckets[at] = node + 1
            meta[LIVE] += 1
        nodes[n] = node
    return True


@jit()
def _sweep(
    t: Table,
    meta: NDArray[np.int64],
    head: NDArray[np.uint32],
    nodes: int,
    rows: int,
    span: int,
    freed: NDArray[np.int32],
) -> int:
    count = 0
    at = meta[SWEPT]
    for _ in range(nodes):
        if at >= meta[USED]:
            at = 0
        # Heads are kept modulo HEAD_MODULUS: the sweep passes every node long before its head could come round.
        if head[at] and (rows % HEAD_MODULUS + 1 - signed(head[at])) % HEAD_MODULUS > span:
            remove(t, bucket_of(t, t.digests[at, 0], t.digests[at, 1]))
            t.digests[at, 0] = np.uint64(meta[FREE])
            t.digests[at, 1] = np.uint64(0)
            head[at] = 0
            meta[FREE] = at + 1
            meta[LIVE] -= 1
            freed[count] = at
            count += 1
        at += 1
    meta[SWEPT] = at
    return count


@jit()
def _put(t: Table, wanted: NDArray[np.uint64], first: int) -> int:
    more = 0
    capacity = t.digests.shape[0]
    for n in range(wanted.shape[0]):
        if n % LOOKUPS_PER_BLOCK == 0 and wanted.shape[0] > 1:
            prefetch_lookups(t, wanted, n)
        slot = (first + n) % capacity
        if t.digests[slot, 0] or t.digests[slot, 1]:
            remove(t, bucket_of(t, t.digests[slot, 0], t.digests[slot, 1]))
            more -= 1
            t.digests[slot, 0] = 0
            t.digests[slot, 1] = 0
        at = bucket_of(t, wanted[n, 0], wanted[n, 1])
        place = t.buckets[at]
        if place:  # the same id again, which a journal refuses; if it happens, the newest row has it
            t.digests[place - 1, 0] = 0
            t.digests[place - 1, 1] = 0
            more -= 1
        t.digests[slot, 0] = wanted[n, 0]
        t.digests[slot, 1] = wanted[n, 1]
        t.buckets[at] = slot + 1
        more += 1
    return more
