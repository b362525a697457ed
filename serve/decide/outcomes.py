"""What became of an account's payments, as of a place in the journal: what policies, routes and prices learn from.

No score reads it. A decision that was given before its payment was recorded counts as nothing here: it says what the
service did, not what came of it.
"""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from data.journal.protocol import Events, Kind

REMEMBERED: Final = 1_000_000  # events of the journal for which it is known how an account stood before
ACCOUNTS: Final = 200_000  # that are remembered: those whose payments had outcomes last
_COUNTED: Final[Mapping[str, str]] = {
    "approved": "approved",
    "declined": "declined",
    "challenge_passed": "challenges_passed",
    "challenge_failed": "challenges_failed",
    "reversed": "reversed",
    "refunded": "refunds",
    "chargeback_opened": "chargebacks",
}

BIOMETRICS: Final = "biometrics"  # an outcome's `by`, where a challenge was that
_BIOMETRIC: Final = {"challenges_passed": "biometrics_passed", "challenges_failed": "biometrics_failed"}


@dataclass(frozen=True, slots=True)
class Tally:
    """How many payments of an account had which outcome, so far.

    Attributes:
        approved: By the bank.
        declined: By the bank, or by the service's advice.
        challenges_passed: Step-ups that the payer passed.
        challenges_failed: Step-ups that failed.
        biometrics_passed: Those of the former that were biometric: reported with `by` as `biometrics`.
        biometrics_failed: Those of the latter, likewise.
        reversed: Payments taken back before they were settled, whole or in part.
        refunds: Money given back afterwards, whole or in part. No fraud by itself.
        chargebacks: Opened, however they ended.
    """

    approved: int = 0
    declined: int = 0
    challenges_passed: int = 0
    challenges_failed: int = 0
    reversed: int = 0
    refunds: int = 0
    chargebacks: int = 0
    biometrics_passed: int = 0
    biometrics_failed: int = 0

    @property
    def challenge_pass_rate(self) -> float | None:
        """Share of challenges that were passed; None where there were none."""
        all_of_them = self.challenges_passed + self.challenges_failed
        return self.challenges_passed / all_of_them if all_of_them else None


NOTHING: Final = Tally()
_Entry = tuple[int, Tally]  # journal offset of an outcome, and the tally from there on


class OutcomeBook:
    """Outcomes by account; whoever follows the journal hands it every event in order (`apply`).

    Examples:
        >>> import pyarrow as pa
        >>> from data.journal.protocol import SCHEMAS
        >>> event = {"transaction_id": "t-1", "outcome": "challenge_passed", "outcome_id": "o-1", "account_id": "ann"}
        >>> book = OutcomeBook()
        >>> book.apply(Events(Kind.OUTCOME, 7, pa.RecordBatch.from_pylist([event], SCHEMAS[Kind.OUTCOME])))
        >>> [tally.challenge_pass_rate for tally in book.of(["ann", "ann", "bob"], [7, 8, 8])]
        [None, 1.0, None]
    """

    def __init__(self) -> None:
        self._of: OrderedDict[str, list[_Entry]] = OrderedDict()

    def apply(self, events: Events) -> None:
        """Take in events; those that are no outcomes change nothing."""
        if events.kind is not Kind.OUTCOME:
            return
        columns = (events.batch.column(name).to_pylist() for name in ("outcome", "outcome_id", "account_id", "by"))
        for i, (outcome, outcome_id, account, by) in enumerate(zip(*columns, strict=True)):
            counted = _COUNTED.get(outcome)
            if counted is not None and outcome_id is not None and account is not None:
                self._count(events.offset + i, account, counted)
                if by == BIOMETRICS and counted in _BIOMETRIC:
                    self._count(events.offset + i, account, _BIOMETRIC[counted])

    def of(self, accounts: Sequence[str], offsets: Sequence[int]) -> list[Tally]:
        """The tally of each account as of a payment's offset, [n]: what the journal held before it."""
        return [self._as_of(self._of.get(name), at) for name, at in zip(accounts, offsets, strict=True)]

    def now(self, account: str) -> Tally:
        """The tally of an account by now."""
        entries = self._of.get(account)
        return entries[-1][1] if entries else NOTHING

    def facts(self) -> list[list[Any]]:
        """What a snapshot keeps, as JSON."""
        return [
            [account, [[at, [*asdict(tally).values()]] for at, tally in entries]]
            for account, entries in self._of.items()
        ]

    def adopt(self, facts: Sequence[Sequence[Any]]) -> None:
        """Go on from what `facts` gave."""
        self._of = OrderedDict(
            (account, [(at, Tally(*counts)) for at, counts in entries]) for account, entries in facts
        )

    def _count(self, offset: int, account: str, counted: str) -> None:
        entries = self._of.setdefault(account, [])
        before = entries[-1][1] if entries else NOTHING
        if entries and entries[0][0] < offset - REMEMBERED:
            del entries[: bisect_left(entries, offset - REMEMBERED, key=_offset) - 1]
        entries.append((offset, replace(before, **{counted: getattr(before, counted) + 1})))
        self._of.move_to_end(account)
        if len(self._of) > ACCOUNTS:
            self._of.popitem(last=False)

    @staticmethod
    def _as_of(entries: Sequence[_Entry] | None, offset: int) -> Tally:
        at = bisect_left(entries, offset, key=_offset) - 1 if entries else -1
        return entries[at][1] if entries and at >= 0 else NOTHING


def _offset(entry: _Entry) -> int:
    return entry[0]
