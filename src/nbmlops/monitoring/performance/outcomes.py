"""Answers beside their truths, as sums that add up, and the metrics that follow from them.

Losses are summed in units of the test set (:class:`Scales`), so that no sum of cubes overflows or
loses its digits. Scores are counted by class on cells of the test set's scores, from which the area
under the ROC curve follows to about 1e-4, and exactly where the test set has few distinct ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from nbmlops.monitoring.columns import is_missing
from nbmlops.monitoring.performance.intervals import Floats
from nbmlops.monitoring.performance.items import flat, numbers
from nbmlops.monitoring.performance.strata import Cells
from nbmlops.records import ModelSchema, OutputSchema, Prediction, Record

_FAR = 1e70  # of which cubes of squares are still numbers, in units of the test set
_LEAST_SHARE = float(np.finfo(np.float64).eps)  # as scikit-learn's log_loss has it


class Scales(Record, frozen=True, kw_only=True):
    """What a window is counted in: location and size of losses and truths; edges of scores."""

    losses: dict[str, tuple[float, float]] = msgspec.field(default_factory=dict)
    truth: tuple[float, float] = (0.0, 1.0)
    edges: tuple[float, ...] | None = None


class Sums(Record, frozen=True, kw_only=True):
    """Sums of the first three powers."""

    rows: int = 0
    first: float = 0.0
    second: float = 0.0
    third: float = 0.0


class PerformanceWindow(Record, frozen=True, kw_only=True):
    """The answers of some rows beside their truths, as far as those are known.

    ``right`` of ``judged`` labels are the truth; of values, ``judged`` have a loss. ``joint`` are
    sums over squared errors and truths, for R squared. ``negatives`` and ``positives`` count scores
    by class; ``strata`` count all rows, whether their truth is known or not.
    """

    rows: int = 0
    actuals: int = 0
    judged: int = 0
    right: int = 0
    losses: dict[str, Sums] = msgspec.field(default_factory=dict)
    joint: tuple[float, ...] = ()
    negatives: tuple[int, ...] = ()
    positives: tuple[int, ...] = ()
    strata: tuple[tuple[int, ...], ...] = ()


class Labels(NamedTuple):
    """Labels and truths as the schema spells classes, and shares of the probability.

    ``confidences`` are those of the predicted label, ``shares`` those of the truth, ``scores``
    those of the second of two classes; NaN where there is none.
    """

    found: Sequence[str | None]
    truths: Sequence[str | None]
    confidences: Floats
    shares: Floats
    scores: Floats


class Values(NamedTuple):
    """Predicted values and truths, NaN where there is none."""

    found: Floats
    truths: Floats


# --- reading ------------------------------------------------------------------------------------


def read(
    schema: ModelSchema, predictions: Sequence[Prediction], actuals: Sequence[Any]
) -> Labels | Values:
    """Return answers and truths of rows; a truth that cannot be one counts as missing."""
    output = schema.output
    truths = [*actuals[: len(predictions)], *[None] * (len(predictions) - len(actuals))]
    if output.kind == "value":
        found = numbers([_told(one.value) for one in predictions])
        return Values(found, numbers([_told(truth) for truth in truths]))
    labels = [spelled(output, one.label) for one in predictions]
    known = [spelled(output, truth) for truth in truths]
    shares = [one.probabilities or {} for one in predictions]
    second = output.classes[1] if output.classes and len(output.classes) == 2 else None
    return Labels(
        found=labels,
        truths=known,
        confidences=_shares(
            [row.get(name or "") for row, name in zip(shares, labels, strict=True)]
        ),
        shares=_shares([row.get(name or "") for row, name in zip(shares, known, strict=True)]),
        scores=_shares([row.get(second or "") for row in shares]),
    )


def read_arrays(
    schema: ModelSchema, truth: Any, predictions: Any, probabilities: Any
) -> Labels | Values:
    """Return the same of a test set's arrays; ``probabilities`` has a column for each class."""
    output = schema.output
    if output.kind == "value":
        return Values(numbers(_column(predictions)), numbers(_column(truth)))
    found = [spelled(output, one) for one in _column(predictions).tolist()]
    truths = [spelled(output, one) for one in _column(truth).tolist()]
    classes = output.classes or ()
    none = np.full(len(found), math.nan)
    try:
        table = None if probabilities is None else np.asarray(probabilities, dtype=np.float64)
    except (TypeError, ValueError):  # rows of several lengths, or no numbers
        table = None
    if table is None or not found or table.shape != (len(found), len(classes)):
        return Labels(found, truths, none, none, none)
    places = {name: place for place, name in enumerate(classes)}

    def picked(names: Sequence[str | None]) -> Floats:
        at = np.array([places.get(name or "", -1) for name in names])
        return np.where(at >= 0, table[np.arange(len(at)), at], math.nan)

    scores = table[:, 1].copy() if len(classes) == 2 else none
    return Labels(found, truths, picked(found), picked(truths), scores)


def spelled(output: OutputSchema, value: Any) -> str | None:
    """Return a label as ``OutputSchema.classes`` spell it; ``None`` where it is no label."""
    if value is msgspec.UNSET or is_missing(value):
        return None
    try:
        if output.class_kind == "boolean":
            return "true" if value else "false"
        if output.class_kind == "integer":
            return str(int(value))
        return repr(float(value)) if output.class_kind == "number" else str(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _told(value: Any) -> Any:
    return None if value is msgspec.UNSET else value


def _column(values: Any) -> NDArray[Any]:
    """Return an array of one dimension; of lists as they are, none of their items converted."""
    items = flat(values)
    return items if isinstance(items, np.ndarray) else np.asarray(items, dtype=object).ravel()


def _shares(values: Sequence[Any]) -> Floats:
    found = numbers(values)
    return np.where(np.abs(found) <= 2, found, math.nan)


# --- counting -----------------------------------------------------------------------------------


def losses(rows: Labels | Values) -> dict[str, Floats]:
    """Return each loss by row, NaN where it cannot be told."""
    if isinstance(rows, Values):
        error = np.clip(rows.found, -_FAR, _FAR) - np.clip(rows.truths, -_FAR, _FAR)
        return {"absolute": np.abs(error), "squared": error**2}
    known = np.array([truth is not None for truth in rows.truths], dtype=bool)
    shares = np.clip(rows.shares, _LEAST_SHARE, 1 - _LEAST_SHARE)
    return {"log_loss": np.where(known, -np.log(shares), math.nan)}


def right(rows: Labels) -> Floats:
    """Return 1 for a label that is the truth, 0 for any other, NaN where no truth is known."""
    pairs = zip(rows.found, rows.truths, strict=True)
    return np.array(
        [math.nan if truth is None else float(found == truth) for found, truth in pairs],
        dtype=np.float64,
    )


def counted(
    rows: Labels | Values,
    scales: Scales,
    second: str | None,
    cells: Sequence[tuple[Cells, int]] = (),
) -> PerformanceWindow:
    """Add up rows; ``cells`` are their strata and how many strata there are, once a tree."""
    lost = losses(rows)
    sums = {name: _sums(values, scales.losses.get(name)) for name, values in lost.items()}
    strata = tuple(
        tuple(np.bincount(places[places >= 0], minlength=count).tolist()) for places, count in cells
    )
    if isinstance(rows, Values):
        return PerformanceWindow(
            rows=len(rows.found),
            actuals=int(np.isfinite(rows.truths).sum()),
            judged=sums["absolute"].rows,
            losses=sums,
            joint=_joint(rows, lost["squared"], scales),
            strata=strata,
        )
    found = right(rows)
    known = np.isfinite(found)
    negatives, positives = _scores(rows, known, scales.edges, second)
    return PerformanceWindow(
        rows=len(rows.found),
        actuals=int(known.sum()),
        judged=int(known.sum()),
        right=int(found[known].sum()),
        losses=sums if sums["log_loss"].rows else {},
        negatives=negatives,
        positives=positives,
        strata=strata,
    )


def merge(parts: Iterable[PerformanceWindow]) -> PerformanceWindow:
    """Add up windows that were made with the same reference."""
    whole = PerformanceWindow()
    for part in parts:
        whole = PerformanceWindow(
            rows=whole.rows + part.rows,
            actuals=whole.actuals + part.actuals,
            judged=whole.judged + part.judged,
            right=whole.right + part.right,
            losses=_added(whole.losses, part.losses),
            joint=_together(whole.joint, part.joint),
            negatives=_together(whole.negatives, part.negatives),
            positives=_together(whole.positives, part.positives),
            strata=tuple(map(_together, whole.strata, part.strata))
            if whole.strata and part.strata
            else whole.strata or part.strata,
        )
    return whole


def _added(one: dict[str, Sums], other: dict[str, Sums]) -> dict[str, Sums]:
    made = dict(one)
    for name, b in other.items():
        a = made.get(name, Sums())
        made[name] = Sums(
            rows=a.rows + b.rows,
            first=a.first + b.first,
            second=a.second + b.second,
            third=a.third + b.third,
        )
    return made


def _together(one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True)) if one and other else one or other


def scale_of(values: Floats) -> tuple[float, float]:
    """Return mean and standard deviation, 1 where there is no deviation."""
    there = np.clip(values[np.isfinite(values)], -(_FAR**2), _FAR**2)
    if not len(there):
        return 0.0, 1.0
    deviation = float(there.std())
    return float(there.mean()), deviation if deviation > 1e-12 else 1.0


def _sums(values: Floats, scale: tuple[float, float] | None) -> Sums:
    middle, size = scale or (0.0, 1.0)
    there = (values[np.isfinite(values)] - middle) / size
    z = np.clip(there, -1e30, 1e30)
    return Sums(
        rows=len(z), first=float(z.sum()), second=float((z**2).sum()), third=float((z**3).sum())
    )


def _joint(rows: Values, squared: Floats, scales: Scales) -> tuple[float, ...]:
    known = np.isfinite(squared)
    _, size = scales.losses.get("squared", (0.0, 1.0))
    middle, spread = scales.truth
    a = np.minimum(squared[known] / size, 1e30)
    u = np.clip((np.clip(rows.truths[known], -_FAR, _FAR) - middle) / spread, -1e15, 1e15)
    sums = (a, a * a, u, u**2, u**3, u**4, a * u, a * u**2)
    return tuple(float(part.sum()) for part in sums)


def _scores(
    rows: Labels, known: NDArray[np.bool_], edges: Sequence[float] | None, second: str | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if edges is None or second is None:
        return (), ()
    usable = known & np.isfinite(rows.scores)
    positive = np.array([truth == second for truth in rows.truths], dtype=bool)
    places = np.searchsorted(edges, rows.scores, side="left")
    size = len(edges) + 1
    return (
        tuple(np.bincount(places[usable & ~positive], minlength=size).tolist()),
        tuple(np.bincount(places[usable & positive], minlength=size).tolist()),
    )
