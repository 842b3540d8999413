"""Renumbering: our decisions come after those of the remote, and the store follows the ledger.

What the store is to follow is written into it before the ledger moves; :func:`settle` does it, as
often as it is asked to, so whoever is killed in between is completed by the next.
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
    ledger,
    merging,
    models,
    rebuilding,
    records,
    runs,
)
from nbmlops.errors import Conflict, DeploymentFailed, GitFailed, LedgerDamaged
from nbmlops.merging import Merged
from nbmlops.records import (
    DeploymentRecord,
    DeploymentStatus,
    LedgerEntry,
    ModelVersion,
    MovedDeployment,
    Reappending,
    Renumbered,
    RunRecord,
)
from nbmlops.workspace import Workspace

KIND = "reappending"
_ALL = 100_000
_TRIES = 100


class Joined(NamedTuple):
    """What came with the remote's ledger, and what became of ours."""

    fetched: tuple[LedgerEntry, ...]
    left_out: tuple[LedgerEntry, ...] = ()
    renumbered: tuple[Renumbered, ...] = ()


def join(workspace: Workspace, theirs: str) -> Joined:
    """Let the ledger go on from the head of the remote's, with what only we have after it.

    Raises
    ------
    LedgerDamaged
        When our own has entries that cannot be read: they would be lost.
    """
    ours = ledger.head(workspace.repo)
    planned = _planned(workspace, ours, theirs) if ours else None
    with _undisturbed(workspace, planned.renumbered if planned else ()):
        joined = _joined(workspace, theirs)
        _follow(workspace)
    _tell_fronts(workspace)
    return joined


def _joined(workspace: Workspace, theirs: str) -> Joined:
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


def _last(entries: Iterable[LedgerEntry]) -> int:
    return max((entry.sequence for entry in entries), default=0)


@contextlib.contextmanager
def _undisturbed(
    workspace: Workspace, renumbered: tuple[Renumbered, ...]
) -> Generator[None, None, None]:
    """Hold off whoever gives a version its number, or is about to name one that gets another."""
    names: set[str] = set()
    if renumbered:
        names = {endpoint.endpoint for endpoint in endpoints.every(workspace)}
        names |= {item.model for item in renumbered}
    with contextlib.ExitStack() as held:
        for name in sorted(names):
            held.enter_context(workspace.exclusively(endpoints.lock(name)))
        held.enter_context(workspace.exclusively(models.LOCK))
        yield


# --- the store ----------------------------------------------------------------------------------


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
    _write(workspace, made)


def _write(workspace: Workspace, made: Reappending) -> None:
    kept = workspace.store.get(KIND, _id(workspace), Reappending)
    revision = kept.revision if kept else 0
    workspace.store.swap(
        KIND, _id(workspace), made, expected=revision, key=f"{KIND}:{made.after}:{revision}"
    )


def _id(workspace: Workspace) -> str:
    return decisions.place(workspace)


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
            left = numbers.get((record.model, left), left) if left is not None else None
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


def unsettled(workspace: Workspace) -> Reappending | None:
    """Return what the store has not followed yet, if the ledger has moved."""
    kept = workspace.store.get(KIND, _id(workspace), Reappending)
    if kept is None or kept.record.done:
        return None
    head = ledger.head(workspace.repo)
    if head is None or not ledger.descends(workspace.repo, head, kept.record.after):
        return None
    return kept.record


def settle(workspace: Workspace) -> bool:
    """Let the store follow a ledger whose ``sync`` was killed; return whether there was any."""
    found = unsettled(workspace) is not None
    if found:
        with workspace.exclusively(models.LOCK):
            _follow(workspace)
        _tell_fronts(workspace)
    _heal_runs(workspace)
    return found


def _follow(workspace: Workspace) -> None:
    note = unsettled(workspace)
    if note is None:
        return
    entries = list(ledger.entries(workspace.repo))
    versions = [version for _, version in decisions.versions(entries)]
    for name in note.names:
        _follow_version(workspace, note, name, versions)
    for deployment_id, target in note.deployments.items():
        kept = workspace.store.get(deployments.KIND, deployment_id, DeploymentRecord)
        if kept is not None:
            moved = records.replace(
                kept.record, version=target.version, rolled_back_from=target.rolled_back_from
            )
            key = f"{note.after}:{deployments.KIND}:{deployment_id}"
            workspace.store.swap(
                deployments.KIND,
                deployment_id,
                moved,
                expected=kept.revision,
                key=key,
                status=moved.status.value,
            )
    _follow_runs(workspace, note, entries)
    for item in rebuilding.of_models(workspace, entries):
        item.mend()
    decisions.witness(workspace, anew=True)
    _write(workspace, records.replace(note, done=True))


def _follow_version(
    workspace: Workspace, note: Reappending, name: str, versions: list[ModelVersion]
) -> None:
    """Let a name of the store's index mean what it means in the ledger."""
    kept = workspace.store.get(models.KIND, name, ModelVersion)
    right = next((version for version in versions if version.name == name), None)
    if right is None and kept is not None:
        # Nothing has the name any more: it leads to what had it.
        same = (kept.record.model, kept.record.digest)
        right = next((one for one in versions if (one.model, one.digest) == same), None)
    if right is None or (kept is not None and kept.record == right):
        return
    workspace.store.swap(
        models.KIND,
        name,
        right,
        expected=kept.revision if kept else 0,
        key=f"{note.after}:{models.KIND}:{name}",
    )


def _follow_runs(workspace: Workspace, note: Reappending, entries: list[LedgerEntry]) -> None:
    """Let the runs name the versions that they made as the ledger does."""
    for kept in workspace.store.page(runs.KIND, RunRecord, limit=_ALL) if note.names else ():
        run = kept.record
        if not set(run.model_versions) & set(note.names):
            continue
        names = rebuilding.versions_of(run, entries)
        if names != run.model_versions:
            moved = records.replace(run, model_versions=names)
            key = f"{note.after}:{runs.KIND}:{run.run_id}:{kept.revision}"
            with contextlib.suppress(Conflict):  # the next one comes by again
                runs.keep(workspace, moved, kept.revision, key)


def _heal_runs(workspace: Workspace) -> None:
    """Look again at runs that were being collected while the last renumbering went on."""
    kept = workspace.store.get(KIND, _id(workspace), Reappending)
    if kept is not None and kept.record.done and kept.record.names:
        _follow_runs(workspace, kept.record, list(ledger.entries(workspace.repo)))


def _tell_fronts(workspace: Workspace) -> None:
    """Tell the fronts of endpoints whose version has another number; calls go on meanwhile."""
    kept = workspace.store.get(KIND, _id(workspace), Reappending)
    for deployment_id in kept.record.deployments if kept else ():
        found = workspace.store.get(deployments.KIND, deployment_id, DeploymentRecord)
        if found is not None and found.record.status is DeploymentStatus.RUNNING:
            try:
                deployments.tell(workspace, found.record.endpoint)
            except DeploymentFailed as error:
                workspace.warn(
                    f"warning: {found.record.endpoint} goes on under the old number:"
                    f" {error.message}"
                )
