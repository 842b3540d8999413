"""A model's contract with its callers: inferred from training data, checked at every call.

A schema says which columns a record has, of which kind, and what the model answers. Checking is
strict where a mistake would otherwise become a silently wrong answer: text is no number, a truth
value is no number, every column is there and no other, numbers are finite, and ``null`` stands
only where training had gaps. It is lenient where JSON itself is: columns come in any order, and
``5.0`` is an integer.

A category that training never saw is accepted: many encoders have a rule for it, those that have
none refuse it themselves, and monitoring counts it from the call log. A number outside the
training range is accepted for the same reasons.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from nbmlops.errors import InvalidRecords, ModelRefused, nearest
from nbmlops.records import Column, ModelSchema, OutputSchema, Prediction
from nbmlops.tensors import InvalidTensors, Tensor

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
EXACT_IN_FLOAT = 2**53  # the integers up to here are exact in a double

MAX_CATEGORIES = 200
MAX_CATEGORY_LENGTH = 200
WIDENED_BY = 0.5  # of the training range, on each side: what values are plausible

ROUNDING = 1e-9  # shares that a model sums up may leave 0..1 by that much

LABEL_DATATYPES = {"text": "BYTES", "integer": "INT64", "boolean": "BOOL", "number": "FP64"}


def datatype(column: Column) -> str:
    """Return the V2 datatype that a column travels as.

    Integers and truth values that may be null travel as ``FP64``, with NaN for null.
    """
    if column.kind in {"category", "text"}:
        return "BYTES"
    if column.kind == "number" or column.nullable:
        return "FP64"
    return "INT64" if column.kind == "integer" else "BOOL"


def inputs(schema: ModelSchema, columns: Sequence[Sequence[Any]]) -> list[Tensor]:
    """Return checked columns as the tensors of an ``infer`` request, in schema order."""
    return [
        Tensor(column.name, datatype(column), (len(values),), values)
        for column, values in zip(schema.columns, columns, strict=True)
    ]


# --- checking records ---------------------------------------------------------------------------


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
    names = {column.name for column in schema.columns}
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            _refuse(index, None, f"is {_spelled(row)}, not an object", "Write {column: value}.")
        if row.keys() != names:
            _refuse_names(schema, index, row)
    return [_checked(column, [row[column.name] for row in rows]) for column in schema.columns]


def _refuse_names(schema: ModelSchema, index: int, row: Mapping[str, Any]) -> NoReturn:
    known = [column.name for column in schema.columns]
    missing = [name for name in known if name not in row]
    extra = [name for name in row if name not in known]
    if extra:
        hint = nearest(extra[0], missing or known)
        _refuse(index, extra[0], "is not a column of the model", hint)
    more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
    _refuse(index, missing[0], f"is missing{more}", f"The columns are: {_listed(known)}.")


def _checked(column: Column, values: list[Any]) -> list[Any]:
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
            "is null, and training had no gaps in it",
            f"Send {_WANTED[column.kind]}, or train with gaps in this column.",
        )
    converted = _CONVERTERS[column.kind](column, value)
    if converted is None:
        _refuse(
            index,
            column.name,
            f"is {_spelled(value)}, not {_WANTED[column.kind]}",
            _hint(column, value),
        )
    return converted


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
        return f"Training had: {_listed(column.categories)}."
    return f"Send {_WANTED[column.kind]}."


def _refuse(index: int, column: str | None, what: str, hint: str) -> NoReturn:
    where = f"records[{index}]" if column is None else f"records[{index}], column `{column[:120]}`"
    raise InvalidRecords(f"{where} {what}", hint, record=index, column=column and column[:200])


def _listed(names: Sequence[str]) -> str:
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


# --- what the model answers ---------------------------------------------------------------------


def spelled_class(kind: str, value: Any) -> str:
    """Return a class label as ``OutputSchema.classes`` and ``probabilities`` spell it."""
    if kind == "boolean":
        return "true" if value else "false"
    if kind == "integer":
        return str(int(value))
    return repr(float(value)) if kind == "number" else str(value)


def predictions(
    schema: ModelSchema, outputs: Mapping[str, Tensor], rows: int
) -> tuple[Prediction, ...]:
    """Return the model's outputs as one answer a row, each held against what is plausible.

    A label is within bounds if it is one of the classes and its probabilities are shares; a value
    if it is finite and within the plausible range. A value that is not finite becomes ``None``.

    Raises
    ------
    InvalidTensors
        When the outputs are not those of the schema, or not of ``rows`` rows.
    """
    output = schema.output
    wanted = "FP64" if output.kind == "value" else LABEL_DATATYPES[output.class_kind]
    found = _output(outputs, "prediction", wanted, (rows,))
    if output.kind == "value":
        return tuple(_value(output, value) for value in found.values)
    labels: Sequence[Any] = found.values
    if not output.probabilities:
        return tuple(_label(output, label, None) for label in labels)
    width = len(output.classes or ())
    flat = _output(outputs, "probability", "FP64", (rows, width)).values
    return tuple(
        _label(output, label, flat[row * width : (row + 1) * width])
        for row, label in enumerate(labels)
    )


def _output(
    outputs: Mapping[str, Tensor], name: str, wanted: str, shape: tuple[int, ...]
) -> Tensor:
    tensor = outputs.get(name)
    if tensor is None:
        raise InvalidTensors(f"the worker's answer has no output {name!r}")
    if tensor.datatype != wanted or tensor.shape != shape:
        raise InvalidTensors(
            f"output {name!r} is {tensor.datatype} {list(tensor.shape)},"
            f" not {wanted} {list(shape)}",
        )
    return tensor


def _value(output: OutputSchema, value: float) -> Prediction:
    if not math.isfinite(value):
        return Prediction(value=None, within_bounds=False)
    above = output.low is None or value >= output.low
    below = output.high is None or value <= output.high
    return Prediction(value=value, within_bounds=above and below)


def _label(output: OutputSchema, label: Any, shares: Sequence[float] | None) -> Prediction:
    classes = output.classes or ()
    within = label is not None and spelled_class(output.class_kind, label) in classes
    if isinstance(label, float) and not math.isfinite(label):
        label = None
    if shares is None:
        return Prediction(label=label, within_bounds=within)
    return Prediction(
        label=label,
        probabilities={
            name: share if math.isfinite(share) else None
            for name, share in zip(classes, shares, strict=True)
        },
        within_bounds=within and all(-ROUNDING <= share <= 1 + ROUNDING for share in shares),
    )


# --- inferring a schema from training data ------------------------------------------------------


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


def _table(features: Any) -> list[tuple[str, str, Any, Any]]:
    """Return name, dtype, values (an array) and mask of missing values of each column."""
    import numpy as np

    if hasattr(features, "columns") and hasattr(features, "iloc"):
        names = [str(name) for name in features.columns]
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise ModelRefused(
                f"several columns are called {_listed(sorted(repeated))}", "Rename them."
            )
        series = [features.iloc[:, index] for index in range(len(names))]
        # As objects, pandas' own types keep their integers and truth values beside gaps.
        return [
            (
                name,
                str(one.dtype),
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
        (f"x{index}", str(matrix.dtype), values, _missing(values))
        for index, values in enumerate(matrix.T)
    ]


def _missing(values: Any) -> Any:
    import numpy as np

    if values.dtype.kind == "f":
        return np.isnan(values)
    if values.dtype.kind == "O":
        return np.array([_is_gap(value) for value in values], dtype=bool)
    return np.zeros(len(values), dtype=bool)


def _is_gap(value: Any) -> bool:
    """Whether an object stands for nothing: None, a NaN, or pandas' NA or NaT."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or type(value).__name__ in {"NAType", "NaTType"}


def _inferred(name: str, dtype: str, values: Any, missing: Any) -> tuple[Column, list[Any]]:
    """Return a column and its values as JSON has them."""
    present = values[~missing]
    kind = _kind(name, present)
    nullable = bool(missing.any())
    low = high = categories = None
    if kind in {"number", "integer"}:
        low, high = _range(present)
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
        dtype=dtype,
    )
    convert = _PLAIN[kind]
    plain = [
        None if gap else convert(value) for value, gap in zip(values.tolist(), missing, strict=True)
    ]
    return column, plain


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


def _range(present: Any) -> tuple[float | None, float | None]:
    import numpy as np

    numbers = np.asarray(present, dtype=float)
    numbers = numbers[np.isfinite(numbers)]
    return (float(numbers.min()), float(numbers.max())) if len(numbers) else (None, None)


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
        low, high = _range(values)
        if low is None or high is None:
            raise ModelRefused("the target has no finite value", "Pass train=(X, y).")
        widened = WIDENED_BY * ((high - low) or max(abs(low), 1.0))
        return OutputSchema(kind="value", low=low - widened, high=high + widened)
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
