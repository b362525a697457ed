"""Where the nodes of a picture lie: the same graph gives the same places.

Ties pull like springs and nodes push each other away (Fruchterman and Reingold, "Graph drawing by force-directed
placement", 1991), from a start that has the graph's shape already (pivot MDS: Brandes and Pich, "Eigensolver methods
for progressive multidimensional scaling", 2006). In large graphs only near nodes push, found by a k-d tree, so that a
step takes O(n log n).
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import shortest_path
from scipy.spatial import cKDTree

Places = NDArray[np.float64]
Ends = NDArray[np.int64]

PIVOTS: Final = 40
EXACT: Final = 400  # nodes up to which every pair pushes
NEAR: Final = 16  # nodes that push each node in a larger graph
FAN: Final = 7  # nodes in a row of a fan
GOLDEN: Final = np.pi * (3 - 5**0.5)  # the golden angle: points of a spiral at multiples of it never line up


def place(nodes: int, ends: Ends, core: NDArray[np.bool_]) -> Places:
    """Lay out a graph: the core first, by its own ties alone, then the others around it.

    Args:
        nodes: Number of nodes.
        ends: Shape (ties, 2), the two nodes of each tie.
        core: Shape (nodes,), which nodes are in the core. Where these lie does not depend on the others.

    Returns:
        Shape (nodes, 2), centred on the core; tied nodes are about 1 apart.
    """
    places = np.zeros((nodes, 2))
    inside = np.flatnonzero(core)
    number = np.full(nodes, -1)
    number[inside] = np.arange(len(inside))
    own = ends[core[ends].all(axis=1)] if len(ends) else ends.reshape(0, 2)
    places[inside] = _free(len(inside), number[own])
    if len(inside):
        places[inside] -= places[inside].mean(axis=0)
    outside = np.flatnonzero(~core)
    if len(outside):
        _around(places, outside, ends, core)
    return np.round(places, 3)


def _free(n: int, ends: Ends) -> Places:
    """Places of a graph on its own."""
    if n < 2:
        return np.zeros((n, 2))
    places = _start(n, ends)
    spread = max(1e-9, float(np.sqrt((places**2).sum(axis=1).mean())))
    places *= 0.6 * n**0.5 / spread
    angle = GOLDEN * np.arange(n)
    places += 0.3 * np.column_stack([np.cos(angle), np.sin(angle)])  # those of one place, such as leaves, come apart
    return _laid_down(_relaxed(places, ends, steps=220 if n <= EXACT else 80))


def _laid_down(places: Places) -> Places:
    """Turned so that the longest extent is horizontal: screens are wider than high."""
    centred = places - places.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    long = axes[:, 1] * (-1.0 if axes[np.abs(axes[:, 1]).argmax(), 1] < 0 else 1.0)
    turned: Places = np.column_stack([centred @ long, centred @ np.array([-long[1], long[0]])])
    return turned


def _start(n: int, ends: Ends) -> Places:
    """Pivot MDS on the numbers of ties between nodes; a spiral where it has nothing to say."""
    angle, radius = GOLDEN * np.arange(n), np.sqrt(np.arange(n) + 0.5)
    spiral = np.column_stack([np.cos(angle), np.sin(angle)]) * radius[:, None]
    if not len(ends):
        return spiral
    both = np.concatenate([ends, ends[:, ::-1]])
    graph = csr_array(coo_array((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(n, n)))
    pivots = np.unique(np.linspace(0, n - 1, min(PIVOTS, n)).astype(np.int64))
    steps = shortest_path(graph, unweighted=True, indices=pivots)
    reached = steps[np.isfinite(steps)]
    steps = np.where(np.isfinite(steps), steps, reached.max() + 2) ** 2
    centred = steps - steps.mean(axis=0) - steps.mean(axis=1, keepdims=True) + steps.mean()
    _, vectors = np.linalg.eigh(centred @ centred.T)
    axes = vectors[:, -2:] if vectors.shape[1] > 1 else np.zeros((len(pivots), 2))
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), [0, 1]] < 0, -1.0, 1.0)  # a sign of its own choosing
    places = centred.T @ axes
    return places if np.ptp(places, axis=0).min() > 1e-9 else spiral


def _around(places: Places, outside: Ends, ends: Ends, core: NDArray[np.bool_]) -> None:
    """Put the others around what they are tied to, in place, in fans that point away from the core's middle."""
    tied: dict[int, list[int]] = {}
    for a, b in ends.tolist():
        for one, other in ((a, b), (b, a)):
            if core[other] and not core[one]:
                tied.setdefault(one, []).append(other)
    size = float(np.abs(places[core]).max(initial=0.0)) + 1.0
    fans: dict[int, int] = {}
    for node in outside.tolist():
        to = tied.get(node)
        if to is None:  # tied to others alone, or to nothing
            angle = GOLDEN * node
            places[node] = 1.3 * size * np.array([np.cos(angle), np.sin(angle)])
            continue
        place = fans[to[0]] = fans.get(to[0], -1) + 1
        row, seat = divmod(place, FAN)
        middle = places[to].mean(axis=0)
        angle = float(np.arctan2(middle[1], middle[0])) + 0.36 * (seat - (FAN - 1) / 2 + (row % 2) / 2)
        places[node] = middle + (1.0 + 0.45 * row) * np.array([np.cos(angle), np.sin(angle)])


def _relaxed(places: Places, ends: Ends, steps: int) -> Places:
    """Let forces move the nodes, by less and less."""
    n, places = len(places), places.copy()
    degree = np.maximum(1, np.bincount(ends.ravel(), minlength=n)) if len(ends) else np.ones(n, np.int64)
    near = None
    share = 1.6 / degree**0.5  # a hub of a thousand ties is not torn about by each of them
    for step in range(steps):
        if n > EXACT and step % 4 == 0:
            near = cKDTree(places).query(places, k=NEAR + 1)[1][:, 1:]
        force = _pushes(places, near)
        if len(ends):
            a, b = ends[:, 0], ends[:, 1]
            apart = places[b] - places[a]
            length = np.linalg.norm(apart, axis=1, keepdims=True)
            pull = apart * np.minimum(length, 2.0)
            for side in (0, 1):  # bincount adds in the order of the ties, so that the sum is the same every time
                force[:, side] += share * (np.bincount(a, pull[:, side], n) - np.bincount(b, pull[:, side], n))
        force -= 0.03 * places  # parts that no tie holds stay in sight
        most = 0.9 * (1 - step / steps) + 0.02
        size = np.maximum(1e-12, np.linalg.norm(force, axis=1, keepdims=True))
        places += force / size * np.minimum(size * 0.3, most)
    return places


def _pushes(places: Places, near: Ends | None) -> Places:
    """How nodes push each other away: all of them, or the nearest. Far ones push with 1 / distance, those closer than
    a tie's length with much more, so that the leaves of a hub do not lie on each other."""
    others = places[None, :, :] if near is None else places[near]
    apart = places[:, None, :] - others
    squared = np.maximum(0.02, (apart**2).sum(axis=2))
    push = 1 / squared + 0.25 / squared**2
    pushed: Places = (apart * push[:, :, None]).sum(axis=1)
    return pushed if near is None else 1.5 * pushed
