"""Replicas over a Kafka topic: what they answer is what its one order says, whoever wrote first."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.journal.kafka import KafkaJournal
from data.journal.protocol import Kind
from data.report import silent
from gnn.model.artifact import Artifact, untrained
from serve.problems import Problem
from serve.replica.admission import LabelCall, ScoreCall
from serve.replica.replica import Replica
from serve.replica.snapshots import bring_up_to_date
from serve.settings import Settings
from tests.data.journal.brokers import MockCluster
from tests.world import label_batch, payment_batch

PAYMENTS = payment_batch(400, seed=5, accounts=60, devices=30)
TOPICS = itertools.count()


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return untrained(("account", "merchant", "device"), neighbours=4, window_rows=1 << 7)


@pytest.fixture(scope="module")
def cluster() -> Iterator[MockCluster]:
    held = MockCluster()
    yield held
    held.close()


@pytest.fixture
def topic(cluster: MockCluster) -> str:
    return cluster.topic(f"journal-{next(TOPICS)}")


def opened(artifact: Artifact, folder: Path, topic: str | None) -> Replica:
    copy = folder / "journal.sqlite"
    config = Settings(model=folder, journal=copy, journal_topic=topic, insecure=True, device="cpu", snapshot_every=0)
    replica = Replica(artifact, config)
    replica.open()
    return replica


def answered(replica: Replica, batch: pa.RecordBatch) -> Any:
    (answer,) = replica.process([ScoreCall(batch, reasons=False, table=True)])
    return answer


def overtaken_by(replica: Replica, other: Replica, call: ScoreCall | LabelCall) -> list[Any]:
    """Have another replica write between a replica's look at the topic and its commit; returns what it is answered."""
    assert isinstance(replica.journal, KafkaJournal)
    topic, answers = replica.journal.topic, []
    append = topic.append

    def second(value: bytes) -> int:
        topic.append = append  # type: ignore[method-assign]
        answers.extend(other.process([call]))
        return append(value)

    topic.append = second  # type: ignore[method-assign]
    return answers


def test_replicas_on_a_topic_score_as_one_on_a_file_does(artifact: Artifact, topic: str, tmp_path: Path) -> None:
    one, other, alone = (opened(artifact, tmp_path / n, t) for n, t in (("1", topic), ("2", topic), ("3", None)))
    expected = [answered(alone, PAYMENTS.slice(0, 100))]
    got = [answered(one, PAYMENTS.slice(0, 100))]
    for replicas in ((alone,), (other,)):
        for replica in replicas:
            assert replica.process([LabelCall(label_batch(PAYMENTS, [3, 9], [True, False]))])[0]["accepted"] == 2
    overtaken_by(one, other, ScoreCall(PAYMENTS.slice(100, 50)))  # its 50 come first, by the topic's order
    late = answered(one, PAYMENTS.slice(150, 50))
    assert not isinstance(late, Problem)
    expected += [answered(alone, PAYMENTS.slice(100, 50)), answered(alone, PAYMENTS.slice(150, 50))]
    got += [answered(other, PAYMENTS.slice(100, 50)), late]
    for mine, theirs in zip(got, expected, strict=True):
        np.testing.assert_array_equal(mine["fraud_probability"], theirs["fraud_probability"])
    while other.follow():
        pass
    assert one.follower.position == other.follower.position == alone.follower.position == 202
    np.testing.assert_array_equal(one.slot.probabilities(np.arange(200)), other.slot.probabilities(np.arange(200)))
    for replica in (one, other, alone):
        replica.close()


def test_a_payment_that_two_replicas_take_at_once_is_recorded_once_and_answered_alike(
    artifact: Artifact, topic: str, tmp_path: Path
) -> None:
    one, other = opened(artifact, tmp_path / "1", topic), opened(artifact, tmp_path / "2", topic)
    answered(one, PAYMENTS.slice(0, 20))
    first = overtaken_by(one, other, ScoreCall(PAYMENTS.slice(20, 2), reasons=False, table=True))
    late = answered(one, PAYMENTS.slice(20, 4))  # two of them are recorded by then
    np.testing.assert_array_equal(late["fraud_probability"][:2], first[0]["fraud_probability"])
    ids = PAYMENTS.column("transaction_id").to_pylist()[20:24]
    assert [one.journal.ids.find(ids)[name].offset for name in ids] == [20, 21, 22, 23]
    assert one.journal.end == other.journal.end == 24
    one.close(), other.close()


def test_a_payment_whose_id_another_replica_took_for_other_content_is_a_conflict(
    artifact: Artifact, topic: str, tmp_path: Path
) -> None:
    one, other = opened(artifact, tmp_path / "1", topic), opened(artifact, tmp_path / "2", topic)
    answered(one, PAYMENTS.slice(0, 20))
    at = PAYMENTS.schema.get_field_index("amount")
    changed = PAYMENTS.slice(20, 1).set_column(at, PAYMENTS.schema.field(at), pa.array([12345], pa.int64()))
    overtaken_by(one, other, ScoreCall(changed))
    said = answered(one, PAYMENTS.slice(20, 1))
    assert isinstance(said, Problem)
    assert (said.status, "recorded with other content: amount: recorded as 12345" in said.detail) == (409, True)
    assert one.follower.position == 21
    assert not isinstance(answered(one, PAYMENTS.slice(21, 1)), Problem)
    one.close(), other.close()


def test_a_replica_on_a_topic_starts_from_a_snapshot(artifact: Artifact, topic: str, tmp_path: Path) -> None:
    replica = opened(artifact, tmp_path / "1", topic)
    expected = answered(replica, PAYMENTS.slice(0, 200))["fraud_probability"].to_numpy()
    assert bring_up_to_date(artifact, replica.settings, silent) is not None
    answered(replica, PAYMENTS.slice(200, 50))
    replica.close()
    again = Replica(artifact, replica.settings)
    assert again.open() == 200
    assert again.follower.position == 250
    np.testing.assert_array_equal(again.slot.probabilities(np.arange(200)), expected)
    # Another machine: a snapshot that is copied there fits the rows that it reads from the topic itself.
    (tmp_path / "2").mkdir()
    replica.settings.snapshot_folder.rename(tmp_path / "2" / "journal.snapshots")
    elsewhere = Replica(artifact, replica.settings.model_copy(update={"journal": tmp_path / "2" / "journal.sqlite"}))
    assert elsewhere.open() == 200
    assert elsewhere.follower.position == 250
    again.close(), elsewhere.close()


def test_while_no_broker_answers_nothing_is_said_to_be_recorded(artifact: Artifact, tmp_path: Path) -> None:
    held = MockCluster()
    replica = opened(artifact, tmp_path, held.topic("journal"))
    assert isinstance(replica.journal, KafkaJournal)
    answered(replica, PAYMENTS.slice(0, 20))
    replica.journal.topic.timeout = 1.0
    held.down()
    said = answered(replica, PAYMENTS.slice(20, 1))
    assert isinstance(said, Problem)
    assert (said.status, "send the same again" in said.detail) == (503, True)
    held.up()
    deadline = time.monotonic() + 60  # the client looks for the broker again when it sees fit
    while isinstance(answered(replica, PAYMENTS.slice(20, 1)), Problem):
        assert time.monotonic() < deadline
    assert [len(e.batch) for e in replica.journal.replay() if e.kind is Kind.TRANSACTION] == [21]
    replica.close()
    held.close()
