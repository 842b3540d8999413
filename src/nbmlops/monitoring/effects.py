"""How far a window of calls lies from training, as sizes alone: no test, and no verdict.

That is what a live service can tell about itself. Whether a size matters, and is no accident, is
for :mod:`~nbmlops.monitoring.drift` to say.
"""

from __future__ import annotations

from typing import NamedTuple

from nbmlops.monitoring import statistics
from nbmlops.monitoring.drift import ROWS_NEEDED, only_grows
from nbmlops.monitoring.profile import Counted, Gauge, Tally

DISTANCE = "jensen-shannon-distance"
MEANS = "standardized-mean-difference"
_LARGEST = 1e6  # of a difference of means, as in a report


class Size(NamedTuple):
    """How far one column, or the prediction, lies from training.

    ``effect`` is the name of ``value``, which is ``None`` where it cannot be told: too few values,
    or a column that only grows. ``new_category_share`` is that of the rows whose category training
    did not have, ``None`` for columns that have none, or too many to know.
    """

    name: str
    effect: str
    value: float | None
    missing_share: float | None
    new_category_share: float | None


class Effects(NamedTuple):
    """What a window of so many rows shows."""

    rows: int
    columns: tuple[Size, ...]
    prediction: Size | None


def effects(gauge: Gauge, window: Tally) -> Effects:
    """Return how far each column of a window, and its predictions, lie from training.

    Each row counts as one, also where rows hang together, which a report takes into account.
    A distance is that of the coarse cells, missing and lost values among them: see
    :func:`~nbmlops.monitoring.statistics.jensen_shannon_distance`. Predicted values are compared by
    their means, in standard deviations of the training values, because those of a sound regression
    vary less than what it was trained on.
    """
    sizes = [_size(gauge, place, now) for place, now in enumerate(gauge.counted(window))]
    prediction = sizes.pop() if gauge.reference.has_output else None
    return Effects(window.rows, tuple(sizes), prediction)


def _size(gauge: Gauge, place: int, now: Counted) -> Size:
    variable, then = gauge.reference.variables[place], gauge.training[place]
    is_output = gauge.reference.has_output and place == len(gauge.training) - 1
    by_means = is_output and variable.by == "numbers"
    told = min(then.count, then.rows, now.rows) >= ROWS_NEEDED
    if by_means:
        value = _apart(then, now) if told and now.count >= ROWS_NEEDED else None
    elif not told or (not is_output and only_grows(variable, now)):
        value = None
    else:
        coarse = gauge.coarse[place]
        counted = coarse.counts(now.cells, now.missing, now.lost)
        value = statistics.jensen_shannon_distance(coarse.training, counted)
    knows_names = variable.by == "names" and variable.closed
    return Size(
        name=variable.name,
        effect=MEANS if by_means else DISTANCE,
        value=value,
        missing_share=now.missing / now.rows if now.rows else None,
        new_category_share=int(now.cells[-1]) / now.rows if knows_names and now.rows else None,
    )


def _apart(then: Counted, now: Counted) -> float | None:
    spread = (then.m2 / max(then.count - 1, 1)) ** 0.5
    apart = abs(now.mean - then.mean)
    if not (spread < float("inf") and apart < float("inf")):  # or not a number
        return None
    return min(apart / spread if spread > 0 else float(apart > 0), _LARGEST)
