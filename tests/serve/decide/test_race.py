"""Budgets hold exactly where two replicas race over them and are killed anywhere, as in `benchmarks.mandates`."""

from pathlib import Path

import numpy as np

from benchmarks.mandates import PLACES, Contender, Race, check, chunks_of, grant_all


class Killed(Exception):
    """In place of a signal."""


def test_no_budget_is_exceeded_and_no_payment_refused_that_fitted_whoever_is_killed(tmp_path: Path) -> None:
    race = Race(payments=2_000, mandates=12, chunk=25, kill=0.1)
    rng, places = np.random.default_rng(3), []
    grant_all(race, tmp_path)

    def kill(place: str) -> None:
        if rng.random() < race.kill:
            places.append(place)
            raise Killed

    left = {number: chunks_of(race, number) for number in range(race.replicas)}
    alive = {number: Contender(tmp_path, number, kill) for number in left}
    while any(left.values()):
        number = int(rng.choice([n for n, chunks in left.items() if chunks]))
        try:
            alive[number].run(race, left[number][:1])
            left[number] = left[number][1:]
        except Killed:
            alive[number].journal.close()
            alive[number] = Contender(tmp_path, number, kill)
    assert {*places} == {*PLACES}
    found = check(race, tmp_path)
    assert found["twice"] > 100
    assert 400 < found["refused"] < 1_600
    assert (found["payments"], found["over"], found["let_in_beyond"]) == (2_000, 0, 0)
    assert (found["refused_that_fitted"], found["unlike"]) == (0, 0)
