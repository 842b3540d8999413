"""Tensors to the table that a model was trained on.

A DataFrame with the training's column names and dtypes, or a matrix if it was trained on an array
(or pandas is not there). A null is NaN, also in a column of texts; in a column of truth values
without a dtype of its own it is ``None``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nbmlops import schema
from nbmlops.records import Column, ModelSchema
from nbmlops.tensors import InvalidTensors, Tensor

_DOUBLE = (None, "float64")


def is_matrix(contract: ModelSchema) -> bool:
    """Whether all columns are doubles, which one block of memory holds."""
    return all(
        schema.datatype(column) == "FP64" and column.dtype in _DOUBLE and column.kind == "number"
        for column in contract.columns
    )


def matrix(contract: ModelSchema, inputs: Mapping[str, Tensor]) -> Any:
    """Return an array of shape (rows, columns).

    Raises
    ------
    InvalidTensors
        When the inputs are not the schema's columns.
    """
    import numpy as np

    columns = contract.columns
    only = inputs.get(schema.MATRIX)
    if only is not None and len(inputs) == 1 and len(only.shape) == 2 and only.shape[0]:
        if only.shape[1] != len(columns) or only.datatype != "FP64":
            raise InvalidTensors(
                f"the matrix is {only.datatype} {list(only.shape)}, not FP64 [n, {len(columns)}]"
            )
        found = np.asarray(only.values, dtype="float64").reshape(only.shape)
        wanted = _matrix_dtype(columns)
        return found if found.dtype == wanted else found.astype(wanted)
    rows = checked_rows(contract, inputs)
    made = np.empty((rows, len(columns)), dtype=_matrix_dtype(columns))
    for index, column in enumerate(columns):
        made[:, index] = _column(column, inputs[column.name].values)
    return made


def frame(contract: ModelSchema, inputs: Mapping[str, Tensor]) -> Any:
    """Return a DataFrame.

    Raises
    ------
    InvalidTensors
        When the inputs are not the schema's columns.
    """
    import pandas as pd

    if is_matrix(contract):
        # One block of numbers, which is by far the quickest table to make.
        names = [column.name for column in contract.columns]
        return pd.DataFrame(matrix(contract, inputs), columns=names, copy=False)
    checked_rows(contract, inputs)
    return pd.DataFrame(
        {column.name: _series(column, inputs[column.name].values) for column in contract.columns}
    )


def checked_rows(contract: ModelSchema, inputs: Mapping[str, Tensor]) -> int:
    """Return how many rows the inputs have.

    Raises
    ------
    InvalidTensors
        When the inputs are not the schema's columns.
    """
    rows: int | None = None
    for column in contract.columns:
        tensor = inputs.get(column.name)
        if tensor is None:
            raise InvalidTensors(f"there is no input {column.name[:120]!r}")
        if tensor.datatype != schema.datatype(column):
            raise InvalidTensors(
                f"input {column.name[:120]!r} is {tensor.datatype}, not {schema.datatype(column)}"
            )
        if tensor.shape[1:] not in {(), (1,)} or rows not in {None, tensor.shape[0]}:
            raise InvalidTensors(
                f"input {column.name[:120]!r} has the shape {list(tensor.shape)},"
                f" not [{'n' if rows is None else rows}]"
            )
        rows = tensor.shape[0]
    if len(inputs) != len(contract.columns):
        known = {column.name for column in contract.columns}
        extra = next(name for name in inputs if name not in known)
        raise InvalidTensors(f"the model has no input {extra[:120]!r}")
    if not rows:
        raise InvalidTensors("there are no rows")
    return rows


def _matrix_dtype(columns: Sequence[Column]) -> Any:
    import numpy as np

    kinds = {column.kind for column in columns}
    if kinds & {"category", "text"}:
        return np.dtype("object")
    dtypes = {column.dtype for column in columns}
    (dtype,) = dtypes if len(dtypes) == 1 else (None,)
    return np.dtype(dtype or "float64")


def _column(column: Column, values: Sequence[Any]) -> Any:
    """Return a column's values as a numpy array of the kind's own type."""
    import numpy as np

    if column.kind in {"category", "text"}:
        return np.array([np.nan if text is None else text for text in values], dtype=object)
    if column.kind == "boolean" and column.nullable:
        return np.array([None if flag != flag else flag == 1 for flag in values], dtype=object)  # noqa: PLR0124 NaN
    return np.asarray(values)


def _series(column: Column, values: Sequence[Any]) -> Any:
    """Return a column with the dtype that it had in training."""
    import pandas as pd

    series = pd.Series(_column(column, values))
    if column.dtype is None or str(series.dtype) == column.dtype:
        return series
    cast = series.astype(column.dtype)
    if column.kind == "integer" and not (cast == series)[series.notna()].all():
        raise ValueError(f"column {column.name} has a number that {column.dtype} cannot hold")
    return cast
