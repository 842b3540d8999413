"""The four questions about bare files: no deployment, no project, no registered model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from nbmlops import digests, layout, project, sheets
from nbmlops.monitoring import kinds
from nbmlops.monitoring.drift import DEFAULT_BUDGET
from nbmlops.monitors.bare import Rows, answered, part_rows
from nbmlops.records import Budget, MonitorReport

_READ_ROWS = 1 << 18  # of one column at a time: four parts of a million rows


def compare(
    window: Path,
    reference: Path,
    *,
    target: str | None = None,
    prediction: str | None = None,
    budget: Budget,
    created_at: datetime,
) -> MonitorReport:
    """Hold a file of rows against another: Parquet, CSV or JSON lines.

    Only the features are asked about, unless ``prediction`` names the column of the predictions
    (labels, values, or the probability of the second of two classes), and ``target`` that of the
    truths, which the window may lack.

    Raises
    ------
    InvalidFile
        When a file cannot be read, or lacks a column of the reference.
    MissingExtra
        When one is Parquet and pyarrow is not installed.
    """
    then = opened(reference)
    now = opened(window, then.kinds)
    named = [name for name in (target, prediction) if name]
    wanted = [name for name in named if name != target or name not in then.names]
    sheets.require(window, now.names, wanted, "the predictions and truths")
    if named and not set(named) & set(then.names):
        sheets.require(reference, then.names, named[:1], "the predictions and truths")
    features = [name for name in then.names if name not in named]
    sheets.require(window, now.names, features, reference.name)
    return answered(
        now,
        then,
        target=target,
        prediction=prediction,
        model=window.name,
        digest=digests.of_file(reference),
        budget=budget,
        created_at=created_at,
    )


def budget_at(start: Path) -> Budget:
    """Return the budget of the project at or above a folder, if there is any."""
    root = layout.project_root(start)
    if root is None:
        return DEFAULT_BUDGET
    told = project.read(root).monitoring
    return Budget(false_alarms=told.false_alarms, windows=told.windows)


def opened(path: Path, known: Mapping[str, str] | None = None) -> Rows:
    """Return a file's rows; of CSV, whose cells are texts, as values of the ``known`` kinds."""
    names = sheets.names(path)
    if sheets.format_of(path) == "parquet":
        return _ParquetRows(path)
    held: dict[str, list[Any]] = {name: [] for name in names}
    for chunk in sheets.read(path):
        for name in names:
            held[name] += chunk.columns[name]
    texts = sheets.format_of(path) == "csv"
    told = {
        name: (known or {}).get(name)
        or (_told_kind(held[name]) if texts else kinds.kind_of(held[name]))
        for name in names
    }
    for name, kind in told.items():
        if kind == "datetime":
            held[name] = [_time(cell) for cell in held[name]]
        elif texts:
            held[name] = sheets.told(held[name], kind)
    return Rows(held, told)


def _told_kind(cells: list[str | None]) -> str:
    """Return the kind of a CSV column whose cells all read as one."""
    there = [cell for cell in cells if cell is not None]
    wanted = {"integer": int, "number": (int, float), "boolean": bool}
    for kind, types in wanted.items():
        told = sheets.told(there, kind) if there else [""]
        if all(one is None or isinstance(one, types) for one in told):
            return kind
    if there and all(isinstance(_time(cell), datetime) for cell in there):
        return "datetime"
    return "category"


def _time(cell: Any) -> Any:
    """Return a time that is written as ISO 8601 has it; anything else as it is."""
    if not isinstance(cell, str) or "-" not in cell[1:]:
        return cell
    try:
        return datetime.fromisoformat(cell)
    except ValueError:
        return cell


class _ParquetRows(Rows):
    """The rows of a Parquet file, read a column at a time, or some parts of one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = sheets.parquet(path)
        schema = self._file.schema_arrow
        self.names = list(schema.names)
        self.rows = self._file.metadata.num_rows
        self.kinds = {
            field.name: kinds.kind_of(sheets.arrow().array([], type=field.type)) for field in schema
        }

    def get(self, name: str) -> Any:
        if name not in self.names:
            return None
        return self._file.read(columns=[name], use_threads=False).column(0)

    def parts(self, name: str) -> Iterator[Any]:
        if name not in self.names:
            yield from super().parts(name)
            return
        size = part_rows(self.rows)
        held: list[Any] = []
        missing = size
        for batch in self._file.iter_batches(
            batch_size=max(1, _READ_ROWS // size) * size, columns=[name], use_threads=False
        ):
            column = batch.column(name)
            while len(column):  # a batch ends where a row group does, a part need not
                held.append(column[:missing])
                column = column[missing:]
                missing -= len(held[-1])
                if not missing:
                    yield _joined(held)
                    held, missing = [], size
        if held:
            yield _joined(held)


def _joined(pieces: list[Any]) -> Any:
    return pieces[0] if len(pieces) == 1 else sheets.arrow().chunked_array(pieces)
