"""A PostgreSQL database: the network and the server may go away in the middle of anything.

A transaction whose connection was lost is run again as a whole, also when the connection was lost
at COMMIT and nobody knows whether it stands: its key tells on the second time.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import socket
import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import sqlalchemy as sa
import sqlalchemy.event
import sqlalchemy.exc

from nbmlops.errors import Conflict, MissingExtra, StoreUnavailable
from nbmlops.store.database import said, unavailable

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0
_CLASHES = 8
_LOCK_PATIENCE_S = 10
_MIGRATION_PATIENCE_S = 120
# Held while tables change; any number that nobody else uses in the same database.
_MIGRATION_LOCK = 0x6E626D6C6F7073
# A connection that is silent for so long is lost; without this the kernel waits for minutes.
_CONNECT = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
# The server ends a session that stopped within a transaction, so that it blocks nobody for long.
# Durable before acknowledged, also where the server's default is not.
_SESSION = (
    f"SELECT set_config('lock_timeout', '{_LOCK_PATIENCE_S}s', false),"
    " set_config('idle_in_transaction_session_timeout', '30s', false),"
    " set_config('statement_timeout', '60s', false),"
    " CASE WHEN current_setting('synchronous_commit') = 'off'"
    " THEN set_config('synchronous_commit', 'on', false) END"
)
# SQLSTATEs after which the same transaction may succeed: connection lost or refused, server
# stopping or starting, too many connections, chosen as the victim of a race.
_TRANSIENT = ("08", "57P0", "53300", "40001", "40P01")
_LOCKED = "55P03"
# A refused log-in has no SQLSTATE; waiting does not help it.
_HOPELESS = ("authentication failed", "does not exist", "pg_hba.conf", "no password supplied")
_HINT = "See that the server is up and NBMLOPS_STORE_URL or [store] url names it; then try again."
_REFUSED_HINT = (
    "Correct user and database in NBMLOPS_STORE_URL or [store] url; the password belongs into"
    " ~/.pgpass or PGPASSWORD."
)

T = TypeVar("T")


class PostgresServer:
    """The database at ``url``; lost connections are made again for up to ``patience_s`` seconds."""

    def __init__(self, url: sa.URL, patience_s: float) -> None:
        if importlib.util.find_spec("psycopg") is None:
            raise MissingExtra(
                "the store is in PostgreSQL, and its driver is not installed",
                "Type `pip install 'nbmlops[postgres]'`.",
            )
        # Neither the log-in nor options, which may hold a password too, are ever shown.
        shown = sa.URL.create("postgresql", host=url.host, port=url.port, database=url.database)
        self.shown = shown.render_as_string()
        self._patience_s = patience_s
        self._engine = sa.create_engine(
            url.set(drivername="postgresql+psycopg"),
            isolation_level="READ COMMITTED",
            pool_size=2,
            max_overflow=8,
            connect_args={
                **_CONNECT,
                "application_name": f"nbmlops {os.getpid()} on {socket.gethostname()}",
            },
        )
        sqlalchemy.event.listen(self._engine, "connect", _configure)

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Run ``work``, which changes nothing, and return what it returns."""

        def once() -> T:
            with self._engine.connect() as connection:
                return work(connection)

        return self._patiently(once)

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Run ``work`` as one transaction, durable when this returns."""

        def once() -> T:
            with self._engine.begin() as connection:
                return work(connection)

        return self._patiently(once)

    def _patiently(self, once: Callable[[], T]) -> T:
        deadline = time.monotonic() + self._patience_s
        pause_s, clashes = _FIRST_PAUSE_S, 0
        while True:
            try:
                return once()
            except sqlalchemy.exc.IntegrityError as error:
                # Somebody wrote the same first: look again, and find their key or revision.
                clashes += 1
                if clashes == _CLASHES:
                    raise Conflict(
                        "others keep changing the same record", "Look again, then retry."
                    ) from error
            except sqlalchemy.exc.DBAPIError as error:
                if not _transient(error) or time.monotonic() + pause_s > deadline:
                    raise self._failure(error) from error
            except sqlalchemy.exc.SQLAlchemyError as error:
                raise self._failure(error) from error
            time.sleep(pause_s * (0.5 + random.random() / 2))  # noqa: S311
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    @contextlib.contextmanager
    def migrating(self) -> Generator[sa.Connection, None, None]:
        """Hold a transaction that no other migration runs beside; others wait."""
        try:
            with self._engine.begin() as connection:
                connection.exec_driver_sql(
                    f"SELECT set_config('lock_timeout', '{_MIGRATION_PATIENCE_S}s', true),"
                    f" set_config('statement_timeout', '0', true)"
                )
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
                yield connection
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise self._failure(error) from error

    def _failure(self, error: sqlalchemy.exc.SQLAlchemyError) -> StoreUnavailable:
        if _state(error) == _LOCKED and (holder := self._holder()):
            return StoreUnavailable(
                f"session `{holder}` of the store {self.shown} has held a lock for"
                f" {_LOCK_PATIENCE_S} s",
                "If it hangs, end it; the server does so after 30 s. Then try again.",
            )
        hopeless = any(words in said(error) for words in _HOPELESS)
        return unavailable(self.shown, error, _REFUSED_HINT if hopeless else _HINT)

    def _holder(self) -> str | None:
        query = (
            "SELECT application_name || ', process ' || pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND starts_with(state, 'idle in transaction')"
            " ORDER BY xact_start LIMIT 1"
        )
        try:
            with self._engine.connect() as connection:
                return connection.exec_driver_sql(query).scalar()
        except sqlalchemy.exc.OperationalError:
            return None  # the lock's message stands without the name

    def lacks_table(self, error: sqlalchemy.exc.DBAPIError) -> bool:
        """Return whether the error says that a table is not there."""
        return _state(error) == "42P01"

    def faults(self) -> list[str]:
        """Return nothing: the server checks its own pages."""
        return []

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()


def _configure(connection: sa.engine.interfaces.DBAPIConnection, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute(_SESSION)
    cursor.close()
    connection.commit()


def _state(error: BaseException) -> str:
    origin: Any = getattr(error, "orig", None)
    return getattr(origin, "sqlstate", None) or ""


def _transient(error: sqlalchemy.exc.DBAPIError) -> bool:
    if state := _state(error):
        return state.startswith(_TRANSIENT)
    # Without a state it is the connection that failed, unless the log-in was refused.
    lost = error.connection_invalidated or isinstance(
        error, sqlalchemy.exc.OperationalError | sqlalchemy.exc.InterfaceError
    )
    return lost and not any(words in said(error) for words in _HOPELESS)
