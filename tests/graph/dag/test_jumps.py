"""Jump pointers: each pointer, count and sum against adding up the payments one by one; the table of large sums."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graph.dag.ids import USED
from graph.dag.jumps import LENGTH_BITS, MAX_SUM, SUM_IN_TABLE, jump_sum, role_in
from graph.dag.protocol import Batch, Window
from graph.dag.sampler import neighbours
from graph.dag.search import sum_back_to
from graph.dag.store import GraphStore
from tests.graph.plain import PlainGraph

ROLES = ("account", "merchant", "device", "payee")
FOR_EVER = 10**17  # us
SIZES = {  # amounts, minor units
    "small": 1000,
    "32 bits": 1 << 32,  # a sum of two no longer fits
    "large": 1 << 45,
    "too large": 1 << 62,  # two of them reach the end of 63 bits
}


class Chains:
    """Payments of very few entities, most of them transfers, in a store and in the plain reference."""

    def __init__(self, seed: int, capacity: int, window: Window) -> None:
        self.rng = np.random.default_rng(seed)
        self.store = GraphStore(ROLES, capacity, window)
        self.store.ids.meta[USED] = 20  # nodes are numbered by hand here
        self.plain = PlainGraph(tuple(int(t) for t in self.store.role_type), window)

    def append(self, n: int, most: int) -> None:
        rng = self.rng
        account, payee = rng.integers(0, 3, n), rng.integers(-2, 3, n)
        payee = np.where(rng.random(n) < 0.15, account, np.maximum(payee, -1))
        merchant, device = np.full(n, 10), np.where(rng.random(n) < 0.3, 15, -1)
        entity = np.stack([account, merchant, device, payee], 1).astype(np.int32)
        time = self.plain.clock + np.cumsum(rng.exponential(1e9, n).astype(np.int64))
        amount = rng.integers(0, most, n)
        for i in range(n):
            self.plain.append(tuple(entity[i].tolist()), int(time[i]), int(amount[i]))
        self.store.append(Batch(entity, time, amount, np.zeros((n, 4), np.uint8)), self.store.rows)

    def passed(self, row: int, role: int) -> list[int]:
        """All earlier rows of the entity, newest first, whatever any window says."""
        node, kind = self.plain.rows[row].entity[role], self.plain.role_type[role]
        there = (self.plain.rows[back].entity for back in range(row))
        return [
            b for b, e in enumerate(there) if node >= 0 and (node, kind) in zip(e, self.plain.role_type, strict=True)
        ][::-1]

    def total(self, rows: list[int]) -> int:
        return min(MAX_SUM, sum(self.plain.rows[row].amount for row in rows))

    def check_pointers(self) -> None:
        """What each pointer in the buffer says of itself, and the side table of exactly those that need it."""
        store, kept = self.store, set()
        for row in range(store.oldest, store.rows):
            slot = row % store.capacity
            x = store.velocity[slot]
            for role in range(len(ROLES)):
                if self.plain.rows[row].entity[role] < 0:
                    continue
                k, passed = int(x["k"][role]) & LENGTH_BITS, [row, *self.passed(row, role)]
                lost = len(passed) == 1 or row - passed[1] >= store.capacity
                assert (k == 0) == lost
                assert row - int(x["jump"][role]) == passed[2**k - 1 if k else 0]
                total = jump_sum(store.velocity, store.sums, slot, role)
                assert total == self.total(passed[: max(1, 2**k - 1)])
                assert bool(x["k"][role] & SUM_IN_TABLE) == (total >= 1 << 32)
                if total >= 1 << 32:
                    kept.add(int(x["sum"][role]))
        first, last = store.sums.span.tolist()
        assert kept == {number % (1 << 32) for number in range(first, last)}

    def check_windows(self, row: int) -> None:
        """Counts and sums of each role over windows of any length."""
        store, view = self.store, self.store.view
        near = neighbours(view, np.array([row]), 1)[0, :, 0]
        time = self.plain.rows[row].time
        for role, newest in enumerate(near.tolist()):
            seen = self.plain.chain(row, role, store.window.span_us)
            assert newest == (seen[0] if seen else -1)
            if newest < 0:
                continue
            node = self.plain.rows[row].entity[role]
            spans = sorted(int(s) for s in self.rng.integers(time - self.plain.rows[newest].time, FOR_EVER, 3))
            spans += [time - self.plain.rows[b].time - d for b in self.rng.choice(seen, 3).tolist() for d in (0, 1)]
            for span in spans:
                inside = self.plain.chain(row, role, min(span, store.window.span_us))
                if not inside:
                    continue
                q = role_in(view.rows, view.role_type, newest % store.capacity, role, node)
                oldest, q, count, amount = sum_back_to(view, row, time, node, span, newest, q, 0, 0)
                assert (oldest, count + 1) == (inside[-1], len(inside))
                assert self.plain.rows[oldest].entity[q] == node
                assert min(MAX_SUM, amount + self.plain.rows[oldest].amount) == self.total(inside)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from([Window(13, FOR_EVER), Window(40, FOR_EVER), Window(40, 2 * 10**10)]),
    st.sampled_from(sorted(SIZES)),
    st.sampled_from([1, 7, 30]),
)
def test_counts_and_sums_are_exact_in_a_buffer_that_wraps(seed, window, size, group):
    chains = Chains(seed, window.rows + 1 + seed % 7, window)
    while chains.store.rows < 4 * window.rows:
        chains.append(min(group, 1 + seed % 7), SIZES[size])
        chains.check_windows(chains.store.rows - 1)
    chains.check_pointers()


def test_counts_and_sums_are_exact_along_long_chains():
    """Jumps of up to a thousand payments, of all sizes."""
    chains = Chains(1, 2500, Window(2400, FOR_EVER))
    for size in ("small", "32 bits", "large", "small", "too large") * 2:
        chains.append(500, SIZES[size])
        for row in chains.rng.integers(chains.store.rows - 90, chains.store.rows, 4).tolist():
            chains.check_windows(row)
    assert (chains.store.velocity["k"] & LENGTH_BITS).max() >= 9


def test_the_table_of_large_sums_fills_grows_wraps_and_gives_back():
    chains = Chains(2, 97, Window(90, FOR_EVER))
    chains.store.sums.span[:] = (1 << 32) - 700  # numbers are kept modulo 2^32, which this passes
    lengths = []
    for lap in range(40):
        size = ["small", "large", "32 bits", "too large"][lap // 4 % 4]
        for _ in range(10):
            chains.append(5, SIZES[size])
        first, last = chains.store.sums.span.tolist()
        assert 0 <= last - first <= len(chains.store.sums.values)
        if lap // 4 % 4 == 0 and lap % 4 == 3:
            assert last - first < 6  # the buffer holds small payments alone; a jump can lead out of it over larger ones
        lengths.append(len(chains.store.sums.values))
        if lap % 3 == 0:
            chains.check_pointers()
    assert chains.store.sums.span[0] > (1 << 32) + 1000
    assert lengths[0] == 64 < lengths[5]
    assert lengths[-1] == lengths[8]  # level, though every row of most laps has large sums


def test_sums_stay_at_their_most():
    """Two payments of 2^62 and more are 2^63 - 1 together, and no overflow makes them small again."""
    store = GraphStore(ROLES, 40, Window(30, FOR_EVER))
    store.ids.meta[USED] = 20
    n = 33
    entity = np.tile(np.array([[0, 10, -1, 1]], np.int32), (n, 1))
    store.append(Batch(entity, np.arange(n), np.full(n, MAX_SUM - 5), np.zeros((n, 4), np.uint8)), 0)
    view, row = store.view, n - 1
    for role in (0, 1, 3):
        assert sum_back_to(view, row, row, int(entity[0, role]), 20, row - 1, role, 0, 0) == (
            row - 20,
            role,
            19,
            MAX_SUM,
        )
        assert sum_back_to(view, row, row, int(entity[0, role]), 1, row - 1, role, 0, 0) == (row - 1, role, 0, 0)
        assert sum_back_to(view, row, row, int(entity[0, role]), 2, row - 1, role, 0, 0) == (
            row - 2,
            role,
            1,
            MAX_SUM - 5,
        )


@pytest.mark.parametrize(("back", "k"), [((1 << 32) - 3, 2), ((1 << 32) - 2, 1)])
def test_a_jump_that_would_not_fit_into_32_bits_is_not_made(back, k):
    """Each jump is shorter than the buffer plus the one that it goes on with, so they could add up to more."""
    store = GraphStore(ROLES, 40, Window(30, FOR_EVER))
    store.ids.meta[USED] = 20
    entity = np.array([[0, 10, -1, -1]] * 3, np.int32)
    append = Batch(entity, np.arange(3), np.full(3, 7), np.zeros((3, 4), np.uint8))
    store.append(append, 0)
    store.velocity["jump"][1, 0] = back  # as if it led far out of a buffer of billions
    store.append(Batch(*(column[:1] for column in append)), 3)
    assert store.velocity["k"][3].tolist()[:2] == [k, 2]
    assert store.velocity["jump"][3].tolist()[:2] == [back + 2 if k == 2 else 1, 3]
    assert store.velocity["sum"][3].tolist()[:2] == [21 if k == 2 else 7, 21]


@pytest.mark.parametrize("transfers", [False, True])
def test_any_payment_of_a_chain_is_logarithmically_many_steps_away(transfers):
    """In transfers A -> B -> A -> ... both accounts' chains go through the two roles in turn."""
    n = 5000
    store = GraphStore(ROLES, 1 << 13, Window(6000, FOR_EVER))
    store.ids.meta[USED] = 20
    entity = np.full((n, 4), -1, np.int32)
    entity[:, 0] = np.arange(n) % 2 if transfers else 0
    entity[:, 3] = 1 - entity[:, 0] if transfers else -1
    store.append(Batch(entity, np.arange(n), np.ones(n, np.int64), np.zeros((n, 4), np.uint8)), 0)
    for target in np.random.default_rng(0).integers(0, n, 200).tolist():
        at, steps = n - 1, 0
        while at > target:
            role = int(np.flatnonzero(entity[at] == 0)[0])
            jump = int(store.velocity["jump"][at, role])
            at -= jump if at - jump >= target else int(store.row_data["prev"][at, role])
            steps += 1
        assert at == target
        assert steps <= 3 * np.log2(n)
