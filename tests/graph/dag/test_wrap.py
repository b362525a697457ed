"""Random operations by the tens of thousands on buffers barely larger than their window, beside the plain reference.

Everything goes through `GraphState`, with names for ids: append, label, expiry of numbers, walks, ties, features,
look-ups, snapshots and going on from them.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data.journal.protocol import Events, Kind
from graph.dag.features import features
from graph.dag.ids import HEAD_MODULUS
from graph.dag.protocol import DAY_US, NEVER_US, Window
from graph.dag.sampler import EDGE_FEATURES, edges, neighbours
from graph.snapshot import restore, save
from graph.state import GraphState
from tests.graph.history import HOUR_US, payments, sharing
from tests.graph.plain import PlainGraph
from tests.world import START_US, reports

ROLES = ("account", "merchant", "device", "payee")
RINGS = 3  # ring columns, the last of the features: their own tests cover them


class Pair:
    """One random history in a graph and in the plain reference, an operation at a time."""

    def __init__(self, seed: int, window: Window, capacity: int, folder: Path) -> None:
        self.rng = np.random.default_rng(seed)
        self.state = GraphState(ROLES, capacity, window)
        self.plain = PlainGraph(tuple(int(t) for t in self.state.store.role_type), window)
        self.folder = folder
        self.done: Counter[str] = Counter()  # of each kind of operation: payments, labels, rows and names compared, ...
        self.time, self.base = START_US, 0.0
        self.newest: dict[str, int] = {}  # newest row of each account, by name

    def pay(self) -> None:
        """A batch: of few accounts, who are followed by others as time goes by."""
        rng, n = self.rng, int(self.rng.integers(1, 41))
        account = (self.base + rng.integers(0, 6, n)).astype(int)
        payee = np.where(rng.random(n) < 0.5, (self.base + rng.integers(0, 8, n)).astype(int), -1)
        payee = np.where(rng.random(n) < 0.1, account, payee)
        entities = {
            "account": account,
            "merchant": rng.integers(0, 3, n),
            "device": np.where(rng.random(n) < 0.7, account // 2, -1),
            "payee": payee,
        }
        gaps = rng.exponential(HOUR_US * rng.choice([0, 0.01, 1, 10]), n).astype(np.int64)
        if rng.random() < 0.02:
            gaps[rng.integers(n)] += 100 * DAY_US
        times = self.time + np.cumsum(gaps)
        self.time = int(times[-1])
        times -= np.where(rng.random(n) < 0.1, rng.integers(0, 40 * HOUR_US, n), 0)
        amounts = rng.integers(0, 10 ** rng.integers(1, 14), n)
        first, live = self.state.store.rows, len(self.state.store.ids)
        rows = self.state.apply(Events(Kind.TRANSACTION, self.state.applied, payments(first, entities, times, amounts)))
        assert rows == range(first, first + n)
        for i in range(n):
            self.plain.append(tuple(int(entities[r][i]) for r in ROLES), int(times[i]), int(amounts[i]))
            for other in {account[i], payee[i]} - {-1}:
                self.newest[f"a{other}"] = first + i
        self.base += rng.exponential(0.06) * n
        self.done["append"] += n
        self.done["expire"] += max(0, live - len(self.state.store.ids))  # at least: newcomers take numbers meanwhile

    def label(self) -> None:
        """Labels of rows that the buffer holds, and of some that it has lost."""
        rng, last = self.rng, self.state.store.rows
        if last == 0:
            return
        n = int(rng.integers(1, 9))
        rows = np.maximum(0, last - 1 - rng.integers(0, int(1.3 * self.state.store.capacity), n))
        fraud = rng.random(n) < 0.6
        self.time += int(rng.exponential(HOUR_US))
        times = np.sort(self.time - rng.integers(0, HOUR_US, n))
        self.state.apply(Events(Kind.LABEL, self.state.applied, reports([f"t{i}" for i in rows], fraud, times)))
        for row, is_fraud, time in zip(rows.tolist(), fraud.tolist(), times.tolist(), strict=True):
            self.plain.label(row, int(is_fraud), time)
        self.done["label"] += n

    def restart(self) -> None:
        """Write a snapshot, and go on from what is read back."""
        self.state = restore(save(self.state, self.folder)).state
        self.done["snapshot"] += 1
        self.done["restore"] += 1

    def sample(self, rows: np.ndarray, k: int) -> None:
        """Walks and ties."""
        plain = self.plain
        view = self.state.store.view_for(plain.settle_us)
        near = neighbours(view, rows, k)
        found = edges(view, rows, near)
        for i, row in enumerate(rows.tolist()):
            for role in range(len(ROLES)):
                chain = plain.chain(row, role, plain.window.span_us)[:k]
                assert near[i, role].tolist() == chain + [-1] * (k - len(chain))
                for j, back in enumerate(chain):
                    tie = dict(zip(EDGE_FEATURES, found[i, role, j].tolist(), strict=True))
                    assert tie == pytest.approx(plain.edge(row, role, back), abs=1e-5)
        self.done["sample"] += len(rows)

    def describe(self, rows: np.ndarray) -> None:
        """Features."""
        found = features(self.state.store.view_for(self.plain.settle_us), ROLES, rows)
        for i, row in enumerate(rows.tolist()):
            expected = self.plain.features(row)
            np.testing.assert_allclose(found[i, :-RINGS], expected[:-RINGS], atol=2e-6, rtol=2e-6, err_msg=f"row {row}")
        self.done["features"] += len(rows)

    def look_up(self) -> None:
        """Payments by id, accounts by name, offsets and times of rows: what is held, and what no longer is."""
        store, plain = self.state.store, self.plain
        asked = np.maximum(0, store.rows - self.rng.integers(1, 3 * store.capacity, 20))
        found = self.state.transaction_rows(pa.array([f"t{row}" for row in asked]))
        assert found.tolist() == [row if row >= store.oldest else -1 for row in asked.tolist()]
        held = asked[asked >= store.oldest]
        there = [plain.rows[row] for row in held.tolist()]
        assert store.offsets.of(held).tolist() == [row.offset for row in there]
        assert store.offsets.rows(store.offsets.of(held)).tolist() == held.tolist()
        assert store.column("time", held).tolist() == [row.time for row in there]
        assert np.abs(store.raw_time(held) - [row.raw_time for row in there]).max(initial=0) <= 500
        for name in self.rng.choice(sorted(self.newest), 5).tolist():
            newest = self.newest[name]
            node = np.array([store.ids.get(0, name)])
            assert store.newest(node).tolist() == [newest if newest >= store.oldest else -1]
            first, of = max(store.oldest, newest - 60), int(name[1:])
            chain = [row for row in range(first, store.rows) if of in (plain.rows[row].entity[r] for r in (0, 3))]
            assert store.history(int(node[0]), 7, newest - 60).tolist() == chain[::-1][:7]
        labels = [plain.believed(row, plain.rows[asked[0]].offset) for row in held.tolist()]
        assert store.believed(held, int(asked[0])).tolist() == labels
        assert store.believed(held).tolist() == [plain.believed(row, plain.offset) for row in held.tolist()]
        times = np.sort(np.append(store.column("time", held), self.time)) + int(self.rng.integers(-1, 2))
        every = [plain.rows[row].time for row in range(store.oldest, store.rows)]
        assert store.first_rows_at(times).tolist() == (store.oldest + np.searchsorted(every, times)).tolist()
        self.done["look up"] += len(asked) + 5

    @property
    def readers(self) -> np.ndarray:
        """Two new rows, whose whole window the buffer holds, and two of any age, who see what is left of theirs."""
        store = self.state.store
        self.plain.oldest = store.oldest
        first = store.oldest + store.window.rows if store.oldest else 0
        some = self.rng.integers(first, store.rows, 2), self.rng.integers(store.oldest, store.rows, 2)
        return np.concatenate(some)


@pytest.mark.parametrize(
    ("seed", "window", "capacity", "settle_us"),
    [
        (0, Window(83, 90 * DAY_US), 97, NEVER_US),  # the count is the limit
        (1, Window(61, 12 * HOUR_US), 67, 3 * HOUR_US),  # the age is, most of the time
        # One slot more than the window: a row leaves as it goes out of sight.
        (2, Window(130, 5 * DAY_US), 131, NEVER_US),
        (3, Window(211, 20 * DAY_US), 293, 4 * DAY_US),
    ],
)
def test_tens_of_thousands_of_operations_of_every_kind_equal_the_plain_reference(
    seed, window, settle_us, capacity, tmp_path
):
    pair = Pair(seed, window, capacity, tmp_path)
    pair.plain.settle_us = settle_us
    n = 13_500
    checked = 0
    while pair.state.store.rows < n:
        pair.pay()
        if pair.rng.random() < 0.5:
            pair.label()
        if pair.state.store.rows - checked > 150:
            checked = pair.state.store.rows
            pair.sample(pair.readers, 5)
            pair.describe(pair.readers)
            pair.look_up()
        if pair.rng.random() < 0.01:
            pair.restart()
    pair.sample(pair.readers, window.rows)
    least = {"append": 13_500, "label": 1_000, "expire": 500, "sample": 100, "features": 100, "look up": 1_000}
    least |= {"snapshot": 4, "restore": 4}
    assert pair.done.keys() == least.keys()
    for kind, number in least.items():
        assert pair.done[kind] >= number, kind
    assert pair.done.total() > 18_000
    assert pair.state.store.ids.numbered < 8 * capacity
    assert pair.state.store.label_data.size < 8 * capacity + 1024
    assert len(pair.state.store.offsets.runs) < 4 * capacity + 64
    assert len(pair.state.payments.buckets) < 2 * capacity + 64
    assert len(pair.state.store.sums.values) < 32 * capacity


def test_rows_beyond_two_to_the_32_are_like_any_others():
    """Heads are kept modulo 2^32 - 1: a graph that passes it sees what one sees that began at 0."""
    near, far = (GraphState(ROLES, 97, Window(83, 5 * DAY_US)) for _ in range(2))
    shift = (HEAD_MODULUS - 1500) // 97 * 97  # a whole number of laps, so that the slots are the same
    far.store.rows = shift
    for events in sharing(1, 3000, most=14, reach=120, overdue=0.3):
        rows = near.apply(events)
        assert far.apply(events) == range(rows.start + shift, rows.stop + shift)
        assert near.store.row_data.tobytes() == far.store.row_data.tobytes()
        assert near.store.velocity.tobytes() == far.store.velocity.tobytes()
        some = np.arange(rows.start, rows.stop)
        if len(some):
            back = neighbours(near.store.view, some, 6)
            there = neighbours(far.store.view, some + shift, 6)
            np.testing.assert_array_equal(np.where(back < 0, -1, back + shift), there)
            described = features(near.store.view, ROLES, some)
            np.testing.assert_array_equal(described, features(far.store.view, ROLES, some + shift))
            np.testing.assert_array_equal(
                edges(near.store.view, some, back), edges(far.store.view, some + shift, there)
            )
        labels = near.store.labels.copy()
        for name in ("row", "seen_from"):
            labels[name] += shift
        np.testing.assert_array_equal(labels, far.store.labels)
        assert len(near.store.ids) == len(far.store.ids)
    assert far.store.rows > HEAD_MODULUS + 1000
    assert near.store.ids.numbered < 2000
