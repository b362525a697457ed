"""An investigation in memory over rings made by hand, for tests of cases and the console."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from data.schema import ROLES
from graph.rings.records import RING_PAYMENTS, Member, MemberRole, Money, RingRecord, RingState
from serve.cases.comparison import COMPARISON
from serve.cases.protocol import Entity, GivenVerdict, RingFilter, Verdict
from serve.decide.spending.crowd import Crowd
from serve.decide.spending.guidance import Advice, Around, guidance
from serve.decide.spending.past import Past
from serve.decide.spending.profile import Profile, profile

START = datetime(2026, 3, 4, 9, tzinfo=UTC)
HOUR = 3_600_000_000
EVERY = RingFilter()
BEGIN = int(START.timestamp()) * 1_000_000


def paid(
    transaction_id: str,
    account: str,
    hours: float = 0.0,
    *,
    amount: int = 10_000,
    currency: str = "EUR",
    merchant: str = "shop",
    device: str | None = None,
    payee: str | None = None,
    probability: float | None = 0.01,
    fraud: bool = False,
    legitimate: bool = False,
    evidence: bool = False,
) -> dict[str, object]:
    """A payment as `RING_PAYMENTS` has it."""
    moment = START + timedelta(hours=hours)
    return {
        "transaction_id": transaction_id,
        "timestamp": moment,
        "account_id": account,
        "merchant_id": merchant,
        "device_id": device,
        "amount": amount,
        "currency": currency,
        "ip": None,
        "card_id": None,
        "payee_id": payee,
        "location_id": None,
        "channel": "web",
        "mcc": "5411",
        "country": "DE",
        "agent_id": None,
        "mandate_id": None,
        "probability": probability,
        "fraud_reported_at": moment + timedelta(days=1) if fraud else None,
        "known_legitimate": legitimate,
        "evidence": evidence,
    }


def ring(
    ring_id: str,
    accounts: Sequence[str],
    payments: Sequence[str] = (),
    frauds: Sequence[str] = (),
    *,
    confidence: float = 0.9,
    version: int = 1,
    devices: Sequence[str] = ("d1",),
    money: Sequence[Money] = (Money("EUR", 100_000, 20_000, 10_000),),
    state: RingState = RingState.ACTIVE,
    parents: Sequence[str] = (),
    merged_into: str | None = None,
    roles: dict[str, MemberRole] | None = None,
) -> RingRecord:
    """A ring of these accounts."""
    known = roles or {}
    members = [
        Member("account", a, known.get(a, MemberRole.ACCOUNT if i else MemberRole.FIRST_ACCOUNT), BEGIN + i * HOUR)
        for i, a in enumerate(accounts)
    ]
    members += [Member("device", d, MemberRole.HUB, BEGIN + HOUR) for d in devices]
    return RingRecord(
        id=ring_id,
        version=version,
        state=state,
        confidence=confidence,
        first_seen=BEGIN,
        named_at=BEGIN + HOUR,
        last_seen=BEGIN + 20 * HOUR,
        ended_at=BEGIN + 30 * HOUR if state is RingState.ENDED else None,
        members=tuple(members),
        evidence=tuple(payments),
        known_frauds=tuple(frauds),
        money=tuple(money),
        density=0.8,
        parents=tuple(parents),
        merged_into=merged_into,
        reasons=f"{len(accounts)} accounts paid from {len(devices)} devices first seen on 4 March.",
    )


class FakeInvestigation:
    """Rings, payments and verdicts in lists; the journal is `given`, which outlives a database."""

    def __init__(self) -> None:
        self.records: dict[str, list[RingRecord]] = {}
        self.payments: list[dict[str, object]] = []
        self.given: list[GivenVerdict] = []
        self.fails: Exception | None = None
        self.now: datetime | None = None

    def put(self, record: RingRecord) -> RingRecord:
        """A new version of a ring."""
        kept = self.records.setdefault(record.id, [])
        kept.append(replace(record, version=len(kept) + 1))
        return kept[-1]

    @property
    def clock(self) -> int:
        return BEGIN + 40 * HOUR if self.now is None else int(self.now.timestamp() * 1e6)

    @property
    def position(self) -> int:
        return 100 + len(self.given)

    def rings(
        self, wanted: RingFilter = EVERY, limit: int = 100, after: str | None = None, as_of: int | None = None
    ) -> list[RingRecord]:
        found = [
            r
            for (*_, r) in self.records.values()
            if r.confidence >= wanted.confidence
            and (wanted.since is None or r.last_seen >= wanted.since)
            and (not wanted.states or r.state in wanted.states)
            and (wanted.entity is None or wanted.entity in [(m.role, m.name) for m in r.members])
        ]
        found.sort(key=lambda r: (-r.confidence, r.id))
        ids = [r.id for r in found]
        start = 0 if after is None else ids.index(after) + 1
        return found[start : start + limit]

    def ring(self, ring_id: str, as_of: int | None = None) -> RingRecord | None:
        return self.records[ring_id][-1] if ring_id in self.records else None

    def versions(self, ring_id: str) -> list[RingRecord]:
        return self.records.get(ring_id, [])

    def ring_payments(self, ring_id: str, neighbours: bool = False) -> pa.Table:
        accounts = set(self.records[ring_id][-1].accounts)
        shared = {m.name for m in self.records[ring_id][-1].members if m.role != "account"}
        rows = [
            p
            for p in self.payments
            if (p["account_id"] in accounts and (neighbours or p["evidence"]))
            or (neighbours and shared & {p["device_id"], p["merchant_id"], p["payee_id"]})
        ]
        return self._table(rows)

    def entity(self, role: str, name: str, limit: int = 200) -> Entity | None:
        column = next((r.column for r in ROLES if r.name == role), None)
        rows = [p for p in self.payments if column and p[column] == name]
        if not rows:
            return None
        table = self._table(rows)
        times = table["timestamp"].cast(pa.int64()).to_pylist()
        tied: dict[tuple[str, str], int] = {}
        for row in rows:
            for other in ROLES:
                value = row[other.column]
                if value is not None and other.name != role:
                    key = (other.name, str(value))
                    tied[key] = tied.get(key, 0) + 1
        order = sorted(((r, n, k) for (r, n), k in tied.items()), key=lambda t: (-t[2], t))
        rings = [r.id for (*_, r) in self.records.values() if (role, name) in [(m.role, m.name) for m in r.members]]
        return Entity(role, name, times[0], times[-1], table.slice(0, limit), len(rows), tuple(rings), tuple(order))

    def profile(self, account: str, as_of: int | None = None) -> Profile | None:
        past = self._past(account, as_of)
        return None if past is None else profile(past, Crowd())

    def guidance(
        self, account: str, balance: Mapping[str, int] | None = None, as_of: int | None = None
    ) -> tuple[Advice, ...] | None:
        past = self._past(account, as_of)
        return None if past is None else guidance(past, profile(past, Crowd()), Around(balance=balance or {}))

    def _past(self, account: str, as_of: int | None) -> Past | None:
        rows = [p for p in self.payments if account in (p["account_id"], p["payee_id"])]
        return Past.of(account, self._table(rows), self.clock if as_of is None else as_of) if rows else None

    def payment(self, transaction_id: str) -> pa.Table | None:
        rows = [p for p in self.payments if p["transaction_id"] == transaction_id]
        return self._table(rows) if rows else None

    def comparison(self, ring_id: str) -> pa.Table:
        line = {"metric": "payments in the busiest hour", "ring": 7.0, "low": 1.0, "median": 2.0, "high": 3.5}
        rows = [{**line, "unusual": True, "peers": 4}] if ring_id in ("K-1", "K-2") else []
        return pa.Table.from_pylist(rows, schema=COMPARISON)

    def alike(self, ring_id: str, limit: int = 10) -> list[tuple[str, float]]:
        self.records[ring_id]
        return [(one, 0.9) for one in self.records if one != ring_id][:limit]

    def verdicts(self, ring_id: str | None = None) -> Sequence[GivenVerdict]:
        return [v for v in self.given if ring_id in (None, v.ring_id)]

    def give_verdict(
        self,
        ring_id: str,
        verdict: Verdict,
        transaction_ids: Sequence[str],
        by: str,
        note: str = "",
        verdict_id: str = "",
    ) -> GivenVerdict:
        if self.fails is not None:
            raise self.fails
        if ring_id not in self.records:
            raise KeyError(f"no ring {ring_id!r}")
        for old in self.given:
            if old.verdict_id == verdict_id:
                return old
        known = {p["transaction_id"]: p for p in self.payments}
        for one in transaction_ids:
            if one not in known:
                raise ValueError(f"no payment {one!r}")
            known[one]["fraud_reported_at"] = START + timedelta(days=2) if verdict == "fraud" else None
            known[one]["known_legitimate"] = verdict == "legitimate"
        given = GivenVerdict(
            100 + 10 * len(self.given),
            verdict_id or f"v{len(self.given)}",
            ring_id,
            verdict,
            tuple(transaction_ids),
            by,
            note,
            self.clock,
        )
        self.given.append(given)
        return given

    def _table(self, rows: Sequence[dict[str, object]]) -> pa.Table:
        ordered = sorted(rows, key=lambda p: (p["timestamp"], p["transaction_id"]))  # type: ignore[arg-type,return-value]
        return pa.Table.from_pylist(list(ordered), schema=RING_PAYMENTS)


def busy() -> FakeInvestigation:
    """Two rings that share a device, and honest neighbours."""
    found = FakeInvestigation()
    for i, account in enumerate(("anna", "ben", "cleo")):
        found.payments.append(paid(f"h{i}", account, -300 + i, amount=2_500))  # before the ring: approved, not reported
        for j in range(2):
            fraud = j == 0
            found.payments.append(
                paid(f"e{i}{j}", account, i + j, device="d1", probability=0.8, fraud=fraud, evidence=True)
            )
    for i in range(4):
        for j in range(3):
            found.payments.append(paid(f"n{i}{j}", f"honest{i}", -200 + 10 * j + i, device="d1" if j == 0 else None))
    found.payments += [
        paid("x0", "dora", 3, device="d1", currency="USD", probability=0.7, evidence=True),
        paid("x1", "emil", 4, device="d2", currency="USD", probability=0.7, evidence=True),
    ]
    found.put(ring("K-1", ("anna", "ben", "cleo"), ("e21", "e20", "e11", "e10", "e01", "e00"), ("e20", "e10", "e00")))
    found.put(
        ring(
            "K-2",
            ("dora", "emil"),
            ("x1", "x0"),
            confidence=0.6,
            devices=("d1", "d2"),
            money=(Money("USD", 20_000, 0, 0),),
        )
    )
    return found
