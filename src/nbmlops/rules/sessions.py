"""What a kernel has executed, held against the notebook that is saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from nbmlops.notebook import Notebook
from nbmlops.rules.rule import Fault, Subject

# Lines that a job ignores, so that an unsaved edit of them changes nothing of it.
_INERT = ("%mlops", "%%mlops", "%load_ext nbmlops", "%reload_ext nbmlops", "#")


@dataclass(frozen=True, slots=True)
class Edit:
    """A cell whose executed source is not what the file holds.

    ``position`` is ``None`` for a cell that the file does not have.
    """

    cell_id: str
    position: int | None


def unsaved(
    document: Notebook, executed: Mapping[str, tuple[str, datetime]], saved_at: datetime
) -> tuple[Edit, ...]:
    """Return the cells that were executed after the file was saved, and differ from the file's.

    Parameters
    ----------
    document
        The notebook as it is saved.
    executed
        The last executed source of each cell and when that was, by the cell's id.
    saved_at
        When the file was written.
    """
    by_id = {cell.cell_id: cell for cell in document.cells if cell.cell_id}
    sources = {_plain(cell.source) for cell in document.cells}
    found: list[Edit] = []
    for cell_id, (source, executed_at) in executed.items():
        if executed_at <= saved_at or _is_inert(source):
            continue
        cell = by_id.get(cell_id)
        if cell is not None and _plain(cell.source) != _plain(source):
            found.append(Edit(cell_id, cell.position))
        # A file without ids is of a format before 4.5: its cells are known by what they hold.
        if cell is None and (by_id or _plain(source) not in sources):
            found.append(Edit(cell_id, None))
    return tuple(sorted(found, key=lambda edit: (edit.position is None, edit.position or 0)))


def _plain(source: str) -> str:
    return source.replace("\r\n", "\n").strip()


def _is_inert(source: str) -> bool:
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    return source.lstrip().startswith("%%mlops") or all(line.startswith(_INERT) for line in lines)


def look(subject: Subject) -> Iterator[Fault]:
    """Find edits that the kernel has executed and the file does not hold."""
    if subject.session is None or subject.notebook is None:
        return
    found = unsaved(subject.notebook, subject.session.executed, subject.session.saved_at)
    places = [str(edit.position) for edit in found if edit.position is not None]
    if found:
        where = f" (in cell {', '.join(places[:5])})" if places else ""
        yield Fault(
            f"executed edits are not saved{where}: a run takes the file as it is",
            "Save the notebook (Ctrl-S), then run it again.",
            cell=found[0].position,
        )
