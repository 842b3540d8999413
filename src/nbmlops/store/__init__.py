"""The store: what happened, as append-only revisions of records, kept by SQLAlchemy.

Every mutation carries an idempotency key made by the client: the same key again changes nothing.
A record moves on by compare-and-swap on its revision. One code for a SQLite file (the default) and
PostgreSQL (by URL); what differs between them stands in ``sqlite`` and ``postgres``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import sqlalchemy as sa

from nbmlops import records
from nbmlops.errors import Conflict
from nbmlops.store import statements, tables, upgrade
from nbmlops.store.database import opened

_PATIENCE_S = 30.0
_LONGEST_NAME = 200

RecordT = TypeVar("RecordT", bound=msgspec.Struct)

_heads, _revisions, _metrics = tables.heads, tables.revisions, tables.metrics
_KEPT = (_heads.c.body, _heads.c.revision, _heads.c.sequence)


class Kept(msgspec.Struct, Generic[RecordT], frozen=True):
    """A record with the revision that a swap must name and its place in the order of all."""

    record: RecordT
    revision: int
    sequence: int


class Store:
    """An open store; one for each process and project."""

    def __init__(
        self, where: Path | str, *, project: str = "", patience_s: float = _PATIENCE_S
    ) -> None:
        """Open a SQLite file by path, or a database by URL; make or migrate its tables.

        ``project`` keeps projects apart that share a database. A lost connection is made again for
        up to ``patience_s`` seconds.

        Raises
        ------
        StoreUnavailable
            When it cannot be opened or made.
        StoreTooNew
            When a newer nbmlops wrote it.
        InvalidSettings
            When the URL has no meaning.
        """
        self._database = opened(where, patience_s)
        self._project = project
        try:
            upgrade.ensure(self._database)
        except BaseException:
            self._database.close()
            raise

    @property
    def shown(self) -> str:
        """Where the store is, for people: never with a password."""
        return self._database.shown

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    def _of(self, table: sa.Table, kind: str) -> sa.ColumnElement[bool]:
        return sa.and_(table.c.project == self._project, table.c.kind == kind)

    def _kept(
        self,
        query: sa.Select[*tuple[Any, ...]],
        form: type[RecordT],
        where: Mapping[str, Any] | None = None,
    ) -> list[Kept[RecordT]]:
        rows = self._database.read(lambda connection: connection.execute(query, where).all())
        return [Kept(records.load(row.body, form), row.revision, row.sequence) for row in rows]

    def get(self, kind: str, record_id: str, form: type[RecordT]) -> Kept[RecordT] | None:
        """Return the newest revision of a record, or ``None``."""
        where = {"of_project": self._project, "of_kind": kind, "of_id": record_id}
        return next(iter(self._kept(statements.get, form, where)), None)

    def find(self, kind: str, prefix: str, form: type[RecordT]) -> list[Kept[RecordT]]:
        """Return at most ten records whose id begins with ``prefix``."""
        # Not LIKE: whether it tells cases apart differs between databases.
        begins = sa.func.substr(_heads.c.id, 1, len(prefix)) == prefix
        query = sa.select(*_KEPT).where(self._of(_heads, kind), begins)
        return self._kept(query.order_by(_heads.c.id).limit(10), form)

    def page(
        self,
        kind: str,
        form: type[RecordT],
        *,
        limit: int = 50,
        before: int | None = None,
        status: Sequence[str] | None = None,
        pipeline: str | None = None,
    ) -> list[Kept[RecordT]]:
        """Return records newest first; ``before`` is the sequence of the last one seen.

        Sequences become visible in their order: no record appears later in a page that was read.
        """
        here = self._of(_heads, kind)
        if before is not None:
            here &= _heads.c.sequence < before
        if pipeline is not None:
            here &= _heads.c.pipeline == pipeline
        newest = _heads.c.sequence.desc()
        if status is None:
            return self._kept(sa.select(*_KEPT).where(here).order_by(newest).limit(limit), form)
        # Each status has its own end of the index; together they would have to be sorted.
        ends = [
            sa.select(_heads.c.sequence)
            .where(here, _heads.c.status == one)
            .order_by(newest)
            .limit(limit)
            .subquery()
            for one in dict.fromkeys(status)
        ]
        if not ends:
            return []
        either = sa.union_all(*(sa.select(end.c.sequence) for end in ends))
        query = sa.select(*_KEPT).where(self._of(_heads, kind), _heads.c.sequence.in_(either))
        return self._kept(query.order_by(newest).limit(limit), form)

    def best(
        self,
        kind: str,
        form: type[RecordT],
        metric: str,
        *,
        lowest: bool = False,
        limit: int = 50,
        status: Sequence[str] | None = None,
        pipeline: str | None = None,
    ) -> list[Kept[RecordT]]:
        """Return the records with the highest (or lowest) values of a metric, best first.

        Among equals the newest comes first. Records without the metric, or with a value that is
        not a finite number, are left out.
        """
        value = _metrics.c.value.asc() if lowest else _metrics.c.value.desc()
        same = sa.and_(
            _heads.c.project == _metrics.c.project,
            _heads.c.kind == _metrics.c.kind,
            _heads.c.id == _metrics.c.id,
        )
        query = (
            sa.select(*_KEPT)
            .select_from(_metrics.join(_heads, same))
            .where(self._of(_metrics, kind), _metrics.c.name == metric)
        )
        if status is not None:
            query = query.where(_heads.c.status.in_(status))
        if pipeline is not None:
            query = query.where(_heads.c.pipeline == pipeline)
        return self._kept(query.order_by(value, _metrics.c.sequence.desc()).limit(limit), form)

    def swap(
        self,
        kind: str,
        record_id: str,
        record: msgspec.Struct,
        *,
        expected: int,
        key: str,
        status: str = "",
        pipeline: str | None = None,
        metrics: Mapping[str, float | None] | None = None,
    ) -> int:
        """Write the next revision of a record if the newest one is still ``expected``.

        ``expected`` is 0 for a new record. A key that was used before changes nothing. What
        ``page`` and ``best`` ask for is ``pipeline`` and ``metrics``, the record's own fields of
        these names unless given. Returns the revision that now stands.

        Raises
        ------
        Conflict
            When somebody else wrote a revision first.
        StoreTooNew
            When a newer nbmlops has migrated the store meanwhile.
        """
        values = {
            "revision": expected + 1,
            "status": status,
            "pipeline": getattr(record, "pipeline", "") if pipeline is None else pipeline,
            "body": records.dump(record),
        }
        numbers = _numbers(getattr(record, "metrics", {}) if metrics is None else metrics)

        place = {"project": self._project, "kind": kind, "id": record_id}
        here = {"of_project": self._project, "of_kind": kind, "of_id": record_id}

        def work(connection: sa.Connection) -> int:
            row = connection.execute(statements.stands, {**here, "of_key": key}).one()
            upgrade.refuse_newer(row.version_num, self.shown)
            if row.again is not None:
                return int(row.again)
            if (row.current or 0) != expected:
                raise Conflict(
                    f"{kind} {record_id} was changed by somebody else", "Look again, then retry."
                )
            revision = {"revision": expected + 1, "key": key, "body": values["body"]}
            connection.execute(statements.add_revision, {**place, **revision})
            if row.current is None:
                sequence = self._next_sequence(connection)
                connection.execute(statements.add_head, {**place, "sequence": sequence, **values})
            else:
                sequence = connection.execute(statements.move_head, {**here, **values}).scalar_one()
                connection.execute(statements.drop_metrics, here)
            if numbers:
                rows = [{**place, "sequence": sequence, **number} for number in numbers]
                connection.execute(statements.add_metrics, rows)
            return expected + 1

        return self._database.write(work)

    def _next_sequence(self, connection: sa.Connection) -> int:
        """Take the next place in the project's order; held until this transaction ends."""
        taken = connection.execute(
            statements.next_sequence, {"of_project": self._project}
        ).scalar_one_or_none()
        if taken is None:
            connection.execute(statements.add_sequence, {"project": self._project, "last": 1})
        return int(taken or 1)

    def lease(self, name: str, holder: str, now_s: float, length_s: float) -> bool:
        """Take or renew a lease; return whether ``holder`` has it now."""
        until_s = now_s + length_s
        asked = {"of_project": self._project, "of_name": name, "of_holder": holder}
        times = {"now_s": now_s, "soon_s": now_s + 10 * length_s, "until_s": until_s}
        fresh = {"project": self._project, "name": name, "holder": holder, "until_s": until_s}

        def work(connection: sa.Connection) -> bool:
            upgrade.refuse_newer(connection.scalar(statements.migration), self.shown)
            if connection.execute(statements.take_lease, {**asked, **times}).rowcount:
                return True
            if connection.scalar(statements.lease, asked) is not None:
                return False
            connection.execute(statements.add_lease, fresh)
            return True

        return self._database.write(work)

    def release(self, name: str, holder: str) -> None:
        """Give a lease back."""
        asked = {"of_project": self._project, "of_name": name, "of_holder": holder}
        self._database.write(lambda connection: connection.execute(statements.release_lease, asked))

    def faults(self) -> list[str]:
        """Return what is wrong with the database and the records in it; an empty list is good."""
        counts = (
            sa.select(
                _revisions.c.kind,
                _revisions.c.id,
                sa.func.count().label("count"),
                sa.func.max(_revisions.c.revision).label("newest"),
            )
            .where(_revisions.c.project == self._project)
            .group_by(_revisions.c.kind, _revisions.c.id)
            .subquery()
        )
        same = sa.and_(_heads.c.kind == counts.c.kind, _heads.c.id == counts.c.id)
        whole = sa.and_(counts.c.count == _heads.c.revision, counts.c.newest == _heads.c.revision)
        query = (
            sa.select(_heads.c.kind, _heads.c.id)
            .select_from(_heads.outerjoin(counts, same))
            .where(_heads.c.project == self._project, sa.or_(counts.c.count.is_(None), ~whole))
        )
        newest = sa.and_(
            _revisions.c.project == _heads.c.project,
            _revisions.c.kind == _heads.c.kind,
            _revisions.c.id == _heads.c.id,
            _revisions.c.revision == _heads.c.revision,
        )
        changed = (
            sa.select(_heads.c.kind, _heads.c.id)
            .select_from(_heads.join(_revisions, newest))
            .where(_heads.c.project == self._project, _heads.c.body != _revisions.c.body)
        )
        rows = self._database.read(lambda connection: connection.execute(query).all())
        others = self._database.read(lambda connection: connection.execute(changed).all())
        return [
            *self._database.faults(),
            *(f"revisions of {row.kind} {row.id} are missing from {self.shown}" for row in rows),
            *(f"{row.kind} {row.id} is not what was written last" for row in others),
        ]


def _numbers(metrics: Mapping[str, float | None]) -> list[dict[str, Any]]:
    """Return the rows of metrics that can be asked for: finite, under a name an index can hold."""
    return [
        {"name": name, "value": float(value)}
        for name, value in metrics.items()
        if value is not None
        and math.isfinite(value)
        and len(name) <= _LONGEST_NAME
        and "\0" not in name
    ]
