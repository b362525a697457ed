"""The network on a GPU against the CPU: the bound that a fallback from one to the other is allowed to move a score."""

import numpy as np
import pytest
import torch

from data.journal import Events, Kind
from gnn.artifact import untrained
from gnn.scorer import Scorer
from graph.backend import DAY_US, Window
from graph.state import GraphState
from tests.world import label_batch, payment_batch

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="no CUDA device here: run `make gpu-check` where there is one"
    ),
]

ROLES = ("account", "merchant", "device", "payee")
N = 100_000
BOUND = 1e-4  # of a probability


@pytest.fixture(scope="module")
def state() -> GraphState:
    payments = payment_batch(N, seed=3, accounts=4000, merchants=300, devices=2000)
    state = GraphState(ROLES, 1 << 18, Window(1 << 17, 90 * DAY_US))
    rng = np.random.default_rng(3)
    for start in range(0, N, 5000):
        state.apply(Events(Kind.TRANSACTION, state.applied, payments.slice(start, 5000)))
        chosen = rng.choice(start + 5000, 200, replace=False)
        state.apply(Events(Kind.LABEL, state.applied, label_batch(payments, chosen, rng.random(200) < 0.5)))
    return state


def test_scores_on_cuda_stay_within_the_bound_over_1e5_payments(state):
    artifact = untrained(ROLES)
    cpu, cuda = Scorer(artifact, state), Scorer(artifact, state, "cuda")
    assert cuda.device_name == "cuda"
    expected = np.concatenate([cpu.score(i, i + 1000) for i in range(0, N, 1000)])
    found = np.concatenate([cuda.score(i, i + 1000) for i in range(0, N, 1000)])
    assert expected.std() > 0.01
    difference = np.abs(found - expected)
    print(f"largest {difference.max():.2e}, 99.9 % {np.quantile(difference, 0.999):.2e}")
    assert difference.max() < BOUND


def test_either_engine_goes_on_from_the_others_cache(state):
    artifact = untrained(ROLES, seed=1)
    cpu = Scorer(artifact, state)
    cuda = Scorer(artifact, state, "cuda", cache=cpu.cache)
    found = [(cpu, cuda)[i % 2].score(i * 500, i * 500 + 500) for i in range(40)]
    alone = Scorer(artifact, state).score(0, 20_000)
    assert np.abs(np.concatenate(found) - alone).max() < BOUND


def test_reasons_agree(state):
    artifact = untrained(ROLES, seed=2)
    cpu = Scorer(artifact, state)
    cpu.score(0, 5000)
    cuda = Scorer(artifact, state, "cuda", cache=cpu.cache)
    rows = np.arange(4000, 4100)
    for a, b in zip(cpu.reasons(rows), cuda.reasons(rows), strict=True):
        by_code = {r.code: r.contribution for r in b}
        assert all(abs(r.contribution - by_code.get(r.code, r.contribution)) < 1e-3 for r in a)
