"""The project: what ``nbmlops.toml`` says, checked.

The file is read strictly: an unknown key is refused with the nearest known one.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from nbmlops import layout
from nbmlops.errors import InvalidSettings, NoProject, nearest
from nbmlops.records import Resources


class StepSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step: a notebook, the files it leaves for later steps, fixed parameters."""

    notebook: str
    name: str | None = None
    outputs: tuple[str, ...] = ()
    parameters: dict[str, Any] = {}


class PipelineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pipeline: its steps in the order in which they run."""

    steps: tuple[StepSettings, ...]
    resources: Resources = Resources()


class ProjectSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``[project]`` table."""

    name: str
    secrets: tuple[str, ...] = ()


class MonitoringSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``[monitoring]`` table: the stated budget of false alarms."""

    false_alarms: int = 1
    windows: int = 100


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of ``nbmlops.toml``."""

    project: ProjectSettings
    pipelines: dict[str, PipelineSettings] = {}
    monitoring: MonitoringSettings = MonitoringSettings()


_TABLES: dict[str, type[msgspec.Struct]] = {
    "": Settings,
    "project": ProjectSettings,
    "monitoring": MonitoringSettings,
    "resources": Resources,
    "steps": StepSettings,
    "pipelines": PipelineSettings,
}


def read(root: Path) -> Settings:
    """Read and check ``nbmlops.toml`` in the folder ``root``.

    Raises
    ------
    NoProject
        When there is no such file.
    InvalidSettings
        When it is not TOML, has an unknown key, or a value of the wrong type.
    """
    path = root / layout.SETTINGS_FILE
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise no_project(root) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSettings(
            f"{path} is not valid TOML: {error}", f"Correct it and try again: {path}"
        ) from error
    _refuse_unknown_keys(document, path)
    try:
        settings = msgspec.convert(document, Settings)
    except msgspec.ValidationError as error:
        raise InvalidSettings(f"{path}: {error}", f"Correct it and try again: {path}") from error
    _check_names(settings, path)
    return settings


def no_project(start: Path) -> NoProject:
    """Return the error for a folder without a project at or above it."""
    return NoProject(
        f"there is no {layout.SETTINGS_FILE} in {start} or above",
        "Go to your project's folder, or make one: `nbmlops init my-project --example`.",
        path=str(start),
    )


def _refuse_unknown_keys(document: dict[str, Any], path: Path) -> None:
    for kind, where, table in _tables(document):
        known = [field.name for field in msgspec.structs.fields(_TABLES[kind])]
        for key in table:
            if key not in known:
                raise InvalidSettings(
                    f"{path}: {where}has an unknown key `{key}` (line {_line_of(path, key)})",
                    nearest(key, known),
                    key=key,
                )


def _tables(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield each table of the file with its kind and where it stands."""
    yield "", "", document
    for key in ("project", "monitoring"):
        yield key, f"[{key}] ", _table(document.get(key))
    for name, found in _table(document.get("pipelines")).items():
        pipeline = _table(found)
        yield "pipelines", f"[pipelines.{name}] ", pipeline
        where = f"[pipelines.{name}.resources] "
        yield "resources", where, _table(pipeline.get("resources"))
        steps = pipeline.get("steps")
        for number, step in enumerate(steps if isinstance(steps, list) else (), 1):
            yield "steps", f"[pipelines.{name}] step {number}: ", _table(step)


def _table(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def _line_of(path: Path, key: str) -> int:
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        if key in line and not line.lstrip().startswith("#"):
            return number
    return 1


def _check_names(settings: Settings, path: Path) -> None:
    layout.checked_name(settings.project.name, "project")
    for name, pipeline in settings.pipelines.items():
        layout.checked_name(name, "pipeline")
        if not pipeline.steps:
            raise InvalidSettings(
                f"{path}: pipeline `{name}` has no steps",
                f'Add one: steps = [{{ notebook = "notebooks/{name}.ipynb" }}]',
            )
        for file in [f for s in pipeline.steps for f in (s.notebook, *s.outputs)]:
            checked_relative(file, path)
        names = [step.name or Path(step.notebook).stem for step in pipeline.steps]
        for step in names:
            layout.checked_name(step, "step")
        doubled = next((step for step in names if names.count(step) > 1), None)
        if doubled:
            raise InvalidSettings(
                f"{path}: pipeline `{name}` has two steps named `{doubled}`",
                "Give each step a name of its own.",
            )


def checked_relative(file: str, path: Path) -> str:
    """Return a path that stays inside the project's folder, or refuse it."""
    parts = Path(file).parts
    if not file or Path(file).is_absolute() or ".." in parts or "\0" in file:
        raise InvalidSettings(
            f"{path}: `{file}` is not a path inside the project",
            "Write it relative to the project's folder, without `..`.",
        )
    return file
