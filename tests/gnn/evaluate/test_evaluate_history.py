"""A data scientist's five lines: read, train, evaluate; the same from files, a folder, a journal and tables."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from data.errors import DataError
from data.journal.sqlite import SqliteJournal
from data.world.synthetic import WorldConfig, simulate
from gnn.errors import ModelError

DAY = datetime(2026, 2, 20, tzinfo=UTC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("world")
    simulate(WorldConfig(transactions=8_000, seed=3, days=60)).write(made)
    return made


def test_read_train_evaluate_in_five_lines(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ringwatch import History, TrainConfig, evaluate, train

    quick = TrainConfig(epochs=1, pretraining=0, test=0.0)
    # As the documents have it:
    history = History.read(folder)  # or two files, or a service's journal, or History.from_arrow(...)
    artifact = train(history.before(DAY), quick, {"width": 8, "heads": 2, "neighbours": 4})
    metrics = evaluate(artifact, history, start=DAY)

    assert artifact.facts["training"]["train"]["to"] < str(DAY)
    time = np.array(history.payments["timestamp"].to_pylist())
    assert metrics.payments == (time >= DAY).sum()
    # The same from wherever it is read.
    with SqliteJournal(folder / "journal.sqlite") as journal:
        for kind, batch in history.runs():
            with journal.begin() as commit:
                commit.append(kind, batch)
    tables = (pq.read_table(folder / f"{name}.parquet") for name in ("transactions", "labels"))
    for again in (History.read(folder / "journal.sqlite"), History.from_arrow(*tables)):
        assert evaluate(artifact, again, start=DAY) == metrics
        assert train(again.before(DAY), quick, {"width": 8, "heads": 2, "neighbours": 4}).sha256 == artifact.sha256
    # Judged up to a moment: reading no further comes to the same.
    stop = datetime(2026, 2, 27, tzinfo=UTC)
    week = evaluate(artifact, history, start=DAY, stop=stop)
    assert evaluate(artifact, History.read(folder, stop=stop), start=DAY) == week
    assert week.payments < metrics.payments
    # The truth of a world judges in place of labels, and names the kinds of rings.
    truly = evaluate(artifact, history, start=DAY, truth=folder / "truth.parquet")
    assert truly.frauds >= metrics.frauds
    assert truly.recall_by_kind
    assert not metrics.recall_by_kind
    for nonsense, error in (
        ({"protocol": "book"}, ModelError),
        ({"start": datetime(2031, 1, 1, tzinfo=UTC)}, ModelError),
        ({"truth": folder / "none.parquet"}, DataError),
        ({"stop": datetime(2026, 2, 27)}, DataError),
    ):
        with pytest.raises(error):
            evaluate(artifact, history, **nonsense)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="no payment to learn from"):
        train(history.before(datetime(2001, 1, 1, tzinfo=UTC)), replace(quick, seed=1))
