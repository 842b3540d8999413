"""Which kind a column of bare data has, where no model's schema says it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np

from nbmlops.monitoring.columns import is_missing

_LABELS = 20
_LOOKED_AT = 10_000
_BY_CODE = {"b": "boolean", "i": "integer", "u": "integer", "f": "number", "M": "datetime"}
_BY_ARROW = {
    "bool": "boolean",
    "int": "integer",
    "uint": "integer",
    "float": "number",
    "double": "number",
    "halffloat": "number",
    "decimal": "number",
    "timestamp": "datetime",
    "date": "datetime",
}


def kind_of(column: Any) -> str:
    """Return ``number``, ``integer``, ``boolean``, ``datetime``, ``category`` or ``text``.

    Where a column of objects is mixed it is what most of the first 10,000 of its values are.
    """
    if hasattr(column, "to_pylist"):
        spelled = str(column.type)
        for begins, kind in _BY_ARROW.items():
            if spelled.startswith(begins):
                return kind
        return "category"
    dtype = getattr(column, "dtype", None)
    if str(dtype) in {"category", "str", "string"}:
        return "category"
    if getattr(dtype, "tz", None) is not None:
        return "datetime"
    code = getattr(getattr(dtype, "numpy_dtype", dtype), "kind", "O")
    if code in _BY_CODE:
        return _BY_CODE[code]
    return _of_values(list(column[:_LOOKED_AT]))


def _of_values(values: Sequence[Any]) -> str:
    there = [value for value in values if not is_missing(value)]
    counts = {"boolean": 0, "integer": 0, "number": 0, "datetime": 0, "category": 0}
    for value in there:
        counts[_of_value(value)] += 1
    numeric = counts["integer"] + counts["number"]
    if numeric and numeric >= max(counts["boolean"], counts["datetime"], counts["category"]):
        return "number" if counts["number"] else "integer"
    return max(counts, key=lambda kind: counts[kind]) if there else "category"


def _of_value(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "boolean"
    if isinstance(value, int | np.integer):
        return "integer"
    if isinstance(value, float | Decimal | np.floating):
        return "number"
    return "datetime" if isinstance(value, date) else "category"


def is_label(kind: str, distinct: int) -> bool:
    """Whether a target of that kind, with so many distinct values, holds labels."""
    return kind in {"boolean", "category", "text"} or (kind != "datetime" and distinct <= _LABELS)
