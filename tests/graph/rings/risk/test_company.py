"""Accounts that use what is mostly a ring's own are its company; honest sharing is no ring."""

import numpy as np

from data.history import History
from data.world.synthetic import WorldConfig, simulate
from tests.graph.rings.risk.streams import feed
from tests.graph.rings.risk.test_engine import farm, history


def test_an_account_with_only_honest_payments_at_a_rings_device_is_in_its_company() -> None:
    rows = [(-1.0, "quiet", "m", "phone"), *farm(6)]
    rings, _, _ = feed(history(rows), np.array([0.01] + [0.9] * 6))
    [ring] = rings.records()
    assert "quiet" in ring.accounts
    assert rings.rings_of("account", "quiet") == [ring.id]


def test_the_customers_of_a_shop_where_a_ring_bought_are_not_its_company() -> None:
    rows = [(-1 + i / 100, f"b{i}", "shop", None) for i in range(12)]
    rows += [(i / 100, f"a{i}", "shop", "phone") for i in range(6)]
    rings, _, _ = feed(history(rows), np.array([0.01] * 12 + [0.9] * 6))
    [ring] = rings.records()
    assert not any(name.startswith("b") for name in ring.accounts)


def test_a_world_of_families_offices_and_lone_fraud_has_no_ring() -> None:
    """Households with tablets, offices with computers, popular shops, transfers to friends; frauds by nobody's ring."""
    world = simulate(WorldConfig(transactions=20_000, seed=11, rings=0))
    fraud = world.truth["is_fraud"].to_numpy(zero_copy_only=False)
    rng = np.random.default_rng(1)
    scores = np.where(fraud, rng.uniform(0, 1, len(fraud)), rng.uniform(0, 1, len(fraud)) ** 100)  # 1.6 % false alarms
    rings, before, _ = feed(History.from_arrow(world.transactions, world.labels), scores)
    assert (scores >= 0.2).sum() > 300
    assert sum(r.named_at is not None for r in rings.records()) <= 1
    assert (before >= 0).mean() < 0.001
