"""Renumbering: our decisions come after those of the remote, some under another number.

What the store is to follow (see ``following``) is written into it before the ledger moves.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Generator, Iterable
from typing import NamedTuple

from nbmlops import (
    decisions,
    deployments,
    endpoints,
    following,
    layout,
    ledger,
    merging,
    models,
    rebuilding,
)
from nbmlops.errors import Conflict, GitFailed, LedgerDamaged
from nbmlops.merging import Merged
from nbmlops.records import (
    DeploymentRecord,
    LedgerEntry,
    MovedDeployment,
    Reappending,
    Renumbered,
)
from nbmlops.workspace import Workspace

_ALL = 100_000
_TRIES = 100


class Joined(NamedTuple):
    """What came with the remote's ledger, and what became of ours."""

    fetched: tuple[LedgerEntry, ...]
    left_out: tuple[LedgerEntry, ...] = ()
    renumbered: tuple[Renumbered, ...] = ()


def join(workspace: Workspace, theirs: str, remote: str) -> Joined:
    """Let the ledger go on from the head of the remote's, with what only we have after it.

    Raises
    ------
    LedgerDamaged
        When our own has entries that cannot be read: they would be lost.
    Conflict
        When a version that was pushed to another remote would get another number.
    """
    ours = ledger.head(workspace.repo)
    planned = _planned(workspace, ours, theirs) if ours else None
    with _undisturbed(workspace, planned.renumbered if planned else ()):
        joined = _joined(workspace, theirs, remote)
        following.follow(workspace)
    if workspace.home.unsettled.exists():
        following.finish(workspace)
    return joined


def _joined(workspace: Workspace, theirs: str, remote: str) -> Joined:
    repo = workspace.repo
    for _ in range(_TRIES):
        ours = ledger.head(repo)
        there = list(ledger.entries_of(repo, theirs))
        if ours is None or ledger.descends(repo, theirs, ours):
            known = _last(ledger.entries_of(repo, ours)) if ours else 0
            if _move(workspace, theirs, ours):
                return Joined(tuple(entry for entry in there if entry.sequence > known))
            continue
        if faults := ledger.faults(repo):
            raise LedgerDamaged(
                f"the ledger here is damaged: {faults[0].message}", "See: `nbmlops doctor`."
            )
        planned = _planned(workspace, ours, theirs)
        for entry in planned.changed:
            raise LedgerDamaged(
                f"entry {entry.sequence} of the ledger of `{remote}` says something else than the"
                " same decision here: somebody has rewritten one of the two",
                f"Compare them: `git log -p {theirs[:12]}` and `git log -p {layout.LEDGER_REF}`.",
            )
        _refuse_two_givers(workspace, theirs, remote, planned.renumbered)
        after = theirs
        for entry in planned.entries:
            after = ledger.appended(repo, after, entry)
        _note(workspace, ours, after, planned)
        if _move(workspace, after, ours):
            base = ledger.common(repo, ours, theirs)
            known = _last(ledger.entries_of(repo, base)) if base else 0
            return Joined(
                tuple(entry for entry in there if entry.sequence > known),
                planned.left_out,
                planned.renumbered,
            )
    raise Conflict("others are writing to the ledger without a pause", "Try again in a moment.")


def _move(workspace: Workspace, commit: str, before: str | None) -> bool:
    """Move the ledger; ``False`` when somebody appends just now, or has."""
    try:
        return ledger.move(workspace.repo, commit, before)
    except GitFailed as error:
        stale = any(rebuilding.stale_locks(workspace))
        if ".lock" not in error.message or stale:
            raise
        time.sleep(random.uniform(0.01, 0.1))  # noqa: S311
        return False


def _planned(workspace: Workspace, ours: str, theirs: str) -> Merged:
    repo = workspace.repo
    base = ledger.common(repo, ours, theirs)
    known = _last(ledger.entries_of(repo, base)) if base else 0
    there = list(ledger.entries_of(repo, theirs))
    own = [entry for entry in ledger.entries_of(repo, ours) if entry.sequence > known]
    return merging.merged(there, own, _last(there))


def _refuse_two_givers(
    workspace: Workspace, theirs: str, remote: str, renumbered: tuple[Renumbered, ...]
) -> None:
    """Refuse to take numbers from a remote that others have been given by another one.

    Two remotes whose ledgers have parted would undo each other's numbers at each ``sync``.
    """
    repo = workspace.repo
    for other, seen in (ledger.remote_heads(repo) or {}).items():
        if ledger.descends(repo, theirs, seen):
            continue
        settled = {
            (version.model, version.version, version.digest)
            for _, version in decisions.versions(ledger.entries_of(repo, seen))
        }
        for item in renumbered:
            if (item.model, item.was, item.digest) in settled:
                ref = ledger.remote_ref(other)
                raise Conflict(
                    f"{item.model}:{item.was} was pushed to `{other}` under this number, and"
                    f" `{remote}` has another version under it: numbers come from one remote",
                    f"Share by one of the two. To take the numbers of `{remote}` from now on:"
                    f" `git update-ref -d {ref}`, then `nbmlops sync --remote {remote}`. To have"
                    f" `{remote}` take those of `{other}`, if nobody else shares by it:"
                    f" `git push --force {remote} {layout.LEDGER_REF}`.",
                    remote=remote,
                    numbers_of=other,
                )


def _last(entries: Iterable[LedgerEntry]) -> int:
    return max((entry.sequence for entry in entries), default=0)


@contextlib.contextmanager
def _undisturbed(
    workspace: Workspace, renumbered: tuple[Renumbered, ...]
) -> Generator[None, None, None]:
    """Hold off whoever gives a version its number, or is about to name one that gets another."""
    while True:
        names = _served(workspace, renumbered)
        with contextlib.ExitStack() as held:
            for name in sorted(names):
                held.enter_context(workspace.exclusively(endpoints.lock(name)))
            held.enter_context(workspace.exclusively(models.LOCK))
            if _served(workspace, renumbered) <= names:  # else one was made while we waited
                yield
                return


def _served(workspace: Workspace, renumbered: tuple[Renumbered, ...]) -> set[str]:
    """Return the names of the endpoints that may name a version which gets another number."""
    if not renumbered:
        return set()
    names = {endpoint.endpoint for endpoint in endpoints.every(workspace)}
    return names | {item.model for item in renumbered}


# --- what the store is to follow ------------------------------------------------------------------


def _note(workspace: Workspace, before: str, after: str, planned: Merged) -> None:
    """Write down what the store is to follow once the ledger has moved."""
    made = Reappending(
        before=before,
        after=after,
        names=tuple(
            dict.fromkeys(
                f"{item.model}:{number}"
                for item in planned.renumbered
                for number in (item.was, item.version)
            )
        ),
        deployments=dict(_moved(workspace, planned)),
    )
    following.write(workspace, made)


def _moved(
    workspace: Workspace, planned: Merged
) -> Generator[tuple[str, MovedDeployment], None, None]:
    decided = {
        item.decision.deployment_id: item.decision for item in decisions.placed(planned.entries)
    }
    numbers = {(item.model, item.was): item.version for item in planned.renumbered}
    for kept in workspace.store.page(deployments.KIND, DeploymentRecord, limit=_ALL):
        record = kept.record
        version, left = record.version, record.rolled_back_from
        if decision := decided.get(record.deployment_id):
            version, left = decision.version, decision.rolled_back_from
        elif not _is_decided(workspace, record):
            version = numbers.get((record.model, version), version)
            if left is not None:
                of = deployments.pointed(workspace, record.endpoint)
                left = numbers.get((of.model if of else record.model, left), left)
        if (version, left) != (record.version, record.rolled_back_from):
            yield record.deployment_id, MovedDeployment(version=version, rolled_back_from=left)


def _is_decided(workspace: Workspace, record: DeploymentRecord) -> bool:
    """Return whether a deployment is in the ledger, or was made elsewhere."""
    if not workspace.home.job(record.deployment_id).root.exists():
        return True
    return any(
        item.decision.deployment_id == record.deployment_id
        for item in decisions.placed(ledger.entries(workspace.repo))
    )
