"""The investigator: what it finds in a journal, what it writes back, and that neither depends on how it was called."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data.history import History
from data.journal.protocol import Kind
from data.journal.sqlite import SqliteJournal
from graph.rings.records import RING_PAYMENTS, RingState
from serve.batch.risk_rings import find_risk_rings
from serve.cases.investigator import Investigator
from serve.cases.protocol import RingFilter
from serve.replica.admission import ScoreCall
from serve.replica.replica import Replica
from tests.serve.cases.ringed import (
    HONEST,
    MEMBERS,
    PHONE,
    artifact,
    fraud_reports,
    in_time,
    ring_payments,
    settings,
    write,
)

RING = ring_payments()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, (Kind.TRANSACTION, in_time(HONEST, RING)), (Kind.LABEL, fraud_reports(RING)))
    return tmp_path


@pytest.fixture
def investigator(folder: Path) -> Iterator[Investigator]:
    found = Investigator(artifact(), settings(folder))
    found.open()
    yield found
    found.close()


def journalled(folder: Path) -> list[dict[str, Any]]:
    with SqliteJournal(folder / "journal.sqlite") as journal:
        return [row for e in journal.replay() if e.kind is Kind.RING for row in e.batch.to_pylist()]


def test_the_ring_is_found_and_its_record_says_who_what_and_how_much(investigator: Investigator) -> None:
    (ring,) = investigator.rings(RingFilter(states=(RingState.ACTIVE,)))
    assert sorted(ring.accounts) == sorted(MEMBERS)
    assert ("device", PHONE) in {(m.role, m.name) for m in ring.members}
    assert set(ring.known_frauds) == {f"ring-{i}" for i in range(12)} == set(ring.evidence)
    assert {m.currency: m.tried for m in ring.money} == {"EUR": 6 * 1_000 + 100 * 30, "USD": 6 * 1_000 + 100 * 36}
    assert investigator.ring(ring.id) == ring
    assert investigator.rings(RingFilter(entity=("device", PHONE))) == [ring]
    assert investigator.rings(RingFilter(entity=("device", "d1"))) == []
    assert investigator.rings(after=ring.id) == []
    with pytest.raises(KeyError):
        investigator.rings(after="K-999999")


def test_what_is_found_is_journalled_once_whatever_the_steps_and_restarts(folder: Path) -> None:
    for rows in (7, 100_000, 64):
        again = Investigator(artifact(), settings(folder))
        again.slot.warm()
        while again.follow(rows):
            pass
        assert again.position == again.journal.end
        again.close()
        rings = journalled(folder)
        assert [(r["version"], r["state"]) for r in rings] == [(1, "active")]
        assert {m["name"] for m in rings[0]["members"] if m["role"] == "account"} == set(MEMBERS)


def test_the_command_for_a_whole_history_finds_the_same_rings(investigator: Investigator, folder: Path) -> None:
    (ring,) = investigator.rings()
    investigator.give_verdict(ring.id, "legitimate", ["ring-2"], "ida")
    offline = find_risk_rings(artifact(), History.read(folder / "journal.sqlite")).rings
    assert offline.records() == investigator.engine.records()
    assert offline.versions(ring.id) == investigator.versions(ring.id)


def test_a_replica_answers_with_the_ring_once_it_is_journalled(folder: Path) -> None:
    replica = Replica(artifact(), settings(folder))
    replica.open()
    more = ring_payments(2, first=12)
    ((before,),) = replica.process([ScoreCall(more.slice(0, 1))])
    investigator = Investigator(artifact(), settings(folder))
    investigator.open()
    ((after,),) = replica.process([ScoreCall(more.slice(1, 1))])
    (ring,) = investigator.rings()
    assert (json.loads(before)["ring"], json.loads(after)["ring"]["id"]) == (None, ring.id)
    replica.close()
    investigator.close()


def test_a_ring_that_only_another_model_found_is_ended(folder: Path) -> None:
    stale = {"ring_id": "K-77777", "version": 3, "state": "active", "confidence": 0.9, "members": [], "at": 5}
    from data.journal.protocol import SCHEMAS

    write(folder, (Kind.RING, pa.RecordBatch.from_pylist([stale], schema=SCHEMAS[Kind.RING])))
    for _ in range(2):
        investigator = Investigator(artifact(), settings(folder))
        investigator.open()
        investigator.close()
    assert [(r["version"], r["state"]) for r in journalled(folder) if r["ring_id"] == "K-77777"] == [
        (3, "active"),
        (4, "ended"),
    ]


def test_a_verdict_labels_the_payments_it_lists_in_one_commit_and_nothing_else(
    investigator: Investigator, folder: Path
) -> None:
    (ring,) = investigator.rings()
    chosen = [f"ring-{i}" for i in range(10)]
    given = investigator.give_verdict(ring.id, "legitimate", chosen, "ida", "a family", verdict_id="v-1")
    assert (given.by, given.note, given.transaction_ids) == ("ida", "a family", tuple(chosen))
    with SqliteJournal(folder / "journal.sqlite", readonly=True) as journal:
        events = list(journal.replay(given.offset, given.offset + 11))
        assert [e.kind for e in events] == [Kind.VERDICT, Kind.LABEL]
        assert events[1].batch.column("transaction_id").to_pylist() == chosen
        assert not any(events[1].batch.column("is_fraud").to_pylist())
    assert investigator.payment("ring-3")["known_legitimate"].to_pylist() == [True]  # type: ignore[index]
    assert investigator.payment("ring-11")["known_legitimate"].to_pylist() == [False]  # type: ignore[index]
    assert investigator.ring(ring.id).state is RingState.ENDED  # type: ignore[union-attr]
    assert journalled(folder)[-1]["state"] == "ended"
    assert list(investigator.verdicts(ring.id)) == list(investigator.verdicts()) == [given]


def test_the_same_verdict_again_changes_nothing_and_another_of_its_id_is_refused(investigator: Investigator) -> None:
    (ring,) = investigator.rings()
    given = investigator.give_verdict(ring.id, "fraud", ["ring-1"], "ida", verdict_id="v-1")
    end = investigator.journal.end
    assert investigator.give_verdict(ring.id, "fraud", ["ring-1"], "ida", verdict_id="v-1") == given
    with pytest.raises(ValueError, match="verdict_id: 'v-1' was given to another verdict"):
        investigator.give_verdict(ring.id, "legitimate", ["ring-1"], "ida", verdict_id="v-1")
    with pytest.raises(ValueError, match="transaction_ids: no payment 'nope' is recorded"):
        investigator.give_verdict(ring.id, "fraud", ["ring-1", "nope"], "ida")
    with pytest.raises(KeyError):
        investigator.give_verdict("K-5555", "fraud", ["ring-1"], "ida")
    assert investigator.journal.end == end
    assert len(investigator.verdicts()) == 1


def test_verdicts_and_rings_are_there_again_after_a_restart(investigator: Investigator, folder: Path) -> None:
    (ring,) = investigator.rings()
    given = investigator.give_verdict(ring.id, "fraud", ["ring-1"], "ida", "seen it before")
    again = Investigator(artifact(), settings(folder))
    again.open()
    assert list(again.verdicts()) == [given]
    assert again.rings() == investigator.rings()
    assert again.versions(ring.id) == investigator.versions(ring.id)
    again.close()


def test_payments_of_a_ring_and_of_its_neighbours(investigator: Investigator) -> None:
    (ring,) = investigator.rings()
    inside = investigator.ring_payments(ring.id)
    assert inside.schema == RING_PAYMENTS
    assert inside["transaction_id"].to_pylist() == [f"ring-{i}" for i in range(12)]
    assert all(inside["evidence"].to_pylist())
    assert None not in inside["fraud_reported_at"].to_pylist()
    around = investigator.ring_payments(ring.id, neighbours=True)
    assert set(inside["transaction_id"].to_pylist()) <= set(around["transaction_id"].to_pylist())
    with pytest.raises(KeyError):
        investigator.ring_payments("K-5555")


def test_an_entity_has_its_payments_ties_and_rings(investigator: Investigator) -> None:
    (ring,) = investigator.rings()
    phone = investigator.entity("device", PHONE, limit=5)
    assert phone is not None
    assert (phone.total, len(phone.payments), phone.rings) == (12, 5, (ring.id,))
    assert phone.payments["transaction_id"].to_pylist() == [f"ring-{i}" for i in range(7, 12)]
    assert {(role, n) for role, _, n in phone.tied if role == "account"} == {("account", 2)}
    assert investigator.entity("device", "never seen") is None
    payee = next(name for name in HONEST.column("payee_id").to_pylist() if name)
    as_payee, as_account = investigator.entity("payee", payee), investigator.entity("account", payee)
    assert as_payee is not None
    assert as_account is not None
    assert as_payee.payments == as_account.payments


def test_a_payment_is_found_in_the_journal_when_the_graph_no_longer_holds_it(folder: Path) -> None:
    late = in_time(*(b for b in [ring_payments(3000, first=1000)]))
    write(folder, (Kind.TRANSACTION, late))
    small = settings(folder)
    investigator = Investigator(artifact(), small)
    investigator.open()
    assert investigator.payment("nope") is None
    assert len(investigator.payment("ring-0")) == 1  # type: ignore[arg-type]
    investigator.close()


def test_a_ring_is_compared_with_accounts_of_like_age_and_volume(investigator: Investigator) -> None:
    (ring,) = investigator.rings()
    lines = {row["metric"]: row for row in investigator.comparison(ring.id).to_pylist()}
    shared = lines["accounts on its busiest device"]
    assert (shared["ring"], shared["unusual"]) == (6.0, shared["high"] < 6)
    assert lines["different devices"]["ring"] == 1.0
    assert lines["payments"]["ring"] == 2.0
    assert lines["payments"]["low"] >= 1.0
    assert not lines["payments"]["unusual"]  # peers are chosen by it
    assert all(0 < row["peers"] <= 200 for row in lines.values())
