"""Projects: made by ``init``, in an empty folder or in a repository that stands."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Any

from nbmlops import environment, layout, project, repository, rules, snapshot
from nbmlops.errors import InvalidName, ProjectExists, WrongUse

_EXAMPLE_PACKAGES = ("scikit-learn", "pandas", "skops", "ipykernel")
_IGNORED = b"__pycache__/\n.ipynb_checkpoints/\n"


def init(folder: Path, *, example: bool) -> dict[str, Any]:
    """Write a project's files, and commit them when the repository is new.

    Raises
    ------
    ProjectExists
        When there is an ``nbmlops.toml`` already; nothing is written.
    WrongUse
        When the example would overwrite a file that is there.
    """
    folder = folder.resolve()
    if (folder / layout.SETTINGS_FILE).exists():
        raise ProjectExists(
            f"{folder / layout.SETTINGS_FILE} is there already",
            "Edit it, or choose another folder: `nbmlops init OTHER`.",
            path=str(folder),
        )
    if folder.exists() and not folder.is_dir():
        raise WrongUse(f"{folder} is a file", "Name a folder: `nbmlops init my-project`.")
    name = _name(folder)
    files = _files(name, example=example)
    standing = [file for file in files if (folder / file).exists() and file != ".gitignore"]
    if standing:
        raise WrongUse(
            f"{', '.join(standing[:3])} would be overwritten in {folder}",
            "Choose an empty folder: `nbmlops init my-project --example`.",
        )
    created = _write(folder, files)
    repo = repository.find(folder)
    commit = None
    if repo is None:
        repo = repository.create(folder)
        commit = repository.commit_all(repo, f"Start {name}")
    settings = project.read(folder)
    return {
        "project": name,
        "path": str(folder),
        "commit": commit or snapshot.head(repo),
        "pipelines": tuple(settings.pipelines),
        "created": tuple(created),
    }


def _name(folder: Path) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", folder.name.lower()).strip("-")[:40].strip("-")
    if not name:
        raise InvalidName(
            f"{folder.name!r} gives no name for a project", "Choose a folder with letters in it."
        )
    return name


def _files(name: str, *, example: bool) -> dict[str, bytes]:
    settings = f'[project]\nname = "{name}"\n\n{rules.settings_text()}'
    if not example:
        return {layout.SETTINGS_FILE: settings.encode(), ".gitignore": _IGNORED}
    source = resources.files("nbmlops") / "example"
    files = {
        file: (source / file).read_bytes()
        for file in (
            "notebooks/prepare.ipynb",
            "notebooks/train.ipynb",
            "records.json",
            "README.md",
        )
    }
    files[layout.SETTINGS_FILE] = settings.encode() + (source / "pipelines.toml").read_bytes()
    files["requirements.txt"] = environment.pinned(_EXAMPLE_PACKAGES).encode()
    # What the first step writes is an output of the run, not a file of the repository.
    files[".gitignore"] = _IGNORED + b"/data/\n"
    return files


def _write(folder: Path, files: dict[str, bytes]) -> list[str]:
    created: list[str] = []
    for name, content in sorted(files.items()):
        path = folder / name
        standing = path.read_bytes().splitlines() if path.exists() else []
        lines = [*standing, *(line for line in content.splitlines() if line not in standing)]
        layout.write_file(path, b"\n".join([*lines, b""]) if standing else content)
        created.append(name)
    return created
