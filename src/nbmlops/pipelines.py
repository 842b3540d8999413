"""Pipelines: which notebooks run, in which order, with which parameters; checked before a start."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from nbmlops import environment, layout, notebook, project, snapshot
from nbmlops.errors import (
    InvalidNotebook,
    InvalidParameter,
    UnknownParameter,
    UnknownPipeline,
    WrongUse,
    nearest,
)
from nbmlops.notebook import Notebook
from nbmlops.project import PipelineSettings, StepSettings
from nbmlops.records import Parameter, StepSpec
from nbmlops.workspace import Workspace


class Pipeline(msgspec.Struct, frozen=True, kw_only=True):
    """A pipeline by name; ``step`` is the step that was pointed at by its notebook."""

    name: str
    settings: PipelineSettings
    step: str | None = None


def find(workspace: Workspace, name: str | None, *, start: Path | None = None) -> Pipeline:
    """Return the pipeline of that name, or the one that a notebook stands for.

    A notebook that is a step of exactly one declared pipeline stands for that pipeline; any other
    is a pipeline of one step. ``start`` is the folder from which a notebook's path is meant.

    Raises
    ------
    UnknownPipeline
        When there is no such pipeline and no such notebook.
    """
    declared = workspace.settings.pipelines
    if name is None:
        if len(declared) == 1:
            name = next(iter(declared))
        else:
            known = f"Known: {', '.join(sorted(declared))}." if declared else ""
            raise WrongUse(
                "which pipeline or notebook?", f"Name one: `nbmlops train NOTEBOOK.ipynb`. {known}"
            )
    if name in declared:
        return Pipeline(name=name, settings=declared[name])
    if not name.endswith(".ipynb"):
        raise UnknownPipeline(
            f"there is no pipeline `{name}`", nearest(name, declared), pipeline=name
        )
    return _of_notebook(workspace, name, start or workspace.root)


def _of_notebook(workspace: Workspace, name: str, start: Path) -> Pipeline:
    path = (start / name).resolve()
    if not path.is_file():
        path = (workspace.root / name).resolve()
    if not path.is_relative_to(workspace.root) or not path.is_file():
        known = [
            p.relative_to(workspace.root).as_posix() for p in workspace.root.glob("**/*.ipynb")
        ]
        raise UnknownPipeline(
            f"there is no notebook {name} in the project", nearest(name, known), pipeline=name
        )
    relative = path.relative_to(workspace.root).as_posix()
    holding = [
        (pipeline, step)
        for pipeline, settings in workspace.settings.pipelines.items()
        for step in settings.steps
        if step.notebook == relative
    ]
    if len(holding) == 1:
        pipeline, step = holding[0]
        settings = workspace.settings.pipelines[pipeline]
        return Pipeline(name=pipeline, settings=settings, step=step.step)
    own = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:40].strip("-") or "notebook"
    step = StepSettings(notebook=relative, name=own)
    return Pipeline(name=own, settings=PipelineSettings(steps=(step,)), step=own)


def assignments(given: Iterable[str]) -> dict[str, str]:
    """Return ``name=value`` texts as a dictionary.

    Raises
    ------
    InvalidParameter
        When one has no ``=``, or a name comes twice.
    """
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidParameter(
                f"`{text[:80]}` is no parameter", "Write `-p name=value`, such as `-p max_depth=6`."
            )
        if name in found:
            raise InvalidParameter(f"`{name}` is given twice", "Give it once.")
        found[name] = value
    return found


def declared_parameters(workspace: Workspace, pipeline: Pipeline) -> dict[str, Parameter]:
    """Return what the pipeline's notebooks declare, as they are in the work tree now."""
    found: dict[str, Parameter] = {}
    for step in pipeline.settings.steps:
        path = workspace.root / step.notebook
        if path.is_file():
            for parameter in notebook.parameters(notebook.parse(path.read_bytes(), step.notebook)):
                found.setdefault(parameter.name, parameter)
    return found


def parameters(workspace: Workspace, commit: str, pipeline: Pipeline) -> dict[str, Parameter]:
    """Return what the pipeline's notebooks declare, as they are in the commit."""
    read = _notebooks(workspace, commit, pipeline.settings.steps)
    found: dict[str, Parameter] = {}
    for _, source in read.values():
        for parameter in notebook.parameters(source):
            found.setdefault(parameter.name, parameter)
    return found


def parameters_by_step(
    workspace: Workspace, commit: str, pipeline: Pipeline
) -> dict[str, set[str]]:
    """Return the names of the parameters that each step declares."""
    read = _notebooks(workspace, commit, pipeline.settings.steps)
    return {
        step: {parameter.name for parameter in notebook.parameters(source)}
        for step, (_, source) in read.items()
    }


def steps(
    workspace: Workspace, commit: str, pipeline: Pipeline, given: dict[str, Any]
) -> tuple[tuple[StepSpec, ...], dict[str, Any]]:
    """Return the steps as a runner needs them, and the parameters of the whole pipeline.

    Notebooks are read from the commit, so what is checked is what runs. A value goes to each step
    that declares its name; the second result has all of them, those with their defaults included.

    Raises
    ------
    UnknownParameter
        When no step declares a given name.
    InvalidParameter
        When a value is not of the declared type.
    InvalidNotebook
        When a notebook is missing or cannot be run.
    """
    ordered = project.in_order(
        pipeline.name, pipeline.settings, workspace.root / layout.SETTINGS_FILE
    )
    notebooks = _notebooks(workspace, commit, [settings for settings, _ in ordered])
    declared = {name: notebook.parameters(read) for name, (_, read) in notebooks.items()}
    known = {parameter.name for parameters in declared.values() for parameter in parameters}
    for name in given:
        if name not in known:
            raise UnknownParameter(
                f"pipeline `{pipeline.name}` has no parameter `{name}`",
                nearest(name, known),
                parameter=name,
            )
    specs: list[StepSpec] = []
    effective: dict[str, Any] = {}
    for settings, after in ordered:
        step = settings.step
        blob, source = notebooks[step]
        injected = _injected(settings, declared[step], given)
        for parameter in declared[step]:
            effective[parameter.name] = injected.get(parameter.name, parameter.default)
        specs.append(
            StepSpec(
                name=step,
                notebook=settings.notebook,
                notebook_blob=blob,
                cells_total=len(source.code_cells),
                parameters=injected,
                outputs=settings.outputs,
                after=after,
            )
        )
    return tuple(specs), effective


def _injected(
    settings: StepSettings, declared: tuple[Parameter, ...], given: dict[str, Any]
) -> dict[str, Any]:
    own = {parameter.name: parameter for parameter in declared}
    for name in settings.parameters:
        if name not in own:
            raise UnknownParameter(
                f"{layout.SETTINGS_FILE} sets `{name}`, which {settings.notebook} does not declare",
                nearest(name, own),
                parameter=name,
            )
    wanted = {**settings.parameters, **{k: v for k, v in given.items() if k in own}}
    return {name: notebook.coerced(own[name], value) for name, value in wanted.items()}


def _notebooks(
    workspace: Workspace, commit: str, steps: Iterable[StepSettings]
) -> dict[str, tuple[str, Notebook]]:
    """Return the notebook of each step with its blob id, as it is in the commit."""
    paths = {step.step: (Path(workspace.project_dir) / step.notebook).as_posix() for step in steps}
    found = snapshot.read_all(workspace.repo, commit, paths.values())
    notebooks: dict[str, tuple[str, Notebook]] = {}
    for step in steps:
        if paths[step.step] not in found:
            raise InvalidNotebook(
                f"{step.notebook} is not in the snapshot",
                "Check the name in nbmlops.toml, and that .gitignore does not name the file.",
            )
        blob, data = found[paths[step.step]]
        parsed = notebook.parse(data, step.notebook)
        if parsed.language != "python":
            raise InvalidNotebook(
                f"{step.notebook} is written in {parsed.language}; steps run in Python for now",
                "Choose a Python kernel for it.",
            )
        notebooks[step.step] = blob, parsed
    return notebooks


def environment_plan(workspace: Workspace, commit: str) -> environment.Plan:
    """Return what the project's environment is made of, as the commit says."""
    places = {
        name: (Path(workspace.project_dir) / name).as_posix() for name in environment.LOCK_FILES
    }
    found = snapshot.read_all(workspace.repo, commit, places.values())
    return environment.plan(
        {name: found[place][1] for name, place in places.items() if place in found}
    )
