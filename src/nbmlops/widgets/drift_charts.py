"""A monitoring report's metrics and traffic over time, as charts whose places run from 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from nbmlops.records import Metric, MonitorReport, Record
from nbmlops.widgets import wording

Mark = Literal["solid", "hollow", "bar"]


class Tick(Record, frozen=True, kw_only=True):
    """A mark on an axis of values: ``at`` runs from 0 (bottom) to 1 (top)."""

    at: float
    text: str


class Point(Record, frozen=True, kw_only=True):
    """A value of the slice ``index``; all places run from 0 (bottom) to 1 (top)."""

    index: int
    at: float
    text: str
    low: float | None = None
    high: float | None = None


class Series(Record, frozen=True, kw_only=True):
    """Values of one kind; ``mark`` says how they are drawn."""

    name: str
    mark: Mark
    points: tuple[Point, ...]


class Band(Record, frozen=True, kw_only=True):
    """What the test set gave, with its interval."""

    at: float
    low: float
    high: float
    text: str


class Key(Record, frozen=True, kw_only=True):
    """A line of a chart's legend: what the mark stands for, and its value of the whole window."""

    mark: Literal["solid", "hollow", "band", "bar"]
    text: str


class Chart(Record, frozen=True, kw_only=True):
    """One value over time."""

    name: str
    kind: Literal["performance", "traffic"]
    keys: tuple[Key, ...]
    ticks: tuple[Tick, ...]
    series: tuple[Series, ...]
    band: Band | None = None


def performance(report: MonitorReport) -> Iterable[Chart]:
    """Yield a chart for each metric that some slice has."""
    whole = {(one.name, one.estimated): one for one in reversed(report.metrics)}
    slices = [
        {(one.name, one.estimated): one for one in reversed(piece.metrics)}
        for piece in report.history
    ]
    names = dict.fromkeys(
        one.name
        for metrics in (report.metrics, *(piece.metrics for piece in report.history))
        for one in metrics
    )
    for name in names:
        found = {
            estimated: [metrics.get((name, estimated)) for metrics in slices]
            for estimated in (False, True)
        }
        total = [whole.get((name, estimated)) for estimated in (False, True)]
        if any(one is not None for row in found.values() for one in row):
            yield _metric_chart(name, found, total)


def _metric_chart(
    name: str, found: dict[bool, list[Metric | None]], total: Sequence[Metric | None]
) -> Chart:
    known = [one for one in (*total, *found[False], *found[True]) if one is not None]
    test = next((one for one in known if finite(one.reference) is not None), None)
    ends = [value for one in known for value in (one.value, one.low, one.high)]
    if test is not None:
        ends += [test.reference, test.reference_low, test.reference_high]
    scale = _Scale(ends)
    series = (
        Series(
            name="estimated" if estimated else "realised",
            mark="hollow" if estimated else "solid",
            points=tuple(_metric_points(found[estimated], scale)),
        )
        for estimated in (True, False)
    )
    drawn = tuple(one for one in series if one.points)
    values: dict[str, Metric | None] = dict(zip(("realised", "estimated"), total, strict=True))
    keys = [_key(one, wording.number, values[one.name]) for one in reversed(drawn)]
    if test is not None:
        keys.append(Key(mark="band", text=f"test set {wording.number(test.reference)}"))
    return Chart(
        name=name,
        kind="performance",
        keys=tuple(keys),
        ticks=scale.ticks,
        series=drawn,
        band=_band(test, scale) if test is not None else None,
    )


def _key(series: Series, told: Callable[[float], str], value: Metric | float | None) -> Key:
    number = finite(value.value if isinstance(value, Metric) else value)
    text = series.name if number is None else f"{series.name} {told(number)}"
    return Key(mark=series.mark, text=text)


def _metric_points(found: Sequence[Metric | None], scale: _Scale) -> Iterable[Point]:
    for index, one in enumerate(found):
        if one is None or (at := scale.place(one.value)) is None:
            continue
        reach = wording.interval(one.low, one.high)
        yield Point(
            index=index,
            at=at,
            low=scale.place(one.low),
            high=scale.place(one.high),
            text=wording.number(one.value) + (f" ({reach})" if reach else ""),
        )


def _band(test: Metric, scale: _Scale) -> Band | None:
    at = scale.place(test.reference)
    if at is None:
        return None
    low, high = scale.place(test.reference_low), scale.place(test.reference_high)
    reach = wording.interval(test.reference_low, test.reference_high)
    return Band(
        at=at,
        low=at if low is None else low,
        high=at if high is None else high,
        text=wording.number(test.reference) + (f" ({reach})" if reach else ""),
    )


def traffic(report: MonitorReport) -> Iterable[Chart]:
    """Yield volume, errors and latency, as far as they are known."""
    flows = [one.traffic for one in report.history]
    whole = report.traffic
    rows = [one.rows for one in report.history]
    yield _counted("rows", rows, f"{sum(rows):,} in all")
    failed = [None if flow is None else flow.failed for flow in flows]
    if any(count is not None for count in failed):
        calls = sum(flow.calls for flow in flows if flow is not None)
        lost = sum(count or 0 for count in failed)
        yield _counted("failed calls", failed, f"{lost:,} of {calls:,} calls")
    odd = [one.out_of_bounds for one in report.history]
    if any(odd):
        yield _counted("out of bounds", odd, f"{sum(odd):,} answers")
    halves = [None if flow is None else flow.latency_p50_ms for flow in flows]
    tails = [None if flow is None else flow.latency_p99_ms for flow in flows]
    if not any(finite(value) is not None for value in (*halves, *tails)):
        return
    scale = _Scale([0.0, *halves, *tails])
    lines = (
        Series(name="p99", mark="hollow", points=tuple(_values(tails, scale, _ms))),
        Series(name="p50", mark="solid", points=tuple(_values(halves, scale, _ms))),
    )
    series = tuple(one for one in lines if one.points)
    totals = {
        "p50": whole.latency_p50_ms if whole else None,
        "p99": whole.latency_p99_ms if whole else None,
    }
    yield Chart(
        name="latency, ms",
        kind="traffic",
        keys=tuple(_key(one, _ms, totals[one.name]) for one in reversed(series)),
        ticks=scale.ticks,
        series=series,
    )


def _ms(value: float) -> str:
    return wording.milliseconds(value)


def _counted(name: str, counts: Sequence[int | None], told: str) -> Chart:
    scale = _Scale([0, *counts, 1], whole=True)
    points = tuple(_values(counts, scale, lambda count: f"{count:,.0f}"))
    return Chart(
        name=name,
        kind="traffic",
        keys=(Key(mark="bar", text=told),),
        ticks=scale.ticks,
        series=(Series(name=name, mark="bar", points=points),),
    )


def _values(
    values: Sequence[float | None], scale: _Scale, told: Callable[[float], str]
) -> Iterable[Point]:
    for index, value in enumerate(values):
        at = scale.place(value)
        if value is not None and at is not None:
            yield Point(index=index, at=at, text=told(value))


class _Scale:
    """From values to places: from a little below the lowest to a little above the highest."""

    def __init__(self, values: Iterable[float | None], *, whole: bool = False) -> None:
        numbers = [number for value in values if (number := finite(value)) is not None]
        low, high = (min(numbers), max(numbers)) if numbers else (0.0, 1.0)
        if high - low < 1e-9 * max(abs(low), abs(high), 1e-300):
            room = abs(low) * 0.1 or 1.0
            low, high = low - room, high + room
        else:
            room = 0.06 * (high - low)
            # Counts and times stand on zero.
            low, high = (low if low == 0 else low - room), high + room
        self._low, self._high = low, high
        self.ticks = tuple(
            Tick(at=at, text=_short(value))
            for value in _round_values(low, high, whole=whole)
            if (at := self.place(value)) is not None
        )

    def place(self, value: float | None) -> float | None:
        number = finite(value)
        if number is None:
            return None
        # Halves first: the span of very large values is beyond what a number holds.
        share = (number / 2 - self._low / 2) / (self._high / 2 - self._low / 2)
        return round(min(1.0, max(0.0, share)), 4)


def _round_values(low: float, high: float, *, whole: bool) -> list[float]:
    """Return two to four round values between two ends; of counts only whole ones."""
    raw = high / 2 - low / 2
    if not math.isfinite(raw) or raw <= 0:
        return []
    power = 10.0 ** math.floor(math.log10(raw))
    if power == 0:
        return []
    for size in (10, 5, 2.5, 2, 1, 0.5):
        step = power * size
        if whole and not step.is_integer():
            continue
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last > first:
            return [float(index * step) for index in range(first, last + 1)][:4]
    return []


def _short(value: float) -> str:
    size = abs(value)
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if limit <= size < 1e12:
            return f"{value / limit:.4g}{unit}"
    return f"{value:.4g}"


def finite(value: float | None) -> float | None:
    """Return a value that can be drawn; infinities and what is no number cannot."""
    return None if value is None or not math.isfinite(value) else float(value)
