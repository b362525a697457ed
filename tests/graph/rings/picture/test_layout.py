"""The layout: the same every time, nodes apart, ties short, neighbours around the core."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from graph.rings.picture.layout import EXACT, place

STAR = np.array([[0, i] for i in range(1, 12)])


def clusters(n: int) -> np.ndarray:
    """Cliques of six in a chain."""
    ties = [(i, j) for base in range(0, n, 6) for i in range(base, min(n, base + 6)) for j in range(base, i)]
    return np.array([*ties, *((i, i + 6) for i in range(0, n - 6, 6))])


@pytest.mark.parametrize(("n", "ends"), [(12, STAR), (90, clusters(90)), (EXACT + 200, clusters(EXACT + 200))])
def test_no_two_nodes_lie_on_each_other_and_ties_are_shorter_than_the_rest(n, ends):
    places = place(n, ends, np.ones(n, bool))
    np.testing.assert_array_equal(places, place(n, ends, np.ones(n, bool)))
    every = pdist(places)
    assert every.min() > 0.1
    tied = np.linalg.norm(places[ends[:, 0]] - places[ends[:, 1]], axis=1)
    assert np.median(tied) < 0.5 * np.median(every) or n == 12
    assert np.ptp(places[:, 0]) >= np.ptp(places[:, 1])


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_nodes_without_ties_have_places_of_their_own(n):
    places = place(n, np.zeros((0, 2), np.int64), np.ones(n, bool))
    assert places.shape == (n, 2)
    assert n < 2 or pdist(places).min() > 0.3


def test_neighbours_do_not_move_the_core_and_lie_beside_what_they_are_tied_to():
    core = np.arange(40) < 12
    more = np.array([[1 + i % 3, 12 + i] for i in range(28)])
    alone = place(12, STAR, np.ones(12, bool))
    places = place(40, np.concatenate([STAR, more]), core)
    np.testing.assert_array_equal(places[:12], alone)
    for a, b in more:
        assert np.linalg.norm(places[a] - places[b]) < 2.5
    assert pdist(places[12:]).min() > 0.05
