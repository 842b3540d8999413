"""Reading files of rows, a chunk at a time."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from nbmlops.errors import MissingExtra, NbmlopsError, nearest

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
CHUNK_ROWS = 8192
_CELL_LIMIT = 1 << 24
_BUFFER_BYTES = 1 << 16
_INTEGER = re.compile(r"[+-]?[0-9]{1,30}")
_TRUTHS = {"true": True, "false": False, "True": True, "False": False, "TRUE": True, "FALSE": False}


class InvalidFile(NbmlopsError):
    """A file of rows cannot be read as such, or lacks columns."""

    code = "invalid-file"


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of a file: ``first`` counts from 1 over the file's rows.

    ``table`` is the chunk as Arrow has it, where it comes from Parquet.
    """

    first: int
    rows: int
    columns: dict[str, list[Any]]
    table: Any = None


def format_of(path: Path) -> str:
    """Return ``parquet``, ``csv`` or ``jsonl``, by the file's name.

    Raises
    ------
    InvalidFile
        For any other.
    """
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        raise InvalidFile(
            f"{path.name} is neither Parquet, CSV nor JSON lines",
            f"Name it by what it is: {', '.join(FORMATS)}.",
        )
    return found


def read(
    path: Path, columns: Sequence[str] | None = None, rows: int = CHUNK_ROWS
) -> Iterator[Chunk]:
    """Yield a file's rows; of Parquet only the values of some ``columns``, if given.

    Raises
    ------
    InvalidFile
        When there is no such file, or it is not of the format that its name says.
    MissingExtra
        When it is Parquet and pyarrow is not installed.
    """
    reader = {"parquet": _parquet, "csv": _csv, "jsonl": _json_lines}[format_of(path)]
    try:
        yield from reader(path, columns, rows)
    except FileNotFoundError:
        raise _not_there(path) from None
    except IsADirectoryError:
        raise InvalidFile(f"{path} is a folder", "Name a file in it.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidFile(f"{path.name} cannot be read: {error}", "Write it as UTF-8.") from error
    except OSError as error:
        if error.errno is not None:  # the disk's affair, and not the file's
            raise
        raise InvalidFile(
            f"{path.name} is damaged: {str(error)[:300]}", "Write it again from where it came."
        ) from error


def _not_there(path: Path) -> InvalidFile:
    return InvalidFile(f"there is no file {path}", "See what is there: `ls`.")


def names(path: Path) -> list[str]:
    """Return the columns of a file that has rows: of JSON lines those of the first one.

    Raises
    ------
    InvalidFile
        When it has no rows, or cannot be read.
    """
    if not path.exists():
        raise _not_there(path)
    if format_of(path) == "parquet":
        with parquet(path) as file:
            found = list(file.schema_arrow.names) if file.metadata.num_rows else []
    else:
        first = next(read(path, rows=1), None)
        found = list(first.columns) if first else []
    if not found:
        raise InvalidFile(f"{path.name} has no rows", "Name a file that has some.")
    return found


def require(path: Path, present: Sequence[str], wanted: Sequence[str], whose: str) -> None:
    """Refuse a file that lacks columns, naming all of them.

    Raises
    ------
    InvalidFile
        When one is missing.
    """
    missing = [name for name in wanted if name not in present]
    if missing:
        listed = ", ".join(f"`{name}`" for name in missing)
        raise InvalidFile(
            f"{path.name} has not the columns of {whose}: {listed}",
            nearest(missing[0], [name for name in present if name not in wanted] or present),
            missing=missing,
        )


def told(values: list[Any], kind: str) -> list[Any]:
    """Return the texts of a CSV column as values of a schema's kind, where they are such."""
    return [_told(value, kind) if isinstance(value, str) else value for value in values]


def _told(value: str, kind: str) -> Any:
    if kind == "boolean":
        return _TRUTHS.get(value, value)
    if kind not in {"number", "integer"} or "_" in value:
        return value
    try:
        if kind == "integer" and _INTEGER.fullmatch(value):
            return int(value)
        number = float(value)
    except ValueError:
        return value
    return None if math.isnan(number) else number


# --- formats ------------------------------------------------------------------------------------


def arrow() -> Any:
    """Return pyarrow.

    Raises
    ------
    MissingExtra
        When it is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet  # pyright: ignore[reportUnusedImport] a part loaded apart
    except ImportError as error:
        raise MissingExtra(
            "pyarrow is not installed, which Parquet needs",
            "pip install 'nbmlops[lab]', or use CSV or JSON lines.",
        ) from error
    return pa


def parquet(path: Path) -> Any:
    """Return a Parquet file as pyarrow has it, opened so that a batch at a time is in memory.

    Raises
    ------
    InvalidFile
        When it is none.
    MissingExtra
        When pyarrow is not installed.
    """
    library = arrow()
    try:
        # Otherwise a row group is read at once, and a file may be one row group.
        return library.parquet.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    except FileNotFoundError:
        raise _not_there(path) from None
    except library.ArrowInvalid as error:
        raise InvalidFile(f"{path.name} is no Parquet file: {error}"[:300], "Write it anew.") from (
            error
        )


def _parquet(path: Path, columns: Sequence[str] | None, rows: int) -> Iterator[Chunk]:
    library, file = arrow(), parquet(path)
    first = 1
    with file:
        _refuse_doubled(path, file.schema_arrow.names)
        for batch in file.iter_batches(batch_size=rows):
            wanted = batch.schema.names if columns is None else columns
            found = {
                name: _values(library, batch.column(name))
                for name in batch.schema.names
                if name in wanted
            }
            yield Chunk(first, batch.num_rows, found, batch)
            first += batch.num_rows


def _values(library: Any, column: Any) -> list[Any]:
    if library.types.is_decimal(column.type):
        column = column.cast(library.float64())
    values = column.to_pylist()
    if library.types.is_floating(column.type):
        return [None if value != value else value for value in values]  # noqa: PLR0124 NaN
    return values


def _refuse_doubled(path: Path, header: Sequence[str]) -> None:
    if len(set(header)) != len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise InvalidFile(f"{path.name} has two columns `{twice}`", "Rename one.")


def _csv(path: Path, _columns: Sequence[str] | None, rows: int) -> Iterator[Chunk]:
    csv.field_size_limit(_CELL_LIMIT)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        header = next(reader, None)
        if not header:
            raise InvalidFile(f"{path.name} is empty", "Its first line names the columns.")
        _refuse_doubled(path, header)
        first = 1
        while taken := list(islice((row for row in reader if row), rows)):
            for number, row in enumerate(taken, first):
                if len(row) != len(header):
                    raise InvalidFile(
                        f"{path.name} row {number} has {len(row)} cells, not {len(header)}",
                        "Quote cells that hold a comma.",
                    )
            cells = zip(*taken, strict=True)
            found = {
                name: [cell or None for cell in column]
                for name, column in zip(header, cells, strict=True)
            }
            yield Chunk(first, len(taken), found)
            first += len(taken)


def _json_lines(path: Path, _columns: Sequence[str] | None, rows: int) -> Iterator[Chunk]:
    with path.open(encoding="utf-8") as file:
        lines = (line for line in file if line.strip())
        first = 1
        header: list[str] | None = None
        while taken := list(islice(lines, rows)):
            found = [_object(path, number, line) for number, line in enumerate(taken, first)]
            header = header or list(found[0])
            for number, row in enumerate(found, first):
                if set(row) != set(header):
                    odd = min(set(row) ^ set(header))
                    raise InvalidFile(
                        f"{path.name} row {number} and row 1 differ in `{odd}`",
                        "Give every row the same keys, with null where a value is missing.",
                    )
            yield Chunk(first, len(found), {name: [row[name] for row in found] for name in header})
            first += len(found)


def _object(path: Path, number: int, line: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise InvalidFile(
            f"{path.name} row {number} is not JSON: {error}"[:300], "Write one object a line."
        ) from error
    if not isinstance(row, dict) or not row:
        raise InvalidFile(
            f"{path.name} row {number} is no object with columns", "Write one object a line."
        )
    return row
