"""One id through thousands of growths, merges, splits, silences and expiries, against the rule in plain sets."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from data.journal.protocol import Events, Kind
from data.schema import TIMESTAMP
from graph.dag.protocol import DAY_US
from graph.rings.risk.engine import RiskRings, RiskSettings
from graph.state import GraphState
from tests.world import transactions

SETTINGS = RiskSettings(surprises=(2.5, 5.0, 9.0), window_us=DAY_US, base=0.05)
START_US = 1_767_225_600_000_000
CHANGES = 10_000
Rings = dict[str, frozenset[int]]  # accounts by id


class Stream:
    """Random payments among accounts that drift from device to device; each group of them is active now and then."""

    def __init__(self, seed: int, payments: int) -> None:
        rng = np.random.default_rng(seed)
        n = np.arange(payments)
        pause = np.where(n % 150 == 149, 0.9, 0.008 * rng.exponential(size=payments))  # days of silence, too
        time = START_US + np.cumsum(1 + (pause * DAY_US).astype(np.int64))
        group = (n // 30 + rng.integers(0, 3, payments)) % 8  # three groups at a time
        account = (group * 4 + rng.integers(0, 6, payments) + n // 100) % 34
        device = np.where(rng.random(payments) < 0.8, group, rng.integers(0, 12, payments))
        columns = {
            "transaction_id": [f"t{i}" for i in n],
            "timestamp": pa.array(time).cast(TIMESTAMP),
            "account_id": [f"a{i}" for i in account],
            "merchant_id": [f"m{i}" for i in rng.integers(0, 400, payments)],
            "device_id": [f"d{i}" for i in device],
            "amount": [100] * payments,
            "currency": ["EUR"] * payments,
        }
        self.payments, self.time = payments, time
        self.probability = np.where(rng.random(payments) < 0.7, 0.9, 0.01)
        self.state = GraphState(("account", "merchant", "device"), capacity=1 << 17)
        self.rings = RiskRings(self.state.store, None, SETTINGS)  # before any payment, to be fed one by one
        batch = transactions({name: pa.array(column) for name, column in columns.items()})
        self.state.apply(Events(Kind.TRANSACTION, 0, batch))
        self.account = list(self.state.store.ids.types).index("account")

    def steps(self) -> Iterator[int | None]:
        """Feed the engine, one step at a time: a payment leaves the window, or one comes.

        Yields:
            The account of a payment that comes, if it has no other in the window: nothing is remembered of it.
        """
        gone, accounts = 0, self.state.store.column("entity", np.arange(self.payments))[:, 0].tolist()
        for row in range(self.payments):
            while self.time[gone] + SETTINGS.window_us < self.time[row]:  # a label of nothing: only the clock goes on
                at = self.time[gone : gone + 1] + SETTINGS.window_us + 1
                self.rings.relabel(np.array([-1]), np.array([-1], np.int8), at)
                gone += 1
                yield None
            self.rings.extend(range(row, row + 1), self.probability[row : row + 1])
            yield None if accounts[row] in accounts[gone:row] else accounts[row]

    def now(self) -> Rings:
        t, found = self.rings._t, {}
        for node in np.flatnonzero(t.entities["ring"][: self.state.store.ids.numbered]).tolist():
            if self.state.store.ids.kind(node) == self.account:
                ring = int(t.rings[int(t.entities["ring"][node]) - 1]["id"])
                found.setdefault(f"K-{ring}", set()).add(node)
        return {ring: frozenset(accounts) for ring, accounts in found.items()}


class Rule:
    """Which ring each community is, said in sets: ids as they must be after an event."""

    def __init__(self) -> None:
        self.past: dict[int | None, str] = {}  # the ring that an account was in last
        self.over: set[str] = set()  # rings that ended and may come back
        self.ever: set[str] = set()

    def step(self, before: Rings, after: Rings) -> list[str]:
        """What happened to rings; every id in `after` is the one that the rule gives."""
        heirs: dict[str, set[str]] = {}  # communities that a ring may go on as, by the id they have now
        for ring, accounts in before.items():
            shared = {now: len(accounts & members) for now, members in after.items()}
            most = max(shared.values(), default=0)
            heirs[ring] = {now for now, count in shared.items() if count == most and most}
        happened = []
        for now, members in after.items():
            claims = [ring for ring, of in heirs.items() if now in of]
            certain = [ring for ring in claims if len(heirs[ring]) == 1]
            if certain:
                oldest = min(certain, key=age)
                assert age(now) <= age(oldest), f"{now} took up the older {oldest}"
                assert now in claims, f"{now} is none of those that went on as it: {claims}"
                happened += ["merged"] * (len(certain) - 1)
            elif not claims:
                votes = Counter(
                    self.past[a] for a in members if self.past.get(a) in self.over and not in_any(before, a)
                )
                best = min(((-n, age(ring), ring) for ring, n in votes.items()), default=None)
                if best is not None and 2 * -best[0] >= len(members):
                    assert now == best[2], f"{now} and not {best[2]}, which came back"
                    happened.append("came back")
                else:
                    assert now not in self.ever, f"{now} is a new ring under an old name"
                    happened.append("new")
        gone = before.keys() - after.keys()
        self.over = (self.over | {ring for ring in gone if not heirs[ring]}) - after.keys()
        happened += ["ended"] * len(gone & self.over)
        happened += ["split" for ring, now in before.items() if sum(bool(now & m) for m in after.values()) > 1]
        happened += ["grew" for ring in before.keys() & after.keys() if after[ring] - before[ring]]
        happened += ["shrank" for ring in before.keys() & after.keys() if before[ring] - after[ring]]
        self.past.update({account: ring for ring, accounts in before.items() for account in accounts})
        self.past.update({account: ring for ring, accounts in after.items() for account in accounts})
        self.ever |= after.keys()
        return happened


def age(ring: str) -> int:
    return int(ring.removeprefix("K-"))


def in_any(rings: Rings, account: int) -> bool:
    return any(account in accounts for accounts in rings.values())


def test_every_ring_keeps_its_id_through_ten_thousand_changes() -> None:
    seen: Counter[str] = Counter()
    seed = 0
    while seen.total() < CHANGES:
        stream, rule, before = Stream(seed, 4000), Rule(), {}
        for forgotten in stream.steps():
            after = stream.now()
            rule.past.pop(forgotten, None)
            if after != before:
                seen.update(rule.step(before, after))
                before = after
        seed += 1
    assert min(seen[kind] for kind in ("new", "grew", "shrank", "merged", "split", "ended", "came back")) >= 50, seen
