"""What payments read of journalled rings: what the journal held before them, and nothing later."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from data.journal.protocol import SCHEMAS, Events, Kind
from data.journal.sqlite import SqliteJournal
from data.report import silent
from data.schema import role
from gnn.model.artifact import Artifact, untrained
from graph.rings.records import LISTED, RingState
from serve.decide import standing as standing_module
from serve.decide.standing import CARRIERS, RingStanding
from serve.replica.admission import ScoreCall
from serve.replica.replica import Replica
from serve.replica.snapshots import bring_up_to_date
from serve.settings import Settings
from tests.world import payment_batch

PAYMENTS = payment_batch(60, seed=5, accounts=12, devices=6)
MEMBER = st.sampled_from(
    [
        ("account", "A1", "account"),
        ("account", "A1", "victim"),
        ("account", "A2", "first account"),
        ("account", "A3", "collector"),
        ("device", "D1", "hub"),
        ("merchant", "M1", "collector"),
    ]
)
RING = st.tuples(
    st.sampled_from(["K-1", "K-2", "K-3"]),
    st.sampled_from(list(RingState)),
    st.sampled_from([0.1, LISTED, 0.9]),
    st.lists(MEMBER, unique_by=lambda m: m[:2], max_size=5),
)


def rings(*found: tuple[str, str, float, list[tuple[str, str, str]]], version: int = 1) -> pa.RecordBatch:
    """Ring events: id, state, confidence, members."""
    rows = [
        {
            "ring_id": name,
            "version": version,
            "state": str(state),
            "confidence": confidence,
            "members": [{"role": r, "name": n, "member_role": m} for r, n, m in members],
            "at": 7,
        }
        for name, state, confidence, members in found
    ]
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMAS[Kind.RING])


def paid(account: str, device: str | None, payee: str | None) -> pa.RecordBatch:
    row = PAYMENTS.slice(0, 1).to_pylist()[0] | {"account_id": account, "device_id": device, "payee_id": payee}
    return pa.RecordBatch.from_pylist([row], schema=PAYMENTS.schema)


def plain(events: list[Any], offset: int, payment: dict[str, Any]) -> str | None:
    """The slow way: everything again from the first event up to the payment."""
    of: dict[tuple[str, str], tuple[str, bool]] = {}
    for name, state, confidence, members in events[:offset]:
        for entity in [e for e, (ring, _) in of.items() if ring == name]:
            del of[entity]
        if state is not RingState.ENDED:
            for r, n, member_role in members:
                if not (r == "account" and member_role == "victim"):
                    of[r, n] = (name, confidence >= LISTED)
                if r == "account" and member_role == "collector":
                    of["payee", n] = (name, confidence >= LISTED)
    for carrier in CARRIERS:
        found = of.get((carrier, payment[role(carrier).column]))
        if found is not None and found[1]:
            return found[0]
    return None


@hypothesis_settings(deadline=None)
@given(
    st.lists(RING, max_size=12),
    st.integers(0, 12),
    st.sampled_from(["A1", "A2", "A3", "A4"]),
    st.sampled_from(["D1", "D2", None]),
    st.sampled_from(["A1", "A3", None]),
    st.booleans(),
)
def test_a_payment_reads_the_rings_that_the_journal_held_before_it(
    events: list[Any], offset: int, account: str, device: str | None, payee: str | None, restarted: bool
) -> None:
    payment = paid(account, device, payee)
    standing = RingStanding()
    for i, event in enumerate(events):
        if restarted and i == min(offset, len(events)) // 2:  # a snapshot on the way to the payment
            kept = json.loads(json.dumps(standing.facts()))
            standing = RingStanding()
            standing.adopt(kept)
        standing.apply(Events(Kind.RING, i, rings(event, version=i)))
    (found,) = standing.of(payment, [offset])
    expected = plain(events, offset, payment.to_pylist()[0])
    assert (found and found.ring_id) == expected


def test_what_is_long_past_is_forgotten_and_answers_do_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing_module, "REMEMBERED", 50)
    standing = RingStanding()
    for i in range(400):
        name = f"A{i % 40}"
        state = RingState.ACTIVE if i % 80 < 40 else RingState.ENDED
        standing.apply(
            Events(Kind.RING, i, rings((f"K-{i % 40}", state, 0.9, [("account", name, "account")]), version=i))
        )
    assert len(standing._of) <= 41
    assert sum(map(len, standing._of.values())) <= 160  # of 800 changes
    (found,) = standing.of(paid("A39", None, None), [360])  # in K-39 since 359, ended only at 399
    assert found is not None
    assert (found.ring_id, found.version) == ("K-39", 359)


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return untrained(("account", "merchant", "device"), neighbours=4, window_rows=1 << 7)


def opened(artifact: Artifact, folder: Path) -> Replica:
    config = Settings(model=folder, journal=folder / "journal.sqlite", insecure=True, device="cpu", snapshot_every=0)
    replica = Replica(artifact, config)
    replica.open()
    return replica


def answered(replica: Replica, at: int) -> Any:
    ((body,),) = replica.process([ScoreCall(PAYMENTS.slice(at, 1))])
    return json.loads(body)["ring"]


def test_answers_carry_the_ring_that_another_process_journalled(artifact: Artifact, tmp_path: Path) -> None:
    replica = opened(artifact, tmp_path)
    account = PAYMENTS.column("account_id").to_pylist()
    assert answered(replica, 0) is None
    with SqliteJournal(replica.settings.journal) as journal, journal.begin() as commit:
        members = [("account", account[0], "account"), ("account", account[1], "account"), ("device", "D-none", "hub")]
        commit.append(Kind.RING, rings(("K-5", RingState.ACTIVE, 0.875, members)))
    again = next(i for i in range(1, 60) if account[i] == account[0])
    assert answered(replica, again) == {"id": "K-5", "size": 2, "confidence": 0.875, "state": "active"}
    assert answered(replica, 0) is None  # sent again: answered as it was, when there was no ring
    bring_up_to_date(artifact, replica.settings, silent)
    replica.close()
    restarted = opened(artifact, tmp_path)
    later = next(i for i in range(again + 1, 60) if account[i] in account[:2])
    assert answered(restarted, later) == {"id": "K-5", "size": 2, "confidence": 0.875, "state": "active"}
    (table,) = restarted.process([ScoreCall(PAYMENTS.slice(later, 1), reasons=False, table=True)])
    assert (table["ring_id"].to_pylist(), table["ring_confidence"].to_pylist()) == (["K-5"], [0.875])
    restarted.close()
