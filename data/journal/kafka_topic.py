"""A Kafka topic of one partition, as a journal needs it: append and wait, where it ends, and reading on from an offset.

Three clients, since a broker answers the requests of one connection in order: a question for the end of the topic on
the connection of the reader would wait for the reader's long poll.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from data.errors import JournalError

log = logging.getLogger("ringwatch")
MAX_MESSAGE: Final = 32 << 20  # bytes of the largest commit in a topic that is made here
_READ: Final = 500  # messages asked for at once
_POLL_MS: Final = 25  # a broker answers at once when there is something; one that does not wake up is asked again
_OWN: Final = frozenset(
    {"bootstrap.servers", "enable.idempotence", "acks", "enable.auto.commit", "enable.partition.eof"}
)


@dataclass(frozen=True)
class Address:
    """Where a topic is.

    Attributes:
        brokers: As Kafka's `bootstrap.servers` has them: `host:port`, several with commas between.
        topic: Its name.
    """

    brokers: str
    topic: str

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read `kafka://host:port[,host:port]/topic`.

        Raises:
            JournalError: It is not written like this.

        Examples:
            >>> Address.parse("kafka://broker-1:9092,broker-2:9092/payments")
            Address(brokers='broker-1:9092,broker-2:9092', topic='payments')
        """
        scheme, _, rest = text.partition("://")
        brokers, _, topic = rest.partition("/")
        plain = bool(topic) and all(c.isascii() and (c.isalnum() or c in "._-") for c in topic) and len(topic) <= 249
        ported = [part.rpartition(":") for part in brokers.split(",")]
        if scheme != "kafka" or not plain or not all(host and port.isdigit() for host, _, port in ported):
            raise JournalError(f"{text!r} is no address of a topic: write it as kafka://host:port/topic")
        return cls(brokers, topic)

    def __str__(self) -> str:
        return f"kafka://{self.brokers}/{self.topic}"


def client_library() -> Any:
    """The package confluent_kafka, which is installed where Kafka is used.

    Raises:
        JournalError: It is not.
    """
    try:
        import confluent_kafka
        import confluent_kafka.admin
    except ImportError as error:
        raise JournalError("Kafka needs the package confluent-kafka: pip install 'ringwatch[kafka]'") from error
    return confluent_kafka


class Topic:
    """One partition of a topic, for one thread at a time.

    Args:
        address: Where it is.
        options: More settings of librdkafka, such as `security.protocol` and `sasl.password`.
        timeout: Seconds to wait for a broker before giving up.

    Raises:
        JournalError: The package is missing, or an option is refused.
    """

    def __init__(self, address: Address, options: Mapping[str, str], timeout: float) -> None:
        self.address, self.timeout = address, timeout
        self._kafka = client_library()
        if taken := sorted(_OWN & set(options)):
            raise JournalError(f"the Kafka option {taken[0]!r} is set by the journal itself; leave it out")
        self._common: dict[str, Any] = {
            "client.id": "ringwatch",
            "reconnect.backoff.max.ms": 1000,
            "socket.nagle.disable": True,
            "log_level": 2,
            "error_cb": lambda error: log.debug("Kafka: %s", error),
            **options,
            "bootstrap.servers": address.brokers,
        }
        self.max_message = int(options.get("message.max.bytes", MAX_MESSAGE))
        self._partition = self._kafka.TopicPartition(address.topic, 0)
        self._producer: Any = None
        self._at: int | None = None  # offset that the reader delivers next
        with self._speaking("cannot be opened"):
            self._asker = self._consumer({})
            self._reader = self._consumer({"enable.partition.eof": True, "fetch.wait.max.ms": _POLL_MS})

    def check(self, window_us: int | None, create: bool) -> None:
        """Look whether the topic is one that a journal can live in; make it where it is missing.

        Args:
            window_us: How far back its readers look: a topic that forgets earlier than that is refused.
            create: Whether it may be made.

        Raises:
            JournalError: It has several partitions, forgets too early, or there is none.
        """
        if (partitions := self._partitions()) == 0 and create:
            self._create()
            partitions = self._partitions()
        if partitions != 1:
            what = f"has {partitions} partitions" if partitions else "is not there"
            raise JournalError(
                f"{self.address} {what}; a journal needs one partition, which is one order: "
                f"kafka-topics --create --topic {self.address.topic} --partitions 1 --config retention.ms=-1 "
                f"--config max.message.bytes={MAX_MESSAGE}"
            )
        self._check_settings(window_us)

    def bounds(self) -> tuple[int, int]:
        """The topic's first offset, and the one that its next message takes.

        Raises:
            JournalError: No broker answers.
        """
        deadline = time.monotonic() + self.timeout
        with self._speaking("cannot be read"):
            while True:
                try:
                    low, high = self._asker.get_watermark_offsets(self._partition, timeout=self.timeout, cached=False)
                    return low, high
                except self._kafka.KafkaException as error:
                    # A client that lost all brokers forgets its topics, and learns of them again when one is back.
                    unknown = error.args[0].code() == self._kafka.KafkaError._UNKNOWN_PARTITION
                    if not unknown or time.monotonic() > deadline:
                        raise
                time.sleep(0.05)

    def append(self, value: bytes) -> int:
        """Append one message, and wait until all replicas that are in sync have it; returns its offset.

        Raises:
            JournalError: It is too large, or not known to be there. In the latter case it may come to be there later.
        """
        if len(value) + 1024 > self.max_message:
            raise JournalError(
                f"a commit of {len(value):,} bytes is larger than {self.address} takes ({self.max_message:,} bytes): "
                f"set its max.message.bytes to {MAX_MESSAGE}, or send fewer payments at once"
            )
        said: list[tuple[Any, int]] = []
        try:
            with self._speaking("cannot be written"):
                if self._producer is None:
                    self._producer = self._new_producer()
                self._producer.produce(
                    self.address.topic, value, partition=0, on_delivery=lambda e, m: said.append((e, m.offset()))
                )
                deadline = time.monotonic() + self.timeout + 1
                while not said and time.monotonic() < deadline:
                    self._producer.poll(1.0)
            if not said:
                raise JournalError(f"{self.address} does not answer")
            error, offset = said[0]
            if error is not None:
                raise JournalError(f"{self.address} did not confirm a commit: {error.str()}")
        except JournalError as error:
            self._drop_producer()
            raise JournalError(f"{error}; it may be recorded or not: send the same again") from error
        return int(offset)

    @property
    def has_producer(self) -> bool:
        """Whether the next `append` goes on with the producer of the last one."""
        return self._producer is not None

    def read(self, start: int, stop: int) -> tuple[list[tuple[int, bytes | None]], int]:
        """Some of the messages in [start, stop), and the offset to go on from, which is above `start`.

        Raises:
            JournalError: The topic holds them no longer, or no broker answers.
        """
        found: list[tuple[int, bytes | None]] = []
        with self._speaking("cannot be read"):
            if self._at is None or self._at > start or self._at + _READ < start:
                self._reader.assign([self._kafka.TopicPartition(self.address.topic, 0, start)])
                self._at = start
            deadline = time.monotonic() + self.timeout
            while self._at <= start or (not found and self._at < stop):
                for message in self._reader.consume(_READ, timeout=min(0.05, self.timeout)):
                    self._deliver(message, start, found)
                if time.monotonic() > deadline:
                    raise JournalError(
                        f"{self.address}: no broker gave the messages from {start} within {self.timeout} s"
                    )
        return found, self._at

    def bury(self, letters: Sequence[tuple[int, str, bytes | None]]) -> list[int]:
        """Put messages that no journal wrote into the topic's dead-letter topic; returns the offsets of those there.

        Every machine that reads the topic does so: the key, which is the message's offset, tells copies apart.
        """
        done: list[int] = []

        def told(offset: int) -> Callable[[Any, Any], None]:
            return lambda error, _: done.append(offset) if error is None else None

        with suppress(JournalError), self._speaking("cannot be written"):
            if self._producer is None:
                self._producer = self._new_producer()
            for offset, reason, value in letters:
                headers = [("reason", reason.encode()), ("topic", self.address.topic.encode())]
                self._producer.produce(
                    dead_letter_topic(self.address.topic), value, str(offset), headers=headers, on_delivery=told(offset)
                )
            self._producer.flush(self.timeout)
        return done

    def close(self) -> None:
        """Let go of the connections."""
        for client in (self._reader, self._asker):
            client.close()
        self._drop_producer()

    def _deliver(self, message: Any, start: int, found: list[tuple[int, bytes | None]]) -> None:
        error = message.error()
        if error is None:
            self._at = message.offset() + 1
            if message.offset() >= start:
                found.append((message.offset(), message.value()))
        elif error.code() == self._kafka.KafkaError._PARTITION_EOF:
            self._at = max(self._at or 0, message.offset())
        elif error.code() in (self._kafka.KafkaError._AUTO_OFFSET_RESET, self._kafka.KafkaError.OFFSET_OUT_OF_RANGE):
            self._at = None
            raise JournalError(f"{self.address} no longer holds the messages from {start}: {error.str()}")
        elif not error.retriable() and error.fatal():
            raise self._kafka.KafkaException(error)

    def _consumer(self, more: Mapping[str, Any]) -> Any:
        return self._kafka.Consumer(
            {
                **{k: v for k, v in self._common.items() if k not in _PRODUCERS},
                "group.id": "ringwatch-journal",  # the client asks for one; nothing is committed under it
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "fetch.error.backoff.ms": 20,
                **more,
            }
        )

    def _new_producer(self) -> Any:
        return self._kafka.Producer(
            {
                "message.timeout.ms": int(1000 * self.timeout),
                "message.max.bytes": self.max_message,
                "compression.type": "lz4",
                "linger.ms": 0,
                **self._common,
                "enable.idempotence": True,
                "acks": "all",
            }
        )

    def _drop_producer(self) -> None:
        """A producer that failed is not used again: what it still holds must not come after what the next one sends."""
        if self._producer is not None:
            with suppress(Exception):
                self._producer.purge()
            self._producer = None

    def _admin(self) -> Any:
        return self._kafka.admin.AdminClient({k: v for k, v in self._common.items() if k not in _PRODUCERS})

    def _partitions(self) -> int:
        with self._speaking("cannot be opened"):
            found = self._asker.list_topics(self.address.topic, timeout=self.timeout).topics.get(self.address.topic)
        return 0 if found is None or found.error is not None else len(found.partitions)

    def _create(self) -> None:
        config = {"retention.ms": "-1", "max.message.bytes": str(MAX_MESSAGE), "cleanup.policy": "delete"}
        new = self._kafka.admin.NewTopic(self.address.topic, 1, -1, config=config)
        admin = self._admin()  # held until it has answered: a client that nobody holds ends what it was asked
        with self._speaking("cannot be made"):
            made = admin.create_topics([new], operation_timeout=self.timeout, request_timeout=self.timeout)
            try:
                made[self.address.topic].result(self.timeout + 1)
            except self._kafka.KafkaException as error:
                if error.args[0].code() != self._kafka.KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
            deadline = time.monotonic() + self.timeout
            while not self._partitions() and time.monotonic() < deadline:
                time.sleep(0.05)  # brokers learn of a new topic one after the other

    def _check_settings(self, window_us: int | None) -> None:
        admin_api = self._kafka.admin
        resource = admin_api.ConfigResource(admin_api.ResourceType.TOPIC, self.address.topic)
        admin = self._admin()
        try:
            asked = admin.describe_configs([resource], request_timeout=min(3.0, self.timeout))
            settings = {name: entry.value for name, entry in asked[resource].result(self.timeout).items()}
        except Exception as error:  # not every broker tells, and not every user may ask
            log.warning("%s: its settings are not known: %s", self.address, error)
            return
        refuse_settings(self.address, settings, window_us)
        largest = int(settings.get("max.message.bytes") or self.max_message)
        if largest < MAX_MESSAGE:
            log.warning("%s takes commits up to %s bytes; larger ones will be refused", self.address, f"{largest:,}")
            self.max_message = min(self.max_message, largest)

    def _speaking(self, what: str) -> "_Speaking":
        return _Speaking(f"{self.address} {what}", self._kafka.KafkaException)


_PRODUCERS: Final = frozenset({"message.timeout.ms", "message.max.bytes", "compression.type", "linger.ms"})


def dead_letter_topic(topic: str) -> str:
    """Where messages go that no journal wrote."""
    return f"{topic}.dead-letters"


def refuse_settings(address: Address, settings: Mapping[str, str | None], window_us: int | None) -> None:
    """Refuse settings under which a topic loses what a journal needs.

    Args:
        address: For messages.
        settings: Of the topic.
        window_us: How far back its readers look.

    Raises:
        JournalError: It is compacted, or forgets earlier than its readers look back.
    """
    if "compact" in (settings.get("cleanup.policy") or ""):
        raise JournalError(f"{address} is compacted, which removes events: set its cleanup.policy to 'delete'")
    kept_ms = int(settings.get("retention.ms") or -1)
    if kept_ms >= 0 and window_us is not None and 1000 * kept_ms < window_us:
        raise JournalError(
            f"{address} forgets after {kept_ms / 86_400_000:.3g} days (retention.ms), and the model looks back "
            f"{window_us / 86_400_000_000:.3g} days: set its retention.ms to -1"
        )
    if kept_ms >= 0 or int(settings.get("retention.bytes") or -1) >= 0:
        log.warning("%s forgets old events: a local copy that is lost then cannot be made again; back it up", address)
    if (settings.get("min.insync.replicas") or "2") == "1":
        log.warning("%s: min.insync.replicas is 1: what one broker alone confirmed is lost with it", address)


class _Speaking:
    """Have every error of the library be a `JournalError` that names the topic."""

    def __init__(self, what: str, kind: type[Exception]) -> None:
        self._what, self._kind = what, kind

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, self._kind):
            said = error.args[0]
            raise JournalError(f"{self._what}: {said.str() if hasattr(said, 'str') else said}") from error
        if isinstance(error, BufferError):
            raise JournalError(f"{self._what}: {error}") from error
