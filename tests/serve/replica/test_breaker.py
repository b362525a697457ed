"""The circuit breaker by itself, on a clock that the tests move."""

from dataclasses import dataclass

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serve.replica.breaker import Breaker


@dataclass
class Clock:
    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_new_breaker_is_closed_whatever_the_clock_says(clock: Clock) -> None:
    clock.now = -5.0  # monotone clocks begin where they like
    breaker = Breaker(clock=clock)
    assert breaker.state == "closed"
    assert breaker.allows()


def test_so_many_failures_in_a_row_open_it_and_one_fewer_does_not(clock: Clock) -> None:
    breaker = Breaker(failures=3, clock=clock)
    for _ in range(2):
        breaker.failed()
        assert breaker.state == "closed"
        assert breaker.allows()
    breaker.failed()
    assert breaker.state == "open"
    assert not breaker.allows()


def test_a_success_between_failures_begins_the_count_anew(clock: Clock) -> None:
    breaker = Breaker(failures=2, clock=clock)
    for _ in range(5):
        breaker.failed()
        breaker.succeeded()
    assert breaker.state == "closed"
    breaker.failed()
    assert breaker.state == "closed"
    breaker.failed()
    assert breaker.state == "open"


def test_it_is_half_open_exactly_when_the_pause_is_over(clock: Clock) -> None:
    breaker = Breaker(pause_s=2.0, clock=clock)
    breaker.failed()
    clock.now += 1.999
    assert breaker.state == "open"
    clock.now = 1_002.0
    assert breaker.state == "half-open"
    assert breaker.allows()
    clock.now += 1e9  # it waits for a trial for as long as none comes
    assert breaker.state == "half-open"


def test_a_trial_that_succeeds_closes_it_and_takes_the_pause_back_to_the_first(clock: Clock) -> None:
    breaker = Breaker(pause_s=2.0, clock=clock)
    breaker.failed()
    clock.now += 2.0
    breaker.failed()  # the trial: now 4 s
    clock.now += 4.0
    breaker.succeeded()
    assert breaker.state == "closed"
    breaker.failed()
    assert breaker.state == "open"
    clock.now += 2.0
    assert breaker.state == "half-open"


def test_each_trial_that_fails_doubles_the_pause_up_to_a_minute(clock: Clock) -> None:
    breaker = Breaker(pause_s=1.0, clock=clock)
    for pause in (1, 2, 4, 8, 16, 32, 60, 60, 60):
        breaker.failed()
        assert breaker.state == "open"
        clock.now += pause - 0.25
        assert breaker.state == "open", pause
        clock.now += 0.25
        assert breaker.state == "half-open", pause


def test_with_several_failures_allowed_one_failed_trial_opens_it_again(clock: Clock) -> None:
    breaker = Breaker(failures=3, clock=clock)
    for _ in range(3):
        breaker.failed()
    clock.now += 1.0
    assert breaker.state == "half-open"
    breaker.failed()
    assert breaker.state == "open"
    clock.now += 1.75
    assert breaker.state == "open"
    clock.now += 0.25
    assert breaker.state == "half-open"


class AgainstAPlainModel(RuleBasedStateMachine):
    """Any order of calls, failures, successes and waits, beside a model that writes the rules out."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.breaker = Breaker(failures=2, pause_s=4.0, clock=self.clock)
        self.in_a_row, self.trials, self.opened = 0, 0, 0.0  # of this outage: failures, failed trials, when the last

    @property
    def expected(self) -> str:
        if self.in_a_row < 2:
            return "closed"
        pause = min(60.0, 4.0 * 2**self.trials)
        return "open" if self.clock.now < self.opened + pause else "half-open"

    @rule(seconds=st.integers(0, 70))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @precondition(lambda self: self.breaker.allows())
    @rule()
    def fail(self) -> None:
        self.trials = self.trials + 1 if self.expected == "half-open" else 0
        self.in_a_row, self.opened = self.in_a_row + 1, self.clock.now
        self.breaker.failed()

    @precondition(lambda self: self.breaker.allows())
    @rule()
    def succeed(self) -> None:
        self.in_a_row = self.trials = 0
        self.breaker.succeeded()

    @invariant()
    def is_as_the_rules_say(self) -> None:
        assert self.breaker.state == self.expected
        assert self.breaker.allows() == (self.expected != "open")


TestAgainstAPlainModel = AgainstAPlainModel.TestCase
