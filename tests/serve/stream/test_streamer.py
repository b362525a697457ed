"""Payments and labels from a topic: answered once each, whatever crashes, moves to another reader or fails."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data.errors import DataError, JournalError
from data.journal.protocol import Kind
from gnn.model.artifact import Artifact, untrained
from serve.http.wire import arrow_bytes
from serve.replica.replica import Replica
from serve.settings import Settings
from serve.stream.kafka import KafkaSource
from serve.stream.source import StreamError
from serve.stream.streamer import Streamer
from tests.data.journal.brokers import MockCluster, messages, produce
from tests.world import label_batch, payment_batch

PAYMENTS = payment_batch(60, seed=5, accounts=20, devices=10)
IDS: list[str] = PAYMENTS.column("transaction_id").to_pylist()
TOPICS = itertools.count()


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return untrained(("account", "merchant", "device"), neighbours=4, window_rows=1 << 7)


@pytest.fixture(scope="module")
def cluster() -> Iterator[MockCluster]:
    held = MockCluster()
    held.quick_groups()
    yield held
    held.close()


@pytest.fixture
def topic(cluster: MockCluster) -> str:
    """A source of one partition, with topics for its answers and its dead letters."""
    address = cluster.topic(f"payments-{next(TOPICS)}")
    for beside in ("answers", "dead-letters"):
        cluster.topic(f"{address.rpartition('/')[2]}.{beside}")
    return address


@pytest.fixture
def replica(artifact: Artifact, tmp_path: Path) -> Iterator[Replica]:
    held = opened(artifact, tmp_path)
    yield held
    held.close()


def opened(artifact: Artifact, folder: Path) -> Replica:
    journal = folder / "journal.sqlite"
    held = Replica(artifact, Settings(model=folder, journal=journal, insecure=True, device="cpu", snapshot_every=0))
    held.open()
    return held


def source_of(topic: str) -> KafkaSource:
    name = topic.rpartition("/")[2]
    quick = {"session.timeout.ms": "1500", "heartbeat.interval.ms": "150"}  # else a group notices late who left it
    return KafkaSource(topic, f"{name}.answers", name, quick, timeout=3)


def payment(i: int, **changes: Any) -> bytes:
    row = {name: value for name, value in PAYMENTS.slice(i, 1).to_pylist()[0].items() if value is not None}
    return json.dumps({**row, **changes}, default=lambda moment: moment.isoformat()).encode()


def drained(streamer: Streamer, count: int) -> None:
    """Step until so many messages were dealt with."""
    done = 0
    for _ in range(200):
        done += streamer.step()
        if done >= count:
            break
    assert done == count


def answers(topic: str) -> list[Any]:
    return [json.loads(m.value() or b"") for m in messages(f"{topic}.answers")]


def dead(topic: str) -> list[tuple[bytes | None, str]]:
    return [(m.value(), dict(m.headers() or [])["reason"].decode()) for m in messages(f"{topic}.dead-letters")]


def recorded(replica: Replica) -> list[str]:
    batches = [e.batch for e in replica.journal.replay() if e.kind is Kind.TRANSACTION]
    return [name for batch in batches for name in batch.column("transaction_id").to_pylist()]


def test_payments_and_labels_are_journalled_in_order_and_answered(topic: str, replica: Replica) -> None:
    label = json.dumps({"transaction_id": IDS[0], "is_fraud": True, "reported_at": "2026-03-01T00:00:00Z"}).encode()
    several = b"[" + b",".join(payment(i) for i in (3, 4)) + b"]"
    produce(topic, payment(0), label, payment(1), payment(2), several)
    streamer = Streamer(replica, source_of(topic))
    drained(streamer, 5)
    assert [answer["transaction_id"] for answer in answers(topic)] == IDS[:5]
    assert all(answer["recorded"] and answer["reasons"] for answer in answers(topic))
    assert [m.key() for m in messages(f"{topic}.answers")] == [name.encode() for name in IDS[:5]]
    assert [e.kind for e in replica.journal.replay()] == [Kind.TRANSACTION, Kind.LABEL, Kind.TRANSACTION]
    value = streamer.metrics.registry.get_sample_value
    assert value("ringwatch_stream_messages_total") == 5
    assert value("ringwatch_stream_rows_total", {"kind": "payment"}) == 5
    assert value("ringwatch_stream_rows_total", {"kind": "label"}) == 1
    assert value("ringwatch_stream_answers_total") == 5
    streamer.close()


def test_arrow_is_answered_with_arrow(topic: str, replica: Replica) -> None:
    labels = label_batch(PAYMENTS, [1, 2], [True, False])
    produce(topic, *(arrow_bytes(pa.Table.from_batches([batch])) for batch in (PAYMENTS.slice(0, 40), labels)))
    streamer = Streamer(replica, source_of(topic))
    drained(streamer, 2)
    (answer,) = messages(f"{topic}.answers")
    with pa.ipc.open_stream(answer.value()) as reader:
        assert reader.read_all()["transaction_id"].to_pylist() == IDS[:40]
    assert replica.journal.end == 42
    streamer.close()


def test_what_is_no_payment_goes_to_the_dead_letters_with_its_reason(topic: str, replica: Replica) -> None:
    bad = [
        payment(0, amount=-1),
        payment(1, timestamp="2099-01-01T00:00:00Z"),
        b"not a payment",
        b'{"transaction_id": ',
        json.dumps({"transaction_id": "unknown", "is_fraud": True, "reported_at": "2026-03-01T00:00:00Z"}).encode(),
        payment(2, amount=7),  # contradicts the one before it
        b"[]",
    ]
    produce(topic, payment(2), *bad, payment(3))
    streamer = Streamer(replica, source_of(topic))
    drained(streamer, 9)
    assert recorded(replica) == IDS[2:4]
    by_value = dict(dead(topic))
    assert sorted(by_value) == sorted(bad)
    assert [by_value[value].split(":")[0] for value in bad] == [
        "Invalid content", "Invalid content", "Malformed message", "Malformed JSON", "Unknown transaction", "Conflict",
        "Invalid content",
    ]  # fmt: skip
    assert "amount" in by_value[bad[0]]
    assert "lies" in by_value[bad[1]]
    assert "in the future" in by_value[bad[1]]
    why = {"why": "Conflict"}
    assert streamer.metrics.registry.get_sample_value("ringwatch_stream_dead_letters_total", why) == 1
    streamer.close()


def test_a_crash_before_the_confirmation_doubles_nothing(topic: str, artifact: Artifact, tmp_path: Path) -> None:
    """Messages are delivered again, are found recorded, and are answered word for word as before."""
    produce(topic, *(payment(i) for i in range(20)))
    first = opened(artifact, tmp_path)
    crashing = source_of(topic)
    crashing.confirm = lambda messages: None  # type: ignore[method-assign]
    drained(Streamer(first, crashing), 20)
    first.close()
    crashing.close()
    second = opened(artifact, tmp_path)
    streamer = Streamer(second, source_of(topic))
    drained(streamer, 20)
    assert recorded(second) == IDS[:20]
    said = [m.value() for m in messages(f"{topic}.answers")]
    assert len(said) == 40
    assert said[:20] == said[20:]
    streamer.close()
    third = Streamer(second, source_of(topic))  # all is confirmed by now
    produce(topic, payment(20))
    drained(third, 1)
    assert recorded(second) == IDS[:21]
    third.close()
    second.close()


def test_answers_that_were_not_confirmed_are_sent_again_before_the_source_is(topic: str, replica: Replica) -> None:
    produce(topic, *(payment(i) for i in range(3)))
    source = source_of(topic)
    streamer, send, confirmed = Streamer(replica, source), source.send, []
    confirm = source.confirm

    def failing(answers: Any, dead: Any) -> None:
        raise StreamError("no broker")

    source.send = failing  # type: ignore[method-assign]
    source.confirm = lambda done: (confirmed.extend(done), confirm(done))  # type: ignore[method-assign]
    with pytest.raises(StreamError, match="no broker"):
        drained(streamer, 3)
    assert not confirmed
    source.send = send  # type: ignore[method-assign]
    drained(streamer, 3)
    assert len(confirmed) == 3
    assert [answer["transaction_id"] for answer in answers(topic)] == IDS[:3]
    streamer.close()


def test_a_journal_that_fails_makes_no_dead_letters(
    topic: str, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    produce(topic, payment(0))
    streamer, begin = Streamer(replica, source_of(topic)), replica.journal.begin

    def failing() -> Any:
        raise JournalError("no disk")

    monkeypatch.setattr(replica.journal, "begin", failing)
    with pytest.raises((StreamError, DataError), match="the journal cannot be written"):
        drained(streamer, 1)
    monkeypatch.setattr(replica.journal, "begin", begin)
    drained(streamer, 1)
    assert recorded(replica) == IDS[:1]
    assert not dead(topic)
    streamer.close()


def test_readers_share_a_topic_and_one_takes_over_from_another(
    cluster: MockCluster, artifact: Artifact, tmp_path: Path
) -> None:
    topic = cluster.topic(f"payments-{next(TOPICS)}", 4)
    for beside in ("answers", "dead-letters"):
        cluster.topic(f"{topic.rpartition('/')[2]}.{beside}")
    replicas = [opened(artifact, tmp_path) for _ in range(2)]
    streamers = [Streamer(replica, source_of(topic)) for replica in replicas]
    for i in range(40):
        produce(topic, payment(i), partition=i % 4)
    both: list[int] = [0, 0]
    for _ in range(300):
        for n, streamer in enumerate(streamers):
            both[n] += streamer.step()
        if sum(both) >= 40:
            break
    streamers[0].close()  # its partitions go to the other
    for i in range(40, 60):
        produce(topic, payment(i), partition=i % 4)
    for _ in range(300):
        both[1] += streamers[1].step()
        if len(recorded(replicas[1])) == 60:
            break
    streamers[1].close()
    assert sorted(recorded(replicas[1])) == sorted(IDS)
    said = {answer["transaction_id"]: answer["journal_offset"] for answer in answers(topic)}
    assert sorted(said) == sorted(IDS)
    assert len(set(said.values())) == 60
    for replica in replicas:
        replica.close()
