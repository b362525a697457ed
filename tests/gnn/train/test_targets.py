"""Which payments teach, choose and judge, by what labels a history has."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from data.history import History
from data.journal.protocol import Kind
from gnn.errors import ModelError
from gnn.evaluate.protocols import selection
from gnn.score.replay import capacity_for
from gnn.train.regimes import AT_ONCE, BOTH_CLASSES, FRAUDS_ONLY, PARTLY
from gnn.train.targets import TrainConfig, choosing_from, make_targets
from graph.dag.protocol import DAY_US, Window
from graph.state import GraphState
from tests.odd_histories import ORDINARY, Odd

MORE = {"payments": 6_000}
REGIMES = {
    "frauds only": FRAUDS_ONLY,
    "frauds only, reports end with the payments": FRAUDS_ONLY,
    "both classes, cleared after 6 days": BOTH_CLASSES,
    "both classes, cleared after 30 days": BOTH_CLASSES,
    "both classes, cleared after 30 days, reports end with the payments": BOTH_CLASSES,
    "known at once": AT_ONCE,
    "partly labelled": PARTLY,
}


def made(odd: Odd) -> tuple[History, GraphState, np.ndarray]:
    payments, labels, fraud = odd.draw()
    history = History.from_arrow(pa.Table.from_batches([payments]), pa.Table.from_batches([labels]))
    state = GraphState(history.roles, capacity_for(len(history), Window(1 << 13)), Window(1 << 13))
    for events in history.events:
        state.apply(events)
    return history, state, fraud


def reported(history: History, state: GraphState) -> np.ndarray:
    """When each payment's label came, int64 [n]; never is the end of time."""
    out = np.full(state.store.rows, np.iinfo(np.int64).max)
    labels = history.to_arrow()[1].combine_chunks()
    rows = state.transaction_rows(labels["transaction_id"].combine_chunks())
    out[rows] = labels["reported_at"].cast(pa.int64()).to_numpy()
    return out


@pytest.mark.parametrize("name", REGIMES)
def test_windows_hold_both_classes_in_their_true_shares_and_nothing_of_later(name: str) -> None:
    history, state, fraud = made(replace(ORDINARY[name], **MORE))
    targets = make_targets(state, TrainConfig())
    assert targets.regime == REGIMES[name]
    assert targets.settled == (targets.regime in (FRAUDS_ONLY, BOTH_CLASSES))
    time, came = state.store.column("time"), reported(history, state)
    for part in (targets.train, targets.validation, targets.test):
        chance = 3 * (fraud.mean() / len(part)) ** 0.5
        assert targets.fraud[part].mean() == pytest.approx(fraud.mean(), rel=0.15, abs=chance)
    assert time[targets.train].max() < time[targets.validation].min()
    test_start = time[targets.test].min()
    taught = np.concatenate([targets.train, targets.validation])
    assert time[taught].max() <= test_start - targets.label_delay_us
    known = came[taught] < test_start
    assert not targets.fraud[taught][~known].any()  # what was reported later is not known
    np.testing.assert_array_equal(targets.fraud[taught][known], fraud[taught][known])
    if not targets.settled:
        assert known.all()
    # The newest weeks teach, however late honest payments are cleared.
    assert test_start - time[taught].max() < 12 * DAY_US


@pytest.mark.parametrize("name", REGIMES)
def test_the_test_is_a_share_of_the_payments_that_can_be_judged(name: str) -> None:
    history, state, _ = made(replace(ORDINARY[name], **MORE))
    for share in (0.15, 0.3):
        targets = make_targets(state, TrainConfig(test=share))
        whole = make_targets(state, TrainConfig(test=0.0))
        usable = np.concatenate([whole.train, whole.validation])
        assert len(targets.test) == pytest.approx(share * len(usable), rel=0.1)
        assert len(targets.validation) == pytest.approx(
            0.12 * (len(targets.validation) + len(targets.train)), rel=0.02, abs=2
        )
    assert not len(whole.test)
    # What judges a model later agrees on what can be judged.
    chosen = np.flatnonzero(selection(history.labelled()))
    assert len(np.setdiff1d(usable, chosen)) <= 0.02 * len(usable)
    known = history.labelled()
    assert known.fraud[chosen].mean() == pytest.approx(known.fraud[usable].mean(), rel=0.1)


def test_frauds_that_are_few_are_parted_between_learning_and_choosing() -> None:
    fraud = np.zeros(200, np.float32)
    fraud[[3, 40, 80]] = 1
    assert choosing_from(fraud, 0.12) == 80
    fraud[[100, 120, 140, 150, 160, 199]] = 1
    assert choosing_from(fraud, 0.12) == 160  # a quarter of nine
    assert choosing_from(np.ones(400, np.float32), 0.12) == 352
    assert choosing_from(np.zeros(10, np.float32), 0.12) == 0


def test_an_option_says_from_which_age_on_a_missing_label_counts() -> None:
    odd = Odd(payments=2_000, days=20, labels=0.4, known=0.6, honest_days=25, cut=False)
    _, state, fraud = made(odd)
    targets = make_targets(state, TrainConfig(settle_days=5))
    assert (targets.settle_days, targets.regime) == (5, FRAUDS_ONLY)
    rows = np.concatenate([targets.train, targets.validation])
    assert len(rows) == rows[-1] + 1
    assert 0.2 * fraud.mean() < targets.fraud[rows].mean() < fraud.mean()


def test_cautions_name_few_frauds() -> None:
    _, state, _ = made(Odd(payments=600, frauds=30))
    said = make_targets(state, TrainConfig()).cautions
    assert len(said) == 2
    assert "known frauds in the validation window" in said[0]
    assert "in the test window" in said[1]
    assert len(make_targets(state, TrainConfig(test=0.0)).cautions) == 1
    _, state, _ = made(Odd(payments=6_000))
    assert make_targets(state, TrainConfig()).cautions == ()


def test_what_is_too_little_names_the_options() -> None:
    for odd in (Odd(payments=200, frauds=1), Odd(payments=200, frauds=200)):
        _, state, _ = made(odd)
        with pytest.raises(ModelError, match=r"--test 0.*--settle-days"):
            make_targets(state, TrainConfig())
    _, state, _ = made(Odd(payments=300, days=5, frauds=40, fraud_days=6, cut=True))
    with pytest.raises(ModelError, match="days until they have come"):
        make_targets(state, TrainConfig(label_delay_days=20))


def test_an_overturned_report_is_no_class_of_its_own() -> None:
    payments, labels, _ = Odd(payments=2_000).draw()
    back = labels.slice(0, 30)
    columns = [back.column(0), pa.array([False] * 30), back.column(2)]
    taken = pa.RecordBatch.from_arrays(columns, schema=labels.schema)
    history = History([(Kind.TRANSACTION, payments), (Kind.LABEL, labels), (Kind.LABEL, taken)])
    state = GraphState(history.roles, 1 << 14, Window(1 << 13))
    for events in history.events:
        state.apply(events)
    assert make_targets(state, TrainConfig(test=0, label_delay_days=1)).regime == FRAUDS_ONLY
