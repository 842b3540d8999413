"""Tensors to the table that a model was trained on.

A DataFrame with the training's column names and dtypes, or a matrix if it was trained on an array
(or pandas is not there). A null is what it was in training: NaN, also in a column of texts, or
``None`` in a column of objects; where nothing says so, ``None`` in a column of truth values and NaN
elsewhere. A number that the training's dtype cannot hold is refused, a category that it did not
have is missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

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
    ValueError
        When a number does not fit the training's dtype.
    """
    import numpy as np

    columns = contract.columns
    wanted = _matrix_dtype(columns)
    block = _block(contract, inputs)
    if block is not None and wanted == block.dtype:
        return block
    rows = checked_rows(contract, inputs) if block is None else len(block)
    made = np.empty((rows, len(columns)), dtype=wanted)
    for index, (column, values) in enumerate(_columns(contract, inputs, block)):
        made[:, index] = _held(column, _column(column, values), wanted)
    return made


def _columns(
    contract: ModelSchema, inputs: Mapping[str, Tensor], block: Any
) -> list[tuple[Column, Sequence[Any]]]:
    """Return each column with the values that came for it."""
    if block is not None:
        return list(zip(contract.columns, block.T, strict=True))
    return [(column, inputs[column.name].values) for column in contract.columns]


def _block(contract: ModelSchema, inputs: Mapping[str, Tensor]) -> Any:
    """Return the one matrix of doubles that the inputs are, ``None`` where they are columns."""
    import numpy as np

    only = inputs.get(schema.MATRIX)
    if only is None or len(inputs) != 1 or len(only.shape) != 2 or not only.shape[0]:
        return None
    if not schema.is_block(contract):
        return None
    width = len(contract.columns)
    if only.shape[1] != width or only.datatype != "FP64":
        raise InvalidTensors(
            f"the matrix is {only.datatype} {list(only.shape)}, not FP64 [n, {width}]"
        )
    return np.asarray(only.values, dtype="float64").reshape(only.shape)


def frame(contract: ModelSchema, inputs: Mapping[str, Tensor]) -> Any:
    """Return a DataFrame.

    Raises
    ------
    InvalidTensors
        When the inputs are not the schema's columns.
    ValueError
        When a number does not fit the training's dtype.
    """
    import pandas as pd

    if is_matrix(contract):
        # One block of numbers, which is by far the quickest table to make.
        names = [column.name for column in contract.columns]
        return pd.DataFrame(matrix(contract, inputs), columns=names, copy=False)
    block = _block(contract, inputs)
    if block is None:
        checked_rows(contract, inputs)
    columns = _columns(contract, inputs, block)
    return pd.DataFrame({column.name: _series(column, values) for column, values in columns})


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
    try:
        return np.dtype(dtype or "float64")
    except TypeError:  # one of pandas' own
        return np.dtype("float64")


_NUMPY = {"FP64": "float64", "INT64": "int64", "BOOL": "bool"}


def _column(column: Column, values: Sequence[Any]) -> Any:
    """Return a column's values as a numpy array of the kind's own type."""
    import numpy as np

    none = column.gap == "none" or (column.gap is None and column.kind == "boolean")
    gap = None if none else np.nan
    if column.kind in {"category", "text"}:
        return np.array([gap if text is None else text for text in values], dtype=object)
    found = np.asarray(values, dtype=_NUMPY[schema.datatype(column)])
    if not column.nullable or (column.kind != "boolean" and column.dtype != "object"):
        return found
    convert = _CONVERT[column.kind]
    return np.array(
        [gap if math.isnan(value) else convert(value) for value in found.tolist()], dtype=object
    )


_CONVERT: dict[str, Any] = {"boolean": bool, "integer": int, "number": float}


def _held(column: Column, values: Any, dtype: Any) -> Any:
    """Return numbers in a dtype of numpy's.

    Raises
    ------
    ValueError
        When one does not fit: 300 is no ``uint8``, 1e39 is infinite as ``float32``.
    """
    import numpy as np

    if values.dtype == dtype or dtype.kind not in "iuf" or values.dtype.kind not in "iuf":
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        cast = values.astype(dtype)
    if not ((np.isinf(cast) <= np.isinf(values)) if dtype.kind == "f" else cast == values).all():
        _refuse(column)
    return cast


def _refuse(column: Column) -> NoReturn:
    raise ValueError(f"column {column.name} has a number that {column.dtype} cannot hold")


def _series(column: Column, values: Sequence[Any]) -> Any:
    """Return a column with the dtype that it had in training."""
    import numpy as np
    import pandas as pd

    found = _column(column, values)
    if column.levels is not None:
        return pd.Series(_categorical(column, found))
    if str(found.dtype) == column.dtype:
        return pd.Series(found, dtype=found.dtype)
    if column.dtype is None:
        return pd.Series(found)
    if column.dtype in _DTYPES:
        return pd.Series(_held(column, found, np.dtype(column.dtype)))
    series = pd.Series(found)
    if str(series.dtype) == column.dtype:
        return series
    try:
        cast = series.astype(column.dtype)
    except (TypeError, OverflowError):
        _refuse(column)
    if column.kind == "integer" and not (cast == series)[series.notna()].all():
        _refuse(column)
    return cast


_DTYPES = {
    "float16", "float32",
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
}  # fmt: skip


def _categorical(column: Column, values: Any) -> Any:
    """Return categories with all levels and their order; a value that is none of them is missing.

    >>> import numpy as np
    >>> size = Column(name="size", kind="category", levels=("S", "M", "L"), ordered=True)
    >>> _categorical(size, np.array(["L", "S", "XL"], dtype=object)).codes.tolist()
    [2, 0, -1]
    """
    import pandas as pd

    dtype = pd.CategoricalDtype(list(column.levels or ()), ordered=column.ordered)
    codes = dtype.categories.get_indexer(pd.Index(values))
    return pd.Categorical.from_codes(codes, dtype=dtype)
