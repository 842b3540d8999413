"""Decisions: what the entries of the ledger say, by their kind."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from nbmlops.records.jobs import Cause
from nbmlops.records.record import Record


class DeploymentDecision(Record, frozen=True, kw_only=True):
    """What an entry ``deployed`` or ``undeployed`` says.

    ``replaces`` is the deployment that had the traffic before. A rollback is a ``deployed`` entry
    with that ``reason``; ``rolled_back_from`` is the version that was left. An ``undeployed`` entry
    with a ``cause`` takes back a decision that did not come into effect: what was there before
    serves on. ``image`` is the digest of the container image that the version serves in: with the
    version's own digest, all that answers.
    """

    endpoint: str
    deployment_id: str
    model: str
    version: int
    version_digest: str
    commit: str
    launcher: str
    replaces: str | None = None
    url: str | None = None
    created_at: datetime | None = None
    reason: Literal["deploy", "rollback"] = "deploy"
    rolled_back_from: int | None = None
    cause: Cause | None = None
    image: str | None = None


class AliasDecision(Record, frozen=True, kw_only=True):
    """What an entry ``alias`` says: from here on the alias names this version, or none.

    ``moved_from`` is the version that it named before.
    """

    model: str
    version: int
    version_digest: str
    alias: str
    removed: bool = False
    moved_from: int | None = None


class LedgerHead(Record, frozen=True, kw_only=True):
    """The newest commit of the ledger that this store has seen: whoever rewrites it is found."""

    commit: str
