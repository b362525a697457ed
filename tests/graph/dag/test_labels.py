"""Order of arrival is the order of knowledge: late payments, late, revised and overturned labels, each by replay."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.journal.protocol import Events, Kind
from graph.dag.features import feature_names, features
from graph.dag.protocol import DAY_US, Window
from graph.dag.rows import MAX_LATENESS_MS, believed
from graph.dag.sampler import EDGE_FEATURES, edges, neighbours
from graph.state import GraphState
from tests.graph.history import HOUR_US, payments, sharing
from tests.graph.plain import PlainGraph
from tests.world import START_US, reports

ROLES = ("account", "merchant", "device", "card")
NAMES = feature_names(ROLES)
MINUTE_US = HOUR_US // 60


class Replay:
    """A journal told step by step, then replayed from its beginning in batches of any size."""

    def __init__(self) -> None:
        self.events: list[Events] = []
        self.rows = self.offset = 0

    def pay(self, *times: int) -> None:
        n = len(times)
        batch = payments(
            self.rows,
            {"account": [1] * n, "merchant": [1] * n, "device": [1] * n},
            [START_US + t for t in times],
            [100] * n,
        )
        self._add(Kind.TRANSACTION, batch)
        self.rows += n

    def label(self, row: int, fraud: bool, time: int) -> None:
        self._add(Kind.LABEL, reports([f"t{row}"], [fraud], [START_US + time]))

    def _add(self, kind: Kind, batch) -> None:
        self.events.append(Events(kind, self.offset, batch))
        self.offset += len(batch)

    def state(self) -> GraphState:
        state = GraphState(ROLES, 1 << 9, Window(1 << 8, 90 * DAY_US))
        for events in self.events:
            state.apply(events)
        return state

    def described(self) -> list[dict[str, float]]:
        """Features of every payment, read when everything is known."""
        x = features(self.state().store.view, ROLES, np.arange(self.rows))
        return [dict(zip(NAMES, row.tolist(), strict=True)) for row in x]

    def beliefs(self, reader: int, back: int) -> tuple[float, float]:
        """Whether a reader saw a label on an earlier payment, and fraud."""
        view = self.state().store.view
        near = neighbours(view, np.array([reader]), 16)
        at = near[0, 0].tolist().index(back)
        tie = dict(zip(EDGE_FEATURES, edges(view, np.array([reader]), near)[0, 0, at].tolist(), strict=True))
        return tie["labelled"], tie["fraud"]


def test_a_late_payment_counts_from_its_arrival_and_keeps_its_own_time():
    replay = Replay()
    replay.pay(0, 10 * HOUR_US, HOUR_US, 10 * HOUR_US + 30 * MINUTE_US)
    _, second, late, last = replay.described()
    state = replay.state()
    assert (state.store.column("time") - START_US).tolist() == [0] + [10 * HOUR_US] * 2 + [
        10 * HOUR_US + 30 * MINUTE_US
    ]
    assert (state.store.raw_time(np.arange(4)) - START_US).tolist()[2] == HOUR_US
    assert late["account.gap"] == 0  # on journal time it came with the second
    assert late["account.count.1h"] == pytest.approx(math.log1p(1))
    assert late["account.count.24h"] == pytest.approx(math.log1p(2))
    assert late["payment.lateness"] == pytest.approx(math.log1p(9 * 3600))
    assert late["payment.hour_sin"] != pytest.approx(second["payment.hour_sin"])  # its own time of day
    day = (START_US + HOUR_US) % DAY_US / DAY_US * 2 * math.pi
    assert late["payment.hour_sin"] == pytest.approx(math.sin(day), abs=1e-6)
    assert last["account.count.1h"] == pytest.approx(math.log1p(2))  # the late one is among them
    assert last["payment.lateness"] == 0


def test_lateness_is_kept_to_the_millisecond_and_up_to_its_most():
    replay = Replay()
    replay.pay(0, 60 * DAY_US, 60 * DAY_US - 1499, 60 * DAY_US - 1500, 1)
    assert replay.state().store.column("late").tolist() == [0, 0, 1, 2, MAX_LATENESS_MS]
    assert replay.described()[4]["payment.lateness"] == pytest.approx(math.log1p(MAX_LATENESS_MS / 1000))


def test_a_label_moves_the_clock_that_later_payments_are_late_by():
    replay = Replay()
    replay.pay(0)
    replay.label(0, True, 5 * HOUR_US)
    replay.pay(2 * HOUR_US)
    assert replay.state().store.column("time").tolist() == [START_US, START_US + 5 * HOUR_US]
    assert replay.described()[1]["payment.lateness"] == pytest.approx(math.log1p(3 * 3600))


def test_a_label_is_seen_from_its_arrival_whatever_time_it_says():
    """Reported before the second payment, known only after it."""
    replay = Replay()
    replay.pay(0, HOUR_US)
    replay.label(0, True, MINUTE_US)
    replay.pay(2 * HOUR_US)
    assert replay.beliefs(1, 0) == (0, 0)
    assert replay.beliefs(2, 0) == (1, 1)
    assert replay.state().store.column("time")[2] == START_US + 2 * HOUR_US  # it does not turn the clock back


def test_a_reader_between_two_labels_sees_the_first_for_ever():
    replay = Replay()
    replay.pay(0)
    seen = []
    for fraud in (True, False, True, True, False):
        replay.pay(DAY_US)
        seen.append((1, int(fraud)))
        replay.label(0, fraud, DAY_US)
    replay.pay(DAY_US)
    assert replay.beliefs(1, 0) == (0, 0)
    assert [replay.beliefs(reader, 0) for reader in range(2, 7)] == seen
    found = replay.described()
    frauds = [math.expm1(x["account.fraud.7d"]) for x in found]
    labelled = [math.expm1(x["account.labelled.7d"]) for x in found]
    assert np.round(frauds).tolist() == [0, 0, 1, 0, 1, 1, 0]
    assert np.round(labelled).tolist() == [0, 0, 1, 1, 1, 1, 1]
    # The ring's known frauds, too, are those of the moment.
    assert replay.state().store.column("ring")[:, 2].tolist() == [0, 0, 1, 0, 1, 1, 0]


def test_of_two_labels_at_once_the_last_counts():
    replay = Replay()
    replay.pay(0)
    replay._add(Kind.LABEL, reports(["t0", "t0", "t0"], [True, False, True], [START_US + DAY_US] * 3))
    replay.pay(DAY_US)
    assert replay.beliefs(1, 0) == (1, 1)
    assert replay.state().store.column("ring")[1, 2] == 1


def test_a_label_that_comes_behind_a_newer_report_changes_nothing():
    """Reported on days 5, 2 and 5 again; then on day 9, and on day 5 once more: the newest report is believed."""
    replay = Replay()
    replay.pay(0)
    for fraud, day in ((True, 5), (False, 2), (False, 5), (True, 9), (False, 5)):
        replay.label(0, fraud, day * DAY_US)
        replay.pay(10 * DAY_US)
    assert [replay.beliefs(reader, 0) for reader in range(1, 6)] == [(1, 1), (1, 1), (1, 0), (1, 1), (1, 1)]
    assert replay.state().store.column("ring")[:, 2].tolist() == [0, 1, 1, 0, 1, 1]
    assert replay.state().store.labels["fraud"].tolist() == [1, 0, 1]  # what can never be believed is not kept


def test_a_label_of_a_payment_that_is_not_there_changes_nothing():
    replay = Replay()
    replay.pay(0)
    replay.label(7, True, HOUR_US)
    replay.pay(HOUR_US)
    state = replay.state()
    assert len(state.store.labels) == 0
    assert state.store.offsets.of(np.arange(2)).tolist() == [0, 2]  # it has its place in the journal all the same


@pytest.mark.parametrize("seed", range(3))
def test_what_a_payment_sees_is_the_same_at_its_arrival_and_for_ever_in_any_batch(seed):
    """With late payments, late labels, labels of labels: read as it arrives, and later, and from batches."""
    journal = list(sharing(seed, 1200, labels=0.6, reach=60, overdue=0.3))
    states = []
    arrived = []
    for group in (1, 7, 64):
        state = GraphState(ROLES, 1 << 11, Window(400, 20 * DAY_US))
        for events in journal:
            for i in range(0, len(events.batch), group):
                rows = state.apply(Events(events.kind, events.offset + i, events.batch.slice(i, group)))
                if group == 1 and rows:
                    arrived.append(features(state.store.view, ROLES, np.array(rows)))
        states.append(state)
    rows = np.arange(1200)
    for state in states:
        np.testing.assert_array_equal(features(state.store.view, ROLES, rows), np.concatenate(arrived))
        for name in set(state.store.row_data.dtype.names) - {"entity"}:  # numbers are given out role by role in a batch
            np.testing.assert_array_equal(state.store.column(name), states[0].store.column(name))
        assert state.store.labels.tobytes() == states[0].store.labels.tobytes()
    frauds = np.concatenate(arrived)[:, [NAMES.index("device.fraud.30d"), NAMES.index("ring.frauds")]]
    assert (frauds > 0).any(0).all()
    assert (states[0].store.labels["before"] >= 0).sum() > 100  # revised


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(3, 60), st.sampled_from([0.02, 0.3, 1]))
def test_beliefs_survive_compaction_and_labels_stay_bounded(seed, capacity, compacted):
    """Every reader's belief in every row that is held, against the plain reference; events of lost rows go."""
    rng = np.random.default_rng(seed)
    state = GraphState(ROLES, capacity, Window(capacity - 2, 90 * DAY_US))
    store = state.store
    store.label_data = store.label_data[:8].copy()  # so that it fills at once
    plain = PlainGraph((0, 1, 2, 3), store.window)
    while store.rows < 5 * capacity:
        n = int(rng.integers(1, min(4, capacity)))
        entities = {"account": [1] * n, "merchant": [1] * n}
        state.apply(Events(Kind.TRANSACTION, state.applied, payments(store.rows, entities, [START_US] * n, [1] * n)))
        for _ in range(n):
            plain.append((1, 1, -1, -1), START_US, 1)
        n = int(rng.integers(0, 6))
        rows, fraud = rng.integers(max(0, store.rows - 2 * capacity), store.rows, n), rng.random(n) < 0.5
        times = START_US - rng.integers(0, 4, n)
        state.apply(Events(Kind.LABEL, state.applied, reports([f"t{row}" for row in rows], fraud, times)))
        for row, is_fraud, time in zip(rows.tolist(), fraud.tolist(), times.tolist(), strict=True):
            plain.label(row, int(is_fraud), time)
        if rng.random() < compacted:
            before = store.labels.copy()
            store._compact(0)
            kept = before["row"] >= store.oldest
            for name in ("row", "seen_from", "time", "fraud"):
                np.testing.assert_array_equal(store.labels[name], before[name][kept])
    for row in range(store.oldest, store.rows):
        for reader in range(row + 1, store.rows):
            expected = plain.believed(row, plain.rows[reader].offset)
            assert believed(store.view, row % capacity, reader) == expected
    held = sum(_newest_so_far(plain.rows[row].labels) for row in range(store.oldest, store.rows))
    assert held <= store.label_count <= len(store.label_data) < 4 * 5 * capacity + 64


def _newest_so_far(labels: list[tuple[int, int, int]]) -> int:
    """How many labels were the newest report of their payment when they came."""
    return sum(all(time >= before for before, *_ in labels[:n]) for n, (time, *_) in enumerate(labels))


def test_labels_of_ever_new_payments_need_no_more_room():
    state, lengths = GraphState(ROLES, 331, Window(300, 90 * DAY_US)), []
    for events in sharing(0, 9000, labels=2 / 3, reach=330):
        state.apply(events)
        lengths.append(len(state.store.label_data))
    assert lengths[-1] == lengths[len(lengths) // 3] <= 2048
    assert state.applied > 14_000
