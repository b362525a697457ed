"""On households with planted cases and traps, little is missed and nothing is told wrongly."""

from benchmarks.quality.guidance import KINDS, judged
from benchmarks.quality.households import households


def test_what_is_told_of_households_is_right_and_most_that_is_planted_is_told() -> None:
    world = households(seed=7, count=14)
    told, right, planted, _ = judged(world)
    counts = [sum(found[kind] for kind in KINDS) for found in (told, right, planted)]
    assert counts[2] > 20
    assert counts[1] / counts[0] >= 0.95
    assert counts[1] / counts[2] >= 0.7
    assert right["upcoming"] / told["upcoming"] >= 0.9
