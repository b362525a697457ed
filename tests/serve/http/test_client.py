"""The client: what it sends again, and to whom; and that what is no answer of the service is said to be none."""

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from gnn.model.artifact import untrained
from serve.errors import ServeError
from serve.http.app import build_app
from serve.http.client import Refused, RingwatchClient
from tests.serve.http.test_in_time import eventually, outcomes, stalled_disk
from tests.serve.http.test_service import PAYMENT, ROLES, opened, settings
from tests.world import payment_batch


class Service(httpx.BaseTransport):
    """Stands for the network: hands requests on to an application, or answers as it is told."""

    def __init__(self, *answers: httpx.Response | Exception | TestClient) -> None:
        self.answers, self.asked = list(answers), list[httpx.Request]()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.asked.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, httpx.Response):
            return answer
        path = request.url.raw_path.decode()
        got = answer.request(request.method, path, content=request.content, headers=dict(request.headers))
        return httpx.Response(
            got.status_code, content=got.content, headers={"content-type": got.headers["content-type"]}
        )


def ok(**body: Any) -> httpx.Response:
    return httpx.Response(200, json={"decision": "approve", "recorded": True, **body})


def test_a_payment_answered_without_being_recorded_is_sent_again_until_it_is(tmp_path: Path) -> None:
    config = settings(tmp_path)
    artifact = untrained(ROLES, neighbours=4, window_rows=1 << 12)
    with (
        TestClient(build_app(config, opened(artifact, config))) as app,
        RingwatchClient("http://x", transport=Service(app)) as client,
    ):
        with stalled_disk(app):
            answer = client.score({**PAYMENT, "amount": 200_000}, deadline=0.05)
            assert (answer["recorded"], client.unrecorded) == (False, 1)
        assert client.settle(20) == 0
        assert client.score({**PAYMENT, "amount": 200_000})["earlier_decision"] == answer["decision"]
        eventually(lambda: outcomes(app) == [("p1", answer["decision"])])


def test_what_is_sent_again_carries_the_decision_given_and_asks_for_no_other() -> None:
    service = Service(ok(recorded=False, decision="review"), httpx.Response(503, json={}), ok())
    with RingwatchClient("http://x", transport=service) as client:
        assert client.score(PAYMENT)["decision"] == "review"
        assert client.settle(20) == 0
    first, *others = service.asked
    assert "prefer" not in first.headers
    assert len(others) == 2
    for again in others:
        assert json.loads(again.content) == {**PAYMENT, "decision_given": "review"}
        assert again.headers["prefer"] == "handling=strict"


def test_a_payment_refused_when_it_is_sent_again_is_not_sent_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    service = Service(ok(recorded=False), httpx.Response(409, json={"title": "Conflict", "detail": "other content"}))
    with RingwatchClient("http://x", transport=service) as client:
        client.score(PAYMENT)
        assert client.settle(20) == 0
    assert len(service.asked) == 2
    assert "other content" in caplog.text


@pytest.mark.parametrize(
    "fault", [httpx.ConnectError("gone"), httpx.Response(503, json={}), httpx.Response(429, json={})]
)
def test_the_next_replica_is_asked_at_once_where_one_does_not_serve(fault: Any) -> None:
    service = Service(fault, ok())
    with RingwatchClient(["http://a", "http://b"], transport=service) as client:
        assert client.score(PAYMENT, deadline=10)["recorded"]
    assert [request.url.host for request in service.asked] == ["a", "b"]


def test_a_replica_that_is_stopped_leaves_the_other_time_to_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as stopped, socket.create_server(("127.0.0.1", 0)) as serving:

        def serve() -> None:
            connection, _ = serving.accept()
            with connection:
                connection.recv(65536)
                body = json.dumps({"decision": "approve", "recorded": True}).encode()
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

        thread = threading.Thread(target=serve)
        thread.start()
        begin = time.monotonic()
        with RingwatchClient([f"http://127.0.0.1:{s.getsockname()[1]}" for s in (stopped, serving)]) as client:
            assert client.score(PAYMENT, deadline=2)["recorded"]
        assert time.monotonic() - begin < 2
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(308, headers={"location": "https://elsewhere/"}),
        httpx.Response(200, text="<html>Sign in</html>"),
        httpx.Response(204),
    ],
)
def test_what_is_no_answer_of_the_service_is_said_so_at_once(answer: httpx.Response) -> None:
    service = Service(answer)
    with RingwatchClient("http://x", transport=service) as client:
        for ask in (
            lambda: client.score(PAYMENT),
            lambda: client.score_many(payment_batch(2)),
            lambda: client.label_many(pa.table({})),
            lambda: client.ties(),
        ):
            with pytest.raises(ServeError, match="no Ringwatch service"):
                ask()
    assert len(service.asked) == 4  # once each


def test_a_key_read_with_its_line_break_works_and_one_with_a_line_break_inside_is_refused() -> None:
    service = Service(ok())
    with RingwatchClient("http://x", key="secret\n", transport=service) as client:
        client.score(PAYMENT)
    assert service.asked[0].headers["authorization"] == "Bearer secret"
    with pytest.raises(ServeError, match="line break"):
        RingwatchClient("http://x", key="one\ntwo")


def test_a_refusal_is_not_sent_again() -> None:
    service = Service(httpx.Response(422, json={"title": "Invalid content", "detail": "amount: is missing"}))
    with RingwatchClient("http://x", transport=service) as client, pytest.raises(Refused, match="amount: is missing"):
        client.score(PAYMENT)
    assert len(service.asked) == 1
