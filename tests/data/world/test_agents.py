"""Agents over a simulated world: off unless asked for, honest for the most part, and hijacked inside their mandates."""

from collections import defaultdict
from functools import cache

import numpy as np
import pyarrow as pa
import pytest

from data.errors import DataError
from data.schema import check_labels, check_transactions
from data.world.agents import HIJACKED
from data.world.synthetic import World, WorldConfig, simulate


@cache
def made(agents: float) -> World:
    return simulate(WorldConfig(transactions=20_000, seed=3, agents=agents))


def test_what_was_there_without_agents_is_there_with_them() -> None:
    plain, world = made(0.0), made(0.5)
    assert plain.transactions["agent_id"].null_count == len(plain.transactions)
    kept = world.transactions.filter(pa.compute.is_in(world.transactions["transaction_id"], plain.transactions[0]))
    columns = [name for name in plain.transactions.column_names if name not in ("agent_id", "mandate_id")]
    assert sorted(kept.select(columns).to_pylist(), key=str) == sorted(
        plain.transactions.select(columns).to_pylist(), key=str
    )
    assert made(0.5).transactions.equals(simulate(WorldConfig(transactions=20_000, seed=3, agents=0.5)).transactions)


def test_the_world_keeps_its_schemas_and_its_order() -> None:
    world = made(0.5)
    assert not check_transactions(world.transactions)[1]
    assert not check_labels(world.labels)[1]
    assert world.truth["transaction_id"].equals(world.transactions["transaction_id"])
    for table, column in ((world.transactions, "timestamp"), (world.labels, "reported_at")):
        assert (np.diff(table[column].cast(pa.int64()).to_numpy()) >= 0).all()
    assert len(set(world.transactions["transaction_id"].to_pylist())) == len(world.transactions)


def test_a_hijacked_agent_steers_many_owners_to_few_new_merchants_and_honest_agents_do_so_too() -> None:
    world = made(0.5)
    seen = {r["merchant_id"] for r in made(0.0).transactions.to_pylist()}
    owners, shops = defaultdict(set), defaultdict(set)
    honest_new = 0
    for payment, truth in zip(world.transactions.to_pylist(), world.truth.to_pylist(), strict=True):
        if truth["ring_kind"] == HIJACKED:
            assert truth["is_fraud"]
            assert payment["mandate_id"] == f"M-{payment['account_id']}"
            owners[truth["ring_id"]].add(payment["account_id"])
            shops[truth["ring_id"]].add(payment["merchant_id"])
            assert payment["merchant_id"] not in seen
        elif payment["agent_id"] is not None and payment["merchant_id"] not in seen:
            assert not truth["is_fraud"]
            honest_new += 1
    assert owners
    assert all(len(o) >= 5 and len(shops[ring]) <= 3 for ring, o in owners.items())
    assert honest_new > 50
    listed = {(r["ring_id"], r["account_id"]) for r in world.members.to_pylist() if r["kind"] == HIJACKED}
    assert listed == {(ring, account) for ring, o in owners.items() for account in o}
    frauds = {t["transaction_id"] for t in world.truth.to_pylist() if t["ring_kind"] == HIJACKED}
    reported = {r["transaction_id"] for r in world.labels.to_pylist()} & frauds
    assert len(reported) > 0.8 * len(frauds)


def test_a_share_of_agents_beyond_one_is_refused() -> None:
    with pytest.raises(DataError, match=r"agents = 1\.5, must be 0 to 1"):
        WorldConfig(agents=1.5)
