"""Health: the invariants that hold after every fault, checked one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from nbmlops import (
    actuals,
    batches,
    calllog,
    decisions,
    deployments,
    following,
    layout,
    ledger,
    models,
    rebuilding,
    runs,
    shipping,
    snapshot,
)
from nbmlops.errors import ArtifactCorrupt, ArtifactMissing
from nbmlops.records import (
    DeploymentRecord,
    DeploymentStatus,
    Finding,
    Health,
    JobHandle,
    LedgerEntry,
    ModelVersion,
    RunRecord,
)
from nbmlops.workspace import Workspace

_ALL = 100_000
_LEASE_S = 600.0
_LOST = "Restore the store from a backup; or move it away, then: nbmlops doctor --repair"
_REPAIR = "nbmlops doctor --repair"
_RESTORE = "Restore refs/nbmlops/ledger from a clone or a backup."


def check(workspace: Workspace) -> Health:
    """Check every invariant that can be seen from here, and return what was found."""
    checks: dict[str, Callable[[Workspace], Iterator[Finding]]] = {
        "I1": _durable,
        "I2": _single,
        "I3": _ended,
        "I4": _verified,
        "I5": _untouched,
        "I6": _accounted,
        "I7": _explained,
        "I8": _owned,
    }
    invariants: dict[str, str] = {}
    findings: list[Finding] = []
    for name, look in checks.items():
        found = [msgspec.structs.replace(finding, invariant=name) for finding in look(workspace)]
        invariants[name] = "broken" if found else "ok"
        findings.extend(found)
    return Health(
        invariants=invariants,
        findings=tuple(findings),
        advice=(*_elsewhere(workspace), *_ephemeral(workspace)),
    )


def _ephemeral(workspace: Workspace) -> Iterator[Finding]:
    """Tell of endpoints whose calls nothing keeps, as was allowed when they were deployed."""
    for record in deployments.listed(workspace):
        if record.ephemeral_calls:
            yield Finding(
                code="calls-ephemeral",
                message=f"the calls of {record.endpoint} ({record.deployment_id}) are kept nowhere:"
                " they go with the pod that answers them",
                fix="Name an exchange under [kubernetes] in nbmlops.toml, and deploy again.",
            )


def repair(workspace: Workspace) -> tuple[Finding, ...]:
    """Put right what is safe to put right, and return what that was."""
    return (*rebuilding.repair(workspace), *_calls_again(workspace))


def _calls_again(workspace: Workspace) -> Iterator[Finding]:
    """Bring back the segments of the call log that are gone here; have notes made anew."""
    folders = workspace.home.calls
    for note, error in list(shipping.damaged(folders)):
        if shipping.of_note(note).exists():
            note.unlink(missing_ok=True)  # the next tick ships the segment again
            yield Finding(code="note-damaged", message=error.message, fix=_REPAIR)
    for folder in sorted(folders.glob("*/")):
        for segment in shipping.away(workspace, folder.name):
            try:
                shipping.restore(workspace, folder.name, lambda one, this=segment: one == this)
            except (ArtifactMissing, ArtifactCorrupt):
                continue  # it is told as what is missing
            yield Finding(
                code="calls-away",
                message=f"{folder.name}/{segment.path.name} was gone here, and is back",
                fix=_REPAIR,
            )


def _runs(workspace: Workspace) -> list[RunRecord]:
    return [kept.record for kept in workspace.store.page(runs.KIND, RunRecord, limit=_ALL)]


def _whole_runs(workspace: Workspace) -> list[RunRecord]:
    """Return the runs of this clone whose files were not freed; those of others lie elsewhere."""
    return [
        run
        for run in _runs(workspace)
        if run.freed_at is None and workspace.reaches(run.launcher, run.place)
    ]


def _durable(workspace: Workspace) -> Iterator[Finding]:
    """Find what was acknowledged and is gone: store, snapshots, versions, bytes."""
    for fault in workspace.store.faults():
        yield Finding(code="store-damaged", message=fault, fix=_LOST)
    for run in _whole_runs(workspace):
        if not snapshot.is_held(workspace.repo, run.snapshot, run.commit):
            yield Finding(
                code="snapshot-gone",
                message=f"the snapshot of {run.run_id} is not held by its ref any more",
                fix=f"git update-ref refs/nbmlops/snapshots/{run.snapshot} {run.commit}",
            )
        for artifact in run.artifacts:
            if not workspace.artifacts.has(artifact.digest):
                yield Finding(
                    code="artifact-gone",
                    message=f"{artifact.name} of {run.run_id} is not there any more",
                    fix=f"Restore {artifact.digest[:12]} from a backup, or run it again.",
                )
    yield from _ledger(workspace)
    for item in rebuilding.missing(workspace):
        yield item.finding


def _ledger(workspace: Workspace) -> Iterator[Finding]:
    """Find what somebody has changed in the ledger, or damaged."""
    for fault in ledger.faults(workspace.repo):
        restore = f"git update-ref {layout.LEDGER_REF} {fault.good}" if fault.good else ""
        yield Finding(code=fault.code, message=fault.message, fix=restore or _RESTORE)
    for _ in rebuilding.stale_locks(workspace):
        yield Finding(
            code="ledger-locked", message=rebuilding.LOCKED, fix="nbmlops doctor --repair"
        )
    entries = list(ledger.entries(workspace.repo))
    for entry, why in decisions.misfits(entries):
        yield Finding(
            code="ledger-unreadable",
            message=f"entry {entry.sequence} of the ledger {why}",
            fix="If a newer nbmlops wrote it, upgrade this one; else restore the ledger.",
        )
    for entry, why in decisions.astray(entries):
        yield Finding(
            code="decision-astray",
            message=f"entry {entry.sequence} of the ledger {why}",
            fix=_decided_anew(entry),
        )
    yield from _followed(workspace, entries)
    yield from _kept_bytes(workspace, entries)


def _decided_anew(entry: LedgerEntry) -> str:
    """Return what to type, by the number of the version that was meant."""
    body = entry.body
    if entry.kind == "alias":
        return f"See which is meant, then: nbmlops alias {body['model']}:NUMBER {body['alias']}"
    return (
        "See which is meant, then:"
        f" nbmlops deploy {body['model']}:NUMBER --endpoint {body['endpoint']}"
    )


def _followed(workspace: Workspace, entries: list[LedgerEntry]) -> Iterator[Finding]:
    """Find where the ledger is not what the store has seen of it."""
    if following.unsettled(workspace) is not None:
        yield Finding(
            code="sync-unfinished",
            message="a `sync` was killed before the store had followed the ledger",
            fix="nbmlops doctor --repair",
        )
        return
    seen, head = decisions.seen(workspace), ledger.head(workspace.repo)
    if seen and (head is None or not ledger.descends(workspace.repo, head, seen)):
        yield Finding(
            code="ledger-rewritten",
            message=f"the ledger does not go on from {seen[:12]}, where it was seen last",
            fix=f"git update-ref {layout.LEDGER_REF} {seen}",
        )
    recorded = {version.name: version for _, version in decisions.versions(entries)}
    for kept in workspace.store.page(models.KIND, ModelVersion, limit=_ALL):
        if recorded.get(kept.record.name) != kept.record:
            yield Finding(
                code="ledger-rewritten",
                message=f"{kept.record.name} is not in the ledger as it was registered",
                fix=_RESTORE,
            )


def _kept_bytes(workspace: Workspace, entries: list[LedgerEntry]) -> Iterator[Finding]:
    """Find versions whose bytes are gone."""
    of_runs = {artifact.digest for run in _whole_runs(workspace) for artifact in run.artifacts}
    for entry, version in decisions.versions(entries):
        if entry.place not in (None, decisions.place(workspace)):
            continue  # what of it is not here never was: see `_elsewhere`
        for role, digest in _digests(version).items():
            if digest not in of_runs and not workspace.artifacts.has(digest):
                yield Finding(
                    code="artifact-gone",
                    message=f"the {role} of {version.name} is not there any more",
                    fix=f"Restore {digest[:12]} from a backup, or train it again.",
                )


def _digests(version: ModelVersion) -> dict[str, str]:
    """Return the artifacts that a version rests on, by their roles."""
    return {role: file.digest for role, file in version.files.items()} | {"run": version.run_digest}


def _elsewhere(workspace: Workspace) -> Iterator[Finding]:
    """Find what belongs to versions of other clones and is not in this one's reach.

    Nothing is lost by that. What has been here once is named by a run of the store, and its loss
    is a finding.
    """
    here = decisions.place(workspace)
    for entry, version in decisions.versions(ledger.entries(workspace.repo)):
        if entry.place in (None, here):
            continue
        author = entry.author.partition(" <")[0]
        if not snapshot.is_held(workspace.repo, version.snapshot, version.commit):
            yield Finding(
                code="snapshot-elsewhere",
                message=f"the snapshot of {version.name} is not here; {author} made it elsewhere",
                fix="nbmlops sync",
            )
        missing = [
            role
            for role, digest in _digests(version).items()
            if not workspace.artifacts.has(digest)
        ]
        if missing:
            yield Finding(
                code="artifact-elsewhere",
                message=f"{version.name} was made elsewhere, by {author}, and its {_and(missing)}"
                f" {'is' if len(missing) == 1 else 'are'} not in {workspace.artifacts.shown}",
                fix="To serve it here, share the artifacts: name one place as `url` under"
                f" [artifacts] of {layout.SETTINGS_FILE}, there and here.",
            )


def _and(words: list[str]) -> str:
    return ", ".join(words[:-1]) + (" and " if words[1:] else "") + words[-1]


def _single(workspace: Workspace) -> Iterator[Finding]:
    """Find two versions of one model with one digest, or one number given twice."""
    seen: dict[tuple[str, str], str] = {}
    for version in models.recorded(workspace):
        for key in ((version.model, version.digest), (version.model, str(version.version))):
            if key in seen:
                yield Finding(
                    code="version-doubled",
                    message=f"{version.name} and {seen[key]} are one and the same",
                    fix="Report this as a bug, with the output of `git log refs/nbmlops/ledger`.",
                )
            seen[key] = version.name


def _ended(workspace: Workspace) -> Iterator[Finding]:
    """Find runs that stay unfinished although nothing carries them."""
    for run in runs.unfinished(workspace):
        if run.elsewhere:
            continue
        age_s = (workspace.now() - run.created_at).total_seconds()
        if run.status.value == "pending" and abs(age_s) > _LEASE_S:
            yield Finding(
                code="run-stuck",
                message=f"{run.run_id} has been pending for {age_s:.0f} s",
                fix=f"nbmlops cancel {run.run_id}",
            )


def _verified(workspace: Workspace) -> Iterator[Finding]:
    """Find artifacts whose bytes do not have their digest."""
    for digest in workspace.artifacts.damaged():
        yield Finding(
            code="artifact-corrupt",
            message=f"the bytes kept as {digest[:12]} are others now",
            fix="Restore them from a backup; whatever reads them refuses them.",
        )


def _untouched(workspace: Workspace) -> Iterator[Finding]:
    """Find what we would have left behind in the user's repository."""
    for path in rebuilding.private_indexes(workspace):
        yield Finding(
            code="index-left",
            message=f"a private index was left by a command that was killed: {path.name}",
            fix=f"rm '{path}'",
        )


def _accounted(workspace: Workspace) -> Iterator[Finding]:
    """Find call logs whose records and drops do not add up, and damage of what lies beside them."""
    for _, error in shipping.damaged(workspace.home.calls):
        yield Finding(code="note-damaged", message=error.message, fix=error.hint)
    for error in actuals.damaged(workspace):
        yield Finding(code="actuals-damaged", message=error.message, fix=error.hint)
    for kept in workspace.store.page(deployments.KIND, DeploymentRecord, limit=_ALL):
        name = kept.record.deployment_id
        if away := shipping.away(workspace, name):
            for segment in away:
                yield Finding(
                    code="calls-away",
                    message=f"{name}/{segment.path.name} is gone here, and kept as an artifact",
                    fix=_REPAIR,
                )
            continue  # without them all that follows looks broken
        for problem in calllog.verify(workspace.home.calls, name).problems:
            yield Finding(
                code="calls-damaged",
                message=f"the call log of {name}: {problem}",
                fix="Restore it from a backup; later calls are not affected.",
            )


def _explained(workspace: Workspace) -> Iterator[Finding]:
    """Find runs that ended badly without saying why."""
    for run in _runs(workspace):
        if run.status.is_final and run.status.value != "succeeded" and run.cause is None:
            yield Finding(
                code="cause-missing",
                message=f"{run.run_id} {run.status.value} without a cause",
                fix=f"nbmlops logs {run.run_id}",
            )


def _owned(workspace: Workspace) -> Iterator[Finding]:
    """Find jobs that are up although no record wants them, and the other way round."""
    for record in deployments.listed(workspace):
        if record.elsewhere:
            continue
        if record.status is DeploymentStatus.FAILED or record.ready < min(record.desired, 1):
            yield Finding(
                code="deployment-down",
                message=f"{record.deployment_id} should serve {record.endpoint} and does not",
                fix=deployments.deploying(record),
            )
    for job in batches.jobs(workspace):
        if batches.is_followed(workspace, job):
            continue
        launcher = workspace.launcher(job.launcher)
        handle = JobHandle(launcher=job.launcher, name=job.job)
        if not launcher.poll([handle])[handle].status.is_final:
            yield Finding(
                code="batch-unfollowed",
                message=f"{job.job} answers {len(job.files):,} files by {job.version}, and nobody"
                " waits for it: the same `nbmlops predict` goes on with it",
                fix=launcher.ending(handle),
            )
    wanted = rebuilding.wanted(workspace) | rebuilding.ending(workspace)
    for launcher in workspace.launchers():
        for handle in launcher.jobs():
            if handle.name not in wanted:
                yield Finding(
                    code="job-orphaned",
                    message=f"the job {handle.name} is up and belongs to nobody",
                    fix="nbmlops doctor --repair"
                    if rebuilding.serves(workspace, handle)
                    else launcher.ending(handle),
                )
