"""The table of rules: one row for each, and what a project makes of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from nbmlops import layout
from nbmlops.errors import InvalidSettings, nearest
from nbmlops.project import Settings
from nbmlops.records import Level
from nbmlops.rules import contents, exposures, forms, leaks, mending, scripts, sessions, trees
from nbmlops.rules.rule import Rule

# An order in which levels can be compared; a rule that is off is not looked at.
GRAVITY: Mapping[str, int] = {"off": 0, "advise": 1, "warn": 2, "block": 3}

# A step's notebook that is not there is found where the notebooks are read.
NOTEBOOK_MISSING = "notebook-missing"

TABLE: tuple[Rule, ...] = (
    Rule(NOTEBOOK_MISSING, "block", "a step's notebook is not there"),
    Rule("notebook-unreadable", "block", "a notebook cannot be read", in_notebook=forms.unreadable),
    Rule("old-format", "block", "a notebook has a format before 4", in_notebook=forms.old_format),
    Rule(
        "other-language",
        "block",
        "a step is not written in Python 3",
        in_notebook=forms.other_language,
    ),
    Rule(
        "no-kernel",
        "advise",
        "a notebook does not say which kernel it is for",
        in_notebook=forms.no_kernel,
    ),
    Rule(
        "duplicate-cell-ids",
        "warn",
        "cells share an id",
        in_notebook=forms.duplicate_ids,
        mend=mending.renew_ids,
    ),
    Rule("unsaved-edits", "block", "executed edits are not saved", in_notebook=sessions.look),
    Rule(
        "parameters-missing",
        "advise",
        "a step has no parameters cell",
        in_notebook=forms.parameters_missing,
    ),
    Rule(
        "parameters-doubled",
        "block",
        "a notebook has two parameters cells",
        in_notebook=forms.parameters_doubled,
    ),
    Rule(
        "parameters-overwritten",
        "warn",
        "a later cell discards a parameter's value",
        in_notebook=scripts.parameters_overwritten,
    ),
    Rule(
        "syntax-error", "warn", "a code cell is not valid Python", in_notebook=scripts.syntax_error
    ),
    Rule(
        "hidden-state",
        "warn",
        "a name is used before any cell defines it",
        in_notebook=scripts.hidden_state,
    ),
    Rule(
        "out-of-order",
        "advise",
        "cells were executed in another order than they stand",
        in_notebook=forms.out_of_order,
    ),
    Rule(
        "star-import",
        "advise",
        "all names of a module are imported",
        in_notebook=scripts.star_import,
    ),
    Rule(
        "absolute-path",
        "warn",
        "a cell uses a path of one machine",
        in_notebook=scripts.absolute_path,
    ),
    Rule(
        "outputs",
        "advise",
        "a notebook holds outputs",
        in_notebook=forms.outputs,
        mend=mending.strip_outputs,
        not_of_runs=True,
    ),
    Rule(
        leaks.TOKEN,
        "block",
        "a token, a private key or a named secret's value stands in a file",
        in_notebook=exposures.tokens_in_notebook,
        in_project=exposures.tokens_in_project,
    ),
    Rule(
        leaks.PASSWORD,
        "warn",
        "what looks like a password stands in a file",
        in_notebook=exposures.passwords_in_notebook,
        in_project=exposures.passwords_in_project,
    ),
    Rule(
        "lock-missing",
        "advise",
        "no lock says which packages a run gets",
        in_project=trees.lock_missing,
        at_start=True,
    ),
    Rule(
        "lock-unpinned",
        "warn",
        "the lock leaves versions open",
        in_project=trees.lock_unpinned,
        at_start=True,
    ),
    Rule(
        "dirty-tree",
        "advise",
        "changes are in no commit of yours",
        in_project=trees.dirty_tree,
        at_start=True,
    ),
    Rule(
        "lfs-pointer",
        "block",
        "a file is a pointer of Git LFS",
        in_project=trees.lfs_pointers,
        at_start=True,
    ),
    Rule(
        "large-file",
        "block",
        "an untracked file is too large for a snapshot",
        in_project=trees.large_files,
    ),
    Rule(
        contents.SCHEMA,
        "block",
        "data lack what their model takes",
        in_project=contents.unlike_schema,
        at_start=True,
    ),
    Rule(
        contents.RANGE,
        "warn",
        "values in the data are unlike the training's",
        in_project=contents.out_of_range,
        at_start=True,
    ),
)


def levels(settings: Settings, root: Path) -> dict[str, Literal["off", "advise", "warn", "block"]]:
    """Return the level of each rule: the project's, else the rule's own.

    Raises
    ------
    InvalidSettings
        When ``[rules]`` names a rule that there is not.
    """
    known = [rule.code for rule in TABLE]
    for code in settings.rules:
        if code not in known:
            path = root / layout.SETTINGS_FILE
            raise InvalidSettings(
                f"{path}: [rules] has an unknown rule `{code}` (line {_line_of(path, code)})",
                nearest(code, known),
                key=code,
            )
    return {rule.code: settings.rules.get(rule.code, rule.level) for rule in TABLE}


def _line_of(path: Path, code: str) -> int:
    written = re.compile(rf"""\s*(?:rules\s*\.\s*)?["']?{re.escape(code)}["']?\s*=|.*\{{.*{code}""")
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if written.match(line):
            return number
    return 1


def is_at_least(level: str, limit: Level) -> bool:
    """Return whether a level is as grave as a limit, or graver."""
    return GRAVITY[level] >= GRAVITY[limit]


def settings_text() -> str:
    """Return the ``[rules]`` table for a new ``nbmlops.toml``: every rule, as a comment."""
    rows = [(f'{rule.code} = "{rule.level}"', rule.title) for rule in TABLE]
    width = max(len(setting) for setting, _ in rows)
    lines = [f"# {setting:{width}}  # {title}" for setting, title in rows]
    head = '# What `nbmlops check` looks at, and how grave it is: "off", "advise", "warn", "block".'
    return "\n".join((head, "[rules]", *lines, ""))
