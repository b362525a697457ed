"""The benchmark of hijacked agents: what is judged, and what its oracle may know."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.quality import hijacked, hijacked_oracle
from data.world.agents import DAY, HIJACKED
from data.world.synthetic import World, WorldConfig, simulate

SMALL = replace(WorldConfig.hard(5), transactions=20_000, agents=0.5)


@pytest.fixture(scope="module")
def world() -> World:
    return simulate(SMALL)


def test_other_frauds_are_left_out_of_the_average_precision_of_hijacked_agents() -> None:
    hijacked_ones = np.arange(400) < 2
    other = np.arange(400) >= 398
    truth = hijacked.Truth(np.arange(400), hijacked_ones, other)
    found = hijacked.measures(truth, np.where(other, 3.0, np.where(hijacked_ones, 2.0, np.linspace(1, 0, 400))))
    assert found["average_precision"] == found["recall_at_1_percent"] == found["average_precision_all_frauds"] == 1.0
    assert found["average_precision_other_frauds_as_false"] == 0.5  # two of the four highest


def test_recall_counts_frauds_among_the_highest_hundredth_of_all() -> None:
    fraud = np.isin(np.arange(300), (0, 1, 2, 3))
    assert hijacked.recall(fraud, -np.arange(300.0)) == 0.75


def test_every_payment_of_a_hijacked_agent_is_of_a_script(world: World) -> None:
    rows, x, fraud = hijacked_oracle._described(world, at_once=False)
    kinds = np.array(world.truth["ring_kind"].to_pylist(), object)
    assert set(np.flatnonzero(kinds == HIJACKED)) == set(rows[fraud])
    assert (~fraud).sum() > fraud.sum()  # honest agents take up new shops too
    assert len(x) == len(rows)


def test_the_oracle_reads_no_report_that_comes_later(world: World) -> None:
    time = world.transactions["timestamp"].cast(pa.int64()).to_numpy()
    moment = int(time[0]) + 45 * DAY
    reported = world.labels["reported_at"].cast(pa.int64()).to_numpy()
    early = replace(world, labels=world.labels.filter(pa.array(reported <= moment)))
    rows, x, _ = hijacked_oracle._described(world, at_once=False)
    _, known, _ = hijacked_oracle._described(early, at_once=False)
    before = time[rows] <= moment
    assert before.sum() > 50
    assert np.array_equal(x[before], known[before])
    assert not np.array_equal(x[~before], known[~before])


def test_the_oracle_gives_payments_outside_of_scripts_the_lowest_score(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hijacked_oracle, "WORLDS", range(9_001, 9_005))
    (scores,) = hijacked_oracle.limit([world], SMALL, at_once=True)
    rows, _, fraud = hijacked_oracle._described(world, at_once=True)
    others = np.setdiff1d(np.arange(len(scores)), rows)
    assert scores[others].max() < scores[rows].min()
    assert scores[rows[fraud]].mean() > 0.8 > 0.2 > scores[rows[~fraud]].mean()
