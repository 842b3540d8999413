"""Writing files of rows: what was read, and columns that were added."""

from __future__ import annotations

import contextlib
import csv
import os
import secrets
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from nbmlops import layout
from nbmlops.sheets.reading import Chunk, arrow, format_of


class Added(NamedTuple):
    """A column that is added: its Arrow type (``double``, ``string``, ``int64``, ``bool``)."""

    kind: str
    values: Sequence[Any]


class Sheet(Protocol):
    """A file that is being written."""

    def add(self, chunk: Chunk, added: Mapping[str, Added]) -> None:
        """Write a chunk's rows with further columns."""
        ...

    def finish(self) -> None:
        """Write what ends the file."""
        ...


@contextlib.contextmanager
def written(
    path: Path, metadata: Mapping[str, str], kinds: Mapping[str, str]
) -> Generator[Sheet, None, None]:
    """Write a file that appears under its name when the block ends well, and not otherwise.

    ``metadata`` goes into the file where the format has a place for it (Parquet); ``kinds`` are
    the types of columns whose chunks tell none, text where it names none.
    """
    make = {"parquet": _Parquet, "csv": _Csv, "jsonl": _JsonLines}[format_of(path)]
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        sheet = make(temporary, metadata, kinds)
        try:
            yield sheet
        finally:
            sheet.finish()
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    layout.sync_folder(path.parent)


class _Parquet:
    def __init__(self, path: Path, metadata: Mapping[str, str], kinds: Mapping[str, str]) -> None:
        self._arrow, self._path = arrow(), path
        self._metadata, self._kinds = dict(metadata), kinds
        self._schema: Any = None
        self._writer: Any = None

    def add(self, chunk: Chunk, added: Mapping[str, Added]) -> None:
        """Write a chunk; the first one tells the columns' types."""
        if self._schema is None:
            self._schema = self._schema_of(chunk, added)
            self._writer = self._arrow.parquet.ParquetWriter(self._path, self._schema)
        arrays: list[Any] = []
        for field in self._schema:
            if field.name in added:
                arrays.append(self._arrow.array(added[field.name].values, type=field.type))
            elif chunk.table is not None:
                arrays.append(chunk.table.column(field.name))
            else:
                values = _fitting(chunk.columns[field.name], str(field.type))
                arrays.append(self._arrow.array(values, type=field.type))
        self._writer.write_batch(self._arrow.RecordBatch.from_arrays(arrays, schema=self._schema))

    def _schema_of(self, chunk: Chunk, added: Mapping[str, Added]) -> Any:
        library = self._arrow
        if chunk.table is not None:
            fields = list(chunk.table.schema)
            before = dict(chunk.table.schema.metadata or {})
        else:
            fields = [
                library.field(name, _type(library, self._kinds.get(name, "string")))
                for name in chunk.columns
            ]
            before = {}
        fields += [library.field(name, _type(library, one.kind)) for name, one in added.items()]
        before.pop(b"pandas", None)  # it describes other columns
        return library.schema(fields, metadata={**before, **self._metadata})

    def finish(self) -> None:
        """Write the footer."""
        if self._writer is not None:
            self._writer.close()


def _type(library: Any, kind: str) -> Any:
    return {
        "double": library.float64,
        "int64": library.int64,
        "bool": library.bool_,
        "string": library.string,
    }[kind]()


def _fitting(values: Sequence[Any], kind: str) -> list[Any]:
    """Return values as texts where the column is of texts: JSON may hold anything."""
    if kind != "string":
        return list(values)
    return [
        one if one is None or isinstance(one, str) else msgspec.json.encode(one).decode()
        for one in values
    ]


class _Csv:
    def __init__(self, path: Path, _metadata: Mapping[str, str], _kinds: Mapping[str, str]) -> None:
        self._file = path.open("x", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")
        # The other one leaves a carriage return unquoted, which ends a line when it is read.
        self._careful = csv.writer(self._file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        self._named = False

    def add(self, chunk: Chunk, added: Mapping[str, Added]) -> None:
        """Write a chunk, before the first one the columns' names."""
        columns = _plain(chunk)
        if not self._named:
            self._writer.writerow([*columns, *added])
            self._named = True
        every = [*columns.values(), *(one.values for one in added.values())]
        for row in zip(*every, strict=True):
            cells = [_cell(value) for value in row]
            odd = any("\r" in cell for cell in cells if isinstance(cell, str))
            (self._careful if odd else self._writer).writerow(cells)

    def finish(self) -> None:
        """Close the file."""
        self._file.close()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value


class _JsonLines:
    def __init__(self, path: Path, _metadata: Mapping[str, str], _kinds: Mapping[str, str]) -> None:
        self._file = path.open("xb")

    def add(self, chunk: Chunk, added: Mapping[str, Added]) -> None:
        """Write a chunk."""
        columns = _plain(chunk) | {name: one.values for name, one in added.items()}
        encode = msgspec.json.Encoder(enc_hook=str).encode
        for row in zip(*columns.values(), strict=True):
            self._file.write(encode(dict(zip(columns, row, strict=True))) + b"\n")

    def finish(self) -> None:
        """Close the file."""
        self._file.close()


def _plain(chunk: Chunk) -> dict[str, Sequence[Any]]:
    """Return all of a chunk's columns as plain values."""
    if chunk.table is None:
        return dict(chunk.columns)
    return {
        name: column.to_pylist()
        for name, column in zip(chunk.table.schema.names, chunk.table.columns, strict=True)
    }
