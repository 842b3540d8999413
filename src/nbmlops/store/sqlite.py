"""A SQLite file: writers of one machine take turns on a file lock, readers need none.

The lock is kinder to SQLite than its own busy loop, and names its holder. The rollback journal has
no race between connections that commit and checkpoint at once, which write-ahead logs of SQLite
before 3.51.3 have. ``PERSIST`` with ``FULL`` also syncs the end of the journal, which ``DELETE``
does not: after a power cut no journal comes back and undoes what was acknowledged.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import IO, TypeVar

import sqlalchemy as sa
import sqlalchemy.event
import sqlalchemy.exc

from nbmlops.errors import StoreUnavailable
from nbmlops.store.database import said, unavailable

_LOCK_PATIENCE_S = 10.0
_MIGRATION_PATIENCE_S = 120.0
_PID_DIGITS = 12
_FIRST_PAUSE_S = 0.004
_SHORTEST_PAUSE_S = 0.0002
_AGEING_S = 0.05
_JOURNAL_BYTES = 1 << 20
_HINT = "See that the disk has room and the folder is yours to write; then try again."

T = TypeVar("T")


class SqliteFile:
    """The SQLite file at ``path``, made when it is not there."""

    def __init__(self, path: Path) -> None:
        self.shown = str(path)
        self._path = path
        self._lock = path.with_suffix(".lock")
        self._queue = path.with_suffix(".queue")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unavailable(self.shown, error, _HINT) from error
        self._engine = sa.create_engine(
            sa.URL.create("sqlite", database=str(path)),
            connect_args={"timeout": 30, "check_same_thread": False},
        )
        sqlalchemy.event.listen(self._engine, "connect", _configure)
        sqlalchemy.event.listen(self._engine, "begin", _begin)
        self._writer = self._engine.execution_options(nbmlops_writes=True)

    @contextlib.contextmanager
    def _locked(self, patience_s: float) -> Generator[None, None, None]:
        with _opened(self._lock) as lock:
            with _opened(self._queue) as queue:
                # Nobody overtakes those who wait: a writer of many records would win each race,
                # because the others are asleep when it lets go.
                if not (_taken(queue, fcntl.LOCK_EX) and _taken(lock, fcntl.LOCK_EX)):
                    _taken(queue, fcntl.LOCK_SH)
                    self._wait(lock, patience_s)
            with contextlib.suppress(OSError):  # a full disk cannot name the holder
                os.pwrite(lock.fileno(), f"{os.getpid():<{_PID_DIGITS}}".encode(), 0)
            yield

    def _wait(self, lock: IO[bytes], patience_s: float) -> None:
        began = time.monotonic()
        while True:
            waited_s = time.monotonic() - began
            time.sleep(_pause_s(waited_s))
            if _taken(lock, fcntl.LOCK_EX):
                return
            if waited_s > patience_s:
                holder = os.pread(lock.fileno(), _PID_DIGITS, 0).decode().strip() or "?"
                raise StoreUnavailable(
                    f"process {holder} has held the store's lock for {patience_s:.0f} s",
                    "If it hangs, end it, then try again.",
                )

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Run ``work``, which changes nothing, and return what it returns."""
        try:
            with self._engine.connect() as connection:
                return work(connection)
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise unavailable(self.shown, error, _HINT) from error

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Run ``work`` as one transaction, durable when this returns.

        Nothing is tried twice: what a disk refused, above all a failed fsync, stays refused.
        """
        try:
            with self._locked(_LOCK_PATIENCE_S), self._writer.begin() as connection:
                return work(connection)
        except (sqlalchemy.exc.SQLAlchemyError, OSError) as error:
            raise unavailable(self.shown, error, _HINT) from error

    @contextlib.contextmanager
    def migrating(self) -> Generator[sa.Connection, None, None]:
        """Hold a transaction that no other migration runs beside; others wait."""
        try:
            with self._locked(_MIGRATION_PATIENCE_S), self._writer.begin() as connection:
                yield connection
        except (sqlalchemy.exc.SQLAlchemyError, OSError) as error:
            raise unavailable(self.shown, error, _HINT) from error

    def lacks_table(self, error: sqlalchemy.exc.DBAPIError) -> bool:
        """Return whether the error says that a table is not there."""
        return said(error).startswith("no such table")

    def faults(self) -> list[str]:
        """Return what SQLite's own check finds wrong with the file; an empty list is good."""

        def check(connection: sa.Connection) -> list[str]:
            found = connection.exec_driver_sql("PRAGMA integrity_check").scalars()
            return [str(row) for row in found if row != "ok"]

        return self.read(check)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()


def _opened(path: Path) -> IO[bytes]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    return os.fdopen(descriptor, "r+b", buffering=0)


def _taken(file: IO[bytes], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pause_s(waited_s: float) -> float:
    """Return how long to wait before the next try: who has waited long tries more often.

    Uneven, so that waiters do not keep step and lose the same race each time.
    """
    pause_s = _FIRST_PAUSE_S / (1 + (waited_s / _AGEING_S) ** 2)
    return max(_SHORTEST_PAUSE_S, pause_s) * (0.5 + random.random())  # noqa: S311


def _configure(connection: sa.engine.interfaces.DBAPIConnection, _: object) -> None:
    # The driver would commit before a change of tables; we begin transactions ourselves.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = PERSIST")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES}")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("nbmlops_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
