"""The parts of a monitoring report's text that tell of causes, metrics and time."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Sequence

from nbmlops.records import Metric, MonitorReport
from nbmlops.widgets import wording
from nbmlops.widgets.drift_history import LEVELS, Timeline, timeline
from nbmlops.widgets.drift_timeline import BLOCKS, line, steps

_WIDTH = 96
_NAME_WIDTH = 24
_CELLS = 48
_ROWS = 15


def explanation(report: MonitorReport) -> list[str]:
    """Return since when calls differ, which features do and what happened then."""
    told = "".join(part.text for part in wording.explanation(report))
    return (
        ["", *textwrap.wrap(told, _WIDTH, initial_indent="  ", subsequent_indent="  ")]
        if told
        else []
    )


def metrics(report: MonitorReport) -> list[str]:
    """Return the metrics beside the test set's; what is estimated says so."""
    if not report.metrics:
        return []
    heads = tuple(head.lower() for head in wording.METRIC_HEADS)
    rows = [heads, *(wording.metric_cells(metric) for metric in report.metrics)]
    return ["", *aligned(rows, rights={2, 4, 5, 7})]


def clause(metric: Metric) -> str:
    """Return a metric beside the test set's in one line."""
    name, source, value, reach, test, difference, apart, rows, worse = wording.metric_cells(metric)
    return (
        f"{name}, {source}: {value} ({reach}) from {rows} rows; test set {test}, "
        f"difference {difference} ({apart}); worse: {worse}"
    )


def traffic(report: MonitorReport) -> list[str]:
    """Return volume, errors and latency in a line."""
    return [] if report.traffic is None else ["", f"  traffic  {wording.traffic(report.traffic)}"]


def history(report: MonitorReport) -> list[str]:
    """Return a line of block characters for each feature and each measure over time."""
    shown = timeline(report)
    if shown is None:
        return []
    first, last = shown.pieces[0], shown.pieces[-1]
    whole = wording.span(first.since, last.until)
    scale = "  ".join(f"{block} {words}" for block, words in zip(BLOCKS, LEVELS, strict=True))
    return [
        "",
        f"  over time, {len(shown.pieces)} slices, {whole}",
        f"  difference in thresholds: {scale}  ? unknown",
        *aligned(list(_history_rows(shown)), rights=()),
    ]


def _history_rows(shown: Timeline) -> Iterable[tuple[str, str, str]]:
    for row in shown.rows[:_ROWS]:
        yield wording.clipped(row.name, _NAME_WIDTH), line(row, _CELLS), row.told
    left = len(shown.rows) - _ROWS
    if left > 0:
        yield f"… and {left} more", "", ""
    for chart in shown.charts:
        totals = {key.mark: key.text for key in chart.keys}
        test = totals.get("band")
        for series in reversed(chart.series):
            told = totals.get(series.mark, series.name)
            yield (
                wording.clipped(chart.name, _NAME_WIDTH),
                steps(series, len(shown.pieces), _CELLS),
                wording.clean(f"{told}, {test}" if test else told),
            )


def aligned(rows: Sequence[Sequence[str]], rights: Collection[int]) -> list[str]:
    """Return rows of texts as lines of aligned cells; the columns ``rights`` end together."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(
            cell.rjust(width) if index in rights else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
