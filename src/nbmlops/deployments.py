"""Deployments: a worker of one model version, behind an endpoint whose URL stays.

An endpoint is a job that runs a front, a deployment is a job that runs a worker. Deploying starts
the new worker, waits until it is ready, records the decision in the ledger, re-points the front,
and only then stops the worker before. Every prefix of that is a legal state that :func:`settle`
completes or rolls back.
"""

from __future__ import annotations

import hashlib
import http.client
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from nbmlops import environment, layout, ledger, models, records, snapshot
from nbmlops.errors import (
    CallFailed,
    DeploymentFailed,
    EndpointUnreachable,
    UnknownEndpoint,
    UnknownReference,
    nearest,
)
from nbmlops.records import (
    Cause,
    DeploymentRecord,
    DeploymentStatus,
    EndpointRecord,
    FrontSpec,
    JobHandle,
    JobSpec,
    JobStatus,
    LedgerEntry,
    ModelVersion,
    Resources,
    Route,
    RouteTable,
    Scale,
    Status,
    WorkerSpec,
    replace,
)
from nbmlops.store import Kept
from nbmlops.workspace import Workspace

ENDPOINT = "endpoint"
DEPLOYMENT = "deployment"
_READY_S = 90.0
_WORKER_PORT = 8080
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
    place = workspace.launcher(launcher)
    place.check()
    with workspace.exclusively(f"endpoint-{version.model}"):
        current = _current(workspace, version.model)
        if current is not None and current.version == version.version:
            live = look(workspace, current)
            if live.status is DeploymentStatus.RUNNING and live.ready:
                return live
        return _deploy(workspace, version, launcher, current)


def _current(workspace: Workspace, endpoint: str) -> DeploymentRecord | None:
    kept = workspace.store.get(ENDPOINT, endpoint, EndpointRecord)
    if kept is None or kept.record.deployment_id is None:
        return None
    found = workspace.store.get(DEPLOYMENT, kept.record.deployment_id, DeploymentRecord)
    return None if found is None else found.record


def _deploy(
    workspace: Workspace, version: ModelVersion, launcher: str, before: DeploymentRecord | None
) -> DeploymentRecord:
    endpoint = _endpoint(workspace, version.model, launcher)
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
    job = _worker(workspace, version, deployment_id)
    _keep_deployment(workspace, record)
    try:
        workspace.launcher(launcher).launch(job)
        status = _until_ready(workspace, record)
        _decide(workspace, "deployed", record, version, before)
        endpoint = _point(workspace, endpoint, record)
        _serve(workspace, endpoint, _table(workspace, endpoint, record, version, status))
    except DeploymentFailed as failure:
        _give_up(workspace, record, failure)
        raise
    running = replace(record, status=DeploymentStatus.RUNNING, ready=1)
    _keep_deployment(workspace, running)
    if before is not None and before.deployment_id != deployment_id:
        _stop(workspace, before)
    return running


# --- the worker ---------------------------------------------------------------------------------


def _worker(workspace: Workspace, version: ModelVersion, deployment_id: str) -> JobSpec:
    paths = workspace.home.job(deployment_id)
    file = version.files["model"]
    workspace.artifacts.copy_to(file.digest, paths.inbox / "model.skops")
    spec = WorkerSpec(
        deployment_id=deployment_id,
        model=version.model,
        version=version.version,
        format=version.format,
        model_file="model.skops",
        model_digest=file.digest,
        schema=models.schema(workspace, version),
    )
    layout.write_file(paths.inbox / layout.SPEC_FILE, records.dump(spec))
    paths.outbox.mkdir(parents=True, exist_ok=True)
    return JobSpec(
        name=deployment_id,
        command=(_interpreter(workspace, version), "-m", "nbmlops.worker"),
        inbox=paths.inbox.as_uri(),
        outbox=paths.outbox.as_uri(),
        resources=Resources(),
        port=_WORKER_PORT,
        ready_path="/v2/health/ready",
    )


def _interpreter(workspace: Workspace, version: ModelVersion) -> str:
    """Return the interpreter of the version's environment; made again when it is gone."""
    made = models.environment(workspace, version)
    if made.source is None or Path(made.python).exists():
        return made.python
    path = (Path(workspace.project_dir) / made.source).as_posix()
    lock = snapshot.read(workspace.repo, version.commit, path)
    plan = environment.plan(lock[1] if lock else None)
    return environment.ensure(plan, workspace.cache, workspace.say).python


def _until_ready(workspace: Workspace, record: DeploymentRecord) -> JobStatus:
    handle = _handle(record)
    launcher = workspace.launcher(record.launcher)
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        status = launcher.poll([handle])[handle]
        if status.ready:
            return status
        if status.status.is_final:
            cause = status.cause.message if status.cause else "it ended"
            raise DeploymentFailed(
                f"{record.deployment_id} did not start: {cause}",
                f"See what it wrote: `nbmlops logs {record.deployment_id}`.",
                deployment_id=record.deployment_id,
            )
        time.sleep(0.05)
    raise DeploymentFailed(
        f"{record.deployment_id} was not ready within {_READY_S:.0f} s",
        f"See what it wrote: `nbmlops logs {record.deployment_id}`.",
        deployment_id=record.deployment_id,
    )


def _handle(record: DeploymentRecord) -> JobHandle:
    return record.handle or JobHandle(launcher=record.launcher, name=record.deployment_id)


def _give_up(workspace: Workspace, record: DeploymentRecord, failure: DeploymentFailed) -> None:
    workspace.launcher(record.launcher).cancel(_handle(record))
    failed = replace(
        record,
        status=DeploymentStatus.FAILED,
        stopped_at=workspace.now(),
        cause=Cause(code=failure.code, message=failure.message, hint=failure.hint),
    )
    _keep_deployment(workspace, failed)


def _stop(workspace: Workspace, record: DeploymentRecord) -> None:
    workspace.launcher(record.launcher).cancel(_handle(record))
    stopped = replace(
        record, status=DeploymentStatus.STOPPED, ready=0, desired=0, stopped_at=workspace.now()
    )
    _keep_deployment(workspace, stopped)


# --- the endpoint -------------------------------------------------------------------------------


def _endpoint(workspace: Workspace, name: str, launcher: str) -> EndpointRecord:
    kept = workspace.store.get(ENDPOINT, name, EndpointRecord)
    if kept is not None:
        return kept.record
    port = _free_port()
    record = EndpointRecord(
        endpoint=name,
        launcher=launcher,
        port=port,
        url=f"http://127.0.0.1:{port}",
        revision=0,
        deployment_id=None,
        running=False,
        created_at=workspace.now(),
        handle=JobHandle(launcher=launcher, name=f"endpoint-{name}"),
    )
    workspace.store.swap(ENDPOINT, name, record, expected=0, key=f"{ENDPOINT}:{name}:made")
    return record


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _point(
    workspace: Workspace, endpoint: EndpointRecord, record: DeploymentRecord | None
) -> EndpointRecord:
    """Record where the endpoint's traffic is to go; the front follows."""
    kept = workspace.store.get(ENDPOINT, endpoint.endpoint, EndpointRecord)
    pointed = replace(
        endpoint,
        revision=endpoint.revision + 1,
        deployment_id=record.deployment_id if record else None,
        running=record is not None,
    )
    workspace.store.swap(
        ENDPOINT,
        endpoint.endpoint,
        pointed,
        expected=kept.revision if kept else 0,
        key=f"{ENDPOINT}:{endpoint.endpoint}:{pointed.revision}",
    )
    return pointed


def _table(
    workspace: Workspace,
    endpoint: EndpointRecord,
    record: DeploymentRecord,
    version: ModelVersion,
    status: JobStatus,
) -> RouteTable:
    route = Route(
        deployment_id=record.deployment_id,
        role="champion",
        share=100.0,
        address=str(status.address),
        model=version.model,
        version=version.version,
        commit=version.commit,
        schema=models.schema(workspace, version),
    )
    return RouteTable(endpoint=endpoint.endpoint, revision=endpoint.revision, routes=(route,))


def _front_handle(endpoint: EndpointRecord) -> JobHandle:
    return endpoint.handle or JobHandle(
        launcher=endpoint.launcher, name=f"endpoint-{endpoint.endpoint}"
    )


def _serve(workspace: Workspace, endpoint: EndpointRecord, table: RouteTable) -> None:
    """Hand the table to the endpoint's front, which is started where it is not up."""
    handle = _front_handle(endpoint)
    launcher = workspace.launcher(endpoint.launcher)
    paths = workspace.home.job(handle.name)
    layout.write_file(paths.inbox / layout.ROUTES_FILE, records.dump(table))
    if launcher.poll([handle])[handle].status is Status.RUNNING and _hand_over(
        workspace, endpoint, table
    ):
        return
    token = workspace.home.control_token(endpoint.endpoint)
    layout.write_file(token, secrets.token_urlsafe(32).encode(), mode=0o600)
    spec = FrontSpec(
        endpoint=endpoint.endpoint,
        calls=str(workspace.home.calls),
        control_digest=hashlib.sha256(token.read_bytes()).hexdigest(),
    )
    layout.write_file(paths.inbox / layout.SPEC_FILE, records.dump(spec))
    paths.outbox.mkdir(parents=True, exist_ok=True)
    launcher.launch(
        JobSpec(
            name=handle.name,
            command=(sys.executable, "-m", "nbmlops.front"),
            inbox=paths.inbox.as_uri(),
            outbox=paths.outbox.as_uri(),
            port=endpoint.port,
            exposed=True,
            ready_path="/health/ready",
            replicas=Scale(desired=1),
        )
    )
    _until_served(workspace, endpoint)


def _until_served(workspace: Workspace, endpoint: EndpointRecord) -> None:
    handle = _front_handle(endpoint)
    launcher = workspace.launcher(endpoint.launcher)
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        status = launcher.poll([handle])[handle]
        if status.ready:
            return
        if status.status.is_final:
            cause = status.cause.message if status.cause else "it ended"
            raise DeploymentFailed(
                f"the endpoint {endpoint.endpoint} did not start on {endpoint.url}: {cause}",
                f"See what it wrote: `nbmlops logs {handle.name}`; another program may have"
                f" port {endpoint.port}.",
            )
        time.sleep(0.05)
    raise DeploymentFailed(
        f"the endpoint {endpoint.endpoint} was not ready within {_READY_S:.0f} s",
        f"See what it wrote: `nbmlops logs {handle.name}`.",
    )


def _hand_over(workspace: Workspace, endpoint: EndpointRecord, table: RouteTable) -> bool:
    """Give a running front its new table; return whether it has confirmed."""
    token = workspace.home.control_token(endpoint.endpoint)
    if not token.exists():
        return False
    headers = {
        "Authorization": f"Bearer {token.read_text().strip()}",
        "Content-Type": "application/json",
    }
    try:
        status, body = _request(
            endpoint.url, "PUT", "/control/routes", records.dump(table), headers
        )
    except EndpointUnreachable:
        return False
    if status != 200:
        raise DeploymentFailed(
            f"the endpoint {endpoint.endpoint} refused its new routes: {body[:200]!r}",
            f"Start it anew: `nbmlops undeploy {endpoint.endpoint}`, then deploy again.",
        )
    return msgspec.json.decode(body).get("revision") == table.revision


def undeploy(workspace: Workspace, endpoint: str, *, patience_s: float = 30.0) -> DeploymentRecord:
    """Stop an endpoint and its deployment; the URL stays reserved for the next one.

    Raises
    ------
    UnknownEndpoint
        When there is no such endpoint, or it is not up.
    """
    with workspace.exclusively(f"endpoint-{layout.checked_name(endpoint, 'endpoint')}"):
        kept = workspace.store.get(ENDPOINT, endpoint, EndpointRecord)
        current = _current(workspace, endpoint)
        if kept is None or current is None:
            raise unknown_endpoint(workspace, endpoint)
        _decide(workspace, "undeployed", current, None, None)
        _point(workspace, kept.record, None)
        front = _front_handle(kept.record)
        workspace.launcher(front.launcher).cancel(front)
        _stop(workspace, current)
        deadline = time.monotonic() + patience_s
        handles = [front, _handle(current)]
        while time.monotonic() < deadline:
            seen = workspace.launcher(current.launcher).poll(handles)
            if all(status.status.is_final for status in seen.values()):
                break
            time.sleep(0.05)
        return get(workspace, current.deployment_id)


def unknown_endpoint(workspace: Workspace, endpoint: str) -> UnknownEndpoint:
    """Return the error for an endpoint that is not up."""
    known = [
        kept.record.endpoint
        for kept in workspace.store.page(ENDPOINT, EndpointRecord, limit=1000)
        if kept.record.running
    ]
    hint = nearest(endpoint, known) if known else f"Deploy one: `nbmlops deploy {endpoint}`."
    return UnknownEndpoint(f"no endpoint `{endpoint}` is up", hint, endpoint=endpoint)


def _decide(
    workspace: Workspace,
    kind: str,
    record: DeploymentRecord,
    version: ModelVersion | None,
    before: DeploymentRecord | None,
) -> None:
    body: dict[str, Any] = {
        "endpoint": record.endpoint,
        "deployment_id": record.deployment_id,
        "model": record.model,
        "version": record.version,
        "version_digest": version.digest if version else None,
        "commit": record.commit,
        "launcher": record.launcher,
        "replaces": before.deployment_id if before else None,
    }

    def make(earlier: list[LedgerEntry]) -> dict[str, Any] | LedgerEntry:
        for entry in earlier:
            same = entry.body.get("deployment_id") == record.deployment_id
            if entry.kind == kind and same:
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
    kept = workspace.store.get(DEPLOYMENT, deployment_id, DeploymentRecord)
    if kept is None:
        raise UnknownReference(
            f"there is no deployment `{deployment_id}`", "See them: `nbmlops deployments`."
        )
    return kept


def _keep_deployment(workspace: Workspace, record: DeploymentRecord) -> None:
    kept = workspace.store.get(DEPLOYMENT, record.deployment_id, DeploymentRecord)
    workspace.store.swap(
        DEPLOYMENT,
        record.deployment_id,
        record,
        expected=kept.revision if kept else 0,
        key=f"{DEPLOYMENT}:{record.deployment_id}:{record.status.value}:"
        f"{kept.revision if kept else 0}",
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
    kept = workspace.store.page(
        DEPLOYMENT, DeploymentRecord, limit=1000, status=None if every else _LIVE
    )
    return [look(workspace, item.record) for item in kept]


def settle(workspace: Workspace) -> None:
    """Complete or roll back what a killed command has left half done."""
    for kept in workspace.store.page(DEPLOYMENT, DeploymentRecord, limit=1000, status=_LIVE):
        record = kept.record
        age_s = (workspace.now() - record.created_at).total_seconds()
        if record.status is DeploymentStatus.STARTING and age_s < 2 * _READY_S:
            continue
        current = _current(workspace, record.endpoint)
        if current is not None and current.deployment_id == record.deployment_id:
            if record.status is DeploymentStatus.STARTING:
                _keep_deployment(workspace, replace(record, status=DeploymentStatus.RUNNING))
            continue
        _stop(workspace, record)


def logs(workspace: Workspace, name: str, *, follow: bool = False) -> Iterator[str] | None:
    """Return the lines of a deployment's worker or an endpoint's front; ``None`` if it is none."""
    name = name.removeprefix("deployment/")
    endpoint = name.removeprefix("endpoint-")
    if (front := workspace.store.get(ENDPOINT, endpoint, EndpointRecord)) is not None:
        handle = _front_handle(front.record)
    elif (kept := workspace.store.get(DEPLOYMENT, name, DeploymentRecord)) is not None:
        handle = _handle(kept.record)
    else:
        return None
    return workspace.launcher(handle.launcher).logs(handle, follow=follow)


# --- calling ------------------------------------------------------------------------------------


def call(workspace: Workspace, endpoint: str, payload: bytes) -> bytes:
    """Send a prediction to an endpoint and return the body of its answer.

    Raises
    ------
    UnknownEndpoint
        When it is not up.
    EndpointUnreachable
        When it does not answer.
    CallFailed
        When it answers with an error, whose message it carries on.
    """
    kept = workspace.store.get(ENDPOINT, endpoint, EndpointRecord)
    if kept is None or not kept.record.running:
        raise unknown_endpoint(workspace, endpoint)
    status, body = _request(
        kept.record.url, "POST", "/predict", payload, {"Content-Type": "application/json"}
    )
    if status == 200:
        return body
    raise _call_error(kept.record, status, body)


def _call_error(endpoint: EndpointRecord, status: int, body: bytes) -> CallFailed:
    try:
        told = msgspec.json.decode(body)["error"]
        message, hint = str(told["message"]), str(told.get("hint") or "")
        context = {"status": status, "code": str(told.get("code"))}
    except (msgspec.DecodeError, KeyError, TypeError):
        message, hint, context = f"{endpoint.url} answered {status}", "", {"status": status}
    error = InvalidCall if status in (400, 413, 415, 422) else CallFailed
    return error(message, hint or f"See the schema: {endpoint.url}/docs", **context)


class InvalidCall(CallFailed):
    """An endpoint refused what it was sent."""

    code = "invalid-records"
    exit_code = 2


def _request(
    url: str, method: str, path: str, body: bytes, headers: dict[str, str]
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise EndpointUnreachable(
            f"{url} does not answer: {error}", "See what is up: `nbmlops deployments`."
        ) from error
    finally:
        connection.close()
