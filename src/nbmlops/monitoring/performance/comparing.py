"""A window's metrics, held against the test set's."""

from __future__ import annotations

import math

import numpy as np

from nbmlops.monitoring.performance import intervals, metrics, strata
from nbmlops.monitoring.performance.findings import (
    KEEP_HINT,
    MATTERS,
    NO_ACTUALS,
    RELATIVE,
    Found,
    answer,
    evidence,
)
from nbmlops.monitoring.performance.intervals import Interval, Measured
from nbmlops.monitoring.performance.metrics import GREATER_IS_BETTER
from nbmlops.monitoring.performance.outcomes import PerformanceWindow, Scales
from nbmlops.monitoring.performance.testsets import (
    PerformanceReference,
    finite,
)
from nbmlops.records import Answer, Metric

ACTUALS_NEEDED = 30
"""Actuals, and rows of the test set, before anything is said about them."""

LEVEL = 0.0025
"""The one-sided probability of a false alarm, a quarter of one alarm in a hundred windows."""

_Z95 = intervals.quantile(0.025)

# --- comparing ----------------------------------------------------------------------------------


def compare(
    reference: PerformanceReference | None,
    counts: PerformanceWindow,
    *,
    level: float = LEVEL,
    rows_needed: int = ACTUALS_NEEDED,
    independent_share: float = 1.0,
) -> tuple[tuple[Metric, ...], Answer]:
    """Hold a window's metrics against the test set's, and answer the question.

    Each metric is there once: of the actuals where enough have come, else as estimated. An
    estimate can raise an alarm, and never answers yes: that the same inputs have other truths now
    is what it cannot see.

    Parameters
    ----------
    level
        The one-sided probability of a false alarm, over all metrics together (Bonferroni).
    rows_needed
        How many actuals, and rows of the test set, there have to be.
    independent_share
        Which part of the window's rows counts as independent observations.
    """
    share = independent_share if 0 < independent_share <= 1 else 1.0
    if reference is None:
        return _alone(counts, share, rows_needed)
    names = [score.name for score in reference.metrics]
    z = intervals.quantile(level / max(sum(name in MATTERS for name in names), 1))
    found: list[Found] = []
    for name in names:
        then = metrics.measured(name, reference.counts, reference.scales)
        if then is None or then.rows < rows_needed:
            continue
        now = metrics.measured(name, counts, reference.scales, share)
        if now is not None and now.rows >= rows_needed:
            found.append(_realised(name, now, then, z))
        else:
            estimated = _estimated(name, reference, counts, then, z, share, rows_needed)
            if estimated is not None:
                found.append(estimated)
    found = [one for one in found if one.metric.value is not None]
    told = answer(reference, counts, found, level=level, needed=rows_needed)
    return tuple(one.metric for one in found), told


def _realised(name: str, now: Measured, then: Measured, z: float) -> Found:
    metric = _metric(name, now, then, intervals.difference(now, then, _Z95))
    if name not in MATTERS:
        return Found(metric)
    times = 1 + MATTERS[name] if name in RELATIVE else 1.0
    limit = 0.0 if name in RELATIVE else MATTERS[name]
    least, _ = _worse(name, intervals.difference(now, then, z))
    low, high = _worse(name, intervals.difference(now, then, _Z95, times))
    return Found(
        metric, least > 0 and low > limit, high < limit, _actuals_needed(name, now, then, times)
    )


def _worse(name: str, apart: Interval) -> Interval:
    """Return by how much the window is worse."""
    return (-apart[1], -apart[0]) if name in GREATER_IS_BETTER else apart


def _actuals_needed(name: str, now: Measured, then: Measured, times: float) -> float:
    """Return how many actuals exclude a change that matters, if there is none."""
    limit = MATTERS[name] * (then.value if name in RELATIVE else 1.0)
    own, before = (((high - low) / 2) ** 2 for low, high in (now.limits(_Z95), then.limits(_Z95)))
    room = limit**2 - times**2 * before
    return own * now.rows / room if room > 0 else math.inf


def _metric(
    name: str, now: Measured, then: Measured | None, apart: Interval, *, estimated: bool = False
) -> Metric:
    low, high = now.limits(_Z95)
    least, most = then.limits(_Z95) if then else (math.nan, math.nan)
    worse = _worse(name, apart)[0]
    return Metric(
        name=name,
        value=finite(now.value),
        low=finite(low),
        high=finite(high),
        reference=finite(then.value) if then else None,
        reference_low=finite(least),
        reference_high=finite(most),
        difference=finite(now.value - then.value) if then else None,
        difference_low=finite(apart[0]),
        difference_high=finite(apart[1]),
        rows=now.rows,
        estimated=estimated,
        worse=worse > 0,
        greater_is_better=name in GREATER_IS_BETTER,
    )


# --- estimating ---------------------------------------------------------------------------------


def _estimated(
    name: str,
    reference: PerformanceReference,
    counts: PerformanceWindow,
    then: Measured,
    z: float,
    share: float,
    rows_needed: int,
) -> Found | None:
    rows = min((sum(part) for part in counts.strata), default=0)
    if rows < max(rows_needed, 1):
        return None
    expected = _expected(name, reference, counts, share)
    if expected is None:
        return None
    power = 2 if name == "root_mean_squared_error" else 1
    value = _within(name, then.value**power + expected.difference)

    def limits(quantile: float) -> Interval:
        reach = quantile * expected.error
        low, high = (_within(name, value + sign * reach) for sign in (-1, 1))
        return low ** (1 / power), high ** (1 / power)

    def apart(quantile: float) -> Interval:
        reach = quantile * expected.difference_error
        low, high = (_within(name, value + sign * reach) for sign in (-1, 1))
        return low ** (1 / power) - then.value, high ** (1 / power) - then.value

    now = Measured(value ** (1 / power), rows, limits)
    metric = _metric(name, now, then, apart(_Z95), estimated=True)
    if name not in MATTERS:
        return Found(metric)
    limit = MATTERS[name] * (then.value if name in RELATIVE else 1.0)
    is_worse = _worse(name, apart(z))[0] > 0 and _worse(name, apart(_Z95))[0] > limit
    return Found(metric, is_worse)


def _within(name: str, value: float) -> float:
    return min(max(value, 0.0), 1.0 if name in GREATER_IS_BETTER else math.inf)


def _expected(
    name: str, reference: PerformanceReference, counts: PerformanceWindow, share: float
) -> strata.Expected | None:
    """Return what is expected; of two trees the mean, whose error is no greater than theirs."""
    made = [reference.calibration.strata] if reference.calibration else []
    made += [tree.strata for tree in reference.learned]
    kind = {"mean_absolute_error": "absolute", "root_mean_squared_error": "squared"}.get(name, name)
    found: list[strata.Expected] = []
    for one, here, there in zip(made, counts.strata, reference.counts.strata, strict=True):
        pair = np.array(here, dtype=np.float64), np.array(there, dtype=np.float64)
        if kind in one.means:
            found.append(strata.expected(one, kind, *pair, share))
        elif name == "roc_auc" and "score" in one.means:
            area = strata.expected_area(one, *pair, share)
            found += [area] if area is not None else []
    if not found:
        return None
    value, error, difference, apart = (float(np.mean(part)) for part in zip(*found, strict=True))
    return strata.Expected(value, error, difference, apart)


def _alone(
    counts: PerformanceWindow, share: float, needed: int
) -> tuple[tuple[Metric, ...], Answer]:
    """Tell the metrics of the actuals, where there is no test set to hold them against."""
    names = metrics.VALUE_METRICS if counts.joint else metrics.LABEL_METRICS
    measured = [(name, metrics.measured(name, counts, Scales(), share)) for name in names]
    made = [
        _metric(name, now, None, (math.nan, math.nan))
        for name, now in measured
        if now is not None and now.rows >= needed
    ]
    found = tuple(metric for metric in made if metric.value is not None)
    reason = f"no metrics of a test set were kept with this version, as {KEEP_HINT} does"
    if counts.actuals:
        reason = f"There is nothing to compare with: {reason}."
    else:
        reason = f"{NO_ACTUALS}: the true outcomes of these calls are not known, and {reason}."
    return found, Answer(answer="unknown", reason=reason, evidence=evidence(counts, needed))
