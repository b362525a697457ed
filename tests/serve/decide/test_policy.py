"""From a probability to a decision: where each begins, and that more risk never gives a milder one."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.decide.decision import Decision
from serve.decide.policy import decide
from serve.settings import Settings

MILDEST_FIRST = ("approve", "challenge", "review", "decline")
PROBABILITY = st.floats(0, 1)


def thresholds(challenge: float, review: float, decline: float) -> Settings:
    return Settings(model=Path("m"), insecure=True, challenge=challenge, review=review, decline=decline)


@pytest.mark.parametrize(
    ("probability", "decision"),
    [
        (0.0, "approve"),
        (math.nextafter(0.1, 0), "approve"),
        (0.1, "challenge"),
        (math.nextafter(0.3, 0), "challenge"),
        (0.3, "review"),
        (math.nextafter(0.7, 0), "review"),
        (0.7, "decline"),
        (1.0, "decline"),
    ],
)
def test_a_threshold_belongs_to_the_decision_above_it(probability: float, decision: Decision) -> None:
    assert decide(probability, thresholds(0.1, 0.3, 0.7)) == decision


@pytest.mark.parametrize(
    ("settings", "possible"),
    [
        (thresholds(0.5, 0.5, 0.5), {"approve", "decline"}),  # the strictest wins where thresholds fall together
        (thresholds(0, 0.5, 1), {"challenge", "review", "decline"}),
        (thresholds(0, 0, 0), {"decline"}),
        (thresholds(1, 1, 1), {"approve", "decline"}),
    ],
)
def test_thresholds_that_fall_together_leave_out_what_lies_between(settings: Settings, possible: set[str]) -> None:
    assert {decide(p / 100, settings) for p in range(101)} == possible


@given(st.lists(PROBABILITY, min_size=3, max_size=3), PROBABILITY, PROBABILITY)
def test_more_risk_never_gives_a_milder_decision(limits: list[float], one: float, other: float) -> None:
    settings = thresholds(*sorted(limits))
    low, high = (MILDEST_FIRST.index(decide(p, settings)) for p in sorted((one, other)))
    assert low <= high


@given(st.lists(PROBABILITY, min_size=3, max_size=3), PROBABILITY)
def test_a_decision_counts_the_thresholds_that_are_reached(limits: list[float], probability: float) -> None:
    reached = sum(probability >= limit for limit in limits)
    assert decide(probability, thresholds(*sorted(limits))) == MILDEST_FIRST[reached]
