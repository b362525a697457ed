"""Reasons: they add up, are near the exact values, name what moves the score, and can be read by an investigator."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pyarrow as pa
import pytest

from data.history import History
from data.journal.protocol import Events, Kind
from gnn.model.artifact import Artifact, untrained
from gnn.model.groups import group_names
from gnn.model.network import RingwatchNet
from gnn.quality.fidelity import fidelity
from gnn.rivals.pyg import HeteroRingwatch, agreement, hetero_inputs
from gnn.score.cpu_scorer import CpuScorer
from gnn.score.protocol import Scorer
from gnn.score.reasons import OTHER, Reason, build_explanation, explain_contributions
from gnn.score.shapley import all_masks, exact_values, pair_masks, pair_values
from gnn.train.targets import TrainConfig
from gnn.train.trainer import train
from graph.dag.protocol import DAY_US, Window
from graph.state import GraphState
from tests.gnn.train.test_train import N, built, history
from tests.world import START_US, UTC_US, reports, transactions

G = 5
MINUTE_US = 60_000_000


def worth_of(game: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """What a game of 2^G known sets is worth with each mask left out, [1, M]."""
    return game[(1 << G) - 1 - masks][None]


def from_dividends(dividends: dict[int, float]) -> np.ndarray:
    """A game from what sets of groups add by acting together."""
    return np.array([sum(d for s, d in dividends.items() if s & known == s) for known in range(1 << G)])


def test_exact_values_average_over_all_orders():
    game = np.random.default_rng(0).normal(size=1 << G)
    expected = np.zeros(G)
    orders = list(permutations(range(G)))
    for order in orders:
        known = 0
        for g in order:
            expected[g] += (game[known | 1 << g] - game[known]) / len(orders)
            known |= 1 << g
    np.testing.assert_allclose(exact_values(worth_of(game, all_masks(G)))[0], expected, atol=1e-12)


def test_the_fast_method_is_exact_where_at_most_two_act_together():
    rng = np.random.default_rng(1)
    game = from_dividends({s: rng.normal() for s in range(1 << G) if s.bit_count() <= 2})
    exact = exact_values(worth_of(game, all_masks(G)))
    np.testing.assert_allclose(pair_values(worth_of(game, pair_masks(G))), exact, atol=1e-12)
    # Three that act together: the middle one gets nothing, the outer ones half each.
    three = from_dividends({0b10101: 6.0})
    np.testing.assert_allclose(pair_values(worth_of(three, pair_masks(G)))[0], [3, 0, 0, 0, 3], atol=1e-12)
    np.testing.assert_allclose(exact_values(worth_of(three, all_masks(G)))[0], [2, 0, 2, 0, 2], atol=1e-12)


def test_the_fast_method_asks_little_and_always_adds_up():
    game = np.random.default_rng(2).normal(size=1 << G)
    masks = pair_masks(G)
    assert len(set(masks.tolist())) == len(masks) == 2 * G
    assert pair_values(worth_of(game, masks)).sum() == pytest.approx(game[-1] - game[0])


def test_what_is_not_named_is_added_up():
    named = [Reason("A", "a", 0.123456), Reason("B", "b", -0.1)]
    told = build_explanation(-4.00004, named, -3.5, "the rest")
    assert [r.code for r in told.reasons] == ["A", "B", OTHER]
    assert told.baseline + sum(r.contribution for r in told.reasons) == pytest.approx(-3.5, abs=1e-9)
    assert build_explanation(1.0, [Reason("A", "a", 0.5)], 1.5, "the rest").reasons == [Reason("A", "a", 0.5)]


@pytest.fixture(scope="module")
def learnt() -> Scorer:
    """A small model that has learnt which merchants are bad, over the graph that it learnt from."""
    runs, _ = history()
    config = TrainConfig(epochs=4, test=0.25, negatives=15)
    artifact = train(History(runs), config, {"width": 16, "hidden": 32, "neighbours": 8})
    scorer = CpuScorer(artifact, built(runs))
    scorer.score(0, N)
    return scorer


@pytest.mark.parametrize("exact", [False, True])
def test_contributions_add_up_to_the_log_odds(learnt, exact):
    rows = np.arange(N - 300, N)
    probability = learnt.rescore(rows)
    told = learnt.reasons(rows, exact)
    for p, why in zip(probability, told, strict=True):
        assert 1 <= len(why.reasons) <= 5
        assert why.baseline + sum(r.contribution for r in why.reasons) == pytest.approx(np.log(p / (1 - p)), abs=1e-4)
    assert len({why.baseline for why in told}) == 1  # of a payment of which nothing is known, whichever it is


def test_reasons_are_true_to_the_score(learnt):
    """Removing what is named moves the score more than removing as much at random; contributions are nearly exact."""
    rows = np.sort(np.random.default_rng(0).choice(N, 400, replace=False))
    found = fidelity(learnt, rows)
    assert [m.groups for m in found.deletion] == [m.groups for m in found.insertion] == [1, 2, 3, 4]
    for moved in (*found.deletion, *found.insertion):
        assert moved.low > 0
        assert moved.named > 1.5 * moved.random
    assert all(moved.rank > 0.6 for moved in found.deletion)
    assert found.off_sum < 1e-4
    # Trees cut by several groups at once: the fast method is further off than beside a smooth network (.64 here).
    assert found.error_share < 0.8
    assert found.same_first > 0.7


def test_fidelity_repeats(learnt):
    rows = np.arange(N - 40, N)
    assert fidelity(learnt, rows, seed=3) == fidelity(learnt, rows, seed=3)


@pytest.fixture(scope="module")
def headless(learnt) -> Scorer:
    """The network alone: PyG has no trees."""
    net = RingwatchNet(learnt.artifact.config)
    net.load_state_dict(learnt.artifact.net.state_dict())
    net.eval().requires_grad_(False)
    return CpuScorer(replace(learnt.artifact, net=net), learnt.state, cache=learnt.cache)


def test_the_pyg_model_is_the_network(headless):
    rows = np.arange(N - 50, N)
    net = headless.artifact.net
    logit = HeteroRingwatch(net)(**hetero_inputs(headless.state.store, net, rows))
    np.testing.assert_allclose(logit[: len(rows)].detach().numpy(), headless.logits(rows), atol=1e-4)


def test_gnn_explainer_finds_the_same_roles(headless):
    rows = np.random.default_rng(1).choice(np.arange(N - 1000, N), 5, replace=False)
    found = agreement(headless, rows, epochs=60)
    assert found.payments == len(rows)
    assert found.by_payment >= 0.2
    assert found.overall > 0.5


def one_device() -> tuple[GraphState, Artifact]:
    """Seven accounts pay from one device within three minutes, two of them known as fraud; then an eighth does."""
    roles = ("account", "merchant", "device")
    n = 8
    times = START_US + np.array([0, 10, 20, 30, 40, 50, 60, 180]) * MINUTE_US // 60
    batch = transactions(
        {
            "transaction_id": pa.array([f"t{i}" for i in range(n)]),
            "timestamp": pa.array(times).cast(UTC_US),
            "account_id": pa.array([f"a{i}" for i in range(n)]),
            "merchant_id": pa.array(["m0"] * (n - 1) + ["m1"]),
            "device_id": pa.array(["d0"] * n),
            "amount": pa.array([4200] * n),
            "currency": pa.array(["EUR"] * n),
        }
    )
    state = GraphState(roles, 1 << 10, Window(500, 90 * DAY_US))
    state.apply(Events(Kind.TRANSACTION, 0, batch.slice(0, n - 1)))
    state.apply(Events(Kind.LABEL, n - 1, reports(["t0", "t3"], [True, True], [times[-1] - 1] * 2)))
    state.apply(Events(Kind.TRANSACTION, n + 1, batch.slice(n - 1)))
    return state, untrained(roles, neighbours=4)


def test_an_investigator_can_read_them():
    state, artifact = one_device()
    row = np.array([7])
    names = [name.upper() for name in group_names(artifact.roles)]
    contribution = np.zeros((1, len(names)))
    for weight, code in enumerate(
        ["TIME", "RING", "HISTORY_ACCOUNT", "HISTORY_MERCHANT", "LABELS", "HISTORY_DEVICE"], 1
    ):
        contribution[0, names.index(code)] = weight / 10
    x = state.store.features(row)
    (told,) = explain_contributions(state, row, x, np.array([-5.0]), contribution)
    said = {r.code: r.message for r in told.reasons}
    assert said == {
        "HISTORY_DEVICE": "device first seen 3 minutes ago, used by 7 other accounts, new to this account, "
        "2 payments confirmed fraud, 7 payments in 24 hours",
        "LABELS": "confirmed fraud in 30 days: 2 payments of this device; the newest made 2 minutes ago",
        "HISTORY_MERCHANT": "merchant never seen before",
        "HISTORY_ACCOUNT": "account never seen before",
        OTHER: "all other evidence together: ring, time",
    }
    assert [r.contribution for r in told.reasons] == [0.6, 0.5, 0.4, 0.3, 0.3]
