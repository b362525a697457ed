"""A change of structure changes no score, reason, ring or answer by a bit."""

import json
import platform

import numpy as np
import pytest

from tests.golden.record import processor
from tests.golden.replayed import FOLDER, HISTORIES, answers, scores

KEPT = json.loads((FOLDER / "machine.json").read_text())
SAME = (KEPT["processor"], KEPT["system"]) == (processor(), platform.system())
NEAR = 0 if SAME else 1e-6  # another processor's exp() may differ in its last bit


@pytest.mark.parametrize("history", HISTORIES)
def test_scores_of_every_cache_format_are_those_recorded(history: str) -> None:
    with np.load(FOLDER / history / "scores.npz", allow_pickle=False) as kept:
        now = scores(history)
        assert sorted(now) == sorted(kept.files)
        for name in kept.files:
            np.testing.assert_allclose(now[name], kept[name], rtol=0, atol=NEAR, err_msg=name)


@pytest.mark.parametrize("history", HISTORIES)
def test_answers_reasons_and_rings_are_those_recorded(history: str) -> None:
    kept = [json.loads(line) for line in (FOLDER / history / "answers.jsonl").read_text().splitlines()]
    now = json.loads(json.dumps(answers(history)))
    assert len(now) == len(kept)
    for mine, theirs in zip(now, kept, strict=True):
        same(mine, theirs, "")


def same(mine: object, theirs: object, at: str) -> None:
    """Equal, floats to the last bit where the processor is of the same kind."""
    if isinstance(theirs, dict):
        assert isinstance(mine, dict), at
        assert mine.keys() == theirs.keys(), at
        for key in theirs:
            same(mine[key], theirs[key], f"{at}.{key}")
    elif isinstance(theirs, list):
        assert isinstance(mine, list), at
        assert len(mine) == len(theirs), at
        for i, (one, other) in enumerate(zip(mine, theirs, strict=True)):
            same(one, other, f"{at}.{i}")
    elif isinstance(theirs, float):
        assert isinstance(mine, float), at
        assert abs(mine - theirs) <= NEAR, (at, mine, theirs)
    else:
        assert mine == theirs, at
