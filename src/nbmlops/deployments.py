"""Deployments: a worker of one model version, behind an endpoint whose URL stays.

Deploying starts the new worker, waits until it is ready, records the decision in the ledger,
re-points the endpoint, and only then stops the worker before. Every prefix of that is a legal
state, which :func:`settle` completes or rolls back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from nbmlops import endpoints, layout, ledger, models, workers
from nbmlops.errors import DeploymentFailed, UnknownEndpoint, UnknownReference
from nbmlops.records import (
    Cause,
    DeploymentRecord,
    DeploymentStatus,
    EndpointRecord,
    JobHandle,
    LedgerEntry,
    ModelVersion,
    Route,
    replace,
)
from nbmlops.store import Kept
from nbmlops.workspace import Workspace

KIND = "deployment"
_ALL = 10_000
_LIVE = (DeploymentStatus.STARTING.value, DeploymentStatus.RUNNING.value)


def deploy(workspace: Workspace, reference: str, *, launcher: str = "local") -> DeploymentRecord:
    """Serve a model version behind the endpoint of the model's name, and return when it is ready.

    The version that already has all traffic changes nothing.

    Raises
    ------
    UnknownModel
        When there is no such version.
    DeploymentFailed
        When the worker does not get ready; what served before still serves.
    """
    version = models.find(workspace, reference)
    workspace.launcher(launcher).check()
    with workspace.exclusively(_lock(version.model)):
        _settle(workspace, version.model)
        current = _current(workspace, version.model)
        if current is not None and current.version == version.version:
            live = look(workspace, current)
            if live.status is DeploymentStatus.RUNNING and live.ready:
                return live
        return _deploy(workspace, version, launcher)


def _lock(endpoint: str) -> str:
    return f"endpoint-{endpoint}"


def _current(workspace: Workspace, endpoint: str) -> DeploymentRecord | None:
    """Return the deployment that the endpoint points at."""
    found = endpoints.find(workspace, endpoint)
    if found is None or found.deployment_id is None:
        return None
    kept = workspace.store.get(KIND, found.deployment_id, DeploymentRecord)
    return None if kept is None else kept.record


def _deploy(workspace: Workspace, version: ModelVersion, launcher: str) -> DeploymentRecord:
    endpoint = endpoints.made(workspace, version.model, launcher)
    deployment_id = layout.new_id(version.model, workspace.now().timestamp())
    record = DeploymentRecord(
        endpoint=endpoint.endpoint,
        url=endpoint.url,
        deployment_id=deployment_id,
        model=version.model,
        version=version.version,
        commit=version.commit,
        launcher=launcher,
        status=DeploymentStatus.STARTING,
        created_at=workspace.now(),
        author=workspace.repo.author(),
        handle=JobHandle(launcher=launcher, name=deployment_id),
    )
    workspace.say(f"starting {version.name} as {deployment_id}")
    job = workers.job(workspace, version, deployment_id)
    _keep(workspace, record)
    try:
        workspace.launcher(launcher).launch(job)
        endpoints.until_ready(workspace, _handle(record), deployment_id)
        before = _current(workspace, record.endpoint)
        _decide(workspace, "deployed", record, before)
        return _take_traffic(workspace, record)
    except DeploymentFailed as failure:
        _give_up(workspace, record, failure, before_id=endpoint.deployment_id)
        raise


def _take_traffic(workspace: Workspace, record: DeploymentRecord) -> DeploymentRecord:
    """Point the endpoint at a ready deployment that was decided on, and stop all others."""
    endpoint = endpoints.find(workspace, record.endpoint)
    if endpoint is None or endpoint.deployment_id != record.deployment_id:
        endpoint = endpoints.point(workspace, record.endpoint, record.deployment_id)
    endpoints.serve(workspace, endpoint, (_route(workspace, record),))
    taken = replace(record, status=DeploymentStatus.RUNNING, ready=1)
    _keep(workspace, taken)
    for other in _live(workspace, record.endpoint):
        if other.deployment_id != record.deployment_id:
            _stop(workspace, other)
    return taken


def _route(workspace: Workspace, record: DeploymentRecord) -> Route:
    handle = _handle(record)
    status = workspace.launcher(handle.launcher).poll([handle])[handle]
    version = models.find(workspace, f"{record.model}:{record.version}")
    return Route(
        deployment_id=record.deployment_id,
        role="champion",
        share=100.0,
        address=str(status.address),
        model=version.model,
        version=version.version,
        commit=version.commit,
        schema=models.schema(workspace, version),
        batches=version.probe.independent,
        matrix=True,
    )


def undeploy(workspace: Workspace, endpoint: str) -> DeploymentRecord:
    """Stop an endpoint and its deployment; the URL stays reserved for the next one.

    Raises
    ------
    UnknownEndpoint
        When there is no such endpoint, or it is not up.
    """
    endpoints.running(workspace, endpoint)
    with workspace.exclusively(_lock(endpoint)):
        found = endpoints.running(workspace, endpoint)
        current = _current(workspace, endpoint)
        if current is None:
            raise UnknownEndpoint(
                f"nothing is deployed at `{endpoint}`", "See what is up: `nbmlops deployments`."
            )
        workspace.say(f"stopping {endpoint}")
        endpoints.point(workspace, endpoint, None)
        _settle(workspace, endpoint)
        endpoints.until_ended(workspace, [endpoints.handle(found), _handle(current)])
        return get(workspace, current.deployment_id)


def _handle(record: DeploymentRecord) -> JobHandle:
    return record.handle or JobHandle(launcher=record.launcher, name=record.deployment_id)


def _give_up(
    workspace: Workspace, record: DeploymentRecord, why: DeploymentFailed, before_id: str | None
) -> None:
    """Leave a deployment that did not get ready; the endpoint points where it did before."""
    endpoint = endpoints.find(workspace, record.endpoint)
    if endpoint is not None and endpoint.deployment_id == record.deployment_id:
        pointed = endpoints.point(workspace, record.endpoint, before_id)
        if before_id is not None:
            with contextlib.suppress(DeploymentFailed):
                route = _route(workspace, _kept(workspace, before_id).record)
                endpoints.serve(workspace, pointed, (route,))
    if _is_decided(workspace, "deployed", record):
        _decide(workspace, "undeployed", record, None)
    workspace.launcher(record.launcher).cancel(_handle(record))
    failed = replace(
        record,
        status=DeploymentStatus.FAILED,
        stopped_at=workspace.now(),
        cause=Cause(code=why.code, message=why.message, hint=why.hint),
    )
    _keep(workspace, failed)


def _stop(workspace: Workspace, record: DeploymentRecord) -> None:
    workspace.launcher(record.launcher).cancel(_handle(record))
    stopped = replace(
        record, status=DeploymentStatus.STOPPED, ready=0, desired=0, stopped_at=workspace.now()
    )
    _keep(workspace, stopped)


# --- what is kept -------------------------------------------------------------------------------


def _is_decided(workspace: Workspace, kind: str, record: DeploymentRecord) -> bool:
    return any(
        entry.kind == kind and entry.body.get("deployment_id") == record.deployment_id
        for entry in ledger.entries(workspace.repo)
    )


def _decide(
    workspace: Workspace, kind: str, record: DeploymentRecord, before: DeploymentRecord | None
) -> None:
    """Write a decision into the ledger, once."""
    body: dict[str, Any] = {
        "endpoint": record.endpoint,
        "deployment_id": record.deployment_id,
        "model": record.model,
        "version": record.version,
        "version_digest": models.find(workspace, f"{record.model}:{record.version}").digest,
        "commit": record.commit,
        "launcher": record.launcher,
        "replaces": before.deployment_id if before else None,
    }

    def make(earlier: list[LedgerEntry]) -> dict[str, Any] | LedgerEntry:
        for entry in earlier:
            if entry.kind == kind and entry.body.get("deployment_id") == record.deployment_id:
                return entry
        return body

    ledger.append(workspace.repo, kind, make, workspace.now())


def get(workspace: Workspace, deployment_id: str) -> DeploymentRecord:
    """Return the deployment as it is now.

    Raises
    ------
    UnknownReference
        When there is none of that id.
    """
    return look(workspace, _kept(workspace, deployment_id).record)


def _kept(workspace: Workspace, deployment_id: str) -> Kept[DeploymentRecord]:
    kept = workspace.store.get(KIND, deployment_id, DeploymentRecord)
    if kept is None:
        raise UnknownReference(
            f"there is no deployment `{deployment_id}`", "See them: `nbmlops deployments`."
        )
    return kept


def _keep(workspace: Workspace, record: DeploymentRecord) -> None:
    kept = workspace.store.get(KIND, record.deployment_id, DeploymentRecord)
    revision = kept.revision if kept else 0
    workspace.store.swap(
        KIND,
        record.deployment_id,
        record,
        expected=revision,
        key=f"{KIND}:{record.deployment_id}:{record.status.value}:{revision}",
        status=record.status.value,
    )


# --- looking and settling -----------------------------------------------------------------------


def look(workspace: Workspace, record: DeploymentRecord) -> DeploymentRecord:
    """Return the deployment as it is now: ready only when its worker and its front are."""
    if record.status not in (DeploymentStatus.STARTING, DeploymentStatus.RUNNING):
        return record
    worker = _handle(record)
    front = JobHandle(launcher=record.launcher, name=f"endpoint-{record.endpoint}")
    seen = workspace.launcher(record.launcher).poll([worker, front])
    if seen[worker].status.is_final:
        cause = seen[worker].cause
        return replace(record, status=DeploymentStatus.FAILED, ready=0, cause=cause)
    return replace(record, ready=int(bool(seen[worker].ready and seen[front].ready)))


def listed(workspace: Workspace, *, every: bool = False) -> list[DeploymentRecord]:
    """Return the deployments that should be up, or all there ever were, newest first."""
    kept = workspace.store.page(KIND, DeploymentRecord, limit=_ALL, status=None if every else _LIVE)
    return [look(workspace, item.record) for item in kept]


def _live(workspace: Workspace, endpoint: str) -> list[DeploymentRecord]:
    kept = workspace.store.page(KIND, DeploymentRecord, limit=_ALL, status=_LIVE)
    return [item.record for item in kept if item.record.endpoint == endpoint]


def settle(workspace: Workspace) -> None:
    """Complete or roll back what a killed command has left half done.

    An endpoint on which a living command is at work is left to it.
    """
    for endpoint in endpoints.every(workspace):
        if _is_settled(workspace, endpoint):
            continue
        with workspace.exclusively(_lock(endpoint.endpoint), wait=False) as ours:
            if ours:
                _settle(workspace, endpoint.endpoint)


def _is_settled(workspace: Workspace, endpoint: EndpointRecord) -> bool:
    live = _live(workspace, endpoint.endpoint)
    if not endpoint.running:
        return not live
    return [(d.deployment_id, d.status.value) for d in live] in (
        [(endpoint.deployment_id, "running")],
        [],
    )


def _settle(workspace: Workspace, name: str) -> None:
    """Bring one endpoint to the state that was decided; the caller holds its lock."""
    for record in _live(workspace, name):
        endpoint = endpoints.find(workspace, name)
        current = endpoint.deployment_id if endpoint else None
        if record.status is DeploymentStatus.RUNNING and record.deployment_id != current:
            if current is None:
                _decide(workspace, "undeployed", record, None)
            if current is None or _is_running(workspace, current):
                _stop(workspace, record)
        elif record.status is DeploymentStatus.STARTING:
            _resume(workspace, record)
    endpoint = endpoints.find(workspace, name)
    if endpoint is not None and not endpoint.running:
        endpoints.stop(workspace, endpoint)


def _is_running(workspace: Workspace, deployment_id: str) -> bool:
    """Whether the deployment has its traffic, so that the one before it may go."""
    return _kept(workspace, deployment_id).record.status is DeploymentStatus.RUNNING


def _resume(workspace: Workspace, record: DeploymentRecord) -> None:
    """Go on with a deployment whose command was killed, or leave it if it was not decided on."""
    before = [d for d in _live(workspace, record.endpoint) if d.status is DeploymentStatus.RUNNING]
    handle = _handle(record)
    ready = workspace.launcher(handle.launcher).poll([handle])[handle].ready
    why = DeploymentFailed(
        f"the command that started {record.deployment_id} was ended before it was ready",
        f"Deploy it again: `nbmlops deploy {record.model}:{record.version}`.",
    )
    if ready and _is_decided(workspace, "deployed", record):
        try:
            _take_traffic(workspace, record)
            return
        except DeploymentFailed as failure:
            why = failure
    _give_up(workspace, record, why, before[0].deployment_id if before else None)


def logs(workspace: Workspace, name: str, *, follow: bool = False) -> Iterator[str] | None:
    """Return the lines of a deployment's worker or an endpoint's front; ``None`` if it is none."""
    name = name.removeprefix("deployment/")
    kept = workspace.store.get(KIND, name, DeploymentRecord)
    if kept is not None:
        handle = _handle(kept.record)
    elif name.startswith("endpoint-") and (
        front := endpoints.find(workspace, name.removeprefix("endpoint-"))
    ):
        handle = endpoints.handle(front)
    else:
        return None
    return workspace.launcher(handle.launcher).logs(handle, follow=follow)
