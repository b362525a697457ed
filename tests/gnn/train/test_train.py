"""Training: what may teach, what may judge, and that it learns."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import average_precision_score

from data.files.sources import Run
from data.history import History
from data.journal.protocol import Events, Kind
from gnn.errors import ModelError
from gnn.model.artifact import Artifact
from gnn.score.replay import score_history
from gnn.train.targets import Targets, TrainConfig, make_targets
from gnn.train.trainer import fit, train
from graph.dag.features import feature_names
from graph.dag.protocol import DAY_US, Window
from graph.state import GraphState
from tests.world import label_batch, payment_batch

N, DAYS = 6000, 60


def history(honest_labels: float = 0.0) -> tuple[list[Run], np.ndarray]:
    """Sixty days in which frauds come from a few merchants: learnable from reported labels alone."""
    payments = payment_batch(N, seed=9, accounts=300, merchants=60, devices=200)
    start = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1e6)
    time = start + np.sort(np.random.default_rng(1).integers(0, DAYS * DAY_US, N))
    payments = payments.set_column(1, payments.schema.field(1), pa.array(time).cast(payments.schema.field(1).type))
    bad = np.isin(payments.column("merchant_id").to_pylist(), ["m3", "m7", "m20"])
    fraud = bad & (np.random.default_rng(2).random(N) < 0.7)
    reported = np.flatnonzero(fraud | (np.random.default_rng(3).random(N) < honest_labels))
    labels = label_batch(payments, reported, fraud[reported], delay_us=3 * DAY_US)
    label_time = labels.column("reported_at").cast(pa.int64()).to_numpy()
    runs: list[Run] = []
    for day in range(0, DAYS + 3, 1):
        low, high = start + day * DAY_US, start + (day + 1) * DAY_US
        i, j = np.searchsorted(time, [low, high])
        if j > i:
            runs.append((Kind.TRANSACTION, payments.slice(i, j - i)))
        i, j = np.searchsorted(label_time, [low, high])
        if j > i and day < DAYS:
            runs.append((Kind.LABEL, labels.slice(i, j - i)))
    return runs, fraud


def built(runs: list[Run]) -> GraphState:
    known = History(runs)
    state = GraphState(known.roles, 1 << 14, Window(1 << 13, 90 * DAY_US))
    for events in known.events:
        state.apply(events)
    return state


@pytest.fixture(scope="module")
def learnt() -> tuple[Artifact, np.ndarray, list[Run]]:
    runs, fraud = history()
    config = TrainConfig(epochs=8, test=0.25, negatives=15)
    return train(History(runs), config, {"width": 16, "hidden": 32, "neighbours": 8}), fraud, runs


def test_it_learns_and_its_layers_add_up(learnt):
    artifact, fraud, runs = learnt
    probability = score_history(artifact, History(runs))
    late = np.arange(N) >= int(0.76 * N)
    precision = average_precision_score(fraud[late], probability[late])
    assert precision > 0.5 > 5 * fraud[late].mean()
    assert abs(probability[late].mean() - fraud[late].mean()) < 0.02  # calibrated to the true base rate
    assert {e["layer"] for e in artifact.facts["training"]["epochs"]} == {1, 2}


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("cache", ["float32", "int8"])
def test_the_trainers_scores_are_those_of_the_service(cache: str, refit: bool) -> None:
    """The trainer computes a layer in PyTorch from its own arrays, labels and all; the service replays, in Numba.

    Both agree to 1e-4 in the log-odds, but where their rounding lies on both sides of a cut of a tree, or of a step of
    int8: that may move a few payments further, and no more of them.
    """
    runs, _ = history()
    config = TrainConfig(epochs=2, pretraining=10, test=0.25, negatives=15, refit=refit)
    artifact, logit = fit(History(runs), config, {"width": 16, "hidden": 32, "neighbours": 8, "cache": cache})
    served = artifact.calibration.logit(score_history(artifact, History(runs)))
    assert logit.std() > 0.5
    apart = np.abs(served - logit)
    assert np.mean(apart > 1e-4) < 0.005
    assert np.mean(apart) < 1e-3


def test_the_same_seed_gives_the_same_model(learnt):
    runs, _ = history()
    shape = {"width": 8, "heads": 2, "hidden": 16, "neighbours": 4}
    one, two = (train(History(runs), TrainConfig(epochs=1, seed=4), shape) for _ in range(2))
    assert one.version == two.version
    assert one.version != train(History(runs), TrainConfig(epochs=1, seed=5), shape).version


def test_a_refit_learns_from_the_payments_that_chose_as_well():
    """Large payments are frauds, too, but from those on."""
    runs, _ = history()

    def choose(state: GraphState, config: TrainConfig) -> Targets:
        targets, amount = make_targets(state, config), state.store.column("amount")
        late = np.arange(state.store.rows) >= targets.validation[0]
        return replace(targets, fraud=np.maximum(targets.fraud, late & (amount > 85_000)).astype(np.float32))

    state, apart = built(runs), {}
    amount = state.store.column("amount")
    large = amount > 85_000
    for refit in (False, True):
        config = TrainConfig(epochs=4, test=0.25, validation=0.4, negatives=5, refit=refit)
        artifact = train(History(runs), config, {"width": 8, "heads": 2, "hidden": 16, "neighbours": 4}, choose=choose)
        logit = artifact.calibration.logit(score_history(artifact, History(runs)))
        apart[refit] = float(logit[large].mean() - logit[~large].mean())
    assert apart[True] > 1 > 0.3 > apart[False]


def test_a_refit_is_calibrated_by_payments_too_young_to_be_labelled(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gnn.model.calibration.MIN_CALIBRATION_ROWS", 300)
    runs, _ = history()
    state = built(runs)
    config = TrainConfig(epochs=2, test=0, label_delay_days=5, negatives=5)
    young = slice(int(make_targets(state, config).validation[-1]) + 1, None)
    known, shape = History(runs), {"width": 8, "heads": 2, "neighbours": 4}
    first, again = (
        score_history(train(known, replace(config, refit=refit), shape), known)[young] for refit in (False, True)
    )
    assert len(first) > 300
    assert not np.allclose(first, again, rtol=0.01)
    assert again.mean() == pytest.approx(first.mean(), rel=1e-3)


def test_what_a_model_is_told_to_leave_out_never_enters_its_scores():
    runs, _ = history()
    shape = {"width": 8, "heads": 2, "hidden": 16, "neighbours": 4}
    artifact = train(History(runs), TrainConfig(epochs=1, test=0.25, without=("payment.hour", "ring.")), shape)
    names = feature_names(artifact.roles)
    without = [i for i, name in enumerate(names) if name.startswith(("payment.hour", "ring."))]
    assert len(without) == 5
    assert not artifact.net.scale[without].any()
    assert not np.isin(artifact.net.trees.feature, without).any()
    assert artifact.net.scale[names.index("payment.amount")] > 0
    with pytest.raises(ModelError, match=r"--without payment\.weather: no feature"):
        train(History(runs), TrainConfig(without=("payment.weather",)), shape)


@pytest.mark.parametrize("honest_labels", [0.0, 0.6])
def test_targets_respect_time_and_label_delay(honest_labels):
    runs, fraud = history(honest_labels)
    state = built(runs)
    targets = make_targets(state, TrainConfig(test=0.25))
    time = state.store.column("time")
    end = state.store.clock
    # Labels are applied at the end of a day here, three days and a part of one after their payments.
    assert 3 * DAY_US <= targets.label_delay_us <= 4 * DAY_US
    test_start = time[targets.test].min()
    assert targets.train.max() < targets.validation.min()
    assert (
        time[targets.validation].max() <= test_start - targets.label_delay_us < test_start <= time[targets.test].min()
    )
    assert time[targets.test].max() <= end - 3 * DAY_US
    # Frauds of the training part whose report came after the test began are not known to the model.
    for part in (targets.train, targets.validation):
        late = part[time[part] + 3 * DAY_US >= test_start]
        assert not targets.fraud[late].any()
    assert targets.fraud[targets.test].sum() == fraud[targets.test].sum()
    if honest_labels:  # no label is not "legitimate" where legitimate payments are labelled
        assert len(targets.train) < 0.95 * targets.train.max()


def test_an_overturned_label_teaches_what_was_believed_last():
    runs, _ = history()
    first = next(i for i, (kind, _) in enumerate(runs) if kind is Kind.LABEL)
    labels = runs[first][1]
    overturned = labels.set_column(1, labels.schema.field(1), pa.array([False] * len(labels)))
    runs.insert(first + 1, (Kind.LABEL, overturned))
    state = built(runs)
    rows = state.transaction_rows(labels.column("transaction_id"))
    assert not make_targets(state, TrainConfig()).fraud[rows].any()


def test_too_little_to_learn_from_is_said():
    payments = payment_batch(100)
    with pytest.raises(ModelError, match="labelled as fraud"):
        train(History([(Kind.TRANSACTION, payments)]))
    labels = label_batch(payments, [0], [True])
    with pytest.raises(ModelError, match="known frauds"):
        train(History([(Kind.TRANSACTION, payments), (Kind.LABEL, labels)]))


def test_a_payments_own_label_is_in_none_of_its_features():
    """Whenever it became known; `tests/gnn/quality/test_audit.py` plants leaks and sees them named."""
    runs, _ = history()
    state = built(runs)

    rows = np.arange(N)
    before = state.store.features(rows)
    state.apply(
        Events(
            Kind.LABEL,
            state.applied,
            label_batch(runs[0][1], [0], [True], delay_us=int(timedelta(days=99).total_seconds() * 1e6)),
        )
    )
    np.testing.assert_array_equal(state.store.features(rows), before)
