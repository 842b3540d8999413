"""Traces: from a call, a deployment, a version or a run down to the commit and the cell."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec

from nbmlops import (
    calllog,
    calls,
    deployments,
    layout,
    models,
    notebook,
    rebuilding,
    records,
    runs,
    snapshot,
)
from nbmlops.errors import (
    ArtifactMissing,
    InvalidNotebook,
    NbmlopsError,
    UnknownModel,
    UnknownReference,
    UnknownRun,
)
from nbmlops.records import (
    CallRecord,
    DataRecord,
    DeploymentRecord,
    Environment,
    ModelVersion,
    RunRecord,
    StepRecord,
    Trace,
    TracedEnvironment,
    TracedSnapshot,
)
from nbmlops.workspace import Workspace


class _Chain(msgspec.Struct, kw_only=True):
    """The links found so far, and what should be there and is not."""

    call: CallRecord | None = None
    deployment: DeploymentRecord | None = None
    version: ModelVersion | None = None
    run: RunRecord | None = None
    from_run: bool = False
    missing: list[str]

    @property
    def maker(self) -> ModelVersion | None:
        """The version, unless one came from a run that has only made the very same again."""
        if self.from_run and self.version and self.run and self.version.run_id != self.run.run_id:
            return None
        return self.version


def trace(workspace: Workspace, reference: str) -> Trace:
    """Return the chain below a call, a deployment, a model version or a run.

    Raises
    ------
    UnknownReference
        When the reference is of another form.
    NbmlopsError
        When its first link is unknown; what is missing further down is named in the trace.
    """
    kind, _, name = _explicit(workspace, reference).partition("/")
    chain = _Chain(missing=[])
    if kind == "call":
        chain.call = calls.find(workspace, name)
        _deployment(workspace, chain, chain.call.deployment_id)
    elif kind == "deployment":
        _deployment(workspace, chain, name)
        if chain.deployment is None:
            raise UnknownReference(
                f"there is no deployment `{name}`", "See them: `nbmlops deployments --every`."
            )
    elif kind == "model":
        chain.version = models.find(workspace, name)
        _run(workspace, chain, chain.version)
    elif kind == "run":
        chain.run = runs.get(workspace, name)
        chain.from_run = True
        _version_of_run(workspace, chain, chain.run)
    else:
        raise _leads_nowhere(reference)
    return _told(workspace, chain)


def _explicit(workspace: Workspace, reference: str) -> str:
    """Return a bare id, or a model's version, with the kind that its form or the store tells.

    Raises
    ------
    UnknownReference
        When it can be none, or several.
    """
    if "/" in reference:
        return reference
    if calllog.is_call_id(reference):
        return f"call/{reference}"
    if ":" in reference or "@" in reference:
        return f"model/{reference}"
    found: list[str] = []
    if layout.is_id(reference):
        with contextlib.suppress(UnknownReference):
            found.append(f"deployment/{deployments.recorded(workspace, reference).deployment_id}")
        with contextlib.suppress(UnknownRun):
            found.append(f"run/{runs.find(workspace, reference).record.run_id}")
    if len(found) > 1:
        raise UnknownReference(
            f"`{reference[:80]}` may be {' or '.join(found)}", "Write which one is meant."
        )
    if not found:
        raise _leads_nowhere(reference)
    return found[0]


def _leads_nowhere(reference: str) -> UnknownReference:
    return UnknownReference(
        f"`{reference[:80]}` leads nowhere",
        "Write call/ID, deployment/ID, model/NAME:VERSION or run/ID.",
    )


def _deployment(workspace: Workspace, chain: _Chain, deployment_id: str) -> None:
    try:
        chain.deployment = deployments.recorded(workspace, deployment_id)
    except UnknownReference:
        # The store may have been lost; the ledger has decided.
        chain.deployment = rebuilding.deployment(workspace, deployment_id)
    if chain.deployment is None:
        if chain.call is not None:
            chain.missing.append(f"deployment/{deployment_id}")
            _version(workspace, chain, f"{chain.call.model}:{chain.call.version}")
        return
    body: dict[str, Any] = records.plain(chain.deployment)
    _version(workspace, chain, f"{body['model']}:{body['version']}")


def _version(workspace: Workspace, chain: _Chain, name: str) -> None:
    try:
        chain.version = models.find(workspace, name)
    except UnknownModel:
        chain.missing.append(f"model/{name}")
        return
    _run(workspace, chain, chain.version)


def _run(workspace: Workspace, chain: _Chain, version: ModelVersion) -> None:
    try:
        chain.run = runs.get(workspace, version.run_id)
        return
    except UnknownRun:
        pass
    try:
        chain.run = rebuilding.run(workspace, version)
    except ArtifactMissing:
        chain.missing.append(f"run/{version.run_id}")


def _version_of_run(workspace: Workspace, chain: _Chain, run: RunRecord) -> None:
    if run.model_versions:
        try:
            chain.version = models.find(workspace, run.model_versions[0])
        except UnknownModel:
            chain.missing.append(f"model/{run.model_versions[0]}")


def _told(workspace: Workspace, chain: _Chain) -> Trace:
    if chain.version is not None:
        (chain.version,) = models.aliased(workspace, [chain.version])
    found = _snapshot(workspace, chain)
    environment = _environment(workspace, chain)
    return Trace(
        call=None if chain.call is None else records.plain(chain.call),
        endpoint=_endpoint(chain),
        deployment=None if chain.deployment is None else records.plain(chain.deployment),
        model_version=None if chain.version is None else records.plain(chain.version),
        run=None if chain.run is None else records.plain(records.replace(chain.run, steps=())),
        snapshot=found,
        data=_data(chain),
        environment=environment,
        complete=not chain.missing,
        missing=tuple(chain.missing),
    )


def _endpoint(chain: _Chain) -> dict[str, Any] | None:
    if chain.deployment is None:
        return {"endpoint": chain.call.endpoint} if chain.call else None
    body: dict[str, Any] = records.plain(chain.deployment)
    return {"endpoint": body["endpoint"], "url": body.get("url")}


def _data(chain: _Chain) -> tuple[DataRecord, ...]:
    if chain.run is not None and chain.run.data:
        return chain.run.data
    return chain.version.data if chain.version else ()


def _snapshot(workspace: Workspace, chain: _Chain) -> TracedSnapshot | None:
    version, run = chain.maker, chain.run
    if version is None and run is None:
        return None
    commit = version.commit if version else run.commit if run else ""
    snapshot_id = version.snapshot if version else run.snapshot if run else ""
    if not snapshot.exists(workspace.repo, commit):
        chain.missing.append(f"commit/{commit}")
    elif not snapshot.is_held(workspace.repo, snapshot_id, commit):
        chain.missing.append(f"snapshot/{snapshot_id}")
    step = _step(chain)
    path = version.notebook if version else step.notebook if step else None
    blob = version.notebook_blob if version else step.notebook_blob if step else None
    if version is None and chain.version is not None and chain.version.notebook_blob == blob:
        version = chain.version  # made by another run, from the same notebook
    cell_id = version.cell_id if version else None
    cell = version.cell if version else None
    return TracedSnapshot(
        commit=commit,
        notebook=path,
        notebook_blob=blob,
        cell_id=cell_id,
        source=_source(workspace, chain, blob, cell),
        cell=cell,
        cell_is=version.cell_is if version else None,
        dirty=run.dirty if run else None,
        base_commit=run.base_commit if run else None,
    )


def _step(chain: _Chain) -> StepRecord | None:
    """Return the step of the run whose notebook made the version; else its last one."""
    steps = chain.run.steps if chain.run else ()
    wanted = chain.version.notebook if chain.version else None
    return next((step for step in steps if step.notebook == wanted), steps[-1] if steps else None)


def _source(
    workspace: Workspace, chain: _Chain, blob_id: str | None, position: int | None
) -> str | None:
    if blob_id is None:
        return None
    data = snapshot.blob(workspace.repo, blob_id)
    if data is None:
        chain.missing.append(f"notebook/{blob_id}")
        return None
    try:
        parsed = notebook.parse(data, blob_id)
    except InvalidNotebook:
        chain.missing.append(f"notebook/{blob_id}")
        return None
    tagged = parsed.tagged("train")
    for cell in parsed.cells:
        if cell.position == position:
            return cell.source
    return tagged.source if tagged else None


def _environment(workspace: Workspace, chain: _Chain) -> TracedEnvironment | None:
    kept = (
        next((a for a in chain.run.artifacts if a.kind == "environment"), None)
        if (chain.run)
        else None
    )
    digest = (
        chain.maker.files["environment"].digest if chain.maker else kept.digest if kept else None
    )
    if digest is None:
        return None
    try:
        made = records.load(workspace.artifacts.get(digest), Environment)
    except NbmlopsError:
        chain.missing.append(f"environment/{digest}")
        return None
    return TracedEnvironment(id=made.environment_id, packages=made.packages)
