"""A Kafka topic as a source: readers of one group share its partitions, answers go to another topic."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from data.journal.kafka_topic import Address, client_library, dead_letter_topic
from serve.stream.source import Answered, DeadLetter, Received, StreamError

log = logging.getLogger("ringwatch")
TIMEOUT: Final = 10.0  # seconds


class KafkaSource:
    """Messages of a topic; see `serve.stream.source.Source`.

    Where a message is in the group is told to the broker once its answer is there. A reader that dies, or is too slow
    and loses its partitions, leaves what it has not told to the next.

    Args:
        address: `kafka://host:port/topic`; it may have several partitions.
        answers: Topic for answers, on the same brokers; None sends none.
        group: Of the readers that share the topic.
        options: More settings of librdkafka.
        timeout: Seconds to wait for a broker.

    Raises:
        JournalError: The address is none, or the package is missing.
    """

    def __init__(
        self,
        address: str,
        answers: str | None,
        group: str = "ringwatch",
        options: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self.address, self._answers, self._timeout = Address.parse(address), answers, timeout
        self._kafka = client_library()
        common = {"log_level": 2, **(options or {}), "bootstrap.servers": self.address.brokers}
        self._consumer = self._kafka.Consumer(
            {
                "auto.offset.reset": "earliest",
                **common,
                "group.id": group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
            }
        )
        self._producer = self._kafka.Producer(
            {
                "linger.ms": 2,
                "compression.type": "lz4",
                "message.timeout.ms": int(1000 * timeout),
                **common,
                "enable.idempotence": True,
                "acks": "all",
            }
        )
        self._consumer.subscribe([self.address.topic], on_revoke=self._revoked)

    def read(self, most: int, seconds: float) -> list[Received]:
        """The next messages of the partitions that this reader has."""
        found = []
        try:
            messages = self._consumer.consume(most, timeout=seconds)
        except self._kafka.KafkaException as error:
            raise StreamError(f"{self.address} cannot be read: {error.args[0].str()}") from error
        for message in messages:
            if (failed := message.error()) is not None:
                if failed.fatal():
                    raise StreamError(f"{self.address} cannot be read: {failed.str()}")
                log.info("%s: %s", self.address, failed.str())
                continue
            position = (message.partition(), message.offset())
            found.append(Received(message.value(), f"{message.topic()}/{position[0]}/{position[1]}", position))
        return found

    def send(self, answers: Sequence[Answered], dead: Sequence[DeadLetter]) -> None:
        """Send answers and dead letters, and wait until all replicas that are in sync have them."""
        failed: list[str] = []

        def told(error: Any, _: Any) -> None:
            if error is not None:
                failed.append(error.str())

        sent: list[tuple[str, str | None, bytes | None, list[tuple[str, bytes]]]] = []
        if self._answers is not None:
            sent = [(self._answers, answer.key, answer.body, []) for answer in answers]
        buried = dead_letter_topic(self.address.topic)
        sent += [(buried, d.received.place, d.received.value, [("reason", d.reason.encode())]) for d in dead]
        try:
            for topic, key, body, headers in sent:
                self._produce(topic, key, body, headers, told)
            left = self._producer.flush(self._timeout + 1)
        except (self._kafka.KafkaException, BufferError) as error:
            raise StreamError(f"{self.address}: answers cannot be sent: {error}") from error
        if failed or left:
            raise StreamError(
                f"{self.address}: {len(failed) + left} answers were not confirmed: {(failed or ['late'])[0]}"
            )

    def confirm(self, messages: Sequence[Received]) -> None:
        """Tell the group how far this reader has come."""
        upto: dict[int, int] = {}
        for message in messages:
            partition, offset = cast(tuple[int, int], message.position)
            upto[partition] = max(upto.get(partition, 0), offset + 1)
        places = [self._kafka.TopicPartition(self.address.topic, p, offset) for p, offset in upto.items()]
        try:
            self._consumer.commit(offsets=places, asynchronous=False)
        except self._kafka.KafkaException as error:
            # Its partitions were given to another reader, who gets these messages again and finds them recorded.
            log.warning("%s: not confirmed, and delivered again: %s", self.address, error.args[0].str())

    def lag(self) -> int:
        """Messages that wait in the partitions that this reader has, as of the last fetch of each."""
        total = 0
        try:
            for place in self._consumer.position(self._consumer.assignment()):
                low, high = self._consumer.get_watermark_offsets(place, cached=True)
                total += max(0, high - max(place.offset, low)) if high >= 0 else 0
        except self._kafka.KafkaException as error:
            log.debug("%s: lag is not known: %s", self.address, error)
        return total

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()
        self._producer.flush(self._timeout)

    def _produce(self, topic: str, key: str | None, body: bytes | None, headers: Any, told: Any) -> None:
        try:
            self._producer.produce(topic, body, key, headers=headers, on_delivery=told)
        except BufferError:  # its queue is full: wait for what is in it
            self._producer.flush(self._timeout)
            self._producer.produce(topic, body, key, headers=headers, on_delivery=told)

    def _revoked(self, _: Any, places: Any) -> None:
        # A batch is dealt with before the next is asked for, so that nothing of these partitions is in hand here.
        log.info("%s: partitions %s go to another reader", self.address, [place.partition for place in places])
