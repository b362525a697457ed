"""Rings for tests of pictures, made by hand: from a simulated world, and of any size."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.schema import ROLES, TRANSACTION_SCHEMA
from data.world.synthetic import World, WorldConfig, simulate
from graph.rings.records import RING_PAYMENTS, Member, MemberRole, Money, RingRecord, RingState
from tests.world import START_US, UTC_US, transactions

DAY_US = 86_400_000_000


@lru_cache(maxsize=1)
def world() -> World:
    return simulate(WorldConfig(transactions=12_000, seed=7, rings=6))


def known(payments: pa.Table, fraud: np.ndarray, reported: list, seed: int = 1) -> pa.Table:
    """Payments with what is known of each; a few honest ones are known to be."""
    rng = np.random.default_rng(seed)
    n = len(payments)
    probability = np.where(fraud, rng.uniform(0.55, 0.99, n), rng.beta(1, 20, n))
    columns = [*(payments.column(name) for name in TRANSACTION_SCHEMA.names), pa.array(probability)]
    columns += [pa.array(reported, UTC_US), pa.array(~fraud & (rng.random(n) < 0.1)), pa.array(fraud)]
    return pa.table(columns, schema=RING_PAYMENTS)


def world_ring(kind: str = "device_farm") -> tuple[RingRecord, pa.Table]:
    """A planted ring of that kind with all payments of its accounts."""
    made = world()
    ring = made.members.filter(pc.equal(made.members["kind"], kind))["ring_id"][0].as_py()
    members = made.members.filter(pc.equal(made.members["ring_id"], ring)).to_pylist()
    names = [m["account_id"] for m in members]
    take = pc.is_in(made.transactions["account_id"], pa.array(names))
    payments, truth = made.transactions.filter(take), made.truth.filter(take)
    labels = {row["transaction_id"]: row["reported_at"] for row in made.labels.to_pylist() if row["is_fraud"]}
    fraud = pc.and_(truth["is_fraud"], pc.fill_null(pc.equal(truth["ring_id"], ring), False)).to_numpy()
    reported = [
        labels.get(t) if f else None for t, f in zip(payments["transaction_id"].to_pylist(), fraud, strict=True)
    ]
    table = known(payments, fraud, reported)
    victims = [m["account_id"] for m in members if m["member_role"] == "victim"]
    return record_of(table, ring_id=f"K-{ring.rsplit('-')[-1]}", victims=victims), table


def record_of(table: pa.Table, ring_id: str = "K-7", victims: Sequence[str] = ()) -> RingRecord:
    """The record of the ring that rests on a table's evidence: its accounts, and what two of them share."""
    evidence = table.filter(table["evidence"]).sort_by("timestamp")
    times = evidence["timestamp"].cast(pa.int64()).to_pylist()
    accounts: dict[str, int] = {}
    shared: dict[tuple[str, str], dict[str, int]] = {}
    for i, account in enumerate(evidence["account_id"].to_pylist()):
        accounts.setdefault(account, times[i])
    for role in ROLES[1:]:
        for i, name in enumerate(evidence[role.column].to_pylist()):
            if name is not None:
                shared.setdefault((role.name, name), {}).setdefault(evidence["account_id"][i].as_py(), times[i])
    tying = sorted(((k, v) for k, v in shared.items() if len(v) > 1), key=lambda kv: -len(kv[1]))
    first = [MemberRole.FIRST_ACCOUNT] + [MemberRole.ACCOUNT] * len(accounts)
    members = [
        Member("account", name, MemberRole.VICTIM if name in victims else role, at, at)
        for (name, at), role in zip(accounts.items(), first, strict=False)
    ]
    for place, ((role, name), who) in enumerate(tying):
        collects = role in ("merchant", "payee")
        part = (MemberRole.COLLECTOR if collects else MemberRole.HUB) if place < 2 else MemberRole.SHARED
        members.append(Member(role, name, part, sorted(who.values())[1]))
    frauds = evidence.filter(pc.is_valid(evidence["fraud_reported_at"]))
    money = [
        Money(code, pc.sum(of["amount"]).as_py(), pc.sum(of.slice(len(of) // 2)["amount"]).as_py(), 0)
        for code in sorted(set(evidence["currency"].to_pylist()))
        for of in [evidence.filter(pc.equal(evidence["currency"], code))]
    ]
    return RingRecord(
        id=ring_id,
        version=3,
        state=RingState.ACTIVE,
        confidence=0.93,
        first_seen=times[0],
        named_at=times[min(3, len(times) - 1)],
        last_seen=times[-1],
        ended_at=None,
        members=tuple(members),
        evidence=tuple(reversed(evidence["transaction_id"].to_pylist())),
        known_frauds=tuple(reversed(frauds["transaction_id"].to_pylist())),
        money=tuple(money),
        density=0.4,
        parents=(),
        merged_into=None,
        reasons=f"{len(accounts)} accounts share what they pay with; {len(frauds)} payments were reported as fraud.",
    )


def big_ring(nodes: int, seed: int = 3) -> tuple[RingRecord, pa.Table]:
    """A ring of about that many nodes: accounts that share devices, merchants and a few payees, two payments each."""
    rng = np.random.default_rng(seed)
    accounts = int(nodes * 0.8)
    devices, merchants = max(2, int(nodes * 0.15)), max(2, int(nodes * 0.05))
    who = np.concatenate([np.arange(accounts), np.arange(accounts)])
    n = len(who)
    device = who // 5 % devices  # neighbours share a device, and mostly a merchant
    merchant = np.where(rng.random(n) < 0.9, device * merchants // devices, rng.integers(0, merchants, n))
    time = START_US + np.sort(rng.integers(0, 30 * DAY_US, n))
    columns = {
        "transaction_id": pa.array([f"t{i}" for i in range(n)]),
        "timestamp": pa.array(time).cast(UTC_US),
        "account_id": pa.array([f"a{i}" for i in who]),
        "merchant_id": pa.array([f"m{i}" for i in merchant]),
        "device_id": pa.array([f"d{i}" for i in device]),
        "amount": pa.array(rng.integers(100, 90_000, n)),
        "currency": pa.array(rng.choice(["EUR", "JPY"], n)),
    }
    fraud = np.ones(n, bool)
    reported = [int(t + DAY_US) if seen else None for t, seen in zip(time, rng.random(n) < 0.4, strict=True)]
    table = known(pa.Table.from_batches([transactions(columns)]), fraud, reported)
    return record_of(table, ring_id=f"K-{nodes}"), table
