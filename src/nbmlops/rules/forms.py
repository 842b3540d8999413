"""Rules of a notebook's form: its format, cells, tags, outputs, kernel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nbmlops.rules.rule import Fault, Subject

PARAMETERS = "parameters"
STRIP = "Strip them: `nbmlops check --fix`."


def unreadable(subject: Subject) -> Iterator[Fault]:
    """Find a file that is no notebook."""
    if subject.unreadable is not None:
        yield subject.unreadable


def old_format(subject: Subject) -> Iterator[Fault]:
    """Find a notebook of a format before 4, which nothing runs any more."""
    if subject.old_format is not None:
        yield Fault(
            f"it has notebook format {subject.old_format}; papermill and nbclient run format 4",
            "Convert it: `nbmlops check --fix`.",
        )


def other_language(subject: Subject) -> Iterator[Fault]:
    """Find a step that is not written in Python 3."""
    if subject.notebook is not None and subject.is_step and subject.script is None:
        language = subject.notebook.language
        spelled = "Python 2" if language == "python" else language
        yield Fault(
            f"it is written in {spelled}; steps run in Python 3",
            "Choose a Python 3 kernel for it, or take it out of the pipeline.",
        )


def no_kernel(subject: Subject) -> Iterator[Fault]:
    """Find a notebook that does not say which kernel it is for."""
    if subject.notebook is not None and subject.notebook.kernel is None and subject.notebook.cells:
        yield Fault(
            "it does not say which kernel it is for",
            "Open it in JupyterLab, choose a kernel, save it.",
        )


def duplicate_ids(subject: Subject) -> Iterator[Fault]:
    """Find cells that share an id: a trace could not tell which of them trained a model."""
    first: dict[str, int] = {}
    for cell in subject.notebook.cells if subject.notebook else ():
        if not cell.cell_id:
            continue
        if cell.cell_id in first:
            yield Fault(
                f"it has the id `{cell.cell_id[:64]}` of cell {first[cell.cell_id]}",
                "Give it an id of its own: `nbmlops check --fix`.",
                cell=cell.position,
            )
        first.setdefault(cell.cell_id, cell.position)


def parameters_missing(subject: Subject) -> Iterator[Fault]:
    """Find a step that declares no parameters."""
    found = subject.notebook
    if found and subject.is_step and subject.script and found.tagged(PARAMETERS) is None:
        yield Fault(
            f"no cell is tagged `{PARAMETERS}`, so the step can be given none",
            f"Put what you would vary into one cell near the top and tag it `{PARAMETERS}`"
            " (JupyterLab: property inspector, Cell Tags).",
        )


def parameters_doubled(subject: Subject) -> Iterator[Fault]:
    """Find a second cell of parameters."""
    if subject.notebook is None:
        return
    tagged = [cell.position for cell in subject.notebook.code_cells if PARAMETERS in cell.tags]
    for position in tagged[1:]:
        yield Fault(
            f"it is tagged `{PARAMETERS}`, and so is cell {tagged[0]}",
            "Keep the tag on one of them, with all parameters in it.",
            cell=position,
        )


def outputs(subject: Subject) -> Iterator[Fault]:
    """Find outputs and execution counts, which make every run a change of the file."""
    if subject.notebook is None:
        return
    kept: list[int] = []
    for position, cell in enumerate(subject.document.get("cells") or (), 1):
        if cell.get("cell_type") != "code":
            continue
        if cell.get("outputs") or cell.get("execution_count") is not None:
            kept.append(position)
    if kept:
        what = "1 cell holds" if len(kept) == 1 else f"{len(kept)} cells hold"
        yield Fault(f"{what} outputs or execution counts", STRIP, cell=kept[0])


def out_of_order(subject: Subject) -> Iterator[Fault]:
    """Find cells that were executed in another order than they stand."""
    if subject.notebook is None:
        return
    highest, above = 0, 0
    for position, cell in enumerate(subject.document.get("cells") or (), 1):
        count: Any = cell.get("execution_count")
        if cell.get("cell_type") != "code" or not isinstance(count, int):
            continue
        if count <= highest:
            yield Fault(
                f"it was executed as number {count}, cell {above} above it as number {highest}:"
                " the outputs may not be what a run gives",
                "Run the notebook from top to bottom (Restart Kernel and Run All Cells) and save.",
                cell=position,
            )
            return
        highest, above = count, position
