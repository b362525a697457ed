"""Pre-training: pairs of payments are right and none is later than what may be known; what is learnt is repeatable."""

import numpy as np
import pytest
import torch

from data.history import History
from gnn.train.pretrain import MERCHANT_BUCKETS, NO_MERCHANT, NextPaymentHeads, next_payments
from gnn.train.targets import TrainConfig
from gnn.train.trainer import train
from graph.state import GraphState
from tests.gnn.train.test_train import built, history


@pytest.fixture(scope="module")
def state() -> GraphState:
    return built(history()[0])


def test_a_pair_is_an_account_s_payment_and_its_next_and_ends_before_the_bound(state: GraphState) -> None:
    store, end = state.store, state.store.rows // 2
    known = next_payments(store, end)
    entity, time, amount = (store.column(name) for name in ("entity", "time", "amount"))
    merchant = store.roles.index("merchant")
    expected = {}
    newest: dict[int, int] = {}
    for row in range(end):
        account = int(entity[row, 0])
        # The plain way: an account's row before this one, whichever end it stood at, if it paid there.
        before = newest.get(account)
        if account >= 0 and before is not None and entity[before, 0] == account:
            expected[before] = row
        for r, role in enumerate(store.roles):
            if role in ("account", "payee") and entity[row, r] >= 0:
                newest[int(entity[row, r])] = row
    assert known.rows.tolist() == sorted(expected)
    later = np.array([expected[row] for row in known.rows.tolist()])
    assert later.max() < end
    numbers = np.log1p(np.stack([amount[later], (time[later] - time[known.rows]) / 1e6], 1).astype(np.float64))
    np.testing.assert_allclose(known.numbers, (numbers - numbers.mean(0)) / numbers.std(0), rtol=1e-5, atol=1e-5)
    there = entity[later, merchant] >= 0
    assert (known.merchant[~there] == NO_MERCHANT).all()
    assert ((known.merchant[there] >= 0) & (known.merchant[there] < MERCHANT_BUCKETS)).all()
    same = entity[later[there], merchant]
    assert len({(m, b) for m, b in zip(same.tolist(), known.merchant[there].tolist(), strict=True)}) == len(set(same))


def test_heads_learn_and_a_batch_without_merchants_has_a_loss() -> None:
    torch.manual_seed(0)
    heads = NextPaymentHeads(8)
    h, merchant, numbers = torch.randn(64, 8), torch.randint(0, MERCHANT_BUCKETS, (64,)), torch.randn(64, 2)
    optimiser = torch.optim.Adam(heads.parameters(), 0.05)
    first = heads.loss(h, merchant, numbers)
    for _ in range(100):
        optimiser.zero_grad()
        heads.loss(h, merchant, numbers).backward()
        optimiser.step()
    assert heads.loss(h, merchant, numbers) < 0.7 * first
    assert torch.isfinite(heads.loss(h, torch.full((64,), NO_MERCHANT), numbers))


def test_a_seed_gives_one_model_and_pre_training_another() -> None:
    runs, _ = history()
    shape = {"width": 8, "heads": 2, "hidden": 16, "neighbours": 4, "layers": 1}
    config = TrainConfig(epochs=1, test=0, negatives=5, pretraining=20)
    models = [train(History(runs), config, shape) for _ in range(2)]
    other = train(History(runs), TrainConfig(epochs=1, test=0, negatives=5, pretraining=0), shape)
    assert models[0].version == models[1].version != other.version
