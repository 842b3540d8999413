"""A sweep as text and as HTML without script, with its pictures as inline SVG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from nbmlops.widgets.assets import styles
from nbmlops.widgets.progress import squeezed
from nbmlops.widgets.run_report import head, html_cause, html_commands
from nbmlops.widgets.wording import clean, clipped

_TEXT_ROWS = 40
_HTML_ROWS = 200
_GAP, _TOP, _BOTTOM, _SIDE = 120, 34, 12, 46
_HEIGHT = 250
_HISTORY_WIDTH, _HISTORY_HEIGHT = 560, 110


# --- text -------------------------------------------------------------------------------------


def text(document: Mapping[str, Any]) -> str:
    """Return the sweep as plain text: what is best, how to run it, and the trials best first."""
    return "\n".join(clean(line).rstrip() for line in _lines(document))


def _lines(document: Mapping[str, Any]) -> Iterable[str]:
    took = f"  {document['took']}" if document["took"] else ""
    yield f"{document['mark']} {document['state']}  {document['sweep_id']}{took}"
    yield f"  {', '.join(document['facts'])}"
    yield f"  {document['counts']['told']}"
    best = document["best"]
    if best:
        value = f"{document['metric'] or 'value'}={best['value']}"
        yield f"  best: {value} by trial {best['number']}: {best['given']}"
        yield f"  run it again: {best['command']}"
    cause = document["cause"]
    if cause:
        yield f"  {cause['code']}: {' '.join(cause['message'].split())}"
        if cause["hint"]:
            yield f"  {cause['hint']}"
    trials = document["trials"]
    if trials:
        yield ""
        yield from _text_table(document, trials[:_TEXT_ROWS])
    hidden = len(trials) - _TEXT_ROWS
    if hidden > 0 or document["left"]:
        yield "  " + (document["left"] or f"… and {hidden} more trials")
    if document["note"]:
        yield f"  {document['note']}"
    for command in document["commands"]:
        yield f"  {command['what']}: {command['type']}"


def heads(document: Mapping[str, Any]) -> list[str]:
    """Return the headers of the table of trials."""
    return ["trial", document["metric"] or "value", *document["columns"], "status", "took", "run"]


def cells(trial: Mapping[str, Any]) -> list[str]:
    """Return a trial's row, one text for each header."""
    return [
        f"{trial['number']}{' ★' if trial['best'] else ''}",
        trial["told"],
        *(cell["text"] for cell in trial["cells"]),
        f"{trial['mark']} {trial['state']}",
        trial["took"],
        trial["run_id"] or "",
    ]


def _text_table(document: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    rows = [heads(document), *(cells(trial) for trial in trials)]
    rows = [[clipped(cell, 32) for cell in row] for row in rows]
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    for row in rows:
        yield "  " + "  ".join(c.ljust(width) for c, width in zip(row, widths, strict=True))


# --- HTML -------------------------------------------------------------------------------------


def html(document: Mapping[str, Any]) -> str:
    """Return the sweep as one piece of static HTML, styled, everything in it escaped."""
    return "".join(
        (
            f"<style>{styles('sweep')}</style>",
            f'<div class="nbm nbm-sweep" data-state="{_safe(document["state"])}">',
            head(document, document["sweep_id"]),
            _html_progress(document["counts"]),
            _html_best(document),
            html_cause(document["cause"]),
            f'<p class="nbm-note">{_safe(document["note"])}</p>' if document["note"] else "",
            html_commands(document["commands"]),
            f'<div class="nbm-plot">{parallel_svg(document)}</div>',
            f'<div class="nbm-plot">{history_svg(document)}</div>',
            _html_table(document),
            "</div>",
        )
    )


def _safe(value: str) -> str:
    return escape(clean(value), quote=True)


def _html_progress(counts: Mapping[str, Any]) -> str:
    share = 100 * counts["done"] / max(1, counts["total"])
    return (
        f'<div class="nbm-progress"><span class="nbm-bar"><span style="width:{share:.0f}%">'
        f"</span></span> <span>{_safe(counts['told'])}</span></div>"
    )


def _html_best(document: Mapping[str, Any]) -> str:
    best = document["best"]
    if not best:
        return ""
    return (
        f'<div class="nbm-best"><p>★ best {_safe(document["metric"] or "value")} '
        f"<strong>{_safe(best['value'])}</strong> by trial {best['number']}: "
        f"{_safe(best['given'])}</p>"
        f"<p>Run it again <code>{_safe(best['command'])}</code></p></div>"
    )


def _html_table(document: Mapping[str, Any]) -> str:
    trials = document["trials"]
    if not trials:
        return ""
    head_row = "".join(f'<th scope="col">{_safe(name)}</th>' for name in heads(document))
    body = "".join(
        ('<tr class="nbm-first">' if trial["best"] else "<tr>")
        + "".join(f"<td>{_safe(cell)}</td>" for cell in cells(trial))
        + "</tr>"
        for trial in trials[:_HTML_ROWS]
    )
    hidden = len(trials) - _HTML_ROWS
    told = document["left"] or (f"… and {hidden} more trials" if hidden > 0 else "")
    left = f'<p class="nbm-where">{_safe(told)}</p>' if told else ""
    return (
        f'<div class="nbm-trials"><table class="nbm-table"><thead><tr>{head_row}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{left}"
    )


# --- SVG --------------------------------------------------------------------------------------


def parallel_svg(document: Mapping[str, Any]) -> str:
    """Return the parallel coordinates: one axis for each parameter, the metric last."""
    axes, trials = document["axes"], document["trials"]
    if len(axes) < 2 or not any(trial["tone"] is not None for trial in trials):
        return ""
    width = 2 * _SIDE + _GAP * (len(axes) - 1)
    lines = "".join(
        _line(trial)
        for trial in sorted(trials, key=lambda trial: (trial["best"], trial["tone"] or 0))
        if trial["tone"] is not None
    )
    drawn = "".join(_axis(axis, _SIDE + _GAP * index) for index, axis in enumerate(axes))
    label = _safe(f"parallel coordinates of {len(trials)} trials over {len(axes) - 1} parameters")
    return (
        f'<svg class="nbm-parallel" role="img" aria-label="{label}" width="{width}" '
        f'height="{_HEIGHT}" viewBox="0 0 {width} {_HEIGHT}">{lines}{drawn}</svg>'
    )


def _height_of(place: float) -> float:
    return _TOP + (1 - place) * (_HEIGHT - _TOP - _BOTTOM)


def _line(trial: Mapping[str, Any]) -> str:
    points = [
        f"{_SIDE + _GAP * index},{_height_of(place):.1f}"
        for index, place in enumerate(trial["points"])
        if place is not None
    ]
    tone = "best" if trial["best"] else trial["tone"]
    return (
        f'<polyline class="nbm-line" data-tone="{tone}" fill="none" points="{" ".join(points)}">'
        f"<title>{_safe(trial['label'])}</title></polyline>"
    )


def _axis(axis: Mapping[str, Any], x: int) -> str:
    # The last axis, the metric's, has its numbers outside, where no line runs.
    way, anchor = (1, "start") if axis["metric"] else (-1, "end")
    ticks = "".join(
        f'<line x1="{x + 4 * way}" x2="{x}" y1="{_height_of(tick["at"]):.1f}" '
        f'y2="{_height_of(tick["at"]):.1f}"/><text x="{x + 7 * way}" '
        f'y="{_height_of(tick["at"]) + 4:.1f}" text-anchor="{anchor}">'
        f"{_safe(clipped(tick['text'], 12))}</text>"
        for tick in axis["ticks"]
    )
    return (
        f'<g class="nbm-axis"><line x1="{x}" x2="{x}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>'
        f'{ticks}<text class="nbm-name" x="{x}" y="16" text-anchor="middle">'
        f"{_safe(squeezed(axis['name'], 15))}<title>{_safe(axis['name'])}</title></text></g>"
    )


def history_svg(document: Mapping[str, Any]) -> str:
    """Return the value of each trial as a point, and the best so far as a line of steps."""
    history = document["history"]
    points = history["points"]
    if len(points) < 2:
        return ""
    left, right, top, bottom = _SIDE, 12, 22, 18
    wide, high = _HISTORY_WIDTH - left - right, _HISTORY_HEIGHT - top - bottom

    def at(x: float, y: float) -> tuple[str, str]:
        return f"{left + x * wide:.1f}", f"{top + (1 - y) * high:.1f}"

    steps: list[str] = []
    for index, point in enumerate(points):
        x, y = at(point["x"], point["best"])
        steps.append(f"H{x}V{y}" if index else f"M{x},{y}")
    places = [(point, at(point["x"], point["y"])) for point in points]
    dots = "".join(
        f'<circle cx="{x}" cy="{y}" r="3"><title>{_safe(point["label"])}</title></circle>'
        for point, (x, y) in places
    )
    ticks = "".join(
        f'<text x="{left - 7}" y="{float(at(0, tick["at"])[1]) + 3:.1f}" text-anchor="end">'
        f"{_safe(tick['text'])}</text>"
        for tick in (history["ticks"][:1] + history["ticks"][-1:])
    )
    name = _safe(clipped(f"{document['metric'] or 'value'} by trial, and the best so far", 70))
    last = f'<text x="{left + wide}" y="{_HISTORY_HEIGHT - 3}" text-anchor="end">{history["last"]}'
    return (
        f'<svg class="nbm-history" role="img" aria-label="{name}" width="{_HISTORY_WIDTH}" '
        f'height="{_HISTORY_HEIGHT}" viewBox="0 0 {_HISTORY_WIDTH} {_HISTORY_HEIGHT}">'
        f'<text class="nbm-name" x="{left}" y="12">{name}</text>'
        f'<path class="nbm-steps-line" fill="none" d="{"".join(steps)}"/>{dots}'
        f'<g class="nbm-axis">{ticks}<text x="{left}" y="{_HISTORY_HEIGHT - 3}">1</text>{last}'
        "</text></g></svg>"
    )
