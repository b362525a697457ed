"""What is known of an account's outcomes as of any place in the journal, in bounded memory."""

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from data.journal.protocol import SCHEMAS, Events, Kind
from data.outcomes import REPORTED
from serve.decide import outcomes as module
from serve.decide.outcomes import NOTHING, OutcomeBook

NAMES = st.sampled_from([*REPORTED, "approve", "decline"])


def became(*rows: tuple[str | None, str]) -> pa.RecordBatch:
    """Outcome events: account and name."""
    return pa.RecordBatch.from_pylist(
        [
            {"transaction_id": "t", "outcome": name, "outcome_id": "o" if name in REPORTED else None, "account_id": a}
            for a, name in rows
        ],
        SCHEMAS[Kind.OUTCOME],
    )


@hypothesis_settings(deadline=None)
@given(st.lists(st.lists(st.tuples(st.sampled_from("ab"), NAMES), min_size=1, max_size=4), max_size=6))
def test_a_tally_is_a_count_of_what_came_before_however_the_events_were_grouped(
    groups: list[list[tuple[str, str]]],
) -> None:
    book, again, rows = OutcomeBook(), OutcomeBook(), [row for group in groups for row in group]
    at = 0
    for group in groups:
        book.apply(Events(Kind.OUTCOME, at, became(*group)))
        at += len(group)
    again.adopt(json.loads(json.dumps(book.facts())))
    for known in (book, again):
        for offset in range(len(rows) + 1):
            before = rows[:offset]
            for account, tally in zip("ab", known.of("ab", [offset] * 2), strict=True):
                assert tally.challenges_passed == before.count((account, "challenge_passed"))
                assert tally.refunds == before.count((account, "refunded"))
                assert tally.declined == before.count((account, "declined"))


def test_what_is_remembered_is_bounded_in_accounts_and_in_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 10)
    monkeypatch.setattr(module, "ACCOUNTS", 3)
    book = OutcomeBook()
    for at in range(200):
        book.apply(Events(Kind.OUTCOME, at, became((f"a{at % 2}", "approved"))))
    assert sum(len(entries) for _, entries in book.facts()) <= 2 * 8
    assert book.of(["a0"], [199])[0].approved == 100
    assert book.of(["a0"], [191])[0].approved == 96
    for at in range(200, 203):
        book.apply(Events(Kind.OUTCOME, at, became((f"b{at}", "approved"))))
    assert [account for account, _ in book.facts()] == ["b200", "b201", "b202"]
    assert book.now("a0") == NOTHING
