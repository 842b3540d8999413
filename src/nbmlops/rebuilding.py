"""Rebuilding: the store is an index of what the ledger, the artifacts and the jobs tell.

What is missing is found by comparing; each piece is written by one swap that can be repeated, so
a repair that is killed is completed by the next one. Runs that made no version, sweeps, cached
steps and monitoring reports are in the store alone: they are not found again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from nbmlops import (
    batches,
    decisions,
    deployments,
    endpoints,
    layout,
    ledger,
    models,
    records,
    runs,
    snapshot,
    stints,
    sweeps,
)
from nbmlops.decisions import Placed, Traffic
from nbmlops.errors import ArtifactCorrupt, ArtifactMissing, Conflict
from nbmlops.monitors import jobs as looks
from nbmlops.records import (
    DeploymentRecord,
    DeploymentStatus,
    EndpointRecord,
    Finding,
    JobHandle,
    LedgerEntry,
    ModelVersion,
    RunRecord,
    SweepRecord,
    WorkerSpec,
)
from nbmlops.workspace import Workspace

_FIX = "nbmlops doctor --repair"
_ALL = 100_000
LOCKED = "the ledger was left locked by a command that was killed: nothing can be decided"
_SCRATCH_S = 600.0
_ENDING_S = 60.0


class Repair(NamedTuple):
    """What is wrong, and what puts it right; asked again, it changes nothing."""

    finding: Finding
    mend: Callable[[], None]


def repair(workspace: Workspace) -> tuple[Finding, ...]:
    """Put right what is safe to put right, and return what that was.

    The store's records come first, endpoints before their deployments: a deployment whose endpoint
    is unknown would be taken for one that was given up.
    """
    mended: list[Finding] = []
    with workspace.exclusively("repair"):
        for stage in (missing, _snapshots, _left_over, _unowned):
            # One by one: what is next depends on what has been put right.
            for item in stage(workspace):
                item.mend()
                mended.append(item.finding)
                workspace.say(f"repaired: {item.finding.message}")
        decisions.witness(workspace)
    return tuple(mended)


# --- the store's records ------------------------------------------------------------------------


def missing(workspace: Workspace) -> Iterator[Repair]:
    """Yield the records that follow from the ledger and are not in the store."""
    entries = decisions.here(workspace)
    yield from of_models(workspace, entries)
    yield from _endpoints(workspace, entries)
    yield from _deployments(workspace, entries)


def of_models(workspace: Workspace, entries: list[LedgerEntry]) -> Iterator[Repair]:
    """Yield the versions that are not in the store, and the runs that made one."""
    yield from _versions(workspace, entries)
    yield from _runs(workspace, entries)


def _versions(workspace: Workspace, entries: list[LedgerEntry]) -> Iterator[Repair]:
    known = {
        kept.record.name for kept in workspace.store.page(models.KIND, ModelVersion, limit=_ALL)
    }
    for _, version in decisions.versions(entries):
        if version.name not in known:
            yield _missing(
                "version", version.name, lambda version=version: models.keep(workspace, version)
            )


def _missing(what: str, name: str, mend: Callable[[], None]) -> Repair:
    finding = Finding(
        code=f"{what}-not-indexed",
        message=f"{name} follows from the ledger and is not in the store",
        fix=_FIX,
    )

    def once() -> None:
        with contextlib.suppress(Conflict):  # somebody else was first
            mend()

    return Repair(finding, once)


def _runs(workspace: Workspace, entries: list[LedgerEntry]) -> Iterator[Repair]:
    found: dict[str, RunRecord] = {}
    for _, version in decisions.versions(entries):
        if workspace.store.get(runs.KIND, version.run_id, RunRecord) is None:
            with contextlib.suppress(ArtifactMissing, ArtifactCorrupt, msgspec.DecodeError):
                found[version.run_id] = run(workspace, version, entries)
    for record in sorted(found.values(), key=lambda record: record.created_at):
        yield _missing(
            "run",
            record.run_id,
            lambda record=record: runs.keep(workspace, record, 0, f"rebuilt:{record.run_id}"),
        )


def run(
    workspace: Workspace, version: ModelVersion, entries: Iterable[LedgerEntry] | None = None
) -> RunRecord:
    """Return the record of the run that made a version, as it was kept when it had ended.

    Raises
    ------
    ArtifactMissing
        When it is not there any more.
    """
    entries = ledger.entries(workspace.repo) if entries is None else entries
    record = records.load(workspace.artifacts.get(version.run_digest), RunRecord)
    return records.replace(
        record, model_versions=versions_of(record, entries), record_digest=version.run_digest
    )


def versions_of(record: RunRecord, entries: Iterable[LedgerEntry]) -> tuple[str, ...]:
    """Return the versions that a run made, by the names that the ledger gives them."""
    # A file's name tells the model's: two models may have the same bytes.
    files = {(item.name, item.digest) for item in record.artifacts if item.kind == "model"}

    def is_made(other: ModelVersion) -> bool:
        """Return whether the run made the very same model again, which keeps its version."""
        own = [other.files[role] for role in ("model", "schema")]
        return (
            other.environment_id == record.environment_id
            and {(file.name, file.digest) for file in own} <= files
            # With a loader or a program what it answers follows from the code as well.
            and (not (other.loader or other.served_by_program) or other.commit == record.commit)
        )

    return tuple(
        other.name
        for _, other in decisions.versions(entries)
        if other.run_id == record.run_id or is_made(other)
    )


def _endpoints(workspace: Workspace, entries: list[LedgerEntry]) -> Iterator[Repair]:
    known = {endpoint.endpoint for endpoint in endpoints.every(workspace)}
    for name in decisions.traffic(entries):
        if name not in known:
            yield _missing(
                "endpoint", f"endpoint {name}", lambda name=name: _endpoint(workspace, name)
            )


def _endpoint(workspace: Workspace, name: str) -> None:
    """Write the record of an endpoint as it stands: pointing where its front was pointed."""
    with workspace.exclusively(endpoints.lock(name)):
        entries = decisions.here(workspace)
        traffic = decisions.traffic(entries)[name]
        launcher = traffic.back[-1].decision.launcher
        record = endpoints.found_again(workspace, name, launcher)
        if traffic.standing is not None:
            table = endpoints.given(workspace, endpoints.handle(record))
            served = {route.deployment_id for route in table.routes} if table else set[str]()
            before = [
                item.decision.deployment_id
                for item in decisions.placed(entries)
                if item.entry.kind == "deployed" and item.decision.endpoint == name
            ]
            standing = traffic.standing.decision.deployment_id
            # Decided and not yet handed over: `deployments.settle` goes on from there.
            pointed = next((one for one in reversed(before) if one in served), standing)
            record = records.replace(record, deployment_id=pointed, running=True)
        workspace.store.swap(
            endpoints.KIND, name, record, expected=0, key=f"rebuilt:endpoint:{name}"
        )


def _deployments(workspace: Workspace, entries: list[LedgerEntry]) -> Iterator[Repair]:
    known = {
        kept.record.deployment_id
        for kept in workspace.store.page(deployments.KIND, DeploymentRecord, limit=_ALL)
    }
    for item in decisions.placed(entries):
        name = item.decision.deployment_id
        if item.entry.kind == "deployed" and name not in known:
            known.add(name)
            yield _missing(
                "deployment",
                f"deployment {name}",
                lambda name=name, of=item.decision.endpoint: _deployment(workspace, of, name),
            )


def _deployment(workspace: Workspace, endpoint: str, deployment_id: str) -> None:
    with workspace.exclusively(endpoints.lock(endpoint)):
        found = deployment(workspace, deployment_id)
        if found is not None:
            workspace.store.swap(
                deployments.KIND,
                deployment_id,
                found,
                expected=0,
                key=f"rebuilt:deployment:{deployment_id}",
                status=found.status.value,
            )


def deployment(workspace: Workspace, deployment_id: str) -> DeploymentRecord | None:
    """Return a deployment as the ledger tells it; ``None`` when it never took traffic."""
    entries = list(ledger.entries(workspace.repo))
    of_it = [
        item for item in decisions.placed(entries) if item.decision.deployment_id == deployment_id
    ]
    begun = next((item for item in of_it if item.entry.kind == "deployed"), None)
    if begun is None:
        return None
    ours = decisions.place(workspace)
    entries = decisions.of_place(entries, begun.entry.place or ours)
    name = begun.decision.endpoint
    # Of another clone's endpoint nothing is known but what was decided.
    found = endpoints.find(workspace, name) if begun.entry.place in (None, ours) else None
    url = begun.decision.url or (found.url if found else None)
    if url is None:
        url = endpoints.found_again(workspace, name, begun.decision.launcher).url
    status = _status(begun, decisions.traffic(entries)[name], found)
    cause = next((item.decision.cause for item in of_it if item.decision.cause), None)
    if cause is not None and status is DeploymentStatus.STOPPED:
        status = DeploymentStatus.FAILED
    up = status in (DeploymentStatus.STARTING, DeploymentStatus.RUNNING)
    decision = begun.decision
    return DeploymentRecord(
        endpoint=name,
        url=url,
        deployment_id=deployment_id,
        model=decision.model,
        version=decision.version,
        commit=decision.commit,
        launcher=decision.launcher,
        status=status,
        ready=int(status is DeploymentStatus.RUNNING),
        desired=0 if status is DeploymentStatus.STOPPED else 1,
        created_at=decision.created_at or begun.entry.at,
        stopped_at=None if up else decisions.ended_at(entries, deployment_id),
        author=begun.entry.author,
        handle=JobHandle(launcher=decision.launcher, name=deployment_id),
        cause=None if up else cause,
        rolled_back_from=decision.rolled_back_from,
        place=begun.entry.place,
    )


def _status(begun: Placed, traffic: Traffic, endpoint: EndpointRecord | None) -> DeploymentStatus:
    """Return where a deployment stands, by what was decided and where its endpoint points."""
    deployment_id = begun.decision.deployment_id
    standing = traffic.standing.decision.deployment_id if traffic.standing else None
    pointed = endpoint.deployment_id if endpoint and endpoint.running else standing
    if pointed == deployment_id:
        return DeploymentStatus.RUNNING
    return DeploymentStatus.STARTING if standing == deployment_id else DeploymentStatus.STOPPED


# --- the rest -----------------------------------------------------------------------------------


def _snapshots(workspace: Workspace) -> Iterator[Repair]:
    """Yield the snapshots whose commit is there, and whose ref does not hold it any more."""
    repo = workspace.repo
    for kept in workspace.store.page(runs.KIND, RunRecord, limit=_ALL):
        record = kept.record
        if record.freed_at or snapshot.is_held(repo, record.snapshot, record.commit):
            continue
        if snapshot.exists(repo, record.commit):
            yield Repair(
                Finding(
                    code="snapshot-gone",
                    message=f"the snapshot of {record.run_id} was not held by its ref any more",
                    fix=_FIX,
                ),
                lambda record=record: snapshot.hold_again(repo, record.snapshot, record.commit),
            )


def _left_over(workspace: Workspace) -> Iterator[Repair]:
    for path in private_indexes(workspace):
        yield Repair(
            Finding(
                code="index-left",
                message=f"a private index was left by a command that was killed: {path.name}",
                fix=_FIX,
            ),
            lambda path=path: path.unlink(missing_ok=True),
        )
    for path in stale_locks(workspace):
        yield Repair(
            Finding(code="ledger-locked", message=LOCKED, fix=_FIX),
            lambda path=path: path.unlink(missing_ok=True),
        )


def stale_locks(workspace: Workspace) -> Iterator[Path]:
    """Yield the lock of the ledger's ref if nobody can hold it any more."""
    path = ledger.lock_file(workspace.repo)
    with contextlib.suppress(FileNotFoundError):
        if workspace.now().timestamp() - path.stat().st_mtime > _SCRATCH_S:
            yield path


def private_indexes(workspace: Workspace) -> Iterator[Path]:
    """Yield the private indexes of git that nobody writes any more."""
    for path in workspace.home.scratch.glob("index-*"):
        if workspace.now().timestamp() - path.stat().st_mtime > _SCRATCH_S:
            yield path


def _unowned(workspace: Workspace) -> Iterator[Repair]:
    """Yield the workers and fronts that are up and that no record wants.

    Other jobs are left alone: a run without a record may be a day's work.
    """
    deployments.settle(workspace)
    known = wanted(workspace)
    for launcher in workspace.launchers():
        for handle in launcher.jobs():
            if handle.name not in known and serves(workspace, handle):
                yield Repair(
                    Finding(
                        code="job-orphaned",
                        message=f"the job {handle.name} was up and belonged to nobody",
                        fix=_FIX,
                    ),
                    lambda handle=handle: _end(workspace, handle),
                )


def wanted(workspace: Workspace) -> set[str]:
    """Return the names of the jobs that a record wants to be up."""
    names = {run.handle.name for run in runs.unfinished(workspace) if run.handle}
    names |= {sweep.handle.name for sweep in sweeps.unfinished(workspace) if sweep.handle}
    for endpoint in endpoints.every(workspace):
        if endpoint.running:
            names.add(endpoints.handle(endpoint).name)
    names |= {record.deployment_id for record in deployments.listed(workspace)}
    names |= stints.at_work(workspace)
    names |= {one.job for one in batches.jobs(workspace)}
    names |= {one.job for one in looks.standing(workspace)}
    # What was decided counts although the store has lost it.
    for name, traffic in decisions.traffic(decisions.here(workspace)).items():
        if traffic.standing and endpoints.find(workspace, name) is None:
            names |= {f"endpoint-{name}", *(item.decision.deployment_id for item in traffic.back)}
    return names


def ending(workspace: Workspace) -> set[str]:
    """Return the jobs of what was stopped a moment ago, which may need a while to end."""
    now = workspace.now()
    names: set[str] = set()
    for kept in workspace.store.page(deployments.KIND, DeploymentRecord, limit=_ALL):
        stopped_at = kept.record.stopped_at
        if stopped_at and (now - stopped_at).total_seconds() < _ENDING_S:
            names |= {kept.record.deployment_id, f"endpoint-{kept.record.endpoint}"}
    for kept in workspace.store.page(sweeps.KIND, SweepRecord, limit=_ALL):
        finished_at = kept.record.finished_at
        if finished_at and (now - finished_at).total_seconds() < _ENDING_S and kept.record.handle:
            names.add(kept.record.handle.name)
    return names


def serves(workspace: Workspace, handle: JobHandle) -> bool:
    """Return whether a job is a worker of a deployment or a front, by its name and its inbox."""
    if handle.name.startswith("endpoint-"):
        return endpoints.given(workspace, handle) is not None
    inbox = workspace.home.job(handle.name).inbox
    try:
        spec = records.load((inbox / layout.SPEC_FILE).read_bytes(), WorkerSpec)
    except (OSError, msgspec.DecodeError):
        return False
    # A worker that is there for something else has another name than its model's.
    return spec.deployment_id == handle.name and handle.name.startswith(f"{spec.model}-")


def _end(workspace: Workspace, handle: JobHandle) -> None:
    workspace.launcher(handle.launcher).cancel(handle)
    endpoints.until_ended(workspace, [handle])
