"""The journal on a Kafka topic of one partition: the broker gives the order, a local copy everything that is looked up.

A commit is one record. It is appended, confirmed by all replicas that are in sync, and takes its place behind whatever
other writers appended before it; what is a repeat or a contradiction is decided in that order (`kafka_copy`). A writer
that no other one came between learns its rows' offsets from the broker's confirmation, and reads nothing back.
"""

import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.errors import JournalError
from data.journal.kafka_copy import LocalCopy
from data.journal.kafka_records import pack
from data.journal.kafka_topic import Address, Topic, log
from data.journal.protocol import Events
from data.journal.sqlite import SqliteCommit
from data.journal.sqlite_tables import SqliteAnswerStore, SqliteIdIndex, SqliteLabelIndex, SqliteOutcomeIndex

TIMEOUT: Final = 10.0  # seconds


class _Overtaken(Exception):
    """A record of another writer came between."""


class KafkaJournal:
    """A journal on a Kafka topic; see `data.journal.protocol.Journal`.

    Several processes, on one machine or several, may write. Rows of `Commit.events` are where they came to be in the
    topic's order; a payment that another writer appended first is not among them.

    Args:
        address: `kafka://host:port/topic`. The topic is made where it is missing and the broker lets us.
        copy: The local copy; made, and filled from the topic, where it is missing. Processes of one machine may share
            one.
        options: More settings of librdkafka, such as `security.protocol`.
        window_us: How far back readers look: a topic that is set to forget earlier is refused.
        timeout: Seconds to wait for a broker, before a commit or a look at the topic fails.

    Raises:
        JournalError: No broker answers, the topic is not fit for a journal, or it is not the one of the copy.

    Examples:
        >>> from data.journal.kafka import KafkaJournal
        >>> from data.journal.kafka_topic import Address
        >>> journal = KafkaJournal("kafka://localhost:9092/journal", "var/journal.sqlite")  # doctest: +SKIP
        >>> with journal.begin() as commit:  # doctest: +SKIP
        ...     commit.append(Kind.TRANSACTION, payments)
        0
    """

    def __init__(
        self,
        address: str | Address,
        copy: Path | str,
        *,
        options: Mapping[str, str] | None = None,
        window_us: int | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self.address = address if isinstance(address, Address) else Address.parse(address)
        self.topic = Topic(self.address, options or {}, timeout)
        try:
            self.topic.check(window_us, create=True)
            self.copy = LocalCopy(copy, str(self.address))
        except BaseException:
            self.topic.close()
            raise
        self._lock = threading.RLock()
        self._committing = False
        self._writer, self._sequence = 0, 0
        try:
            self._recognise()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """The local copy: a SQLite journal that can be read as any other."""
        return self.copy.path

    @property
    def ids(self) -> SqliteIdIndex:
        """Where transaction ids are, as far as the topic was read."""
        return self.copy.ids

    @property
    def labels(self) -> SqliteLabelIndex:
        """What was reported of payments, as far as the topic was read."""
        return self.copy.labels

    @property
    def outcomes(self) -> SqliteOutcomeIndex:
        """What became of payments, as far as the topic was read."""
        return self.copy.outcomes

    @property
    def answers(self) -> SqliteAnswerStore:
        """Answers given for transactions, by the writers that share the local copy."""
        return self.copy.answers

    @property
    def end(self) -> int:
        """How many rows the topic holds; what is not in the local copy yet is read first.

        Raises:
            JournalError: No broker answers, or the topic lost events.
        """
        if self._lock.acquire(blocking=False):
            try:
                if not self._committing:
                    self._read_on()
            finally:
                self._lock.release()
        return self.copy.length

    @contextmanager
    def begin(self) -> Iterator[SqliteCommit]:
        """Open a group commit; its record is in the topic when the block is left, nothing of it if that raises.

        A broker that does not confirm in time leaves it open whether the record is there: what was sent again then is
        told from news when the topic is read.

        Raises:
            JournalError: The topic cannot be read or written, an append failed, or a commit is open already.
        """
        with self._lock:
            if self._committing:
                raise JournalError("cannot begin a commit: another one of this journal is open")
            self._committing = True
            try:
                self._read_on()
                commit: SqliteCommit | None = None
                try:
                    with self.copy.begin() as commit:
                        yield commit
                        if commit.events and not commit.spoilt:
                            self._append(commit.events)
                except _Overtaken as overtaken:
                    assert commit is not None
                    commit.events[:] = self._read_on(int(overtaken.args[0]) + 1)
                    commit.end = self.copy.length
            finally:
                self._committing = False

    def replay(self, start: int = 0, stop: int | None = None, chunk: int = 65536) -> Iterator[Events]:
        """The rows [start, stop) in order, of the local copy.

        Raises:
            JournalError: `start` is not in [0, end], `chunk` is not positive, or rows cannot be read as written.
        """
        stop = self.end if stop is None else stop
        if stop > self.copy.length:
            stop = min(stop, self.end)
        yield from self.copy.replay(start, stop, chunk)

    def take(self, offsets: NDArray[np.int64]) -> pa.Table:
        """Transactions by offset, in the order asked for, of the local copy."""
        return self.copy.take(offsets)

    def close(self) -> None:
        """Let go of the topic and of the local copy."""
        self.topic.close()
        self.copy.close()

    def _append(self, events: Sequence[Events]) -> None:
        """Append the record of an open commit.

        Raises:
            _Overtaken: Records of other writers came before it: it has to be read back behind them.
        """
        if not self.topic.has_producer:  # a new producer is a new writer
            self._writer, self._sequence = secrets.randbits(64), 0
        self._sequence += 1
        value = pack(self._writer, self._sequence, events)
        offset = self.topic.append(value)
        expected = self.copy.place.position
        if offset < expected:
            raise JournalError(self._other_topic(f"appended at {offset}, after {expected} were read"))
        if offset != expected:
            raise _Overtaken(offset)
        self.copy.note(offset, value, self._writer, self._sequence)

    def _read_on(self, stop: int | None = None) -> list[Events]:
        """Bring the local copy up to an offset of the topic, or its end; returns the rows of this writer's record."""
        own: list[Events] = []
        if stop is None:
            position = self.copy.place.position  # first: a process that shares the copy may move both on
            stop = self.topic.bounds()[1]
            if stop < position:
                raise JournalError(self._other_topic(f"ends at {stop}, and was read up to {position}"))
        while (position := self.copy.place.position) < stop:
            messages, upto = self.topic.read(position, stop)
            done = self.copy.apply(messages, upto, (self._writer, self._sequence))
            own = done.own or own
            if done.foreign:
                self._bury()
        return own

    def _bury(self) -> None:
        letters = self.copy.dead_letters()
        for offset, reason, _ in letters:
            log.warning("%s: passed over the message at offset %s: %s", self.address, offset, reason)
        self.copy.buried(self.topic.bury(letters))

    def _recognise(self) -> None:
        """Make sure that the topic goes on where the local copy ends.

        Raises:
            JournalError: It lost events that the copy has not read, or is another one.
        """
        place = self.copy.place
        low, high = self.topic.bounds()
        if place.position < low:
            raise JournalError(
                f"{self.address} no longer holds the messages {place.position} to {low - 1}, which {self.path} lacks: "
                "its retention is too short. Put the local copy of another replica there, and set retention.ms to -1"
            )
        if high < place.position:
            raise JournalError(self._other_topic(f"ends at {high}, and was read up to {place.position}"))
        if place.last >= low:
            messages, _ = self.topic.read(place.last, place.last + 1)
            if not messages or not place.follows(*messages[0]):
                raise JournalError(self._other_topic(f"holds another message at {place.last}"))

    def _other_topic(self, what: str) -> str:
        return (
            f"{self.address} is not the topic that {self.path} is a copy of, or lost events: it {what}. Restore the "
            "topic, or begin anew with another topic and another file"
        )
