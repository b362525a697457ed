"""The network as fused CPU kernels: walk back, compute features, read cached keys and values, attend, mix, score.

The arithmetic is that of `gnn.model.network.RingwatchNet`, which tests compare it with, in a fixed order for each row:
a score has the same bits whatever micro-batch it came in. `leave_out` is a bit mask over `gnn.model.groups` of evidence
that is not to be read.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.jit import jit, prefetch, to_float32
from gnn.errors import ModelError
from gnn.model.groups import CONTEXT, LABELS, OWN_GROUPS
from gnn.model.network import EDGE_SCALE, Weights
from gnn.model.trees import TREES_PER_GROUP, PackedTrees, score_row
from graph.dag.features import describe
from graph.dag.memory import read_head
from graph.dag.rows import View
from graph.dag.sampler import EDGE_FEATURES, edge, walk

ROLE_GROUPS = len(OWN_GROUPS)
# The ties that `_attend` reads one by one, written out for speed. A ninth would be dropped without a word, and of seven
# it would read beyond the last.
UNROLLED_TIES = ("age", "labelled", "fraud", "settled", "amount_gap", "recent_day", "recent_week", "shared_roles")
if UNROLLED_TIES != EDGE_FEATURES:
    raise ModelError(f"the kernels are written for the ties {UNROLLED_TIES}, and the graph gives {EDGE_FEATURES}")


class Plan(NamedTuple):
    """What the kernels need besides the graph and the weights."""

    pairs: NDArray[np.int32]  # [R, R - 1] from graph.dag.features.counterparts
    groups: NDArray[np.int32]  # [F + 1 + E] from gnn.model.groups.head_groups
    shift: NDArray[np.int32]  # [M] from graph.dag.memory.layout
    mask: NDArray[np.int32]  # [M]
    heads: int
    trees: PackedTrees


class Work(NamedTuple):
    """Intermediate results of a batch of B rows."""

    x: NDArray[np.float32]  # [B, F]
    beside: NDArray[np.float32]  # [B, E] what the head reads beside x and the network's log-odds
    near: NDArray[np.int64]  # [B, R, K]
    edge: NDArray[np.float32]  # [B, R, K, E]
    h: NDArray[np.float32]  # [B, D]
    logit: NDArray[np.float32]  # [B]


@jit()
def _dense(x: NDArray[np.float32], w: NDArray[np.float32], b: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    out[:] = b
    for i in range(x.shape[0]):
        xi = x[i]
        if xi != 0:
            for o in range(out.shape[0]):
                out[o] += xi * w[i, o]


@jit()
def _relu(x: NDArray[np.float32]) -> None:
    for i in range(x.shape[0]):
        x[i] = max(x[i], np.float32(0))


@jit()
def _encode(
    w: Weights, plan: Plan, x: NDArray[np.float32], category: NDArray[np.uint8], leave_out: int, h: NDArray[np.float32]
) -> None:
    features, width = x.shape[0], w.category.shape[2]
    full = np.zeros(w.enc_w1.shape[0], np.float32)
    for i in range(features):
        if not (leave_out >> plan.groups[i]) & 1:
            full[i] = min(max((x[i] - w.mean[i]) * w.scale[i], np.float32(-8)), np.float32(8))
    if not (leave_out >> CONTEXT) & 1:
        for c in range(w.category.shape[0]):
            for i in range(width):
                full[features + c * width + i] = w.category[c, category[c], i]
    hidden = np.empty(w.enc_b1.shape[0], np.float32)
    _dense(full, w.enc_w1, w.enc_b1, hidden)
    _relu(hidden)
    _dense(hidden, w.enc_w2, w.enc_b2, h)


@jit(inline=True)
def _read_ties(
    near: NDArray[np.int64], edges: NDArray[np.float32], r: int, no_labels: bool, tie: NDArray[np.float32]
) -> int:
    """Fill `tie` [E, K] with what ties the neighbours of role `r` to their reader; returns how many there are.

    One line for each tie, neighbours side by side: what is added up is never along a line, so a processor adds several
    neighbours at once. Ties 1 to 3 tell of labels.
    """
    k, n = near.shape[1], 0
    while n < k and near[r, n] >= 0:
        for j in range(tie.shape[0]):
            tie[j, n] = edges[r, n, j]
        n += 1
    for j in range(tie.shape[0]):
        if no_labels and 1 <= j < 4:
            tie[j] = 0
        else:
            tie[j, n:] = 0
    return n


@jit(inline=True)
def _bias_scores(
    w: Weights,
    layer: int,
    r: int,
    tie: NDArray[np.float32],
    hidden: NDArray[np.float32],
    score: NDArray[np.float32],
) -> None:
    """Fill `score` [H, K] with the bias that ties [E, K] put on each neighbour's attention; `hidden` [K] is scratch."""
    heads, k = score.shape
    for head in range(heads):
        score[head] = w.bias_b2[layer, r, head]
    for f in range(w.bias_b1.shape[2]):
        b, v = w.bias_b1[layer, r, f], w.bias_w1[layer, r, :, f]
        v0, v1, v2, v3, v4, v5, v6, v7 = v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]
        for i in range(k):  # written out, as a loop of eight would begin and end for each: a fifth of the time
            t = b + v0 * tie[0, i] + v1 * tie[1, i] + v2 * tie[2, i] + v3 * tie[3, i] + v4 * tie[4, i]
            hidden[i] = max(t + v5 * tie[5, i] + v6 * tie[6, i] + v7 * tie[7, i], np.float32(0))
        for head in range(heads):
            weight = w.bias_w2[layer, r, f, head]
            for i in range(k):
                score[head, i] += weight * hidden[i]


@jit(inline=True)
def _add_key_scores(
    q: NDArray[np.float32], kv: NDArray[Any], near: NDArray[np.int64], r: int, n: int, score: NDArray[np.float32]
) -> None:
    """Add to `score` [H, K] the products of the query `q` [D] with the keys of the `n` neighbours of role `r`."""
    heads = score.shape[0]
    size = q.shape[0] // heads
    for i in range(n):
        slot = near[r, i] % kv.shape[0]
        for head in range(heads):
            dot = np.float32(0)
            for j in range(size):
                dot += q[head * size + j] * to_float32(kv[slot, head * size + j])
            score[head, i] += dot


@jit(inline=True)
def _softmax(score: NDArray[np.float32], n: int) -> None:
    """Turn the scores [H, K] of `n` neighbours into weights that add up to 1 in each head; 0 behind them."""
    for head in range(score.shape[0]):
        top = score[head, 0]
        for i in range(1, n):
            top = max(top, score[head, i])
        total = np.float32(0)
        for i in range(n):
            score[head, i] = math.exp(score[head, i] - top)
            total += score[head, i]
        for i in range(n):
            score[head, i] /= total
        score[head, n:] = 0


@jit(inline=True)
def _sum_values(
    weight: NDArray[np.float32],
    kv: NDArray[Any],
    near: NDArray[np.int64],
    r: int,
    n: int,
    tie: NDArray[np.float32],
    scale: NDArray[np.float32],
    z: NDArray[np.float32],
    at: int,
) -> None:
    """Write what attention reads by role `r` to `z` from `at` on.

    These are the weighted sums of the neighbours' values [D] and of their ties for each head [H, E], the plain sums of
    their ties [E], and the share of K places that is filled.
    """
    heads, k = weight.shape
    e, d = tie.shape[0], scale.shape[0] // 2
    size = d // heads
    for head in range(heads):
        for j in range(e):
            part = np.float32(0)
            for i in range(k):
                part += weight[head, i] * tie[j, i]
            z[at + d + head * e + j] = part
    for i in range(n):
        slot = near[r, i] % kv.shape[0]
        for head in range(heads):
            share = weight[head, i]
            for j in range(size):
                z[at + head * size + j] += share * to_float32(kv[slot, d + head * size + j])
    for j in range(e):
        part = np.float32(0)
        for i in range(k):
            part += tie[j, i]
        z[at + d + heads * e + j] = part * np.float32(EDGE_SCALE)
    for i in range(d):
        z[at + i] *= scale[d + i]
    z[at + d + (heads + 1) * e] = np.float32(n / k)


@jit()
def _mix(w: Weights, layer: int, z: NDArray[np.float32], h: NDArray[np.float32]) -> float:
    """Update `h` [D] from itself and what attention read, side by side in `z`; returns the layer's log-odds."""
    mixed = np.empty(w.mix_b.shape[1], np.float32)
    _dense(z, w.mix_w[layer], w.mix_b[layer], mixed)
    _relu(mixed)
    step = np.empty(h.shape[0], np.float32)
    _dense(mixed, w.out_w[layer], w.out_b[layer], step)
    for i in range(h.shape[0]):
        h[i] += step[i]
    top = np.empty(w.head_b1.shape[1], np.float32)
    _dense(mixed, w.head_w1[layer], w.head_b1[layer], top)
    logit = np.float32(0)
    for i in range(top.shape[0]):
        logit += max(top[i], np.float32(0)) * w.head_w2[layer, i]
    return logit + w.head_b2[layer]


@jit()
def _attend(
    w: Weights,
    plan: Plan,
    layer: int,
    kv: NDArray[Any],
    near: NDArray[np.int64],
    edges: NDArray[np.float32],
    leave_out: int,
    h: NDArray[np.float32],
) -> float:
    """Update `h` [D] in place; returns this layer's part of the log-odds.

    `kv` [C, 2D] is the layer's cache in steps of `kv_scale`: float32, int8, or the bits of float16 as uint16. Steps go
    into the query and into the sum of the values, and not into each neighbour.
    """
    roles, k = near.shape
    e, d, heads = edges.shape[2], h.shape[0], plan.heads
    scale = w.kv_scale[layer]
    root = np.float32(1 / math.sqrt(d // heads))
    z = np.zeros(w.mix_w.shape[1], np.float32)
    z[:d] = h
    q = np.empty(d, np.float32)
    tie, hidden, score = np.empty((e, k), np.float32), np.empty(k, np.float32), np.empty((heads, k), np.float32)
    for r in range(roles):
        if (leave_out >> (ROLE_GROUPS + r)) & 1 or near[r, 0] < 0:
            continue
        _dense(h, w.q_w[layer, r], w.q_b[layer, r], q)
        for i in range(d):
            q[i] *= scale[i] * root
        n = _read_ties(near, edges, r, (leave_out >> LABELS) & 1 == 1, tie)
        _bias_scores(w, layer, r, tie, hidden, score)
        _add_key_scores(q, kv, near, r, n, score)
        _softmax(score, n)
        _sum_values(score, kv, near, r, n, tie, scale, z, d + r * (d + (heads + 1) * e + 1))
    return _mix(w, layer, z, h)


@jit()
def gather(view: View, rows: NDArray[np.int64], work: Work) -> None:
    """Neighbours of rows, and what ties each to its reader."""
    walk(view, rows, work.near)
    for b in range(rows.shape[0]):
        log_amount = math.log1p(float(view.rows[rows[b] % view.rows.shape[0]].amount))
        for r in range(work.near.shape[1]):
            for k in range(work.near.shape[2]):
                if work.near[b, r, k] >= 0:
                    edge(view, rows[b], log_amount, r, work.near[b, r, k], work.edge[b, r, k])
                else:
                    work.edge[b, r, k] = 0


@jit()
def encode(view: View, w: Weights, plan: Plan, rows: NDArray[np.int64], work: Work) -> None:
    """Set `work.h` to the rows' embeddings from their own features, and `work.logit` to 0."""
    for b in range(rows.shape[0]):
        _encode(w, plan, work.x[b], view.rows[rows[b] % view.rows.shape[0]].category, 0, work.h[b])
        work.logit[b] = 0


@jit()
def keys_values(w: Weights, layer: int, work: Work, out: NDArray[np.float32]) -> None:
    """Fill `out` [B, 2D] with the keys, then values, that later rows read of these in a layer."""
    for b in range(out.shape[0]):
        _dense(work.h[b], w.kv_w[layer], w.kv_b[layer], out[b])


@jit()
def prefetch_keys_values(kv: NDArray[Any], near: NDArray[np.int64]) -> None:
    """Prefetch the keys and values `kv` [C, 2D] of all neighbours [R, K] of a payment."""
    line = 64 // kv.itemsize
    for r in range(near.shape[0]):
        for k in range(near.shape[1]):
            if near[r, k] < 0:
                break
            values = kv[near[r, k] % kv.shape[0]]
            for i in range(0, values.shape[0], line):
                prefetch(values, i)


@jit()
def attend(w: Weights, plan: Plan, layer: int, kv: NDArray[Any], work: Work) -> None:
    """One layer for rows whose neighbours' keys and values are all in the layer's cache `kv` [C, 2D]."""
    for b in range(work.logit.shape[0]):
        if b + 1 < work.logit.shape[0]:
            prefetch_keys_values(kv, work.near[b + 1])
        work.logit[b] += _attend(w, plan, layer, kv, work.near[b], work.edge[b], 0, work.h[b])


@jit()
def finish(w: Weights, plan: Plan, work: Work) -> None:
    """Apply the head of trees: turn the network's log-odds in `work.logit` into the model's."""
    f = work.x.shape[1]
    row, at = np.empty(f + 1 + work.beside.shape[1], np.float32), np.empty(TREES_PER_GROUP, np.int64)
    for b in range(work.logit.shape[0]):
        row[:f], row[f], row[f + 1 :] = work.x[b], work.logit[b], work.beside[b]
        work.logit[b] = score_row(plan.trees, row, f, at)


@jit()
def forward(
    view: View,
    w: Weights,
    plan: Plan,
    rows: NDArray[np.int64],
    cache: NDArray[Any],
    depth: NDArray[np.uint8],
    write: bool,
    work: Work,
) -> None:
    """All steps in one call, for a micro-batch whose neighbours are all in the `cache` [L, C, 2D].

    For a single payment the calls themselves would cost more than the work in them.

    `depth` [C] counts the layers written of each slot; `write` is whether those of `rows` are to be.
    """
    slots = cache.shape[1]
    describe(view, plan.pairs, rows, work.x)
    read_head(view.rows, rows, plan.shift, plan.mask, work.beside)
    gather(view, rows, work)
    for layer in range(cache.shape[0]):
        if rows.shape[0]:
            prefetch_keys_values(cache[layer], work.near[0])
    encode(view, w, plan, rows, work)
    for layer in range(cache.shape[0]):
        if write:
            for b in range(rows.shape[0]):
                slot = rows[b] % slots
                _dense(work.h[b], w.kv_w[layer], w.kv_b[layer], cache[layer, slot])
                depth[slot] = max(depth[slot], np.uint8(layer + 1))
        attend(w, plan, layer, cache[layer], work)
    finish(w, plan, work)


@jit()
def score_ablated(
    view: View,
    w: Weights,
    plan: Plan,
    cache: NDArray[Any],
    rows: NDArray[np.int64],
    work: Work,
    masks: NDArray[np.int64],
    out: NDArray[np.float32],
) -> None:
    """Log-odds of rows with parts of their evidence left out: `out` [B, G] for the bit masks `masks` [G]."""
    h = np.empty(work.h.shape[1], np.float32)
    f = work.x.shape[1]
    row, at = np.empty(f + 1 + work.beside.shape[1], np.float32), np.empty(TREES_PER_GROUP, np.int64)
    for b in range(rows.shape[0]):
        for g in range(masks.shape[0]):
            _encode(w, plan, work.x[b], view.rows[rows[b] % view.rows.shape[0]].category, masks[g], h)
            logit = np.float32(0)
            for layer in range(cache.shape[0]):
                logit += _attend(w, plan, layer, cache[layer], work.near[b], work.edge[b], masks[g], h)
            for i in range(f):
                row[i] = w.mean[i] if (masks[g] >> plan.groups[i]) & 1 else work.x[b, i]
            row[f] = logit
            for i in range(work.beside.shape[1]):
                left_out = (masks[g] >> plan.groups[f + 1 + i]) & 1
                row[f + 1 + i] = np.float32(0) if left_out else work.beside[b, i]
            out[b, g] = score_row(plan.trees, row, f, at)
