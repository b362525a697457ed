"""The hash table of digests: what was taken out is gone, and everything else is still found."""

import numpy as np
import pytest

from data.digests import Table, bucket_of, remove
from graph.rings.forest import add_tie, drop_tie, empty_ties, slot_of_key, ties_with_room

BUCKETS = 64


@pytest.mark.parametrize("seed", range(8))
def test_after_any_removals_exactly_the_others_are_found(seed: int) -> None:
    """Nearly full, with homes crowded at the end of the table, so that searches go round it."""
    rng = np.random.default_rng(seed)
    digests = rng.integers(1, 1 << 63, (60, 2)).astype(np.uint64)
    crowded = rng.random(60) < 0.7
    digests[crowded, 0] |= np.uint64(0b11111 << 59)  # the last two buckets
    table, held = Table(digests, np.zeros(BUCKETS, np.uint32)), set()
    for step in range(600):
        place = int(rng.integers(60))
        at = bucket_of(table, *digests[place])
        if place in held:
            remove(table, at)
            held.remove(place)
        else:
            assert table.buckets[at] == 0
            table.buckets[at] = place + 1
            held.add(place)
        if step % 7 == 0:
            found = {p for p in range(60) if table.buckets[bucket_of(table, *digests[p])] == p + 1}
            assert found == held
            assert np.count_nonzero(table.buckets) == len(held)
    assert len(held) > 10


@pytest.mark.parametrize("seed", range(4))
def test_after_any_ties_are_dropped_exactly_the_others_are_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ties, keys = ties_with_room(empty_ties(), 1024, 8, 4), [int(key) for key in rng.integers(0, 1 << 40, 1500)]
    held: set[int] = set()
    for step in range(6000):
        key = keys[int(rng.integers(len(keys)))]
        at = slot_of_key(ties.list, ties.table, key)
        if key in held:
            drop_tie(ties, int(ties.table[at]) - 1)
            held.remove(key)
        elif len(held) < 1024:
            add_tie(ties, at, key, 1, 0, step)
            held.add(key)
    assert len(held) > 500
    assert int(ties.progress[0]["ties"]) == len(held) == np.count_nonzero(ties.table)
    assert set(ties.list["key"][: len(held)].tolist()) == held
    for key in keys:
        place = int(ties.table[slot_of_key(ties.list, ties.table, key)])
        assert (place > 0) == (key in held)
        assert place == 0 or ties.list[place - 1]["key"] == key
