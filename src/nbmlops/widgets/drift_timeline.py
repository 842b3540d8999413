"""The history of a monitoring report as HTML: tables whose cells hold inline SVG.

Widths are in percent or in slices, so that pictures fit any width and every part stands below the
same times. Where SVG is stripped, block characters tell the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from nbmlops.widgets import palette, wording
from nbmlops.widgets.drift_charts import Chart, Series
from nbmlops.widgets.drift_history import LEVELS, HeatRow, Timeline

ROWS = 30
"""How many features a static heat map has."""

BLOCKS = "▁▂▅▆▇█"
"""A character for each level of the heat map; there is a gap where the threshold is."""

MARKS = {"solid": "●", "hollow": "○", "band": "▬", "bar": "▮"}
_STEPS = "▁▂▃▄▅▆▇█"
_STROKES = f'fill="none" stroke="{palette.MUTED}" vector-effect="non-scaling-stroke"'
_CELL_PX, _CHART_PX, _AXIS_PX = 16, 72, 30
_SMALL_FROM = 30


def html(shown: Timeline) -> str:
    """Return heat map, performance and traffic over time, as one table for each."""
    rows = shown.rows[:ROWS]
    left = len(shown.rows) - len(rows)
    heat = "".join(_heat_row(row) for row in rows)
    more = f'<p class="nbm-facts">… and {left} more features</p>' if left else ""
    parts = [
        _heading("Drift over time"),
        _legend(),
        _table("Feature", shown, heat),
        more,
    ]
    for kind, heading in (("performance", "Performance over time"), ("traffic", "Traffic")):
        charts = [chart for chart in shown.charts if chart.kind == kind]
        if charts:
            body = "".join(_chart_row(chart, len(shown.pieces)) for chart in charts)
            name = "Metric" if kind == "performance" else "Measure"
            parts += [_heading(heading), _table(name, shown, body)]
    return "".join(parts)


def line(row: HeatRow, cells: int) -> str:
    """Return a feature over time in at most so many characters; each tells of its worst slice.

    ``·`` is a slice that says nothing, ``?`` one that cannot be judged.
    """
    marks: list[str] = []
    for begin, end in _groups(len(row.levels), cells):
        known = [level for level in row.levels[begin:end] if level is not None]
        if known:
            marks.append(BLOCKS[max(known)])
        else:
            marks.append("?" if "unknown" in row.verdicts[begin:end] else "·")
    return "".join(marks)


def steps(series: Series, count: int, cells: int) -> str:
    """Return a chart's values in at most so many characters; each tells the mean of its slices."""
    places = {point.index: point.at for point in series.points}
    marks: list[str] = []
    for begin, end in _groups(count, cells):
        known = [places[index] for index in range(begin, end) if index in places]
        mean = sum(known) / len(known) if known else 0.0
        marks.append(_STEPS[min(7, int(mean * 8))] if known else "·")
    return "".join(marks)


def _groups(count: int, cells: int) -> Iterable[tuple[int, int]]:
    """Cut so many slices into at most so many groups of neighbours."""
    size = -(-count // cells) or 1
    return ((begin, min(begin + size, count)) for begin in range(0, count, size))


def _safe(value: str) -> str:
    return escape(wording.clean(value), quote=True)


def _heading(words: str) -> str:
    return f'<p class="nbm-subtitle" role="heading" aria-level="4">{words}</p>'


def _legend() -> str:
    keys = "".join(
        f'<span class="nbm-swatch"><svg width="12" height="12" aria-hidden="true">'
        f'<rect data-level="{level}" fill="{palette.LEVELS[level]}" width="12" height="12"/></svg>'
        f'<span class="nbm-spark">{BLOCKS[level]}</span> {words}</span> '
        for level, words in enumerate(LEVELS)
    )
    return (
        f'<p class="nbm-legend nbm-levels">Difference in thresholds: {keys}'
        # Its word goes with the dot: block characters do not tell drift from a large difference.
        '<span class="nbm-swatch"><svg width="40" height="12" aria-hidden="true">'
        '<circle class="nbm-dot" cx="6" cy="6" r="2.5"/><text x="15" y="10">drift</text></svg>'
        "</span> "
        '<span class="nbm-swatch"><svg width="12" height="12" aria-hidden="true">'
        f'<path class="nbm-strokes" {_STROKES} d="M1 11L11 1"/></svg>'
        '<span class="nbm-spark">?</span> '
        "not judged</span></p>"
    )


def _table(name: str, shown: Timeline, body: str) -> str:
    first, last = shown.pieces[0], shown.pieces[-1]
    whole = _safe(wording.span(first.since, last.until))
    ticks = "".join(
        f'<g class="{_tick_class(tick.minor, tick.again)}">'
        f'<line stroke="{palette.PALE}" x1="{100 * tick.at:.2f}%" x2="{100 * tick.at:.2f}%" y1="2"'
        f' y2="{_AXIS_PX}"/>'
        f'<text x="{100 * tick.at:.2f}%" dx="4" y="11">{_safe(tick.time)}</text>'
        f'<text class="nbm-day" x="{100 * tick.at:.2f}%" dx="4" y="24">{_safe(tick.day)}</text></g>'
        for tick in shown.ticks
    )
    return (
        f'<table class="nbm-time"><thead><tr><th scope="col">{name}, time in UTC</th>'
        f'<td><svg class="nbm-axis" width="100%" height="{_AXIS_PX}" aria-hidden="true">{ticks}'
        f'</svg><span class="nbm-spark">{whole}</span></td></tr>'
        f"</thead><tbody>{body}</tbody></table>"
    )


def _tick_class(minor: bool, again: bool) -> str:
    return " ".join(
        ("nbm-tick", *(["nbm-minor"] if minor else []), *(["nbm-again"] if again else []))
    )


def _heat_row(row: HeatRow) -> str:
    label = _safe(f"{wording.clipped(row.name, 60)}: {row.told}")
    state = "drift" if "drift" in row.verdicts else "ok"
    return (
        f'<tr data-state="{state}"><th scope="row">{_safe(wording.clipped(row.name, 60))}</th><td>'
        f'<svg class="nbm-cells" role="img" aria-label="{label}" width="100%" height="{_CELL_PX}" '
        f'viewBox="0 0 {len(row.levels)} 1" preserveAspectRatio="none">{_cells(row)}</svg>'
        f'<span class="nbm-spark">{line(row, len(row.levels))} {_safe(row.told)}</span></td></tr>'
    )


def _cells(row: HeatRow) -> str:
    """Draw a run of equal levels as one rectangle, drift as dots, the unknown as strokes."""
    paths: dict[int, list[str]] = {}
    begin = 0
    for index in range(1, len(row.levels) + 1):
        if index < len(row.levels) and row.levels[index] == row.levels[begin]:
            continue
        level = row.levels[begin]
        if level is not None:
            paths.setdefault(level, []).append(f"M{begin} 0h{index - begin}v1H{begin}z")
        begin = index
    drawn = [
        f'<path data-level="{level}" fill="{palette.LEVELS[level]}" d="{"".join(paths[level])}"/>'
        for level in sorted(paths)
    ]
    for level in sorted(paths):
        dots = "".join(
            f"M{index}.5 .5h0"
            for index, verdict in enumerate(row.verdicts)
            if verdict == "drift" and row.levels[index] == level
        )
        if dots:
            drawn.append(
                f'<path class="nbm-dots" data-level="{level}" fill="none" stroke-linecap="round"'
                f' vector-effect="non-scaling-stroke" stroke="{palette.DOTS[level]}"'
                f' stroke-width="4" d="{dots}"/>'
            )
    strokes = "".join(
        f"M{index} 1l1 -1"
        for index, verdict in enumerate(row.verdicts)
        if verdict == "unknown" and row.levels[index] is None
    )
    if strokes:
        drawn.append(f'<path class="nbm-strokes" {_STROKES} d="{strokes}"/>')
    return "".join(drawn)


def _chart_row(chart: Chart, count: int) -> str:
    keys = "".join(
        f'<span class="nbm-told"><span class="nbm-mark" data-mark="{key.mark}">'
        f"{MARKS[key.mark]}</span> {_safe(key.text)}</span> "
        for key in chart.keys
    )
    sparks = ", ".join(
        f"{_safe(series.name)} {steps(series, count, count)}" for series in chart.series
    )
    return (
        f'<tr class="nbm-chart"><th scope="row">{_safe(wording.clipped(chart.name, 60))} {keys}'
        f'</th><td><svg class="nbm-plot" role="img" width="100%" height="{_CHART_PX}" '
        f'aria-label="{_safe(wording.clipped(chart.name, 60))} over time">{_plot(chart, count)}'
        f'</svg><span class="nbm-spark">{sparks}</span></td></tr>'
    )


def _plot(chart: Chart, count: int) -> str:
    drawn = [
        f'<line class="nbm-rule" stroke="{palette.PALE}" x1="0" x2="100%" y1="{_y(tick.at)}"'
        f' y2="{_y(tick.at)}"/>'
        f'<text x="-6" y="{_y(tick.at)}" dy="3" text-anchor="end">{_safe(tick.text)}</text>'
        for tick in chart.ticks
    ]
    if chart.band is not None:
        high, low = 100 * (1 - chart.band.high), 100 * (1 - chart.band.low)
        drawn.append(
            f'<rect class="nbm-band" fill="{palette.REFERENCE}" fill-opacity="0.3" width="100%"'
            f' y="{high:.1f}%" height="{low - high:.1f}%"/>'
            f'<line class="nbm-test" stroke="{palette.MUTED}" x2="100%" y1="{_y(chart.band.at)}"'
            f' y2="{_y(chart.band.at)}"/>'
        )
    drawn += [_series(series, count) for series in chart.series]
    return "".join(drawn)


def _series(series: Series, count: int) -> str:
    if series.mark == "bar":
        bars = "".join(
            f'<rect x="{100 * (point.index + 0.1) / count:.2f}%" width="{80 / count:.2f}%" '
            f'y="{_y(point.at)}" height="{100 * point.at:.1f}%"/>'
            for point in series.points
        )
        return f'<g data-mark="bar" fill="{palette.REFERENCE}">{bars}</g>'
    joins = "".join(
        f'<line x1="{_x(a.index, count)}" y1="{_y(a.at)}" x2="{_x(b.index, count)}" '
        f'y2="{_y(b.at)}"/>'
        for a, b in zip(series.points, series.points[1:], strict=False)
        if b.index == a.index + 1
    )
    reaches = "".join(
        f'<line class="nbm-reach" x1="{_x(one.index, count)}" x2="{_x(one.index, count)}" '
        f'y1="{_y(one.low)}" y2="{_y(one.high)}"/>'
        for one in series.points
        if one.low is not None and one.high is not None and series.mark == "solid"
    )
    radius = "2.5" if count <= _SMALL_FROM else "2"
    dots = "".join(
        f'<circle cx="{_x(one.index, count)}" cy="{_y(one.at)}" r="{radius}"/>'
        for one in series.points
    )
    fill = "#fff" if series.mark == "hollow" else palette.WINDOW
    return (
        f'<g data-mark="{series.mark}" fill="{fill}" stroke="{palette.WINDOW}">'
        f"{reaches}{joins}{dots}</g>"
    )


def _x(index: int, count: int) -> str:
    return f"{100 * (index + 0.5) / count:.2f}%"


def _y(at: float) -> str:
    return f"{100 * (1 - at):.1f}%"
