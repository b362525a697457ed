"""The interface of a store of payments.

Everything above the store (state, rings, exports, training, scoring, the service) is typed against `Store` and uses
nothing else. Arguments and results are NumPy arrays on the host. A row number is absolute (int64): how many payments
came before it.

`graph.dag.store.GraphStore` implements it. `tests/test_seam.py` runs everything above on a store that passes on what
the protocol names and refuses the rest, so another store, with arrays and kernels of its own, needs to be no more than
a class with these methods. Only `CpuEngine`, whose kernels read rows in place, asks for a `GraphStore`.

`graph.device.store.DeviceStore` is not such a class, and is not meant to be one. It is a copy of a `GraphStore` in a
device's memory, byte for byte, that a scorer on that device keeps up to date (`follow`): the host stays the place where
names become numbers, where rings and snapshots are made, and where scoring goes on at once if the device is lost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graph.dag.offsets import Offsets
from graph.memory import ArrayPart

DAY_US = 86_400_000_000
NEVER_US = 1 << 62
MAX_RING_COUNT = (1 << 16) - 1  # a ring's accounts, entities and frauds are counted up to this
MAX_RING_DISTANCE = (1 << 32) - 1  # rows back to the payment that founded a ring, at most
ROWS_PER_APPEND = 1 << 16  # rows written at once: bounds the space that must be ready for their entities


@dataclass(frozen=True)
class Window:
    """How far back a reader sees, counted from the reader and not from what the buffer happens to hold.

    Attributes:
        rows: Rows back, at most. The buffer must hold more than this.
        span_us: Journal time back, in microseconds, at most.
    """

    rows: int = 1 << 21
    span_us: int = 90 * DAY_US


class Batch(NamedTuple):
    """Payments with their ids numbered, ready to be appended. n rows, R roles."""

    entity: NDArray[np.int32]  # [n, R]
    time: NDArray[np.int64]  # [n] timestamp as sent, us
    amount: NDArray[np.int64]  # [n] minor units
    category: NDArray[np.uint8]  # [n, 4]


class LabelEvents(NamedTuple):
    """What was reported of payments in the buffer, in journal order; of each the last is believed. n events."""

    row: NDArray[np.int64]  # [n] the labelled row
    seen_from: NDArray[np.int64]  # [n] the first row that was appended after the label became known
    fraud: NDArray[np.int32]  # [n] 1 fraud, 0 legitimate


class Nodes(Protocol):
    """Numbers of entities. Nodes of all entity types are numbered together."""

    @property
    def types(self) -> tuple[str, ...]:
        """Names of the entity types; a type's position is its number."""

    @property
    def numbered(self) -> int:
        """One more than the largest number ever given out."""

    def __len__(self) -> int:
        """Nodes in use."""

    def encode(self, kind: int, column: pa.Array) -> NDArray[np.int32]:
        """Number a column of names of an entity type, int32 [n], adding those not seen before; -1 for null.

        Raises:
            GraphError: More entities are in use than there is room for.
        """

    def get(self, kind: int, name: str) -> int:
        """The node of one name, or -1 where it is not known."""

    def kind(self, node: int) -> int:
        """The number of a node's entity type."""

    def pseudonym(self, node: int) -> str:
        """What stands for a node's name where only the graph is at hand."""


class Store(Protocol):
    """Payments as rows that point back, each entity's newest row, and label events. R roles.

    One thread writes and reads. Beside it, another may read what no longer changes: the columns of rows that were there
    at some time (not their rings and labels), `history` from a row known then, and what `label_events` gave then; as
    long as the buffer holds those rows.
    """

    @property
    def roles(self) -> tuple[str, ...]:
        """Names of the roles kept, `account` first."""

    @property
    def role_type(self) -> NDArray[np.int32]:
        """Entity type of each role, [R]."""

    @property
    def capacity(self) -> int:
        """Slots of the buffer."""

    window: Window
    """How far back a reader sees."""

    @property
    def rows(self) -> int:
        """Rows so far: the next payment's row."""

    @property
    def oldest(self) -> int:
        """The oldest row still in the buffer."""

    @property
    def clock(self) -> int:
        """Journal time of the newest event, us."""

    @property
    def ids(self) -> Nodes:
        """Entities by their names."""

    @property
    def offsets(self) -> Offsets:
        """Journal offsets of the rows."""

    # Written by the journal's events, in order.

    def append(self, batch: Batch, offset: int) -> range:
        """Write payments, in order, the first of them at a journal offset and the others after it; returns their rows.

        What rings they have is not known yet.
        """

    def label(self, rows: NDArray[np.int64], fraud: NDArray[np.int8], time: NDArray[np.int64]) -> NDArray[np.int8]:
        """Write label events, in order; rows appended from now on see them.

        What is believed of a row is the label that was reported last among those that are there; of several reported
        at once, the one that came last. One that comes after a label with a later report changes nothing, for good.

        Args:
            rows: Labelled rows, int64 [n]; -1 (a payment that has left the buffer) is counted but not kept.
            fraud: 1 fraud, 0 legitimate, int8 [n].
            time: When each was reported, us, int64 [n].

        Returns:
            Change of belief for each event, int8 [n]: +1 now fraud, -1 no longer fraud, 0 no change.
        """

    def expire(self, appended: int, before: int) -> NDArray[np.int32]:
        """Take back the numbers of some entities last seen before a row and before the buffer.

        Args:
            appended: Rows appended since the last call: the work is in proportion.
            before: Row that an entity must have been seen at or after to stay, or in the buffer.

        Returns:
            The nodes given back, int32.
        """

    def write_rings(self, rows: NDArray[np.int64], ring: NDArray[np.uint16], back: NDArray[np.uint32]) -> None:
        """Write what the rings of payments are as of then.

        Args:
            rows: int64 [n].
            ring: Accounts, tying entities, known frauds, uint16 [n, 3].
            back: 1 + rows back to the payment that founded the ring, 0 where there is none, uint32 [n].
        """

    # Read.

    def column(self, name: str, rows: NDArray[np.int64] | None = None) -> NDArray[Any]:
        """A field of some rows in the buffer, or of all of them from the oldest on.

        Args:
            name: `time` (journal time, us: int64 [n]), `amount` (minor units, int64 [n]), `entity` (nodes, -1 where the
                role is missing, int32 [n, R]), `category` (hashed codes, 0 where missing, uint8 [n, 4]) or `ring` (as
                in `write_rings`, and what `graph.dag.memory` says of its entities, uint16 [n, 4]).
            rows: int64 [n].
        """

    def raw_time(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Timestamps as sent, us, to the millisecond where they were late."""

    def ring_ids(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The ring of each payment as of then: the row that founded it, -1 where there was none."""

    def believed(self, rows: NDArray[np.int64], reader: int | None = None) -> NDArray[np.int8]:
        """What was known of rows when row `reader` arrived, or is now: 1 fraud, 0 legitimate, -1 nothing; int8 [n]."""

    def label_events(self) -> LabelEvents:
        """The label events so far, those of rows that have left the buffer and those that changed nothing left out.

        What is given does not change when more are reported, so another thread may read it meanwhile.
        """

    def first_rows_at(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """The first row in the buffer at or after each journal time (us, ascending), else `rows`; int64 [n]."""

    def newest(self, nodes: NDArray[np.int64]) -> NDArray[np.int64]:
        """The newest row of each node, -1 where it has none in the buffer; int64 [n]."""

    def history(self, node: int, most: int, oldest: int = 0, newest: int | None = None) -> NDArray[np.int64]:
        """Rows of a node in the buffer, newest first; int64.

        Args:
            node: The node.
            most: How many, at most.
            oldest: No row before this one.
            newest: The node's row to begin with, or -1 for none: what `newest` gave at some time. The rows are then
                those of that time, however the store goes on. By default its newest now.
        """

    def slots(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where arrays with an item for each slot, such as caches, keep rows in the buffer; int64 [n]."""

    # What the store's own kernels compute, each row as of itself.

    def neighbours(self, rows: NDArray[np.int64], k: int) -> NDArray[np.int64]:
        """Walk back k steps from each row along each role, int64 [n, R, k]; see `graph.dag.sampler.neighbours`."""

    # `settle_us` is the reader's: the age, in microseconds, at which a payment without a label counts as legitimate. A
    # model learns it from the delays of the labels that trained it; `NEVER_US` where only labels tell.

    def edges(self, rows: NDArray[np.int64], near: NDArray[np.int64], settle_us: int = NEVER_US) -> NDArray[np.float32]:
        """What ties neighbours [n, R, k] to their readers, float32 [n, R, k, E]; see `graph.dag.sampler.edges`."""

    def features(self, rows: NDArray[np.int64], settle_us: int = NEVER_US) -> NDArray[np.float32]:
        """Features of rows, float32 [n, F]; see `graph.dag.features.features`."""

    # Kept, and given to other processes.

    def parts(self) -> dict[str, ArrayPart]:
        """Every array, by name, as NumPy."""

    def facts(self) -> dict[str, Any]:
        """What goes with the arrays, as JSON: `roles`, `capacity`, `window` (as `Window`), `rows` and whatever else."""

    def adopt(self, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> None:
        """Take the place of another store of the same roles, capacity and window.

        Args:
            arrays: By the names of `parts`. Where only reading follows, each may end where it ceases to be `used`.
            facts: As `facts` gave them.
        """


class StoreMaker(Protocol):
    """Makes a store; the class of one is one."""

    def __call__(self, roles: Sequence[str], capacity: int, window: Window | None, *, entities: int = 0) -> Store:
        """An empty store of some roles, slots and window, with room for some entities at once."""
