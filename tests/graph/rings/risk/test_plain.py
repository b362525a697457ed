"""After every event the engine's rings are those that the plain oracle finds from nothing."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from data.journal.protocol import Events, Kind
from data.schema import LABEL_SCHEMA, TRANSACTION_SCHEMA
from graph.dag.protocol import DAY_US
from graph.rings.risk.communities import louvain
from graph.rings.risk.engine import RiskRings, RiskSettings
from graph.state import GraphState
from tests.graph.rings.risk import plain

SETTINGS = RiskSettings(surprises=(2.5, 5.0, 9.0), window_us=5 * DAY_US, base=0.05)
START_US = 1_767_225_600_000_000


def nodes_of(rings: RiskRings) -> dict[int, set[int]]:
    """Accounts in each ring that stands, as the engine's tables have them."""
    t = rings._t
    found: dict[int, set[int]] = {}
    account = list(rings.store.ids.types).index("account")
    for node in np.flatnonzero(t.entities["ring"][: rings.store.ids.numbered]).tolist():
        if rings.store.ids.kind(node) == account:
            found.setdefault(int(t.entities["ring"][node]), set()).add(node)
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.sampled_from([20, 100]))
def test_louvain_is_the_plain_one(seed: int, nodes: int, resolution: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = {tuple(sorted(p)) for p in rng.integers(0, nodes, (3 * nodes, 2)).tolist() if p[0] != p[1]}
    ties = [(a, b, int(rng.integers(1, 30))) for a, b in sorted(pairs)]
    columns = [np.array(c, np.int64) for c in zip(*ties, strict=True)] or [np.empty(0, np.int64)] * 3
    assert louvain(nodes, *columns, resolution).tolist() == plain.louvain(nodes, ties, resolution)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_rings_are_the_oracles_after_every_event(seed: int) -> None:
    """Random payments, labels that are revised, expiry, merges and splits."""
    rng = np.random.default_rng(seed)
    chosen = replace(SETTINGS, resolution=int(rng.choice([20, 100])))
    state = GraphState(("account", "merchant", "device", "payee"), capacity=1 << 17)
    rings = RiskRings(state.store, None, chosen)
    seen: list[plain.PlainPayment] = []
    ids: dict[int, str] = {}
    time, events = START_US, []
    for row in range(120):
        time += int(rng.exponential(0.15) * DAY_US)
        payment = {
            "transaction_id": f"t{row}",
            "timestamp": time,
            "account_id": f"a{rng.integers(12)}",
            "merchant_id": f"m{rng.integers(6)}",
            "device_id": f"d{rng.integers(8)}" if rng.random() < 0.7 else None,
            "payee_id": f"a{rng.integers(12)}" if rng.random() < 0.4 else None,
            "amount": 100,
            "currency": "EUR",
        }
        events.append(("pay", payment))
        if row and rng.random() < 0.4:
            events.append(("label", int(rng.integers(row))))
    for kind, what in events:
        if kind == "pay":
            probability = float(np.float32(rng.random() if rng.random() < 0.5 else 0.01))
            batch = pa.RecordBatch.from_pylist([what], TRANSACTION_SCHEMA)
            rows = state.apply(_events(state, batch))
            rings.extend(rows, np.array([probability]))
            entity = state.store.column("entity", np.array([rows.start]))[0].tolist()
            moment = int(state.store.column("time", np.array([rows.start]))[0])
            nodes = tuple(None if n < 0 else n for n in entity)
            seen.append(plain.PlainPayment(rows.start, moment, nodes, probability))
            ids[rows.start] = what["transaction_id"]
        else:
            moment = max(state.store.clock, time) + 1
            said = {
                "transaction_id": ids.get(what, "none"),
                "is_fraud": bool(rng.random() < 0.6),
                "reported_at": moment,
            }
            batch = pa.RecordBatch.from_pylist([said], LABEL_SCHEMA)
            state.apply(_events(state, batch))
            row = state.transaction_rows(batch.column("transaction_id"))
            if row[0] >= 0:
                rings.relabel(row, state.store.believed(row), np.array([moment]))
                seen[row[0]].known = int(said["is_fraud"])
        inside = [p for p in seen if p.time >= rings.clock - chosen.window_us]
        wanted = plain.rings(inside, state.store.roles.index("payee"), chosen)
        assert sorted(map(sorted, nodes_of(rings).values())) == sorted(map(sorted, wanted))
        standing = {r.id: r for r in rings.records() if r.ended_at is None}
        assert len(standing) == len(wanted)


def _events(state: GraphState, batch: pa.RecordBatch) -> Events:
    kind = Kind.LABEL if "is_fraud" in batch.schema.names else Kind.TRANSACTION
    return Events(kind, state.applied, batch)
