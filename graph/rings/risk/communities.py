"""Communities of weighted ties: Louvain (Blondel et al. 2008) in whole numbers, each tie of ranks broken by order.

Weights are whole numbers, so every sum and comparison is exact, and a community is a function of the ties and of the
order of the nodes alone: not of hash tables, of how calls were grouped, or of the machine. Each connected component is
judged by its own total, so that what happens elsewhere in the graph cannot move a community.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from data.jit import jit

MAX_SWEEPS: Final = 32
Ints = NDArray[np.int64]


@jit()
def components(nodes: int, a: Ints, b: Ints) -> Ints:
    """The connected component of each node, named by its lowest node, int64 [nodes]; ties join `a[i]` and `b[i]`."""
    parent = np.arange(nodes)
    for i in range(len(a)):
        x, y = a[i], b[i]
        while parent[x] != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        while parent[y] != y:
            parent[y] = parent[parent[y]]
            y = parent[y]
        if x < y:
            parent[y] = x
        elif y < x:
            parent[x] = y
    for n in range(nodes):  # a parent is lower than its child, so it is final already
        parent[n] = parent[parent[n]]
    return parent


@jit()
def louvain(nodes: int, a: Ints, b: Ints, weight: Ints, resolution: int) -> Ints:
    """Communities of an undirected graph, int64 [nodes]: numbered in order of their first node.

    Args:
        nodes: How many; nodes without ties are communities of their own.
        a: One end of each tie, int64 [m].
        b: The other, not the same.
        weight: int64 [m], positive.
        resolution: In hundredths: 100 is plain modularity.
    """
    of = np.arange(nodes)
    component = components(nodes, a, b)
    total = np.zeros(nodes, np.int64)  # twice the weight of each component, by its lowest node
    for i in range(len(a)):
        total[component[a[i]]] += 2 * weight[i]
    n, inner = nodes, np.zeros(nodes, np.int64)
    whole = np.empty(nodes, np.int64)
    for x in range(nodes):
        whole[x] = total[component[x]]
    while True:
        moved, to = _move(n, a, b, weight, inner, whole, resolution)
        if not moved:
            return of
        names, fresh = np.full(n, -1), 0
        for x in range(n):
            if names[to[x]] < 0:
                names[to[x]] = fresh
                fresh += 1
        for x in range(nodes):
            of[x] = names[to[of[x]]]
        a, b, weight, inner, whole = _together(n, fresh, names, to, a, b, weight, inner, whole)
        n = fresh


@jit()
def _move(n: int, a: Ints, b: Ints, weight: Ints, inner: Ints, whole: Ints, resolution: int) -> tuple[bool, Ints]:
    """Move single nodes, in order, to the neighbouring community that gains most, until none gains."""
    start = np.zeros(n + 1, np.int64)
    for i in range(len(a)):
        start[a[i] + 1] += 1
        start[b[i] + 1] += 1
    for x in range(n):
        start[x + 1] += start[x]
    at, end, held = start[:-1].copy(), np.empty(2 * len(a), np.int64), np.empty(2 * len(a), np.int64)
    degree = inner.copy()
    for i in range(len(a)):
        x, y, w = a[i], b[i], weight[i]
        end[at[x]], held[at[x]] = y, w
        end[at[y]], held[at[y]] = x, w
        at[x] += 1
        at[y] += 1
        degree[x] += w
        degree[y] += w
    to, tot, near = np.arange(n), degree.copy(), np.zeros(n, np.int64)
    ever = False
    for _ in range(MAX_SWEEPS):
        moved = False
        for x in range(n):
            if start[x] == start[x + 1]:
                continue
            home = to[x]
            for i in range(start[x], start[x + 1]):
                near[to[end[i]]] += held[i]
            tot[home] -= degree[x]
            best, gain = home, 100 * near[home] * whole[x] - resolution * tot[home] * degree[x]
            for i in range(start[x], start[x + 1]):
                c = to[end[i]]
                more = 100 * near[c] * whole[x] - resolution * tot[c] * degree[x]
                if more > gain or (more == gain and c < best and best != home):
                    best, gain = c, more
            for i in range(start[x], start[x + 1]):
                near[to[end[i]]] = 0
            tot[best] += degree[x]
            if best != home:
                to[x], moved, ever = best, True, True
        if not moved:
            break
    return ever, to


@jit()
def _together(
    n: int, fresh: int, names: Ints, to: Ints, a: Ints, b: Ints, weight: Ints, inner: Ints, whole: Ints
) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    """The graph of communities: ties between two of them are added up, those inside become `inner`, counted twice."""
    inside, sums = np.zeros(fresh, np.int64), np.zeros(fresh, np.int64)
    for x in range(n):
        inside[names[to[x]]] += inner[x]
        sums[names[to[x]]] = whole[x]
    key, between = np.empty(len(a), np.int64), 0
    amount = np.empty(len(a), np.int64)
    for i in range(len(a)):
        x, y = names[to[a[i]]], names[to[b[i]]]
        if x == y:
            inside[x] += 2 * weight[i]
            continue
        key[between] = min(x, y) * fresh + max(x, y)
        amount[between] = weight[i]
        between += 1
    order = np.argsort(key[:between], kind="mergesort")
    one, two, held = np.empty(between, np.int64), np.empty(between, np.int64), np.empty(between, np.int64)
    count = 0
    for i in order:
        if count and one[count - 1] * fresh + two[count - 1] == key[i]:
            held[count - 1] += amount[i]
        else:
            one[count], two[count], held[count] = key[i] // fresh, key[i] % fresh, amount[i]
            count += 1
    return one[:count], two[:count], held[:count], inside, sums
