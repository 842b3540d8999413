"""Documents that no verb returns: they are put together for the doors."""

from __future__ import annotations

from typing import Literal

from nbmlops import records
from nbmlops.records import (
    ModelVersion,
    Parameter,
    Trace,
)


class InitAnswer(records.Record, frozen=True, kw_only=True):
    """The document of ``init``."""

    project: str
    path: str
    commit: str | None
    pipelines: tuple[str, ...]
    created: tuple[str, ...]


class CiAnswer(records.Record, frozen=True, kw_only=True):
    """The document of ``ci``: ``path`` is below the repository's top.

    ``written`` is false where the file was there already, just so.
    """

    kind: Literal["github", "gitlab"]
    path: str
    written: bool
    pipelines: tuple[str, ...]


class AliasAnswer(records.Record, frozen=True, kw_only=True):
    """The document of ``alias``: the version with all aliases that it has now.

    ``moved_from`` is the version that the alias named before. ``changed`` is false where everything
    was just so.
    """

    version: ModelVersion
    alias: str
    removed: bool
    moved_from: int | None
    changed: bool


class NotebookAnswer(records.Record, frozen=True, kw_only=True):
    """What a run of the notebook that one stands in would run."""

    pipeline: str
    step: str | None
    parameters: tuple[Parameter, ...]


class ProjectAnswer(records.Record, frozen=True, kw_only=True):
    """The document of ``project``."""

    project: str
    path: str
    pipelines: tuple[str, ...]
    notebook: NotebookAnswer | None = None


class SourceAnswer(Trace, frozen=True, kw_only=True):
    """The document of ``trace --source``: all of a trace, of which people are shown the cell."""
