"""Skew-binary jump pointers over each entity's payments, with the number and amount of what they jump over.

A payment's jump leads 2^k - 1 payments back along its entity's chain (Myers, "An applicative random-access stack", IPL
1983), so its length needs one byte and its count cannot overflow. The amounts of those payments, its own included and
the one jumped to not, are kept as a 32-bit sum, or, where they exceed that, as a number in a side table. A search adds
up what it jumps over: count and sum over any time window are exact, in O(log n) steps (`graph.dag.features`).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.jit import jit, signed

SUM_IN_TABLE = 0x80  # bit of `k`: the sum is in the side table
LENGTH_BITS = SUM_IN_TABLE - 1  # the other bits of `k`: the jump leads 2^k - 1 payments back
MAX_SUM = np.iinfo(np.int64).max  # minor units: a sum that would be larger stays at this
MAX_INLINE_SUM = (1 << 32) - 1  # minor units that fit into a row's own record
MAX_JUMP = (1 << 32) - 1  # rows

Records = NDArray[np.void]


def velocity_dtype(roles: int) -> np.dtype[np.void]:
    """What a row of R roles keeps for its time windows: 9 R bytes, up to a multiple of 8."""
    return np.dtype(
        {
            "names": ["jump", "sum", "k"],
            "formats": [("u4", (roles,)), ("u4", (roles,)), ("u1", (roles,))],
            "offsets": [0, 4 * roles, 8 * roles],
            "itemsize": (9 * roles + 7) // 8 * 8,
        }
    )


class Sums(NamedTuple):
    """Sums above 32 bits: a circular table, first in, first out, as the rows that own them. P is a power of two."""

    values: NDArray[np.int64]  # [P] number n is at n % P
    span: NDArray[np.int64]  # [2] the oldest number in use, and the next to be given


def empty_sums() -> Sums:
    """No large sums yet."""
    return Sums(np.zeros(64, np.int64), np.zeros(2, np.int64))


def with_room_for(sums: Sums, more: int) -> Sums:
    """The table, a larger copy where `more` might not fit. Numbers keep their meaning."""
    first, last = (int(n) for n in sums.span)
    if last - first + more <= len(sums.values):
        return sums
    numbers = np.arange(first, last)
    values = np.zeros(1 << (2 * (last - first + more) - 1).bit_length(), np.int64)
    values[numbers % len(values)] = sums.values[numbers % len(sums.values)]
    return Sums(values, sums.span)


@jit(inline=True)
def role_in(rows: Records, role_type: NDArray[np.int32], slot: int, role: int, node: int) -> int:
    """The role in which the row at `slot` holds `node`, when a pointer of `role` led there.

    Roles of one entity type (account and payee) share one chain of rows: otherwise a walk along transfers A -> B -> C
    would stop at B. So the row that a pointer leads to may hold the node in another role of that type.
    """
    for other in range(role_type.shape[0]):
        if other != role and role_type[other] == role_type[role]:  # else the row need not even be read
            for r in range(role_type.shape[0]):
                if role_type[r] == role_type[role] and rows[slot].entity[r] == node:
                    return r  # the first of the type: a self-transfer's two roles hold the same pointers
    return role


@jit(inline=True)
def jump_sum(velocity: Records, sums: Sums, slot: int, role: int) -> int:
    """Amount that the jump of a row in a role covers, minor units."""
    x = velocity[slot]
    if x.k[role] & SUM_IN_TABLE:
        # The full number from its low 32 bits: it is at most 2^32 after the oldest in use.
        number = sums.span[0] + ((signed(x.sum[role]) - sums.span[0]) & 0xFFFFFFFF)
        return sums.values[number & (sums.values.shape[0] - 1)]
    return signed(x.sum[role])


@jit(inline=True)
def saturating_sum(a: int, b: int) -> int:
    """Sum of two amounts, or `MAX_SUM`."""
    return a + b if a <= MAX_SUM - b else MAX_SUM


@jit(inline=True)
def release_sums(velocity: Records, sums: Sums, slot: int) -> None:
    """Give back the large sums of a row that is about to be overwritten.

    Sums are numbered as rows are written, so a row's are the oldest in use: all up to its newest become free.
    """
    x = velocity[slot]
    used = 0
    for r in range(x.k.shape[0]):
        if x.k[r] & SUM_IN_TABLE:
            used = max(used, ((signed(x.sum[r]) - sums.span[0]) & 0xFFFFFFFF) + 1)
    sums.span[0] += used


@jit(inline=True)
def copy_jump(velocity: Records, slot: int, role: int, same: int) -> None:
    """Copy a row's jump from one role to another that holds the same entity (a transfer to oneself)."""
    x = velocity[slot]
    x.jump[role] = x.jump[same]
    x.sum[role] = x.sum[same]
    x.k[role] = x.k[same]


@jit(inline=True)
def write_jump(
    rows: Records,
    velocity: Records,
    sums: Sums,
    role_type: NDArray[np.int32],
    row: int,
    slot: int,
    role: int,
    node: int,
    back: int,
    shared: bool,
) -> None:
    """Write a row's jump pointer in one role: how far it leads, and the number and amount of payments it skips.

    Args:
        rows: The store's rows, [C].
        velocity: Their jumps, [C].
        sums: Amounts too large for a jump's own record.
        role_type: Entity type of each role, int32 [R].
        row: The row.
        slot: Where it is; other slots are found by subtraction, as a division would take longer than the rest.
        role: The role.
        node: The entity in that role, -1 for none.
        back: Rows back to the entity's previous row, 0 for none.
        shared: Whether other roles hold entities of the same type.
    """
    capacity = velocity.shape[0]
    x = velocity[slot]
    amount = rows[slot].amount if node >= 0 else 0
    k = 0
    jump = 0
    if back > 0:
        k = 1
        jump = back
        p = slot - back if slot >= back else slot - back + capacity
        q = role_in(rows, role_type, p, role, node) if shared else role
        y = velocity[p]
        kp = signed(y.k[q]) & LENGTH_BITS
        ahead = signed(y.jump[q])
        inside = kp > 0 and back + ahead < capacity
        m = p - (ahead if inside else 0)
        m += capacity if m < 0 else 0
        qm = role_in(rows, role_type, m, role, node) if shared else role
        z = velocity[m]
        # Myers' rule: if the two jumps ahead have the same length, jump over both, else to the row before.
        # A jump may lead far out of the buffer, where payments come ever faster, but must fit into 32 bits.
        # Which case it is cannot be predicted, so both are computed and no branch is taken: a wrong guess by the
        # processor would cost more than the second computation.
        beyond = back + ahead + signed(z.jump[qm])
        both = signed(inside & (signed(z.k[qm]) & LENGTH_BITS == kp) & (beyond <= MAX_JUMP))
        over = saturating_sum(jump_sum(velocity, sums, p, q), jump_sum(velocity, sums, m, qm))
        jump = back + both * (beyond - back)
        k = 1 + both * kp
        amount = saturating_sum(amount, both * over)
    x.jump[role] = jump
    if amount > MAX_INLINE_SUM:
        number = sums.span[1]
        sums.values[number & (sums.values.shape[0] - 1)] = amount
        sums.span[1] += 1
        x.sum[role] = number & 0xFFFFFFFF
        k |= SUM_IN_TABLE
    else:
        x.sum[role] = amount
    x.k[role] = k
