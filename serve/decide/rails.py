"""What each rail did, as of a place in the journal: the outcomes that a router learns from.

An outcome `approved` or `declined` whose `by` is a rail's name counts for that rail. Counts
fade: an outcome weighs half as much after `HALF_LIFE` more of its rail. What is new is read from the next step
of `STEP` events of the journal on, so that a bounded number of steps need to be kept.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from data.journal.protocol import Events, Kind

HALF_LIFE: Final = 2_000.0  # outcomes of a rail
STEP: Final = 256  # events of the journal
STEPS: Final = 4_096  # that are remembered: a million events and more
PRIOR: Final = 20.0  # outcomes that what a policy says of a rail is worth
DOWN: Final = 12  # outcomes in a row that failed
MOST_NAMES: Final = 256  # rails that are counted; others are somebody's free text
SUCCESS, FAILURE = "approved", "declined"


@dataclass(frozen=True, slots=True)
class Counted:
    """Outcomes of one rail, faded.

    Attributes:
        good: Those that were approved.
        bad: Those that were declined.
        failed: How many failed since the last success.
    """

    good: float = 0.0
    bad: float = 0.0
    failed: int = 0

    def after(self, success: bool) -> "Counted":
        """With one more outcome."""
        keep = 0.5 ** (1.0 / HALF_LIFE)
        return Counted(keep * self.good + success, keep * self.bad + (not success), 0 if success else self.failed + 1)


@dataclass(frozen=True, slots=True)
class Rates:
    """What is known of rails at one place in the journal.

    Attributes:
        rails: By name.
    """

    rails: Mapping[str, Counted]

    @classmethod
    def of(cls, prior: Mapping[str, float]) -> "Rates":
        """Nothing but what a policy says."""
        return cls({name: Counted() for name in prior})

    def table(self, prior: Mapping[str, float]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """What a router reads.

        Args:
            prior: Rails and their chance of success before any outcome.

        Returns:
            Chance of success, float64 [rails], and which rails are down, bool [rails].
        """
        counted = [self.rails.get(name, Counted()) for name in prior]
        good, bad = np.array([c.good for c in counted]), np.array([c.bad for c in counted])
        success = (good + PRIOR * np.array(list(prior.values()))) / (good + bad + PRIOR)
        return success, np.array([c.failed >= DOWN for c in counted])


class RailBook:
    """Outcomes by rail; whoever follows the journal hands it every event in order (`apply`).

    Example:
        >>> import pyarrow as pa
        >>> from data.journal.protocol import SCHEMAS
        >>> event = {"transaction_id": "t-1", "outcome": "declined", "by": "bank", "outcome_id": "o-1"}
        >>> book = RailBook()
        >>> book.apply(Events(Kind.OUTCOME, 7, pa.RecordBatch.from_pylist([event], SCHEMAS[Kind.OUTCOME])))
        >>> before, after = book.of([8, 600])  # a step later it is read
        >>> "bank" in before.rails, after.rails["bank"].failed
        (False, 1)
    """

    def __init__(self) -> None:
        self._now: dict[str, Counted] = {}
        self._step = 0  # that the newest outcomes belong to
        self._at: list[int] = []  # steps from which on each of `_read` is read
        self._read: list[Rates] = []

    def apply(self, events: Events) -> None:
        """Take in events; those that are no outcomes of a rail change nothing."""
        if events.kind is not Kind.OUTCOME:
            return
        columns = (events.batch.column(name).to_pylist() for name in ("outcome", "by"))
        for i, (outcome, by) in enumerate(zip(*columns, strict=True)):
            if by is None or outcome not in (SUCCESS, FAILURE):
                continue
            if by not in self._now and len(self._now) >= MOST_NAMES:
                continue
            self._publish((events.offset + i) // STEP)
            self._now[by] = self._now.get(by, Counted()).after(outcome == SUCCESS)
            self._step = (events.offset + i) // STEP + 1

    def of(self, offsets: Sequence[int]) -> list[Rates]:
        """What was known as of each payment, [n]: outcomes of the steps before its own."""
        found = []
        for offset in offsets:
            step = offset // STEP
            if self._step and step >= self._step:
                found.append(self._newest())
                continue
            at = bisect_right(self._at, step) - 1
            found.append(self._read[at] if at >= 0 else _NOTHING)
        return found

    def facts(self) -> dict[str, Any]:
        """What a snapshot keeps, as JSON."""
        newest = [[self._step, _plain(self._now)]] if self._step else []
        return {"steps": [[at, _plain(rates.rails)] for at, rates in zip(self._at, self._read, strict=True)] + newest}

    def adopt(self, facts: Mapping[str, Any]) -> None:
        """Go on from what `facts` gave."""
        self._now, self._step, self._at, self._read = {}, 0, [], []
        steps = [
            (at, {name: Counted(*counts) for name, counts in rails.items()}) for at, rails in facts.get("steps", ())
        ]
        if steps:
            self._step, self._now = steps[-1]
            self._at = [at for at, _ in steps[:-1]]
            self._read = [Rates(rails) for _, rails in steps[:-1]]

    def _newest(self) -> Rates:
        self._publish(self._step)
        return self._read[-1]

    def _publish(self, step: int) -> None:
        """Make what is counted readable, if it is complete: no outcome of its step can come any more."""
        if self._step and step >= self._step and (not self._at or self._at[-1] < self._step):
            self._at.append(self._step)
            self._read.append(Rates(dict(self._now)))
            del self._at[:-STEPS], self._read[:-STEPS]


_NOTHING: Final = Rates({})


def _plain(rails: Mapping[str, Counted]) -> dict[str, list[Any]]:
    return {name: [c.good, c.bad, c.failed] for name, c in rails.items()}
