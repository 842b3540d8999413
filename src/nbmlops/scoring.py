"""Scoring: a file's rows answered by a worker, written with their answers beside them.

The schema check is the one of every call, so a row gets the answer that a call with it would get.
Rows are sent many at a time, and one by one to a model whose answer to a row was seen to depend on
the rows beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbmlops import sheets
from nbmlops.asking import Asker
from nbmlops.errors import InvalidRecords
from nbmlops.records import ModelSchema, ModelVersion, Prediction
from nbmlops.schema import checking
from nbmlops.sheets import Added, Chunk

PREDICTION, BOUNDS = "prediction", "within_bounds"
SAY_EVERY_S = 1.0
_REQUEST_BYTES = 32 * 1024 * 1024  # of texts; the worker takes eight times as much
_LABELS = {"integer": "int64", "boolean": "bool", "number": "double", "text": "string"}
_INPUTS = {"integer": "int64", "boolean": "bool", "number": "double"}


@dataclass(frozen=True, slots=True)
class Scored:
    """How many rows were answered, and how many of them implausibly."""

    rows: int
    out_of_bounds: int


def check_header(source: Path, version: ModelVersion, contract: ModelSchema) -> None:
    """Refuse a file that lacks columns, or has one that would be written.

    Raises
    ------
    InvalidFile
        When it does, or cannot be read.
    """
    header = sheets.names(source)
    sheets.require(source, header, [column.name for column in contract.columns], version.name)
    if clash := [name for name in added_names(contract) if name in header]:
        raise sheets.InvalidFile(
            f"{source.name} has a column `{clash[0]}` already, which would be written",
            "Rename it, or take it out.",
            columns=clash,
        )


def answer(asker: Asker, source: Path, out: Path, say: Callable[[str], None]) -> Scored:
    """Answer the rows of ``source`` and write them with their answers to ``out``.

    ``out`` appears when it is whole. ``say`` is told now and then how many rows were answered.

    Raises
    ------
    InvalidFile
        When the file cannot be read.
    InvalidRecords
        When a value does not fit the schema; the message names row and column.
    ModelFailed
        When the worker fails.
    """
    version, contract = asker.version, asker.schema
    wanted = [column.name for column in contract.columns]
    facts = {
        "nbmlops_model": version.model,
        "nbmlops_version": str(version.version),
        "nbmlops_commit": version.commit,
    }
    kinds = {column.name: _INPUTS.get(column.kind, "string") for column in contract.columns}
    tally = _Tally(say)
    with sheets.written(out, facts, kinds) as sheet:
        for chunk in sheets.read(source, wanted):
            columns = _checked(source, contract, chunk)
            if chunk.table is None and sheets.format_of(out) != "csv":
                chunk.columns.update(zip(wanted, columns, strict=True))
            answers = _answers(asker, source, chunk, columns)
            sheet.add(chunk, _added(version, contract, answers))
            tally.count(answers)
    return Scored(tally.rows, tally.out_of_bounds)


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
    asker: Asker, source: Path, chunk: Chunk, columns: Sequence[Sequence[Any]]
) -> list[Prediction]:
    found: list[Prediction] = []
    for start, end in _requests(columns, alone=not asker.version.probe.independent):
        part = [values[start:end] for values in columns]
        try:
            found += asker.predict(part)
        except InvalidRecords as error:
            row = chunk.first + start + _refused_at(asker, part)
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


def _refused_at(asker: Asker, columns: Sequence[Sequence[Any]]) -> int:
    """Return the first row that the model refuses by itself, found by halving."""
    low, high = 0, len(columns[0])
    while high - low > 1:
        middle = (low + high) // 2
        try:
            asker.predict([values[low:middle] for values in columns])
        except InvalidRecords:
            high = middle
        else:
            low = middle
    return low


def added_names(contract: ModelSchema) -> list[str]:
    """Return the columns that answers add to a file's own."""
    output = contract.output
    shares = (output.classes or ()) if output.probabilities else ()
    facts = ("nbmlops_model", "nbmlops_version", "nbmlops_commit")
    return [PREDICTION, *(f"probability.{name}" for name in shares), BOUNDS, *facts]


def _added(
    version: ModelVersion, contract: ModelSchema, answers: Sequence[Prediction]
) -> dict[str, Added]:
    output, rows = contract.output, len(answers)
    kind = "double" if output.kind == "value" else _LABELS[output.class_kind]
    columns = {PREDICTION: Added(kind, [answer.outcome for answer in answers])}
    if output.probabilities:
        for name in output.classes or ():
            shares = [(answer.probabilities or {}).get(name) for answer in answers]
            columns[f"probability.{name}"] = Added("double", shares)
    columns[BOUNDS] = Added("bool", [answer.within_bounds for answer in answers])
    columns["nbmlops_model"] = Added("string", [version.model] * rows)
    columns["nbmlops_version"] = Added("int64", [version.version] * rows)
    columns["nbmlops_commit"] = Added("string", [version.commit] * rows)
    return columns
