"""An honest comparison: what accounts of like age and volume, that are in no ring, look like beside a ring's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from serve.cases.protocol import Entity, Investigation
from serve.console.words import DAY_US

ACCOUNTS: Final = 12  # of a ring that are looked at: the first to join
LOOKED_AT: Final = 60  # others that are looked at to find peers
FEWEST: Final = 3  # peers from which medians are worth showing
PAYMENTS: Final = 200  # of an account


@dataclass(frozen=True)
class Facts:
    """Of an account: its age in days, payments, payments a day, devices, merchants and payees of its newest payments,
    the share of them that the model found risky, and the share reported as fraud."""

    name: str
    age: float
    payments: int
    per_day: float
    devices: int
    counterparties: int
    risky: float
    reported: float


@dataclass(frozen=True)
class Line:
    """One line of the comparison: a median of the ring's accounts, and of their peers."""

    what: str
    ring: str
    peers: str


@dataclass(frozen=True)
class Comparison:
    """The comparison.

    Attributes:
        lines: Its lines; none where there are too few peers.
        accounts: Of the ring that were looked at.
        peers: Names of their peers.
    """

    lines: tuple[Line, ...]
    accounts: int
    peers: tuple[str, ...]


def compared(investigation: Investigation, ring_ids: Sequence[str], accounts: Sequence[str]) -> Comparison:
    """Compare accounts of rings with others.

    Peers are accounts that paid at the same devices, merchants or payees, are in no ring and of which no payment is
    reported as fraud. For each account of the ring the one is taken that is nearest in age and number of payments.

    Args:
        investigation: Knows them.
        ring_ids: Whose surroundings are searched for peers.
        accounts: Of the rings.
    """
    mine = [f for f in (_facts(investigation.entity("account", a, PAYMENTS)) for a in accounts[:ACCOUNTS]) if f]
    near = set[str]()
    for ring_id in ring_ids:
        try:
            found = investigation.ring_payments(ring_id, neighbours=True)
        except KeyError:
            continue
        near.update(pc.unique(found["account_id"]).to_pylist())
    honest = []
    for name in sorted(near - set(accounts))[:LOOKED_AT]:
        entity = investigation.entity("account", name, PAYMENTS)
        facts = _facts(entity)
        if entity is not None and facts is not None and not entity.rings and not facts.reported:
            honest.append(facts)
    peers: list[Facts] = []
    for one in mine:
        if left := [other for other in honest if other not in peers]:
            peers.append(min(left, key=lambda other: (_distance(one, other), other.name)))
    lines = _lines(mine, peers) if len(peers) >= FEWEST else ()
    return Comparison(lines, len(mine), tuple(peer.name for peer in peers))


def _facts(entity: Entity | None) -> Facts | None:
    if entity is None or not len(entity.payments):
        return None
    table = entity.payments
    days = max((entity.last_seen - entity.first_seen) / DAY_US, 1.0)
    probability = table["probability"].drop_null()
    return Facts(
        entity.name,
        days,
        entity.total,
        entity.total / days,
        _distinct(table["device_id"]),
        _distinct(table["merchant_id"]) + _distinct(table["payee_id"]),
        (pc.sum(pc.greater_equal(probability, 0.5)).as_py() or 0) / max(len(probability), 1),
        (len(table) - table["fraud_reported_at"].null_count) / len(table),
    )


def _distinct(column: pa.ChunkedArray) -> int:
    found: int = pc.count_distinct(column, mode="only_valid").as_py()
    return found


def _distance(one: Facts, other: Facts) -> float:
    return abs(math.log(one.age / other.age)) + abs(math.log(one.payments / other.payments))


def _lines(mine: Sequence[Facts], peers: Sequence[Facts]) -> tuple[Line, ...]:
    def line(what: str, name: str, form: str) -> Line:
        ring, others = (median(float(getattr(f, name)) for f in group) for group in (mine, peers))
        return Line(what, form.format(ring), form.format(others))

    return (
        line("days between first and newest payment", "age", "{:,.0f}"),
        line("payments", "payments", "{:,.0f}"),
        line("payments a day", "per_day", "{:,.1f}"),
        line("devices", "devices", "{:,.0f}"),
        line("merchants and payees", "counterparties", "{:,.0f}"),
        line("payments that the model found risky", "risky", "{:.0%}"),
        line("payments reported as fraud", "reported", "{:.0%}"),
    )
