"""The geometry of a sweep's pictures: where each value of each trial lies, from 0 to 1.

Browser, static SVG and matplotlib draw from these same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from nbmlops import records
from nbmlops.records import Dimension, SweepRecord
from nbmlops.widgets import progress

_TICKS = 4
_LOG_RATIO = 100


class Tick(records.Record, frozen=True, kw_only=True):
    """A mark on an axis: ``at`` runs from 0 (bottom) to 1 (top)."""

    at: float
    text: str


class Axis(records.Record, frozen=True, kw_only=True):
    """One parameter, or the metric, as an axis from ``low`` to ``high`` or over ``choices``."""

    name: str
    kind: Literal["linear", "log", "categories"]
    low: float = 0.0
    high: float = 1.0
    choices: tuple[str, ...] = ()
    ticks: tuple[Tick, ...] = ()
    metric: bool = False


def parameter_axes(record: SweepRecord) -> tuple[Axis, ...]:
    """Return an axis for each parameter that the sweep varies, in the order it was given."""
    return tuple(
        _dimension_axis(
            dimension, [trial.parameters.get(dimension.name) for trial in record.trials]
        )
        for dimension in record.space
    )


def metric_axis(record: SweepRecord) -> Axis:
    """Return the axis of the metric over the values that are there."""
    values = [trial.value for trial in record.trials if is_number(trial.value)]
    return _numeric_axis(record.metric or "value", values, log=False, metric=True)


def is_number(value: Any) -> bool:
    """Whether a value can lie on a numeric axis."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def place(axis: Axis, value: Any) -> float | None:
    """Return where a value lies on an axis, from 0 to 1; ``None`` where it has no place."""
    if axis.kind == "categories":
        text = progress.written(value)
        if text not in axis.choices:
            return None
        return _even(axis.choices.index(text), len(axis.choices))
    if not is_number(value) or (axis.kind == "log" and value <= 0):
        return None
    if axis.high == axis.low:
        return 0.5
    if axis.kind == "log":
        span = math.log(axis.high) - math.log(axis.low)
        share = (math.log(value) - math.log(axis.low)) / span
    else:
        share = (value - axis.low) / (axis.high - axis.low)
    return round(min(1.0, max(0.0, share)), 4)


def _dimension_axis(dimension: Dimension, tried: Sequence[Any]) -> Axis:
    if dimension.kind != "choices":
        ends = [dimension.low, dimension.high, *tried]
        return _numeric_axis(dimension.name, ends, log=dimension.log)
    numeric = [value for value in dimension.choices if is_number(value)]
    if len(numeric) == len(dimension.choices) > 1:
        log = min(numeric) > 0 and max(numeric) / min(numeric) >= _LOG_RATIO
        return _numeric_axis(dimension.name, [*numeric, *tried], log=log, marked=numeric)
    known = [progress.written(value) for value in dimension.choices]
    more = [progress.written(value) for value in tried if value is not None]
    choices = tuple(dict.fromkeys([*known, *more]))
    ticks = tuple(
        Tick(at=_even(index, len(choices)), text=progress.shown(choice))
        for index, choice in enumerate(choices)
    )
    return Axis(name=dimension.name, kind="categories", choices=choices, ticks=ticks)


def _numeric_axis(
    name: str,
    values: Iterable[Any],
    *,
    log: bool,
    marked: Sequence[float] = (),
    metric: bool = False,
) -> Axis:
    numbers = [float(value) for value in values if is_number(value)]
    if log:
        numbers = [value for value in numbers if value > 0]
    low, high = (min(numbers), max(numbers)) if numbers else (0.0, 1.0)
    axis = Axis(
        name=name,
        kind="log" if log and numbers else "linear",
        low=low,
        high=high,
        metric=metric,
    )
    if not numbers:
        return axis
    if low == high:
        at = [low]
    elif marked and len(marked) <= 2 * _TICKS:
        at = sorted(set(marked))
    else:
        at = _log_ticks(low, high) if axis.kind == "log" else _round_ticks(low, high)
    ticks = tuple(Tick(at=place(axis, value) or 0.0, text=f"{value:.6g}") for value in at)
    return records.replace(axis, ticks=ticks)


def _round_ticks(low: float, high: float) -> list[float]:
    """Return round values between two ends, and the ends where no round one is near."""
    raw = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(size for size in (1, 2, 2.5, 5, 10) if size * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    powers = [10.0**exponent for exponent in range(first, last + 1)]
    if len(powers) < 2:
        return [low, *[power for power in powers if low < power < high], high]
    return powers[:: math.ceil(len(powers) / (2 * _TICKS))]


def _even(index: int, count: int) -> float:
    return 0.5 if count <= 1 else round(index / (count - 1), 4)
