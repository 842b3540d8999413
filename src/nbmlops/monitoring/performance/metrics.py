"""Metrics that follow from sums, each with its interval."""

from __future__ import annotations

import math

import numpy as np

from nbmlops.monitoring.performance import intervals
from nbmlops.monitoring.performance.intervals import Interval, Measured
from nbmlops.monitoring.performance.outcomes import PerformanceWindow, Scales

LABEL_METRICS = ("accuracy", "roc_auc", "log_loss")
VALUE_METRICS = ("mean_absolute_error", "root_mean_squared_error", "r2")
GREATER_IS_BETTER = frozenset({"accuracy", "roc_auc", "r2"})

CLASS_ROWS_NEEDED = 10
"""Rows that either class needs before an area under the ROC curve is told."""


def measured(
    name: str, counts: PerformanceWindow, scales: Scales, share: float = 1.0
) -> Measured | None:
    """Return a metric, ``None`` where it cannot be told.

    ``share`` is which part of the rows counts as independent observations.
    """
    if name == "accuracy":
        return _accuracy(counts, share)
    if name == "roc_auc":
        return _area(counts, share)
    if name == "r2":
        return _r2(counts, scales, share)
    if name == "root_mean_squared_error":
        found = _mean("squared", counts, scales, share)
        return found and _root(found)
    loss = "absolute" if name == "mean_absolute_error" else name
    return _mean(loss, counts, scales, share)


def _accuracy(counts: PerformanceWindow, share: float) -> Measured | None:
    if not counts.judged:
        return None
    marked, rows = counts.right * share, counts.judged * share
    return Measured(
        counts.right / counts.judged,
        counts.judged,
        lambda z: intervals.share_limits(marked, rows, z),
    )


def _mean(loss: str, counts: PerformanceWindow, scales: Scales, share: float) -> Measured | None:
    sums = counts.losses.get(loss)
    if sums is None or sums.rows < 2:
        return None
    middle, size = scales.losses.get(loss, (0.0, 1.0))
    n = sums.rows
    first, second, third = sums.first / n, sums.second / n, sums.third / n
    variance = max(second - first**2, 0.0)
    # Three sums of rounding errors are no spread.
    variance = variance if variance > 1e-14 * second else 0.0
    cube = third - 3 * first * second + 2 * first**3
    most = math.sqrt(n)
    skewness = min(max(cube / variance**1.5, -most), most) if variance > 0 else 0.0
    value, deviation = max(middle + size * first, 0.0), size * math.sqrt(variance * n / (n - 1))

    def limits(z: float) -> Interval:
        low, high = intervals.mean_limits(value, deviation, skewness, max(share * n, 2.0), z)
        return max(low, 0.0), high

    return Measured(value, n, limits)


def _root(of: Measured) -> Measured:
    def limits(z: float) -> Interval:
        low, high = of.limits(z)
        return math.sqrt(low), math.sqrt(high)

    return Measured(math.sqrt(of.value), of.rows, limits)


def _r2(counts: PerformanceWindow, scales: Scales, share: float) -> Measured | None:
    """Return R squared, with an interval of the logarithm of the unexplained part."""
    n = counts.judged
    if n < 2 or not counts.joint:
        return None
    a, aa, u, u2, u3, u4, au, auu = (part / n for part in counts.joint)
    spread = u2 - u * u
    if spread <= 1e-12 * max(u2, 1e-300):
        return None
    _, size = scales.losses.get("squared", (0.0, 1.0))
    ratio = (size / scales.truth[1] ** 2) * a / spread
    if a <= 0:
        return Measured(1.0, n, lambda _: (1.0, 1.0))
    fourth = u4 - 4 * u * u3 + 6 * u * u * u2 - 3 * u**4
    both = auu - 2 * u * au + u * u * a
    # One division at a time: squares of very small numbers are zero.
    variance = aa / a / a - 2 * both / a / spread + fourth / spread / spread
    error = math.sqrt(max(variance, 0.0) / max(share * n, 1.0))

    def limits(z: float) -> Interval:
        reach = math.exp(min(z * error, 300.0))
        return 1 - ratio * reach, 1 - ratio / reach

    return Measured(1 - ratio, n, limits)


def _area(counts: PerformanceWindow, share: float) -> Measured | None:
    if min(sum(counts.negatives), sum(counts.positives)) < CLASS_ROWS_NEEDED:
        return None
    negatives = np.array(counts.negatives, dtype=np.float64)
    positives = np.array(counts.positives, dtype=np.float64)
    return Measured(
        intervals.area(negatives, positives),
        int(negatives.sum() + positives.sum()),
        lambda z: intervals.area_limits(share * negatives, share * positives, z),
    )
