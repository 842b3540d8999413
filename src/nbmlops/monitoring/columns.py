"""Columns as they come, from pandas, numpy, Arrow or plain lists, as numbers or as names.

Only numpy is needed: pandas objects and Arrow arrays bring their own methods.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]

NAME_LIMIT = 80
"""The longest category name, in characters, that is kept as it is."""

_MISSING_TYPES = frozenset({"NAType", "NaTType", "NoneType"})
_NUMERIC = "fiub"


class Numbers(NamedTuple):
    """A column of numbers: NaN where one is missing, or is ``odd``, which is no number at all."""

    values: Floats
    odd: NDArray[np.bool_] | None


class Names(NamedTuple):
    """A column of names: each row's place in ``names``, -1 where it is missing."""

    codes: Codes
    names: list[str]


def numbers(column: Any) -> Numbers:
    """Return a column's numbers; times count seconds since 1970, UTC."""
    items = _items(column)
    if isinstance(items, np.ndarray):
        return Numbers(_of_array(items), None)
    if {*map(type, items)} <= {float, int, bool, type(None)}:
        try:
            return Numbers(np.array(items, dtype=np.float64), None)
        except OverflowError:  # an integer beyond the range of floats
            pass
    found = [_number(item) for item in items]
    odd = np.array([number is None for number in found], dtype=bool)
    values = np.array([math.nan if number is None else number for number in found])
    return Numbers(values.astype(np.float64), odd if odd.any() else None)


def names(column: Any, kind: str) -> Names:
    """Return a column's categories, each in the one spelling that it has."""
    codes, found = _coded(column)
    spelled = [spelling(_as_boolean(item) if kind == "boolean" else item) for item in found]
    return _joined(codes, [_bounded(text) for text in spelled])


def lengths(column: Any) -> Numbers:
    """Return how long the spellings of a column's values are, in characters."""
    codes, found = _coded(column)
    long = np.array([len(spelling(item)) for item in found] + [math.nan], dtype=np.float64)
    return Numbers(long[codes], None)


def size(column: Any) -> int:
    """Return how many rows a column has."""
    return 0 if column is None else len(column)


def spelling(item: Any) -> str:
    """Return the one spelling of a category: ``1``, ``1.0`` and ``numpy.int64(1)`` are the same."""
    if isinstance(item, np.generic):
        item = item.item()
    if isinstance(item, str):
        return item
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, float) and item.is_integer() and abs(item) < 2**53:
        return str(int(item))
    if isinstance(item, datetime | date):
        return item.isoformat()
    try:
        return str(item)
    except ValueError:  # an integer of thousands of digits
        return type(item).__name__


def is_missing(item: Any) -> bool:
    """Whether an object stands for nothing."""
    if type(item).__name__ in _MISSING_TYPES:
        return True
    if isinstance(item, float | np.floating):
        return bool(np.isnan(item))
    if isinstance(item, np.datetime64 | np.timedelta64):
        return bool(np.isnat(item))
    return isinstance(item, Decimal) and item.is_nan()


# --- containers ---------------------------------------------------------------------------------


def _items(column: Any) -> Any:
    """Return numbers and times as a numpy array, anything else as a list."""
    if column is None:
        return []
    if hasattr(column, "to_pylist"):  # Arrow
        return _of_arrow(column)
    dtype = getattr(column, "dtype", None)
    if getattr(dtype, "tz", None) is not None:
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    if hasattr(column, "to_numpy"):
        column = column.to_numpy()
    if isinstance(column, np.ndarray):
        flat = column.ravel()
        return flat if flat.dtype.kind in f"{_NUMERIC}M" else flat.tolist()
    return column if isinstance(column, list | tuple) else list(column)


def _of_arrow(column: Any) -> Any:
    kind = str(column.type)
    if kind.startswith(("int", "uint", "float", "double", "halffloat", "timestamp", "date")):
        found = column.to_numpy(zero_copy_only=False) if _is_chunk(column) else column.to_numpy()
        if found.dtype.kind in f"{_NUMERIC}M":
            return found
    return column.to_pylist()


def _is_chunk(column: Any) -> bool:
    return not hasattr(column, "chunks")


def _of_array(array: NDArray[Any]) -> Floats:
    if array.dtype.kind == "M":
        seconds = array.astype("datetime64[us]").astype(np.float64) / 1e6
        seconds[np.isnat(array)] = math.nan
        return seconds
    return array.astype(np.float64, copy=False)


def _number(item: Any) -> float | None:
    """Return a number, NaN for a missing one, ``None`` for what is no number."""
    if is_missing(item):
        return math.nan
    if isinstance(item, date):
        return _seconds(item)
    real = isinstance(item, int | float | Decimal | np.number | np.bool_)
    if not real or isinstance(item, np.complexfloating):
        return None
    try:
        return float(item)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return None


def _seconds(item: date) -> float:
    at = item if isinstance(item, datetime) else datetime(item.year, item.month, item.day)  # noqa: DTZ001 a day is one of UTC
    try:
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (OverflowError, ValueError):
        return math.inf


def _coded(column: Any) -> tuple[Codes, list[Any]]:
    """Return each row's place among the distinct values, and these."""
    if column is None:
        return np.empty(0, dtype=np.intp), []
    if hasattr(column, "dictionary_encode"):  # Arrow
        return _arrow_coded(column)
    if hasattr(column, "cat"):  # pandas' categories
        return column.cat.codes.to_numpy().astype(np.intp), list(column.cat.categories)
    if hasattr(column, "factorize") and hasattr(column, "to_numpy"):
        try:
            codes, found = column.factorize()
            return np.asarray(codes, dtype=np.intp), list(found)
        except TypeError:  # values that cannot be hashed
            pass
    items = _items(column)
    if isinstance(items, np.ndarray):
        there = ~np.isnan(items) if items.dtype.kind == "f" else np.ones(len(items), dtype=bool)
        if items.dtype.kind == "M":
            there = ~np.isnat(items)
        found, inverse = np.unique(items[there], return_inverse=True)
        codes = np.full(len(items), -1, dtype=np.intp)
        codes[there] = inverse
        return codes, found.tolist() if items.dtype.kind != "M" else list(map(str, found))
    return _listed(items)


def _listed(items: Sequence[Any]) -> tuple[Codes, list[Any]]:
    if any({*map(type, items)} <= {kind, type(None)} for kind in (str, bool)):  # as of JSON
        distinct = [item for item in dict.fromkeys(items) if item is not None]
        place = {item: code for code, item in enumerate(distinct)} | {None: -1}
        return np.fromiter(map(place.__getitem__, items), np.intp, len(items)), distinct
    known: dict[Any, int] = {}
    found: list[Any] = []
    codes = np.empty(len(items), dtype=np.intp)
    for row, item in enumerate(items):
        if is_missing(item):
            codes[row] = -1
            continue
        key = (type(item), item)
        try:
            code = known.setdefault(key, len(found))
        except TypeError:  # what cannot be hashed is known by its spelling
            code = known.setdefault((type(item), spelling(item)), len(found))
        if code == len(found):
            found.append(item)
        codes[row] = code
    return codes, found


def _arrow_coded(column: Any) -> tuple[Codes, list[Any]]:
    encoded = column.dictionary_encode()
    chunks = encoded.chunks if hasattr(encoded, "chunks") else [encoded]
    parts: list[Codes] = []
    found: list[Any] = []
    for chunk in chunks:
        codes = chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.intp)
        parts.append(np.where(codes < 0, -1, codes + len(found)))
        found += chunk.dictionary.to_pylist()
    codes = np.concatenate(parts) if parts else np.empty(0, dtype=np.intp)
    gaps = [place for place, item in enumerate(found) if is_missing(item)]
    if gaps:
        codes[np.isin(codes, gaps)] = -1
    return codes, found


def _joined(codes: Codes, spelled: list[str]) -> Names:
    """Give values that are spelled alike one place."""
    places: dict[str, int] = {}
    moved = np.array([places.setdefault(text, len(places)) for text in spelled] + [-1])
    return Names(moved[codes] if len(places) < len(spelled) else codes, list(places))


def _as_boolean(item: Any) -> Any:
    """Return 0 and 1, in any numeric type, as booleans."""
    if isinstance(item, int | float | np.number) and item in (0, 1):
        return bool(item)
    return item


def _bounded(text: str) -> str:
    """Return a category's bounded name; a long one ends in a digest, so that it stays distinct."""
    # Lone surrogates cannot travel in JSON.
    text = text.encode("utf-8", "replace").decode("utf-8")
    if len(text) <= NAME_LIMIT:
        return text
    digest = blake2b(text.encode(), digest_size=4).hexdigest()
    return f"{text[: NAME_LIMIT - 10]}…{digest}"


def of_records(records: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    """Return one column of rows as they were sent."""
    return [record.get(name) for record in records]
