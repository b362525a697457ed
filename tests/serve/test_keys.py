"""Named keys: what is kept of them, what they may do, and that a change takes effect while a service runs."""

import hashlib
import json
import stat
import threading
from pathlib import Path

import pytest
from starlette.datastructures import State
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send
from typer.testing import CliRunner

from serve import keys as module
from serve.cli.main import app
from serve.errors import ServeError
from serve.http.express import Express
from serve.http.guard import Guard
from serve.http.metrics import ServiceMetrics
from serve.keys import KeyRing, add_key, read_keys, revoke_key
from serve.settings import Settings


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where keys are; looked at with every question."""
    monkeypatch.setattr(module, "EVERY_S", 0.0)
    return tmp_path / "var" / "keys.json"


def test_a_key_is_shown_once_and_only_its_hash_is_kept_by_its_owner(file: Path) -> None:
    key = add_key(file, "iris", ["investigate", "label"])
    assert key not in file.read_text()
    assert json.loads(file.read_text())["keys"][0]["sha256"] == hashlib.sha256(key.encode()).hexdigest()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["keys.json"]
    assert len(key) > 43
    holder = KeyRing(file=file).find(key.encode())
    assert holder is not None
    assert (holder.name, holder.may("investigate"), holder.may("score")) == ("iris", True, False)


def test_admin_may_do_everything(file: Path) -> None:
    key = add_key(file, "root", ["admin"])
    holder = KeyRing(file=file).find(key.encode())
    assert holder is not None
    assert all(holder.may(scope) for scope in module.SCOPES)


def test_a_new_key_is_good_and_a_revoked_one_is_not_without_a_restart(file: Path) -> None:
    first = add_key(file, "first", ["score"])
    ring = KeyRing(file=file)
    second = add_key(file, "second", ["score"])
    found = ring.find(second.encode())
    assert found is not None
    assert ring.still("second", found.mark) == found
    assert ring.still("first", found.mark) is None
    revoke_key(file, "second")
    assert ring.find(second.encode()) is None
    assert ring.still("second", found.mark) is None
    assert ring.find(first.encode()) is not None


def test_a_damaged_file_changes_nothing_and_one_that_is_gone_has_no_keys(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = add_key(file, "iris", ["score"])
    ring = KeyRing([b"plain"], file)
    file.write_text("{")
    assert ring.find(key.encode()) is not None
    assert "keys stay as they were" in caplog.text
    file.unlink()
    assert ring.find(key.encode()) is None
    assert ring.find(b"plain") is not None


def test_a_name_is_given_once_ever(file: Path) -> None:
    add_key(file, "iris", ["score"])
    with pytest.raises(ServeError, match="'iris' is in use"):
        add_key(file, "iris", ["score"])
    revoke_key(file, "iris")
    with pytest.raises(ServeError, match="'iris' was revoked"):
        add_key(file, "iris", ["score"])
    with pytest.raises(ServeError, match="was revoked"):
        revoke_key(file, "iris")
    with pytest.raises(ServeError, match="no key named 'otto'"):
        revoke_key(file, "otto")


@pytest.mark.parametrize(
    ("name", "scopes", "said"),
    [
        ("", ["score"], "1 to 64 characters"),
        (" x", ["score"], "no blank around"),
        ("x\n", ["score"], "can be seen"),
        ("x" * 65, ["score"], "1 to 64"),
        ("x", ["scores"], "no scope 'scores'; there are score, label, mandate, investigate, admin"),
        ("x", [], "needs a scope"),
    ],
)
def test_what_is_no_key_is_refused(file: Path, name: str, scopes: list[str], said: str) -> None:
    with pytest.raises(ServeError, match=said):
        add_key(file, name, scopes)
    assert not file.exists()


@pytest.mark.parametrize("content", ["", "[]", '{"keys": [{"name": "x"}]}', '{"keys": 3}', "\udcff"])
def test_a_file_of_something_else_is_refused_at_the_start(file: Path, content: str) -> None:
    file.parent.mkdir()
    file.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ServeError, match="is no file of keys"):
        KeyRing(file=file)


def test_keys_that_are_added_at_once_are_all_kept(file: Path) -> None:
    threads = [threading.Thread(target=add_key, args=(file, f"k{i}", ["score"])) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_keys(file)) == 8


@pytest.mark.parametrize("header", [b"", b"Basic abc", b"Bearer ", b"Bearer other", b"bearer"])
def test_a_request_without_a_good_key_is_nobodys(header: bytes) -> None:
    assert KeyRing([b"plain"]).of({b"authorization": header}) is None
    assert KeyRing([b"plain"]).of({b"authorization": b"bearer  plain "}) is not None


def test_the_commands_make_list_and_revoke(file: Path) -> None:
    runner, where = CliRunner(), ["--file", str(file)]
    made = runner.invoke(app, ["keys", "add", "iris", "--scope", "investigate", *where])
    assert made.exit_code == 0, made.output
    key = made.stdout.strip()
    assert KeyRing(file=file).find(key.encode()) is not None
    listed = runner.invoke(app, ["keys", "list", *where])
    assert "iris" in listed.output
    assert "investigate" in listed.output
    held = json.loads(runner.invoke(app, ["keys", "list", "--json", *where]).stdout)
    assert (held[0]["name"], "sha256" in held[0]) == ("iris", False)
    assert runner.invoke(app, ["keys", "revoke", "iris", *where]).exit_code == 0
    assert KeyRing(file=file).find(key.encode()) is None
    assert runner.invoke(app, ["keys", "revoke", "iris", *where]).exit_code == 2


def test_a_service_asks_for_keys_of_the_file_only_where_it_is_there(tmp_path: Path) -> None:
    with pytest.raises(ServeError, match=r"RINGWATCH_KEYS_FILE: no file .*'ringwatch keys add' makes it"):
        Settings.from_environment(model=tmp_path, keys_file=tmp_path / "none")


@pytest.mark.parametrize(
    ("path", "scopes"),
    [
        ("/v1/score", {"api key", "score", "admin"}),
        ("/v1/scores", {"api key", "score", "admin"}),
        ("/v1/labels", {"api key", "label", "admin"}),
        ("/v1/ties/R-1", {"api key", "score", "investigate", "admin"}),
        ("/v1/outcomes", {"api key", "label", "admin"}),
        ("/v1/mandates/M-1/revoke", {"mandate", "admin"}),
        ("/metrics", {"api key", "score", "label", "mandate", "investigate", "admin"}),
        ("/v1/anything", {"api key", "score", "admin"}),
    ],
)
def test_a_route_takes_keys_of_its_scope_alone(file: Path, path: str, scopes: set[str]) -> None:
    keys = {scope: add_key(file, scope, [scope]) for scope in module.SCOPES}
    settings = Settings(model=file, api_keys="plain-key", keys_file=file)

    async def reached(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("reached")(scope, receive, send)

    guarded = Guard(reached, settings, ServiceMetrics(), State())
    guarded._score = lambda headers, receive, send: reached({"type": "http"}, receive, send)  # type: ignore[assignment]
    client = TestClient(guarded)
    for holder, key in {**keys, "api key": "plain-key"}.items():
        method = "POST" if path == "/v1/score" else "GET"
        answer = client.request(method, path, headers={"authorization": f"Bearer {key}"})
        assert answer.status_code == (200 if holder in scopes else 403), holder
        if holder not in scopes:
            assert answer.json()["title"] == "Forbidden"
            assert f"the key {holder!r} may not do this" in answer.json()["detail"]
    assert client.get(path).status_code == 401
    revoke_key(file, "admin")
    assert client.get(path, headers={"authorization": f"Bearer {keys['admin']}"}).status_code == 401


def test_a_payment_that_is_turned_away_in_line_needs_a_key_that_may_score(file: Path) -> None:
    keys = {scope: add_key(file, scope, [scope]).encode() for scope in ("score", "label")}
    express = Express(Settings(model=file, keys_file=file), ServiceMetrics(), State())
    assert express._plain({b"authorization": b"Bearer " + keys["score"]})
    assert not express._plain({b"authorization": b"Bearer " + keys["label"]})
