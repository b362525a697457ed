"""Mandates and what was spent under each, as the journal has it: who may still pay what.

A payment that names a mandate reserves its amount at its own place in the journal, whatever it scores; one beyond its
mandate reserves nothing and is declined. Every follower applies the same events in the same order, so that all of them
have the same budgets to the minor unit, and a payment that comes again reserves nothing more. Only an outcome
(declined, reversed, expired) gives budget back: the book depends on events alone, never on a score or a policy.
"""

import heapq
import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.journal.protocol import Events, Kind
from data.outcomes import RELEASES
from serve.decide.decision import MandateState
from serve.decide.terms import DAY_US, Terms

KEPT_US: Final = 30 * DAY_US  # that a mandate stays after it expired: for late outcomes, and for whoever asks
PAYMENTS: Final = 10_000  # of a mandate that can still give budget back; the oldest beyond them are settled
SHOWN: Final = 20  # payments of a mandate that a view lists
SAID: Final = 100_000  # payments of which it is known what their mandate said then
_COLUMNS: Final = ("transaction_id", "mandate_id", "account_id", "agent_id", "currency", "amount", "payee_id")
_COLUMNS_TOO: Final = (*_COLUMNS, "merchant_id", "mcc")

State = Literal["active", "revoked"]


@dataclass(slots=True)
class _Payment:
    """What a payment holds of its mandate: minor units, the period that they are of, whether it was approved."""

    amount: int
    period: int | None
    approved: bool = False


@dataclass(slots=True)
class Mandate:
    """A mandate as of now.

    Attributes:
        terms: Of its newest version.
        version: Number of that, from 1.
        state: Whether it was revoked.
        spent: Minor units of payments that were approved, or are settled.
        reserved: Minor units of payments of which nothing is known yet.
        count: Payments that reserved budget, those that gave all of it back left out.
        refused: Payments that it forbade.
    """

    terms: Terms
    version: int = 1
    state: State = "active"
    spent: int = 0
    reserved: int = 0
    count: int = 0
    refused: int = 0
    _periods: dict[int, list[int]] = field(default_factory=dict)  # minor units and payments of each
    _payments: OrderedDict[str, _Payment] = field(default_factory=OrderedDict)

    @property
    def remaining(self) -> int | None:
        """Minor units left in all, below 0 where a later version allows less; None without a budget."""
        return None if self.terms.budget is None else self.terms.budget - self.spent - self.reserved

    def left(self, now: int) -> int | None:
        """Minor units left at a moment (us), in all and in its period; None where neither is limited."""
        recurrence, limits = self.terms.recurrence, [] if self.remaining is None else [self.remaining]
        if recurrence is not None and recurrence.budget is not None:
            limits.append(recurrence.budget - self._periods.get(recurrence.of(now), (0, 0))[0])
        return max(0, min(limits)) if limits else None

    def reserve(self, payment: Mapping[str, Any], now: int) -> tuple[str, str] | None:
        """Reserve a payment's amount; the field that forbids it and why, where one does, and nothing is reserved."""
        found = ("state", "the mandate was revoked") if self.state == "revoked" else self.terms.refusal(payment, now)
        amount, recurrence = payment["amount"], self.terms.recurrence
        period = None if recurrence is None else recurrence.of(now)
        if found is None and (left := self.remaining) is not None and amount > left:
            found = "budget", f"{amount} is more than the {max(0, left)} left of {self.terms.budget}"
        if found is None and recurrence is not None and period is not None:
            there, payments = self._periods.get(period, (0, 0))
            if recurrence.budget is not None and amount + there > recurrence.budget:
                left = max(0, recurrence.budget - there)
                found = "recurrence.budget", f"{amount} is more than the {left} left of this {recurrence.period}"
            elif recurrence.count is not None and payments >= recurrence.count:
                found = "recurrence.count", f"{payments} payments were made this {recurrence.period} already"
        if found is not None:
            self.refused += 1
            return found
        self._payments[payment["transaction_id"]] = _Payment(amount, period)
        self.reserved += amount
        self.count += 1
        self._in_period(period, amount, 1)
        if len(self._payments) > PAYMENTS:
            _, oldest = self._payments.popitem(last=False)
            if not oldest.approved:
                self.reserved -= oldest.amount
                self.spent += oldest.amount
        return None

    def became(self, transaction_id: str, outcome: str, amount: int | None) -> None:
        """An outcome of one of its payments: what was approved is spent, what was not taken is given back."""
        held = self._payments.get(transaction_id)
        if held is None:  # it reserved nothing, gave all of it back, or is settled
            return
        if outcome == "approved" and not held.approved:
            held.approved = True
            self.reserved -= held.amount
            self.spent += held.amount
        elif outcome in RELEASES:
            back = held.amount if amount is None else min(amount, held.amount)
            held.amount -= back
            if held.approved:
                self.spent -= back
            else:
                self.reserved -= back
            gone = held.amount == 0
            if gone:
                del self._payments[transaction_id]
                self.count -= 1
            self._in_period(held.period, -back, -int(gone))

    def change(self, terms: Terms, version: int) -> None:
        """Go on with a new version; what was spent stays, but limits of another period begin anew."""
        before, after = self.terms.recurrence, terms.recurrence
        if before is None or after is None or before.period != after.period:
            self._periods = {}
            for held in self._payments.values():
                held.period = None
        self.terms, self.version = terms, version

    def view(self, mandate_id: str, now: int) -> dict[str, Any]:
        """All of it for people, as of a moment (us): its terms, and what is spent, reserved and left."""
        state: str = self.state
        if state == "active" and now >= self.terms.expires_at:
            state = "expired"
        elif state == "active" and self.terms.not_before is not None and now < self.terms.not_before:
            state = "not begun"
        newest = islice(reversed(self._payments.items()), SHOWN)
        return {
            "mandate_id": mandate_id,
            "version": self.version,
            **json.loads(self.terms.json()),
            "state": state,
            **{name: getattr(self, name) for name in ("spent", "reserved", "count", "refused")},
            "remaining": self.left(now),
            "payments": [{"transaction_id": n, "amount": p.amount, "approved": p.approved} for n, p in newest],
            "as_of": now,
        }

    def facts(self) -> dict[str, Any]:
        """What a snapshot keeps, as JSON."""
        return {
            "terms": self.terms.json(),
            **{name: getattr(self, name) for name in ("version", "state", "spent", "reserved", "count", "refused")},
            "periods": [[period, *held] for period, held in self._periods.items()],
            "payments": [[name, p.amount, p.period, p.approved] for name, p in self._payments.items()],
        }

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> "Mandate":
        """A mandate from what `facts` gave."""
        kept = {name: facts[name] for name in ("version", "state", "spent", "reserved", "count", "refused")}
        made = cls(Terms.of_json(facts["terms"]), **kept)
        made._periods = {period: held for period, *held in facts["periods"]}
        made._payments = OrderedDict((name, _Payment(*held)) for name, *held in facts["payments"])
        return made

    def _in_period(self, period: int | None, amount: int, payments: int) -> None:
        if period is not None:
            held = self._periods.setdefault(period, [0, 0])
            held[0] += amount
            held[1] += payments
            while len(self._periods) > 2:  # time never runs back: only the newest can still be paid in
                del self._periods[min(self._periods)]


class MandateBook:
    """All mandates that have not ended long ago; whoever follows the journal hands it every event (`apply`).

    Its clock is the time of the newest payment in the journal, whoever made it, so that neither a wall clock nor an
    agent that dates its payments back decides what has expired.

    Attributes:
        clock: That time, us.
    """

    def __init__(self) -> None:
        self.clock = 0
        self._mandates: dict[str, Mandate] = {}
        self._leave: list[tuple[int, str]] = []  # when each may leave, a heap; also of versions that were replaced
        self._said: OrderedDict[int, MandateState] = OrderedDict()  # by the payment's journal offset

    def __len__(self) -> int:
        """Mandates that are held."""
        return len(self._mandates)

    def get(self, mandate_id: str) -> Mandate | None:
        """A mandate as of now; None where there is none, or it ended long ago."""
        return self._mandates.get(mandate_id)

    def listed(self) -> list[tuple[str, Mandate]]:
        """All of them, in order of their ids."""
        return sorted(self._mandates.items())

    def apply(self, events: Events) -> None:
        """Take in the next events."""
        if events.kind is Kind.TRANSACTION:
            self._paid(events)
        elif events.kind is Kind.OUTCOME:
            self._became(events.batch)
        elif events.kind is Kind.MANDATE:
            for row in events.batch.to_pylist():
                self._granted(row)

    def of(self, payments: pa.RecordBatch, offsets: NDArray[np.int64]) -> list[MandateState | None]:
        """What each payment's mandate said of it when it was applied, [n]; None for a payment without one."""
        names = payments.column("mandate_id")
        if names.null_count == len(names):
            return [None] * len(names)
        return [
            None if name is None else self._said.get(offset) or _forgotten(name)
            for name, offset in zip(names.to_pylist(), offsets.tolist(), strict=True)
        ]

    def facts(self) -> dict[str, Any]:
        """What a snapshot keeps, as JSON."""
        return {
            "clock": self.clock,
            "mandates": {name: mandate.facts() for name, mandate in self._mandates.items()},
            "said": [[offset, *asdict(state).values()] for offset, state in self._said.items()],
        }

    def adopt(self, facts: Mapping[str, Any]) -> None:
        """Go on from what `facts` gave."""
        self.clock = facts.get("clock", 0)
        self._mandates = {name: Mandate.of_facts(held) for name, held in facts.get("mandates", {}).items()}
        self._leave = [(mandate.terms.expires_at + KEPT_US, name) for name, mandate in self._mandates.items()]
        heapq.heapify(self._leave)
        self._said = OrderedDict((offset, MandateState(*state)) for offset, *state in facts.get("said", ()))

    def _paid(self, events: Events) -> None:
        batch = events.batch
        times, named = batch.column("timestamp").view(pa.int64()).to_numpy(), batch.column("mandate_id")
        if named.null_count < len(named):
            rows = np.flatnonzero(named.is_valid().to_numpy(zero_copy_only=False))
            clocks = np.maximum(np.maximum.accumulate(times)[rows], self.clock)
            asked = batch.select(_COLUMNS_TOO).take(pa.array(rows)).to_pylist()
            for row, now, payment in zip(rows.tolist(), clocks.tolist(), asked, strict=True):
                self._said[events.offset + row] = self._asked(payment, now)
            while len(self._said) > SAID:
                self._said.popitem(last=False)
        if len(times):
            self.clock = max(self.clock, int(times.max()))
        while self._leave and self._leave[0][0] <= self.clock:
            _, name = heapq.heappop(self._leave)
            held = self._mandates.get(name)
            if held is not None and held.terms.expires_at + KEPT_US <= self.clock:
                del self._mandates[name]

    def _asked(self, payment: Mapping[str, Any], now: int) -> MandateState:
        name = payment["mandate_id"]
        mandate = self._mandates.get(name)
        if mandate is None or mandate.terms.expires_at + KEPT_US <= now:
            return MandateState(name, False, "mandate_id", "there is no such mandate, or it ended long ago")
        failed = mandate.reserve(payment, now)
        if failed is None:
            return MandateState(name, True, None, "", mandate.left(now))
        if failed[0] in ("account_id", "agent_id"):  # what is left is none of their business
            return MandateState(name, False, *failed)
        return MandateState(name, False, *failed, mandate.left(now))

    def _became(self, batch: pa.RecordBatch) -> None:
        named = batch.column("mandate_id")
        if named.null_count == len(named):
            return
        columns = (batch.column(name).to_pylist() for name in ("mandate_id", "transaction_id", "outcome", "amount"))
        for mandate_id, transaction_id, outcome, amount in zip(*columns, strict=True):
            if (mandate := self._mandates.get(mandate_id)) is not None:
                mandate.became(transaction_id, outcome, amount)

    def _granted(self, row: Mapping[str, Any]) -> None:
        """A version of a mandate. Where two writers gave one at once the first stands; the other changes nothing."""
        name, there = row["mandate_id"], self._mandates.get(row["mandate_id"])
        if row["state"] == "revoked":
            if there is not None:
                there.state = "revoked"
            return
        terms = Terms.of_json(row["terms"])
        if there is None:
            self._mandates[name] = Mandate(terms, row["version"])
        elif follows(there, row["version"], terms) is None:
            there.change(terms, row["version"])
        else:
            return
        heapq.heappush(self._leave, (terms.expires_at + KEPT_US, name))


def follows(there: Mandate, version: int, terms: Terms) -> tuple[str, str] | None:
    """Why a version cannot come after what is there: field and reason; None where it can."""
    if there.state == "revoked":
        return "state", "the mandate was revoked, and stays so; give a new one"
    if version != there.version + 1:
        return "version", f"the newest is {there.version}: the next is {there.version + 1}, not {version}"
    for name in ("account_id", "currency"):
        if getattr(there.terms, name) != getattr(terms, name):
            return name, "stays the same in every version; give a new mandate"
    return None


def _forgotten(name: str) -> MandateState:
    return MandateState(name, False, "mandate_id", "what the mandate said of this payment is no longer held")


def unrecorded(name: str) -> MandateState:
    """What is said of a payment that could not be recorded: nothing is reserved for it, so it must not go through."""
    why = "the payment could not be recorded, so nothing is reserved for it: pay again under a new id"
    return MandateState(name, False, "budget", why)
