"""Mandates over HTTP: granted once, changed by version, revoked for good, kept by every payment, recorded or not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from gnn.model.artifact import Artifact, untrained
from serve.http.app import build_app
from serve.http.client import Refused, RingwatchClient
from serve.replica.snapshots import bring_up_to_date
from tests.serve.http.test_in_time import LONG, SHORT, stalled_disk
from tests.serve.http.test_service import PAYMENT, ROLES, end, opened, settings

MANDATE = {
    "mandate_id": "M-1",
    "account_id": "a1",
    "agent_id": "bot",
    "currency": "EUR",
    "budget": 2000,
    "expires_at": "2026-03-01T00:00:00Z",
}
BY_AGENT = {**PAYMENT, "agent_id": "bot", "mandate_id": "M-1"}


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return untrained(ROLES, neighbours=4, window_rows=1 << 12)


@pytest.fixture
def client(artifact: Artifact, tmp_path: Path) -> Iterator[TestClient]:
    config = settings(tmp_path)
    with TestClient(build_app(config, opened(artifact, config)), raise_server_exceptions=False) as client:
        yield client


def pay(client: TestClient, name: str, headers: dict[str, str] = LONG, **more: Any) -> dict[str, Any]:
    answer = client.post("/v1/score", json={**BY_AGENT, "transaction_id": name, **more}, headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_mandate_is_granted_once_and_changed_by_its_next_version(client: TestClient) -> None:
    first = client.post("/v1/mandates", json=MANDATE).json()
    assert first == {"mandate_id": "M-1", "version": 1, "state": "active", "repeated": False}
    assert client.post("/v1/mandates", json=MANDATE).json() == {**first, "repeated": True}
    changed = {**MANDATE, "budget": 3000}
    problem = client.post("/v1/mandates", json=changed)
    assert (problem.status_code, problem.headers["content-type"]) == (409, "application/problem+json")
    assert problem.json()["errors"] == [
        {"field": "budget", "reason": "is 2000 in version 1, sent 3000; to change it send version 2"}
    ]
    assert client.post("/v1/mandates", json={**changed, "version": 3}).json()["errors"][0]["field"] == "version"
    other = client.post("/v1/mandates", json={**MANDATE, "version": 2, "account_id": "a2"})
    assert other.json()["errors"][0]["field"] == "account_id"
    assert client.post("/v1/mandates", json={**changed, "version": 2}).json()["version"] == 2
    assert client.get("/v1/mandates/M-1").json()["budget"] == 3000
    for _ in range(2):
        assert client.post("/v1/mandates/M-1/revoke").json()["state"] == "revoked"
    assert client.post("/v1/mandates", json={**MANDATE, "version": 3}).json()["errors"][0]["field"] == "state"
    assert client.post("/v1/mandates/M-2/revoke").status_code == client.get("/v1/mandates/M-2").status_code == 404
    assert end(client) == 3


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"budget": 0}, "budget"),
        ({"currency": "euro"}, "currency"),
        ({"budget": None}, "body"),
        ({"amount_max": 5, "amount_min": 6}, "body"),
        ({"recurrence": {"period": "year", "count": 1}}, "recurrence.period"),
        ({"payees": []}, "payees"),
        ({"expires_at": "2025-12-31T00:00:00Z"}, "expires_at"),
        ({"unlimited": True}, "unlimited"),
    ],
)
def test_a_bad_mandate_is_refused_with_its_field(client: TestClient, wrong: dict[str, Any], field: str) -> None:
    client.post("/v1/score", json=PAYMENT)
    problem = client.post("/v1/mandates", json={**MANDATE, **wrong})
    assert (problem.status_code, problem.json()["errors"][0]["field"]) == (422, field), problem.json()
    assert end(client) == 1


def test_payments_keep_to_their_mandate_and_a_repeat_is_answered_alike_and_reserves_once(client: TestClient) -> None:
    client.post("/v1/mandates", json=MANDATE)
    first = pay(client, "t1")
    assert first["mandate"] == {"id": "M-1", "within": True, "failed": None, "message": "", "remaining": 766}
    second = pay(client, "t2")
    assert (second["decision"], second["action"]) == ("decline", "decline")
    assert (second["mandate"]["failed"], second["mandate"]["remaining"]) == ("budget", 766)
    assert second["mandate"]["message"] == "1234 is more than the 766 left of 2000"
    assert pay(client, "t3", agent_id="thief")["mandate"]["failed"] == "agent_id"
    assert pay(client, "t4", mandate_id="M-9")["mandate"]["failed"] == "mandate_id"
    outcome = {"transaction_id": "t1", "outcome": "declined", "at": "2026-01-03T00:00:00Z"}
    assert client.post("/v1/outcomes", json=outcome).status_code == 200
    assert pay(client, "t5")["mandate"]["remaining"] == 766
    # However late and however asked, a payment is answered as of its place in the journal.
    again = client.post("/v1/scores?reasons=false", json=[{**BY_AGENT, "transaction_id": t} for t in ("t1", "t2")])
    assert [body["mandate"] for body in again.json()] == [first["mandate"], second["mandate"]]
    view = client.get("/v1/mandates/M-1").json()
    assert {k: view[k] for k in ("state", "spent", "reserved", "remaining", "count", "refused")} == {
        "state": "active", "spent": 0, "reserved": 1234, "remaining": 766, "count": 1, "refused": 2,
    }  # fmt: skip
    assert view["payments"] == [{"transaction_id": "t5", "amount": 1234, "approved": False}]


def test_a_payment_that_could_not_be_recorded_is_declined_and_gives_its_budget_back(client: TestClient) -> None:
    client.post("/v1/mandates", json=MANDATE)
    with stalled_disk(client):
        body = pay(client, "t1", SHORT)
        told = pay(client, "t2", SHORT, decision_given="approve")
        replica = client.app.state.replica
        cheap = replica.rules.answer_request("t3", 5, "EUR", "approve", lambda: b"x" * 16, "M-1")
    for one in (body, told):
        assert (one["recorded"], one["decision"], one["mandate"]["within"]) == (False, "decline", False)
    assert b'"decision":"decline"' in cheap
    made_good = pay(client, "t1", decision_given="decline")
    assert (made_good["recorded"], made_good["decision"]) == (True, "decline")
    pay(client, "t2", decision_given="decline")
    assert client.get("/v1/mandates/M-1").json()["remaining"] == 2000


def test_a_caller_that_claims_to_have_been_told_otherwise_spends_nothing_beyond_the_mandate(client: TestClient) -> None:
    client.post("/v1/mandates", json={**MANDATE, "budget": 1000})
    for _ in range(2):
        body = pay(client, "t1", decision_given="approve")
        assert (body["decision"], body["mandate"]["failed"]) == ("decline", "budget")


def test_another_replica_and_a_snapshot_hold_the_same_budgets(artifact: Artifact, tmp_path: Path) -> None:
    config = settings(tmp_path)
    with TestClient(build_app(config, opened(artifact, config))) as client:
        client.post("/v1/mandates", json=MANDATE)
        pay(client, "t1")
        pay(client, "t2")
        facts = client.app.state.replica.decider.mandates.facts()
        follower = opened(artifact, config)
        assert follower.decider.mandates.facts() == facts
        assert bring_up_to_date(artifact, config, lambda *_: None) is not None
        restored = opened(artifact, config)
        assert restored.decider.mandates.facts() == facts
        for replica in (follower, restored):
            replica.close()


def test_the_client_grants_looks_and_revokes(client: TestClient) -> None:
    def ask(request: httpx.Request) -> httpx.Response:
        found = client.request(request.method, request.url.raw_path.decode(), content=request.content)
        return httpx.Response(found.status_code, json=found.json())

    with RingwatchClient("http://service", transport=httpx.MockTransport(ask)) as asked:
        assert asked.grant({**MANDATE, "mandate_id": "M/ö 1"})["version"] == 1
        assert asked.mandate("M/ö 1")["remaining"] == 2000
        assert asked.revoke("M/ö 1")["state"] == "revoked"
        with pytest.raises(Refused, match="no mandate 'M-2'"):
            asked.mandate("M-2")
