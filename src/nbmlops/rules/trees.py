"""Rules of the project as a whole: its lock, its files, the state of its work tree."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from nbmlops import layout
from nbmlops.environment import PROJECT_FILE, REQUIREMENTS, UV_LOCK
from nbmlops.rules.rule import Fault, Tree

_POINTER = b"version https://git-lfs.github.com/spec/v1"
_POINTER_LIMIT_BYTES = 1024  # https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
_PINNED = re.compile(r"===?\s*[^\s*,;]+\s*$|\s@\s")


def lock_missing(tree: Tree) -> Iterator[Fault]:
    """Find a project whose notebooks run with whatever is installed."""
    if not tree.notebooks:
        return
    if (tree.root / UV_LOCK).is_file() or (tree.root / REQUIREMENTS).is_file():
        return
    if not _dependencies(tree.root):
        yield Fault(
            f"there is no {REQUIREMENTS} and no {UV_LOCK}: runs take the packages of this machine",
            f"Write one, such as `uv pip freeze > {REQUIREMENTS}`, and keep what you need.",
            path=".",
        )


def lock_unpinned(tree: Tree) -> Iterator[Fault]:
    """Find packages whose version is left open, so that the same commit gives other runs."""
    if (tree.root / UV_LOCK).is_file():
        return
    requirements = tree.root / REQUIREMENTS
    if requirements.is_file():
        lines = requirements.read_text(encoding="utf-8", errors="replace").splitlines()
        found = [(number, text) for number, text in enumerate(lines, 1) if _is_open(text)]
        path, fix = (
            REQUIREMENTS,
            f"`uv pip compile {REQUIREMENTS} -o {REQUIREMENTS}` pins them all.",
        )
    else:
        found = [(0, text) for text in _dependencies(tree.root) if _is_open(text)]
        path, fix = PROJECT_FILE, "`uv lock` writes the exact versions of all of them."
    if found:
        names = ", ".join(_distribution(text) for _, text in found[:5])
        more = ", ..." if len(found) > 5 else ""
        yield Fault(
            f"versions are left open: {names}{more}",
            fix,
            line=found[0][0] or None,
            path=path,
        )


def _dependencies(root: Path) -> list[str]:
    try:
        document = tomllib.loads((root / PROJECT_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):  # the environment's maker refuses it
        return []
    table = document.get("project")
    found = table.get("dependencies") if isinstance(table, dict) else None
    return [str(line) for line in found] if isinstance(found, list) else []


def _is_open(line: str) -> bool:
    text = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].split(" --hash")[0].rstrip("\\ ").strip()
    if not text or text.startswith("-") or re.match(r"[\w+]+://|\.{0,2}/", text):
        return False
    return _PINNED.search(text.split(";")[0].rstrip()) is None


def _distribution(line: str) -> str:
    found = re.match(r"\s*([A-Za-z0-9][\w.-]*)", line)
    return found.group(1) if found else line.strip()[:40]


def dirty_tree(tree: Tree) -> Iterator[Fault]:
    """Find changes that are in no commit of the person's own."""
    listed = tree.repo.run("status", "--porcelain=v1", "-z", "--untracked-files=normal", "--", ":/")
    # A renamed file is followed by its old name, in a field without a state.
    changes = [entry for entry in listed.split(b"\0") if entry[2:3] == b" "]
    if changes:
        first = ", ".join(os.fsdecode(entry[3:]) for entry in changes[:3])
        more = ", ..." if len(changes) > 3 else ""
        what = "1 change is" if len(changes) == 1 else f"{len(changes)} changes are"
        yield Fault(
            f"{what} in no commit of yours: {first}{more}",
            "A run captures them all the same, as a commit of its own. To have them in your"
            " history: `git add` and `git commit`.",
            path=".",
        )


def lfs_pointers(tree: Tree) -> Iterator[Fault]:
    """Find files that are pointers to Git LFS, whose bytes are not here."""
    files = tree.files or _with_lfs_attribute(tree)
    for name in files:
        path = tree.repo.top / name
        try:
            if not path.is_symlink() and 60 <= path.stat().st_size <= _POINTER_LIMIT_BYTES:
                with path.open("rb") as file:
                    is_pointer = file.read(len(_POINTER)) == _POINTER
            else:
                continue
        except OSError:  # gone, or not ours to read: the snapshot says so
            continue
        if is_pointer:
            yield Fault(
                "it is a pointer of Git LFS; a job would get the pointer, not the file",
                "Fetch the files: `git lfs pull`.",
                path=tree.path_of(name),
            )


def _with_lfs_attribute(tree: Tree) -> tuple[str, ...]:
    """Return the files that git gives to LFS: all that need a look before a run."""
    places = (tree.repo.top / ".gitattributes", tree.root / ".gitattributes")
    if not any(place.is_file() and b"lfs" in place.read_bytes() for place in places):
        return ()
    listed = tree.repo.run("ls-files", "-z", "--", ":(top,attr:filter=lfs)")
    return tuple(os.fsdecode(raw) for raw in listed.split(b"\0") if raw)


def large_files(tree: Tree) -> Iterator[Fault]:
    """Find untracked files that a snapshot refuses for their size."""
    for name in tree.untracked:
        try:
            found = (tree.repo.top / name).lstat()
        except OSError:
            continue
        size_mib = found.st_size / 2**20
        if size_mib > tree.untracked_limit_mib:
            yield Fault(
                f"it is untracked and has {size_mib:.0f} MiB; runs refuse more than"
                f" {tree.untracked_limit_mib}",
                f"Ignore it: `echo '/{name}' >> .gitignore`, and declare it in [data] of"
                f" {layout.SETTINGS_FILE}; or commit it yourself.",
                path=tree.path_of(name),
            )
