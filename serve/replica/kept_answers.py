"""The answers that were given, so that a payment sent again is answered as it was."""

import logging
from collections.abc import Sequence
from typing import Any

from data.errors import JournalError
from data.journal.protocol import Journal
from serve.decide.decision import Decision
from serve.replica.admission import Admitted, GivenBefore
from serve.replica.answers import Answers, as_json, earlier_decision, with_earlier_decision

log = logging.getLogger("ringwatch")


class KeptAnswers:
    """Answers by journal offset: written to the journal's answer store when nothing waits, and found before that too.

    Args:
        journal: Whose answer store is used.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._new: dict[int, bytes] = {}  # not in the store yet
        self._changed: dict[int, bytes] = {}  # to take the place of what the store has

    def find(self, offsets: Sequence[int]) -> dict[int, bytes]:
        """The answers kept for the payments at these offsets; an offset without one is not among the keys.

        Raises:
            JournalError: The store cannot be read.
        """
        given = self._new | self._changed
        mine = {offset: given[offset] for offset in offsets if offset in given}
        return self._journal.answers.find([offset for offset in offsets if offset not in mine]) | mine

    def note(self, offset: int, answer: bytes) -> None:
        """Keep an answer; the first for an offset stays."""
        self._new.setdefault(offset, answer)

    def change(self, offset: int, answer: bytes) -> None:
        """Keep an answer in the place of what was kept for an offset."""
        self._changed[offset] = answer

    def bodies(self, admitted: Admitted, answers: Answers) -> list[bytes]:
        """Answers as JSON. A payment that was there before is answered as it was then, if that was kept."""
        offsets, reasons = admitted.offsets, admitted.call.reasons
        again = [offset for offset, known in zip(offsets, admitted.known, strict=True) if known and reasons]
        kept = self.find(again) if again else {}
        bodies = []
        for i, offset in enumerate(offsets):
            body, earlier = kept.get(offset), admitted.earlier[i]
            if body is None:
                body = as_json(answers, i)
                if reasons and answers.scored_by[i] != "rules":
                    self.note(offset, body)
            elif earlier is not None and earlier_decision(body) is None:
                body = with_earlier_decision(body, earlier)
                self.change(offset, body)
            bodies.append(body)
        return bodies

    def unsettled(self, outcomes: Sequence[Any]) -> list[GivenBefore]:
        """Decisions of payments that were decided before they were recorded, and whose journal lacks that.

        Where it has a decision already, that one stands.
        """
        found: list[GivenBefore] = []
        now: dict[int, Decision] = {}  # in this commit
        for admitted in outcomes:
            if not isinstance(admitted, Admitted) or not any(admitted.earlier):
                continue
            kept = self.find([o for o, known in zip(admitted.offsets, admitted.known, strict=True) if known])
            columns = ("transaction_id", "account_id", "mandate_id")
            ids, accounts, mandates = (admitted.call.batch.column(name).to_pylist() for name in columns)
            for i, (offset, decision) in enumerate(zip(admitted.offsets, admitted.earlier, strict=True)):
                if decision is None:
                    continue
                stands = now.get(offset) or (earlier_decision(kept[offset]) if offset in kept else None)
                if stands is not None:
                    admitted.earlier[i] = stands
                else:
                    now[offset] = decision
                    found.append(GivenBefore(ids[i], decision, accounts[i], mandates[i]))
        return found

    def write(self) -> None:
        """Write them to the store. One that cannot be written is lost: it can be computed again."""
        for answers, replace in ((self._new, False), (self._changed, True)):
            if answers:
                try:
                    self._journal.answers.keep(list(answers.items()), replace=replace)
                except JournalError as error:
                    log.warning("answers not kept: %s", error)
        self._new, self._changed = {}, {}
