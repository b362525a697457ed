"""Prequential evaluation: every week has a model that was trained before it, and its figures are `evaluate`'s."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.history import History
from data.journal.protocol import Kind
from data.schema import LABEL_SCHEMA, TRANSACTION_SCHEMA
from gnn.errors import ModelError
from gnn.evaluate.evaluate import evaluate
from gnn.quality.prequential import WEEK, draw, prequential
from gnn.train.targets import TrainConfig
from gnn.train.trainer import train
from tests.gnn.train.test_train import history
from tests.serve.cli.test_cli import ringwatch

FIRST = datetime(2026, 2, 8, tzinfo=UTC)
SHAPE = {"width": 8, "heads": 2, "hidden": 16, "neighbours": 4, "layers": 1}
QUICK = TrainConfig(epochs=2, negatives=10, pretraining=10)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("weeks")
    runs, _ = history()
    paths = folder / "t.parquet", folder / "l.parquet"
    for path, kind, schema in zip(
        paths, (Kind.TRANSACTION, Kind.LABEL), (TRANSACTION_SCHEMA, LABEL_SCHEMA), strict=True
    ):
        pq.write_table(pa.Table.from_batches([b for k, b in runs if k is kind], schema), path)
    return paths


def test_each_week_is_judged_by_a_model_trained_before_it(files: tuple[Path, Path], tmp_path: Path) -> None:
    found = prequential(History.read(*files), first=FIRST, weeks=3, every=2, config=QUICK, shape=SHAPE)
    assert [week.start for week in found] == [FIRST, FIRST + WEEK, FIRST + 2 * WEEK]
    assert [week.trained for week in found] == [FIRST, FIRST, FIRST + 2 * WEEK]
    # The last week by hand, with the jobs that the service's operator has.
    begin = FIRST + 2 * WEEK
    config = TrainConfig(epochs=2, negatives=10, pretraining=10, test=0.0)
    model = train(History.read(*files, stop=begin), config, SHAPE)
    again = evaluate(model, History.read(*files), start=begin, stop=begin + WEEK, device="cpu")
    assert found[-1].metrics is not None
    assert found[-1].metrics.average_precision == pytest.approx(again.average_precision, abs=1e-12)
    assert found[-1].metrics.payments == again.payments
    draw(
        {"ours": {str(w.start.date()): w.metrics.average_precision for w in found if w.metrics}},
        tmp_path / "weeks.png",
        "ours",
    )
    assert (tmp_path / "weeks.png").stat().st_size > 5_000


def test_a_week_that_cannot_be_judged_does_not_undo_the_others(files: tuple[Path, Path]) -> None:
    known = History.read(*files)
    found = prequential(known, first=FIRST, weeks=5, every=5, config=QUICK, shape=SHAPE)
    assert [week.metrics is not None for week in found] == [True, True, True, False, False]
    assert "no payment to evaluate" in found[-1].reason
    with pytest.raises(ModelError, match="no week can be judged"):
        prequential(known, first=FIRST + 5 * WEEK, weeks=1, config=QUICK, shape=SHAPE)


def test_what_cannot_be_is_refused(files: tuple[Path, Path]) -> None:
    with pytest.raises(ModelError, match="at least 1"):
        prequential(History.read(*files), first=FIRST, weeks=0, config=QUICK)
    with pytest.raises(ModelError, match="protocol"):
        prequential(History.read(*files), first=FIRST, weeks=1, protocol="books", config=QUICK)
    with pytest.raises(ModelError, match="no payment to learn from"):
        prequential(History.read(*files), first=FIRST - timedelta(days=300), weeks=1, config=QUICK)


def test_the_command_shows_the_weeks(files: tuple[Path, Path], tmp_path: Path) -> None:
    shown = ringwatch(
        *("prequential", "--transactions", files[0], "--labels", files[1], "--first", "2026-02-15"),
        *("--weeks", "1", "--epochs", "1", "--picture", tmp_path / "w.png", "--json", tmp_path / "w.json"),
    )
    assert "2026-02-15" in shown.stdout
    assert (tmp_path / "w.png").exists()
    assert '"average_precision"' in (tmp_path / "w.json").read_text()
