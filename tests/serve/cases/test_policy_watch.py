"""What an investigator counts of the journal's policies is what they decide, and what labels say of it."""

from pathlib import Path

import pytest

from data.journal.protocol import Kind
from serve.cases.investigator import Investigator
from serve.cases.policy_watch import DAY_US, PolicyDetail
from serve.decide.policies.life import PolicyEvent, PolicyState
from serve.decide.policies.parsing import parse
from tests.serve.cases.ringed import HONEST, PHONE, artifact, fraud_reports, in_time, ring_payments, settings, write

RING = ring_payments()
PAYMENTS = in_time(HONEST, RING)
LABELLED = 4  # of the ring's twelve payments
OTHERWISE = "otherwise: {probability: {challenge: 5%, review: 20%, decline: 60%}}"


def policy(name: str, then: str) -> str:
    """A policy with a rule for the ring's phone."""
    rule = f"{{id: phone, when: {{device: {PHONE}}}, then: {then}, message: Seen.}}"
    return f"policy: {name}\nrules: [{rule}]\n{OTHERWISE}\n"


STRICT, MILD = parse(policy("strict", "decline")), parse(policy("mild", "review"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A journal in which a policy is live and another in shadow from the 100th payment on."""
    events = (
        PolicyEvent.of(STRICT, PolicyState.DRAFT, by="ada"),
        PolicyEvent.of(STRICT, PolicyState.LIVE, by="ben"),
        PolicyEvent.of(MILD, PolicyState.SHADOW, by="ada"),
    )
    write(
        tmp_path,
        (Kind.TRANSACTION, PAYMENTS.slice(0, 100)),
        *((Kind.POLICY, event.batch()) for event in events),
        (Kind.TRANSACTION, PAYMENTS.slice(100)),
        (Kind.LABEL, fraud_reports(RING.slice(0, LABELLED - 1))),
        (Kind.LABEL, fraud_reports(RING.slice(LABELLED - 1, 1), fraud=False)),
    )
    return tmp_path


def details(folder: Path, rows: int) -> tuple[PolicyDetail, PolicyDetail]:
    """Of both policies, by an investigator that takes so many events at once."""
    found = Investigator(artifact(), settings(folder))
    found.slot.warm()
    while found.follow(rows):
        pass
    strict, mild = found.policies.one(STRICT.version), found.policies.one(MILD.version)
    assert [line.record.event.version for line in found.policies.all()] == [MILD.version, STRICT.version]
    assert found.policies.one("none@0") is None
    assert found.policies.fault is None
    found.close()
    assert strict is not None
    assert mild is not None
    return strict, mild


def test_hits_decisions_and_precision_of_policies_are_counted_from_their_activation_on(folder: Path) -> None:
    strict, mild = details(folder, 100_000)
    later = PAYMENTS.slice(100)
    hits = sum(name == PHONE for name in later.column("device_id").to_pylist())
    assert hits == len(RING)  # the ring is all behind it
    (rule,) = strict.rules
    assert (rule.hits, rule.labelled, rule.frauds, rule.precision) == (hits, LABELLED, LABELLED - 1, 0.75)
    assert (rule.when, rule.does, rule.message) == (f"device is {PHONE}", "decline", "Seen.")
    assert strict.policy.decisions == {"approve": len(later) - hits, "challenge": 0, "review": 0, "decline": hits}
    assert mild.policy.decisions == {"approve": len(later) - hits, "challenge": 0, "review": hits, "decline": 0}
    assert (strict.policy.differing, mild.policy.differing) == (0, hits)
    assert (strict.policy.record.state, mild.policy.record.state) == ("live", "shadow")
    assert [(event.state, event.by) for event in strict.events] == [("live", "ben"), ("draft", "ada")]
    assert strict.text == STRICT.text
    assert sum(sum(counts.values()) for _, counts in strict.days) == len(later)
    assert all(day % DAY_US == 0 for day, _ in strict.days)


def test_counts_depend_on_no_steps(folder: Path) -> None:
    assert details(folder, 7) == details(folder, 64) == details(folder, 100_000)


def test_a_fault_of_a_policy_stops_its_counting_and_no_ring(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Investigator(artifact(), settings(folder))
    monkeypatch.setattr("serve.decide.policies.book.PolicyBook.decide", lambda *_: 1 / 0)
    found.open()
    assert found.policies.fault == "ZeroDivisionError: division by zero"
    assert found.rings()
    assert found.position == found.journal.end
    found.close()
