"""Bring a store's tables to what this code writes, by the Alembic scripts in ``migrations/``."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
import sqlalchemy.exc

from nbmlops.errors import MissingExtra, StoreTooNew
from nbmlops.store import tables
from nbmlops.store.database import Database


def refuse_newer(revision: str | None, shown: str) -> None:
    """Refuse a store that a newer nbmlops has migrated.

    Raises
    ------
    StoreTooNew
        When ``revision`` is none of the migrations that this code knows.
    """
    if revision is not None and revision not in tables.MIGRATIONS:
        raise StoreTooNew(
            f"the store {shown} was written by a newer nbmlops (migration {revision[:40]})",
            "Upgrade: `pip install --upgrade nbmlops`.",
        )


def ensure(database: Database) -> None:
    """Migrate the store if it is not what this code writes; one cheap query if it is.

    Of several processes that come at once one migrates and the others wait for it.

    Raises
    ------
    StoreTooNew
        When a newer nbmlops wrote it.
    StoreUnavailable
        When it cannot be read or migrated.
    """
    revision = database.read(lambda connection: _revision(connection, database))
    refuse_newer(revision, database.shown)
    if revision == tables.HEAD:
        return
    with database.migrating() as connection:
        # Somebody may have migrated while we waited.
        if sa.inspect(connection).has_table(tables.VERSION_TABLE):
            revision = connection.scalar(sa.select(tables.version.c.version_num))
        refuse_newer(revision, database.shown)
        if revision != tables.HEAD:
            _migrate(connection)


def _revision(connection: sa.Connection, database: Database) -> str | None:
    try:
        return connection.scalar(sa.select(tables.version.c.version_num))
    except sqlalchemy.exc.DBAPIError as error:
        if database.lacks_table(error):
            return None
        raise


def _migrate(connection: sa.Connection) -> None:
    try:
        from alembic import command
        from alembic.config import Config
    except ImportError as error:
        raise MissingExtra(
            "the store must be migrated, and Alembic is not installed",
            "Type `pip install 'nbmlops[lab]'`.",
        ) from error
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    command.upgrade(config, "head")
