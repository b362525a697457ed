"""The layout of the rows on the CPU, and the kernels that write them and read them back.

A row of three roles is one record of 64 bytes, which is one line of the processor's cache: the read that finds a
neighbour brings all of it. Row `r` is in slot `r % capacity` of a circular buffer. A pointer is a distance in rows, so
it stays valid when the buffer wraps; one that leads further back than the reader's window counts as none.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.jit import jit, prefetch, signed
from graph.dag.ids import HEAD_MODULUS
from graph.dag.jumps import Sums, copy_jump, release_sums, role_in, write_jump
from graph.dag.protocol import Batch

Records = NDArray[np.void]

RING_COLUMNS = 3  # accounts, tying entities, known frauds
MAX_LATENESS_MS = (1 << 32) - 1  # a payment that came later than this (49 days) is kept as this late
ROWS_PER_BLOCK = 16  # rows whose reads are prefetched together while the block before is written


def row_dtype(roles: int) -> np.dtype[np.void]:
    """A row of R roles: 40 + 8 R bytes."""
    return np.dtype(
        [
            ("time", "i8"),  # journal time, us: the timestamp, raised to that of the event before
            ("amount", "i8"),  # minor units
            ("late", "u4"),  # by how much the journal time was raised, ms
            ("label", "i4"),  # newest label event of the row, -1 where there is none
            ("ring", "u2", (4,)),  # accounts, tying entities, known frauds of its ring; `graph.dag.memory`
            ("ring_back", "u4"),  # 1 + rows back to the payment that founded its ring, 0 where there is none
            ("category", "u1", (4,)),  # hashed currency, channel, mcc, country; 0 where missing
            ("entity", "i4", (roles,)),  # node in each role, -1 where the role is missing
            ("prev", "u4", (roles,)),  # distance back to the entity's previous row, 0 where there is none
        ]
    )


LABEL = np.dtype(
    [
        ("row", "i8"),  # the labelled row
        ("seen_from", "i8"),  # the first row that was appended after the label became known
        ("time", "i8"),  # when it was reported, us: never before that of the row's previous event
        ("before", "i4"),  # the row's previous label event, -1 where there is none
        ("fraud", "i4"),  # 1 fraud, 0 legitimate
    ]
)  # label events that changed what is the newest report of a row, in journal order: any time's beliefs can be read back


class View(NamedTuple):
    """Everything a kernel reads, by value or by reference. C slots, R roles; rows are absolute (int64)."""

    rows: Records  # [C] of `row_dtype`
    velocity: Records  # [C] of `graph.dag.jumps.velocity_dtype`, [0] in a store without
    sums: Sums
    labels: Records  # [n] LABEL
    role_type: NDArray[np.int32]  # [R] entity type of each role
    window_rows: int
    window_us: int
    settle_us: int  # age at which a payment without a label counts as legitimate
    oldest: int  # the oldest row in the buffer; a reader whose window begins earlier sees what is left of it


@jit(inline=True)
def _prefetch_heads(head: NDArray[np.uint32], entity: NDArray[np.int32]) -> None:
    """Prefetch the heads of the entities [n, R] of rows that are about to be written."""
    for b in range(entity.shape[0]):
        for r in range(entity.shape[1]):
            if entity[b, r] >= 0:
                prefetch(head, entity[b, r])


@jit(inline=True)
def _prefetch_jumps(
    velocity: Records,
    head: NDArray[np.uint32],
    entity: NDArray[np.int32],
    first: int,
    jumped: bool,
) -> None:
    """Prefetch what the jumps of rows that are about to be written are computed from.

    Args:
        velocity: Jumps of all rows, [C].
        head: Newest row of each node, as `graph.dag.ids.HEAD_MODULUS` says.
        entity: Nodes of the rows to be written, int32 [n, R].
        first: The first of these rows.
        jumped: False for the jumps of the entities' previous rows; True, once those have arrived, for the rows that
            they lead to.
    """
    capacity, now, start = velocity.shape[0], first % HEAD_MODULUS + 1, first % velocity.shape[0]
    for b in range(entity.shape[0]):
        for r in range(entity.shape[1]):
            if entity[b, r] < 0 or head[entity[b, r]] == 0:
                continue
            back = now - signed(head[entity[b, r]])
            back += HEAD_MODULUS if back < 0 else 0
            if 0 < back < capacity:
                slot = start - back if start >= back else start - back + capacity
                if jumped:
                    jump = signed(velocity[slot].jump[r])
                    if jump >= capacity:
                        continue
                    slot = slot - jump if slot >= jump else slot - jump + capacity
                prefetch(velocity, slot)


@jit()
def append(
    rows: Records,
    velocity: Records,
    sums: Sums,
    head: NDArray[np.uint32],
    role_type: NDArray[np.int32],
    batch: Batch,
    first: int,
    clock: int,
) -> int:
    """Write payments as rows from `first` on; returns the journal time of the last, us.

    What a block of rows will read is prefetched in three steps, each one block ahead of the next, because each says
    where the next must look: the heads of its entities, the rows that those point to, and the rows that these jump to.

    Args:
        rows: The store's rows, [C] of `row_dtype`.
        velocity: Their jumps, [C] of `graph.dag.jumps.velocity_dtype`; [0] in a store that keeps none.
        sums: Amounts too large for a jump's own record, with space for all that these payments may add.
        head: Newest row of each node, uint32 [nodes].
        role_type: Entity type of each role, int32 [R].
        batch: The payments, n of them, at most C.
        first: Row of the first.
        clock: Journal time of the event before, us: a payment with an earlier timestamp is given this one.
    """
    capacity, roles, n = rows.shape[0], role_type.shape[0], batch.time.shape[0]
    entity, exact = batch.entity, velocity.shape[0] > 0
    shares = np.zeros(roles, np.bool_)  # whether another role holds entities of the same type
    for r in range(roles):
        for other in range(roles):
            shares[r] |= other != r and role_type[other] == role_type[r]
    for block in range(-3 * ROWS_PER_BLOCK, n, ROWS_PER_BLOCK):
        _prefetch_heads(head, entity[block + 3 * ROWS_PER_BLOCK : block + 4 * ROWS_PER_BLOCK])
        if exact and block >= -2 * ROWS_PER_BLOCK:
            at = block + 2 * ROWS_PER_BLOCK
            _prefetch_jumps(velocity, head, entity[at : at + ROWS_PER_BLOCK], first + at, False)
        if exact and block >= -ROWS_PER_BLOCK:
            at = block + ROWS_PER_BLOCK
            _prefetch_jumps(velocity, head, entity[at : at + ROWS_PER_BLOCK], first + at, True)
        for b in range(max(0, block), min(block + ROWS_PER_BLOCK, n)):
            row = first + b
            s = row % capacity
            x = rows[s]
            clock = max(clock, batch.time[b])
            x.time = clock
            x.late = min((clock - batch.time[b] + 500) // 1000, MAX_LATENESS_MS)
            x.amount = batch.amount[b]
            x.label = -1
            x.ring_back = 0
            for i in range(4):
                x.ring[i] = 0
                x.category[i] = batch.category[b, i]
            if exact and row >= capacity:
                release_sums(velocity, sums, s)
            now = row % HEAD_MODULUS + 1
            for r in range(roles):
                node = signed(entity[b, r])
                x.entity[r] = node
                x.prev[r] = 0
                back = 0
                if node >= 0:
                    newest = signed(head[node])
                    if newest:
                        back = now - newest
                        back += HEAD_MODULUS if back < 0 else 0
                        if back == 0:  # a self-transfer moves its head once
                            same = role_in(rows, role_type, s, r, node)
                            x.prev[r] = x.prev[same]
                            if exact:
                                copy_jump(velocity, s, r, same)
                            continue
                    head[node] = now
                    if back >= capacity:  # already overwritten
                        back = 0
                    x.prev[r] = back
                if exact:
                    write_jump(rows, velocity, sums, role_type, row, s, r, node, back, shares[r])
    return clock


@jit()
def label(
    rows: Records,
    labels: Records,
    labelled: NDArray[np.int64],
    fraud: NDArray[np.int8],
    time: NDArray[np.int64],
    start: int,
    seen_from: int,
    oldest: int,
) -> tuple[int, NDArray[np.int8]]:
    """Write label events from `start` on; returns how many were written, and the change of belief of each.

    Of two labels the one that was reported later is believed; of two reported at once, the one that came later. One
    that was reported before a label that is there already can never be believed, so it is passed over.

    Args:
        rows: The store's rows, [C].
        labels: Label events, with space behind `start` for all of these.
        labelled: Rows, int64 [n]; those before `oldest` are passed over.
        fraud: 1 fraud, 0 legitimate, int8 [n].
        time: When each was reported, us, int64 [n].
        start: Label events so far.
        seen_from: The first row that will see these: the next one to be appended.
        oldest: The oldest row in the buffer.
    """
    deltas = np.zeros(labelled.shape[0], np.int8)
    at = start
    for i in range(labelled.shape[0]):
        if labelled[i] < oldest:
            continue
        x = rows[labelled[i] % rows.shape[0]]
        before = x.label
        if before >= 0 and time[i] < labels[before].time:
            continue
        deltas[i] = fraud[i] - (labels[before].fraud if before >= 0 else 0)
        labels[at].row = labelled[i]
        labels[at].seen_from = seen_from
        labels[at].time = time[i]
        labels[at].fraud = fraud[i]
        labels[at].before = before
        x.label = at
        at += 1
    return at - start, deltas


@jit()
def drop_old(rows: Records, labels: Records, n: int, oldest: int) -> int:
    """Drop those of the `n` label events whose rows are before `oldest`; returns how many stay."""
    kept = 0
    for i in range(n):
        row = labels[i].row
        if row < oldest:
            continue
        x = rows[row % rows.shape[0]]
        # A row's events come in order, so its pointer holds the new place of the last of them that was kept.
        first = labels[i].before < 0
        labels[kept].row = row
        labels[kept].seen_from = labels[i].seen_from
        labels[kept].time = labels[i].time
        labels[kept].fraud = labels[i].fraud
        labels[kept].before = -1 if first else x.label
        x.label = kept
        kept += 1
    return kept


@jit(inline=True)
def believed(view: View, slot: int, reader: int) -> int:
    """What was known of the row in `slot` when row `reader` arrived: 1 fraud, 0 legitimate, -1 nothing."""
    event = view.rows[slot].label
    while event >= 0:
        if view.labels[event].seen_from <= reader:
            return int(view.labels[event].fraud)
        event = view.labels[event].before
    return -1


@jit()
def all_believed(view: View, rows: NDArray[np.int64], reader: int, out: NDArray[np.int8]) -> None:
    """Fill `out` [n] with what was known of rows when row `reader` arrived."""
    for i in range(rows.shape[0]):
        out[i] = believed(view, rows[i] % view.rows.shape[0], reader)


@jit()
def first_rows_at(rows: Records, oldest: int, end: int, times: NDArray[np.int64], out: NDArray[np.int64]) -> None:
    """Fill `out` [n] with the first row of [oldest, end) at or after each of `times`, ascending, else `end`."""
    capacity = rows.shape[0]
    low, high = oldest, end
    while low < high and times.shape[0]:
        middle = (low + high) // 2
        if rows[middle % capacity].time < times[0]:
            low = middle + 1
        else:
            high = middle
    for i in range(times.shape[0]):
        while low < end and rows[low % capacity].time < times[i]:
            low += 1
        out[i] = low


@jit()
def history(rows: Records, node: int, newest: int, oldest: int, out: NDArray[np.int64]) -> int:
    """Fill `out` with the rows of a node from `newest` back to `oldest`, newest first; returns how many there are."""
    n, row = 0, newest
    while n < out.shape[0] and row >= oldest:
        x = rows[row % rows.shape[0]]
        role = 0
        while role < x.entity.shape[0] and x.entity[role] != node:
            role += 1
        if role == x.entity.shape[0]:  # written over beside this reader, who will see that it was
            break
        out[n] = row
        n += 1
        back = signed(x.prev[role])
        if back == 0:
            break
        row -= back
    return n
