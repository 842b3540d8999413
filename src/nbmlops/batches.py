"""Batches: a file's rows answered by a model version in its own environment.

The worker is the one that would serve the version, the schema check the one of every call, so a
row gets the answer that a call with it would get. Rows are sent many at a time, and one by one to
a model whose answer to a row was seen to depend on the rows beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nbmlops import calls, digests, layout, models, sheets, stints
from nbmlops.errors import InvalidRecords, WrongUse
from nbmlops.records import BatchRecord, ModelSchema, ModelVersion, Prediction
from nbmlops.schema import checking
from nbmlops.sheets import Added, Chunk
from nbmlops.stints import Stint
from nbmlops.workspace import Workspace

KIND = "batch"
PREDICTION, BOUNDS = "prediction", "within_bounds"
SAY_EVERY_S = 1.0
_REQUEST_BYTES = 32 * 1024 * 1024  # of texts; the worker takes eight times as much
_LABELS = {"integer": "int64", "boolean": "bool", "number": "double", "text": "string"}
_INPUTS = {"integer": "int64", "boolean": "bool", "number": "double"}


def predict(
    workspace: Workspace, reference: str, source: Path, out: Path, *, force: bool = False
) -> BatchRecord:
    """Answer the rows of ``source`` and write them with their answers to ``out``.

    Both are Parquet, CSV or JSON lines, by their names. Columns that the model does not take are
    carried over. ``out`` appears when it is whole.

    Raises
    ------
    UnknownModel
        When there is no such version.
    WrongUse
        When ``out`` is there already, or is ``source``.
    InvalidFile
        When the file cannot be read, lacks columns, or has one that would be written.
    InvalidRecords
        When a value does not fit the schema; the message names row and column.
    """
    version = models.find(workspace, reference)
    contract = models.schema(workspace, version)
    sheets.format_of(out)
    _refuse_target(source, out, force=force)
    header = sheets.names(source)
    wanted = [column.name for column in contract.columns]
    sheets.require(source, header, wanted, version.name)
    added = _added_names(contract)
    if clash := [name for name in added if name in header]:
        raise sheets.InvalidFile(
            f"{source.name} has a column `{clash[0]}` already, which would be written",
            "Rename it, or take it out.",
            columns=clash,
        )
    source_digest = digests.of_file(source)
    began_s = time.monotonic()
    facts = {
        "nbmlops_model": version.model,
        "nbmlops_version": str(version.version),
        "nbmlops_commit": version.commit,
    }
    kinds = {column.name: _INPUTS.get(column.kind, "string") for column in contract.columns}
    tally = _Tally(workspace.say)
    with stints.stint(workspace, version) as stint, sheets.written(out, facts, kinds) as sheet:
        for chunk in sheets.read(source, wanted):
            columns = _checked(source, contract, chunk)
            if chunk.table is None and sheets.format_of(out) != "csv":
                chunk.columns.update(zip(wanted, columns, strict=True))
            answers = _answers(stint, source, chunk, columns)
            sheet.add(chunk, _added(version, contract, answers))
            tally.count(answers)
    now = workspace.now()
    record = BatchRecord(
        batch_id=layout.new_id(version.model, now.timestamp()),
        model=version.model,
        version=version.version,
        commit=version.commit,
        rows=tally.rows,
        out_of_bounds=tally.out_of_bounds,
        source=str(source),
        source_digest=source_digest,
        out=str(out),
        out_digest=digests.of_file(out),
        seconds=round(time.monotonic() - began_s, 3),
        created_at=now,
        author=workspace.repo.author(),
    )
    key = f"{KIND}:{record.batch_id}"
    workspace.store.swap(KIND, record.batch_id, record, expected=0, key=key)
    return record


class _Tally:
    """What was answered so far, told now and then."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.rows = self.out_of_bounds = 0
        self._say = say
        self._said_s = time.monotonic()

    def count(self, answers: Sequence[Prediction]) -> None:
        """Add answers to it."""
        self.rows += len(answers)
        self.out_of_bounds += sum(not answer.within_bounds for answer in answers)
        if time.monotonic() - self._said_s >= SAY_EVERY_S:
            self._said_s = time.monotonic()
            self._say(f"{self.rows:,} rows answered")


def _refuse_target(source: Path, out: Path, *, force: bool) -> None:
    if out.exists() and source.exists() and out.samefile(source):
        raise WrongUse(f"{out.name} is the file that is read", "Name another file: --out FILE.")
    if out.is_dir():
        raise WrongUse(f"{out} is a folder", "Name a file in it: --out FILE.")
    if not out.parent.is_dir():
        raise WrongUse(f"there is no folder {out.parent}", f"Make it: `mkdir -p {out.parent}`.")
    if out.exists() and not force:
        raise WrongUse(f"{out} is there already", "Name another, or write over it: --force.")


def _checked(source: Path, contract: ModelSchema, chunk: Chunk) -> list[list[Any]]:
    """Return the model's columns of a chunk, checked as those of a call are."""
    columns: list[list[Any]] = []
    for column in contract.columns:
        values = chunk.columns[column.name]
        if sheets.format_of(source) == "csv":
            values = sheets.told(values, column.kind)
        try:
            columns.append(checking.checked(column, values))
        except InvalidRecords as error:
            raise _placed(error, source, chunk.first) from error
    return columns


def _placed(error: InvalidRecords, source: Path, first: int) -> InvalidRecords:
    """Return an error about a record of a chunk as one about a row of the file."""
    index = int(error.context.get("record", 0))
    where = f"{source.name} row {first + index:,}"
    return InvalidRecords(
        error.message.replace(f"records[{index}]", where, 1),
        error.hint.replace("Send ", "Write "),
        row=first + index,
        column=error.context.get("column"),
    )


def _answers(
    stint: Stint, source: Path, chunk: Chunk, columns: Sequence[Sequence[Any]]
) -> list[Prediction]:
    found: list[Prediction] = []
    for start, end in _requests(columns, alone=not stint.version.probe.independent):
        part = [values[start:end] for values in columns]
        try:
            found += stint.predict(part)
        except InvalidRecords as error:
            row = chunk.first + start + _refused_at(stint, part)
            raise InvalidRecords(
                f"{source.name} row {row:,}: {error.message}", error.hint, row=row
            ) from error
    return found


def _requests(columns: Sequence[Sequence[Any]], *, alone: bool) -> Iterator[tuple[int, int]]:
    """Yield which rows are sent together."""
    rows = len(columns[0])
    if alone:
        yield from ((row, row + 1) for row in range(rows))
        return
    texts = [values for values in columns if any(isinstance(one, str) for one in values)]
    start = size = 0
    for row in range(rows) if texts else ():
        own = sum(4 * len(values[row] or "") for values in texts)
        if row > start and size + own > _REQUEST_BYTES:
            yield start, row
            start, size = row, 0
        size += own
    yield start, rows


def _refused_at(stint: Stint, columns: Sequence[Sequence[Any]]) -> int:
    """Return the first row that the model refuses by itself, found by halving."""
    low, high = 0, len(columns[0])
    while high - low > 1:
        middle = (low + high) // 2
        try:
            stint.predict([values[low:middle] for values in columns])
        except InvalidRecords:
            high = middle
        else:
            low = middle
    return low


def _added_names(contract: ModelSchema) -> list[str]:
    output = contract.output
    shares = (output.classes or ()) if output.probabilities else ()
    facts = ("nbmlops_model", "nbmlops_version", "nbmlops_commit")
    return [PREDICTION, *(f"probability.{name}" for name in shares), BOUNDS, *facts]


def _added(
    version: ModelVersion, contract: ModelSchema, answers: Sequence[Prediction]
) -> dict[str, Added]:
    output, rows = contract.output, len(answers)
    kind = "double" if output.kind == "value" else _LABELS[output.class_kind]
    columns = {PREDICTION: Added(kind, [calls.predicted(answer) for answer in answers])}
    if output.probabilities:
        for name in output.classes or ():
            shares = [(answer.probabilities or {}).get(name) for answer in answers]
            columns[f"probability.{name}"] = Added("double", shares)
    columns[BOUNDS] = Added("bool", [answer.within_bounds for answer in answers])
    columns["nbmlops_model"] = Added("string", [version.model] * rows)
    columns["nbmlops_version"] = Added("int64", [version.version] * rows)
    columns["nbmlops_commit"] = Added("string", [version.commit] * rows)
    return columns
