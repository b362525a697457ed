"""Turning payments away in line: the same answers and refusals as the usual way gives, on the same connection."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from gnn.model.artifact import untrained
from serve.http.app import build_app
from serve.http.listener import Listener, listen
from serve.problems import Problem
from serve.settings import Settings
from tests.serve.http.test_service import PAYMENT, ROLES, opened

KEY = {"authorization": "Bearer secret"}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[Starlette, httpx.Client]]:
    """A service behind its listener, and a client on one kept connection."""
    config = Settings(
        model=tmp_path, journal=tmp_path / "journal.sqlite", api_keys="secret", capacity=1 << 13, snapshot_every=0
    )
    app = build_app(config, opened(untrained(ROLES, neighbours=4, window_rows=1 << 12), config))
    listener = Listener(app, listen("127.0.0.1", [0]), express=app.state.express)
    listener.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{listener.port}", headers=KEY, timeout=180) as client:
        yield app, client
    listener.stop()


def overload(app: Starlette) -> None:
    """As if more waited than can be done in time."""
    refusal = Problem(429, "Overloaded", "too many wait", headers={"Retry-After": "3"})
    app.state.batcher.overloaded = lambda rows, deadline_s: refusal


def test_too_many_are_answered_by_rules_and_counted(service: tuple[Starlette, httpx.Client]) -> None:
    app, client = service
    assert client.post("/v1/score", json=PAYMENT).json()["recorded"]
    before = app.state.batcher.overloaded
    overload(app)
    body = client.post("/v1/score", json={**PAYMENT, "transaction_id": "p2", "amount": 200_000}).json()
    assert (body["recorded"], body["scored_by"], body["degraded"]) == (False, "rules", True)
    assert [reason["code"] for reason in body["reasons"]] == ["RULE_AMOUNT"]
    app.state.batcher.overloaded = before
    again = client.post("/v1/score", json={**PAYMENT, "transaction_id": "p2", "amount": 200_000}).json()
    assert (again["recorded"], again["earlier_decision"]) == (True, body["decision"])
    metrics = client.get("/metrics").text
    assert 'ringwatch_unrecorded_answers_total{why="overloaded"} 1.0' in metrics
    assert 'ringwatch_requests_total{route="/v1/score",status="200"} 3.0' in metrics


def test_who_is_strict_is_told_when_to_come_again(service: tuple[Starlette, httpx.Client]) -> None:
    app, client = service
    overload(app)
    answer = client.post("/v1/score", json=PAYMENT, headers={"prefer": "handling=strict"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["title"] == "Overloaded"
    assert app.state.replica.journal.end == 0


def test_other_methods_are_refused_under_load_too(service: tuple[Starlette, httpx.Client]) -> None:
    app, client = service
    overload(app)
    assert client.put("/v1/score", json=PAYMENT).status_code == 405
    assert client.get("/v1/score").status_code == 405


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize(
    ("sent", "headers", "status"),
    [
        (b'{"transaction_id": "p1"}', {}, 422),
        (b"{", {}, 400),
        (b"", {}, 400),
        (b"x" * 70_000, {}, 413),
        (b"{}", {"content-type": "text/csv"}, 415),
        (b"{}", {"content-encoding": "gzip"}, 415),
        (b"{}", {"authorization": "Bearer other"}, 401),
        (b"{}", {"x-ringwatch-deadline-ms": "soon"}, 422),
    ],
)
def test_what_is_refused_is_refused_alike_with_or_without_load(
    service: tuple[Starlette, httpx.Client], busy: bool, sent: bytes, headers: dict[str, str], status: int
) -> None:
    app, client = service
    if busy:
        overload(app)
    answer = client.post("/v1/score", content=sent, headers={"content-type": "application/json", **headers})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert client.get("/livez").status_code == 200


def test_a_body_that_comes_in_pieces_and_one_that_is_waited_for_are_answered(
    service: tuple[Starlette, httpx.Client],
) -> None:
    app, client = service
    overload(app)
    body = httpx.Request("POST", "http://x", json=PAYMENT).read()

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(body), 30):
            yield body[at : at + 30]

    sent = {"content-type": "application/json"}
    assert client.post("/v1/score", content=pieces(), headers=sent).json()["recorded"] is False
    expecting = client.post("/v1/score", content=body, headers={**sent, "expect": "100-continue"})
    assert expecting.json()["recorded"] is False
    assert client.post("/v1/score", json=PAYMENT, headers={"connection": "close"}).json()["recorded"] is False
