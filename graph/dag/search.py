"""Searches along an entity's payments by their jump pointers: how far back a reader sees, and what lies on the way.

O(log n) steps each (Myers, "An applicative random-access stack", IPL 1983). `sum_back_to` follows one chain and adds up
what it passes; `find_oldest` follows the chains of many readers at once.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.jit import jit, prefetch, signed
from graph.dag.jumps import LENGTH_BITS, jump_sum, role_in, saturating_sum
from graph.dag.rows import View
from graph.dag.sampler import visible

SEARCH = np.dtype(
    [
        ("at", "i8"),  # row
        ("jumped", "i8"),  # row that its jump leads to, -1 for none
        ("stepped", "i8"),  # the entity's previous row, -1 for none
        ("least", "i8"),  # the first row inside the reader's window
        ("since", "i8"),  # journal time at which the reader's window begins, us
        ("reader", "i4"),  # where its result goes in the flattened `first` [B * R]
        ("node", "i4"),
        ("role", "i4"),
    ]
)


@jit(inline=True)
def sum_back_to(
    view: View, row: int, time: int, node: int, span_us: int, at: int, role: int, count: int, amount: int
) -> tuple[int, int, int, int]:
    """Go back from `at` to the oldest row of `node` within `span_us` before the reader, adding up what is passed.

    O(log n) steps on the skew-binary jump pointers. A wider span goes on where a narrower one ended.

    Args:
        view: The graph.
        row: The reader.
        time: Its journal time, us.
        node: The entity.
        span_us: How far back.
        at: A row of the entity within the span.
        role: The role that the entity has in it.
        count: Payments passed so far, `at` not among them.
        amount: Their amount.

    Returns:
        The oldest row, its role, and the payments after it and their amount.
    """
    capacity = view.rows.shape[0]
    while True:
        slot = at % capacity
        v = view.velocity[slot]
        jump, k = signed(v.jump[role]), v.k[role] & LENGTH_BITS
        if k > 1 and visible(view, row, time, at - jump, span_us):
            count += (1 << k) - 1
            amount = saturating_sum(amount, jump_sum(view.velocity, view.sums, slot, role))
            at = at - jump
        else:
            step = signed(view.rows[slot].prev[role])
            if step == 0 or not visible(view, row, time, at - step, span_us):
                return at, role, count, amount
            count += 1
            amount = saturating_sum(amount, view.rows[slot].amount)
            at = at - step
        role = role_in(view.rows, view.role_type, at % capacity, role, node)


@jit(inline=True)
def _prefetch_candidates(view: View, search: Any) -> None:
    """Note the two rows that a search may go on to, by its jump or by one step, and prefetch both."""
    capacity = view.rows.shape[0]
    slot = search.at % capacity
    v, step = view.velocity[slot], signed(view.rows[slot].prev[search.role])
    search.jumped = search.at - signed(v.jump[search.role]) if v.k[search.role] & LENGTH_BITS > 1 else -1
    search.stepped = search.at - step if step else -1
    for back in (search.jumped, search.stepped):
        if back >= search.least:
            prefetch(view.rows, back % capacity)
            prefetch(view.velocity, back % capacity)


@jit()
def find_oldest(view: View, rows: NDArray[np.int64], near: NDArray[np.int64], first: NDArray[np.int64]) -> None:
    """Fill `first` [B, R] with the oldest row that each reader sees of each entity, -1 for none.

    A search begins at the last of the entity's rows in `near` [B, R, DEPTH]. All searches take one step before any
    takes the next, so that their cache misses overlap; one alone would wait for memory at each step.
    """
    capacity, roles, going = view.rows.shape[0], near.shape[1], 0
    searches = np.empty(rows.shape[0] * roles, SEARCH)
    for b in range(rows.shape[0]):
        x = view.rows[rows[b] % capacity]
        for r in range(roles):
            last = -1
            while last + 1 < near.shape[2] and near[b, r, last + 1] >= 0:
                last += 1
            first[b, r] = near[b, r, last] if last >= 0 else -1
            if last >= 0:
                prefetch(view.velocity, first[b, r] % capacity)
                s = searches[going]
                s.reader, s.node, s.role = b * roles + r, x.entity[r], r
                s.at, s.jumped, s.stepped = first[b, r], first[b, r], -1
                s.least, s.since = max(view.oldest, rows[b] - view.window_rows), x.time - view.window_us
                going += 1
    found = first.reshape(-1)
    while going:
        on = 0
        for n in range(going):
            s = searches[n]
            if s.jumped >= s.least and view.rows[s.jumped % capacity].time >= s.since:
                s.at = s.jumped
            elif s.stepped >= s.least and view.rows[s.stepped % capacity].time >= s.since:
                s.at = s.stepped
            else:
                found[s.reader] = s.at
                continue
            s.role = role_in(view.rows, view.role_type, s.at % capacity, s.role, s.node)
            _prefetch_candidates(view, s)
            searches[on] = s
            on += 1
        going = on
