"""Runs by pipeline and by metric: columns that answer fast, filled from the records that stand."""

from __future__ import annotations

import json
import math
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_ROWS = 500


def upgrade() -> None:
    """Add what is asked for, and fill it from the records."""
    op.add_column(
        "nbmlops_heads", sa.Column("pipeline", sa.String, nullable=False, server_default="")
    )
    columns = ["project", "kind", "pipeline", "sequence"]
    op.create_index("nbmlops_heads_by_pipeline", "nbmlops_heads", columns)
    metrics = op.create_table(
        "nbmlops_metrics",
        *(sa.Column(name, sa.String, nullable=False) for name in ("project", "kind", "id", "name")),
        sa.Column("value", sa.Double, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("project", "kind", "id", "name", name="nbmlops_metrics_pk"),
    )
    columns = ["project", "kind", "name", "value", "sequence"]
    op.create_index("nbmlops_metrics_by_value", "nbmlops_metrics", columns)
    _fill(op.get_bind(), metrics)


def _fill(connection: sa.Connection, metrics: sa.Table) -> None:
    heads = sa.table(
        "nbmlops_heads",
        *(sa.column(name) for name in ("project", "kind", "id", "sequence", "pipeline")),
        sa.column("body", sa.LargeBinary),
    )
    keys = connection.execute(
        sa.select(heads.c.project, heads.c.kind, heads.c.id, heads.c.sequence)
    ).all()
    for start in range(0, len(keys), _ROWS):
        rows: list[dict[str, Any]] = []
        for project, kind, record_id, sequence in keys[start : start + _ROWS]:
            here = sa.and_(
                heads.c.project == project, heads.c.kind == kind, heads.c.id == record_id
            )
            record = _decoded(connection.scalar(sa.select(heads.c.body).where(here)))
            if isinstance(pipeline := record.get("pipeline"), str):
                connection.execute(heads.update().where(here).values(pipeline=pipeline))
            place = {"project": project, "kind": kind, "id": record_id, "sequence": sequence}
            found = record.get("metrics")
            rows.extend(
                {**place, "name": name, "value": float(value)}
                for name, value in (found.items() if isinstance(found, dict) else ())
                if _can_be_asked_for(name, value)
            )
        if rows:
            connection.execute(metrics.insert(), rows)


def _decoded(body: bytes | None) -> dict[str, Any]:
    try:
        record = json.loads(body or b"{}")
    except ValueError:
        return {}  # a damaged record does not keep the others from being migrated
    return record if isinstance(record, dict) else {}


def _can_be_asked_for(name: str, value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and len(name) <= 200 and "\0" not in name
