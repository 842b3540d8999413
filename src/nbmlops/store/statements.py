"""The statements of every mutation, built once: building them costs more than running them.

Parameters that say where (``of_project``, ``of_kind``, ``of_id``) have names of their own, apart
from the columns that are written.
"""

from __future__ import annotations

import sqlalchemy as sa

from nbmlops.store import tables

_heads, _revisions, _metrics = tables.heads, tables.revisions, tables.metrics
_leases, _sequences = tables.leases, tables.sequences
_project, _kind, _id = sa.bindparam("of_project"), sa.bindparam("of_kind"), sa.bindparam("of_id")
_head = sa.and_(_heads.c.project == _project, _heads.c.kind == _kind, _heads.c.id == _id)

get = sa.select(_heads.c.body, _heads.c.revision, _heads.c.sequence).where(_head)

# What a swap must know, in one question: the migration, and the revisions that the key made and
# that stands.
stands = sa.select(
    tables.version.c.version_num,
    sa.select(_revisions.c.revision)
    .where(_revisions.c.project == _project, _revisions.c.key == sa.bindparam("of_key"))
    .scalar_subquery()
    .label("again"),
    sa.select(_heads.c.revision).where(_head).scalar_subquery().label("current"),
)
migration = sa.select(tables.version.c.version_num)

add_revision = _revisions.insert()
add_head = _heads.insert()
add_metrics = _metrics.insert()
add_sequence = _sequences.insert()
add_lease = _leases.insert()

# The row stays locked until the transaction ends.
next_sequence = (
    _sequences.update()
    .where(_sequences.c.project == _project)
    .values(last=_sequences.c.last + 1)
    .returning(_sequences.c.last)
)
move_head = (
    _heads.update()
    .where(_head)
    .values({name: sa.bindparam(name) for name in ("revision", "status", "pipeline", "body")})
    .returning(_heads.c.sequence)
)
drop_metrics = _metrics.delete().where(
    _metrics.c.project == _project, _metrics.c.kind == _kind, _metrics.c.id == _id
)

_lease = sa.and_(_leases.c.project == _project, _leases.c.name == sa.bindparam("of_name"))
_now, _soon = sa.bindparam("now_s"), sa.bindparam("soon_s")
lease = sa.select(_leases.c.name).where(_lease)
# A lease that reaches further ahead than any lease is long comes from a clock that was set back.
take_lease = (
    _leases.update()
    .where(
        _lease,
        sa.or_(
            _leases.c.holder == sa.bindparam("of_holder"),
            _leases.c.until_s < _now,
            _leases.c.until_s > _soon,
        ),
    )
    .values(holder=sa.bindparam("of_holder"), until_s=sa.bindparam("until_s"))
)
release_lease = _leases.delete().where(_lease, _leases.c.holder == sa.bindparam("of_holder"))
