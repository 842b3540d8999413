"""Models: a version is registered when its whole run has succeeded; the ledger numbers it."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec

from nbmlops import digests, ledger, records
from nbmlops.errors import ArtifactMissing, Conflict, UnknownModel, nearest
from nbmlops.records import (
    ArtifactRecord,
    Environment,
    LedgerEntry,
    LoggedModel,
    ModelSchema,
    ModelVersion,
    RunRecord,
    RunResult,
    Sample,
)
from nbmlops.store import Kept
from nbmlops.workspace import Workspace

KIND = "version"
_ALL = 100_000


def register(
    workspace: Workspace, run: RunRecord, result: RunResult, run_digest: str
) -> tuple[str, ...]:
    """Give each model that the run logged its version; the same digest keeps the one it has."""
    environment = workspace.artifacts.get(_environment_file(run).digest)
    names: list[str] = []
    for logged in result.models:
        version = _append(workspace, run, logged, environment, run_digest)
        keep(workspace, version)
        names.append(version.name)
    return tuple(names)


def _file(run: RunRecord, name: str) -> ArtifactRecord:
    for artifact in run.artifacts:
        if artifact.name == name and artifact.kind == "model":
            return artifact
    raise ArtifactMissing(f"the run left no {name}", f"See: `nbmlops logs {run.run_id}`.")


def _environment_file(run: RunRecord) -> ArtifactRecord:
    return next(artifact for artifact in run.artifacts if artifact.kind == "environment")


def _append(
    workspace: Workspace, run: RunRecord, logged: LoggedModel, environment: bytes, run_digest: str
) -> ModelVersion:
    files = {role: _file(run, name) for role, name in logged.files.items()}
    files["environment"] = _environment_file(run)
    identity = {
        "model": logged.name,
        "format": logged.format,
        "environment": records.load(environment, Environment).environment_id,
        "files": {role: files[role].digest for role in ("model", "schema")},
    }
    digest = digests.of_bytes(msgspec.json.encode(identity, order="sorted"))

    def make(earlier: list[LedgerEntry]) -> dict[str, Any] | LedgerEntry:
        own = [
            e
            for e in earlier
            if e.kind == KIND
            and e.body.get("model") == logged.name
            and isinstance(e.body.get("version"), int)
        ]
        for entry in own:
            if entry.body.get("digest") == digest:
                return entry
        version = ModelVersion(
            model=logged.name,
            version=1 + max([_highest(workspace, logged.name), *(e.body["version"] for e in own)]),
            digest=digest,
            run_id=run.run_id,
            commit=run.commit,
            created_at=workspace.now(),
            metrics=logged.metrics,
            format=logged.format,
            files=files,
            environment_id=run.environment_id,
            notebook=logged.notebook,
            notebook_blob=logged.notebook_blob,
            cell_id=logged.cell_id,
            cell=logged.cell,
            cell_is="tagged" if logged.tagged else "log_model",
            snapshot=run.snapshot,
            run_digest=run_digest,
            data=run.data,
            author=run.author,
            probe=logged.probe,
        )
        return records.plain(version)

    entry = ledger.append(workspace.repo, KIND, make, workspace.now())
    return msgspec.convert(entry.body, ModelVersion)


def _highest(workspace: Workspace, model: str) -> int:
    """Return the highest number that the store knows: one is never given twice."""
    kept = workspace.store.page(KIND, ModelVersion, limit=_ALL)
    return max((item.record.version for item in kept if item.record.model == model), default=0)


def keep(workspace: Workspace, version: ModelVersion) -> None:
    """Write a version of the ledger into the store's index of versions.

    Raises
    ------
    Conflict
        When the store has another model under that name.
    """
    found = workspace.store.get(KIND, version.name, ModelVersion)
    if found is not None and found.record.digest != version.digest:
        raise Conflict(
            f"ledger and store have different models as {version.name}", "See: `nbmlops doctor`."
        )
    if found is None:
        key = f"{KIND}:{version.name}:{version.digest}"
        workspace.store.swap(KIND, version.name, version, expected=0, key=key)


def index(workspace: Workspace) -> int:
    """Write all versions of the ledger into the store; return how many were missing there."""
    missing = 0
    for version in recorded(workspace):
        if workspace.store.get(KIND, version.name, ModelVersion) is None:
            keep(workspace, version)
            missing += 1
    return missing


def recorded(workspace: Workspace) -> list[ModelVersion]:
    """Return the versions of the ledger; an entry that is none is passed over."""
    found: list[ModelVersion] = []
    for entry in ledger.entries(workspace.repo):
        if entry.kind == KIND:
            with contextlib.suppress(msgspec.ValidationError):
                found.append(msgspec.convert(entry.body, ModelVersion))
    return found


def versions(workspace: Workspace, model: str | None = None) -> list[ModelVersion]:
    """Return the versions, of one model or all, newest first.

    Raises
    ------
    UnknownModel
        When the named model has none.
    """
    kept: list[Kept[ModelVersion]] = workspace.store.page(KIND, ModelVersion, limit=_ALL)
    if not kept and index(workspace):
        kept = workspace.store.page(KIND, ModelVersion, limit=_ALL)
    found = [item.record for item in kept if model is None or item.record.model == model]
    if model is not None and not found:
        known = {item.record.model for item in kept}
        raise UnknownModel(
            f"there is no model `{model}`",
            nearest(model, known) if known else "Train one: `nbmlops train`.",
            model=model,
        )
    return found  # as the store counts them: a clock that was set back has no say


def find(workspace: Workspace, reference: str) -> ModelVersion:
    """Return the version that ``NAME`` (its newest) or ``NAME:V`` names.

    Raises
    ------
    UnknownModel
        When there is none.
    """
    name, colon, number = reference.partition(":")
    found = versions(workspace, name)
    if not colon:
        return max(found, key=lambda version: version.version)
    for version in found:
        if number == str(version.version):
            return version
    raise UnknownModel(
        f"model `{name}` has no version `{number}`",
        f"It has {', '.join(str(version.version) for version in found[:10])}.",
        model=reference,
    )


def schema(workspace: Workspace, version: ModelVersion) -> ModelSchema:
    """Return what the version takes and answers."""
    return records.load(workspace.artifacts.get(version.files["schema"].digest), ModelSchema)


def sample(workspace: Workspace, version: ModelVersion) -> Sample | None:
    """Return rows with the version's own predictions for them, if it has any."""
    file = version.files.get("sample")
    return None if file is None else records.load(workspace.artifacts.get(file.digest), Sample)


def environment(workspace: Workspace, version: ModelVersion) -> Environment:
    """Return the environment that the version was trained in."""
    return records.load(workspace.artifacts.get(version.files["environment"].digest), Environment)
