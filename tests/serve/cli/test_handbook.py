"""The Handbook's payments through a running service by one command: its HTTP answers are those of `evaluate`."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from data.files.datasets import handbook
from data.history import History
from gnn.evaluate.evaluate import evaluate
from gnn.model.artifact import load
from gnn.score.replay import score_history
from tests.data.files.test_datasets import dataset
from tests.serve.cli.test_cli import ringwatch

EARLY, TRAINED, FIRST = (datetime(2018, month, day, tzinfo=UTC) for month, day in ((7, 4), (8, 1), (8, 8)))
LAST = FIRST + timedelta(hours=14)


@pytest.mark.ray
def test_handbook_through_the_service_equals_evaluate(tmp_path: Path) -> None:
    transactions, labels = handbook(dataset("handbook/transactions_raw_to_08-31.parquet"))
    # Five weeks of every tenth customer: the whole of it is benchmarks/handbook_service.py.
    every_tenth = pc.equal(pc.utf8_slice_codeunits(transactions["account_id"], -1), "7")
    time = transactions["timestamp"]
    kept = pc.and_(every_tenth, pc.and_(pc.greater_equal(time, pa.scalar(EARLY)), pc.less(time, pa.scalar(LAST))))
    transactions = transactions.filter(kept)
    labels = labels.filter(pc.is_in(labels["transaction_id"], transactions["transaction_id"]))
    files = {"--transactions": tmp_path / "t.parquet", "--labels": tmp_path / "l.parquet"}
    for table, path in zip((transactions, labels), files.values(), strict=True):
        pq.write_table(table, path)

    given = ["--train-until", str(TRAINED), "--from", str(FIRST), "--until", str(LAST), "--protocol", "handbook"]
    words = [word for pair in files.items() for word in pair]
    done = ringwatch("demo", *words, *given, "--epochs", "1", "--out", tmp_path / "demo")
    assert done.returncode == 0, done.stderr

    answered = pq.read_table(tmp_path / "demo" / "answers.parquet")
    online = json.loads((tmp_path / "demo" / "metrics.json").read_text())
    model, history = load(tmp_path / "demo" / "model"), History.read(*files.values(), stop=LAST)
    offline = evaluate(model, history, start=FIRST, protocol="handbook")
    assert 300 < offline.payments == online["payments"]
    assert offline.frauds == online["frauds"] > 0
    for name in ("average_precision", "roc_auc", "card_precision_at_100"):
        assert online[name] == pytest.approx(getattr(offline, name), abs=1e-5), name
    probability = score_history(model, history)
    np.testing.assert_allclose(answered["fraud_probability"].to_numpy(), probability, rtol=0, atol=1e-5)
    assert answered["transaction_id"].to_pylist() == transactions["transaction_id"].to_pylist()
    trained = model.facts["training"]["train"]
    assert trained["to"] < str(TRAINED)
    assert (
        f"{len(transactions.filter(pc.greater_equal(transactions['timestamp'], pa.scalar(FIRST)))):,} payments sent"
        in done.stdout
    )
