"""Which ring an account, device or card stands in, as the journal has it: what answers and policies read.

Rings are found by the investigator, a process of its own, which journals what it finds (`Kind.RING`). A replica only
remembers what it has read there: no score of its own ring finding waits in a payment's way. A payment reads the rings
that the journal held before it, so that a replay gives every answer again, however far behind the investigator was.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import pyarrow as pa

from data.journal.protocol import Events, Kind
from data.schema import role
from graph.rings.records import LISTED, MemberRole, RingState

CARRIERS: Final = ("account", "payee", "device", "card")
"""Roles by which a payment is in a ring, the first that is counts. An account counts unless it is a victim, whose
payments are mostly its own; a payee where it collects the ring's money. Merchants and addresses have honest payers."""
REMEMBERED: Final = 1_000_000  # events of the journal for which it is known what an entity stood in before


@dataclass(frozen=True, slots=True)
class Standing:
    """A ring as of an event of the journal.

    Attributes:
        ring_id: Its id.
        version: Of the event.
        state: See `graph.rings.records.RingState`.
        confidence: Calibrated probability that it is a ring.
        size: Accounts in it.
    """

    ring_id: str
    version: int
    state: str
    confidence: float
    size: int

    @property
    def counts(self) -> bool:
        """Whether those in it are told so: it stands, and is confident enough to be named."""
        return self.state != RingState.ENDED and self.confidence >= LISTED


_Entity = tuple[str, str]  # role in a payment, name
_Entry = tuple[int, Standing | None]  # journal offset of the change, and what the entity stands in from there on


class RingStanding:
    """The journalled rings, by entity and by id.

    Whoever follows the journal hands it every event (`apply`); kinds other than rings cost nothing.
    """

    def __init__(self) -> None:
        self._of: dict[_Entity, list[_Entry]] = {}
        self._rings: dict[str, tuple[Standing, frozenset[_Entity]]] = {}
        self._swept = 0  # offset up to which what is no longer needed has been dropped

    def __len__(self) -> int:
        """Rings that have not ended."""
        return len(self._rings)

    def apply(self, events: Events) -> None:
        """Take in events; those that are no rings change nothing."""
        if events.kind is not Kind.RING:
            return
        for i, row in enumerate(events.batch.to_pylist()):
            members = frozenset(entity for m in row["members"] for entity in _carrying(m))
            size = sum(m["role"] == "account" for m in row["members"])
            standing = Standing(row["ring_id"], row["version"], row["state"], row["confidence"], size)
            self._put(events.offset + i, standing, members)
        if events.offset - self._swept > REMEMBERED:
            self._sweep(events.offset - REMEMBERED)

    def ring(self, ring_id: str) -> Standing | None:
        """What was journalled of a ring last, None where it has ended or there was none."""
        found = self._rings.get(ring_id)
        return None if found is None else found[0]

    def members(self, ring_id: str) -> frozenset[tuple[str, str]]:
        """Roles and names by which payments are in a ring that has not ended; empty for others."""
        found = self._rings.get(ring_id)
        return frozenset() if found is None else found[1]

    def of(self, payments: pa.RecordBatch, offsets: Sequence[int]) -> list[Standing | None]:
        """The ring that each payment stands in, as of the payment.

        Args:
            payments: Canonical, [n].
            offsets: Their journal offsets, [n].

        Returns:
            [n], None where it stands in none.
        """
        found: list[Standing | None] = [None] * len(payments)
        if not self._of:
            return found
        for name in reversed(CARRIERS):
            for i, value in enumerate(payments.column(role(name).column).to_pylist()):
                if value is not None and (entries := self._of.get((name, value))) is not None:
                    at = bisect_left(entries, offsets[i], key=lambda entry: entry[0]) - 1
                    if at >= 0 and (standing := entries[at][1]) is not None and standing.counts:
                        found[i] = standing
        return found

    def facts(self) -> list[dict[str, Any]]:
        """What a snapshot keeps, as JSON: the rings that have not ended."""
        return [
            {**asdict(standing), "members": sorted(members), "since": self._since(standing, members)}
            for standing, members in self._rings.values()
        ]

    def adopt(self, facts: Sequence[Mapping[str, Any]]) -> None:
        """Go on from what `facts` gave."""
        self._of, self._rings = {}, {}
        for ring in sorted(facts, key=lambda ring: ring["since"]):
            standing = Standing(**{name: ring[name] for name in Standing.__slots__})
            self._put(ring["since"], standing, frozenset((kind, name) for kind, name in ring["members"]))

    def _put(self, offset: int, standing: Standing, members: frozenset[_Entity]) -> None:
        _, before = self._rings.pop(standing.ring_id, (None, frozenset()))
        if standing.state == RingState.ENDED:
            members = frozenset()
        else:
            self._rings[standing.ring_id] = standing, members
        for entity in sorted(before - members):
            last = self._of[entity][-1][1]
            if last is not None and last.ring_id == standing.ring_id:  # it may have gone over to another ring by now
                self._of[entity].append((offset, None))
        for entity in sorted(members):
            self._of.setdefault(entity, []).append((offset, standing))

    def _since(self, standing: Standing, members: frozenset[_Entity]) -> int:
        """The offset of the event that a standing is of."""
        return max((offset for e in members for offset, s in self._of[e] if s == standing), default=0)

    def _sweep(self, before: int) -> None:
        """Forget changes before an offset but the last of each entity, and that, too, where it says that it left."""
        for entity, entries in list(self._of.items()):
            at = max(0, bisect_left(entries, before, key=lambda entry: entry[0]) - 1)
            if at == len(entries) - 1 and entries[at][0] < before and entries[at][1] is None:
                del self._of[entity]
            else:
                del entries[:at]
        self._swept = before


def _carrying(member: Mapping[str, str]) -> list[_Entity]:
    """The roles in which a member brings a payment into its ring."""
    name, member_role = member["name"], member["member_role"]
    if role(member["role"]).entity_type == "account":
        collects = [("payee", name)] if member_role == MemberRole.COLLECTOR else []
        return collects + ([("account", name)] if member_role != MemberRole.VICTIM else [])
    return [(member["role"], name)] if member["role"] in CARRIERS else []
