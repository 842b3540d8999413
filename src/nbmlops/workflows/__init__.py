"""Workflows for continuous integration: rules, tests and a run of each pipeline, ready to commit.

The templates beside this module are YAML with ``<<name>>`` where a value goes. What follows the
mark in one of them is there once for each pipeline.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec

from nbmlops import environment, layout, snapshot
from nbmlops._version import __version__
from nbmlops.errors import WrongUse
from nbmlops.workspace import Workspace

Kind = Literal["github", "gitlab"]

_EACH_PIPELINE = "# for each pipeline\n"
# Given instead of a pipeline's name where somebody starts the workflow by hand.
_ALL = "all"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a workflow must know of a project; ``lock`` is the file that names its packages."""

    folder: str
    pipelines: tuple[str, ...]
    branch: str
    python: str
    lock: str | None


def target(workspace: Workspace, kind: Kind) -> Path:
    """Return the file that the service reads: in the repository, not in the project's folder."""
    return workspace.repo.top / layout.WORKFLOW_FILES[kind]


def write(workspace: Workspace, kind: Kind, *, force: bool = False) -> bool:
    """Write the workflow; return whether the file has changed.

    Raises
    ------
    WrongUse
        When the project has no pipeline, or another file is there and ``force`` is false.
    """
    path = target(workspace, kind)
    made = text(kind, facts(workspace)).encode()
    standing = path.read_bytes() if path.exists() else None
    if standing == made:
        return False
    if standing is not None and not force:
        raise WrongUse(
            f"{layout.WORKFLOW_FILES[kind]} is there already, and is not what would be written",
            f"Keep it, or replace it: `nbmlops ci {kind} --force`.",
            path=layout.WORKFLOW_FILES[kind],
        )
    layout.write_file(path, made)
    return True


def facts(workspace: Workspace) -> Facts:
    """Return what a workflow of this project must know.

    Raises
    ------
    WrongUse
        When there is no pipeline that it could run.
    """
    pipelines = tuple(workspace.settings.pipelines)
    if not pipelines:
        raise WrongUse(
            "the project has no pipeline that a workflow could run",
            f"Name one in {layout.SETTINGS_FILE}: [pipelines.train], then"
            ' steps = [{ notebook = "train.ipynb" }]',
        )
    if _ALL in pipelines:
        raise WrongUse(
            f"a pipeline is named `{_ALL}`, by which a workflow means all of them",
            f"Give it another name in {layout.SETTINGS_FILE}.",
        )
    found = (name for name in environment.LOCK_FILES if (workspace.root / name).is_file())
    return Facts(
        folder=workspace.project_dir,
        pipelines=pipelines,
        branch=snapshot.default_branch(workspace.repo),
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        lock=next(found, None),
    )


def text(kind: Kind, known: Facts) -> str:
    """Return the workflow as YAML. Pure: the same facts give the same text."""
    template = (resources.files(__name__) / f"{kind}.yml").read_text(encoding="utf-8")
    shared, _, each = template.partition(_EACH_PIPELINE)
    # JSON's strings and lists are YAML's as well.
    values = {
        "branch": json.dumps(known.branch),
        "choices": json.dumps([_ALL, *known.pipelines]),
        "folder": json.dumps(known.folder),
        "here": json.dumps(f"cd {shlex.quote(known.folder)}"),
        "nbmlops": json.dumps(f"nbmlops[lab]=={__version__}"),
        "pipelines": json.dumps(known.pipelines),
        "python": known.python,
        "tests": _tests(known),
    }
    parts = [_filled(shared, values)]
    parts += [_filled(each, {**values, "pipeline": name}) for name in known.pipelines if each]
    return "".join(parts)


def _tests(known: Facts) -> str:
    """Return the command that runs the project's tests with the project's own packages."""
    alone = f"uv run --isolated --python {known.python}"
    if known.lock is None:
        return "python -m pip install pytest && python -m pytest"
    if known.lock == environment.UV_LOCK:
        return f"{alone} --frozen --with pytest python -m pytest"
    listed = f"--no-project --with-requirements {known.lock}"
    return f"{alone} {listed} --with pytest python -m pytest"


def _filled(template: str, values: dict[str, str]) -> str:
    return re.sub(r"<<(\w+)>>", lambda found: values[found[1]], template)
