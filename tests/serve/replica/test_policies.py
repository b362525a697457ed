"""Policies in replicas: from one micro-batch to the next, and alike whoever answers and however often it starts."""

from pathlib import Path

import pytest

from data.journal.sqlite import SqliteJournal
from data.report import silent
from gnn.model.artifact import Artifact, untrained
from serve.decide.policies.activation import policies_of
from serve.decide.policies.life import PolicyEvent, PolicyState
from serve.decide.policies.parsing import parse
from serve.problems import Problem
from serve.replica.admission import PolicyCall, ScoreCall
from serve.replica.replica import Replica
from serve.replica.snapshots import bring_up_to_date
from serve.settings import Settings
from tests.world import payment_batch

PAYMENTS = payment_batch(200, seed=5, accounts=20, devices=10)
LIMITED = (
    "policy: p\nrules:\n- {id: often, when: {device.payments.30d: {at_least: 3}}, at_least: review}\n"
    "reviews: {at_most: 25%, per: day, then: decline}\n"
    "otherwise:\n  probability: {challenge: 100%, review: 100%, decline: 100%}\n"
)


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return untrained(("account", "merchant", "device"), neighbours=4, window_rows=1 << 9)


def opened(artifact: Artifact, folder: Path) -> Replica:
    folder.mkdir(exist_ok=True)
    replica = Replica(
        artifact,
        Settings(model=folder, journal=folder / "journal.sqlite", insecure=True, device="cpu", snapshot_every=0),
    )
    replica.open()
    return replica


def activated(replica: Replica, text: str, state: PolicyState = PolicyState.LIVE) -> dict[str, int]:
    (done,) = replica.process([PolicyCall(PolicyEvent.of(parse(text), state, by="test"))])
    assert isinstance(done, dict), done
    return done


def decided(replica: Replica, first: int, last: int) -> list[tuple[str, list[str]]]:
    (table,) = replica.process([ScoreCall(PAYMENTS.slice(first, last - first), reasons=False, table=True)])
    return list(zip(table["decision"].to_pylist(), table["rules"].to_pylist(), strict=True))


def test_a_policy_decides_from_its_event_on_and_an_earlier_payment_keeps_its_decision(
    artifact: Artifact, tmp_path: Path
) -> None:
    replica = opened(artifact, tmp_path)
    before = decided(replica, 0, 50)
    assert activated(replica, LIMITED) == {"accepted": 1, "repeated": 0}
    assert activated(replica, LIMITED) == {"accepted": 0, "repeated": 1}
    after = decided(replica, 50, 100)
    assert all(not rules for _, rules in before)
    assert any(rules == ["often"] for _, rules in after)
    assert decided(replica, 0, 50) == before
    assert decided(replica, 50, 100) == after
    replica.close()


def test_two_replicas_a_restart_and_a_snapshot_give_the_places_for_reviews_as_one_replica_would(
    artifact: Artifact, tmp_path: Path
) -> None:
    alone = opened(artifact, tmp_path / "alone")
    activated(alone, LIMITED)
    expected = decided(alone, 0, 200)
    assert {decision for decision, _ in expected} == {"approve", "review", "decline"}
    alone.close()

    one, other = (opened(artifact, tmp_path / "two") for _ in range(2))
    activated(one, LIMITED)
    found = decided(one, 0, 60) + decided(other, 60, 90) + decided(one, 90, 120)
    assert bring_up_to_date(artifact, one.settings, silent) is not None
    found += decided(other, 120, 130)
    for replica in (one, other):
        replica.close()
    again = opened(artifact, tmp_path / "two")
    found += decided(again, 130, 200)
    assert found == expected
    assert decided(again, 0, 200) == expected  # all of them sent again
    again.close()


def test_two_changes_in_one_micro_batch_are_not_taken_blindly(artifact: Artifact, tmp_path: Path) -> None:
    replica = opened(artifact, tmp_path)
    calls = [PolicyCall(PolicyEvent.of(parse(LIMITED + f"note: {i}\n"), PolicyState.LIVE)) for i in range(2)]
    first, second = replica.process(calls)
    assert first == {"accepted": 1, "repeated": 0}
    assert isinstance(second, Problem)
    assert second.status == 409
    replica.close()
    journal = SqliteJournal(tmp_path / "journal.sqlite", readonly=True)
    assert [r.state for r in policies_of(journal).records()] == ["live"]
    journal.close()
