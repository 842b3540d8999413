"""Records by project, with their revisions, leases and sequences; takes over what stood before.

Stores of the first nbmlops had the tables ``revisions``, ``heads``, ``leases`` and ``about`` in a
SQLite file, without projects. Their rows belong to the project ``""``: the file is the project's.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables, and take over the rows of a store from before the migrations."""
    _create()
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        return
    if sa.inspect(connection).has_table("about"):
        _take_over()
    else:
        op.create_table(
            "about",
            sa.Column("name", sa.String(32), primary_key=True),
            sa.Column("value", sa.Integer, nullable=False),
        )
    # Clients from before the migrations refuse a store whose schema is above 1.
    op.execute("DELETE FROM about")
    op.execute("INSERT INTO about VALUES ('schema', 2)")


def _create() -> None:
    def word(name: str) -> sa.Column[str]:
        return sa.Column(name, sa.String, nullable=False)

    op.create_table(
        "nbmlops_revisions",
        *(word("project"), word("kind"), word("id")),
        sa.Column("revision", sa.Integer, nullable=False),
        word("key"),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("project", "kind", "id", "revision", name="nbmlops_revisions_pk"),
        sa.UniqueConstraint("project", "key", name="nbmlops_revisions_by_project_key"),
    )
    op.create_table(
        "nbmlops_heads",
        *(word("project"), word("kind"), word("id")),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        word("status"),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("project", "kind", "id", name="nbmlops_heads_pk"),
    )
    columns = ["project", "kind", "sequence"]
    op.create_index("nbmlops_heads_by_sequence", "nbmlops_heads", columns, unique=True)
    columns = ["project", "kind", "status", "sequence"]
    op.create_index("nbmlops_heads_by_status", "nbmlops_heads", columns)
    op.create_table(
        "nbmlops_leases",
        *(word("project"), word("name"), word("holder")),
        sa.Column("until_s", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("project", "name", name="nbmlops_leases_pk"),
    )
    op.create_table(
        "nbmlops_sequences",
        word("project"),
        sa.Column("last", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("project", name="nbmlops_sequences_pk"),
    )


def _take_over() -> None:
    op.execute(
        "INSERT INTO nbmlops_revisions (project, kind, id, revision, key, body)"
        " SELECT '', kind, id, revision, key, body FROM revisions"
    )
    op.execute(
        "INSERT INTO nbmlops_heads (project, kind, id, sequence, revision, status, body)"
        " SELECT '', kind, id, sequence, revision, status, body FROM heads"
    )
    op.execute(
        "INSERT INTO nbmlops_leases (project, name, holder, until_s)"
        " SELECT '', name, holder, until_s FROM leases"
    )
    op.execute(
        "INSERT INTO nbmlops_sequences (project, last) SELECT '', max(sequence) FROM heads"
        " WHERE EXISTS (SELECT 1 FROM heads)"
    )
    for table in ("revisions", "heads", "leases"):
        op.drop_table(table)
