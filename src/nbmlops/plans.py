"""Plans: what a command would send to a launcher, and what that would change; nothing is sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nbmlops import (
    decisions,
    deployments,
    endpoints,
    layout,
    models,
    pipelines,
    sites,
    submission,
    workers,
)
from nbmlops.pipelines import Pipeline
from nbmlops.records import (
    DeploymentStatus,
    EndpointRecord,
    JobHandle,
    JobSpec,
    Plan,
    PlanChange,
    RunSpec,
    replace,
)
from nbmlops.workspace import Workspace

# Stands for the part of a name that is drawn when something is sent.
_DRAWN = "plan"


def train(
    workspace: Workspace, pipeline: Pipeline, given: Mapping[str, str], *, launcher: str
) -> Plan:
    """Return what a run of a pipeline would send.

    Raises
    ------
    NbmlopsError
        When the work tree, a notebook, a parameter or the lock is not fit to run.
    """
    taken = submission.capture(workspace)
    submission.refuse_secrets(workspace, given)
    steps, _ = pipelines.steps(workspace, taken.commit, pipeline, dict(given))
    made = sites.planned(workspace, launcher, taken.commit)
    name = f"{pipeline.name}-{_DRAWN}"
    spec = RunSpec(
        run_id=name,
        pipeline=pipeline.name,
        project_dir=workspace.project_dir,
        commit=taken.commit,
        steps=steps,
        python=made.python,
        environment=made,
        secrets=workspace.settings.project.secrets,
    )
    job = submission.described(workspace, name, spec, pipeline.settings.resources)
    documents = _documents(workspace.launcher(launcher).planned(job))
    return Plan(
        command="train",
        launcher=launcher,
        subject=pipeline.name,
        documents=documents,
        changes=tuple(_new(documents)),
        live=False,
    )


def deploy(
    workspace: Workspace, reference: str, *, endpoint: str | None, launcher: str | None
) -> Plan:
    """Return what a deployment of a version would send, held against what serves now.

    Raises
    ------
    UnknownModel
        When there is no such version.
    InvalidName
        When the endpoint's name is not one.
    """
    version = models.find(workspace, reference)
    name = layout.checked_name(endpoint or version.model, "endpoint")
    launcher = launcher or endpoints.launcher_of(workspace, name)
    live = deployments.serves(workspace, version, name)
    if live is not None and live.launcher == launcher:
        return Plan(
            command="deploy",
            launcher=launcher,
            subject=f"{version.name} at {name}",
            documents=(),
            changes=(),
            live=True,
        )
    worker = workers.planned(workspace, version, f"{version.model}-{_DRAWN}", launcher)
    found = endpoints.find(workspace, name) or _unborn(workspace, name, launcher)
    moved = replace(found, launcher=launcher, handle=None)
    front = endpoints.described(workspace, moved, *sites.tool_planned(workspace, launcher))
    there = workspace.launcher(launcher)
    changes: list[PlanChange] = []
    documents: list[dict[str, Any]] = []
    standing = False
    for job in (worker, front):
        sent = _documents(there.planned(job))
        documents += sent
        stands = _documents(there.live(_handle(launcher, job)))
        standing = standing or bool(stands)
        changes += _changes(stands, sent)
    changes += _stopped(workspace, name)
    return Plan(
        command="deploy",
        launcher=launcher,
        subject=f"{version.name} at {name}",
        documents=tuple(documents),
        changes=tuple(changes),
        live=standing,
    )


def rbac(workspace: Workspace) -> Plan:
    """Return the least Role that a person needs for what is sent to a cluster."""
    from nbmlops.launchers.kubernetes import rbac as roles

    namespace = workspace.settings.kubernetes.namespace or "default"
    return Plan(
        command="rbac",
        launcher="kubernetes",
        subject=namespace,
        documents=(roles.role(namespace),),
        changes=(),
        live=False,
        output="yaml",
    )


def _handle(launcher: str, job: JobSpec) -> JobHandle:
    return JobHandle(launcher=launcher, name=job.name)


def _unborn(workspace: Workspace, name: str, launcher: str) -> EndpointRecord:
    """Return an endpoint that there never was; its port is drawn when it is made."""
    return EndpointRecord(
        endpoint=name,
        launcher=launcher,
        port=0,
        url="",
        revision=0,
        deployment_id=None,
        running=False,
        created_at=workspace.now(),
        place=decisions.place(workspace),
    )


def _stopped(workspace: Workspace, endpoint: str) -> Iterator[PlanChange]:
    """Yield what would be stopped once the new version has the traffic."""
    current = deployments.pointed(workspace, endpoint)
    if current is not None and current.status is DeploymentStatus.RUNNING:
        was = f"{current.model}:{current.version} has the traffic"
        yield PlanChange(
            object=current.deployment_id, field="", was=was, becomes="stopped at the end"
        )


def _documents(found: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
    return tuple(dict(one) for one in found)


def _named(document: Mapping[str, Any]) -> str:
    """Return how people call a document: its kind and its name."""
    about = document.get("metadata")
    if isinstance(about, Mapping):
        return f"{document.get('kind')}/{about.get('name')}"
    return str(document.get("name") or "process")


def _new(documents: Sequence[Mapping[str, Any]]) -> Iterator[PlanChange]:
    for document in documents:
        yield PlanChange(object=_named(document), field="", was=None, becomes="new")


def _changes(
    stands: Sequence[Mapping[str, Any]], sent: Sequence[Mapping[str, Any]]
) -> Iterator[PlanChange]:
    """Yield the fields in which what stands differs from what would be sent."""
    known = {_named(one): one for one in stands}
    for document in sent:
        name = _named(document)
        if name not in known:
            yield from _new([document])
            continue
        for field, was, becomes in _differences(known[name], document, ""):
            yield PlanChange(object=name, field=field, was=was, becomes=becomes)


def _differences(was: Any, becomes: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(was, Mapping) and isinstance(becomes, Mapping):
        for key in sorted({*was, *becomes}):
            below = f"{path}.{key}" if path else str(key)
            yield from _differences(was.get(key), becomes.get(key), below)
    elif was != becomes:
        yield path, was, becomes
