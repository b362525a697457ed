"""The answers that were given, so that a payment sent again is answered as it was."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data.errors import JournalError
from data.journal.protocol import Journal
from graph.dag.protocol import DAY_US, Store
from serve.decide.decision import Decision
from serve.errors import ServeError
from serve.replica.admission import Admitted, GivenBefore
from serve.replica.answers import Answers, as_json, earlier_decision, with_earlier_decision
from serve.replica.compact import pack, unpack

log = logging.getLogger("ringwatch")
LOOK_S = 60.0  # between two looks for old answers
AT_ONCE = 500  # let go of while nothing waits


def offset_at(store: Store, moment: int) -> int:
    """The journal offset of the first payment at or after a moment (us), as far as the graph's buffer can tell.

    What left the buffer is older than what is in it, nobody knows by how much: 0 if the moment lies before that.
    """
    low, high = store.oldest, store.rows
    while low < high:  # a look at a few rows: a kernel for it would be compiled while payments wait
        middle = (low + high) // 2
        if store.column("time", np.array([middle]))[0] < moment:
            low = middle + 1
        else:
            high = middle
    return int(store.offsets.of(np.array([low]))[0]) if store.oldest < low < store.rows else 0


def unpacked(stored: Mapping[int, bytes], names: Mapping[int, str]) -> dict[int, bytes]:
    """Answers as they were given; one that cannot be read counts as not kept: it is computed again.

    Args:
        stored: What an answer store has, by offset.
        names: Ids of the payments by their offsets.
    """
    found = {}
    for offset, kept in stored.items():
        try:
            found[offset] = unpack(kept, names[offset])
        except ServeError as error:
            log.warning("the answer to %r is left aside: %s", names[offset], error)
    return found


class KeptAnswers:
    """Answers by journal offset: written to the journal's answer store when nothing waits, and found before that too.

    The store has them in a compact form (`serve.replica.compact`).

    Args:
        journal: Whose answer store is used.
        days: How long answers are kept, by the payments' own time.
    """

    def __init__(self, journal: Journal, days: float) -> None:
        self._journal, self._kept_us = journal, int(days * DAY_US)
        self._look_at = time.monotonic() + LOOK_S
        self._new: dict[int, tuple[str, bytes]] = {}  # id and answer, not in the store yet
        self._changed: dict[int, tuple[str, bytes]] = {}  # to take the place of what the store has

    def find(self, names: Mapping[int, str]) -> dict[int, bytes]:
        """The answers kept for payments; an offset without one is not among the keys.

        Args:
            names: Ids of the payments by their offsets.

        Raises:
            JournalError: The store cannot be read.
        """
        given = self._new | self._changed
        found = {offset: given[offset][1] for offset in names if offset in given}
        stored = self._journal.answers.find([offset for offset in names if offset not in found])
        return found | unpacked(stored, names)

    def note(self, offset: int, name: str, answer: bytes) -> None:
        """Keep an answer; the first for an offset stays."""
        self._new.setdefault(offset, (name, answer))

    def change(self, offset: int, name: str, answer: bytes) -> None:
        """Keep an answer in the place of what was kept for an offset."""
        self._changed[offset] = (name, answer)

    def forget_old(self, store: Store) -> None:
        """Let go of some answers that are kept for long enough, where it is time to look for them."""
        if time.monotonic() < self._look_at:
            return
        try:
            more = self._journal.answers.forget(offset_at(store, store.clock - self._kept_us), AT_ONCE) == AT_ONCE
        except JournalError as error:
            log.warning("old answers stay: %s", error)
            more = False
        self._look_at = time.monotonic() + (0 if more else LOOK_S)

    def bodies(self, admitted: Admitted, answers: Answers) -> list[bytes]:
        """Answers as JSON. A payment that was there before is answered as it was then, if that was kept."""
        offsets, reasons = admitted.offsets, admitted.call.reasons
        again = {
            o: name for o, name, known in zip(offsets, answers.ids, admitted.known, strict=True) if known and reasons
        }
        kept = self.find(again) if again else {}
        bodies = []
        for i, offset in enumerate(offsets):
            body, earlier = kept.get(offset), admitted.earlier[i]
            if body is None:
                body = as_json(answers, i)
                if reasons and answers.scored_by[i] != "rules":
                    self.note(offset, answers.ids[i], body)
            elif earlier is not None and earlier_decision(body) is None:
                body = with_earlier_decision(body, earlier)
                self.change(offset, answers.ids[i], body)
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
            columns = ("transaction_id", "account_id", "mandate_id")
            ids, accounts, mandates = (admitted.call.batch.column(name).to_pylist() for name in columns)
            kept = self.find({o: n for o, n, known in zip(admitted.offsets, ids, admitted.known, strict=True) if known})
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
                    packed = [(offset, pack(body, name)) for offset, (name, body) in answers.items()]
                    self._journal.answers.keep(packed, replace=replace)
                except JournalError as error:
                    log.warning("answers not kept: %s", error)
        self._new, self._changed = {}, {}
