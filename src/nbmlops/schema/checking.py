"""Checking records, and columns, against a schema."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from nbmlops.errors import InvalidRecords, nearest
from nbmlops.records import Column, ModelSchema

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
EXACT_IN_FLOAT = 2**53  # the integers up to here are exact in a double


@dataclass(frozen=True, slots=True)
class Facts:
    """What follows from a schema and is asked for with each call."""

    schema: ModelSchema
    names: tuple[str, ...]
    only_numbers: bool

    def columns(self, block: array[float]) -> list[list[Any]]:
        """Return a block of rows as one list of values for each column."""
        flat, width = block.tolist(), len(self.names)
        return [flat[index::width] for index in range(width)]

    def rows(self, block: array[float]) -> list[dict[str, Any]]:
        """Return a block of rows as records."""
        flat, names = block.tolist(), self.names
        width = len(names)
        return [
            dict(zip(names, flat[at : at + width], strict=True))
            for at in range(0, len(flat), width)
        ]


_FACTS: dict[int, Facts] = {}
_FACTS_LIMIT = 64


def facts(schema: ModelSchema) -> Facts:
    """Return the facts of a schema; they are worked out once for each object."""
    known = _FACTS.get(id(schema))
    if known is not None and known.schema is schema:
        return known
    made = Facts(
        schema,
        tuple(column.name for column in schema.columns),
        all(column.kind == "number" for column in schema.columns),
    )
    if len(_FACTS) >= _FACTS_LIMIT:
        _FACTS.clear()
    _FACTS[id(schema)] = made
    return made


def check(schema: ModelSchema, records: Any) -> list[list[Any]]:
    """Return decoded JSON records as one list of values for each column, in schema order.

    Raises
    ------
    InvalidRecords
        At the first value that does not fit; the message names the record (from 0) and column.

    >>> from nbmlops.records import load
    >>> schema = load(
    ...     '{"columns": [{"name": "age", "kind": "integer"}], "output": {"kind": "value"}}',
    ...     ModelSchema,
    ... )
    >>> check(schema, [{"age": 41}, {"age": 5.0}])
    [[41, 5]]
    """
    if not isinstance(records, list):
        raise InvalidRecords(
            f"records are a list of objects, not {_spelled(records)}",
            'Send {"records": [{"column": value}]}.',
        )
    if not records:
        raise InvalidRecords("there are no records", "Send at least one record.")
    rows: list[Any] = records
    about = facts(schema)
    names = about.names
    if (quick := block(schema, rows)) is not None:
        return about.columns(quick)
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            _refuse(index, None, f"is {_spelled(row)}, not an object", "Write {column: value}.")
        if row.keys() != set(names):
            _refuse_names(schema, index, row)
    return [checked(column, [row[column.name] for row in rows]) for column in schema.columns]


_FLOATS = {float}


def block(schema: ModelSchema, rows: Sequence[Any]) -> array[float] | None:
    """Return records as one block of doubles, row after row, where that is all they are.

    ``None`` is no refusal: :func:`check` decides, value by value.
    """
    about = facts(schema)
    if not about.only_numbers:
        return None
    names = about.names
    values: list[Any] = []
    for row in rows:
        if type(row) is not dict or len(row) != len(names):
            return None
        try:
            values += [row[name] for name in names]
        except KeyError:
            return None
    # A sum of finite numbers may be infinite; then the slower check decides.
    if set(map(type, values)) != _FLOATS or not math.isfinite(sum(values)):
        return None
    return array("d", values)


def _refuse_names(schema: ModelSchema, index: int, row: Mapping[str, Any]) -> NoReturn:
    known = [column.name for column in schema.columns]
    missing = [name for name in known if name not in row]
    extra = [name for name in row if name not in known]
    if extra:
        hint = nearest(extra[0], missing or known)
        _refuse(index, extra[0], "is not a column of the model", hint)
    more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
    _refuse(index, missing[0], f"is missing{more}", f"The columns are: {listed(known)}.")


def checked(column: Column, values: list[Any]) -> list[Any]:
    """Return one column's values, converted: the usual case in one pass, else one by one."""
    types = set(map(type, values))
    if column.kind == "number" and types == {float}:
        if all(map(math.isfinite, values)):
            return values
    elif (column.kind == "boolean" and types == {bool}) or (
        column.kind in {"category", "text"} and types == {str} and all(map(str.isascii, values))
    ):
        return values
    return [_converted(column, value, index) for index, value in enumerate(values)]


def _converted(column: Column, value: Any, index: int) -> Any:
    if value is None:
        if column.nullable:
            return None
        _refuse(
            index,
            column.name,
            _NO_GAPS,
            f"Send {_WANTED[column.kind]}, or train with gaps in this column.",
        )
    converted = _CONVERTERS[column.kind](column, value)
    if converted is None:
        _refuse(index, column.name, _unlike(column, value), _hint(column, value))
    return converted


def misfit(column: Column, value: Any) -> str | None:
    """Say what is wrong with a value of a column; ``None`` where :func:`checked` takes it.

    >>> misfit(Column(name="age", kind="integer"), "old")
    "is the text 'old', not an integer of 64 bits"
    """
    if value is None:
        return None if column.nullable else _NO_GAPS
    fits = _CONVERTERS[column.kind](column, value) is not None
    return None if fits else _unlike(column, value)


def _unlike(column: Column, value: Any) -> str:
    return f"is {_spelled(value)}, not {_WANTED[column.kind]}"


def _number(_: Column, value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _integer(column: Column, value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not (value.is_integer() and abs(value) <= EXACT_IN_FLOAT):
        return None
    number = int(value)
    if column.nullable:  # travels as FP64
        return number if abs(number) <= EXACT_IN_FLOAT else None
    return number if INT64_MIN <= number <= INT64_MAX else None


def _boolean(_: Column, value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _text(_: Column, value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair is not text
        return None
    return value


_CONVERTERS = {
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "category": _text,
    "text": _text,
}

_NO_GAPS = "is null, and training had no gaps in it"
_WANTED = {
    "number": "a finite number",
    "integer": "an integer of 64 bits",
    "boolean": "true or false",
    "category": "a text",
    "text": "a text",
}


def _hint(column: Column, value: Any) -> str:
    if column.kind in {"number", "integer"} and isinstance(value, str):
        return "Write numbers without quotes."
    if column.kind in {"number", "integer"} and isinstance(value, bool):
        return f"Write {int(value)} if that is meant."
    if column.kind == "integer" and isinstance(value, float):
        return "Training had whole numbers here: round it, or train with decimals."
    if column.kind == "category" and column.categories:
        return f"Training had: {listed(column.categories)}."
    return f"Send {_WANTED[column.kind]}."


def _refuse(index: int, column: str | None, what: str, hint: str) -> NoReturn:
    where = f"records[{index}]" if column is None else f"records[{index}], column `{column[:120]}`"
    raise InvalidRecords(f"{where} {what}", hint, record=index, column=column and column[:200])


def listed(names: Sequence[str]) -> str:
    """Return names as people read them, the first of many."""
    shown = ", ".join(f"`{name[:60]}`" for name in names[:12])
    return shown if len(names) <= 12 else f"{shown}, ... ({len(names)} in all)"


def _spelled(value: Any) -> str:
    """Say what a JSON value is, with the value where it is short."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    if isinstance(value, int) and abs(value) > INT64_MAX:
        return "an integer beyond 64 bits"
    if isinstance(value, int | float):
        return f"the number {value!r}"
    return "a list" if isinstance(value, list) else "an object"
