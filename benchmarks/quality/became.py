"""What neighbours became: what is known of an entity's recent co-entities by the time of a payment, not when they met.

An account that shared this device last week may have turned out fraudulent elsewhere since; a key or value kept beside
the row of their meeting can not tell. This reads it for every payment of a history in one plain sweep, to measure what
a gather of that kind would be worth before a store is built around it.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from graph.dag.features import counterparts
from graph.state import GraphState

NEIGHBOURS_READ = 16  # past payments of an entity whose other ends are followed up
WIDTH = 5  # numbers for each pair of a role and its counterpart


def became(state: GraphState) -> NDArray[np.float32]:
    """For each role and counterpart, of the co-entities in the entity's last payments, as of each payment.

    The numbers: those known for a fraud (log1p), their known frauds (log1p), payments each has made since they met
    (log1p of the mean), the share whose newest known fraud is younger than the meeting, the share known for a fraud.

    Args:
        state: A graph that holds all of its history.

    Returns:
        float32 [N, P * 5], P pairs in the order of `counterparts`.
    """
    store = state.store
    rows, roles = np.arange(store.rows), store.roles
    types = ["account" if role == "payee" else role for role in roles]
    kind = np.array([types.index(t) for t in types])
    entity, labels = store.column("entity").astype(np.int64), store.label_events()
    order = np.argsort(labels.seen_from, kind="stable")
    pairs = counterparts(roles)
    out = np.zeros((store.rows, WIDTH * int((pairs >= 0).sum())), np.float32)
    _sweep(
        entity,
        kind,
        store.neighbours(rows, NEIGHBOURS_READ),
        np.asarray(labels.row)[order],
        np.asarray(labels.seen_from)[order],
        np.asarray(labels.fraud)[order].astype(np.int8),
        pairs,
        np.zeros((len(roles), int(entity.max()) + 1), np.int32),
        out,
    )
    return out


@njit
def _first(entity, kind, row, role):
    """Whether an entity stands in no earlier role of the same row: a self-transfer counts once."""
    for q in range(role):  # noqa: SIM110 - compiled
        if kind[q] == kind[role] and entity[row, q] == entity[row, role]:
            return False
    return True


@njit
def _sweep(entity, kind, near, label_row, label_seen, label_fraud, pairs, frauds, out):
    rows, roles = entity.shape
    payments, newest = np.zeros_like(frauds), np.full(frauds.shape, -1, np.int64)
    number = np.zeros((rows, roles), np.int32)  # payments of the entity before this one
    belief = np.full(rows, -1, np.int8)
    seen = np.empty(near.shape[2], np.int64)
    label = 0
    for row in range(rows):
        while label < label_row.shape[0] and label_seen[label] <= row:
            of = label_row[label]
            change = int(label_fraud[label] == 1) - int(belief[of] == 1)
            belief[of] = label_fraud[label]
            for r in range(roles):
                e = entity[of, r]
                if change != 0 and e >= 0 and _first(entity, kind, of, r):
                    frauds[kind[r], e] += change
                    if change > 0:
                        newest[kind[r], e] = max(newest[kind[r], e], of)
            label += 1
        at = 0
        for r in range(roles):
            for c in range(pairs.shape[1]):
                other = pairs[r, c]
                if other < 0:
                    continue
                found, fraudulent, total, since, later = 0, 0, 0, 0, 0
                for n in range(near.shape[2]):
                    met = near[row, r, n]
                    if entity[row, r] < 0 or met < 0:
                        break
                    # At the other end of a transfer the entity's counterpart stands in the entity's own role.
                    here = r if kind[r] == kind[other] and entity[met, other] == entity[row, r] else other
                    e = entity[met, here]
                    if e < 0 or (seen[:found] == e).any():
                        continue
                    seen[found] = e
                    found += 1
                    fraudulent += frauds[kind[here], e] > 0
                    total += frauds[kind[here], e]
                    since += payments[kind[here], e] - number[met, here] - 1
                    later += newest[kind[here], e] > met
                if found:
                    out[row, at] = np.log1p(fraudulent)
                    out[row, at + 1] = np.log1p(total)
                    out[row, at + 2] = np.log1p(since / found)
                    out[row, at + 3] = later / found
                    out[row, at + 4] = fraudulent / found
                at += WIDTH
        for r in range(roles):
            if entity[row, r] >= 0:
                number[row, r] = payments[kind[r], entity[row, r]]
        for r in range(roles):
            if entity[row, r] >= 0 and _first(entity, kind, row, r):
                payments[kind[r], entity[row, r]] += 1
