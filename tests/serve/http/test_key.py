"""The key of ids, said once where the service starts."""

from pathlib import Path

import pytest

from data.digests import KEY_VARIABLE, key_is_secret
from gnn.model.artifact import untrained
from serve.cli.demo import service
from tests.serve.cli.test_cli import ringwatch
from tests.serve.http.test_service import ROLES


@pytest.mark.parametrize(("key", "secret"), [(None, False), ("", False), ("0" * 32, False), ("0" * 31 + "1", True)])
def test_a_key_that_everybody_knows_is_no_secret(
    key: str | None, secret: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    if key is not None:
        monkeypatch.setenv(KEY_VARIABLE, key)
    assert key_is_secret() is secret


def test_a_key_that_is_none_is_said_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    untrained(("account",)).save(tmp_path / "model")
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    done = ringwatch("serve", "--model", tmp_path / "model", "--journal", tmp_path / "j", "--insecure")
    assert done.returncode == 2
    assert done.stderr.strip() == "ringwatch: RINGWATCH_ID_KEY must be 32 hexadecimal digits (128 bits)"
    assert not (tmp_path / "j").exists()


@pytest.mark.ray
@pytest.mark.parametrize("key", [None, "5ec4e7" + "0" * 26])
def test_the_service_warns_once_of_a_key_that_everybody_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    untrained(ROLES, window_rows=1 << 12).save(tmp_path / "model")
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    if key is not None:
        monkeypatch.setenv(KEY_VARIABLE, key)
    with service(tmp_path / "model", tmp_path / "journal.sqlite") as client:
        assert client.is_ready()
    said = " ".join((tmp_path / "journal.log").read_text().split())
    assert said.count("warning: RINGWATCH_ID_KEY is not set") == (key is None)
    assert said.count("openssl rand -hex 16") == (key is None)
