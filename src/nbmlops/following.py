"""Following: the store's records after the ledger has given versions other numbers.

What is to be followed was written down before the ledger moved; each record is moved by one swap
that can be repeated, so whoever is killed in between is completed by :func:`settle`.
"""

from __future__ import annotations

import contextlib

from nbmlops import (
    decisions,
    deployments,
    layout,
    ledger,
    models,
    rebuilding,
    records,
    runs,
    sweeps,
)
from nbmlops.errors import Conflict, DeploymentFailed
from nbmlops.records import (
    DeploymentRecord,
    DeploymentStatus,
    LedgerEntry,
    ModelVersion,
    Reappending,
    RunRecord,
    SweepRecord,
)
from nbmlops.workspace import Workspace

KIND = "reappending"
_ALL = 100_000


def write(workspace: Workspace, made: Reappending) -> None:
    """Keep what the store is to follow, or that it has."""
    if not made.done:
        layout.write_file(workspace.home.unsettled, b"")
    kept = workspace.store.get(KIND, _id(workspace), Reappending)
    revision = kept.revision if kept else 0
    workspace.store.swap(
        KIND, _id(workspace), made, expected=revision, key=f"{KIND}:{made.after}:{revision}"
    )


def _id(workspace: Workspace) -> str:
    return decisions.place(workspace)


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
    found = _settle(workspace)
    _heal_runs(workspace)
    return found


def settle_at_once(workspace: Workspace) -> None:
    """Settle what a killed ``sync`` has left, before anybody acts on numbers that stand no more.

    Where there is nothing to settle this is one look for a file. A ``sync`` that is at work is
    waited for, while it moves the ledger and the store.
    """
    if workspace.home.unsettled.exists():
        _settle(workspace, wait=False)


def _settle(workspace: Workspace, *, wait: bool = True) -> bool:
    with workspace.exclusively(models.LOCK):
        found = unsettled(workspace) is not None
        if found:
            follow(workspace)
    if workspace.home.unsettled.exists() or found:
        finish(workspace, wait=wait)
    return found


def finish(workspace: Workspace, *, wait: bool = True) -> None:
    """Tell the fronts what the store has followed, after which nothing is left to do.

    Without ``wait`` an endpoint on which a command is at work is left to that command.
    """
    _tell_fronts(workspace, wait=wait)
    with workspace.exclusively(models.LOCK):  # nobody is between the word and the ledger's move
        if unsettled(workspace) is None:
            workspace.home.unsettled.unlink(missing_ok=True)


def follow(workspace: Workspace) -> None:
    """Let the store follow the ledger, if it has moved; the caller holds ``models.LOCK``."""
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
    _follow_sweeps(workspace, note)
    for item in rebuilding.of_models(workspace, entries):
        item.mend()
    decisions.witness(workspace, anew=True)
    write(workspace, records.replace(note, done=True))


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


def _follow_sweeps(workspace: Workspace, note: Reappending) -> None:
    """Let sweeps name what their best trials have become."""
    for kept in workspace.store.page(sweeps.KIND, SweepRecord, limit=_ALL) if note.names else ():
        sweep = kept.record
        best = next((trial for trial in sweep.trials if trial.number == sweep.best), None)
        if best is None or best.run_id is None or not set(sweep.model_versions) & set(note.names):
            continue
        run = workspace.store.get(runs.KIND, best.run_id, RunRecord)
        if run is not None and run.record.model_versions != sweep.model_versions:
            moved = records.replace(sweep, model_versions=run.record.model_versions)
            with contextlib.suppress(Conflict):
                workspace.store.swap(
                    sweeps.KIND,
                    sweep.sweep_id,
                    moved,
                    expected=kept.revision,
                    key=f"{note.after}:{sweeps.KIND}:{sweep.sweep_id}:{kept.revision}",
                    status=moved.status.value,
                )


def _heal_runs(workspace: Workspace) -> None:
    """Look again at runs that were being collected while the last renumbering went on."""
    kept = workspace.store.get(KIND, _id(workspace), Reappending)
    if kept is not None and kept.record.done and kept.record.names:
        _follow_runs(workspace, kept.record, list(ledger.entries(workspace.repo)))


def _tell_fronts(workspace: Workspace, *, wait: bool) -> None:
    """Tell the fronts of endpoints whose version has another number; calls go on meanwhile."""
    kept = workspace.store.get(KIND, _id(workspace), Reappending)
    for deployment_id in kept.record.deployments if kept else ():
        found = workspace.store.get(deployments.KIND, deployment_id, DeploymentRecord)
        if found is not None and found.record.status is DeploymentStatus.RUNNING:
            try:
                deployments.tell(workspace, found.record.endpoint, wait=wait)
            except DeploymentFailed as error:
                workspace.warn(
                    f"warning: {found.record.endpoint} goes on under the old number:"
                    f" {error.message}"
                )
