"""The auxiliary task: what becomes of entities is counted right, and what is not known teaches nothing."""

import numpy as np
import pytest
import torch

from gnn.train.prospects import PAYMENTS_AHEAD, ProspectHeads, prospects
from graph.state import GraphState
from tests.gnn.train.test_train import built, history


@pytest.fixture(scope="module")
def state() -> GraphState:
    return built(history()[0])


def test_what_becomes_of_an_entity_is_the_share_of_fraud_among_its_next_payments_that_may_teach(
    state: GraphState,
) -> None:
    store, rng = state.store, np.random.default_rng(3)
    fraud = (rng.random(store.rows) < 0.2).astype(np.float32)
    known = np.flatnonzero(rng.random(store.rows) < 0.7)
    known = known[known < store.rows * 3 // 4]
    expected = np.full((store.rows, len(store.roles)), np.nan)
    entity = store.column("entity")
    for row in known.tolist():
        for role in range(len(store.roles)):
            if entity[row, role] >= 0:
                later = known[(known > row) & (entity[known, role] == entity[row, role])][:PAYMENTS_AHEAD]
                expected[row, role] = fraud[later].mean() if len(later) else np.nan
    assert 0 < np.nanmean(expected) < 1
    np.testing.assert_allclose(prospects(store, fraud, known), expected, rtol=1e-6)


def test_what_is_not_known_to_become_of_an_entity_teaches_nothing() -> None:
    torch.manual_seed(0)
    heads = ProspectHeads(8, 2)
    h, fraud = torch.randn(4, 8, requires_grad=True), torch.tensor([0.0, 1.0, 0.0, 1.0])
    share = torch.tensor([[0.5, float("nan")], [float("nan")] * 2, [0.0, 1.0], [0.25, 0.0]])
    whole = heads.loss(h, fraud, share)
    whole.backward()
    assert torch.isfinite(whole)
    assert torch.isfinite(h.grad).all()
    assert (h.grad != 0).any(1).all()
    target = torch.cat([fraud[:, None], share], 1)
    plain = [
        torch.nn.functional.binary_cross_entropy_with_logits(heads.out(h)[i, j], target[i, j])
        for i in range(4)
        for j in range(3)
        if not target[i, j].isnan()
    ]
    torch.testing.assert_close(whole, torch.stack(plain).mean())
