"""`ringwatch mandates`: over HTTP where it changes something, from a journal where it only looks."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import Result
from starlette.testclient import TestClient
from typer.testing import CliRunner

from gnn.model.artifact import untrained
from serve.cli.main import app
from serve.http.app import build_app
from serve.http.client import RingwatchClient
from tests.serve.http.test_mandates import BY_AGENT, MANDATE
from tests.serve.http.test_service import ROLES, opened, settings

Run = Callable[..., Result]


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    config = settings(tmp_path)
    artifact = untrained(ROLES, neighbours=4, window_rows=1 << 12)
    with TestClient(build_app(config, opened(artifact, config))) as client:

        def ask(request: httpx.Request) -> httpx.Response:
            found = client.request(request.method, request.url.raw_path.decode(), content=request.content)
            return httpx.Response(found.status_code, json=found.json())

        def made(*_: Any) -> RingwatchClient:
            return RingwatchClient("http://service", transport=httpx.MockTransport(ask))

        monkeypatch.setattr(RingwatchClient, "from_environment", made)
        monkeypatch.chdir(tmp_path)
        yield client


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["mandates", *words])


def test_a_mandate_is_added_shown_listed_and_revoked(service: TestClient, tmp_path: Path) -> None:
    Path("mandate.json").write_text(json.dumps(MANDATE))
    assert "mandate 'M-1' version 1: active\n" in run("add", "mandate.json").output
    assert "active, as it was before" in run("add", "mandate.json").output
    service.post("/v1/score", json=BY_AGENT)
    shown = run("show", "M-1").output
    assert "remaining    766" in shown
    assert "p1  1,234  reserved" in shown
    over_http = json.loads(run("show", "M-1", "--json").output)
    held = json.loads(run("show", "M-1", "--journal", "journal.sqlite", "--json").output)
    assert {**held, "as_of": None} == {**over_http, "as_of": None}
    assert run("revoke", "M-1").output == "mandate 'M-1' version 1: revoked\n"
    assert json.loads(run("list", "--journal", "journal.sqlite", "--json").output)[0]["state"] == "revoked"
    assert "revoked" in run("list", "--journal", "journal.sqlite").output


def test_what_is_not_there_or_no_json_is_an_error_that_names_it(service: TestClient) -> None:
    for words, said in (
        (("show", "M-9"), "no mandate 'M-9'"),
        (("show", "M-9", "--journal", "journal.sqlite"), "holds no mandate 'M-9'"),
        (("add", "none.json"), "none.json: cannot be read as JSON"),
        (("revoke", "M-9"), "no mandate 'M-9'"),
    ):
        found = run(*words)
        assert found.exit_code != 0
        assert said in found.output
