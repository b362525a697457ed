"""What a run has read, told by count and digest, so that a later run can tell whether its input begins with the same.

For a journal that is all of it: a journal only grows at its end. Of files it is what comes up to the last payment.
Labels that come behind it are put in order by their times, and so later payments may come before them.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from data.digests import content_digests
from data.errors import DataError
from data.journal.protocol import Events, Kind

_KEY: Final = (np.uint64(0), np.uint64(0))  # nothing that is found by these digests has to be kept from anybody


@dataclass(frozen=True)
class Prefix:
    """The first events of an input.

    Attributes:
        events: How many.
        digest: Of their content; of a journal, of the last one alone.
    """

    events: int
    digest: str


@dataclass(frozen=True)
class Former:
    """What a run that is done had read.

    Attributes:
        folder: Of the run.
        input: Identity of what it read.
        prefix: What an input must begin with to go on from it.
    """

    folder: Path
    input: Mapping[str, Any]
    prefix: Prefix

    def check_kind(self, identity: Mapping[str, Any]) -> None:
        """Refuse another kind of input.

        Raises:
            DataError: It is.
        """
        if self.input["kind"] != identity["kind"]:
            raise DataError(
                f"{self.folder} had read a {self.input['kind']} input, and this one is {identity['kind']}: offsets "
                "of the one mean nothing in the other"
            )


class Passed:
    """Events that come by, and whether they begin with those that a former run had read.

    Args:
        former: That run, if any.
        hint: What is known to differ, for people.

    Attributes:
        prefix: All events up to the last payment so far.
    """

    def __init__(self, former: Former | None = None, hint: str = "") -> None:
        self._former, self._hint = former, hint
        self._hash, self._count = hashlib.sha256(), 0
        self.prefix = Prefix(0, "")

    def through(self, stream: Iterable[Events]) -> Iterator[Events]:
        """The events of a stream from its beginning, each once it is noted.

        Raises:
            DataError: They do not begin with what the former run had read.
        """
        for events in stream:
            self._note(events)
            yield events
        if self._former is not None and self._count < self._former.prefix.events:
            raise DataError(
                f"this input ends after {self._count:,} events, and {self._former.folder} had read "
                f"{self._former.prefix.events:,} up to its last payment{self._hint}: a run goes on from another one "
                "where its input begins with the other's"
            )

    def _note(self, events: Events) -> None:
        digests = content_digests(_KEY, events.batch)
        due = -1 if self._former is None else self._former.prefix.events - self._count
        if 0 < due <= len(digests):
            self._hash.update(digests[:due].tobytes())
            self._check()
            digests = digests[due:]
        self._hash.update(digests.tobytes())
        self._count += len(events.batch)
        if events.kind is Kind.TRANSACTION:
            self.prefix = Prefix(self._count, self._hash.hexdigest())

    def _check(self) -> None:
        assert self._former is not None
        if self._hash.hexdigest() != self._former.prefix.digest:
            raise DataError(
                f"the first {self._former.prefix.events:,} events of this input are not those that "
                f"{self._former.folder} had read{self._hint}: payments or labels among them were added, changed, left "
                "out or reported earlier. Score the whole of it, without --since"
            )
