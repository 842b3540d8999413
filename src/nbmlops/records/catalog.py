"""The catalogue: one model with all that was decided on it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from nbmlops.records.record import Record
from nbmlops.records.runs import ArtifactRecord, DataRecord


class CatalogVersion(Record, frozen=True, kw_only=True):
    """A version in the catalogue; ``endpoints`` are those whose traffic it has."""

    model: str
    version: int
    digest: str
    run_id: str
    commit: str
    created_at: datetime
    stage: str | None = None
    aliases: tuple[str, ...] = ()
    metrics: dict[str, float | None] = {}
    author: str
    endpoints: tuple[str, ...] = ()


class Placement(Record, frozen=True, kw_only=True):
    """The version that has an endpoint's traffic: since when, and by whose decision.

    ``status`` and ``ready`` are what is seen now; of an earlier time nobody knows them.
    """

    endpoint: str
    version: int
    deployment_id: str
    since: datetime
    author: str
    sequence: int
    reason: Literal["deploy", "rollback"] = "deploy"
    url: str | None = None
    status: str | None = None
    ready: int | None = None


class Decision(Record, frozen=True, kw_only=True):
    """An entry of the ledger about a model, with a sentence of what was decided.

    ``taken-back`` is a deployment that was decided and did not come into effect: what was there
    before serves on.
    """

    sequence: int
    kind: Literal["version", "deployed", "rolled-back", "undeployed", "taken-back", "alias"]
    at: datetime
    author: str
    what: str
    version: int
    endpoint: str | None = None
    deployment_id: str | None = None
    alias: str | None = None
    removed: bool = False


class Lineage(Record, frozen=True, kw_only=True):
    """Where a version comes from, and what it is made of.

    ``columns`` maps the model's inputs to their kinds. ``missing`` names what should be kept and
    is not.
    """

    version: int
    digest: str
    run_id: str
    run_digest: str
    commit: str
    snapshot: str
    notebook: str
    notebook_blob: str
    cell: int | None
    cell_id: str | None
    cell_is: Literal["tagged", "log_model"]
    parameters: dict[str, Any]
    data: tuple[DataRecord, ...]
    environment_id: str
    format: str
    files: dict[str, ArtifactRecord]
    columns: dict[str, str]
    output: str | None
    missing: tuple[str, ...] = ()


class ModelReport(Record, frozen=True, kw_only=True):
    """A model as it stands, or stood at ``at``; the document of ``model``.

    ``version`` is the one that was asked for, whose ``lineage`` is told. ``history`` is in the
    order of the ledger, oldest first: the times are those of the clocks of whoever decided.
    """

    model: str
    version: int
    at: datetime | None
    versions: tuple[CatalogVersion, ...]
    aliases: dict[str, int]
    deployed: tuple[Placement, ...]
    lineage: Lineage
    history: tuple[Decision, ...]
