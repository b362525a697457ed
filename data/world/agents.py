"""Agents in a simulated world: software that pays for account owners, and rings that steer it elsewhere.

A share of the accounts lets an agent pay for groceries, subscriptions, travel and the like, under a mandate. A
*hijacked agent* goes on paying for its owners inside their mandates, but for a few days sends some of each owner's
money to the ring's merchants: one owner sees one odd purchase, only the agent's own history shows that many do. Honest
agents do much the same when their maker takes up a new shop, so that a new merchant is no proof.

It is laid over a finished world with draws of its own: a world without agents is the same to the byte as before.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

HIJACKED: Final = "hijacked_agent"  # kind of ring in the truth
DAY: Final = 86_400_000_000
_BOUGHT: Final = ("5411", "5816", "4511", "7011", "4899", "5399")  # categories that owners leave to agents
_RESOLD: Final = ("5732", "5947", "5399", "5816")  # what the ring's merchants say that they sell
_BY_AGENT: Final = 0.7  # of an owner's payments in those categories
_OWNERS_OF_ONE: Final = 40  # of one agent, on average


@dataclass(frozen=True)
class Laid:
    """What agents add to a world.

    Attributes:
        payments: All payments in time order, agents and mandates named.
        truth: Of the same rows.
        members: Owners of hijacked agents, as rows of the members' table.
        fraud: Whether each payment is a hijacked agent's, bool [n].
    """

    payments: pa.Table
    truth: pa.Table
    members: pa.Table
    fraud: NDArray[np.bool_]


def lay_agents(rng: np.random.Generator, payments: pa.Table, truth: pa.Table, members: pa.Table, share: float) -> Laid:
    """Lay agents over a world.

    Args:
        rng: Source of every draw.
        payments: In time order, `TRANSACTION_SCHEMA`.
        truth: Of the same rows.
        members: Of its rings.
        share: Of the accounts that have an agent, in (0, 1].
    """
    account = payments["account_id"].combine_chunks().dictionary_encode()
    names, owner = account.dictionary.to_pylist(), account.indices.to_numpy()
    agents = max(6, round(len(names) * share / _OWNERS_OF_ONE))
    weights = 1.0 / np.sqrt(1.0 + np.arange(agents))
    agent_of = np.where(rng.random(len(names)) < share, rng.choice(agents, len(names), p=weights / weights.sum()), -1)
    online = np.array(payments["channel"].to_pylist()) == "ecom"
    asked = np.isin(np.array(payments["mcc"].to_pylist(), object), _BOUGHT) & online
    honest = ~truth["is_fraud"].to_numpy()
    paid = (agent_of[owner] >= 0) & asked & honest & (rng.random(len(owner)) < _BY_AGENT)
    scripts = _scripts(rng, payments, paid, agent_of, owner, names)
    extra = pa.Table.from_pylist([row for row, _ in scripts], payments.schema)
    told = pa.Table.from_pylist([said for _, said in scripts], truth.schema)
    everything = pa.concat_tables([_named(payments, np.where(paid, agent_of[owner], -1)), extra])
    order = pc.sort_indices(everything["timestamp"].cast(pa.int64()))
    both = pa.concat_tables([truth, told]).take(order)
    first: dict[tuple[str, str], dict[str, Any]] = {}
    for row, said in sorted(scripts, key=lambda script: script[0]["timestamp"]):
        if said["ring_id"] is not None:
            key = said["ring_id"], row["account_id"]
            first.setdefault(
                key,
                {"ring_id": key[0], "kind": HIJACKED, "account_id": key[1], "member_role": "victim",
                 "first_seen": row["timestamp"]},
            )  # fmt: skip
    joined = pa.concat_tables([members, pa.Table.from_pylist(list(first.values()), members.schema)])
    hijacked = pc.fill_null(pc.equal(both["ring_kind"], HIJACKED), False).to_numpy()
    return Laid(everything.take(order), both, joined, hijacked)


def _named(payments: pa.Table, agent: NDArray[np.int64]) -> pa.Table:
    """Payments with agent and mandate; -1 for those that people made."""
    text = [None if a < 0 else f"g{a:05}" for a in agent.tolist()]
    accounts = payments["account_id"].to_pylist()
    mandates = [None if a is None else f"M-{account}" for a, account in zip(text, accounts, strict=True)]
    for name, values in (("agent_id", text), ("mandate_id", mandates)):
        at = payments.schema.get_field_index(name)
        payments = payments.set_column(at, payments.schema.field(name), pa.array(values, pa.string()))
    return payments


def _scripts(
    rng: np.random.Generator,
    payments: pa.Table,
    paid: NDArray[np.bool_],
    agent_of: NDArray[np.int64],
    owner: NDArray[np.int64],
    names: list[str],
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Payments of hijacked agents, and of honest ones whose maker took up a new shop: each with its truth."""
    rows = np.flatnonzero(paid)
    times = payments["timestamp"].cast(pa.int64()).to_numpy()
    start, end = int(times[0]), int(times[-1])
    busy = [a for a in range(agent_of.max() + 1) if len({*owner[rows[agent_of[owner[rows]] == a]].tolist()}) >= 8]
    rings = max(1, round(len(busy) * 0.5))
    hijacked = rng.choice(busy, min(rings, len(busy)), replace=False) if busy else np.empty(0, np.int64)
    found: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for number, agent in enumerate([*hijacked.tolist(), *busy]):
        is_fraud = number < len(hijacked)
        began = int(rng.uniform(start + 0.15 * (end - start), start + 0.9 * (end - start)))
        lasts = (rng.uniform(2, 8) if is_fraud else rng.uniform(10, 40)) * DAY
        mine = rows[agent_of[owner[rows]] == agent]
        owners = np.unique(owner[mine])
        struck = rng.choice(owners, max(5, int(len(owners) * rng.uniform(0.3, 0.8))), replace=False)
        shops = [f"m9{number:03}{k}{rng.integers(1000):03}" for k in range(int(rng.integers(1, 4)))]
        trade = [str(rng.choice(_RESOLD if is_fraud or rng.random() < 0.5 else _BOUGHT)) for _ in shops]
        for account in struck.tolist():
            usual = mine[owner[mine] == account]
            for _ in range(int(rng.integers(1, 4))):
                template = payments.slice(int(rng.choice(usual)), 1).to_pylist()[0]
                shop = int(rng.integers(len(shops)))
                at = min(end, int(began + rng.random() * lasts))
                factor = float(np.exp(rng.normal(0.4 if is_fraud else 0.1, 0.4)))
                paid_for = {
                    "transaction_id": f"g{number:03}x{len(found):06}",
                    "timestamp": at,
                    "amount": max(50, int(template["amount"] * factor)),
                    "merchant_id": shops[shop],
                    "mcc": trade[shop],
                    "agent_id": f"g{agent:05}",
                    "mandate_id": f"M-{names[account]}",
                }
                found.append(({**template, **paid_for}, _truth(paid_for["transaction_id"], number, is_fraud)))
    return found


def _truth(name: Any, number: int, is_fraud: bool) -> dict[str, Any]:
    ring = {"ring_id": f"agent-{number + 1:04}", "ring_kind": HIJACKED, "member_role": "victim", "phase": "attack"}
    none = dict.fromkeys(ring)
    return {"transaction_id": name, "is_fraud": is_fraud, **(ring if is_fraud else none)}
