"""Policies over HTTP: activated durably, listed, rolled back, refused with line and column, and only for admins."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from gnn.model.artifact import Artifact, untrained
from serve.http.app import build_app
from serve.keys import add_key
from serve.replica.replica import Replica
from serve.settings import Settings
from tests.serve.http.test_service import PAYMENT

TEXT = (
    "policy: strict\nrules:\n- {id: new-device, when: {device.new: true}, then: decline, message: A new device.}\n"
    "otherwise:\n  probability: {challenge: 5%, review: 20%, decline: 60%}\n"
)


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return untrained(("account", "merchant", "device"), neighbours=4, window_rows=1 << 9)


def served(artifact: Artifact, settings: Settings) -> TestClient:
    replica = Replica(artifact, settings)
    replica.open()
    return TestClient(build_app(settings, replica), raise_server_exceptions=False)


@pytest.fixture
def client(artifact: Artifact, tmp_path: Path) -> Iterator[TestClient]:
    settings = Settings(model=tmp_path, journal=tmp_path / "journal.sqlite", insecure=True, snapshot_every=0)
    with served(artifact, settings) as client:
        yield client


def test_a_policy_is_activated_named_in_answers_counted_listed_and_rolled_back(client: TestClient) -> None:
    done = client.post("/v1/policies", json={"content": TEXT, "by": "iris"}).json()
    assert (done["state"], done["accepted"], done["repeated"]) == ("live", 1, 0)
    assert client.post("/v1/policies", json={"content": TEXT}).json()["repeated"] == 1

    answer = client.post("/v1/score", json=PAYMENT).json()
    assert (answer["decision"], answer["policy"]) == ("decline", done["version"])
    assert answer["rules"] == [{"id": "new-device", "message": "A new device."}]
    metrics = client.get("/metrics").text
    labels = f'policy="{done["version"]}",rule="new-device",state="live"'
    assert f"ringwatch_policy_rule_hits{{{labels}}} 1.0" in metrics

    (listed,) = client.get("/v1/policies").json()
    assert (listed["version"], listed["state"], listed["by"]) == (done["version"], "live", "iris")
    assert client.post("/v1/policies/rollback", json={}).json()["state"] == "rolled_back"
    assert client.get("/v1/policies").json()[0]["state"] == "rolled_back"
    assert client.post("/v1/score", json={**PAYMENT, "transaction_id": "p2"}).json()["policy"].startswith("thresholds")
    assert client.post("/v1/score", json=PAYMENT).json()["decision"] == "decline"


def test_a_policy_that_is_wrong_is_refused_with_line_column_and_how_to_mend_it(client: TestClient) -> None:
    answer = client.post("/v1/policies", json={"content": TEXT.replace("device.new", "devise.new")})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    (error,) = answer.json()["errors"]
    assert error["field"] == "content.3:27"
    assert "did you mean 'device.new'?" in error["reason"]
    assert client.get("/v1/policies").json() == []


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/policies", {"content": TEXT, "state": "rollout", "share": 1.5}, 422),
        ("/v1/policies", {"content": TEXT, "state": "rolled_back"}, 422),
        ("/v1/policies", {"content": TEXT, "stat": "live"}, 422),
        ("/v1/policies", {}, 422),
        ("/v1/policies/rollback", {}, 409),
        ("/v1/policies/rollback", {"version": "x@1"}, 409),
    ],
)
def test_what_cannot_be_done_is_a_problem_with_its_reason(
    client: TestClient, path: str, body: dict[str, str], status: int
) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert client.app.state.replica.journal.end == 0  # type: ignore[attr-defined]


def test_policies_take_a_key_with_the_scope_admin(artifact: Artifact, tmp_path: Path) -> None:
    keys = {scope: add_key(tmp_path / "keys.json", scope, [scope]) for scope in ("score", "admin")}
    settings = Settings(
        model=tmp_path, journal=tmp_path / "j.sqlite", keys_file=tmp_path / "keys.json", snapshot_every=0
    )
    with served(artifact, settings) as client:
        for scope, status in (("score", 403), ("admin", 200)):
            headers = {"authorization": f"Bearer {keys[scope]}"}
            assert client.get("/v1/policies", headers=headers).status_code == status
            assert client.post("/v1/policies", headers=headers, json={"content": TEXT}).status_code == status
        assert client.get("/v1/policies").status_code == 401
