"""A journal on a Kafka topic: several writers, duplicates, foreign messages, and brokers that are slow, gone or new."""

import itertools
import sqlite3
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.errors import JournalError
from data.journal.kafka import KafkaJournal
from data.journal.kafka_records import Foreign, pack, unpack
from data.journal.kafka_topic import Address, refuse_settings
from data.journal.kafka_verify import verify_topic
from data.journal.protocol import Events, Kind
from data.journal.sqlite import SqliteJournal
from data.journal.stored import encode
from tests.data.journal.brokers import Mesh, MockCluster, messages, produce
from tests.data.journal.conformance import replayed, rows

TOPICS = itertools.count()
PRODUCE = 0  # number of the request
FOREIGN = b'{"transaction_id": "x", "amount": 1}'


@pytest.fixture(scope="module")
def shared() -> Iterator[MockCluster]:
    cluster = MockCluster()
    yield cluster
    cluster.close()


@pytest.fixture
def address(shared: MockCluster) -> str:
    return shared.topic(f"journal-{next(TOPICS)}")


@pytest.fixture
def broken() -> Iterator[MockCluster]:
    """A cluster for one test, to break."""
    cluster = MockCluster()
    yield cluster
    cluster.close()


def append(journal: KafkaJournal, *ids: str, number: int = 1, kind: Kind = Kind.TRANSACTION) -> list[Events]:
    with journal.begin() as commit:
        commit.append(kind, rows(kind, list(ids), number))
    return list(commit.events)


def names(journal: KafkaJournal) -> list[str]:
    return [row["transaction_id"] for kind, row in replayed(journal) if kind is Kind.TRANSACTION]


def test_the_first_record_of_the_topic_decides_what_a_transaction_is(address: str, tmp_path: Path) -> None:
    first, second = KafkaJournal(address, tmp_path / "1.db"), KafkaJournal(address, tmp_path / "2.db")
    with second.begin() as late:
        append(first, "a", "b", number=1)
        late.append(Kind.TRANSACTION, rows(Kind.TRANSACTION, ["b", "c"], 2))
        late.append(Kind.LABEL, rows(Kind.LABEL, ["a"]))
    assert [(e.kind, e.offset, len(e.batch)) for e in late.events] == [(Kind.TRANSACTION, 2, 1), (Kind.LABEL, 3, 1)]
    assert late.end == first.end == second.end == 4
    assert names(first) == names(second) == ["a", "b", "c"]
    assert replayed(first) == replayed(second)
    assert second.ids.find(["b"]) == first.ids.find(["b"])
    assert second.ids.find(["b"])["b"].offset == 1
    first.close(), second.close()


def test_processes_of_one_machine_share_a_copy(address: str, tmp_path: Path) -> None:
    first, second = KafkaJournal(address, tmp_path / "j.db"), KafkaJournal(address, tmp_path / "j.db")
    for n in range(4):
        append((first, second)[n % 2], f"t{n}")
    assert names(first) == names(second) == ["t0", "t1", "t2", "t3"]
    assert KafkaJournal(address, tmp_path / "other.db").end == 4
    first.close(), second.close()


def test_a_record_that_is_delivered_twice_counts_once(address: str, tmp_path: Path) -> None:
    journal = KafkaJournal(address, tmp_path / "j.db")
    append(journal, "a")
    append(journal, "a", kind=Kind.OUTCOME)  # without an id that would give it away
    produce(address, *[message.value() for message in messages(address)])
    append(journal, "b")
    other = KafkaJournal(address, tmp_path / "other.db")
    assert journal.end == other.end == 3
    assert replayed(journal) == replayed(other)
    journal.close(), other.close()


def test_foreign_messages_are_passed_over_and_go_to_the_dead_letter_topic(
    shared: MockCluster, address: str, tmp_path: Path
) -> None:
    shared.topic(f"{address.rpartition('/')[2]}.dead-letters")
    journal = KafkaJournal(address, tmp_path / "j.db")
    append(journal, "a")
    record = messages(address)[0].value()
    assert record is not None
    produce(address, FOREIGN, record[:-1] + b"?")
    append(journal, "b")
    assert names(journal) == ["a", "b"]
    buried = messages(f"{address}.dead-letters")
    assert [(m.key(), m.value()) for m in buried] == [(b"1", FOREIGN), (b"2", record[:-1] + b"?")]
    assert dict(buried[0].headers() or [])["reason"] == b"begins with b'{\"t', and a journal's records with b'RWJ'"
    assert dict(buried[1].headers() or [])["reason"] == b"does not match its checksum"
    assert [offset for offset, _ in journal.copy.passed_over()] == [1, 2]
    journal.close()


def test_a_record_of_a_later_version_stops_the_reader(address: str, tmp_path: Path) -> None:
    record = bytearray(pack(1, 1, [Events(Kind.LABEL, 0, rows(Kind.LABEL, ["a"]))]))
    record[3] = 2
    record[-4:] = struct.pack("<I", zlib.crc32(record[:-4]))
    produce(address, bytes(record))
    journal = KafkaJournal(address, tmp_path / "j.db")
    with pytest.raises(JournalError, match=r"offset 0 of the topic: a record of version 2.*upgrade"):
        _ = journal.end
    assert journal.copy.place.position == 0
    journal.close()


def test_a_topic_that_forgot_what_a_copy_has_not_read_is_refused(
    shared: MockCluster, address: str, tmp_path: Path
) -> None:
    journal = KafkaJournal(address, tmp_path / "j.db")
    for name in "abc":
        append(journal, name)
    journal.close()
    shared.forget(address.rpartition("/")[2], 2)
    with pytest.raises(JournalError, match=r"no longer holds the messages 0 to 1.*retention is too short"):
        KafkaJournal(address, tmp_path / "new.db")
    again = KafkaJournal(address, tmp_path / "j.db")  # which has them
    assert names(again) == ["a", "b", "c"]
    again.close()


def test_another_topic_under_the_same_name_is_told_from_the_one_of_the_copy(
    shared: MockCluster, address: str, tmp_path: Path
) -> None:
    journal = KafkaJournal(address, tmp_path / "j.db")
    append(journal, "a")
    journal.close()
    made_again = shared.topic(f"journal-{next(TOPICS)}")
    produce(made_again, b"something else", b"more of it")
    journal.copy.path.rename(tmp_path / "moved.db")
    with sqlite3.connect(tmp_path / "moved.db") as connection:
        connection.execute("UPDATE topic SET name = ?", (made_again.rpartition("/")[2],))
    with pytest.raises(JournalError, match="holds another message at 0"):
        KafkaJournal(made_again, tmp_path / "moved.db")
    with pytest.raises(JournalError, match="is a copy of the topic"):
        KafkaJournal(address, tmp_path / "moved.db")


def test_a_topic_of_several_partitions_is_refused(shared: MockCluster, tmp_path: Path) -> None:
    several = shared.topic(f"journal-{next(TOPICS)}", 2)
    with pytest.raises(JournalError, match=r"has 2 partitions; a journal needs one partition.*--partitions 1"):
        KafkaJournal(several, tmp_path / "j.db")


def test_a_copy_is_read_as_any_journal_and_written_by_its_topic_alone(address: str, tmp_path: Path) -> None:
    journal = KafkaJournal(address, tmp_path / "j.db")
    append(journal, "a")
    with SqliteJournal(tmp_path / "j.db", readonly=True) as reader:
        assert [row["transaction_id"] for _, row in replayed(reader)] == ["a"]
    with pytest.raises(JournalError, match="is the local copy of the Kafka topic"):
        SqliteJournal(tmp_path / "j.db")
    SqliteJournal(tmp_path / "own.db").close()
    with SqliteJournal(tmp_path / "own.db") as own, own.begin() as commit:
        commit.append(Kind.LABEL, rows(Kind.LABEL, ["a"]))
    with pytest.raises(JournalError, match="is a journal by itself, and no copy"):
        KafkaJournal(address, tmp_path / "own.db")
    journal.close()


def test_a_commit_that_the_topic_does_not_take_is_refused_and_the_next_one_is_not(address: str, tmp_path: Path) -> None:
    journal = KafkaJournal(address, tmp_path / "j.db", options={"message.max.bytes": "4000"})
    with pytest.raises(JournalError, match=r"larger than .* takes \(4,000 bytes\): set its max.message.bytes"):
        append(journal, *[f"a{n}" for n in range(100)])
    append(journal, "b")
    assert names(journal) == ["b"]
    journal.close()


def test_a_commit_waits_for_a_slow_broker(broken: MockCluster, tmp_path: Path) -> None:
    journal = KafkaJournal(broken.topic("j"), tmp_path / "j.db")
    append(journal, "a")
    broken.slow(150)
    begin = time.monotonic()
    append(journal, "b")
    assert time.monotonic() - begin > 0.15
    assert names(journal) == ["a", "b"]
    journal.close()


def test_a_commit_that_is_not_confirmed_in_time_fails_and_counts_once_when_it_is_sent_again(
    broken: MockCluster, tmp_path: Path
) -> None:
    journal = KafkaJournal(broken.topic("j"), tmp_path / "j.db", timeout=1)
    append(journal, "a")
    journal.topic.bounds = lambda: (0, 1)  # type: ignore[method-assign]  # so that nothing but the append is slow
    broken.slow(5000)
    with pytest.raises(JournalError, match="may be recorded or not: send the same again"):
        append(journal, "b")
    assert journal.end == 1
    broken.slow(0)
    del journal.topic.bounds  # type: ignore[misc]
    deadline = time.monotonic() + 30
    while True:  # the late one may or may not have come to be there meanwhile
        try:
            if not journal.ids.find(["b"]):
                append(journal, "b")
            break
        except JournalError:
            assert time.monotonic() < deadline
    time.sleep(0.2)
    assert names(journal) == ["a", "b"]
    journal.close()


def test_commits_go_on_when_a_broker_comes_back(broken: MockCluster, tmp_path: Path) -> None:
    journal = KafkaJournal(broken.topic("j"), tmp_path / "j.db", timeout=1)
    append(journal, "a")
    broken.down()
    with pytest.raises(JournalError, match="kafka://"):
        append(journal, "b")
    assert names_kept(journal) == ["a"]
    broken.up()
    deadline = time.monotonic() + 10
    while True:
        try:
            append(journal, "c")
            break
        except JournalError:
            assert time.monotonic() < deadline
    assert names(journal) == ["a", "c"]
    journal.close()


def names_kept(journal: KafkaJournal) -> list[str]:
    """What the copy holds, without a look at the topic."""
    return [row["transaction_id"] for _, row in replayed(journal, stop=journal.copy.length)]


@pytest.mark.parametrize("error", [47, 90], ids=["an older epoch", "fenced"])
def test_a_producer_that_the_broker_fenced_is_replaced(broken: MockCluster, tmp_path: Path, error: int) -> None:
    journal = KafkaJournal(broken.topic("j"), tmp_path / "j.db", timeout=3)
    append(journal, "a")
    broken.fail(PRODUCE, error)
    with pytest.raises(JournalError, match="send the same again"):
        append(journal, "b")
    append(journal, "b")
    append(journal, "c")
    assert names(journal) == ["a", "b", "c"]
    again = KafkaJournal(journal.address, tmp_path / "other.db")
    assert replayed(again) == replayed(journal)
    journal.close(), again.close()


WRITER = """
import sys
from data.journal.kafka import KafkaJournal
from data.journal.protocol import Kind
from tests.data.journal.conformance import rows
journal = KafkaJournal(sys.argv[1], sys.argv[2])
for n in range(100_000):
    with journal.begin() as commit:
        commit.append(Kind.TRANSACTION, rows(Kind.TRANSACTION, [f"{sys.argv[3]}-{n}"]))
    print(f"{sys.argv[3]}-{n}", flush=True)
"""


def test_no_acknowledged_commit_is_lost_or_doubled_by_kill_9(tmp_path: Path) -> None:
    mesh = Mesh()
    try:
        address, said = f"kafka://{mesh.brokers}/journal", []
        KafkaJournal(address, tmp_path / "0.db").close()  # which makes the topic
        # Two share a copy, the third has its own; each round they are killed, and others go on.
        for generation in range(2):
            writers = [
                subprocess.Popen(
                    [sys.executable, "-c", WRITER, address, str(tmp_path / f"{n // 2}.db"), f"{generation}-{n}"],
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for n in range(3)
            ]
            begun = [writer.stdout.readline().strip() for writer in writers if writer.stdout]
            time.sleep(0.4)
            for writer in writers:
                writer.kill()
            rest = [line for writer in writers for line in (writer.communicate()[0] or "").split("\n")[:-1]]
            said += [*begun, *rest]
        copies = [KafkaJournal(address, tmp_path / f"{n}.db") for n in range(3)]  # the third is made anew
        found = [names(copy) for copy in copies]
        assert len(said) > 20
        assert found[0] == found[1] == found[2]
        assert set(said) <= set(found[0])
        assert len(found[0]) == len(set(found[0]))
        for copy in copies:
            copy.close()
    finally:
        mesh.kill()


def test_a_broker_that_lost_its_topics_is_noticed(tmp_path: Path) -> None:
    mesh = Mesh()
    try:
        journal = KafkaJournal(f"kafka://{mesh.brokers}/journal", tmp_path / "j.db", timeout=5)
        append(journal, "a")
        mesh.kill()
        mesh.start()
        KafkaJournal(journal.address, tmp_path / "new.db").close()
        deadline = time.monotonic() + 20
        while True:
            with pytest.raises(JournalError) as refused:
                append(journal, "b")
            if "is not the topic that" in str(refused.value):
                break
            assert time.monotonic() < deadline
        assert names_kept(journal) == ["a"]
        journal.close()
    finally:
        mesh.kill()


def test_an_address_names_brokers_and_a_topic() -> None:
    assert Address.parse("kafka://a:1,b:2/t") == Address("a:1,b:2", "t")
    assert str(Address("a:1,b:2", "t")) == "kafka://a:1,b:2/t"
    for wrong in (
        "kafka://a/t",
        "kafka://a:1",
        "kafka://a:1/",
        "kafka://a:1/t/u",
        "http://a:1/t",
        "a.db",
        "kafka://:1/t",
    ):
        with pytest.raises(JournalError, match="write it as kafka://host:port/topic"):
            Address.parse(wrong)


def test_settings_under_which_a_topic_loses_events_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    address, day = Address("a:1", "t"), 86_400_000
    with pytest.raises(JournalError, match=r"forgets after 7 days .*looks back 30 days: set its retention.ms to -1"):
        refuse_settings(address, {"retention.ms": str(7 * day)}, 30 * day * 1000)
    with pytest.raises(JournalError, match="is compacted"):
        refuse_settings(address, {"cleanup.policy": "compact,delete"}, None)
    refuse_settings(address, {"retention.ms": "-1", "min.insync.replicas": "2"}, 30 * day * 1000)
    assert not caplog.messages
    refuse_settings(address, {"retention.ms": str(60 * day), "min.insync.replicas": "1"}, 30 * day * 1000)
    assert len(caplog.messages) == 2


def test_options_that_a_journal_rests_on_cannot_be_changed(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="'acks' is set by the journal itself"):
        KafkaJournal("kafka://localhost:1/t", tmp_path / "j.db", options={"acks": "1"})


def test_a_record_that_was_cut_or_changed_anywhere_is_foreign() -> None:
    batch = rows(Kind.TRANSACTION, ["a", "b"])
    record = pack(2**64 - 1, 7, [Events(Kind.TRANSACTION, 5, batch), Events(Kind.LABEL, 7, rows(Kind.LABEL, ["a"]))])
    writer, sequence, runs = unpack(record)
    assert (writer, sequence) == (2**64 - 1, 7)
    assert [(kind, rows.num_rows) for kind, rows in runs] == [(Kind.TRANSACTION, 2), (Kind.LABEL, 1)]
    assert runs[0][1].equals(batch)
    for cut in range(len(record)):
        with pytest.raises(Foreign):
            unpack(record[:cut])
    for at in range(len(record)):
        with pytest.raises(Foreign):
            unpack(record[:at] + bytes([record[at] ^ 4]) + record[at + 1 :])
    for other in (None, b"", record + b"\0"):
        with pytest.raises(Foreign):
            unpack(other)


def test_verify_compares_a_copy_with_its_topic(address: str, tmp_path: Path) -> None:
    journal = KafkaJournal(address, tmp_path / "j.db")
    append(journal, "a", "b")
    append(journal, "a", kind=Kind.LABEL)
    produce(address, FOREIGN)
    append(journal, "c")
    found = verify_topic(address, tmp_path / "j.db")
    assert (found.ok, found.events, found.transactions) == (True, 4, 3)
    assert found.passed_over == ["offset 2 of the topic: begins with b'{\"t', and a journal's records with b'RWJ'"]
    row = encode(Kind.LABEL, 2, rows(Kind.LABEL, ["a"], number=2))
    with sqlite3.connect(tmp_path / "j.db") as connection:
        connection.execute("UPDATE events SET payload = ?, checksum = ? WHERE first = 2", (row[4], row[5]))
    assert "the rows 0 to 3 of the copy are not those of the topic" in verify_topic(address, tmp_path / "j.db").faults
    journal.close()
