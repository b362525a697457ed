"""Databases of the tests: every test that asks for one runs on SQLite and on PostgreSQL."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.cases.book import CaseBook
from serve.cases.database import Database
from tests.postgres import cluster


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The address of a server, started for the tests."""
    try:
        with cluster() as address:
            yield address
    except RuntimeError as reason:
        pytest.skip(str(reason))


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a fresh database is."""
    if request.param == "sqlite":
        return str(tmp_path / "cases.sqlite")
    import psycopg

    address = request.getfixturevalue("postgresql")
    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return address.replace("/postgres?", f"/{name}?")


@pytest.fixture
def database(where: str) -> Iterator[Database]:
    """A fresh database, open."""
    found = Database(where)
    yield found
    found.close()


@pytest.fixture
def book(database: Database) -> CaseBook:
    """A case book over a fresh database."""
    return CaseBook(database)
