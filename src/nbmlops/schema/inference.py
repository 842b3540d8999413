"""Inferring a schema from training data."""

from __future__ import annotations

import math
from typing import Any

from nbmlops.errors import ModelRefused
from nbmlops.records import Column, ModelSchema, OutputSchema
from nbmlops.schema.answers import spelled_class
from nbmlops.schema.checking import listed

MAX_CATEGORIES = 200
MAX_CATEGORY_LENGTH = 200
WIDENED_BY = 0.5  # of the training range, on each side: what values are plausible


def infer(
    features: Any,
    target: Any,
    *,
    classes: Any = None,
    probabilities: bool = False,
) -> ModelSchema:
    """Return the contract of a model that was trained on ``features`` and ``target``.

    Column kinds follow the training types: whole-number types are ``integer``, other numbers
    ``number``, truth values ``boolean``; text is a ``category`` with up to 200 distinct values of
    up to 200 characters, else ``text``. A value is plausible within the training target's range,
    widened by half of that range on each side (by half of the magnitude, at least 0.5, where all
    targets are equal). The example is the first training row without gaps.

    Parameters
    ----------
    features
        A pandas DataFrame, or a numpy array of shape (rows, columns) whose columns are then
        called ``x0``, ``x1``, ...
    target
        The labels or values, one a row.
    classes
        A classifier's ``classes_``, in its order; ``None`` lets truth values and text in
        ``target`` be labels, and numbers values.
    probabilities
        Whether the model has ``predict_proba``.

    Raises
    ------
    ModelRefused
        When a column has no form in JSON (times, mixed types), or there is nothing to infer from.
    """
    import numpy as np

    columns: list[Column] = []
    examples: list[list[Any]] = []
    whole = np.ones(len(features), dtype=bool)
    for name, dtype, values, missing in _table(features):
        column, plain = _inferred(name, dtype, values, missing)
        columns.append(column)
        examples.append(plain)
        whole &= np.array([value is not None for value in plain], dtype=bool)
    if len(whole) == 0 or not columns:
        raise ModelRefused("there are no training rows or columns", "Pass train=(X, y).")
    row = int(np.argmax(whole))  # the first without gaps, else the first
    example = {column.name: plain[row] for column, plain in zip(columns, examples, strict=True)}
    return ModelSchema(
        columns=tuple(columns),
        output=_inferred_output(target, classes, probabilities=probabilities),
        example=example,
    )


def picked(features: Any, limit: int) -> Any:
    """Return up to ``limit`` rows of training features, evenly spread, as they are."""
    import numpy as np

    count = len(features)
    chosen = np.unique(np.linspace(0, count - 1, min(limit, count)).astype(int))
    return features.iloc[chosen] if hasattr(features, "iloc") else np.asarray(features)[chosen]


def rows(features: Any, schema: ModelSchema, limit: int) -> list[dict[str, Any]]:
    """Return up to ``limit`` rows of training features, evenly spread, as JSON records."""
    table = _table(picked(features, limit))
    found = [
        _plain(column.kind, values, missing)
        for column, (_, _, values, missing) in zip(schema.columns, table, strict=True)
    ]
    names = [column.name for column in schema.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*found, strict=True)]


def _plain(kind: str, values: Any, missing: Any) -> list[Any]:
    convert = _PLAIN[kind]
    return [
        None if gap else convert(value) for value, gap in zip(values.tolist(), missing, strict=True)
    ]


def _table(features: Any) -> list[tuple[str, Any, Any, Any]]:
    """Return name, dtype, values (an array) and mask of missing values of each column."""
    import numpy as np

    if hasattr(features, "columns") and hasattr(features, "iloc"):
        names = [str(name) for name in features.columns]
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise ModelRefused(
                f"several columns are called {listed(sorted(repeated))}", "Rename them."
            )
        series = [features.iloc[:, index] for index in range(len(names))]
        # As objects, pandas' own types keep their integers and truth values beside gaps.
        return [
            (
                name,
                one.dtype,
                one.to_numpy() if isinstance(one.dtype, np.dtype) else one.to_numpy(dtype=object),
                one.isna().to_numpy(),
            )
            for name, one in zip(names, series, strict=True)
        ]
    matrix = np.asarray(features)
    if matrix.ndim != 2:
        raise ModelRefused(
            f"features have {matrix.ndim} dimensions, not rows and columns",
            "Pass a DataFrame, or an array of shape (rows, columns).",
        )
    return [
        (f"x{index}", matrix.dtype, values, _missing(values))
        for index, values in enumerate(matrix.T)
    ]


def _missing(values: Any) -> Any:
    import numpy as np

    if values.dtype.kind == "f":
        return np.isnan(values)
    if values.dtype.kind == "O":
        return np.array([is_gap(value) for value in values], dtype=bool)
    return np.zeros(len(values), dtype=bool)


def is_gap(value: Any) -> bool:
    """Whether an object stands for nothing: None, a NaN, or pandas' NA or NaT."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or type(value).__name__ in {"NAType", "NaTType"}


def _inferred(name: str, dtype: Any, values: Any, missing: Any) -> tuple[Column, list[Any]]:
    """Return a column and its values as JSON has them."""
    present = values[~missing]
    kind = _kind(name, present)
    nullable = bool(missing.any())
    low = high = categories = None
    if kind in {"number", "integer"}:
        low, high = _range(name, present)
    elif kind == "category":
        categories = tuple(sorted({str(value) for value in present}))
        if (
            len(categories) > MAX_CATEGORIES
            or max(map(len, categories), default=0) > MAX_CATEGORY_LENGTH
        ):
            kind, categories = "text", None
    column = Column(
        name=name,
        kind=kind,
        nullable=nullable,
        low=low,
        high=high,
        categories=categories,
        dtype=str(dtype),
        levels=_levels(name, dtype),
        ordered=getattr(dtype, "ordered", None) is True,
        gap=_gap(values[missing]) if str(dtype) == "object" else None,
    )
    return column, _plain(kind, values, missing)


def _levels(name: str, dtype: Any) -> tuple[Any, ...] | None:
    """Return the categories of a category dtype as JSON has them, in the dtype's order."""
    if str(dtype) != "category":
        return None
    levels = tuple(dtype.categories.tolist())
    odd = [level for level in levels if not _is_level(level)]
    if odd:
        raise ModelRefused(
            f"column `{name}` has the category {str(odd[0])[:60]!r}, a {type(odd[0]).__name__},"
            " which callers cannot send",
            f"Turn the categories of `{name}` into numbers, truth values or text.",
            column=name,
        )
    return levels


def _is_level(level: Any) -> bool:
    return isinstance(level, str | int) or (isinstance(level, float) and math.isfinite(level))


def _gap(gaps: Any) -> Any:
    """Return what stands for nothing in a column of objects, ``None`` where nothing does."""
    if not len(gaps):
        return None
    return "none" if all(gap is None for gap in gaps.tolist()) else "nan"


_PLAIN: dict[str, Any] = {
    "number": lambda value: float(value) if math.isfinite(value) else None,
    "integer": int,
    "boolean": bool,
    "category": str,
    "text": str,
}


def _kind(name: str, present: Any) -> Any:
    import numpy as np

    by_code = {"b": "boolean", "i": "integer", "u": "integer", "f": "number", "U": "category"}
    if found := by_code.get(present.dtype.kind):
        return found
    types = {type(value) for value in present.tolist()}
    if present.dtype.kind in {"O", "T"}:
        if not types:
            return "text"
        if types <= {bool, np.bool_}:
            return "boolean"
        if all(issubclass(one, int | np.integer) and one is not bool for one in types):
            return "integer"
        if all(issubclass(one, int | float | np.number) and one is not bool for one in types):
            return "number"
        if all(issubclass(one, str) for one in types):
            return "category"
    names = ", ".join(sorted(one.__name__ for one in types))
    spelled = names if present.dtype.kind == "O" else str(present.dtype)
    raise ModelRefused(
        f"column `{name}` holds {spelled}, which callers cannot send as one JSON type",
        f"Turn `{name}` into numbers, truth values or text before the model is fitted.",
        column=name,
    )


def _range(name: str, present: Any) -> tuple[float | None, float | None]:
    import numpy as np

    numbers = np.asarray(present, dtype=float)
    if np.isinf(numbers).any():
        raise ModelRefused(
            f"column `{name}` has infinite values, which JSON cannot hold",
            f"Turn those of `{name}` into numbers or gaps before the model is fitted.",
            column=name,
        )
    return (float(numbers.min()), float(numbers.max())) if len(numbers) else (None, None)


def widened(low: float, high: float) -> tuple[float, float]:
    """Return between which values one is plausible that training had between ``low`` and ``high``.

    It is half of the range more on each side; of values that are all equal half of the magnitude,
    at least 0.5.

    >>> widened(10.0, 20.0)
    (5.0, 25.0)
    >>> widened(0.0, 0.0)
    (-0.5, 0.5)
    """
    margin = WIDENED_BY * ((high - low) or max(abs(low), 1.0))
    return low - margin, high + margin


def _inferred_output(target: Any, classes: Any, *, probabilities: bool) -> OutputSchema:
    import numpy as np

    values = np.asarray(target)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or (isinstance(classes, list) and classes and np.ndim(classes[0]) > 0):
        raise ModelRefused(
            "the model has several targets",
            "Train one model for each target, or one that joins them.",
        )
    values = values[~_missing(values)]
    if classes is None and _kind("target", values) in {"number", "integer"}:
        low, high = _range("target", values)
        if low is None or high is None:
            raise ModelRefused("the target has no finite value", "Pass train=(X, y).")
        least, greatest = widened(low, high)
        return OutputSchema(kind="value", low=least, high=greatest)
    labels = np.unique(values) if classes is None else np.asarray(classes)
    kinds = {"category": "text", "text": "text"}
    found = _kind("target", labels)
    kind: Any = kinds.get(found, found)
    return OutputSchema(
        kind="label",
        classes=tuple(spelled_class(kind, label) for label in labels.tolist()),
        class_kind=kind,
        probabilities=probabilities,
    )
