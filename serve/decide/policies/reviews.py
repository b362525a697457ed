"""How many reviews a day a policy may give: counted over the journal, in its order, so that a replay counts alike."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from serve.decide.policies.model import ReviewLimit

REMEMBERED: Final = 100_000  # payments that got no review, for when one of them is asked about again


class ReviewCount:
    """Gives the places that a day has for reviews to the payments that come first.

    A day is one of the policy's zone. It begins with the first payment of that day and not of an earlier one: a payment
    that comes late counts for the day that the journal has come to.

    Args:
        limit: How many there are.
        zone: In which days are told.
    """

    def __init__(self, limit: ReviewLimit, zone: ZoneInfo) -> None:
        self._limit, self._zone = limit, zone
        self._ends = 0  # when the day ends, us
        self._payments = self._reviews = 0  # of the day
        self._decided = 0  # offset after the last payment that was looked at
        self._cut: OrderedDict[int, None] = OrderedDict()

    def take(self, offsets: Sequence[int], times: Sequence[int], wanted: Sequence[bool]) -> list[bool]:
        """Which of the payments that are to be reviewed have a place.

        Args:
            offsets: Of payments in the journal, [n]; each new one is counted once, in this order, which must rise
                among them. An earlier one gets what it got.
            times: Of the payments, us, [n].
            wanted: Whether the policy would review it, [n].

        Returns:
            [n]; False also for those that are not to be reviewed.
        """
        return [self._one(*row) for row in zip(offsets, times, wanted, strict=True)]

    def _one(self, offset: int, time: int, wanted: bool) -> bool:
        if offset < self._decided:
            return wanted and offset not in self._cut
        self._decided = offset + 1
        if time >= self._ends:
            self._ends, self._payments, self._reviews = self._midnight(time), 0, 0
        self._payments += 1
        if not wanted:
            return False
        if self._reviews < self._places():
            self._reviews += 1
            return True
        self._cut[offset] = None
        if len(self._cut) > REMEMBERED:
            self._cut.popitem(last=False)
        return False

    def _places(self) -> float:
        if self._limit.count is not None:
            return self._limit.count
        return (self._limit.share or 0.0) * self._payments

    def _midnight(self, time: int) -> int:
        day = datetime.fromtimestamp(time // 1_000_000, self._zone) + timedelta(days=1)
        after = datetime(day.year, day.month, day.day, tzinfo=self._zone)
        return int(after.timestamp()) * 1_000_000

    def facts(self) -> dict[str, Any]:
        """What a snapshot keeps, as JSON."""
        return {
            "ends": self._ends,
            "payments": self._payments,
            "reviews": self._reviews,
            "decided": self._decided,
            "cut": list(self._cut),
        }

    def adopt(self, facts: Mapping[str, Any]) -> None:
        """Go on from what `facts` gave."""
        self._ends, self._payments, self._reviews = facts["ends"], facts["payments"], facts["reviews"]
        self._decided, self._cut = facts["decided"], OrderedDict.fromkeys(facts["cut"])
