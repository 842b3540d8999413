"""The history of a monitoring report in a picture: heat map and charts below one axis of time."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbmlops.widgets import palette, wording
from nbmlops.widgets.drift_charts import Chart, Series
from nbmlops.widgets.drift_history import LEVELS, HeatRow, Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROWS = 15
_CHARTS = 8
_AXIS_IN, _ROW_IN, _CHART_IN, _LEGEND_IN, _GAP_IN = 0.42, 0.17, 0.82, 0.26, 0.12
_LEFT, _LANE, _RIGHT = 0.025, 0.2, 0.975


@dataclass
class Sheet:
    """A figure that is filled from above; ``below_in`` is where the next part begins."""

    figure: Figure
    height_in: float
    below_in: float

    def write(self, x: float, inches: float, words: str, **style: Any) -> None:
        """Write words so many inches below the top; a dollar sign in a name is no formula."""
        y = 1 - inches / self.height_in
        self.figure.text(x, y, words, va="center", parse_math=False, **style)

    @contextmanager
    def lane(self, height_in: float) -> Generator[Axes]:
        """Make a lane below the last, as high as that and as wide as all the others."""
        bottom = 1 - (self.below_in + height_in) / self.height_in
        axes = self.figure.add_axes((_LANE, bottom, _RIGHT - _LANE, height_in / self.height_in))
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.patch.set_alpha(0)
        yield axes
        self.below_in += height_in


def height_in(shown: Timeline) -> float:
    """Return how many inches :func:`draw` takes."""
    rows = min(len(shown.rows), _ROWS)
    charts = min(len(shown.charts), _CHARTS)
    return _LEGEND_IN + _AXIS_IN + rows * _ROW_IN + 2 * _GAP_IN + charts * _CHART_IN + _GAP_IN


def draw(sheet: Sheet, shown: Timeline) -> None:
    """Draw the heat map of the features that differ most, and the charts below it."""
    _legend(sheet)
    rows = shown.rows[:_ROWS]
    _axis(sheet, shown)
    top = sheet.below_in
    with sheet.lane(len(rows) * _ROW_IN) as axes:
        _heat(axes, rows)
    for index, row in enumerate(rows):
        weight = "bold" if "drift" in row.verdicts else "normal"
        middle = top + (index + 0.5) * _ROW_IN
        name = wording.clipped(row.name, 24)
        sheet.write(_LEFT, middle, name, fontsize=7, color=palette.INK, fontweight=weight)
    sheet.below_in += 2 * _GAP_IN
    for chart in shown.charts[:_CHARTS]:
        _chart(sheet, chart, len(shown.pieces))
    sheet.below_in += _GAP_IN


def _legend(sheet: Sheet) -> None:
    from matplotlib.patches import Rectangle

    middle = sheet.below_in + _LEGEND_IN / 2
    style = {"fontsize": 7, "color": palette.MUTED}
    sheet.write(_LEFT, middle, "Difference in thresholds:", **style)
    for level, words in enumerate(LEVELS):
        x = _LANE + level * 0.082
        patch = Rectangle(
            (x, 1 - (middle + 0.05) / sheet.height_in),
            0.01,
            0.1 / sheet.height_in,
            facecolor=palette.LEVELS[level],
            linewidth=0,
            transform=sheet.figure.transFigure,
        )
        sheet.figure.add_artist(patch)
        sheet.write(x + 0.014, middle, words, **style)
    sheet.write(_LANE + 6 * 0.082 + 0.02, middle, "•  drift", **style)
    sheet.write(_LANE + 7 * 0.082 + 0.01, middle, "/  not judged", **style)
    sheet.below_in += _LEGEND_IN


def _axis(sheet: Sheet, shown: Timeline) -> None:
    top = sheet.below_in
    sheet.write(_LANE - 0.01, top + 0.16, "UTC", fontsize=7, color=palette.MUTED, ha="right")
    with sheet.lane(_AXIS_IN) as axes:
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        for tick in shown.ticks:
            axes.plot([tick.at, tick.at], [0.05, 0.95], color=palette.PALE, linewidth=0.8)
            axes.text(
                tick.at + 0.004, 0.75, tick.time, fontsize=7, color=palette.MUTED, va="center"
            )
            if tick.day and not tick.again:
                axes.text(
                    tick.at + 0.004,
                    0.3,
                    tick.day,
                    fontsize=7,
                    color=palette.INK,
                    va="center",
                    fontweight="bold",
                )


def _heat(axes: Axes, rows: tuple[HeatRow, ...]) -> None:
    from matplotlib.collections import LineCollection, PolyCollection

    count = len(rows[0].levels) if rows else 1
    axes.set_xlim(0, count)
    axes.set_ylim(len(rows) or 1, 0)
    cells: list[list[tuple[float, float]]] = []
    colors: list[str] = []
    strokes: list[list[tuple[float, float]]] = []
    dots: list[tuple[float, float, str]] = []
    for y, row in enumerate(rows):
        for x, (level, verdict) in enumerate(zip(row.levels, row.verdicts, strict=True)):
            if level is not None:
                cells.append([(x, y + 0.07), (x + 1, y + 0.07), (x + 1, y + 0.93), (x, y + 0.93)])
                colors.append(palette.LEVELS[level])
            elif verdict == "unknown":
                strokes.append([(x, y + 0.93), (x + 1, y + 0.07)])
            if verdict == "drift":
                dots.append((x + 0.5, y + 0.5, palette.DOTS[level or 0]))
    axes.add_collection(PolyCollection(cells, facecolors=colors, linewidths=0))
    axes.add_collection(LineCollection(strokes, colors=palette.MUTED, linewidths=0.6))
    if dots:
        size = 5 if count <= 60 else 2
        axes.scatter(
            [x for x, _, _ in dots],
            [y for _, y, _ in dots],
            s=size,
            c=[color for _, _, color in dots],
            linewidths=0,
        )


def _chart(sheet: Sheet, chart: Chart, count: int) -> None:
    top = sheet.below_in
    name = wording.clipped(chart.name, 20)
    sheet.write(_LEFT, top + 0.12, name, fontsize=8, color=palette.INK, fontweight="bold")
    signs = {"solid": "●", "hollow": "○", "band": "▬", "bar": "▮"}
    for index, key in enumerate(chart.keys):
        words = f"{signs[key.mark]} {wording.clipped(key.text, 26)}"
        sheet.write(_LEFT, top + 0.28 + 0.14 * index, words, fontsize=6.5, color=palette.MUTED)
    sheet.below_in += 0.06
    with sheet.lane(_CHART_IN - 0.2) as axes:
        axes.set_xlim(0, count)
        axes.set_ylim(-0.02, 1.02)
        for tick in chart.ticks:
            axes.axhline(tick.at, color=palette.PALE, linewidth=0.6)
            axes.annotate(
                tick.text,
                (0, tick.at),
                (-4, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=6.5,
                color=palette.MUTED,
                annotation_clip=False,
            )
        if chart.band is not None:
            axes.axhspan(
                chart.band.low, chart.band.high, color=palette.REFERENCE, alpha=0.35, linewidth=0
            )
            axes.axhline(chart.band.at, color=palette.MUTED, linewidth=0.8)
        for series in chart.series:
            _series(axes, series)
    sheet.below_in += 0.14


def _series(axes: Axes, series: Series) -> None:
    places = [point.index + 0.5 for point in series.points]
    values = [point.at for point in series.points]
    if series.mark == "bar":
        axes.bar(places, values, width=0.8, color=palette.REFERENCE)
        return
    solid = series.mark == "solid"
    for begin, end in _runs([point.index for point in series.points]):
        axes.plot(
            places[begin:end],
            values[begin:end],
            color=palette.WINDOW,
            linewidth=0.8,
            linestyle="-" if solid else "--",
            marker="o",
            markersize=2.6,
            markerfacecolor=palette.WINDOW if solid else "white",
            markeredgewidth=0.7,
        )
    reaches = [
        (point.index + 0.5, point.low, point.high)
        for point in series.points
        if point.low is not None and point.high is not None and solid
    ]
    if reaches:
        xs, lows, highs = zip(*reaches, strict=True)
        axes.vlines(xs, lows, highs, color=palette.WINDOW, alpha=0.35, linewidth=1.4)


def _runs(indices: list[int]) -> Iterator[tuple[int, int]]:
    """Yield where slices follow one another without a gap."""
    begin = 0
    for place in range(1, len(indices) + 1):
        if place == len(indices) or indices[place] != indices[place - 1] + 1:
            yield begin, place
            begin = place
