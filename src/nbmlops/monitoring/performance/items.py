"""Columns as they come: lists of JSON values, arrays, or what pandas has."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nbmlops.monitoring.columns import Floats, is_missing

_BEYOND = 1e300
_PLAIN = {float, int, bool, type(None)}


def flat(values: Any) -> Any:
    """Return an array of one dimension where there is an array or a Series, else what was given."""
    values = values.to_numpy() if hasattr(values, "to_numpy") else values
    return values.ravel() if isinstance(values, np.ndarray) else values


def numbers(items: Any) -> Floats:
    """Return numbers, NaN where there is none, and infinity as a very great one."""
    if isinstance(items, np.ndarray) and items.dtype.kind in "fiub":
        found = items.astype(np.float64)
    else:
        plain = items.tolist() if isinstance(items, np.ndarray) else list(items)
        try:
            found = np.array(plain, dtype=np.float64)
            if found.ndim != 1 or not {type(item) for item in plain} <= _PLAIN:
                found = np.array([_number(item) for item in plain], dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            found = np.array([_number(item) for item in plain], dtype=np.float64)
    return np.clip(found, -_BEYOND, _BEYOND)


def _number(item: Any) -> float:
    if isinstance(item, str | bytes | complex) or hasattr(item, "__len__"):
        return math.nan
    try:
        return float(item)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return math.nan


def texts(items: Any) -> list[str | None]:
    """Return items as texts, ``None`` where there is none."""
    plain = items.tolist() if isinstance(items, np.ndarray) else items
    return [None if is_missing(item) else str(item) for item in plain]
