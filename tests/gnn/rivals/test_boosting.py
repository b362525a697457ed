"""Rivals: what they read cannot see the future, they learn from the model's own rows, and all are judged alike."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import average_precision_score

from data.history import History
from data.journal.protocol import Events, Kind
from data.schema import LABEL_SCHEMA, TRANSACTION_SCHEMA
from gnn.errors import ModelError
from gnn.evaluate.evaluate import evaluate
from gnn.model.artifact import load
from gnn.rivals import snapml
from gnn.rivals.boosting import INPUT_SETS, categories, fit_rivals, input_names, raw_history, rival_inputs
from gnn.rivals.comparison import OURS, as_table, as_the_model, compare, cut, to_dict
from gnn.rivals.snapml import installed
from gnn.train.boosted_trees import BoostingConfig, Setting, fit_trees, sample_training_rows
from gnn.train.sklearn_private import tree_nodes
from gnn.train.targets import TrainConfig, make_targets
from gnn.train.trainer import train
from graph.dag.protocol import Window
from graph.dag.sampler import neighbours
from graph.state import GraphState
from tests.gnn.train.test_train import built, history
from tests.serve.cli.test_cli import ringwatch
from tests.world import label_batch, payment_batch

K = 4
QUICK = BoostingConfig(settings=(Setting(leaves=7, rows=20), Setting(7, 20, 0.25)), trees=50, negatives=5, neighbours=K)
UNTIL, FIRST = datetime(2026, 2, 15, tzinfo=UTC), datetime(2026, 2, 16, tzinfo=UTC)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A history of sixty days, and a model of its first 45."""
    folder = tmp_path_factory.mktemp("rivals")
    runs, _ = history()
    paths = {"transactions": folder / "t.parquet", "labels": folder / "l.parquet", "model": folder / "model"}
    for kind, name, schema in (
        (Kind.TRANSACTION, "transactions", TRANSACTION_SCHEMA),
        (Kind.LABEL, "labels", LABEL_SCHEMA),
    ):
        pq.write_table(pa.Table.from_batches([b for k, b in runs if k is kind], schema), paths[name])
    shape = {"width": 8, "heads": 2, "hidden": 16, "neighbours": K}
    config = TrainConfig(epochs=2, test=0, negatives=10)
    train(History.read(paths["transactions"], paths["labels"], stop=UNTIL), config, shape).save(paths["model"])
    return paths


@pytest.mark.parametrize("inputs", INPUT_SETS)
def test_inputs_are_named_and_never_change_when_more_becomes_known(inputs: str) -> None:
    runs, _ = history()
    early = built(runs[: len(runs) // 2])
    rows = np.arange(0, early.store.rows, 17)
    before = rival_inputs(early, rows, inputs, K)
    names = input_names(early.store.roles, inputs, K)
    assert before.shape == (len(rows), len(names))
    assert len(set(names)) == len(names)
    assert categories(early.store.roles, inputs, K).sum() == 4
    late = built(runs)
    payments = next(batch for kind, batch in runs if kind is Kind.TRANSACTION)
    late.apply(Events(Kind.LABEL, late.applied, label_batch(payments, [0, 17], [True, True], delay_us=10**13)))
    np.testing.assert_array_equal(rival_inputs(late, rows, inputs, K), before)
    if inputs.endswith("history"):
        of = [i for i, name in enumerate(names) if name.split(".")[1].isdigit()]
        each = len(of) // len(early.store.roles) // K
        missing = np.repeat(neighbours(early.store.view, rows, K).reshape(len(rows), -1) < 0, each, 1)
        np.testing.assert_array_equal(np.isnan(before[:, of]), missing)
        assert missing.any()
    else:
        assert not np.isnan(before).any()


def test_the_raw_history_is_what_a_search_through_all_payments_finds() -> None:
    roles, k, window = ("account", "merchant", "device"), 3, 150
    state = GraphState(roles, 1 << 10, Window(window))
    payments = payment_batch(300, 1, 40, 20, 20)
    state.apply(Events(Kind.TRANSACTION, 0, payments))
    rows = np.array([0, 7, 120, 299])
    time, amount = payments["timestamp"].cast("int64").to_pylist(), payments["amount"].to_pylist()
    expected = np.full((len(rows), len(roles), k, 2), np.nan)
    for b, row in enumerate(rows):
        for r, role in enumerate(roles):
            of = payments[f"{role}_id"].to_pylist()
            newer = row
            same = [i for i in range(max(0, row - window), row) if of[i] is not None and of[i] == of[row]]
            for n, i in enumerate(same[::-1][:k]):
                expected[b, r, n] = amount[i], (time[newer] - time[i]) / 1e6
                newer = i
    assert np.isfinite(expected).any(axis=(0, 2, 3)).all()
    np.testing.assert_allclose(raw_history(state.store, rows, k), expected, rtol=1e-6)


@pytest.mark.skipif(not installed(), reason="snapml is not installed: a proprietary package that only this rival needs")
def test_snap_ml_sees_no_later_payment() -> None:
    runs, _ = history()
    early, late = built(runs[: len(runs) // 2]), built(runs)
    rows = np.arange(0, early.store.rows, 7)
    before = snapml.snapml_inputs(early, rows)
    assert before.shape[1] > rival_inputs(early, rows, "columns", K).shape[1]
    assert np.nanstd(before, 0).max() > 0
    np.testing.assert_array_equal(snapml.snapml_inputs(late, rows), before)
    # One payment more: what was computed for the graph before does not stand for it.
    assert len(snapml.snapml_inputs(late, np.array([late.store.rows - 1]))) == 1


def test_they_are_grown_anew_with_what_chose_them_and_leave_out_what_they_are_told_to() -> None:
    state = built(history()[0])
    targets = make_targets(state, TrainConfig(test=0.25))
    whole, apart = (
        fit_rivals(state, targets, replace(QUICK, refit=r, without=("payment.amount",))) for r in (True, False)
    )
    for one, other in zip(whole, apart, strict=True):
        assert one.facts == other.facts  # chosen alike
        if isinstance(one.model, HistGradientBoostingClassifier):
            grown, chosen = (tree_nodes(m.model) for m in (one, other))
            assert len(grown) == len(chosen) == one.facts["trees"]
            assert grown[0][0]["count"] > chosen[0][0]["count"]
        x = rival_inputs(state, targets.validation, one.inputs, K)
        other_amounts = x.copy()
        other_amounts[:, input_names(state.store.roles, one.inputs, K).index("payment.amount")] += 5
        np.testing.assert_array_equal(one.model.decision_function(other_amounts), one.model.decision_function(x))


def test_they_are_learnt_as_the_model_was(files: dict[str, Path]) -> None:
    artifact = load(files["model"])
    assert as_the_model(artifact, QUICK) == QUICK
    settings = artifact.facts["training"]["config"]
    settings |= {"refit": False, "without": ["payment.hour"]}  # as JSON gives it back
    assert as_the_model(artifact, QUICK) == replace(QUICK, refit=False, without=("payment.hour",))
    del settings["refit"], settings["without"]
    assert not as_the_model(artifact, QUICK).refit


def test_they_learn_from_all_frauds_of_the_training_rows_and_a_draw_of_the_rest() -> None:
    targets = make_targets(built(history()[0]), TrainConfig(test=0.25))
    rows = sample_training_rows(targets, BoostingConfig(negatives=3, least=0))
    fraud = targets.fraud[rows] > 0
    assert np.isin(rows, targets.train).all()
    assert (np.diff(rows) > 0).all()
    assert fraud.sum() == (targets.fraud[targets.train] > 0).sum()
    assert (~fraud).sum() == 3 * fraud.sum()
    more = sample_training_rows(targets, BoostingConfig(negatives=3, least=1_000))
    assert (targets.fraud[more] > 0).sum() == fraud.sum()
    assert (targets.fraud[more] == 0).sum() == 1_000


def test_validation_chooses_the_setting_and_the_number_of_trees() -> None:
    rng = np.random.default_rng(0)

    def part(n: int) -> tuple[np.ndarray, np.ndarray]:
        x = rng.normal(size=(n, 4)).astype(np.float32)
        return x, rng.random(n) < 1 / (1 + np.exp(3 - 2 * x[:, 0] * x[:, 1]))

    (x, y), (v, known) = part(4000), part(2000)
    y[:1000] = ~y[:1000]  # what was so long ago misleads: the setting that leaves it out must win
    blunt = Setting(rows=10**6)
    config = BoostingConfig(settings=(blunt, Setting(15, 20), Setting(15, 20, 0.25)), trees=200, step=10)
    model, facts = fit_trees(x, y, v, known, config)
    assert facts["burn_in"] == 0.25
    assert facts["trees"] == model.n_iter_ < 200
    assert facts["validation_ap"] == pytest.approx(average_precision_score(known, model.decision_function(v)))
    assert facts["validation_ap"] > 2 * known.mean()


def test_columns_without_values_and_a_burn_in_without_frauds_are_left_out() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 4)).astype(np.float32)
    y = rng.random(400) < 1 / (1 + np.exp(-3 * x[:, 0]))
    x[:, 1], x[5:, 2], x[:, 3] = np.nan, np.nan, 7.0  # empty, nearly so, and never varying
    v, known = x.copy(), y.copy()
    v[:, 1:] = rng.normal(size=(400, 3))  # filled later: nobody has learnt what it means
    model, facts = fit_trees(x, y, v, known, replace(QUICK, settings=(Setting(7, 20),)))
    assert facts["validation_ap"] > 0.8
    assert {int(f) for tree in tree_nodes(model) for f in tree["feature_idx"][tree["is_leaf"] == 0]} == {0}
    early = np.arange(400) < 40  # all frauds lie in what would be left out
    model, _ = fit_trees(x, early, v, early, replace(QUICK, settings=(Setting(7, 20, 0.25),)))
    assert np.isfinite(model.decision_function(v)).all()


def test_events_are_cut_where_the_training_ended() -> None:
    runs, _ = history()
    events = History(runs).events
    middle = events[5].offset + 3
    for offset in (0, middle, events[5].offset, events[-1].offset + len(events[-1].batch)):
        early, late = cut(events, offset)
        first, second = list(early), list(late)
        assert sum(len(e.batch) for e in first) == offset
        rebuilt = pa.concat_batches([e.batch for e in [*first, *second] if e.kind is Kind.TRANSACTION])
        assert rebuilt.equals(pa.concat_batches([b for kind, b in runs if kind is Kind.TRANSACTION]))
        assert all(e.offset >= offset for e in second)


def test_all_are_judged_on_the_same_payments(files: dict[str, Path]) -> None:
    rules = {"by amount": lambda s, rows: s.store.column("amount", rows) / 1e6}
    model, whole = load(files["model"]), History.read(files["transactions"], files["labels"])
    found = compare(model, whole, start=FIRST, config=QUICK, rules=rules)
    alone = evaluate(model, whole, start=FIRST)
    assert found.metrics[OURS] == alone
    assert list(found.metrics)[:2] == [OURS, "by amount"]
    assert len(found.metrics) == 8 + installed()
    assert len({(m.payments, m.frauds) for m in found.metrics.values()}) == 1
    ap = {name: m.average_precision for name, m in found.metrics.items()}
    # Fraud comes from three merchants, so columns of the payment alone say nothing, and reported labels say it all.
    assert ap["trees: columns"] < 0.25 < 0.5 < ap["trees: features"]
    assert {"trees", "validation_ap"} <= set(found.facts["trees: features"])
    written = json.loads(json.dumps(to_dict(found)))
    assert written["average_precision"] == written["against"][OURS]["average_precision"] == alone.average_precision
    assert as_table(found).row_count == 8 + installed()
    assert (snapml.RIVAL_NAME in found.metrics) == installed()


def test_rivals_are_refused_what_the_model_did_not_have(files: dict[str, Path], tmp_path: Path) -> None:
    model, whole = load(files["model"]), History.read(files["transactions"], files["labels"])
    with pytest.raises(ModelError, match="evaluate from then on"):
        compare(model, whole, start=datetime(2026, 2, 10, tzinfo=UTC), config=QUICK)
    shorter = pq.read_table(files["transactions"]).slice(50)
    pq.write_table(shorter, tmp_path / "t.parquet")
    with pytest.raises(ModelError, match="rivals need the same"):
        compare(model, History.read(tmp_path / "t.parquet", files["labels"]), start=FIRST, config=QUICK)
    with pytest.raises(ModelError, match="no payment is later"):
        compare(model, whole, stop=UNTIL, config=QUICK)


def test_the_command_prints_one_table_and_writes_json(files: dict[str, Path], tmp_path: Path) -> None:
    words = [word for name, path in files.items() for word in (f"--{name}", path)]
    done = ringwatch("evaluate", *words, "--from", str(FIRST), "--against", "--json", tmp_path / "m.json")
    assert done.returncode == 0, done.stderr
    for name in ("ringwatch", "rules", "logistic", *(f"trees: {inputs}" for inputs in INPUT_SETS)):
        assert name in done.stdout
    assert len(json.loads((tmp_path / "m.json").read_text())["against"]) == 8 + installed()
