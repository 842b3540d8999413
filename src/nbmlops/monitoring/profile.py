"""Profiles: bounded, mergeable summaries of training data and of windows of calls.

A reference profile is made beside the model, in the user's own environment: only numpy and
msgspec are needed there, and pandas objects are taken as they come. A window's profile counts on
the reference's bins, so that profiles of neighbouring windows add up. Neither holds rows.

Cells of numbers are closed on the right: a cell holds ``edges[i - 1] < value <= edges[i]``, the
first everything up to ``edges[0]``, the last everything above ``edges[-1]``. The edges are the
union of two coarser grids, to either of which counts can be added up exactly: ``cuts`` (least
value, deciles, greatest value of the reference) for tests, ``ticks`` (round, evenly spaced) for
pictures.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from hashlib import blake2b
from itertools import pairwise, zip_longest
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from nbmlops.records import Column, ModelSchema, Prediction, Record

HEAD_LIMIT = 100
"""How many categories a profile names, and how many new ones a window does."""

NAME_LIMIT = 80
"""The longest category name, in characters, that is kept as it is."""

FINITE_LIMIT = 1e300
"""Numbers beyond this count as not finite, so that no width or sum overflows."""

ROW_SAMPLE_LIMIT = 128
"""How many distinct rows, by the least digests, a profile counts the copies of."""

REFERENCE_ROWS_HASHED = 5000
"""How many rows of a reference, evenly spaced, are looked at for copies."""

_PICTURE_CELLS = 16
_PICTURE_MARGIN = 5
_DECILES = 10
_DISTINCT_AS_CUTS = 20
_MISSING_TYPES = frozenset({"NAType", "NaTType", "NoneType"})

Floats = NDArray[np.float64]


class NumberSummary(Record, frozen=True, kw_only=True):
    """Counts and moments of finite numbers.

    ``counts`` has one item more than ``edges``; ``cuts`` and ``ticks`` are subsets of ``edges``.
    ``m2`` is the sum of squared differences from the ``mean``; both are ``None`` without values,
    or when they are not finite.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    cuts: tuple[float, ...] = ()
    ticks: tuple[float, ...] = ()
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    m2: float | None = None


class CategoryCounts(Record, frozen=True, kw_only=True):
    """Counts of categories: ``names`` are the reference's most frequent, ``counts`` go with them.

    ``unseen`` are the window's most frequent among the rest and ``other`` counts what is named
    nowhere. ``distinct`` is exact in a profile made at once; a merge keeps the larger, a lower
    bound. ``closed`` says that ``names`` are all that the reference had.
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]
    unseen: dict[str, int] = msgspec.field(default_factory=dict)
    other: int = 0
    distinct: int = 0
    closed: bool = True


class ColumnProfile(Record, frozen=True, kw_only=True):
    """One column: ``count`` values of its kind, and how many were not.

    ``non_finite`` counts infinities, ``odd`` values of another kind (a text among numbers).
    Numbers have ``numbers``; booleans, categories and texts ``categories`` and the ``lengths``
    of their spelling.
    """

    name: str
    kind: str
    count: int = 0
    missing: int = 0
    non_finite: int = 0
    odd: int = 0
    numbers: NumberSummary | None = None
    categories: CategoryCounts | None = None
    lengths: NumberSummary | None = None

    @property
    def rows(self) -> int:
        """All rows, whatever they held."""
        return self.count + self.missing + self.non_finite + self.odd


class RowSample(Record, frozen=True, kw_only=True):
    """How often rows repeat: copies of the distinct rows with the least digests.

    A bottom-k sample of the distinct rows (Cohen & Kaplan, "Summarizing data using bottom-k
    sketches", PODC 2007), which merges exactly. ``rows`` is how many rows were looked at.
    """

    rows: int = 0
    digests: tuple[int, ...] = ()
    copies: tuple[int, ...] = ()


class Profile(Record, frozen=True, kw_only=True):
    """What a set of rows, with their labels or predictions, looks like.

    ``predictions`` counts the window's predictions and ``out_of_bounds`` those that were not
    plausible; a reference has neither.
    """

    rows: int
    columns: tuple[ColumnProfile, ...]
    output: ColumnProfile | None = None
    predictions: int = 0
    out_of_bounds: int = 0
    row_sample: RowSample = RowSample()
    format: int = 1


# --- making profiles --------------------------------------------------------------------------


def reference_profile(features: Mapping[str, Any], schema: ModelSchema, target: Any) -> Profile:
    """Summarise training data.

    Parameters
    ----------
    features
        Column name to a one-dimensional list, numpy array or pandas Series; a column of the
        schema that is not there counts as missing throughout, one of no schema is left out.
    schema
        Says which columns there are, and of which kind.
    target
        The training labels or values, one for each row.
    """
    # str: the names that come with numpy arrays are numpy's, which JSON has no word for.
    named = {str(column.name): _items(features.get(column.name)) for column in schema.columns}
    labels = _items(target)
    rows = max((len(items) for items in [*named.values(), labels]), default=0)
    columns = tuple(
        _reference_column(str(column.name), column.kind, _padded(named[str(column.name)], rows))
        for column in schema.columns
    )
    output = Column(
        name="prediction", kind="category" if schema.output.kind == "label" else "number"
    )
    return Profile(
        rows=rows,
        columns=columns,
        output=_reference_column(output.name, output.kind, _padded(labels, rows)),
        row_sample=_reference_row_sample(list(named.values()), rows),
    )


def window_profile(
    records: Sequence[Mapping[str, Any]], predictions: Sequence[Prediction], reference: Profile
) -> Profile:
    """Summarise calls on the bins of a reference.

    ``records`` are JSON rows as they were logged, ``None`` or no key where a value is missing;
    ``predictions`` are the answers that they got.
    """
    columns = tuple(
        _window_column([record.get(column.name) for record in records], column)
        for column in reference.columns
    )
    output = None
    if reference.output is not None:
        output = _window_column([_answer(item) for item in predictions], reference.output)
    names = [column.name for column in reference.columns]
    rows = [[record.get(name) for name in names] for record in records]
    return Profile(
        rows=len(records),
        columns=columns,
        output=output,
        predictions=len(predictions),
        out_of_bounds=sum(not item.within_bounds for item in predictions),
        row_sample=_row_sample(rows),
    )


def merge(a: Profile, b: Profile) -> Profile:
    """Add up the profiles of two windows that were made on the same reference.

    Raises
    ------
    ValueError
        When their columns or bins differ.
    """
    if [column.name for column in a.columns] != [column.name for column in b.columns]:
        raise ValueError("profiles of different columns cannot be merged")
    if (a.output is None) != (b.output is None):
        raise ValueError("a profile with predictions cannot be merged with one without")
    output = None
    if a.output is not None and b.output is not None:
        output = _merged_column(a.output, b.output)
    return Profile(
        rows=a.rows + b.rows,
        columns=tuple(_merged_column(x, y) for x, y in zip(a.columns, b.columns, strict=True)),
        output=output,
        predictions=a.predictions + b.predictions,
        out_of_bounds=a.out_of_bounds + b.out_of_bounds,
        row_sample=_merged_row_sample(a.row_sample, b.row_sample),
    )


def regrid(summary: NumberSummary, grid: Sequence[float]) -> tuple[int, ...]:
    """Add up a summary's counts to the cells of ``grid``, a subset of its edges.

    Returns one count more than ``grid`` has items.
    """
    stops = [0, *(np.searchsorted(summary.edges, grid, side="left") + 1), len(summary.counts)]
    return tuple(sum(summary.counts[start:stop]) for start, stop in pairwise(stops))


# --- columns ----------------------------------------------------------------------------------


def _reference_column(name: str, kind: str, items: Sequence[Any]) -> ColumnProfile:
    if kind in ("number", "integer"):
        values, missing, non_finite, odd = _numbers(items)
        return ColumnProfile(
            name=name,
            kind=kind,
            count=len(values),
            missing=missing,
            non_finite=non_finite,
            odd=odd,
            numbers=_reference_numbers(values, whole=kind == "integer"),
        )
    texts, missing = _texts(items, kind)
    return ColumnProfile(
        name=name,
        kind=kind,
        count=len(texts),
        missing=missing,
        categories=_reference_categories(texts),
        lengths=_reference_numbers(_lengths(texts), whole=True),
    )


def _window_column(items: Sequence[Any], reference: ColumnProfile) -> ColumnProfile:
    if reference.numbers is not None:
        values, missing, non_finite, odd = _numbers(items)
        return ColumnProfile(
            name=reference.name,
            kind=reference.kind,
            count=len(values),
            missing=missing,
            non_finite=non_finite,
            odd=odd,
            numbers=_counted(values, reference.numbers),
        )
    texts, missing = _texts(items, reference.kind)
    return ColumnProfile(
        name=reference.name,
        kind=reference.kind,
        count=len(texts),
        missing=missing,
        categories=_window_categories(texts, reference.categories),
        lengths=reference.lengths and _counted(_lengths(texts), reference.lengths),
    )


def _merged_column(a: ColumnProfile, b: ColumnProfile) -> ColumnProfile:
    return ColumnProfile(
        name=a.name,
        kind=a.kind,
        count=a.count + b.count,
        missing=a.missing + b.missing,
        non_finite=a.non_finite + b.non_finite,
        odd=a.odd + b.odd,
        numbers=_merged_numbers(a.numbers, b.numbers),
        categories=_merged_categories(a.categories, b.categories),
        lengths=_merged_numbers(a.lengths, b.lengths),
    )


def _items(column: Any) -> Sequence[Any]:
    """Return an array-like as a numpy array when it is numeric, as a list otherwise."""
    if column is None:
        return ()
    if hasattr(column, "to_numpy"):
        column = column.to_numpy()
    if isinstance(column, np.ndarray):
        flat = column.ravel()
        return flat if flat.dtype.kind in "fiub" else flat.tolist()  # pyright: ignore[reportReturnType]
    return column if isinstance(column, list | tuple) else list(column)


def _padded(items: Sequence[Any], rows: int) -> Sequence[Any]:
    return items if len(items) == rows else [*items, *([None] * (rows - len(items)))]


def _answer(prediction: Prediction) -> Any:
    if prediction.label is not msgspec.UNSET:
        return prediction.label
    return None if prediction.value is msgspec.UNSET else prediction.value


# --- numbers ----------------------------------------------------------------------------------


def _numbers(items: Sequence[Any]) -> tuple[Floats, int, int, int]:
    """Sort items into finite numbers, missing, not finite and not a number."""
    odd = 0
    values = _fast_numbers(items)
    if values is None:
        numbers = [_number(item) for item in items]
        odd = sum(number is None for number in numbers)
        values = np.array([number for number in numbers if number is not None], dtype=np.float64)
    missing = np.isnan(values)
    finite = np.abs(values) <= FINITE_LIMIT
    non_finite = len(values) - int(missing.sum()) - int(finite.sum())
    return values[finite], int(missing.sum()), non_finite, odd


def _fast_numbers(items: Sequence[Any]) -> Floats | None:
    if isinstance(items, np.ndarray):
        return items.astype(np.float64) if items.dtype.kind in "fiub" else None
    if {type(item) for item in items} <= {float, int, bool, type(None)}:
        try:
            return np.array(items, dtype=np.float64)
        except OverflowError:  # an integer beyond the range of floats
            return None
    return None


def _number(item: Any) -> float | None:
    """Return a number, NaN for a missing one, ``None`` for what is no number."""
    if _is_missing(item):
        return math.nan
    if not isinstance(item, int | float | Decimal | np.number | np.bool_):
        return None
    if isinstance(item, np.complexfloating):
        return None
    try:
        return float(item)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return None


def _reference_numbers(values: Floats, *, whole: bool) -> NumberSummary:
    if not len(values):
        return NumberSummary(edges=(), counts=(0,))
    ordered = np.sort(values)
    cuts = _cuts(ordered)
    ticks = _ticks(ordered, whole=whole)
    edges = np.unique(np.concatenate([cuts, ticks]))
    empty = NumberSummary(
        edges=tuple(edges.tolist()),
        counts=(0,) * (len(edges) + 1),
        cuts=tuple(cuts.tolist()),
        ticks=tuple(ticks.tolist()),
    )
    return _counted(values, empty)


def _cuts(ordered: Floats) -> Floats:
    """Return the least value, the deciles and the greatest; each value when there are few.

    A decile is a value that occurs, so ties fall on one side of it; the first cut lies just below
    the least value, because cells are closed on the right.
    """
    distinct = np.unique(ordered)
    if len(distinct) <= _DISTINCT_AS_CUTS:
        inner = distinct
    else:
        ranks = np.ceil(np.arange(1, _DECILES) * len(ordered) / _DECILES).astype(int) - 1
        inner = np.unique(ordered[[*ranks, -1]])
    below = np.nextafter(ordered[:1], -np.inf)
    return np.array([*below, *inner], dtype=np.float64)


def _ticks(ordered: Floats, *, whole: bool) -> Floats:
    """Return round, evenly spaced edges around the bulk of the values, with a margin."""
    low, high = float(ordered[0]), float(ordered[-1])
    near, far = (float(ordered[int(share * (len(ordered) - 1))]) for share in (0.01, 0.99))
    if far > near and high - low > 4 * (far - near):
        low, high = max(low, 2 * near - far), min(high, 2 * far - near)
    step = _round_step((high - low) / _PICTURE_CELLS or abs(high) / 4 or 1.0)
    if whole:
        step = max(1.0, step)
        low, high = low - 0.5, high + 0.5
    first = math.floor(low / step)
    last = math.ceil(high / step)
    offset = 0.5 if whole and step == 1.0 else 0.0
    places = np.arange(first - _PICTURE_MARGIN, last + _PICTURE_MARGIN + 1, dtype=np.float64)
    ticks: Floats = (places + offset) * step
    # Beside a huge offset a tiny step has no ticks of its own; the cuts serve the picture then.
    return ticks if len(np.unique(ticks)) == len(ticks) else np.empty(0)


def _round_step(width: float) -> float:
    """Return the least of 1, 2, 2.5, 5 times a power of ten that is not below ``width``."""
    power = 10.0 ** max(-300, math.floor(math.log10(width)))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= width)


def _counted(values: Floats, grid: NumberSummary) -> NumberSummary:
    """Count values on a grid; moments are those of values clipped to about the grid's range.

    Clipping (winsorising, Tukey 1962) keeps one absurd value from inflating the variance so much
    that a shift of all the others is not significant any more.
    """
    cells = np.searchsorted(np.asarray(grid.edges, dtype=np.float64), values, side="left")
    counts = np.bincount(cells, minlength=len(grid.edges) + 1)
    mean = m2 = low = high = None
    if len(values):
        low, high = float(values.min()), float(values.max())
        if grid.low is not None and grid.high is not None:
            width = (grid.high - grid.low) or max(1.0, abs(grid.low))
            values = np.clip(values, grid.low - width, grid.high + width)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = _finite(float(values.mean()))
            m2 = None if mean is None else _finite(float(np.square(values - mean).sum()))
    return NumberSummary(
        edges=grid.edges,
        counts=tuple(counts.tolist()),
        cuts=grid.cuts,
        ticks=grid.ticks,
        low=low,
        high=high,
        mean=mean,
        m2=m2,
    )


def _merged_numbers(a: NumberSummary | None, b: NumberSummary | None) -> NumberSummary | None:
    """Add up counts and moments.

    The moments as in Chan, Golub & LeVeque, "Algorithms for computing the sample variance",
    The American Statistician 37 (1983).
    """
    if a is None or b is None:
        return None
    if a.edges != b.edges:
        raise ValueError("profiles on different bins cannot be merged")
    n, m = sum(a.counts), sum(b.counts)
    if not n or not m:
        return b if not n else a
    mean = m2 = None
    if a.mean is not None and b.mean is not None:
        apart = b.mean - a.mean
        mean = _finite(a.mean + apart * (m / (n + m)))
        if a.m2 is not None and b.m2 is not None:
            m2 = _finite(a.m2 + b.m2 + apart * apart * (n * m / (n + m)))
    return NumberSummary(
        edges=a.edges,
        counts=tuple(x + y for x, y in zip(a.counts, b.counts, strict=True)),
        cuts=a.cuts,
        ticks=a.ticks,
        low=min(x for x in (a.low, b.low) if x is not None),
        high=max(x for x in (a.high, b.high) if x is not None),
        mean=mean,
        m2=m2,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


# --- categories -------------------------------------------------------------------------------


def _texts(items: Sequence[Any], kind: str) -> tuple[list[str], int]:
    """Spell the items that are there, and count the missing."""
    if isinstance(items, np.ndarray):
        items = items.tolist()
    present = [item for item in items if not _is_missing(item)]
    if kind == "boolean":
        present = [_as_boolean(item) for item in present]
    return [_spelled(item) for item in present], len(items) - len(present)


def _as_boolean(item: Any) -> Any:
    """Return 0 and 1, in any numeric type, as booleans."""
    if isinstance(item, int | float | np.number) and item in (0, 1):
        return bool(item)
    return item


def _spelled(item: Any) -> str:
    """Return the one spelling of a category: ``1``, ``1.0`` and ``numpy.int64(1)`` are the same."""
    if isinstance(item, np.generic):
        item = item.item()
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, float) and item.is_integer() and abs(item) < 2**53:
        return str(int(item))
    if isinstance(item, datetime | date):
        return item.isoformat()
    if not isinstance(item, str):
        try:
            return str(item)
        except ValueError:  # an integer of thousands of digits
            return type(item).__name__
    return item


def _is_missing(item: Any) -> bool:
    if type(item).__name__ in _MISSING_TYPES:
        return True
    if isinstance(item, float | np.floating):
        return bool(np.isnan(item))
    return isinstance(item, Decimal) and item.is_nan()


def _name(text: str) -> str:
    """Return a category's bounded name; a long one ends in a digest, so that it stays distinct."""
    # Lone surrogates cannot travel in JSON.
    text = text.encode("utf-8", "replace").decode("utf-8")
    if len(text) <= NAME_LIMIT:
        return text
    digest = blake2b(text.encode(), digest_size=4).hexdigest()
    return f"{text[: NAME_LIMIT - 10]}…{digest}"


def _lengths(texts: Sequence[str]) -> Floats:
    return np.fromiter(map(len, texts), dtype=np.float64, count=len(texts))


def _named_counts(texts: Iterable[str]) -> Counter[str]:
    named: Counter[str] = Counter()
    for text, count in Counter(texts).items():
        named[_name(text)] += count
    return named


def _head(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return the most frequent categories, ties by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:HEAD_LIMIT]


def _reference_categories(texts: Sequence[str]) -> CategoryCounts:
    counts = _named_counts(texts)
    head = _head(counts)
    closed = len(counts) <= HEAD_LIMIT
    if not closed:  # a value that occurs once among so many is somebody's row, not a category
        head = [(name, count) for name, count in head if count > 1]
    return CategoryCounts(
        names=tuple(name for name, _ in head),
        counts=tuple(count for _, count in head),
        other=len(texts) - sum(count for _, count in head),
        distinct=len(counts),
        closed=closed,
    )


def _window_categories(
    texts: Sequence[str], reference: CategoryCounts | None
) -> CategoryCounts | None:
    if reference is None:
        return None
    counts = _named_counts(texts)
    distinct = len(counts)
    known = tuple(counts.pop(name, 0) for name in reference.names)
    head = dict(_head(counts))
    return CategoryCounts(
        names=reference.names,
        counts=known,
        unseen=head,
        other=len(texts) - sum(known) - sum(head.values()),
        distinct=distinct,
        closed=reference.closed,
    )


def _merged_categories(a: CategoryCounts | None, b: CategoryCounts | None) -> CategoryCounts | None:
    if a is None or b is None:
        return None
    if a.names != b.names:
        raise ValueError("profiles on different categories cannot be merged")
    counts = Counter(a.unseen)
    counts.update(b.unseen)
    head = dict(_head(counts))
    return CategoryCounts(
        names=a.names,
        counts=tuple(x + y for x, y in zip(a.counts, b.counts, strict=True)),
        unseen=head,
        other=a.other + b.other + counts.total() - sum(head.values()),
        distinct=max(a.distinct, b.distinct),
        closed=a.closed,
    )


# --- repeated rows ----------------------------------------------------------------------------


def _reference_row_sample(columns: Sequence[Sequence[Any]], rows: int) -> RowSample:
    stride = max(1, -(-rows // REFERENCE_ROWS_HASHED))
    thin = [_listed(items[::stride]) for items in columns]
    return _row_sample([list(row) for row in zip_longest(*thin)])


def _listed(items: Sequence[Any]) -> list[Any]:
    return items.tolist() if isinstance(items, np.ndarray) else list(items)


def _row_sample(rows: Sequence[list[Any]]) -> RowSample:
    digests = Counter(_row_digest(row) for row in rows)
    least = sorted(digests)[:ROW_SAMPLE_LIMIT]
    return RowSample(
        rows=len(rows), digests=tuple(least), copies=tuple(digests[item] for item in least)
    )


def _row_digest(row: list[Any]) -> int:
    """Return 48 bits that stand for a row, for counting its copies."""
    try:
        data = msgspec.json.encode(row)
    except (TypeError, ValueError, OverflowError):  # objects of pandas and the like
        data = repr([_spelled(item) for item in row]).encode("utf-8", "replace")
    return int.from_bytes(blake2b(data, digest_size=6).digest())


def _merged_row_sample(a: RowSample, b: RowSample) -> RowSample:
    copies = Counter(dict(zip(a.digests, a.copies, strict=True)))
    copies.update(dict(zip(b.digests, b.copies, strict=True)))
    least = sorted(copies)[:ROW_SAMPLE_LIMIT]
    return RowSample(
        rows=a.rows + b.rows, digests=tuple(least), copies=tuple(copies[item] for item in least)
    )
