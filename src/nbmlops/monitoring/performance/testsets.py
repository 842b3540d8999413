"""What a test set has shown of a model, and windows counted in the same units.

It is made beside the model, in the user's own environment: only numpy is needed. Neither holds
rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nbmlops.monitoring.performance import intervals, metrics, outcomes, strata, trees
from nbmlops.monitoring.performance.intervals import Floats
from nbmlops.monitoring.performance.outcomes import Labels, PerformanceWindow, Scales, Values
from nbmlops.monitoring.performance.strata import Calibration, Cells
from nbmlops.monitoring.performance.trees import LossTree
from nbmlops.records import ModelSchema, Prediction, Record

_Z95 = intervals.quantile(0.025)
_EDGES = 512


class Score(Record, frozen=True, kw_only=True):
    """A metric of the test set with its 95 % interval."""

    name: str
    value: float
    low: float | None
    high: float | None


class PerformanceReference(Record, frozen=True, kw_only=True):
    """What the test set has shown of a model: metrics, and what windows are held against.

    ``counts`` are the test set's own. ``calibration`` or ``learned`` say what is to be expected of
    rows without a truth; where both are missing nothing can be.
    """

    rows: int
    metrics: tuple[Score, ...]
    scales: Scales
    counts: PerformanceWindow
    calibration: Calibration | None = None
    learned: tuple[LossTree, ...] = ()
    format: int = 1


# --- counting -----------------------------------------------------------------------------------


def performance_reference(
    schema: ModelSchema,
    truth: Any,
    predictions: Any,
    probabilities: Any = None,
    features: Mapping[str, Any] | None = None,
) -> PerformanceReference:
    """Summarise what a model answered on its test set; the same data give the same summary.

    Parameters
    ----------
    schema
        Says which classes there are, in the order of the columns of ``probabilities``.
    truth, predictions
        Labels or values, one for each row.
    probabilities
        An array of shape (rows, classes), or ``None``.
    features
        Column name to a one-dimensional list, array or Series, for what is learned of the loss.
    """
    rows = outcomes.read_arrays(schema, truth, predictions, probabilities)
    lost = outcomes.losses(rows)
    scales = Scales(
        losses={name: outcomes.scale_of(values) for name, values in lost.items()},
        truth=(0.0, 1.0) if isinstance(rows, Labels) else outcomes.scale_of(rows.truths),
        edges=_score_edges(rows) if isinstance(rows, Labels) else None,
    )
    calibration, learned = _expectations(schema, rows, lost, features or {})
    counts = outcomes.counted(
        rows, scales, _second(schema), _cells(calibration, learned, rows, features or {})
    )
    scores: list[Score] = []
    for name in metrics.LABEL_METRICS if isinstance(rows, Labels) else metrics.VALUE_METRICS:
        found = metrics.measured(name, counts, scales)
        if found is not None and math.isfinite(found.value):
            low, high = map(finite, found.limits(_Z95))
            scores.append(Score(name=name, value=found.value, low=low, high=high))
    return PerformanceReference(
        rows=counts.judged,
        metrics=tuple(scores),
        scales=scales,
        counts=counts,
        calibration=calibration,
        learned=learned,
    )


def window(
    reference: PerformanceReference | None,
    schema: ModelSchema,
    predictions: Sequence[Prediction],
    actuals: Sequence[Any],
    features: Mapping[str, Any] | None = None,
) -> PerformanceWindow:
    """Count calls beside their truths, ``None`` where a truth has not come.

    ``features`` has the columns of the calls, ``None`` where a value is missing. A column whose
    values the call log does not have as they were sent is to be left out: what was learned from it
    says nothing then.
    """
    rows = outcomes.read(schema, predictions, actuals)
    if reference is None:
        return outcomes.counted(rows, Scales(), None)
    cells = _cells(reference.calibration, reference.learned, rows, features or {})
    return outcomes.counted(rows, reference.scales, _second(schema), cells)


def window_of_arrays(
    reference: PerformanceReference | None,
    schema: ModelSchema,
    truth: Any,
    predictions: Any,
    probabilities: Any = None,
) -> PerformanceWindow:
    """Count rows of a table beside their truths, ``None`` or NaN where those are missing.

    Without ``probabilities`` nothing is estimated then.
    """
    rows = outcomes.read_arrays(schema, truth, predictions, probabilities)
    if reference is None:
        return outcomes.counted(rows, Scales(), _second(schema))
    cells = _cells(reference.calibration, (), rows, {})
    return outcomes.counted(rows, reference.scales, _second(schema), cells)


def _second(schema: ModelSchema) -> str | None:
    classes = schema.output.classes or ()
    return classes[1] if len(classes) == 2 else None


def _score_edges(rows: Labels) -> tuple[float, ...] | None:
    """Return each distinct score, or as many by rank of either truth."""
    usable = np.isfinite(rows.scores)
    if not usable.any():
        return None
    distinct = np.unique(rows.scores[usable])
    if len(distinct) > _EDGES:
        kept: list[Floats] = []
        truths = np.array([truth or "" for truth in rows.truths])
        for truth in sorted(set(truths[usable].tolist())):
            ordered = np.sort(rows.scores[usable & (truths == truth)])
            at = np.arange(1, _EDGES // 2) * len(ordered) // (_EDGES // 2)
            kept.append(ordered[at])
        distinct = np.unique(np.concatenate(kept))
    return tuple(distinct.tolist())


def _expectations(
    schema: ModelSchema,
    rows: Labels | Values,
    lost: dict[str, Floats],
    features: Mapping[str, Any],
) -> tuple[Calibration | None, tuple[LossTree, ...]]:
    if isinstance(rows, Values):
        return None, trees.learned(schema, features, rows.found, lost["absolute"], lost)
    found = outcomes.right(rows)
    judged = np.isfinite(found)
    if not np.isfinite(rows.confidences).any():
        return None, trees.learned(schema, features, rows.found, 1 - found, {"accuracy": found})
    expected = {"accuracy": found, "log_loss": lost["log_loss"]}
    second = _second(schema)
    if second is not None:
        positive = np.array([float(truth == second) for truth in rows.truths], dtype=np.float64)
        expected |= {"positive": positive, "score": rows.scores}
    confidences = np.where(judged, rows.confidences, math.nan)
    return strata.calibration(rows.found, confidences, expected), ()


def _cells(
    calibration: Calibration | None,
    learned: Sequence[LossTree],
    rows: Labels | Values,
    features: Mapping[str, Any],
) -> list[tuple[Cells, int]]:
    if calibration is not None and isinstance(rows, Labels):
        places = strata.calibration_cells(calibration, rows.found, rows.confidences)
        return [(places, len(calibration.strata.rows))]
    return [
        (trees.tree_cells(tree, features, rows.found), len(tree.strata.rows)) for tree in learned
    ]


def finite(value: float) -> float | None:
    """Return a number that JSON has a word for, else ``None``."""
    return float(value) if math.isfinite(value) else None
