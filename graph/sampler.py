"""Walking back: the last K payments of each entity that a payment touches, and what ties each to the payment.

Everything is judged from the reader's own row: its window, and what was known of a neighbour's label before its offset.
"""

import math

import numpy as np
from numpy.typing import NDArray

from data.jit import chunked, jit, prefetch, signed
from graph.jumps import role_in
from graph.rows import Records, View, believed

EDGE_FEATURES = ("age", "labelled", "fraud", "settled", "amount_gap", "recent_day", "recent_week", "shared_roles")
DAY_S = 86_400.0
WALKED = 32  # rows whose chains are walked side by side: these and what they find stay in the first cache
CHAIN = np.dtype(
    [
        ("at", "i8"),  # row of the next step, asked for
        ("slot", "i8"),  # its slot
        ("oldest", "i8"),  # row and
        ("first", "i8"),  # journal time, us, that the reader's window begins with
        ("out", "i8"),  # where the reader's neighbours in this role begin
        ("role", "i4"),
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
    # Not the whole view: Numba takes 2 us to look at a named tuple, as long as the walk of one row.
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
        chunked(lambda i, j: _walk(data, role_type, window_rows, window_us, held, rows[i:j], out[i:j]), len(rows))
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
    _walk(view.rows, view.role_type, view.window_rows, view.window_us, view.oldest, rows, near)


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
    """`walk` on the parts of a view that it needs, `held` the oldest row: a call from Python looks at each of them.

    All chains of a block take a step before any takes the next, and ask for the row of their next step while the others
    take theirs.
    """
    capacity, roles, k = data.shape[0], near.shape[1], near.shape[2]
    shares = np.zeros(roles, np.bool_)  # whether the role's entities stand in other roles, too
    for r in range(roles):
        for other in range(roles):
            shares[r] |= other != r and role_type[other] == role_type[r]
    chains, out = np.empty(WALKED * roles, CHAIN), near.reshape(-1)
    for start in range(0, rows.shape[0], WALKED):
        stop = min(rows.shape[0], start + WALKED)
        for b in range(start, stop):
            prefetch(data, rows[b] % capacity)
        for i in range(start * roles * k, stop * roles * k):
            out[i] = -1
        n = 0
        for b in range(start, stop):
            s = rows[b] % capacity
            x = data[s]
            oldest, first = max(rows[b] - window_rows, held), x.time - window_us
            for r in range(roles):
                step = signed(x.prev[r])
                if step == 0 or rows[b] - step < oldest:
                    continue
                c = chains[n]
                c.at, c.slot = rows[b] - step, s - step if s >= step else s - step + capacity
                c.oldest, c.first = oldest, first
                c.out, c.role, c.node = (b * roles + r) * k, r, x.entity[r]
                prefetch(data, c.slot)
                n += 1
        for i in range(k):
            going = 0
            for m in range(n):
                c = chains[m]
                at, slot, role = c.at, c.slot, signed(c.role)
                x = data[slot]
                if x.time < c.first:
                    continue
                out[c.out + i] = at
                if shares[role]:
                    role = role_in(data, role_type, slot, role, c.node)
                step = signed(x.prev[role])
                at -= step
                if step == 0 or at < c.oldest or i + 1 == k:
                    continue
                slot = slot - step if slot >= step else slot - step + capacity
                prefetch(data, slot)
                d = chains[going]  # chains that go on move up
                d.at, d.slot = at, slot
                if going < m:
                    d.oldest, d.first = c.oldest, c.first
                    d.out, d.role, d.node = c.out, c.role, c.node
                going += 1
            n = going


@jit(inline=True)
def edge(view: View, row: int, role: int, back: int, out: NDArray[np.float32]) -> None:
    """Fill `out` [E] with what ties neighbour `back`, reached through `role`, to its reader `row`."""
    x, p = view.rows[row % view.rows.shape[0]], view.rows[back % view.rows.shape[0]]
    ago = x.time - p.time
    age = ago * 1e-6
    belief = believed(view, back % view.rows.shape[0], row)
    out[0] = math.log1p(age) / 16
    out[1] = 1.0 if belief >= 0 else 0.0
    out[2] = 1.0 if belief == 1 else 0.0
    out[3] = 1.0 if belief >= 0 or ago >= view.settle_us else 0.0
    out[4] = math.log1p(float(x.amount)) - math.log1p(float(p.amount))
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
        for r in range(near.shape[1]):
            for k in range(near.shape[2]):
                if near[b, r, k] < 0:
                    break
                edge(view, rows[b], r, near[b, r, k], out[b, r, k])
