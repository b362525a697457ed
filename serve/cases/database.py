"""The database of cases: SQLite in a file by default, PostgreSQL by its address; migrated when it is opened."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.orm import Session

from serve.errors import ServeError

BUSY_S = 10.0  # how long a writer of SQLite waits for another


class Database:
    """Sessions over one database. Any thread may take one.

    Args:
        where: A file for SQLite (`var/cases.sqlite`; made with mode 0600), or an address such as
            `postgresql://user@host/ringwatch`.

    Raises:
        ServeError: It cannot be reached or is no database of cases.

    Example:
        >>> import tempfile
        >>> database = Database(tempfile.mkdtemp() + "/cases.sqlite")
        >>> with database.reading() as session:
        ...     session.connection().dialect.name
        'sqlite'
    """

    def __init__(self, where: str | Path) -> None:
        url = _address(where)
        self._engine = _engine(url)
        self._writing = self._engine.execution_options(ringwatch_writes=True)
        try:
            with self._writing.begin() as connection:
                migrate(connection)
        except OperationalError as error:
            self._engine.dispose()
            reason = str(error.orig).strip().splitlines()[0]
            raise ServeError(f"the database of cases, {url.render_as_string(hide_password=True)}: {reason}") from None

    @property
    def engine(self) -> Engine:
        """For tests and tools."""
        return self._engine

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """One transaction that writes: all of it, or nothing where an error leaves it."""
        with Session(self._writing, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One transaction that only reads."""
        with Session(self._engine, expire_on_commit=False) as session:
            yield session

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()


def migrate(connection: Connection) -> None:
    """Bring the tables up to date, or make them; nothing where they are."""
    config = Config()
    config.set_main_option("script_location", "serve.cases:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _address(where: str | Path) -> URL:
    if isinstance(where, Path) or "://" not in where:
        return URL.create("sqlite", database=str(where))
    try:
        url = make_url(where)
    except ArgumentError:
        raise ServeError("the address of the database of cases is no URL such as postgresql://user@host/name") from None
    if url.drivername in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "postgresql+psycopg"):
        raise ServeError(f"cases are kept in SQLite (a file) or PostgreSQL (postgresql://...), not {url.drivername}")
    return url


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        engine = create_engine(url, pool_pre_ping=True)
        event.listen(engine, "begin", _on_begin_postgresql)
        return engine
    assert url.database
    _private(Path(url.database))
    engine = create_engine(url, connect_args={"timeout": BUSY_S, "check_same_thread": False})
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return engine


def _private(path: Path) -> None:
    """Make a file that only its owner may read; SQLite gives its side files the same mode."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise ServeError(f"the database of cases, {path}: {error.strerror}") from None


def _on_connect(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # we begin transactions ourselves
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _on_begin(connection: Connection) -> None:
    # A writer asks for its lock at once: one that read first and then writes would be refused, not made to wait.
    writes = connection.get_execution_options().get("ringwatch_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _on_begin_postgresql(connection: Connection) -> None:
    # One writer at a time, as with SQLite: what it reads first is then still so when it writes.
    if connection.get_execution_options().get("ringwatch_writes", False):
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(8074657)")
