"""A schema's columns and outputs as tensors of the Open Inference Protocol V2."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nbmlops.errors import InvalidRecords, nearest
from nbmlops.records import Column, ModelSchema, OutputSchema
from nbmlops.schema.checking import checked, facts, listed
from nbmlops.tensors import INTEGERS, NUMERIC, Tensor

_LABEL_DATATYPES = {"text": "BYTES", "integer": "INT64", "boolean": "BOOL", "number": "FP64"}
_NUMERIC_KINDS = {"number", "integer", "boolean"}
MATRIX = "input"


def datatype(column: Column) -> str:
    """Return the V2 datatype that a column travels as.

    Integers and truth values that may be null travel as ``FP64``, with NaN for null.
    """
    if column.kind in {"category", "text"}:
        return "BYTES"
    if column.kind == "number" or column.nullable:
        return "FP64"
    return "INT64" if column.kind == "integer" else "BOOL"


def output_datatype(output: OutputSchema) -> str:
    """Return the V2 datatype of the output ``prediction``."""
    return "FP64" if output.kind == "value" else _LABEL_DATATYPES[output.class_kind]


def inputs(
    schema: ModelSchema, columns: Sequence[Sequence[Any]], *, matrix: bool = False
) -> list[Tensor]:
    """Return checked columns as the tensors of an ``infer`` request, in schema order.

    With ``matrix``, and where all columns travel as ``FP64``, it is one tensor ``input`` of shape
    [rows, columns], which costs one header instead of many.
    """
    types = [datatype(column) for column in schema.columns]
    if matrix and is_block(schema):
        rows = [value for row in zip(*columns, strict=True) for value in row]
        try:
            values = array("d", rows)
        except TypeError:  # nulls
            values = array("d", [math.nan if value is None else value for value in rows])
        return [Tensor(MATRIX, "FP64", (len(columns[0]), len(columns)), values)]
    return [
        Tensor(column.name, kind, (len(values),), values)
        for column, kind, values in zip(schema.columns, types, columns, strict=True)
    ]


def is_block(schema: ModelSchema) -> bool:
    """Return whether all columns travel as ``FP64``, so that rows are one matrix of doubles."""
    return all(datatype(column) == "FP64" for column in schema.columns)


def block_input(schema: ModelSchema, block: array[float]) -> Tensor:
    """Return a block of rows as the tensor of an ``infer`` request."""
    width = len(schema.columns)
    return Tensor(MATRIX, "FP64", (len(block) // width, width), block)


def read(schema: ModelSchema, found: Mapping[str, Tensor]) -> list[list[Any]]:
    """Return a client's tensors as checked columns, in schema order: what ``check`` returns.

    There is one input for each column, of shape [n] or [n, 1], or, where all columns are numbers
    or truth values, one input of any name and of shape [n, columns].

    Raises
    ------
    InvalidRecords
        When they are not the schema's columns, or a value does not fit; the message names it.
    """
    columns = schema.columns
    if (quick := read_block(schema, found)) is not None:
        return facts(schema).columns(quick)
    if len(found) == 1:
        (only,) = found.values()
        width = only.shape[1] if len(only.shape) == 2 else 1
        if (
            (width == len(columns) and (width > 1 or only.name != columns[0].name))
            and len(only.shape) == 2
            and only.datatype in NUMERIC
            and all(column.kind in _NUMERIC_KINDS for column in columns)
        ):
            found = {
                column.name: Tensor(
                    column.name, only.datatype, (only.shape[0],), only.values[index::width]
                )
                for index, column in enumerate(columns)
            }
    names = [column.name for column in columns]
    missing = [name for name in names if name not in found]
    extra = [name for name in found if name not in set(names)]
    if extra:
        hint = nearest(extra[0], missing or names)
        raise InvalidRecords(f"the model has no input `{extra[0][:120]}`", hint)
    if missing:
        raise InvalidRecords(
            f"input `{missing[0][:120]}` is missing", f"The inputs are: {listed(names)}."
        )
    rows = {tensor.shape[0] for tensor in found.values()}
    for tensor in found.values():
        if tensor.shape[1:] not in {(), (1,)}:
            raise InvalidRecords(
                f"input `{tensor.name[:120]}` has the shape {list(tensor.shape)}",
                "Send each column as [n] or [n, 1].",
            )
    if len(rows) != 1 or rows == {0}:
        raise InvalidRecords(
            f"the inputs have {', '.join(map(str, sorted(rows)))} rows",
            "Send the same number of rows in each, at least one.",
        )
    return [checked(column, _plain(column, found[column.name])) for column in columns]


def read_block(schema: ModelSchema, found: Mapping[str, Tensor]) -> array[float] | None:
    """Return a client's one matrix as a block of doubles, where that is all it is.

    ``None`` is no refusal: :func:`read` decides, column by column.
    """
    if len(found) != 1 or not facts(schema).only_numbers:
        return None
    (only,) = found.values()
    if len(only.shape) != 2 or only.shape[1] != len(schema.columns) or not only.shape[0]:
        return None
    values = only.values
    if not isinstance(values, array) or only.datatype not in {"FP64", "FP32"}:
        return None
    # A sum of finite numbers may be infinite; then the slower check decides.
    if not math.isfinite(sum(values)):
        return None
    return values if values.typecode == "d" else array("d", values)


def check_outputs(schema: ModelSchema, wanted: Iterable[str] | None) -> None:
    """Refuse what is asked for and is no output of the model.

    Raises
    ------
    InvalidRecords
        When there is no such output.
    """
    names = ["prediction", "probability"] if schema.output.probabilities else ["prediction"]
    for name in wanted or ():
        if name not in names:
            raise InvalidRecords(
                f"the model has no output `{name[:120]}`", f"It has {' and '.join(names)}."
            )


def _plain(column: Column, tensor: Tensor) -> list[Any]:
    """Return a tensor's values as JSON would have them for this column."""
    values = list(tensor.values)
    if column.kind in {"category", "text"} or tensor.datatype in {"BYTES", "BOOL"}:
        wanted = "BYTES" if column.kind in {"category", "text"} else datatype(column)
        accepted = {"BYTES"} if wanted == "BYTES" else {"BOOL"} if column.kind == "boolean" else ()
        if tensor.datatype not in accepted:
            raise InvalidRecords(
                f"input `{column.name[:120]}` is {tensor.datatype}, not {wanted}",
                f"Send it as {wanted}.",
            )
        return values
    if column.nullable and tensor.datatype not in INTEGERS:
        values = [None if value != value else value for value in values]  # noqa: PLR0124 NaN
    if column.kind == "boolean":
        return [bool(value) if value in (0, 1) else value for value in values]
    return values


def metadata(name: str, version: int, platform: str, schema: ModelSchema) -> dict[str, Any]:
    """Return a model's metadata as the V2 protocol has it."""
    output = schema.output
    outputs: list[dict[str, Any]] = [
        {"name": "prediction", "datatype": output_datatype(output), "shape": [-1]}
    ]
    if output.probabilities:
        width = len(output.classes or ())
        outputs.append({"name": "probability", "datatype": "FP64", "shape": [-1, width]})
    return {
        "name": name,
        "versions": [str(version)],
        "platform": platform,
        "inputs": [
            {"name": column.name, "datatype": datatype(column), "shape": [-1]}
            for column in schema.columns
        ],
        "outputs": outputs,
        "properties": {"classes": list(output.classes or ())},
    }
