"""Alembic's entry: run the scripts within the transaction that ``upgrade`` holds."""

from alembic import context

from nbmlops.store import tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=tables.metadata,
    version_table=tables.VERSION_TABLE,
    transactional_ddl=True,
)
context.run_migrations()
