"""The database of cases: its migrations make what the models say, what happened stays, errors are plain."""

import stat
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.exc import DatabaseError

from serve.cases.book import CaseBook
from serve.cases.database import Database
from serve.cases.models import Base
from serve.errors import ServeError
from tests.serve.cases.fake import busy


def test_migrations_make_what_the_models_say(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_a_database_that_is_up_to_date_is_opened_again_as_it_is(where: str) -> None:
    book = CaseBook(where)
    book.sync(busy())
    book.close()
    again = CaseBook(where)
    assert again.count() == 2
    again.close()


@pytest.mark.parametrize("change", ["UPDATE case_events SET note = 'nothing'", "DELETE FROM case_events"])
def test_what_happened_to_a_case_cannot_be_rewritten(database: Database, change: str) -> None:
    CaseBook(database).sync(busy())
    with pytest.raises(DatabaseError, match="append-only"), database.writing() as session:
        session.execute(text(change))


def test_only_its_owner_may_read_the_file(tmp_path: Path) -> None:
    database = Database(tmp_path / "new" / "cases.sqlite")
    CaseBook(database).sync(busy())
    for path in (tmp_path / "new").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    database.close()


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("mysql://host/cases", "SQLite .* or PostgreSQL .*, not mysql"),
        ("postgresql://who:secret@/none?host=/nowhere", "the database of cases, .*"),
        ("/proc/cases.sqlite", "the database of cases, /proc/cases.sqlite"),
    ],
)
def test_what_cannot_be_opened_is_said_in_one_line_without_a_password(where: str, said: str) -> None:
    with pytest.raises(ServeError, match=said) as raised:
        Database(where)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_every_table_has_its_names_on_both_databases(database: Database) -> None:
    names = set(inspect(database.engine).get_table_names())
    assert names == {*Base.metadata.tables, "alembic_version"}
