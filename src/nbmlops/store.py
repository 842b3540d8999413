"""The store: what happened, as append-only revisions of records, kept by SQLAlchemy.

Every mutation carries an idempotency key made by the client: the same key again changes nothing.
A record moves on by compare-and-swap on its revision. Writers on one machine take turns on a file
lock, which is kinder to SQLite than its own busy loop.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
import sqlalchemy as sa
import sqlalchemy.event
import sqlalchemy.exc

from nbmlops import records
from nbmlops.errors import Conflict, StoreTooNew, StoreUnavailable

SCHEMA_VERSION = 1
_LOCK_PATIENCE_S = 10.0

RecordT = TypeVar("RecordT", bound=msgspec.Struct)

_metadata = sa.MetaData()

_revisions = sa.Table(
    "revisions",
    _metadata,
    sa.Column("kind", sa.String(32), primary_key=True),
    sa.Column("id", sa.String(128), primary_key=True),
    sa.Column("revision", sa.Integer, primary_key=True),
    sa.Column("key", sa.String(200), nullable=False, unique=True),
    sa.Column("body", sa.LargeBinary, nullable=False),
)
_heads = sa.Table(
    "heads",
    _metadata,
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("id", sa.String(128), nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("status", sa.String(32), nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("kind", "id"),
    sa.Index("heads_by_status", "kind", "status", "sequence"),
)
_leases = sa.Table(
    "leases",
    _metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("holder", sa.String(128), nullable=False),
    sa.Column("until_s", sa.Float, nullable=False),
)
_about = sa.Table(
    "about",
    _metadata,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("value", sa.Integer, nullable=False),
)


class Kept(msgspec.Struct, Generic[RecordT], frozen=True):
    """A record with the revision that a swap must name and its place in the order of all."""

    record: RecordT
    revision: int
    sequence: int


class Store:
    """An open store; one for each process and project."""

    def __init__(self, path: Path) -> None:
        """Open the SQLite file at ``path``, and make it when it is not there.

        Raises
        ------
        StoreUnavailable
            When it cannot be opened or made.
        StoreTooNew
            When a newer nbmlops wrote it.
        """
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._engine = sa.create_engine(
            sa.URL.create("sqlite", database=str(path)),
            connect_args={"timeout": 30, "check_same_thread": False},
        )
        sqlalchemy.event.listen(self._engine, "connect", _configure)
        try:
            self._prepare()
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise _unavailable(path, error) from error

    def _prepare(self) -> None:
        with self._engine.connect() as connection:
            if not sa.inspect(connection).has_table("about"):
                version = None
            else:
                version = connection.scalar(
                    sa.select(_about.c.value).where(_about.c.name == "schema")
                )
        if version is None:
            with self._locked():
                _metadata.create_all(self._engine)
                with self._engine.begin() as connection:
                    connection.execute(
                        sa.text("INSERT OR IGNORE INTO about VALUES ('schema', :version)"),
                        {"version": SCHEMA_VERSION},
                    )
        elif version > SCHEMA_VERSION:
            raise StoreTooNew(
                f"{self._path} was written by a newer nbmlops (schema {version})",
                "Upgrade: `pip install --upgrade nbmlops`.",
            )

    @contextlib.contextmanager
    def _locked(self) -> Generator[None, None, None]:
        lock = self._path.with_suffix(".lock")
        with lock.open("a+") as file:
            deadline = time.monotonic() + _LOCK_PATIENCE_S
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        file.seek(0)
                        raise StoreUnavailable(
                            f"process {file.read().strip() or '?'} has held the store's lock"
                            f" for {_LOCK_PATIENCE_S:.0f} s",
                            "If it hangs, end it, then try again.",
                        ) from None
                    time.sleep(0.002)
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    @contextlib.contextmanager
    def _writing(self) -> Generator[sa.Connection, None, None]:
        try:
            with self._locked(), self._engine.begin() as connection:
                yield connection
        except (sqlalchemy.exc.SQLAlchemyError, OSError) as error:
            raise _unavailable(self._path, error) from error

    @contextlib.contextmanager
    def _reading(self) -> Generator[sa.Connection, None, None]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise _unavailable(self._path, error) from error

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def get(self, kind: str, record_id: str, form: type[RecordT]) -> Kept[RecordT] | None:
        """Return the newest revision of a record, or ``None``."""
        query = sa.select(_heads.c.body, _heads.c.revision, _heads.c.sequence).where(
            _heads.c.kind == kind, _heads.c.id == record_id
        )
        with self._reading() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _kept(row, form)

    def find(self, kind: str, prefix: str, form: type[RecordT]) -> list[Kept[RecordT]]:
        """Return at most ten records whose id begins with ``prefix``."""
        query = (
            sa.select(_heads.c.body, _heads.c.revision, _heads.c.sequence)
            .where(_heads.c.kind == kind, _heads.c.id.startswith(prefix, autoescape=True))
            .limit(10)
        )
        with self._reading() as connection:
            return [_kept(row, form) for row in connection.execute(query)]

    def page(
        self,
        kind: str,
        form: type[RecordT],
        *,
        limit: int = 50,
        before: int | None = None,
        status: tuple[str, ...] | None = None,
    ) -> list[Kept[RecordT]]:
        """Return records newest first; ``before`` is the sequence of the last one seen."""
        query = sa.select(_heads.c.body, _heads.c.revision, _heads.c.sequence).where(
            _heads.c.kind == kind
        )
        if before is not None:
            query = query.where(_heads.c.sequence < before)
        if status is not None:
            query = query.where(_heads.c.status.in_(status))
        with self._reading() as connection:
            rows = connection.execute(query.order_by(_heads.c.sequence.desc()).limit(limit))
            return [_kept(row, form) for row in rows]

    def swap(
        self,
        kind: str,
        record_id: str,
        record: msgspec.Struct,
        *,
        expected: int,
        key: str,
        status: str = "",
    ) -> int:
        """Write the next revision of a record if the newest one is still ``expected``.

        ``expected`` is 0 for a new record. A key that was used before changes nothing. Returns the
        revision that now stands.

        Raises
        ------
        Conflict
            When somebody else wrote a revision first.
        """
        body = records.dump(record)
        with self._writing() as connection:
            again = connection.execute(
                sa.select(_revisions.c.kind, _revisions.c.id, _revisions.c.revision).where(
                    _revisions.c.key == key
                )
            ).one_or_none()
            if again is not None:
                return int(again.revision)
            current = connection.scalar(
                sa.select(_heads.c.revision).where(_heads.c.kind == kind, _heads.c.id == record_id)
            )
            if (current or 0) != expected:
                raise Conflict(
                    f"{kind} {record_id} was changed by somebody else", "Look again, then retry."
                )
            connection.execute(
                _revisions.insert().values(
                    kind=kind, id=record_id, revision=expected + 1, key=key, body=body
                )
            )
            values = {"revision": expected + 1, "status": status, "body": body}
            if current is None:
                connection.execute(_heads.insert().values(kind=kind, id=record_id, **values))
            else:
                connection.execute(
                    _heads.update()
                    .where(_heads.c.kind == kind, _heads.c.id == record_id)
                    .values(**values)
                )
        return expected + 1

    def lease(self, name: str, holder: str, now_s: float, length_s: float) -> bool:
        """Take or renew a lease; return whether ``holder`` has it now."""
        with self._writing() as connection:
            row = connection.execute(
                sa.select(_leases.c.holder, _leases.c.until_s).where(_leases.c.name == name)
            ).one_or_none()
            values = {"holder": holder, "until_s": now_s + length_s}
            if row is None:
                connection.execute(_leases.insert().values(name=name, **values))
                return True
            # A lease that reaches further ahead than any lease is long comes from a clock that
            # was set back since.
            free = row.until_s < now_s or row.until_s > now_s + 10 * length_s
            if row.holder != holder and not free:
                return False
            connection.execute(_leases.update().where(_leases.c.name == name).values(**values))
        return True

    def release(self, name: str, holder: str) -> None:
        """Give a lease back."""
        with self._writing() as connection:
            connection.execute(
                _leases.delete().where(_leases.c.name == name, _leases.c.holder == holder)
            )

    def faults(self) -> list[str]:
        """Return what SQLite's own check finds wrong with the file; an empty list is good."""
        with self._reading() as connection:
            rows = connection.execute(sa.text("PRAGMA integrity_check")).scalars().all()
        return [str(row) for row in rows if row != "ok"]


def _configure(connection: sa.engine.interfaces.DBAPIConnection, _: object) -> None:
    cursor = connection.cursor()
    # Durable before acknowledged; the rollback journal has no race between writers that
    # checkpoint (write-ahead logs of SQLite before 3.51.3 do).
    cursor.execute("PRAGMA journal_mode = DELETE")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _kept(row: sa.Row, form: type[RecordT]) -> Kept[RecordT]:
    return Kept(records.load(row.body, form), row.revision, row.sequence)


def _unavailable(path: Path, error: Exception) -> StoreUnavailable:
    return StoreUnavailable(
        f"the store {path} cannot be used: {str(error).splitlines()[0]}",
        "Check that the disk has room and the folder is yours, then try again.",
    )
