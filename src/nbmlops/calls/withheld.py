"""Columns that ``[calls]`` keeps out of the log, held against the columns that models have."""

from __future__ import annotations

import contextlib

from nbmlops import models
from nbmlops.errors import ArtifactCorrupt, ArtifactMissing, nearest
from nbmlops.records import ModelVersion
from nbmlops.workspace import Workspace


def warn_of_unknown(workspace: Workspace, version: ModelVersion) -> None:
    """Warn of names in ``never`` and ``hashed`` that no model has: they keep nothing out.

    The version's own columns count, and those of the newest version of each model: the settings
    are one for all endpoints.
    """
    settings = workspace.settings.calls
    known = _columns(workspace, version)
    if known is None or {*settings.never, *settings.hashed} <= known:
        return
    newest: dict[str, ModelVersion] = {}
    for other in models.versions(workspace):
        if other.model not in newest or other.version > newest[other.model].version:
            newest[other.model] = other
    for other in newest.values():
        known |= _columns(workspace, other) or set()
    for key, names in (("never", settings.never), ("hashed", settings.hashed)):
        for name in names:
            if name not in known:
                workspace.warn(
                    f"`{key}` of [calls] names `{name}`, which no model has as a column, and keeps"
                    f" nothing out of the log by it. {nearest(name, known)}"
                )


def _columns(workspace: Workspace, version: ModelVersion) -> set[str] | None:
    """Return the columns that a version takes; ``None`` where its schema is not in reach."""
    with contextlib.suppress(ArtifactMissing, ArtifactCorrupt):
        return {column.name for column in models.schema(workspace, version).columns}
    return None
