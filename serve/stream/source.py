"""Where a stream comes from and where its answers go: what the streamer needs of a broker."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from serve.errors import ServeError


class StreamError(ServeError):
    """A stream's broker cannot be reached, or did not confirm."""


@dataclass(frozen=True)
class Received:
    """A message.

    Attributes:
        value: What it says.
        place: Where it is in the source, for people: topic, partition and offset, or a stream and an id.
        position: The same as the source has it.
    """

    value: bytes | None
    place: str
    position: object


@dataclass(frozen=True)
class Answered:
    """What goes out for a message.

    Attributes:
        key: A transaction id, by which whoever reads the answers finds one, and tells a repeat; None for a table.
        body: The answer, JSON or an Arrow IPC stream.
    """

    key: str | None
    body: bytes


@dataclass(frozen=True)
class DeadLetter:
    """A message that could not be taken.

    Attributes:
        received: The message.
        reason: Why.
    """

    received: Received
    reason: str


class Source(Protocol):
    """A stream of messages in, of answers and dead letters out. One thread at a time may use it."""

    def read(self, most: int, seconds: float) -> list[Received]:
        """The next messages, or none after so many seconds.

        Raises:
            StreamError: The broker cannot be read.
        """

    def send(self, answers: Sequence[Answered], dead: Sequence[DeadLetter]) -> None:
        """Send answers and dead letters, and wait until the broker has them.

        Raises:
            StreamError: It is not known to have them all.
        """

    def confirm(self, messages: Sequence[Received]) -> None:
        """Note that these were dealt with: they are not delivered again, unless they were given to another reader."""

    def lag(self) -> int:
        """Messages that wait in what this reader is given."""

    def close(self) -> None:
        """Leave the group of readers, so that others take over at once."""
