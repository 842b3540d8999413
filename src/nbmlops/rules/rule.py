"""What a rule is, what it is given to look at, and what it says."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from nbmlops.notebook import Notebook
from nbmlops.records import Level
from nbmlops.repository import Repository
from nbmlops.rules.cells import Script
from nbmlops.rules.leaks import Leak


@dataclass(frozen=True, slots=True)
class Fault:
    """A place that breaks a rule: what is wrong with which value, and what mends it.

    ``cell`` counts from 1 over all cells, ``line`` from 1 within the cell or file. ``path`` is set
    by rules of the whole project only, ``level`` where it is not as grave as the rule.
    """

    message: str
    fix: str
    cell: int | None = None
    line: int | None = None
    path: str | None = None
    level: Level | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """What a kernel has executed: source and time by the id of the cell; when the file was saved.

    All times are aware.
    """

    executed: Mapping[str, tuple[str, datetime]]
    saved_at: datetime


@dataclass(frozen=True, slots=True)
class Subject:
    """A notebook as the rules see it.

    ``notebook`` is ``None`` where ``unreadable`` or ``old_format`` says why. ``script`` is
    ``None`` for another language than Python 3. ``leaks`` are the secrets that the file holds.
    """

    path: str
    is_step: bool = False
    document: Mapping[str, Any] = field(default_factory=dict[str, Any])
    notebook: Notebook | None = None
    script: Script | None = None
    unreadable: Fault | None = None
    old_format: int | None = None
    session: Session | None = None
    leaks: tuple[Leak, ...] = ()


@dataclass(frozen=True, slots=True)
class Tree:
    """A project's files as the rules see them.

    ``files`` are those that a snapshot takes, relative to the repository's top; ``untracked`` those
    of them that git does not know; ``leaks`` the secrets in those that are no notebooks of the
    project. ``notebooks`` are relative to the project's folder. ``data`` are the faults of what
    ``[data]`` names, with the codes of their rules.
    """

    root: Path
    repo: Repository
    notebooks: tuple[str, ...]
    files: tuple[str, ...] = ()
    untracked: tuple[str, ...] = ()
    leaks: tuple[tuple[str, Leak], ...] = ()
    data: tuple[tuple[str, Fault], ...] = ()
    untracked_limit_mib: int = 10

    def path_of(self, file: str) -> str:
        """Return a file's path from the project's folder, given that from the top."""
        return Path(os.path.relpath(self.repo.top / file, self.root)).as_posix()


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that each notebook, the project as a whole, or both keep or break.

    ``mend`` changes a notebook's document in place so that it keeps the rule; only what can be
    mended without a change of what the code does has one. ``at_start`` says that the look at the
    project is cheap enough to be taken before each run, ``not_of_runs`` that the rule is about what
    people commit, and means nothing to a snapshot.
    """

    code: str
    level: Level
    title: str
    in_notebook: Callable[[Subject], Iterator[Fault]] | None = None
    in_project: Callable[[Tree], Iterator[Fault]] | None = None
    mend: Callable[[dict[str, Any]], None] | None = None
    at_start: bool = False
    not_of_runs: bool = False
