"""One replica without HTTP: what it follows, what it believes, and what it answers to a payment sent again."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data.journal.protocol import Kind
from data.journal.sqlite import SqliteJournal
from gnn.model.artifact import Artifact, untrained
from graph.dag.protocol import DAY_US
from graph.errors import GraphError
from serve.problems import Problem
from serve.replica.admission import LabelCall, ScoreCall
from serve.replica.replica import Replica
from serve.replica.snapshots import bring_up_to_date
from serve.settings import Settings
from tests.world import label_batch, payment_batch

ROLES = ("account", "merchant", "device")
PAYMENTS = payment_batch(400, seed=5, accounts=60, devices=30)


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return untrained(ROLES, neighbours=4, window_rows=1 << 7)


def settings(folder: Path, **more: object) -> Settings:
    journal = folder / "journal.sqlite"
    return Settings(model=folder, journal=journal, insecure=True, device="cpu", snapshot_every=0, **more)


def opened(artifact: Artifact, config: Settings) -> Replica:
    replica = Replica(artifact, config)
    replica.open()
    return replica


def scored(replica: Replica, first: int, last: int) -> np.ndarray:
    """Probabilities that a replica gives to payments, sent as one call."""
    (table,) = replica.process([ScoreCall(PAYMENTS.slice(first, last - first), reasons=False, table=True)])
    return table["fraud_probability"].to_numpy()


def test_a_replica_follows_what_others_write_without_being_called(artifact: Artifact, tmp_path: Path) -> None:
    writer, reader = (opened(artifact, settings(tmp_path)) for _ in range(2))
    expected = scored(writer, 0, 300)
    writer.process([LabelCall(label_batch(PAYMENTS, [3, 9], [True, False]))])
    steps = 1
    while reader.follow(rows=64):
        steps += 1
        assert reader.follower.position == 64 * (steps - 1)  # in steps, so that a payment never waits for all of it
        assert reader.lag == 302 - reader.follower.position
    assert (reader.follower.position, reader.lag, steps) == (302, 0, 5)
    np.testing.assert_array_equal(reader.slot.probabilities(np.arange(300)), expected)
    assert not reader.follow()
    for replica in (writer, reader):
        replica.close()


def test_a_label_is_judged_by_what_others_have_written(artifact: Artifact, tmp_path: Path) -> None:
    """False at one replica, true at the other, false at the first again: the journal ends with false."""
    one, other = (opened(artifact, settings(tmp_path)) for _ in range(2))
    scored(one, 0, 10)
    for day, (replica, fraud) in enumerate(((one, False), (other, True), (one, False))):
        (said,) = replica.process([LabelCall(label_batch(PAYMENTS, [4], [fraud], (1 + day) * DAY_US))])
        assert said == {"accepted": 1, "repeated": 0, "superseded": 0}
    with SqliteJournal(tmp_path / "journal.sqlite") as journal:
        labels = [events.batch["is_fraud"] for events in journal.replay() if events.kind is Kind.LABEL]
    assert pa.concat_arrays(labels).to_pylist() == [False, True, False]
    for replica in (one, other):
        replica.close()


def test_a_repeated_label_is_known_of_a_payment_that_the_graph_forgot_and_from_another_replica(
    artifact: Artifact, tmp_path: Path
) -> None:
    one, other = (opened(artifact, settings(tmp_path)) for _ in range(2))
    scored(one, 0, 10)
    labels = [label_batch(PAYMENTS, [4], [True]), label_batch(PAYMENTS, [4], [False], 2 * DAY_US)]
    one.process([LabelCall(batch) for batch in labels])
    n = 0
    while one.state.store.oldest < 10:
        one.process([ScoreCall(payment_batch(1 << 15, seed=100 + n), reasons=False, table=True)])
        n += 1
    for replica in (one, other):
        said = replica.process([LabelCall(batch) for batch in labels])
        assert said == [{"accepted": 0, "repeated": 1, "superseded": 0}] * 2
        later = label_batch(PAYMENTS, [4], [False], 3 * DAY_US)
        (said,) = replica.process([LabelCall(later)])
        assert said == {"accepted": int(replica is one), "repeated": int(replica is other), "superseded": 0}
    for replica in (one, other):
        replica.close()


def test_a_payment_from_before_the_model_is_never_answered_by_a_default(artifact: Artifact, tmp_path: Path) -> None:
    config = settings(tmp_path)
    first = opened(artifact, config)
    scored(first, 0, 300)
    first.close()
    assert bring_up_to_date(artifact, config, lambda stage, share: None) is not None
    other = untrained(ROLES, seed=4, neighbours=4, window_rows=1 << 7)
    fresh = opened(other, settings(tmp_path / "fresh"))
    expected = scored(fresh, 0, 300)
    replica = opened(other, config)
    again = scored(replica, 100, 140)  # at once, before anything was filled in
    np.testing.assert_allclose(again, expected[100:140], rtol=0, atol=1e-12)
    assert again.min() > 0
    for held in (fresh, replica):
        held.close()


def test_a_repeat_that_the_graph_no_longer_holds_gets_its_kept_answer_or_says_so(
    artifact: Artifact, tmp_path: Path
) -> None:
    replica = opened(artifact, settings(tmp_path))
    capacity = replica.state.store.capacity
    ((first,),) = replica.process([ScoreCall(PAYMENTS.slice(0, 1))])
    scored(replica, 1, 2)  # in bulk: its answer is not kept
    replica.idle()
    n = 0
    while replica.state.store.oldest < 3:
        rows = payment_batch(min(1 << 15, capacity), seed=100 + n)
        replica.process([ScoreCall(rows, reasons=False, table=True)])
        n += 1
    ((again, other, newest),) = replica.process([ScoreCall(_both(PAYMENTS.slice(0, 2), rows.slice(len(rows) - 1)))])
    assert again == first
    late, fresh = json.loads(other), json.loads(newest)
    assert (late["scored_by"], late["degraded"], late["ring"]) == ("rules", True, None)
    assert late["journal_offset"] == 1
    assert (fresh["scored_by"], fresh["degraded"]) == ("cpu", False)
    assert fresh["fraud_probability"] != late["fraud_probability"]
    replica.close()


def _both(one: pa.RecordBatch, other: pa.RecordBatch) -> pa.RecordBatch:
    return pa.concat_batches([one, other])


def test_a_graph_that_failed_in_the_middle_of_an_event_takes_no_more(artifact: Artifact, tmp_path: Path) -> None:
    replica = opened(artifact, settings(tmp_path))
    scored(replica, 0, 5)

    def fails(first: int, last: int) -> None:
        raise GraphError("no room for more entities")

    replica.state.rings.extend = fails  # type: ignore[method-assign]
    (problem,) = replica.process([ScoreCall(PAYMENTS.slice(5, 1))])
    assert isinstance(problem, Problem)
    assert "recorded" in str(problem.detail)
    assert replica.unhealthy
    (problem,) = replica.process([ScoreCall(PAYMENTS.slice(6, 1))])
    assert "being replaced" in str(problem.detail)
    assert replica.journal.end == 6  # nothing is recorded that cannot be answered
    assert not replica.follow()
    replica.close()


def test_scoring_goes_on_while_rings_are_ranked_and_named(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = opened(artifact, settings(tmp_path))
    scored(replica, 0, 300)
    free: list[bool] = []
    known, names = replica.slot.known_probabilities, replica.state.names

    def looks(rows: np.ndarray) -> np.ndarray:
        free.append(not replica._graph.locked())
        scored(replica, 300 + len(free), 301 + len(free))  # would wait for ever for the thread that ranks
        return known(rows)

    def names_beside(*arguments: object, **options: object) -> list[str]:
        free.append(not replica._graph.locked())
        return names(*arguments, **options)  # type: ignore[arg-type]

    expected = replica.ties.rings(3)
    monkeypatch.setattr(replica.slot, "known_probabilities", looks)
    monkeypatch.setattr(replica.state, "names", names_beside)
    assert [ring.accounts for ring in replica.ties.rings(3)] == [ring.accounts for ring in expected]
    assert expected
    assert replica.ties.ring(expected[0].id) is not None
    assert len(free) >= 4
    assert all(free)
    replica.close()
