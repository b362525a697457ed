"""What mandates hold: exactly what a plain oracle says, however events are grouped, and through every snapshot."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from data.journal.protocol import SCHEMAS, Events, Kind
from serve.decide import mandates as module
from serve.decide.mandates import KEPT_US, MandateBook
from serve.decide.terms import DAY_US, Recurrence, Terms

TERMS = Terms("ann", "EUR", expires_at=40 * DAY_US, agent_id="bot", budget=1000)
PAYMENT: dict[str, Any] = {
    "transaction_id": "t",
    "timestamp": 5 * DAY_US,
    "account_id": "ann",
    "merchant_id": "m1",
    "amount": 10,
    "currency": "EUR",
    "payee_id": "p1",
    "mcc": "5411",
    "agent_id": "bot",
    "mandate_id": "M",
}


def grant(terms: Terms, version: int = 1, state: str = "active", name: str = "M") -> tuple[Kind, dict[str, Any]]:
    row = {"mandate_id": name, "version": version, "state": state, "terms": terms.json(), "at": 0}
    return Kind.MANDATE, row


def pay(name: str, **more: Any) -> tuple[Kind, dict[str, Any]]:
    return Kind.TRANSACTION, {**PAYMENT, "transaction_id": name, **more}


def became(name: str, outcome: str, amount: int | None = None) -> tuple[Kind, dict[str, Any]]:
    return Kind.OUTCOME, {"transaction_id": name, "outcome": outcome, "amount": amount, "mandate_id": "M"}


def applied(book: MandateBook, *rows: tuple[Kind, dict[str, Any]], at: int = 0) -> MandateBook:
    """Apply rows from an offset on, neighbours of one kind together."""
    start = 0
    while start < len(rows):
        kind, stop = rows[start][0], start
        while stop < len(rows) and rows[stop][0] is kind:
            stop += 1
        book.apply(
            Events(kind, at + start, pa.RecordBatch.from_pylist([r for _, r in rows[start:stop]], SCHEMAS[kind]))
        )
        start = stop
    return book


def said(book: MandateBook, *offsets: int) -> list[tuple[bool, str | None, int | None]]:
    """Within, failed and remaining of payments at offsets."""
    batch = pa.RecordBatch.from_pylist([PAYMENT] * len(offsets), SCHEMAS[Kind.TRANSACTION])
    found = book.of(batch, np.array(offsets, np.int64))
    return [(s.within, s.failed, s.remaining) for s in found if s is not None]


@pytest.mark.parametrize(
    ("terms", "payment", "failed"),
    [
        ({}, {"account_id": "bob"}, "account_id"),
        ({}, {"agent_id": "other"}, "agent_id"),
        ({}, {"agent_id": None}, "agent_id"),
        ({}, {"timestamp": 40 * DAY_US}, "expires_at"),
        ({"not_before": 6 * DAY_US}, {}, "not_before"),
        ({}, {"currency": "USD"}, "currency"),
        ({"amount_min": 11}, {}, "amount_min"),
        ({"amount_max": 9}, {}, "amount_max"),
        ({"payees": ("p2",)}, {}, "payees"),
        ({"payees": ("p2",)}, {"payee_id": None}, "payees"),
        ({"merchants": ("m2",)}, {}, "merchants"),
        ({"mccs": ("4511",)}, {}, "mccs"),
        ({}, {"amount": 1001}, "budget"),
        ({"recurrence": Recurrence("week", budget=9)}, {}, "recurrence.budget"),
        ({}, {"mandate_id": "N"}, "mandate_id"),
    ],
)
def test_a_payment_beyond_its_mandate_is_refused_with_the_field_and_reserves_nothing(
    terms: dict[str, Any], payment: dict[str, Any], failed: str
) -> None:
    book = applied(MandateBook(), grant(replace(TERMS, **terms)), pay("t", **payment))
    assert [(within, field) for within, field, _ in said(book, 1)] == [(False, failed)]
    mandate = book.get("M")
    assert mandate is not None
    assert (mandate.reserved, mandate.spent, mandate.count) == (0, 0, 0)
    kept = applied(MandateBook(), grant(TERMS), pay("t"))
    assert said(kept, 1) == [(True, None, 990)]


def test_a_revoked_mandate_and_one_of_which_nothing_is_known_forbid_everything() -> None:
    book = applied(MandateBook(), pay("a"), grant(TERMS), pay("b"), grant(TERMS, state="revoked"), pay("c"))
    assert said(book, 0, 2, 4) == [(False, "mandate_id", None), (True, None, 990), (False, "state", 990)]


def test_only_what_was_not_taken_gives_budget_back_and_only_once() -> None:
    for outcome, amount, left in (
        ("declined", None, 1000),
        ("decline", None, 1000),
        ("expired", None, 1000),
        ("reversed", 4, 994),
        ("reversed", None, 1000),
        ("approved", None, 990),
        ("refunded", None, 990),
        ("challenge_failed", None, 990),
        ("chargeback_lost", None, 990),
    ):
        book = applied(MandateBook(), grant(TERMS), pay("a"), became("a", outcome, amount))
        mandate = book.get("M")
        assert mandate is not None
        assert mandate.remaining == left, outcome
        if amount is None and left == 1000:
            applied(book, became("a", outcome), at=3)
            assert mandate.remaining == 1000
            assert mandate.count == 0
    book = applied(MandateBook(), grant(TERMS), pay("a", amount=2000), became("a", "declined"), pay("b"))
    assert said(book, 1, 3) == [(False, "budget", 1000), (True, None, 990)]


def test_limits_of_a_period_begin_anew_with_the_next_one_and_time_never_runs_back() -> None:
    weekly = replace(TERMS, budget=None, recurrence=Recurrence("week", budget=25, count=2))
    monday = 4 * DAY_US  # 1970-01-05
    rows = [pay(f"t{i}", timestamp=monday + day * DAY_US) for i, day in enumerate((0, 6, 6, 7, 3))]
    book = applied(MandateBook(), grant(weekly), *rows)
    assert said(book, *range(1, 6)) == [
        (True, None, 15),
        (True, None, 5),
        (False, "recurrence.budget", 5),
        (True, None, 15),
        (True, None, 5),  # dated back into the week before: it is of this one all the same
    ]
    assert [Recurrence("month", 1).of(day * DAY_US) for day in (0, 30, 31)] == [1970 * 12 + 1] * 2 + [1970 * 12 + 2]


def test_a_new_version_changes_the_terms_and_keeps_what_was_spent() -> None:
    less = replace(TERMS, budget=15)
    stranger = replace(TERMS, account_id="bob")
    rows = [grant(TERMS), pay("a"), grant(stranger, 2), grant(less, 2), pay("b"), grant(TERMS, 2), pay("c")]
    book = applied(MandateBook(), *rows)
    assert said(book, 1, 4, 6) == [(True, None, 990), (False, "budget", 5), (False, "budget", 5)]
    assert book.get("M") is not None


def test_what_is_held_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAYMENTS", 3)
    monkeypatch.setattr(module, "SAID", 4)
    book = applied(MandateBook(), grant(TERMS), *(pay(f"t{i}") for i in range(9)))
    mandate = book.get("M")
    assert mandate is not None
    assert (mandate.spent, mandate.reserved, mandate.remaining) == (60, 30, 910)
    assert said(book, 2, 9) == [(False, "mandate_id", None), (True, None, 910)]
    applied(book, became("t0", "declined"), at=10)
    assert mandate.remaining == 910
    gone = {"mandate_id": None, "timestamp": 40 * DAY_US + KEPT_US}
    applied(book, pay("last", **gone), at=11)
    assert len(book) == 0


AMOUNT = st.integers(1, 60)
NAME = st.sampled_from([f"t{i}" for i in range(20)])
ROW = st.one_of(
    st.builds(pay, NAME, amount=AMOUNT, timestamp=st.integers(0, 45).map(DAY_US.__mul__)),
    st.builds(became, NAME, st.sampled_from(["declined", "reversed", "expired", "approved", "refunded"]), AMOUNT),
    st.builds(became, NAME, st.sampled_from(["declined", "reversed", "expired"])),
    st.just(grant(TERMS, state="revoked")),
)


class Oracle:
    """A mandate of a budget and an expiry, in the plainest way: every payment is kept, sums are made anew."""

    def __init__(self, budget: int) -> None:
        self.budget, self.clock, self.revoked = budget, 0, False
        self.held: dict[str, int] = {}

    def pay(self, name: str, amount: int, at: int) -> bool:
        self.clock = max(self.clock, at)
        fits = amount + sum(self.held.values()) <= self.budget
        if self.revoked or self.clock >= TERMS.expires_at or not fits:
            return False
        self.held[name] = amount
        return True

    def became(self, name: str, outcome: str, amount: int | None) -> None:
        if name in self.held and outcome in ("declined", "reversed", "expired"):
            self.held[name] -= self.held[name] if amount is None else min(amount, self.held[name])


@hypothesis_settings(deadline=None, max_examples=200)
@given(st.lists(ROW, max_size=40), st.integers(50, 300), st.data())
def test_a_book_holds_what_a_plain_oracle_holds(rows: list[Any], budget: int, data: st.DataObject) -> None:
    oracle, expected, seen = Oracle(budget), [], set[str]()
    journal = [grant(replace(TERMS, budget=budget))]
    for kind, row in rows:
        if kind is Kind.TRANSACTION and row["transaction_id"] in seen:
            continue  # the journal holds an id once
        journal.append((kind, row))
        if kind is Kind.TRANSACTION:
            seen.add(row["transaction_id"])
            within = oracle.pay(row["transaction_id"], row["amount"], row["timestamp"])
            expected.append((len(journal) - 1, within))
        elif kind is Kind.OUTCOME:
            oracle.became(row["transaction_id"], row["outcome"], row["amount"])
        else:
            oracle.revoked = True
    one_by_one, cut = MandateBook(), data.draw(st.integers(0, len(journal)))
    for at, row in enumerate(journal):
        applied(one_by_one, row, at=at)
    restored = MandateBook()
    restored.adopt(json.loads(json.dumps(applied(MandateBook(), *journal[:cut]).facts())))
    for book in (one_by_one, applied(MandateBook(), *journal), applied(restored, *journal[cut:], at=cut)):
        assert [within for within, _, _ in said(book, *(at for at, _ in expected))] == [fits for _, fits in expected]
        mandate = book.get("M")
        assert mandate is not None
        assert mandate.spent + mandate.reserved == sum(oracle.held.values()) <= budget
