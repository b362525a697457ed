"""Walking back: the last K payments of each entity that a payment touches, and what ties each to the payment.

Everything is judged from the reader's own row: its window, and what was known of a neighbour's label before its offset.
"""

import math

import numpy as np
from numpy.typing import NDArray

from graph.jit import chunked, jit, signed
from graph.jumps import role_in
from graph.store import View, believed

EDGE_FEATURES = ("age", "labelled", "fraud", "amount_gap", "recent_day", "recent_week", "shared_roles")
DAY_S = 86_400.0
WALKED = 64  # rows whose chains are walked side by side


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
    chunked(lambda i, j: walk(view, rows[i:j], out[i:j]), len(rows))
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
    return bool(time - view.rows[back % view.rows.shape[0]].time <= min(span_us, view.window_us))


@jit()
def first_step(view: View, row: int, role: int) -> tuple[int, int]:
    """The previous row of `row`'s entity in `role`, and the role it has there; (-1, -1) if its reader sees none."""
    x = view.rows[row % view.rows.shape[0]]
    if x.entity[role] < 0 or x.prev[role] == 0:
        return -1, -1
    return _checked(view, row, role, x.entity[role], x.time, row - signed(x.prev[role]))


@jit()
def next_step(view: View, row: int, at: int, role: int, node: int, time: int) -> tuple[int, int]:
    """One step further back from `at`, where `node` stands in `role`, as the reader `row` at `time` may see it."""
    step = signed(view.rows[at % view.rows.shape[0]].prev[role])
    if step == 0:
        return -1, -1
    return _checked(view, row, role, node, time, at - step)


@jit()
def _checked(view: View, row: int, role: int, node: int, time: int, back: int) -> tuple[int, int]:
    if not visible(view, row, time, back, view.window_us):
        return -1, -1
    return back, role_in(view.rows, view.role_type, back % view.rows.shape[0], role, node)


@jit()
def walk(view: View, rows: NDArray[np.int64], near: NDArray[np.int64]) -> None:
    """Fill `near` [B, R, K] with the chains of the rows' entities, newest first, then -1.

    All chains of a block take a step before any takes the next: their reads do not wait for each other.
    """
    roles, k = near.shape[1], near.shape[2]
    capacity = view.rows.shape[0]
    role_now = np.empty((WALKED, roles), np.int8)
    for start in range(0, rows.shape[0], WALKED):
        stop = min(rows.shape[0], start + WALKED)
        for b in range(start, stop):
            for r in range(roles):
                at, q = first_step(view, rows[b], r)
                near[b, r, 0] = at
                role_now[b - start, r] = q
        for n in range(1, k):
            for b in range(start, stop):
                x = view.rows[rows[b] % capacity]
                for r in range(roles):
                    at = near[b, r, n - 1]
                    if at >= 0:
                        at, q = next_step(view, rows[b], at, role_now[b - start, r], x.entity[r], x.time)
                        role_now[b - start, r] = q
                    near[b, r, n] = at


@jit()
def edge(view: View, row: int, role: int, back: int, out: NDArray[np.float32]) -> None:
    """Fill `out` [E] with what ties neighbour `back`, reached through `role`, to its reader `row`."""
    x, p = view.rows[row % view.rows.shape[0]], view.rows[back % view.rows.shape[0]]
    age = (x.time - p.time) * 1e-6
    belief = believed(view, back % view.rows.shape[0], row)
    out[0] = math.log1p(age) / 16
    out[1] = 1.0 if belief >= 0 else 0.0
    out[2] = 1.0 if belief == 1 else 0.0
    out[3] = math.log1p(float(x.amount)) - math.log1p(float(p.amount))
    out[4] = math.exp(-age / DAY_S)
    out[5] = math.exp(-age / (7 * DAY_S))
    shared = 0.0
    for r in range(view.role_type.shape[0]):
        if r != role and x.entity[r] >= 0 and x.entity[r] == p.entity[r]:
            shared += 1.0
    out[6] = shared


@jit()
def _edges(view: View, rows: NDArray[np.int64], near: NDArray[np.int64], out: NDArray[np.float32]) -> None:
    for b in range(rows.shape[0]):
        for r in range(near.shape[1]):
            for k in range(near.shape[2]):
                if near[b, r, k] < 0:
                    break
                edge(view, rows[b], r, near[b, r, k], out[b, r, k])
