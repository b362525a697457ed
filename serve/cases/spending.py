"""Profiles and guidance of accounts, from the payments that the graph holds."""

import threading
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data.journal.protocol import PaymentSource
from data.schema import CATEGORIES
from graph.dag.protocol import Store
from graph.rings.records import LISTED, RingState
from graph.rings.risk.engine import RiskRings
from serve.cases.lookup import PER_ENTITY, Lookup
from serve.decide.spending.crowd import Crowd
from serve.decide.spending.guidance import Advice, Around, guidance
from serve.decide.spending.past import DAY_US, Past
from serve.decide.spending.profile import Profile, profile

SAMPLED: Final = 400  # accounts that the crowd is made from
OF_ONE: Final = 300  # newest payments of each
PRICES: Final = 60  # newest payments of a merchant whose prices are looked at


class Spending:
    """Answers for one investigator.

    Args:
        journal: Of the payments.
        store: The graph's.
        lookup: Reads payments.
        engine: The risk rings.
        lock: Held while any of these is read: whoever moves them holds it, too.
    """

    def __init__(
        self, journal: PaymentSource, store: Store, lookup: Lookup, engine: RiskRings, lock: threading.RLock
    ) -> None:
        self._journal, self._store, self._lookup, self._engine, self._lock = journal, store, lookup, engine, lock
        self._learning = threading.Lock()
        self._crowd: tuple[int, Crowd] | None = None  # the day it is of

    def profile(self, account: str, as_of: int | None = None) -> Profile | None:
        """See `Investigation.profile`."""
        past = self._past(account, as_of)
        return None if past is None else profile(past, self.crowd())

    def guidance(
        self, account: str, balance: Mapping[str, int] | None = None, as_of: int | None = None
    ) -> tuple[Advice, ...] | None:
        """See `Investigation.guidance`."""
        past = self._past(account, as_of)
        if past is None:
            return None
        known = profile(past, self.crowd())

        def prices(role: str, name: str, currency: str) -> NDArray[np.int64]:
            return self._prices(account, role, name, currency, past.as_of)

        def rings(role: str, name: str) -> Sequence[tuple[str, float]]:
            return self._rings(role, name, past.as_of)

        return guidance(past, known, Around(prices, rings, balance or {}))

    def crowd(self) -> Crowd:
        """What accounts in general do: learnt from a sample of those in the graph, once for each day of the journal."""
        with self._learning:
            day = self._store.clock // DAY_US
            if self._crowd is None or self._crowd[0] != day:
                with self._lock:
                    pasts = self._sample()
                self._crowd = day, Crowd.of(pasts)
            return self._crowd[1]

    def _past(self, account: str, as_of: int | None) -> Past | None:
        with self._lock:
            rows = self._lookup.rows_of("account", account, PER_ENTITY)
            if not len(rows):
                return None
            now = self._store.clock
            return Past.of(account, self._lookup.rows(rows), now if as_of is None else min(as_of, now))

    def _sample(self) -> list[Past]:
        """The pasts of some accounts that pay, read from the graph alone; names are node numbers."""
        store = self._store
        kinds = [i for i, name in enumerate(store.ids.types) if name == "account"]
        nodes = np.random.default_rng(0).permutation(store.ids.numbered)
        found: list[Past] = []
        codes = _Currencies(store, self._journal)
        for node in nodes[store.newest(nodes) >= 0].tolist():
            if len(found) == SAMPLED:
                break
            if store.ids.kind(node) in kinds:
                rows = store.history(node, OF_ONE)[::-1]
                mine = store.column("entity", rows)[:, 0] == node
                if mine.any():
                    found.append(_bare(store, rows[mine], codes))
        return found

    def _prices(self, account: str, role: str, name: str, currency: str, as_of: int) -> NDArray[np.int64]:
        """What others paid to somebody of late."""
        with self._lock:
            found = self._lookup.rows(self._lookup.rows_of(role, name, PRICES))
        keep = pc.and_(pc.not_equal(found["account_id"], account), pc.equal(found["currency"], currency))
        keep = pc.and_(keep, pc.less_equal(pc.cast(found["timestamp"], pa.int64()), as_of))
        if role == "payee":
            keep = pc.and_(keep, pc.fill_null(pc.equal(found["payee_id"], name), False))
        return np.asarray(found.filter(keep)["amount"].to_numpy(), np.int64)

    def _rings(self, role: str, name: str, as_of: int) -> list[tuple[str, float]]:
        """Rings that somebody belongs to and that are told of."""
        with self._lock:
            ids = {
                one
                for r in dict.fromkeys((role, "account" if role == "payee" else role))
                for one in self._engine.rings_of(r, name)
            }
            records = [record for one in sorted(ids) if (record := self._engine.record(one, as_of)) is not None]
        return [
            (record.id, record.confidence)
            for record in records
            if record.state != RingState.ENDED and record.confidence >= LISTED and record.named_at is not None
        ]


class _Currencies:
    """Currencies by the code that the graph keeps of each; a payment of each is looked up once."""

    def __init__(self, store: Store, journal: PaymentSource) -> None:
        self._store, self._journal = store, journal
        self._known: dict[int, str] = {}
        self._column = CATEGORIES.index("currency")

    def of(self, rows: NDArray[np.int64]) -> list[str]:
        codes = self._store.column("category", rows)[:, self._column].tolist()
        for row, code in zip(rows.tolist(), codes, strict=True):
            if code not in self._known:
                payment = self._journal.take(self._store.offsets.of(np.array([row])))
                self._known[code] = payment["currency"][0].as_py()
        return [self._known[code] for code in codes]


def _bare(store: Store, rows: NDArray[np.int64], codes: _Currencies) -> Past:
    """An account's own payments, as far as the graph itself knows them."""
    entity = store.column("entity", rows)
    to = np.full(len(rows), -1)
    for name in ("payee", "merchant"):
        if name in store.roles:
            to = np.where(to < 0, entity[:, store.roles.index(name)], to)
    names, n = [str(node) for node in to.tolist()], len(rows)
    time = store.column("time", rows)
    return Past(
        account=str(int(entity[0, 0])),
        as_of=store.clock,
        ids=[str(row) for row in rows.tolist()],
        time=time,
        paid=np.ones(n, np.bool_),
        other=[("merchant", name) for name in names],
        merchant=names,
        category=[""] * n,
        amount=store.column("amount", rows),
        currency=codes.of(rows),
        probability=np.full(n, np.nan),
    )
