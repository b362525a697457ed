"""What outcomes mean for money, and which cannot both be true."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.outcomes import GIVEN, GOES, PARTIAL, RELEASES, REPORTED, STOPS, Became, contradiction, whole
from serve.decide.decision import Decision
from serve.http.wire import Outcome

OUTCOME = st.builds(
    Became,
    st.uuids().map(str),
    st.just("t"),
    st.sampled_from(REPORTED),
    st.integers(0, 9),
    st.none() | st.integers(1, 9),
)


@pytest.mark.parametrize(
    ("name", "amount", "safe"),
    [
        ("declined", None, True),
        ("decline", None, True),
        ("expired", None, True),
        ("reversed", None, True),
        ("refunded", 10, True),
        ("refunded", 9, None),
        ("approved", None, False),
        ("review", None, False),
        ("challenge_failed", None, None),
        ("chargeback_lost", None, None),
    ],
)
def test_an_outcome_leaves_the_money_safe_lets_it_go_or_says_nothing(
    name: str, amount: int | None, safe: bool | None
) -> None:
    assert whole([name], [amount], [10]) == [safe]


def test_every_name_is_one_that_is_given_or_reported() -> None:
    assert get_args(Decision) == GIVEN
    assert get_args(Outcome.model_fields["outcome"].annotation) == REPORTED
    assert {*GIVEN, *REPORTED} >= STOPS | GOES | RELEASES
    assert {*REPORTED} >= PARTIAL
    assert "refunded" not in RELEASES


@given(st.lists(OUTCOME, max_size=8), st.integers(1, 20))
def test_whatever_is_let_in_never_gives_back_more_than_was_paid(sent: list[Became], paid: int) -> None:
    let_in: list[Became] = []
    for outcome in sent:
        if contradiction(outcome, paid, let_in) is None:
            let_in.append(outcome)
    back = [o.amount or paid for o in let_in if o.outcome in ("reversed", "refunded")]
    assert sum(back) <= paid
    assert not {"approved", "declined"} <= {o.outcome for o in let_in}
