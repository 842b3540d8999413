"""Cleaning: what was freed, and why."""

from __future__ import annotations

from typing import Literal

from nbmlops.records.record import Record

FreedKind = Literal[
    "run", "artifact", "partial", "job", "snapshot", "environment", "calls", "socket"
]


class Freed(Record, frozen=True, kw_only=True):
    """One thing that went, or would go.

    A ``run`` loses what it left; its record stays, and its files are told one by one. ``partial``
    is what a killed write has left. The bytes of a ``snapshot`` are git's to free.
    """

    kind: FreedKind
    name: str
    bytes: int = 0
    why: str


class GcReport(Record, frozen=True, kw_only=True):
    """The document of ``gc``; ``kept`` counts what stays, by the reason."""

    dry_run: bool
    keep: str
    freed: tuple[Freed, ...] = ()
    bytes: int = 0
    kept: dict[str, int] = {}
