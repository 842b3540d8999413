"""What can stand where somebody is typing: commands, options, and the project's own names.

Where names come from is told by what an argument is called in the table; a project that cannot be
read completes nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, get_args

from nbmlops import commands, parser
from nbmlops.commands import Command, Context
from nbmlops.errors import NbmlopsError

if TYPE_CHECKING:
    from nbmlops.workspace import Workspace

_NEWEST = 50


def candidates(typed: str, context: Context) -> list[str]:
    """Return the words that the last word of ``typed`` may become, none when nothing fits.

    ``typed`` is what stands before the cursor, without the program's name.
    """
    words = typed.split(" ")
    done, last = words[:-1], words[-1]
    if not done:
        found: Iterable[str] = parser.command_names()
    else:
        row = next((row for row in commands.TABLE if row.name == done[0]), None)
        if row is None:
            return []
        asked = _asked_option(row, done[-1]) if len(done) > 1 else None
        if asked is None and last.startswith("-"):
            found = parser.options_of(row.name)
        else:
            name = asked or _asked_position(row, done[1:])
            found = _values(name, row, done, last, context) if name else []
    return [text for text in dict.fromkeys(found) if text.startswith(last)]


def _asked_option(row: Command, before: str) -> str | None:
    """Return the parameter whose value follows ``before``, if that is an option with a value."""
    for parameter in row.parameters:
        names = {f"--{parameter.name}", f"--{parameter.name.replace('_', '-')}"}
        names.add(row.short.get(parameter.name, ""))
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and before in names:
            return None if parameter.annotation is bool else parameter.name
    return None


def _asked_position(row: Command, done: list[str]) -> str | None:
    """Return the positional parameter that comes next after what has been typed."""
    positional = [p for p in row.parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    count, skip = 0, False
    for word in done:
        if skip:
            skip = False
        elif word.startswith("-"):
            skip = _asked_option(row, word) is not None
        elif word:
            count += 1
    if count < len(positional):
        return positional[count].name
    return positional[-1].name if positional and _takes_many(positional[-1]) else None


def _takes_many(parameter: inspect.Parameter) -> bool:
    many = str(parameter.annotation).startswith(("tuple[", "list["))
    return many or parameter.kind is inspect.Parameter.VAR_POSITIONAL


def _values(name: str, row: Command, done: list[str], last: str, context: Context) -> list[str]:
    try:
        if chosen := _literals(name, row):
            return chosen
        if name == "param":
            return _parameters(row, done, last, context)
        source = _SOURCES.get(name)
        return source(context.workspace()) if source else []
    except (NbmlopsError, OSError, ValueError):
        return []  # nobody is told of a broken project by a Tab


def _literals(name: str, row: Command) -> list[str]:
    annotation = next(p.annotation for p in row.parameters if p.name == name)
    return [str(value) for value in get_args(annotation) if isinstance(value, str)]


def _parameters(row: Command, done: list[str], last: str, context: Context) -> list[str]:
    from nbmlops import pipelines

    workspace = context.workspace()
    named = next((word for word in done[1:] if word in workspace.settings.pipelines), None)
    named = named or next((word for word in done[1:] if word.endswith(".ipynb")), None)
    if named is None and context.notebook is not None:
        named = str(context.notebook)
    if "run_id" in {parameter.name for parameter in row.parameters}:
        named = _pipeline_of_run(workspace, done) or named
    declared = pipelines.declared_parameters(
        workspace, pipelines.find(workspace, named, start=context.start)
    )
    name, equals, _ = last.partition("=")
    if equals and name in declared:
        return [f"{name}={value}" for value in _choices(declared[name].type)]
    given = {word.partition("=")[0] for word in done if "=" in word}
    return [f"{name}=" for name in declared if name not in given]


def _pipeline_of_run(workspace: Workspace, done: list[str]) -> str | None:
    from nbmlops import runs
    from nbmlops.records import RunRecord

    for word in done[1:]:
        kept = workspace.store.get(runs.KIND, word, RunRecord)
        if kept is not None:
            return kept.record.pipeline
    return None


def _choices(kind: str) -> list[str]:
    words = [word.strip() for word in kind.split("|")]
    found = ["true", "false"] if "bool" in words else []
    return [*found, "None"] if "None" in words else found


def _notebooks(workspace: Workspace) -> list[str]:
    return sorted(
        path.relative_to(workspace.root).as_posix()
        for folder in (workspace.root, workspace.root / "notebooks")
        for path in folder.glob("*.ipynb")
    )


def _pipelines(workspace: Workspace) -> list[str]:
    return [*workspace.settings.pipelines, *_notebooks(workspace)]


def _newest(workspace: Workspace, kind: str, form: type[Any]) -> list[Any]:
    kept = workspace.store.page(kind, form, limit=_NEWEST)
    return [item.record for item in kept]


def _runs_alone(workspace: Workspace) -> list[str]:
    from nbmlops import runs
    from nbmlops.records import RunRecord

    return [run.run_id for run in _newest(workspace, runs.KIND, RunRecord)]


def _sweeps(workspace: Workspace) -> list[str]:
    from nbmlops import sweeps
    from nbmlops.records import SweepRecord

    return [sweep.sweep_id for sweep in _newest(workspace, sweeps.KIND, SweepRecord)]


def _runs(workspace: Workspace) -> list[str]:
    """Return what commands of one run take: runs, and sweeps, which they take as well."""
    return [*_runs_alone(workspace), *_sweeps(workspace)]


def _metrics(workspace: Workspace) -> list[str]:
    from nbmlops import runs
    from nbmlops.records import RunRecord

    return [name for run in _newest(workspace, runs.KIND, RunRecord) for name in run.metrics]


def _statuses(_: Workspace) -> list[str]:
    from nbmlops.records import Status

    return [status.value for status in Status]


def _versions(workspace: Workspace) -> list[str]:
    from nbmlops import models
    from nbmlops.records import ModelVersion

    return [f"{v.model}:{v.version}" for v in _newest(workspace, models.KIND, ModelVersion)]


def _models(workspace: Workspace) -> list[str]:
    from nbmlops import decisions, ledger

    versions = _versions(workspace)
    standing = decisions.aliases(ledger.entries(workspace.repo))
    aliases = [f"{model}@{alias}" for model, named in standing.items() for alias in named]
    return [*(text.partition(":")[0] for text in versions), *versions, *aliases]


def _endpoints(workspace: Workspace) -> list[str]:
    from nbmlops import endpoints
    from nbmlops.records import EndpointRecord

    return [e.endpoint for e in _newest(workspace, endpoints.KIND, EndpointRecord)]


def _deployments(workspace: Workspace) -> list[str]:
    from nbmlops import deployments
    from nbmlops.records import DeploymentRecord

    return [d.deployment_id for d in _newest(workspace, deployments.KIND, DeploymentRecord)]


def _references(workspace: Workspace) -> list[str]:
    return [
        "call/",
        *(f"run/{name}" for name in _runs_alone(workspace)),
        *(f"model/{name}" for name in _versions(workspace)),
        *(f"deployment/{name}" for name in _deployments(workspace)),
    ]


_SOURCES: Mapping[str, Callable[[Workspace], list[str]]] = {
    "pipeline": _pipelines,
    "run_id": _runs,
    "run_ids": _runs_alone,
    "sweep": _sweeps,
    "metric": _metrics,
    "best": _metrics,
    "lowest": _metrics,
    "status": _statuses,
    "files": _notebooks,
    "model": _models,
    "against": _models,
    "endpoint": _endpoints,
    "reference": _references,
}
"""Where the names come from, by what the argument is called."""
