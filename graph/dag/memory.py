"""What a payment's entities have behind them, for as long as they are active: known frauds, and earlier meetings.

The features of an entity look at its last 256 rows of some weeks. Two facts matter beyond those: how many of its
payments are known as fraud (an account that was cleaned up is safe for long, a mule stays one), and whether payer and
payee ever met. Both are kept in 16 bits of the payment's own row, as known when it arrived, so every reader gets them
with the row: at any batch, after a snapshot, and on a GPU, to which rows are copied.

An entity that is silent for a whole window is forgotten, and so are two entities that did not meet within one. So what
a row remembers is a function of the events of its journal and of the window, and not of what a buffer happens to hold.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.jit import jit, signed
from data.schema import CATEGORIES
from graph.dag.ids import HEAD_MODULUS
from graph.memory import reserve

Records = NDArray[np.void]
BITS: Final = 16  # of a row, the spare number beside those of its ring
MOST_FRAUD_BITS: Final = 4
LEAST_MET_BITS: Final = 2
MOST_MET_BITS: Final = 6
MOST_HELD: Final = 255  # frauds that are counted of an entity, further than rows hold: labels are also taken back
PARTNERS: Final = ("payee", "device", "merchant")  # with whom an account's meetings are counted: the first there is
MAX_LOAD: Final = 0.6
EMPTY_PAIRS: Final = 1 << 10


class Layout(NamedTuple):
    """Where the 16 bits hold what: the known frauds of each role's entity, then meetings. R roles, M items."""

    names: tuple[str, ...]  # [M]
    shift: NDArray[np.int32]  # [M] lowest bit of each item
    mask: NDArray[np.int32]  # [M] largest value of each item
    partner: int  # role with which an account's meetings are counted, -1 for none


def layout(roles: Sequence[str]) -> Layout:
    """The bits of a row of some roles, `account` first: what has many roles counts less far."""
    partner = next((roles.index(name) for name in PARTNERS if name in roles), -1)
    bits = [min(MOST_FRAUD_BITS, (BITS - LEAST_MET_BITS) // len(roles))] * len(roles)
    names = [f"{name}.frauds_known" for name in roles]
    if partner >= 0:
        names.append(f"account.ever_met_{roles[partner]}")
        bits.append(min(MOST_MET_BITS, BITS - sum(bits)))
    shift = np.cumsum([0, *bits[:-1]]).astype(np.int32)
    return Layout(tuple(names), shift, (1 << np.array(bits, np.int32)) - 1, partner)


def head_names(roles: Sequence[str]) -> tuple[str, ...]:
    """What a head of trees reads beside the features: hashed categories, then what a row remembers."""
    return (*(f"category.{name}" for name in CATEGORIES), *layout(roles).names)


def head_inputs(roles: Sequence[str], category: NDArray[np.uint8], ring: NDArray[np.uint16]) -> NDArray[np.float32]:
    """What a head of trees reads of rows beside their features.

    Args:
        roles: The store's.
        category: The store's column, uint8 [n, 4].
        ring: The store's column, uint16 [n, 4].

    Returns:
        float32 [n, 4 + M] in the order of `head_names`.
    """
    plan = layout(roles)
    items = (ring[:, 3:].astype(np.int32) >> plan.shift) & plan.mask
    return np.concatenate([category, items], 1).astype(np.float32)


class Pairs:
    """An index from a payer and its partner to the newest row of both: a hash table of rows, uint32.

    It can always be made again of the rows, so no snapshot holds it.
    """

    def __init__(self) -> None:
        self.table: NDArray[np.uint32] = np.zeros(EMPTY_PAIRS, np.uint32)
        self.used = 0  # places taken; those of rows out of sight are given back when the table is made again
        self.made_at = -1  # rows there were then; -1 for never


class Memory:
    """Keeps the 16 bits of new rows.

    Args:
        roles: The store's.
        most: Nodes, at most.
    """

    def __init__(self, roles: Sequence[str], most: int) -> None:
        self.layout = layout(roles)
        self.frauds: NDArray[np.uint8] = reserve(most, np.uint8)  # known of each node
        self.pairs = Pairs()

    def write(self, data: Records, first: int, n: int, window_rows: int, window_us: int) -> None:
        """Write what rows [first, first + n), just appended, remember.

        Args:
            data: The store's rows, [C].
            first: The first of them.
            n: How many; at most C.
            window_rows: Rows back that a reader sees.
            window_us: Journal time back that a reader sees, us.
        """
        plan, pairs = self.layout, self.pairs
        if plan.partner >= 0:
            self._make_room(data, first, n, window_rows)
        pairs.used += remember(
            data, plan.shift, plan.mask, self.frauds, pairs.table, plan.partner, first, n, window_rows, window_us
        )

    def label(
        self,
        data: Records,
        labelled: NDArray[np.int64],
        deltas: NDArray[np.int8],
        rows: int,
        window_rows: int,
        window_us: int,
    ) -> None:
        """Count labels: `deltas` int8 [n] frauds more of rows int64 [n], when there were `rows` rows."""
        if deltas.any():
            count_frauds(data, self.frauds, labelled, deltas, rows, window_rows, window_us)

    def _make_room(self, data: Records, first: int, n: int, window_rows: int) -> None:
        """Room in the index for n rows more; it is made anew where it is too full, or too old for its row numbers."""
        pairs, capacity = self.pairs, data.shape[0]
        fits = pairs.used + n <= MAX_LOAD * len(pairs.table)
        if fits and pairs.made_at >= 0 and first - pairs.made_at <= capacity:
            return
        seen = min(first, window_rows, capacity)
        live = np.zeros(1, np.int64)
        size = max(EMPTY_PAIRS, len(pairs.table))
        while True:
            table = np.zeros(size, np.uint32)
            whole = index_pairs(data, table, self.layout.partner, first - seen, first, live)
            if whole and live[0] + n <= MAX_LOAD * size / 2:  # half empty, so that the next time is far off
                break
            size *= 2
        pairs.table, pairs.used, pairs.made_at = table, int(live[0]), first

    def forget_pairs(self) -> None:
        """The rows are others now: the index is made again of them at the next write."""
        self.pairs = Pairs()


@jit(inline=True)
def _place(data: Records, table: NDArray[np.uint32], partner: int, slot: int, row: int, reach: int) -> int:
    """The place in `table` of a row's pair: that of its newest row at most `reach` back, else one to be taken."""
    capacity, size = data.shape[0], table.shape[0]
    a, b = signed(data[slot].entity[0]), signed(data[slot].entity[partner])
    h = (a * 2654435761 + b) * 2246822519
    h ^= (h >> 29) & 0xFFFFFFF
    h &= size - 1
    now, free = row % HEAD_MODULUS + 1, -1
    while table[h]:
        back = now - signed(table[h])
        back += HEAD_MODULUS if back < 0 else 0
        if back == 0 or back > reach:  # out of sight
            free = h if free < 0 else free
        else:
            s = slot - back
            y = data[s + (capacity if s < 0 else 0)]
            if y.entity[0] == a and y.entity[partner] == b:
                return h
        h = (h + 1) & (size - 1)
    return free if free >= 0 else h


@jit()
def index_pairs(
    data: Records, table: NDArray[np.uint32], partner: int, first: int, stop: int, live: NDArray[np.int64]
) -> bool:
    """Enter the pairs of rows [first, stop) into an empty table and count them; False where it becomes too full."""
    live[0] = 0
    for row in range(first, stop):
        slot = row % data.shape[0]
        if data[slot].entity[0] < 0 or data[slot].entity[partner] < 0:
            continue
        at = _place(data, table, partner, slot, row, row - first)
        if table[at] == 0:
            live[0] += 1
            if live[0] > MAX_LOAD * table.shape[0]:
                return False
        table[at] = row % HEAD_MODULUS + 1
    return True


@jit()
def remember(
    data: Records,
    shift: NDArray[np.int32],
    mask: NDArray[np.int32],
    frauds: NDArray[np.uint8],
    table: NDArray[np.uint32],
    partner: int,
    first: int,
    n: int,
    window_rows: int,
    window_us: int,
) -> int:
    """Fill the last number of `ring` of rows [first, first + n), one after the other; returns new places in `table`."""
    capacity, more = data.shape[0], 0
    for row in range(first, first + n):
        slot = row % capacity
        x = data[slot]
        code = 0
        for r in range(x.entity.shape[0]):
            node = signed(x.entity[r])
            if node < 0:
                continue
            back = signed(x.prev[r])
            s = slot - back
            before = data[s + (capacity if s < 0 else 0)].time
            if back == 0 or back > window_rows or x.time - before > window_us:
                frauds[node] = 0
            code |= min(signed(frauds[node]), signed(mask[r])) << signed(shift[r])
        if partner >= 0 and x.entity[0] >= 0 and x.entity[partner] >= 0:
            at = _place(data, table, partner, slot, row, min(window_rows, capacity - 1))
            back = row % HEAD_MODULUS + 1 - signed(table[at])
            back += HEAD_MODULUS if back < 0 else 0
            s = slot - back
            if table[at] == 0:
                more += 1
            elif 0 < back <= window_rows and back < capacity:
                y = data[s + (capacity if s < 0 else 0)]
                same = y.entity[0] == x.entity[0] and y.entity[partner] == x.entity[partner]
                if same and x.time - y.time <= window_us:
                    low, most = signed(shift[shift.shape[0] - 1]), signed(mask[mask.shape[0] - 1])
                    code |= min(((signed(y.ring[3]) >> low) & most) + 1, most) << low
            table[at] = row % HEAD_MODULUS + 1
        x.ring[3] = code
    return more


@jit()
def count_frauds(
    data: Records,
    frauds: NDArray[np.uint8],
    labelled: NDArray[np.int64],
    deltas: NDArray[np.int8],
    rows: int,
    window_rows: int,
    window_us: int,
) -> None:
    """Count changes of belief `deltas` [n] of rows [n] for their entities, as far as the next row could see them."""
    capacity = data.shape[0]
    for i in range(labelled.shape[0]):
        if deltas[i] == 0 or rows - labelled[i] > window_rows:
            continue
        x = data[labelled[i] % capacity]
        if data[(rows - 1) % capacity].time - x.time > window_us:
            continue
        for r in range(x.entity.shape[0]):
            node, again = signed(x.entity[r]), False
            for other in range(r):  # who pays himself has one fraud more, not two
                again |= x.entity[other] == x.entity[r]
            if node >= 0 and not again:
                frauds[node] = min(max(signed(frauds[node]) + deltas[i], 0), MOST_HELD)


@jit()
def read_head(
    data: Records, rows: NDArray[np.int64], shift: NDArray[np.int32], mask: NDArray[np.int32], out: NDArray[np.float32]
) -> None:
    """`head_inputs` of rows int64 [B] into `out` [B, 4 + M]."""
    for b in range(rows.shape[0]):
        x = data[rows[b] % data.shape[0]]
        for c in range(4):
            out[b, c] = x.category[c]
        for i in range(shift.shape[0]):
            out[b, 4 + i] = (signed(x.ring[3]) >> shift[i]) & mask[i]
