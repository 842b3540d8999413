"""Sharing: what goes to a git remote and comes from it."""

from __future__ import annotations

from nbmlops.records.catalog import Decision
from nbmlops.records.record import Record


class Renumbered(Record, frozen=True, kw_only=True):
    """A version whose number another one had on the remote: ``was`` is the number it had here.

    ``already`` is whether the remote had this very version, under the number ``version``.
    """

    model: str
    was: int
    version: int
    digest: str
    already: bool = False


class MovedDeployment(Record, frozen=True, kw_only=True):
    """The version of a deployment after a renumbering, and the one that it went back from."""

    version: int
    rolled_back_from: int | None = None


class Reappending(Record, frozen=True, kw_only=True):
    """What the store is to follow once the ledger's head ``before`` has become ``after``.

    Written before the ledger moves: whoever is killed in between leaves the word. ``names`` are
    those of versions that stand for another one than before, or for none; ``deployments`` are told
    by their ids.
    """

    before: str
    after: str
    names: tuple[str, ...] = ()
    deployments: dict[str, MovedDeployment] = {}
    done: bool = False


class SyncedSnapshots(Record, frozen=True, kw_only=True):
    """The snapshots that went and came; ``missing`` are neither here nor on the remote."""

    pushed: tuple[str, ...] = ()
    fetched: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


class SyncReport(Record, frozen=True, kw_only=True):
    """The document of ``sync``: decisions of ours that are there now, and the other way round.

    ``left_out`` are decisions of ours that stood on the remote already, or that somebody there had
    overtaken. ``head`` is the newest commit of the ledger, here and there.
    """

    remote: str
    url: str
    pushed: tuple[Decision, ...] = ()
    fetched: tuple[Decision, ...] = ()
    renumbered: tuple[Renumbered, ...] = ()
    left_out: tuple[Decision, ...] = ()
    snapshots: SyncedSnapshots = SyncedSnapshots()
    head: str | None = None
