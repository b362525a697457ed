"""Values of policies that never ran: simulated truth, intervals, and logs of which none can be told."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from data.world.synthetic import WorldConfig, simulate
from serve.decide.costs import Costs, Payments, payments_of
from serve.decide.off_policy import METHODS, Log, LogError, fit_rewards, label_log, value, values
from serve.decide.rails import Rates
from serve.decide.routing import Rail, Router

COSTS = Costs()


def small(n: int = 200, seed: int = 0) -> Log:
    rng = np.random.default_rng(seed)
    action = rng.integers(0, 2, n)
    reward = 1.0 + action + rng.normal(0, 0.5, n)
    context = rng.normal(size=(n, 1))
    return Log(
        action, np.full(n, 0.5), reward, np.tile([0.2, 0.8], (n, 1)), fit_rewards(context, action, reward, actions=2)
    )


def success_of(payments: Payments) -> NDArray[np.float64]:
    """What banks really approve, which neither router knows: less of large and of risky payments, by rail."""
    amount, risk = np.log10(payments.amount + 1)[:, None], payments.probability[:, None]
    return np.clip(np.array([0.97, 0.90, 0.75]) - np.array([0.06, 0.02, 0.0]) * (amount - 3) - 0.5 * risk, 0.05, 0.99)


def test_every_method_is_within_5_percent_of_the_simulated_truth_on_the_seeded_world() -> None:
    rng = np.random.default_rng(5)
    world = simulate(WorldConfig(transactions=12_000, seed=7))
    amount = world.transactions["amount"].to_numpy()
    fraud = world.truth["is_fraud"].to_numpy(zero_copy_only=False)
    payments = payments_of(COSTS, np.where(fraud, rng.beta(4, 4, len(fraud)), rng.beta(0.2, 20, len(fraud))), amount)
    n, currency = len(amount), world.transactions["currency"].to_pylist()
    rails = (Rail("card", fee_bps=30), Rail("bank", fee=5), Rail("wallet", fee=1))
    logging = Router(rails, "learn", explore=0.6)
    # The router that is judged believes something else of the rails, and goes other ways.
    target = Router(
        tuple(replace(r, success=s) for r, s in zip(rails, (0.7, 0.7, 0.99), strict=True)), "learn", explore=0
    )
    rates: list[Rates] = [logging.rates] * n
    routes = logging.route(world.transactions["transaction_id"].to_pylist(), currency, payments, COSTS, rates)
    names = [rail.name for rail in rails]
    action = np.array([names.index(r.rail) for r in routes if r is not None])
    propensity = np.array([r.propensity for r in routes if r is not None])
    pi = target.propensities(currency, payments, COSTS, rates)
    success = success_of(payments)
    truth = float((pi * success).sum(1).mean())
    reward = (rng.random(n) < success[np.arange(n), action]).astype(np.float64)
    context = np.column_stack([np.log1p(amount), payments.probability])
    log = Log(action, propensity, reward, pi, fit_rewards(context, action, reward, len(rails)))
    assert abs(float(reward.mean()) / truth - 1) > 0.05  # the log's own mean is another value
    for found in values(log):
        assert found.value == pytest.approx(truth, rel=0.05), found
        assert found.low < found.value < found.high


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    held = dict.fromkeys(METHODS, 0)
    for seed in range(60):
        for found in values(small(seed=seed)):
            held[found.method] += found.low <= 1.8 <= found.high
            assert found.bootstrap_low == pytest.approx(found.low, abs=0.1)
    # A direct interval leaves out the error of its model: it is only asked to be no worse than half.
    assert all(count >= 51 for method, count in held.items() if method != "direct"), held


def test_doubly_robust_forgives_a_wrong_model_and_direct_does_not() -> None:
    log = small(4_000)
    assert log.model is not None
    wrong = replace(log, model=log.model + np.array([3.0, -1.0]))
    assert value(wrong, "doubly_robust").value == pytest.approx(1.8, abs=0.1)
    assert abs(value(wrong, "direct").value - 1.8) > 0.15


def test_switch_leaves_a_rare_action_with_a_huge_weight_to_the_model() -> None:
    rng = np.random.default_rng(3)
    n, errors = 200, {"doubly_robust": 0.0, "switch": 0.0}
    for _ in range(100):
        action = (rng.random(n) < 0.004).astype(np.int64)
        reward = np.where(action == 1, 2.0, 1.0) + rng.normal(0, 1, n)
        propensity = np.where(action == 1, 0.004, 0.996)
        log = Log(action, propensity, reward, np.full((n, 2), 0.5), np.tile([1.0, 2.0], (n, 1)))
        for method in errors:
            errors[method] += (value(log, method).value - 1.5) ** 2  # type: ignore[arg-type]
    assert errors["switch"] < 0.8 * errors["doubly_robust"]


def test_weights_by_label_are_less_noisy_than_by_action_and_as_right() -> None:
    rng = np.random.default_rng(0)
    n, found = 2_000, {"label": [], "action": []}  # type: ignore[var-annotated]
    fraud = rng.random(n) < 0.02
    cost = np.column_stack([np.where(fraud, 100.0, 0.0), np.where(fraud, 20.0, 1.0), np.where(fraud, 0.0, 5.0)])
    chance = np.tile([0.8, 0.1, 0.1], (n, 1))  # approve, challenge, decline: the last hides the label
    truth = cost[:, 1].mean()
    for _ in range(40):
        action = (rng.random((n, 1)) > chance.cumsum(1)).sum(1).clip(0, 2)
        seen, target = action != 2, np.tile([0.0, 1.0, 0.0], (n, 1))
        found["label"].append(value(label_log(seen, np.full(n, 0.9), cost[:, 1]), "ips", resamples=1).value)
        log = Log(action, chance[np.arange(n), action], cost[np.arange(n), action], target)
        found["action"].append(value(log, "ips", resamples=1).value)
    assert np.mean(found["label"]) == pytest.approx(truth, rel=0.05)
    assert np.std(found["label"]) < 0.5 * np.std(found["action"])
    with pytest.raises(LogError, match="chance_seen must be above 0"):
        label_log(seen, np.zeros(n), cost[:, 1])


def test_the_effective_size_is_the_whole_log_for_its_own_policy() -> None:
    log = small()
    own = replace(log, target=np.full((200, 2), 0.5))
    assert value(own, "ips").effective == 200
    assert value(log, "ips").effective < 200


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"propensity": np.zeros(200)}, "propensity must be above 0"),
        ({"reward": np.full(200, np.nan)}, "reward must be finite"),
        ({"target": np.full((200, 2), 0.7)}, "target must be probabilities"),
        ({"action": np.full(200, 2)}, "action must be a number from 0 to 1"),
        ({"action": np.zeros(3, np.int64)}, "action must have one value"),
        ({"model": np.zeros((200, 3))}, "model must have the shape"),
    ],
)
def test_a_log_that_tells_nothing_is_refused_by_its_field(change: dict[str, object], says: str) -> None:
    with pytest.raises(LogError, match=says):
        replace(small(), **change)  # type: ignore[arg-type]


def test_a_target_that_the_log_never_followed_has_no_value() -> None:
    log = Log(np.zeros(5, np.int64), np.ones(5), np.ones(5), np.tile([0.0, 1.0], (5, 1)))
    with pytest.raises(LogError, match="never takes"):
        value(log, "snips")
    with pytest.raises(LogError, match="needs a model"):
        value(log, "doubly_robust")
