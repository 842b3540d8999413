"""What is about to leave this machine, held against the rules of secrets once more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nbmlops.records import CheckFinding
from nbmlops.rules import exposures, leaks
from nbmlops.rules.checks import _checker
from nbmlops.rules.table import TABLE
from nbmlops.workspace import Workspace


def leaving(workspace: Workspace, files: Iterable[tuple[str, bytes]]) -> Iterator[CheckFinding]:
    """Yield the secrets in files of commits that would be pushed, at the levels that hold now.

    The project may have turned rules on since the commits were made. Outputs of notebooks are
    looked at too: a snapshot has none, the commits below it may.

    Parameters
    ----------
    workspace
        The project.
    files
        The files' paths from the repository's top, and their bytes.
    """
    held = _checker(workspace)
    rules = [
        rule
        for rule in TABLE
        if rule.code in (leaks.TOKEN, leaks.PASSWORD) and held.is_on(rule, "warn")
    ]
    if not rules:
        return
    for path, data in files:
        found = leaks.secrets_in(data, path, held.secrets)
        for rule in rules:
            faults = [exposures.fault(leak, path) for leak in found if leak.code == rule.code]
            yield from held.found(rule, faults, path)
