"""Commands on what a team shares, and on what may go."""

from __future__ import annotations

from nbmlops.commands.context import Context
from nbmlops.records import GcReport, SyncReport


def sync(context: Context, *, remote: str = "origin") -> SyncReport:
    """Share versions, aliases and deployments with a git remote: pushes and fetches the ledger.

    With it go the snapshots that it names, so that a version can be traced to its cell in any
    clone. Nothing is overwritten: what was decided here comes after what is there already. A
    version whose number somebody else's has there gets the next free one; what names it follows.
    Before a snapshot leaves, the rules of secrets look at it once more. Exit code 1 means that one
    holds a secret, or that the remote's ledger is damaged; 5 that the remote does not answer.

    Parameters
    ----------
    remote
        The git remote's name.
    """
    from nbmlops import remotes

    return remotes.sync(context.workspace(), remote)


def gc(
    context: Context, *, keep: str = "90d", dry_run: bool = False, shared: bool = False
) -> GcReport:
    """Free what no decision names: files of old runs, their jobs, snapshots, environments.

    What the ledger names stays, whole: every version with the run that made it, its snapshot and
    its data. So do unfinished runs and what is younger than `--keep`. Records of runs stay and say
    that their files were freed. Calls go only as [calls] keep says.

    Parameters
    ----------
    keep
        How long what nobody has named stays after its end: `90d`, `12h`; `0d` for not at all.
    dry_run
        Change nothing, and list the same.
    shared
        Also free artifacts in the place that [artifacts] url names. Only where no other clone
        keeps any there, or all of them have one store: theirs cannot be seen from here.
    """
    from nbmlops import cleaning

    return cleaning.clean(context.workspace(), keep=keep, dry_run=dry_run, shared=shared)
