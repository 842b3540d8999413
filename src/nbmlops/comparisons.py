"""Comparisons: runs side by side, down to the cells and the packages that differ."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from nbmlops import notebook, records, runs, snapshot
from nbmlops.errors import ArtifactMissing, InvalidNotebook, WrongUse
from nbmlops.notebook import Cell
from nbmlops.records import (
    CellChange,
    Comparison,
    Difference,
    Environment,
    NotebookDifference,
    RunRecord,
)
from nbmlops.workspace import Workspace

_LIMIT = 20
# What stands for a run's id where the notebooks of the work tree are meant; no run has it.
NOW = "now"


def compare(workspace: Workspace, run_ids: Sequence[str], *, now: bool = False) -> Comparison:
    """Hold runs against each other; notebooks against those of the first run.

    With ``now`` also the notebooks of the work tree, as they are saved; one run is enough then.

    Raises
    ------
    WrongUse
        When fewer than two runs are named, or more than 20.
    UnknownRun
        When there is no such run.
    InvalidNotebook
        When one of the work tree cannot be read as it is now.
    """
    found = [runs.get(workspace, run_id) for run_id in dict.fromkeys(run_ids)]
    if not (1 if now else 2) <= len(found) <= _LIMIT:
        raise WrongUse(
            f"{len(found)} runs cannot be compared",
            f"Name 2 to {_LIMIT}: `nbmlops compare RUN RUN`. See them: `nbmlops runs`."
            " One run and the notebooks as they are now: `nbmlops compare RUN --now`.",
        )
    changed = [change for other in found[1:] for change in _notebooks(workspace, found[0], other)]
    packages = [_packages(workspace, run) for run in found]
    differing = tuple(item for item in _differences(packages) if item.differs)
    return Comparison(
        runs=tuple(records.replace(run, steps=(), artifacts=()) for run in found),
        parameters=_differences([run.parameters for run in found]),
        metrics=_differences([run.metrics for run in found]),
        data=_differences([{item.name: item.digest for item in run.data} for run in found]),
        packages=differing,
        notebooks=(*changed, *(_since(workspace, found[0]) if now else ())),
    )


def _differences(values: Sequence[Mapping[str, Any]]) -> tuple[Difference, ...]:
    """Return each name with its value in each run, in the order in which names first appear."""
    names = dict.fromkeys(name for one in values for name in one)
    found: list[Difference] = []
    for name in names:
        row = tuple(one.get(name) for one in values)
        spelled = {msgspec.json.encode(value, order="sorted") for value in row}
        there = {name in one for one in values}
        found.append(Difference(name=name, values=row, differs=len(spelled) + len(there) > 2))
    return tuple(found)


def _packages(workspace: Workspace, run: RunRecord) -> dict[str, str]:
    about = next((item for item in run.artifacts if item.kind == "environment"), None)
    if about is None:
        return {}
    try:
        return records.load(workspace.artifacts.get(about.digest), Environment).packages
    except ArtifactMissing:
        return {}


def _notebooks(
    workspace: Workspace, first: RunRecord, other: RunRecord
) -> Iterator[NotebookDifference]:
    steps = {step.name: step for step in first.steps}
    for step in other.steps:
        base = steps.get(step.name)
        if base is None or base.notebook_blob == step.notebook_blob:
            continue
        changes = cell_changes(
            _cells(workspace, base.notebook_blob, base.notebook),
            _cells(workspace, step.notebook_blob, step.notebook),
        )
        yield NotebookDifference(
            step=step.name, notebook=step.notebook, run_id=other.run_id, changes=tuple(changes)
        )


def _since(workspace: Workspace, run: RunRecord) -> Iterator[NotebookDifference]:
    """Yield how the notebooks of the work tree differ from those that a run was made of."""
    for step in run.steps:
        path = workspace.root / step.notebook
        before = _cells(workspace, step.notebook_blob, step.notebook)
        # One that is half-way through being saved is said to be so, not to have lost its cells.
        after = notebook.parse(path.read_bytes(), step.notebook).cells if path.is_file() else ()
        changes = tuple(cell_changes(before, after))
        if changes:
            yield NotebookDifference(
                step=step.name, notebook=step.notebook, run_id=NOW, changes=changes
            )


def _cells(workspace: Workspace, blob_id: str, path: str) -> tuple[Cell, ...]:
    data = snapshot.blob(workspace.repo, blob_id)
    if data is None:
        return ()
    try:
        return notebook.parse(data, path).cells
    except InvalidNotebook:
        return ()


def cell_changes(before: Sequence[Cell], after: Sequence[Cell]) -> Iterator[CellChange]:
    """Yield the cells that were added, removed or changed; a cell is known by its id.

    A cell without an id, or whose id is new, is matched by its source.
    """
    earlier = {_identity(cell): cell for cell in before}
    later = {_identity(cell) for cell in after}
    for cell in after:
        base = earlier.get(_identity(cell))
        if base is None:
            yield _change("added", None, cell)
        elif base.source != cell.source or base.kind != cell.kind:
            yield _change("changed", base, cell)
    for cell in before:
        if _identity(cell) not in later:
            yield _change("removed", cell, None)


def _identity(cell: Cell) -> str:
    return cell.cell_id or f"{cell.kind}\0{cell.source}"


def _change(kind: Any, before: Cell | None, after: Cell | None) -> CellChange:
    place = after or before
    old = before.source.splitlines() if before else []
    new = after.source.splitlines() if after else []
    lines = list(difflib.unified_diff(old, new, lineterm="", n=2))[2:]
    return CellChange(
        kind=kind,
        cell=place.position if place else 0,
        cell_id=place.cell_id if place else None,
        diff="\n".join(lines),
    )
