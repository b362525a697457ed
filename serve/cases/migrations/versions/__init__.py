"""Alembic's migrations of the database of cases, applied when it is opened (`serve.cases.database`)."""
