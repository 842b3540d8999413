"""What the store needs of a database: transactions that are whole, retried and bounded."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, TypeVar

import sqlalchemy as sa
import sqlalchemy.exc

from nbmlops.errors import InvalidSettings, StoreUnavailable

T = TypeVar("T")


class Database(Protocol):
    """One database, opened by one process.

    ``shown`` is where it is, for people: never with a password.
    """

    shown: str

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Run ``work``, which changes nothing, and return what it returns."""
        ...

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Run ``work`` as one transaction, durable when this returns.

        ``work`` may run more than once, each time on what then stands: it carries a key.
        """
        ...

    def migrating(self) -> AbstractContextManager[sa.Connection]:
        """Hold a transaction that no other migration runs beside; others wait."""
        ...

    def lacks_table(self, error: sqlalchemy.exc.DBAPIError) -> bool:
        """Return whether the error says that a table is not there."""
        ...

    def faults(self) -> list[str]:
        """Return what the database's own check finds wrong."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


def said(error: BaseException) -> str:
    """Return the first line of what a driver said, without SQL and values."""
    origin = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else None
    return (str(origin or error).strip().splitlines() or [type(error).__name__])[0]


def opened(where: Path | str, patience_s: float) -> Database:
    """Open a SQLite file by path, or a database by URL.

    Raises
    ------
    InvalidSettings
        For a URL that is neither SQLite's nor PostgreSQL's; it may hold a password, so it is not
        shown.
    """
    from nbmlops.store.sqlite import SqliteFile

    if isinstance(where, Path):
        return SqliteFile(where)
    try:
        url = sa.make_url(where)
    except sqlalchemy.exc.ArgumentError:
        raise _refused("the store's URL cannot be read") from None
    kind = url.get_backend_name()
    if kind == "sqlite" and url.database:
        return SqliteFile(Path(url.database).absolute())
    if kind in {"postgresql", "postgres"}:
        from nbmlops.store.postgres import PostgresServer

        return PostgresServer(url, patience_s)
    raise _refused(f"the store cannot be kept in `{kind}`")


def _refused(message: str) -> InvalidSettings:
    return InvalidSettings(
        message,
        "Write `postgresql://user@host/database` into [store] url or NBMLOPS_STORE_URL; the"
        " password belongs into ~/.pgpass or PGPASSWORD.",
    )


def unavailable(shown: str, error: BaseException, hint: str) -> StoreUnavailable:
    """Return the error for a store that cannot be used."""
    return StoreUnavailable(f"the store {shown} cannot be used: {said(error)}", hint)
