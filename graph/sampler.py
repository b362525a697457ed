"""Walking back: the last K payments of each entity that a payment touches, and what ties each to the payment.

Everything is judged from the reader's own row: its window, and what was known of a neighbour's label before its offset.
"""

import math

import numpy as np
from numpy.typing import NDArray

from graph.jit import chunked, jit
from graph.store import View, believed, slot_of

EDGE_FEATURES = ("age", "labelled", "fraud", "amount_gap", "recent_day", "recent_week", "shared_roles")
DAY_S = 86_400.0


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
    chunked(lambda i, j: _neighbours(view, rows[i:j], out[i:j]), len(rows))
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


@jit()
def visible(view: View, row: int, time: int, back: int, span_us: int) -> bool:
    """Whether the reader `row` at `time` may follow to row `back`: inside its window and inside `span_us`."""
    if back < 0 or row - back > view.window_rows:
        return False
    mask = view.columns.time.shape[0] - 1
    return bool(time - view.columns.time[back & mask] <= min(span_us, view.window_us))


@jit()
def walk(view: View, row: int, role: int, near: NDArray[np.int64]) -> int:
    """Fill `near` [K] with the chain of `row`'s entity in `role`, newest first; returns how many there are."""
    columns = view.columns
    mask = columns.time.shape[0] - 1
    s = row & mask
    node = columns.entity[s, role]
    time = columns.time[s]
    count = 0
    if node >= 0:
        at, slot, q = row, s, role
        while count < near.shape[0]:
            step = columns.prev[slot, q]
            if step == 0:
                break
            at = at - step
            if not visible(view, row, time, at, view.window_us):
                break
            near[count] = at
            count += 1
            slot = at & mask
            q = slot_of(columns, view.role_type, slot, q, node)
    for k in range(count, near.shape[0]):
        near[k] = -1
    return count


@jit()
def edge(view: View, row: int, role: int, back: int, out: NDArray[np.float32]) -> None:
    """Fill `out` [E] with what ties neighbour `back`, reached through `role`, to its reader `row`."""
    columns = view.columns
    mask = columns.time.shape[0] - 1
    s, p = row & mask, back & mask
    age = (columns.time[s] - columns.time[p]) * 1e-6
    belief = believed(columns, view.labels, p, columns.offset[s])
    out[0] = math.log1p(age) / 16
    out[1] = 1.0 if belief >= 0 else 0.0
    out[2] = 1.0 if belief == 1 else 0.0
    out[3] = math.log1p(float(columns.amount[s])) - math.log1p(float(columns.amount[p]))
    out[4] = math.exp(-age / DAY_S)
    out[5] = math.exp(-age / (7 * DAY_S))
    shared = 0.0
    for r in range(view.role_type.shape[0]):
        if r != role and columns.entity[s, r] >= 0 and columns.entity[s, r] == columns.entity[p, r]:
            shared += 1.0
    out[6] = shared


@jit()
def _neighbours(view: View, rows: NDArray[np.int64], out: NDArray[np.int64]) -> None:
    for b in range(rows.shape[0]):
        for r in range(out.shape[1]):
            walk(view, rows[b], r, out[b, r])


@jit()
def _edges(view: View, rows: NDArray[np.int64], near: NDArray[np.int64], out: NDArray[np.float32]) -> None:
    for b in range(rows.shape[0]):
        for r in range(near.shape[1]):
            for k in range(near.shape[2]):
                if near[b, r, k] < 0:
                    break
                edge(view, rows[b], r, near[b, r, k], out[b, r, k])
