"""The model card: its parts add up, its intervals hold what they claim, and the command writes it."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import binom, norm
from sklearn.metrics import average_precision_score, roc_auc_score

from data.history import History
from data.world.synthetic import WorldConfig, simulate
from gnn.evaluate.evaluate import evaluate
from gnn.model.artifact import load
from gnn.quality.card import FEW, Card, bootstrap, make_card, markdown, slices
from gnn.train.targets import TrainConfig
from gnn.train.trainer import train
from serve.cli.main import app

FIRST, UNTIL = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("card")
    simulate(WorldConfig(transactions=20_000, seed=3)).write(folder)
    return {name: folder / f"{name}.parquet" for name in ("transactions", "labels", "truth")}


@pytest.fixture(scope="module")
def files(world: dict[str, Path]) -> dict[str, Path]:
    folder = world["truth"].parent
    shape = {"width": 8, "heads": 2, "hidden": 16, "neighbours": 4}
    config = TrainConfig(epochs=1, test=0)
    train(History.read(folder, stop=FIRST), config, shape).save(folder / "model")
    return {**world, "model": folder / "model"}


@pytest.fixture(scope="module")
def card(files: dict[str, Path]) -> Card:
    model, history = load(files["model"]), History.read(files["transactions"], files["labels"])
    return make_card(model, history, truth=files["truth"], start=FIRST, stop=UNTIL)


def test_the_cards_figures_are_those_of_evaluate(files: dict[str, Path], card: Card) -> None:
    history = History.read(files["transactions"], files["labels"], stop=UNTIL)
    assert card.metrics == evaluate(card.artifact, history, truth=files["truth"], start=FIRST)
    low, high = card.intervals["average precision"]
    assert low < card.metrics.average_precision < high


def test_slices_add_up_to_all_judged_payments(files: dict[str, Path], card: Card) -> None:
    by = {s.name: s for s in card.slices}
    for group in (["device known", "device missing"], [n for n in by if n.startswith("amount")]):
        assert sum(by[n].payments for n in group) == card.metrics.payments
        assert sum(by[n].frauds for n in group) == card.metrics.frauds
    truth = pq.read_table(files["truth"])
    kinds = {k for k, f in zip(truth["ring_kind"].to_pylist(), truth["is_fraud"].to_pylist(), strict=True) if k and f}
    of_a_kind = {n for n in by if n.startswith("ring kind")}
    assert len(of_a_kind) > 1
    assert of_a_kind <= {f"ring kind {k}" for k in kinds}
    new = by["first payment of its account"]
    assert 0 < new.payments < card.metrics.payments / 2


def test_the_intervals_hold_the_truth_in_95_of_100_data_sets_and_are_as_wide_as_that_asks() -> None:
    """Many data sets are drawn of one law, whose measures a far larger one tells; so few frauds are found by chance.

    How often the truth is inside can hardly be too often among 50; too wide an interval shows beside the spread of the
    estimates instead. Payments of one account go together: drawn one by one, they would give half of the width.
    """
    rng, data_sets = np.random.default_rng(0), 50

    def drawn(accounts: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        account = np.repeat(np.arange(accounts), 5)
        fraud = np.repeat(rng.random(accounts) < 0.2, 5)
        return rng.normal(1.2 * fraud + np.repeat(rng.normal(size=accounts), 5), 0.3), fraud, account

    measures = {"average precision": average_precision_score, "ROC AUC": roc_auc_score}
    score, fraud, _ = drawn(200_000)
    truth = {name: measure(fraud, score) for name, measure in measures.items()}
    samples = [drawn(400)[:2] for _ in range(400)]
    spread = {name: np.std([measure(fraud, score) for score, fraud in samples]) for name, measure in measures.items()}
    intervals = [bootstrap(*drawn(400), rounds=70, seed=seed) for seed in range(data_sets)]
    for name, true in truth.items():
        low, high = np.array([found[name] for found in intervals]).T
        assert np.sum((low <= true) & (true <= high)) >= binom.ppf(0.001, data_sets, 0.95), name
        assert 0.85 < np.mean(high - low) / (2 * norm.ppf(0.975) * spread[name]) < 1.15, name


def test_a_slice_with_few_frauds_has_no_average_precision_and_one_with_enough_has(world: dict[str, Path]) -> None:
    known = History.read(world["transactions"], world["labels"]).labelled(world["truth"])
    account = known.payments["account_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    probability = np.random.default_rng(0).random(len(known.payments))
    frauds = np.flatnonzero(known.fraud & known.payments["device_id"].is_valid().to_numpy())
    for count, said in ((FEW - 1, False), (FEW, True)):
        rows = np.sort(np.concatenate([frauds[:count], np.flatnonzero(~known.fraud)[:500]]))
        by = {s.name: s for s in slices(known, probability, rows, account)}
        assert by["device known"].frauds == count
        assert (by["device known"].average_precision is not None) == said
        assert by["device missing"].average_precision is None


def test_the_page_names_data_figures_slices_and_limits(card: Card) -> None:
    page = markdown(card)
    for said in (card.artifact.sha256, "## Data", "## Quality by group", "## Calibration", "## Limits", "| train |"):
        assert said in page
    assert f"{card.metrics.average_precision:.4f} (" in page
    assert "nan" not in page
    assert "Saerens" in page


def test_the_command_writes_it(files: dict[str, Path], card: Card, tmp_path: Path) -> None:
    words = [str(word) for name, path in files.items() for word in (f"--{name}", path)]
    with pytest.raises(SystemExit) as left:
        app(["card", *words, "--from", str(FIRST), "--until", str(UNTIL), "--out", str(tmp_path / "CARD.md")])
    assert left.value.code == 0
    assert (tmp_path / "CARD.md").read_text() == markdown(card)


def test_few_accounts_with_frauds_have_no_interval() -> None:
    rng = np.random.default_rng(0)
    account, score = np.repeat(np.arange(50), 4), rng.random(200)
    assert bootstrap(score, account < 9, account) == {}
    assert bootstrap(score, np.zeros(200, bool), account) == {}
    assert set(bootstrap(score, account < 10, account, rounds=5)) == {"average precision", "ROC AUC"}
