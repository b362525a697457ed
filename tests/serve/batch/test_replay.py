"""Replay equality: the service's answers over HTTP are those of re-scoring its journal, or the files that it was sent.

Calls of any size, in micro-batches of any kind, give the same scores; rings and answers survive a restart.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.files.sources import Run, merged
from data.history import numbered
from data.journal.protocol import Kind
from gnn.model.artifact import Artifact, untrained
from gnn.score.replay import open_model, score_events
from serve.cli.demo import as_sent, service
from serve.replica.admission import LabelCall, ScoreCall
from serve.replica.replica import Replica
from serve.stream.ingest import ingest_runs
from tests.serve.batch.test_rescore import scores
from tests.serve.cli.test_cli import ringwatch
from tests.serve.http.test_service import ROLES, settings
from tests.world import START_US, label_batch, payment_batch

DAY = 86_400_000_000


def history(folder: Path, n: int, entities: int, delays: dict[int, int]) -> tuple[Path, Path]:
    """Files of n payments and of labels, some of them overturned later.

    Args:
        folder: To write to.
        n: Payments.
        entities: Accounts, and devices.
        delays: Row of a labelled payment -> microseconds from it to its label.
    """
    payments = payment_batch(n, seed=4, accounts=entities, devices=entities)
    labels = [label_batch(payments, [row], [row % 3 > 0], delay) for row, delay in delays.items()]
    overturned = [
        label_batch(payments, [row], [row % 3 == 0], 2 * delay) for row, delay in delays.items() if row % 5 == 0
    ]
    pq.write_table(pa.Table.from_batches([payments]), folder / "t.parquet")
    pq.write_table(pa.Table.from_batches([*labels, *overturned]), folder / "l.parquet")
    return folder / "t.parquet", folder / "l.parquet"


@pytest.mark.ray
def test_answers_over_http_equal_rescoring_and_survive_a_restart(tmp_path: Path) -> None:
    model, journal, out = tmp_path / "model", tmp_path / "journal.sqlite", tmp_path / "out"
    untrained(ROLES, neighbours=6).save(model)
    transactions, labels = history(tmp_path, 5000, 2500, dict.fromkeys(range(0, 4000, 90), DAY // 8))
    runs = list(merged(transactions, labels))
    assert sum(kind is Kind.LABEL for kind, _ in runs) > 20
    online: list[float] = []
    with service(model, journal) as client:
        one_by_one = runs[:9]
        for kind, batch in one_by_one:
            if kind is Kind.LABEL:
                client.label_many(batch)
            else:
                answers = [client.score(payment) for payment in as_sent(batch)]
                online += [answer["fraud_probability"] for answer in answers]
        ingest_runs(client, runs[9:], lambda table: online.extend(table["fraud_probability"].to_pylist()))
        rings = client.ties(limit=1000, as_of=START_US)  # the past: of the newest event
        assert len(rings) > 1
    with service(model, journal) as client:  # another process, which has only the journal
        assert client.ties(limit=1000, as_of=START_US) == rings
        for ring in rings:
            by_id = client.tie(ring["id"], as_of=START_US)
            assert by_id == ring
        last = [batch for kind, batch in one_by_one if kind is Kind.TRANSACTION][-1]
        assert client.score(as_sent(last)[-1]) == answers[-1]
    for source in (["--journal", journal], ["--transactions", transactions, "--labels", labels]):
        done = ringwatch("rescore", "--model", model, "--out", out, *source, "--actors", "2", "--restart")
        assert done.returncode == 0, done.stderr
        found = scores(out)
        assert found["transaction_id"].to_pylist() == pq.read_table(transactions)["transaction_id"].to_pylist()
        np.testing.assert_allclose(found["fraud_probability"].to_numpy(), online, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def long_history(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Run], np.ndarray]:
    """More than 4,096 payments between two labels, labels around them; and the scores of a replay of the files."""
    folder = tmp_path_factory.mktemp("history")
    delays = dict.fromkeys(range(0, 200, 9), DAY // 24) | dict.fromkeys(range(4500, 4650, 9), DAY // 24)
    runs = list(merged(*history(folder, 4700, 60, delays)))
    assert max(len(batch) for kind, batch in runs if kind is Kind.TRANSACTION) == 4096
    state, scorer = open_model(model())
    return runs, np.concatenate([s.probability for s in score_events(state, scorer, numbered(runs))])


def model() -> Artifact:
    return untrained(ROLES, neighbours=4, window_rows=1 << 12)


@pytest.mark.parametrize("size", [1, 7, 64, 4096])
@pytest.mark.parametrize("together", ["one call", "many calls"])
def test_scores_do_not_depend_on_calls_and_micro_batches(
    long_history: tuple[list[Run], np.ndarray], tmp_path: Path, size: int, together: str
) -> None:
    runs, replayed = long_history
    rng = np.random.default_rng(size)
    replica = Replica(model(), settings(tmp_path))
    replica.open()
    calls: list[ScoreCall | LabelCall] = []
    for kind, batch in runs:
        for at in range(0, len(batch), size):
            part = batch.slice(at, size)
            calls.append(LabelCall(part) if kind is Kind.LABEL else ScoreCall(part, reasons=False, table=True))
    online: list[float] = []
    while calls:
        n = 1 if together == "one call" else int(rng.integers(1, 40))
        now, calls = calls[:n], calls[n:]
        outcomes = replica.process(now)
        for call, outcome in zip(now, outcomes, strict=True):
            if isinstance(call, ScoreCall):
                online += outcome["fraud_probability"].to_pylist()
        if isinstance(now[0], ScoreCall):  # sent again it changes nothing, and is answered alike
            assert replica.process(now[:1])[0]["fraud_probability"].equals(outcomes[0]["fraud_probability"])
    np.testing.assert_allclose(online, replayed, rtol=0, atol=1e-5)
    assert replica.journal.end == sum(len(batch) for _, batch in runs)
    replica.close()
