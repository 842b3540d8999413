"""A monitoring report as text and as HTML: pure functions of one document.

The HTML is one self-contained piece, styled and with inline SVG; where a host strips both (an
untrusted notebook, an e-mail) what is left is a heading, a list and a table that read as well.
Headings are paragraphs in that role: JupyterLab would put real ones into the notebook's contents.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from nbmlops.records import ColumnReport, Distribution, MonitorReport
from nbmlops.widgets import drift_lines, drift_timeline, palette, wording
from nbmlops.widgets.assets import sheet
from nbmlops.widgets.drift_history import timeline

_MOMENT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d(?: UTC)?")
_TEXT_ROWS = 40
_HTML_ROWS = 200
_NAME_WIDTH = 32
_BLOCKS = "·▁▂▃▄▅▆▇█"
_SVG_WIDTH, _SVG_HEIGHT = 180, 36


# --- text -------------------------------------------------------------------------------------


def text(report: MonitorReport) -> str:
    """Return the report as aligned plain text, for a terminal, a log or a mail."""
    origin = wording.origin(report)
    lines = [
        f"{report.verdict.upper()}  {wording.title(report)}{f' ({origin})' if origin else ''}",
        f"  window     {wording.window(report)}",
        f"  reference  {wording.reference(report)}",
        "",
    ]
    lines += [
        f"  {answer.answer:<7}  {name:<11}  {wording.clean(answer.reason)}"
        for name, _, answer in wording.answers(report)
    ]
    lines += drift_lines.explanation(report)
    lines += drift_lines.metrics(report)
    lines += drift_lines.traffic(report)
    lines += drift_lines.history(report)
    columns = wording.ordered(report)
    if report.prediction is not None:
        columns.insert(0, report.prediction)
    told = any(column.verdict != "unknown" for column in columns)
    if columns and told:
        lines += ["", *_text_table(columns[:_TEXT_ROWS])]
    if len(columns) > _TEXT_ROWS and told:
        lines.append(f"  … and {len(columns) - _TEXT_ROWS} more columns")
    return "\n".join(lines)


def _text_table(columns: Sequence[ColumnReport]) -> list[str]:
    heads = ("column", "verdict", "distance", "limit", "p", "missing", "remark")
    rows = [heads, *(_text_row(column) for column in columns)]
    return drift_lines.aligned(rows, rights={2, 3, 4, 5})


def _text_row(column: ColumnReport) -> tuple[str, ...]:
    value = column.effect.value if column.effect else None
    threshold = column.effect.threshold if column.effect else None
    return (
        wording.clipped(column.name, _NAME_WIDTH),
        column.verdict,
        wording.effect(value),
        wording.number(threshold),
        wording.p_value(column.p_value),
        wording.share(column.missing_share),
        "" if column.verdict == "ok" else wording.clipped(column.reason, 100),
    )


# --- HTML -------------------------------------------------------------------------------------


def html(report: MonitorReport) -> str:
    """Return the report as one piece of static HTML, with styles and pictures inside."""
    origin = wording.origin(report)
    history = timeline(report)
    columns = wording.ordered(report)
    prediction = [] if report.prediction is None else [report.prediction]
    drifted = sum(column.verdict == "drift" for column in columns)
    heading = f"{len(columns)} features, {drifted} drifted" if columns else "No features"
    return "".join(
        (
            f"<style>{sheet('drift')}</style>",
            f'<div class="nbm-drift" data-verdict="{_safe(report.verdict)}">',
            '<div class="nbm-head"><p class="nbm-title" role="heading" aria-level="3">',
            f"{_badge(report.verdict)} <strong>{_safe(wording.title(report))}</strong></p>",
            '<p class="nbm-facts">',
            f"{_safe(origin)} · " if origin else "",
            f"{_whole(wording.window(report))} · against {_safe(wording.reference(report))}</p>",
            "</div>",
            _html_explanation(report),
            f'<ul class="nbm-cards">{_html_cards(report)}</ul>',
            _html_metrics(report),
            drift_timeline.html(history) if history is not None else "",
            f'<p class="nbm-subtitle" role="heading" aria-level="4">{_safe(heading)}</p>',
            _LEGEND,
            _html_table([*prediction, *columns]),
            "</div>",
        )
    )


_LEGEND = (
    '<p class="nbm-legend"><span class="nbm-key" data-side="reference"></span> training / '
    '<span class="nbm-key" data-side="window"></span> window</p>'
)


def _safe(value: str) -> str:
    return escape(wording.clean(value), quote=True)


def _whole(value: str) -> str:
    """Return text in which no line ends within a time."""
    return _MOMENT.sub(r'<span class="nbm-moment">\g<0></span>', _safe(value))


def _badge(state: str) -> str:
    words = f"{wording.VERDICT_MARKS[state]} {_safe(state)}"
    return f'<span class="nbm-badge" data-state="{_safe(state)}">{words}</span>'


def _html_cards(report: MonitorReport) -> str:
    return "".join(
        f'<li class="nbm-card" data-state="{_safe(answer.answer)}">'
        f'<span class="nbm-asked">{_safe(asked)}</span> '
        f'<strong class="nbm-answer">{wording.ANSWER_MARKS[answer.answer]} '
        f"{_safe(answer.answer)}</strong> "
        f'<span class="nbm-reason">{_safe(answer.reason)}</span></li>'
        for _, asked, answer in wording.answers(report)
    )


def _html_explanation(report: MonitorReport) -> str:
    parts = "".join(
        f"<strong>{_whole(part.text)}</strong>" if part.strong else _whole(part.text)
        for part in wording.explanation(report)
    )
    return f'<p class="nbm-why">{parts}</p>' if parts else ""


def _html_metrics(report: MonitorReport) -> str:
    """Return the metrics as a table, and volume, errors and latency as a line."""
    flow = report.traffic
    line = (
        f'<p class="nbm-facts nbm-flow">Traffic: {_safe(wording.traffic(flow))}</p>' if flow else ""
    )
    if not report.metrics:
        return line
    head = "".join(f'<th scope="col">{_safe(name)}</th>' for name in wording.METRIC_HEADS)
    rows: list[str] = []
    for metric in report.metrics:
        name, *cells = wording.metric_cells(metric)
        body = "".join(f"<td>{_safe(cell)}</td>" for cell in cells)
        state = "drift" if metric.worse else "ok"
        rows.append(f'<tr data-state="{state}"><th scope="row">{_safe(name)}</th>{body}</tr>')
    return (
        '<p class="nbm-subtitle" role="heading" aria-level="4">Metrics beside the test set</p>'
        f'<div class="nbm-wide"><table class="nbm-table nbm-metrics"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{line}"
    )


def _html_table(columns: Sequence[ColumnReport]) -> str:
    heads = ("Column", "Verdict", "Distribution", "Distance", "p", "Missing", "Remark")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "".join(_html_row(column) for column in columns[:_HTML_ROWS])
    left = len(columns) - _HTML_ROWS
    more = f'<p class="nbm-facts">… and {left} more columns</p>' if left > 0 else ""
    return (
        f'<div class="nbm-wide"><table class="nbm-table nbm-columns"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{more}"
    )


def _html_row(column: ColumnReport) -> str:
    value = column.effect.value if column.effect else None
    limit = f" / {wording.number(column.effect.threshold)}" if column.effect else ""
    cells = (
        f'<th scope="row">{_safe(wording.clipped(column.name, 80))}</th>',
        f"<td>{_badge(column.verdict)}</td>",
        f"<td>{svg(column)}{_spark_lines(column)}</td>",
        f'<td class="nbm-number">{_safe(wording.effect(value) + limit)}</td>',
        f'<td class="nbm-number">{_safe(wording.p_value(column.p_value))}</td>',
        f'<td class="nbm-number">{_safe(wording.share(column.missing_share))}</td>',
        f"<td>{_safe(wording.clipped(column.reason, 240))}</td>",
    )
    return f'<tr data-state="{_safe(column.verdict)}">{"".join(cells)}</tr>'


def svg(column: ColumnReport) -> str:
    """Return both distributions of a column as inline SVG: training behind, window in front."""
    drawn = column.distribution
    if drawn is None or not drawn.reference:
        return ""
    top = max(*drawn.reference, *drawn.window) or 1.0
    drifted = column.verdict == "drift"
    step = _SVG_WIDTH / len(drawn.reference)
    bars = "".join(
        _bars(shares, side, top, step, colour)
        for side, shares, colour in (
            ("reference", drawn.reference, palette.REFERENCE),
            ("window", drawn.window, palette.WINDOW_BAD if drifted else palette.WINDOW),
        )
    )
    label = _safe(f"training and window of {wording.clipped(column.name, 60)}, {extent(drawn)}")
    return (
        f'<svg class="nbm-svg" role="img" aria-label="{label}" '
        f'viewBox="0 0 {_SVG_WIDTH} {_SVG_HEIGHT}" width="{_SVG_WIDTH}" height="{_SVG_HEIGHT}">'
        f"{bars}</svg>"
    )


def _spark_lines(column: ColumnReport) -> str:
    """Return both distributions in block characters; styled away where the SVG is seen."""
    drawn = column.distribution
    if drawn is None:
        return ""
    top = max((*drawn.reference, *drawn.window), default=0.0) or 1.0
    lines = (
        "".join(_BLOCKS[round(share / top * (len(_BLOCKS) - 1))] for share in shares)
        for shares in (drawn.reference, drawn.window)
    )
    return f'<span class="nbm-spark" aria-hidden="true">{" / ".join(lines)}</span>'


def _bars(shares: Sequence[float], side: str, top: float, step: float, colour: str) -> str:
    inset = 0.04 if side == "reference" else 0.26
    rectangles = (
        f'<rect x="{(index + inset) * step:.1f}" width="{(1 - 2 * inset) * step:.1f}" '
        f'y="{_SVG_HEIGHT * (1 - value / top):.1f}" height="{_SVG_HEIGHT * value / top:.1f}"/>'
        for index, value in enumerate(shares)
        if value > 0
    )
    return f'<g data-side="{side}" fill="{colour}">{"".join(rectangles)}</g>'


def extent(drawn: Distribution) -> str:
    """Return from where to where the bins reach, or how many there are."""
    if drawn.edges:
        return f"{wording.number(drawn.edges[0])} to {wording.number(drawn.edges[-1])}"
    return f"{len(drawn.labels or ())} categories"
