"""Run by Alembic: migrates over the connection that `serve.cases.database.migrate` hands in."""

from alembic import context

from serve.cases.models import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
