"""Cases and alerts as JSON: who may, what is refused, and that acts do what the console's forms do."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.serve.console.conftest import Console


def api(console: Console, key: str | None = None) -> TestClient:
    client = TestClient(console.app)
    client.headers["authorization"] = f"Bearer {console.key if key is None else key}"
    return client


def test_only_keys_that_may_investigate_are_let_in(console: Console) -> None:
    assert api(console, "wrong").get("/v1/cases").status_code == 401
    refused = api(console, console.weak).get("/v1/alerts")
    assert (refused.status_code, refused.json()["title"]) == (403, "Forbidden")
    assert refused.headers["content-type"] == "application/problem+json"
    assert console.signed_in().get("/v1/cases").status_code == 401  # a browser's session counts for nothing


def test_cases_are_listed_in_order_and_paged(console: Console) -> None:
    found = api(console).get("/v1/cases", params={"limit": 1}).json()
    assert (found["total"], [case["id"] for case in found["cases"]]) == (3, [1])
    assert found["cases"][0]["at_risk"] == [{"currency": "EUR", "amount": 90_000}]
    more = api(console).get("/v1/cases", params={"limit": 5, "offset": 1}).json()
    assert len(more["cases"]) == 2
    assert api(console).get("/v1/cases", params={"q": "emil"}).json()["total"] == 1


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/cases?colour=red", "colour"),
        ("/v1/cases?state=red", "state"),
        ("/v1/cases?limit=0", "limit"),
        ("/v1/alerts?state=old", "state"),
        ("/v1/alerts?case=1", "case"),
        ("/v1/cases/1?x=1", "x"),
    ],
)
def test_what_a_query_must_not_ask_is_named(console: Console, path: str, field: str) -> None:
    answer = api(console).get(path)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field


def test_alerts_say_what_is_at_stake(console: Console) -> None:
    client = api(console)
    client.post("/v1/cases/1/confirm", json={"transaction_ids": ["e01"], "note": "seen"})
    found = client.get("/v1/alerts").json()
    ids = {alert["transaction_id"] for alert in found["alerts"]}
    assert found["total"] == len(ids)
    assert found["at_stake"] == [{"currency": "EUR", "amount": sum(a["amount"] for a in found["alerts"])}]
    assert client.post(f"/v1/alerts/{sorted(ids)[0]}/done").status_code == 200
    assert client.get("/v1/alerts", params={"state": "done"}).json()["total"] == 1


@pytest.mark.parametrize(
    ("act", "body", "kind"),
    [
        ("confirm", {"transaction_ids": ["e01"], "request_id": "r1"}, "confirmed"),
        ("dismiss", {"transaction_ids": []}, "dismissed"),
        ("comment", {"note": "x"}, "comment"),
        ("assign", {"to": "otto"}, "assigned"),
        ("snooze", {"until": 4_000_000_000_000_000}, "snoozed"),
        ("split", {"members": [["account", "cleo"]]}, "split"),
        ("merge", {"into": 2}, "merged"),
    ],
)
def test_every_act_is_kept_under_the_keys_name(console: Console, act: str, body: dict[str, Any], kind: str) -> None:
    answer = api(console).post(f"/v1/cases/1/{act}", json=body)
    assert answer.status_code == 200, answer.text
    event = next(e for e in answer.json()["events"] if e["kind"] == kind)
    assert event["by"] == "iris"


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/cases/1/comment", {"into": 2}, 422, "comment does not take it"),
        ("/v1/cases/1/confirm", {"payments": ["e01"]}, 422, "payments"),
        ("/v1/cases/1/confirm", {}, 409, "choose at least one payment"),
        ("/v1/cases/1/confirm", {"transaction_ids": ["none"]}, 409, "no payment 'none'"),
        ("/v1/cases/1/snooze", {}, 422, "until: is missing"),
        ("/v1/cases/1/dance", {}, 404, "no act"),
        ("/v1/cases/99/comment", {"note": "x"}, 404, "no case C-99"),
        ("/v1/cases/1/merge", {"into": 99}, 404, "no case C-99"),
    ],
)
def test_refusals_are_problems(console: Console, path: str, body: dict[str, Any], status: int, said: str) -> None:
    answer = api(console).post(path, json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert said in answer.json()["detail"]
    assert not console.world.given
