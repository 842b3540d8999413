"""Which files of a project are looked at, and their bytes."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from nbmlops.errors import WrongUse
from nbmlops.rules.rule import Tree
from nbmlops.workspace import Workspace

_READ_LIMIT_BYTES = 64 * 1024 * 1024


def tree(workspace: Workspace, steps: frozenset[str], files: Sequence[Path] | None = None) -> Tree:
    """Return the project's files, or those that were named."""
    top, root = workspace.repo.top, workspace.root
    limit = workspace.settings.project.untracked_limit_mib
    if files is not None:
        names = tuple(dict.fromkeys(_named(workspace, file) for file in files))
        books = tuple(
            Path(os.path.relpath(top / name, root)).as_posix()
            for name in names
            if name.endswith(".ipynb")
        )
        rest = tuple(name for name in names if not name.endswith(".ipynb"))
        return Tree(root, workspace.repo, books, rest, (), untracked_limit_mib=limit)
    untracked = _listed(workspace, "--others", "--exclude-standard")
    every = tuple(dict.fromkeys((*_listed(workspace, "--cached"), *untracked)))
    books = {
        (top / name).relative_to(root).as_posix()
        for name in every
        if name.endswith(".ipynb")
        and (top / name).is_relative_to(root)
        and ".ipynb_checkpoints" not in Path(name).parts
        and os.path.lexists(top / name)
    }
    return Tree(
        root,
        workspace.repo,
        tuple(sorted(books | steps)),
        every,
        untracked,
        untracked_limit_mib=limit,
    )


def _listed(workspace: Workspace, *options: str) -> tuple[str, ...]:
    found = workspace.repo.run("ls-files", "-z", *options, "--", ":/")
    return tuple(os.fsdecode(raw) for raw in found.split(b"\0") if raw)


def _named(workspace: Workspace, file: Path) -> str:
    """Return a file that a person named, from the repository's top."""
    if "\0" in str(file):
        raise WrongUse(f"{str(file)[:80]!r} is no path", "Name files of the project.")
    path = Path(os.path.normpath(file if file.is_absolute() else workspace.root / file))
    inside = path if path.is_relative_to(workspace.repo.top) else path.resolve()
    if not inside.is_relative_to(workspace.repo.top):
        raise WrongUse(f"{file} is outside of {workspace.repo.top}", "Name files of the project.")
    if not inside.is_file():
        raise WrongUse(f"there is no file {file}", "Name notebooks or other files of the project.")
    return inside.relative_to(workspace.repo.top).as_posix()


def content(path: Path) -> bytes:
    """Return the beginning of a file; nothing of what is no file of one's own to read."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return b""
        with path.open("rb") as file:
            return file.read(_READ_LIMIT_BYTES)
    except OSError:  # deleted, or not readable: the snapshot says so
        return b""
