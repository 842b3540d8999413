"""The store's tables, as the newest migration leaves them, and the names of all migrations.

Every row carries its ``project``, so that several projects can share one database. What people ask
for (``status``, ``pipeline``, metrics) stands in indexed columns beside the record, written in the
same transaction; the record itself is the truth.
"""

from __future__ import annotations

import sqlalchemy as sa

# In order; the last one is what this code writes. A store that names another one is newer.
MIGRATIONS = ("0001", "0002")
HEAD = MIGRATIONS[-1]

VERSION_TABLE = "nbmlops_version"
# The table by which clients from before the migrations tell that a store is too new for them.
OLD_VERSION_TABLE = "about"

metadata = sa.MetaData(
    naming_convention={
        "pk": "%(table_name)s_pk",
        "uq": "%(table_name)s_by_%(column_0_N_name)s",
        "ix": "%(table_name)s_by_%(column_0_N_name)s",
    }
)

revisions = sa.Table(
    "nbmlops_revisions",
    metadata,
    sa.Column("project", sa.String, primary_key=True),
    sa.Column("kind", sa.String, primary_key=True),
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("revision", sa.Integer, primary_key=True),
    sa.Column("key", sa.String, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("project", "key"),
)
heads = sa.Table(
    "nbmlops_heads",
    metadata,
    sa.Column("project", sa.String, primary_key=True),
    sa.Column("kind", sa.String, primary_key=True),
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("status", sa.String, nullable=False),
    sa.Column("pipeline", sa.String, nullable=False, server_default=""),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Index("nbmlops_heads_by_sequence", "project", "kind", "sequence", unique=True),
    sa.Index("nbmlops_heads_by_status", "project", "kind", "status", "sequence"),
    sa.Index("nbmlops_heads_by_pipeline", "project", "kind", "pipeline", "sequence"),
)
metrics = sa.Table(
    "nbmlops_metrics",
    metadata,
    sa.Column("project", sa.String, primary_key=True),
    sa.Column("kind", sa.String, primary_key=True),
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("value", sa.Double, nullable=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Index("nbmlops_metrics_by_value", "project", "kind", "name", "value", "sequence"),
)
leases = sa.Table(
    "nbmlops_leases",
    metadata,
    sa.Column("project", sa.String, primary_key=True),
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("holder", sa.String, nullable=False),
    sa.Column("until_s", sa.Double, nullable=False),
)
# The last sequence of each project. The transaction that takes the next one holds this row until
# it has committed, so sequences become visible in their order and without gaps.
sequences = sa.Table(
    "nbmlops_sequences",
    metadata,
    sa.Column("project", sa.String, primary_key=True),
    sa.Column("last", sa.BigInteger, nullable=False),
)

version = sa.table(VERSION_TABLE, sa.column("version_num"))
