"""Options of `ringwatch serve`: given ones first, then RINGWATCH_*, then defaults."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from serve.cli.main import app
from serve.settings import Settings


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """What the service would have been run with."""
    found: list[Settings] = []
    monkeypatch.setattr("serve.http.deployment.run_service", found.append)
    return found


def test_the_environment_counts_where_an_option_is_not_given(
    settings: list[Settings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {"JOURNAL": tmp_path / "j.sqlite", "HOST": "127.0.0.2", "PORT": 9100, "REPLICAS": 3}.items():
        monkeypatch.setenv(f"RINGWATCH_{name}", str(value))
    monkeypatch.setenv("RINGWATCH_DEVICE", "cpu")
    done = CliRunner().invoke(app, ["serve", "--model", str(tmp_path), "--insecure", "--port", "9200"])
    assert done.exit_code == 0, done.output
    (given,) = settings
    assert (given.journal, given.host, given.replicas, given.device) == (tmp_path / "j.sqlite", "127.0.0.2", 3, "cpu")
    assert given.port == 9200


def test_defaults_count_where_neither_is_given(settings: list[Settings], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["serve", "--model", str(tmp_path), "--insecure"])
    assert done.exit_code == 0, done.output
    assert (settings[0].host, settings[0].port, settings[0].replicas) == ("127.0.0.1", 8000, 1)


def test_a_bad_value_of_the_environment_is_named(
    settings: list[Settings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RINGWATCH_PORT", "eighty")
    done = CliRunner().invoke(app, ["serve", "--model", str(tmp_path), "--insecure"])
    assert done.exit_code == 2
    assert "RINGWATCH_PORT" in done.output
    assert settings == []
