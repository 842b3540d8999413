"""Steps that need not run again: found by a key over everything that their result follows from.

A step's key covers its notebook, its parameters, the environment, the files of the commit, the
data, what ``[models]`` says, and the keys of the steps before it. What a notebook fetches from
elsewhere (a URL, a database, the clock) is not covered: `--force` runs it again.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

import msgspec

from nbmlops import digests, environment, layout, records, snapshot
from nbmlops.errors import Conflict
from nbmlops.project import StepSettings
from nbmlops.records import ArtifactRecord, CachedStep, DataRecord, RunRecord, RunResult, StepSpec
from nbmlops.workspace import Workspace

KIND = "step"
# Files that no notebook reads, or that the key covers in another way.
_NEVER = {
    layout.SETTINGS_FILE,
    ".gitignore",
    ".gitattributes",
    ".pre-commit-config.yaml",
    *environment.LOCK_FILES,
}
_SERVED = ("loader", "command", "image")
# Files that count for a step only where its notebook names them.
_WHEN_NAMED = {".ipynb", ".md", ".rst"}


def keyed(
    workspace: Workspace,
    commit: str,
    steps: Iterable[StepSpec],
    settings: Iterable[StepSettings],
    environment_id: str,
    data: Iterable[DataRecord],
) -> tuple[StepSpec, ...]:
    """Return the steps with their keys; each comes after those that it needs."""
    files = {
        path: meta
        for path, meta in snapshot.listing(workspace.repo, commit).items()
        if PurePosixPath(path).name not in _NEVER
    }
    inputs = {step.step: step.inputs for step in settings}
    read = sorted((item.name, item.digest) for item in data)
    # A version is told it when it is logged; its bounds belong to whoever judges its answers.
    served = {
        name: {key: msgspec.to_builtins(getattr(entry, key)) for key in _SERVED}
        for name, entry in workspace.settings.models.items()
        if entry.is_own_kind
    }
    keys: dict[str, str] = {}
    done: list[StepSpec] = []
    for step in steps:
        own = _files_of(workspace, step, inputs.get(step.name), files)
        covered = [
            1,  # counts what a key covers; another way to make keys gets another number
            step.name,
            step.notebook_blob,
            step.parameters,
            step.outputs,
            environment_id,
            workspace.project_dir,
            digests.of_tree(own.items()),
            read,
            [keys[name] for name in step.after],
            *([served] if served else []),
        ]
        keys[step.name] = digests.of_bytes(msgspec.json.encode(covered, order="sorted"))
        done.append(records.replace(step, key=keys[step.name]))
    return tuple(done)


def _files_of(
    workspace: Workspace,
    step: StepSpec,
    inputs: tuple[str, ...] | None,
    files: Mapping[str, str],
) -> dict[str, str]:
    """Return the files of the commit that the step's result follows from."""
    top = PurePosixPath(workspace.project_dir)
    if inputs is not None:
        patterns = [str(top / pattern) for pattern in inputs]
        return {
            path: meta
            for path, meta in files.items()
            if any(_matches(path, pattern) for pattern in patterns)
        }
    source = (snapshot.blob(workspace.repo, step.notebook_blob) or b"").decode(errors="replace")
    return {
        path: meta
        for path, meta in files.items()
        if PurePosixPath(path).suffix not in _WHEN_NAMED or PurePosixPath(path).name in source
    }


def _matches(path: str, pattern: str) -> bool:
    """Return whether a pattern names the file, or a folder above it."""
    return fnmatch.fnmatchcase(path, pattern) or path.startswith(f"{pattern.rstrip('/')}/")


def find(workspace: Workspace, steps: Iterable[StepSpec]) -> dict[str, CachedStep]:
    """Return those of the steps that succeeded before and whose files are all still there."""
    found: dict[str, CachedStep] = {}
    for step in steps:
        kept = workspace.store.get(KIND, step.key, CachedStep)
        if kept is not None and all(
            workspace.artifacts.has(artifact.digest) for artifact in kept.record.artifacts
        ):
            found[step.name] = kept.record
    return found


def get(workspace: Workspace, key: str) -> CachedStep | None:
    """Return the step that was kept under a key."""
    kept = workspace.store.get(KIND, key, CachedStep)
    return None if kept is None else kept.record


def keep(
    workspace: Workspace,
    run: RunRecord,
    steps: Iterable[StepSpec],
    result: RunResult,
    artifacts: Iterable[ArtifactRecord],
) -> None:
    """Keep what each step that succeeded in this run has left; the newest result stands."""
    by_name = {artifact.name: artifact for artifact in artifacts}
    outcomes = {outcome.step: outcome for outcome in result.outcomes}
    fared = {record.name: record for record in result.steps}
    for step in steps:
        outcome = outcomes.get(step.name)
        record = fared.get(step.name)
        if not step.key or outcome is None or record is None or step.cached_from:
            continue
        if record.status is not records.Status.SUCCEEDED:
            continue
        cached = CachedStep(
            key=step.key,
            run_id=run.run_id,
            record=record,
            metrics=outcome.metrics,
            artifacts=tuple(by_name[name] for name in outcome.files if name in by_name),
            data=outcome.data,
            models=tuple(model for model in result.models if model.step == step.name),
        )
        earlier = workspace.store.get(KIND, step.key, CachedStep)
        try:
            workspace.store.swap(
                KIND,
                step.key,
                cached,
                expected=earlier.revision if earlier else 0,
                key=f"step:{run.run_id}:{run.attempts}:{step.name}",
            )
        except Conflict:
            continue  # somebody else's result of the same step stands; it is as good
