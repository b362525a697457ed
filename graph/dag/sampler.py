"""Walking back: the last K payments of each entity that a payment touches, and what ties each to the payment.

Everything is judged from the reader's own row: its window, and what was known of a neighbour's label before its offset.
"""

import math

import numpy as np
from numpy.typing import NDArray

from data.jit import chunked, jit, prefetch, signed
from graph.dag.jumps import role_in
from graph.dag.rows import Records, View, believed

EDGE_FEATURES = ("age", "labelled", "fraud", "settled", "amount_gap", "recent_day", "recent_week", "shared_roles")
DAY_S = 86_400.0
AGE_SCALE = 16  # brings the logarithm of an age in seconds near 1
ROWS_PER_BLOCK = 64  # rows whose chains are walked together: enough that a prefetched row has arrived when it is read
CHAIN = np.dtype(
    [
        ("at", "i8"),  # row of the next step, already prefetched
        ("first", "i8"),  # journal time, us, that the reader's window begins with
        ("slot", "u4"),  # of the next step
        ("left", "u4"),  # rows from there back to the first that the reader may follow to
        ("out", "u4"),  # where in its block the reader's neighbours in this role begin
        ("node", "i4"),
    ]
)


def neighbours(view: View, rows: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Walk back from each row along each role.

    Args:
        view: The graph.
        rows: Rows to start from, int64 [B].
        k: Steps for each role.

    Returns:
        Rows, int64 [B, R, K], newest first; -1 where the chain or the window ends.
    """
    out = np.empty((len(rows), len(view.role_type), k), np.int64)
    # Not the whole view: Numba takes 2 us to unpack a named tuple, as long as one row's walk takes.
    data, role_type, window_rows, window_us, held = (
        view.rows,
        view.role_type,
        view.window_rows,
        view.window_us,
        view.oldest,
    )
    if len(rows) == 1:
        _walk(data, role_type, window_rows, window_us, held, rows, out)
    else:
        part = lambda i, j: _walk(data, role_type, window_rows, window_us, held, rows[i:j], out[i:j])  # noqa: E731
        chunked(part, len(rows), min_rows=1024)
    return out


def edges(view: View, rows: NDArray[np.int64], near: NDArray[np.int64]) -> NDArray[np.float32]:
    """Describe each neighbour as its reader saw it.

    Args:
        view: The graph.
        rows: Readers, int64 [B].
        near: Their neighbours, int64 [B, R, K], from `neighbours`.

    Returns:
        float32 [B, R, K, E] in the order of `EDGE_FEATURES`; zeros where there is no neighbour.
    """
    out = np.zeros((*near.shape, len(EDGE_FEATURES)), np.float32)
    chunked(lambda i, j: _edges(view, rows[i:j], near[i:j], out[i:j]), len(rows))
    return out


@jit(inline=True)
def visible(view: View, row: int, time: int, back: int, span_us: int) -> bool:
    """Whether the reader `row` at `time` may follow to row `back`: inside its window and inside `span_us`."""
    if back < view.oldest or row - back > view.window_rows:
        return False
    return bool(time - view.rows[back % view.rows.shape[0]].time <= min(span_us, view.window_us))


@jit()
def walk(view: View, rows: NDArray[np.int64], near: NDArray[np.int64]) -> None:
    """Fill `near` [B, R, K] with the chains of the rows' entities, newest first, then -1."""
    walk_within(view, rows, view.window_us, near)


@jit()
def walk_within(view: View, rows: NDArray[np.int64], span_us: int, near: NDArray[np.int64]) -> None:
    """`walk` over the payments of the last `span_us`, a window no longer than the view's."""
    _walk(view.rows, view.role_type, view.window_rows, span_us, view.oldest, rows, near)


@jit()
def _walk(
    data: Records,
    role_type: NDArray[np.int32],
    window_rows: int,
    window_us: int,
    held: int,
    rows: NDArray[np.int64],
    near: NDArray[np.int64],
) -> None:
    """`walk` on those fields of a view that it needs, `held` being the oldest row in the buffer.

    All chains of a block take one step before any takes the next, and each prefetches the row of its next step while
    the others take theirs. Fewer instructions between two prefetches mean more of them under way, so places are kept
    as unsigned numbers, for which no code for negative indices is made. Where a chain ends cannot be predicted, so no
    branch asks: every chain's number is written to the list of those that go on, and the next overwrites it if it
    ended.
    """
    capacity, roles, k = data.shape[0], near.shape[1], near.shape[2]
    shares = np.zeros(roles, np.bool_)  # whether another role holds entities of the same type
    for r in range(roles):
        for other in range(roles):
            shares[r] |= other != r and role_type[other] == role_type[r]
    chains, going = np.empty(ROWS_PER_BLOCK * roles, CHAIN), np.empty(ROWS_PER_BLOCK * roles, np.uint32)
    count = np.empty(roles, np.int64)
    every = near.reshape(-1)
    for b in range(min(ROWS_PER_BLOCK, rows.shape[0])):
        prefetch(data, rows[b] % capacity)
    for start in range(0, rows.shape[0], ROWS_PER_BLOCK):
        stop = min(rows.shape[0], start + ROWS_PER_BLOCK)
        out = every[start * roles * k : stop * roles * k]
        out[:] = -1
        count[:] = 0
        for b in range(start, stop):
            if b + ROWS_PER_BLOCK < rows.shape[0]:  # the next block's
                prefetch(data, rows[b + ROWS_PER_BLOCK] % capacity)
            row = rows[b]
            s = signed(np.uint32(row % capacity))
            x = data[s]
            left, first = row - max(row - window_rows, held), x.time - window_us
            for r in range(roles):
                step = signed(x.prev[r])
                if step > left:
                    continue
                slot = back_from(s, step, capacity)
                prefetch(data, slot)
                n = signed(np.uint32(r * ROWS_PER_BLOCK + count[r]))
                count[r] += int(step != 0)
                going[n] = n
                c = chains[n]
                c.at, c.first, c.slot, c.left = row - step, first, slot, left - step
                c.out, c.node = ((b - start) * roles + r) * k, x.entity[r]
        for i in range(k):
            for r in range(roles):
                of_role = going[r * ROWS_PER_BLOCK : r * ROWS_PER_BLOCK + count[r]]
                count[r] = _step(data, role_type, chains, of_role, out, i, r, shares[r], i + 1 < k)


@jit(inline=True)
def back_from(slot: int, step: int, capacity: int) -> int:
    """The slot `step` rows before `slot` in a circular buffer, without a branch."""
    before = slot - step
    return before + (capacity & (before >> 63))


@jit(inline=True)
def _step(
    data: Records,
    role_type: NDArray[np.int32],
    chains: Records,
    going: NDArray[np.uint32],
    out: NDArray[np.int64],
    i: int,
    role: int,
    shared: bool,
    more: bool,
) -> int:
    """Take step `i` of a role's chains, and prefetch the next.

    Args:
        data: The rows, [C].
        role_type: Entity type of each role, int32 [R].
        chains: All chains of the block, CHAIN.
        going: Numbers of the role's chains that have not ended; those that go on move to the front.
        out: Where the chains' rows are written, int64.
        i: The step.
        role: The role.
        shared: Whether another role holds entities of the same type.
        more: Whether there is a next step.

    Returns:
        How many chains go on.
    """
    capacity, on = data.shape[0], 0
    for m in range(going.shape[0]):
        n = signed(going[m])
        c = chains[n]
        at, slot = c.at, signed(c.slot)
        x = data[slot]
        if x.time < c.first:
            continue
        out[signed(c.out) + i] = at
        if not more:
            continue
        step = signed(x.prev[role_in(data, role_type, slot, role, c.node) if shared else role])
        left = signed(c.left) - step
        if left < 0:
            continue
        slot = back_from(slot, step, capacity)
        prefetch(data, slot)
        c.at, c.slot, c.left = at - step, slot, left
        going[on] = n
        on += int(step != 0)
    return on


@jit(inline=True)
def edge(view: View, row: int, log_amount: float, role: int, back: int, out: NDArray[np.float32]) -> None:
    """Fill `out` [E] with what ties neighbour `back`, reached through `role`, to its reader `row`.

    `log_amount` is the log1p of the reader's amount: once for all of its neighbours.
    """
    x, p = view.rows[row % view.rows.shape[0]], view.rows[back % view.rows.shape[0]]
    ago = x.time - p.time
    age = ago * 1e-6
    belief = believed(view, back % view.rows.shape[0], row)
    out[0] = math.log1p(age) / AGE_SCALE
    out[1] = 1.0 if belief >= 0 else 0.0
    out[2] = 1.0 if belief == 1 else 0.0
    out[3] = 1.0 if belief >= 0 or ago >= view.settle_us else 0.0
    out[4] = log_amount - math.log1p(float(p.amount))
    out[5] = math.exp(-age / DAY_S)
    out[6] = math.exp(-age / (7 * DAY_S))
    shared = 0.0
    for r in range(view.role_type.shape[0]):
        if r != role and x.entity[r] >= 0 and x.entity[r] == p.entity[r]:
            shared += 1.0
    out[7] = shared


@jit()
def _edges(view: View, rows: NDArray[np.int64], near: NDArray[np.int64], out: NDArray[np.float32]) -> None:
    for b in range(rows.shape[0]):
        log_amount = math.log1p(float(view.rows[rows[b] % view.rows.shape[0]].amount))
        for r in range(near.shape[1]):
            for k in range(near.shape[2]):
                if near[b, r, k] < 0:
                    break
                edge(view, rows[b], log_amount, r, near[b, r, k], out[b, r, k])
