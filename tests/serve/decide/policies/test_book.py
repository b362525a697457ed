"""The life of policies: who decides as of a place in the journal, and that a replay decides alike."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data.journal.protocol import Events, Kind
from data.schema import TRANSACTION_SCHEMA
from serve.decide.decider import Decider
from serve.decide.decision import Situation
from serve.decide.policies.book import PolicyBook
from serve.decide.policies.life import PolicyEvent, PolicyState, in_share
from serve.decide.policies.parsing import parse
from serve.problems import Problem
from serve.settings import Settings
from tests.serve.decide.policies.test_compiled import END, NOON, payment

SETTINGS = Settings(model=Path("m"), insecure=True)


def event(
    name: str, action: str, state: PolicyState = PolicyState.LIVE, share: float = 1.0, more: str = ""
) -> PolicyEvent:
    rules = f"rules:\n- {{id: all-{action}, when: always, then: {action}}}\n"
    return PolicyEvent.of(parse(f"policy: {name}\n{rules}{more}{END}"), state, share)


def decider(*events: tuple[int, PolicyEvent]) -> Decider:
    found = Decider(SETTINGS)
    for offset, one in events:
        found.apply(Events(Kind.POLICY, offset, one.batch()))
    return found


def asked(
    offsets: Sequence[int], accounts: Sequence[str] | None = None, times: Sequence[int] | None = None
) -> Situation:
    n = len(offsets)
    rows = [
        payment(transaction_id=f"t{o}", account_id=(accounts or ["a"] * n)[i], timestamp=(times or [NOON] * n)[i])
        for i, o in enumerate(offsets)
    ]
    batch = pa.RecordBatch.from_pylist(rows, TRANSACTION_SCHEMA)
    return Situation(batch, np.array(offsets, np.int64), np.zeros(n), [None] * n, [None] * n)


def said(found: Decider, *offsets: int) -> list[str]:
    return [one.decision for one in found.decide(asked(offsets))]


def test_a_payment_is_decided_by_the_policy_that_was_live_when_it_was_recorded() -> None:
    found = decider((10, event("a", "review")), (20, event("b", "decline")))
    assert said(found, 25, 5, 15) == ["decline", "approve", "review"]
    assert found.decide(asked([5]))[0].policy.startswith("thresholds ")


def test_a_rollback_returns_to_the_former_live_policy_and_the_one_before_that() -> None:
    found = decider((1, event("a", "review")), (2, event("b", "decline")))
    for offset, expected in ((10, "review"), (20, "approve")):
        found.apply(Events(Kind.POLICY, offset, found.policies.rollback().batch()))
        assert said(found, offset + 1) == [expected]
    with pytest.raises(Problem, match="nothing to roll back"):
        found.policies.rollback()
    assert said(found, 5, 15) == ["decline", "review"]  # what was decided stands


def test_a_rollout_decides_for_its_share_of_accounts_and_keeps_them_as_it_grows() -> None:
    accounts = [f"acc-{i}" for i in range(2000)]
    found, after = event("new", "decline", PolicyState.ROLLOUT, 0.1), event("new", "decline", PolicyState.ROLLOUT, 0.5)
    book = decider((1, event("old", "approve")), (2, found), (5000, after))
    small = [d.decision == "decline" for d in book.decide(asked(range(3, 2003), accounts))]
    grown = [d.decision == "decline" for d in book.decide(asked(range(6000, 8000), accounts))]
    assert 150 < sum(small) < 250
    assert 900 < sum(grown) < 1100
    assert all(new for old, new in zip(small, grown, strict=True) if old)
    assert [in_share("new", a, 0.1) for a in accounts] == small
    book.apply(Events(Kind.POLICY, 9000, book.policies.rollback().batch()))  # ends the rollout, not what is live
    assert set(said(book, *range(9001, 9100))) == {"approve"}


def test_a_policy_in_shadow_is_counted_once_for_each_payment_and_never_answers() -> None:
    book = decider((1, event("old", "approve")), (2, event("new", "decline", PolicyState.SHADOW)))
    assert said(book, 3, 4) == ["approve", "approve"]
    assert said(book, 3) == ["approve"]  # sent again
    [new] = [version for version, state, _ in book.policies.decisions if state == "shadow"]
    assert book.policies.decisions[new, "shadow", "decline"] == 2
    assert book.policies.hits[new, "shadow", "all-decline"] == 2
    assert book.policies.differing[new] == 2


def test_a_policy_in_shadow_that_fails_changes_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    book = decider((1, event("new", "decline", PolicyState.SHADOW)))
    version = book.policies.roster.shadows[0]
    monkeypatch.setattr(book.policies._policies[version], "decide", lambda _: 1 / 0)
    assert said(book, 3) == ["approve"]


def test_a_draft_decides_nothing_and_is_listed() -> None:
    book = decider((1, event("new", "decline", PolicyState.DRAFT)))
    assert said(book, 3) == ["approve"]
    assert [(r.event.name, r.state) for r in book.policies.records()] == [("new", "draft")]


def test_an_event_whose_policy_cannot_be_read_leaves_what_decides_as_it_is() -> None:
    book = decider((1, event("a", "review")), (2, replace(event("b", "decline"), content="policy: [")))
    assert said(book, 3) == ["review"]


def test_what_cannot_be_or_would_change_nothing_is_refused_with_the_reason() -> None:
    book = PolicyBook(Decider(SETTINGS).policies.deciding)
    live = event("a", "review")
    book.apply(Events(Kind.POLICY, 1, live.batch()))
    assert book.stands(live)
    with pytest.raises(Problem, match="is live: roll it back first"):
        book.refuse(replace(live, state=PolicyState.SHADOW))
    with pytest.raises(Problem, match="b@0 is not active"):
        book.rollback("b@0")
    for i in range(4):
        book.apply(Events(Kind.POLICY, 2 + i, event(f"s{i}", "review", PolicyState.SHADOW).batch()))
    with pytest.raises(Problem, match="4 policies are in shadow"):
        book.refuse(event("s5", "review", PolicyState.SHADOW))


HOUR, LIMIT = 3_600_000_000, "reviews: {at_most: 3, per: day, then: decline}\n"


def test_the_limit_of_reviews_gives_its_places_to_the_first_payments_of_each_day() -> None:
    book = decider((0, event("a", "review", more=LIMIT)))
    times = [NOON, NOON, NOON + HOUR, NOON + 2 * HOUR, NOON + 13 * HOUR, NOON + 2 * HOUR]
    found = book.decide(asked(range(1, 7), times=times))
    assert [d.decision for d in found] == ["review"] * 3 + ["decline", "review", "review"]
    assert [hit.id for hit in found[3].rules] == ["all-review", "reviews"]


def test_a_share_of_the_days_payments_is_reviewed_at_most() -> None:
    book = decider((0, event("a", "review", more="reviews: {at_most: 10%, per: day}\n")))
    found = [d.decision for d in book.decide(asked(range(1, 101)))]
    assert found.count("review") == 10
    assert found.count("challenge") == 90


def test_places_for_reviews_do_not_depend_on_batches_repeats_restarts_or_who_answered() -> None:
    start = (0, event("a", "review", more=LIMIT))
    times = [NOON + i * 3 * HOUR for i in range(30)]
    whole = [d.decision for d in decider(start).decide(asked(range(1, 31), times=times))]
    assert {"review", "decline"} == set(whole)

    parts = decider(start)
    found = []
    for at in range(0, 30, 3):
        mine = asked(range(at + 1, at + 4), times=times[at : at + 3])
        if at % 2:
            parts.policies.follow(mine)  # answered by another replica
        found += [d.decision for d in parts.decide(mine)]
        again = Decider(SETTINGS)
        again.adopt(json.loads(json.dumps(parts.facts())))  # a restart from a snapshot
        parts = again
    assert found == whole
    assert [d.decision for d in parts.decide(asked(range(30, 0, -1), times=times[::-1]))] == whole[::-1]


def test_a_snapshot_keeps_every_policy_with_its_place() -> None:
    book = decider((1, event("a", "review")), (5, event("b", "decline", PolicyState.ROLLOUT, 0.5)))
    again = Decider(SETTINGS)
    again.adopt(json.loads(json.dumps(book.facts())))
    assert again.policies.roster == book.policies.roster
    assert again.facts() == book.facts()
    assert said(again, 0, 2) == said(book, 0, 2) == ["approve", "review"]


def test_payments_that_are_not_recorded_are_decided_by_the_live_policy_and_not_counted() -> None:
    book = decider((1, event("a", "decline")))
    batch = asked([0, 1]).payments
    assert [d.decision for d in book.decide_unrecorded(batch, np.zeros(2))] == ["decline", "decline"]
    assert book.decide_at_once(0.9).policy.startswith("a@")
    assert not book.policies.decisions
