"""A monitoring report as a PNG: what is left where neither a browser nor HTML is."""

from __future__ import annotations

import math
import textwrap
import warnings
from io import BytesIO
from typing import TYPE_CHECKING, Any

from nbmlops.records import ColumnReport, MonitorReport
from nbmlops.widgets import drift_lines, drift_panels, palette, wording
from nbmlops.widgets.drift_history import timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TILES = 12
_TILES_A_ROW = 4
_WIDTH_IN = 10.0
_HEAD_IN = 2.15
_TILE_IN = 1.35
_DPI = 110
_COLORS = 160
_WHY_WIDTH, _WHY_LINES, _METRICS, _LINE_IN = 135, 5, 6, 0.17

_STATE_COLORS = {
    "ok": "#1a7f37",
    "yes": "#1a7f37",
    "alert": "#c4320a",
    "no": "#c4320a",
    "drift": "#c4320a",
    "unknown": "#7d5a00",
}
_WINDOW_COLORS = {"drift": palette.WINDOW_BAD, "ok": palette.WINDOW, "unknown": "#8a6d1a"}


def png(report: MonitorReport) -> bytes:
    """Draw the report: verdict, causes, answers, the history, the features that differ most."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    columns = wording.ordered(report)
    shown = columns[:_TILES]
    history = timeline(report)
    why = textwrap.wrap("".join(part.text for part in wording.explanation(report)), _WHY_WIDTH)
    why = why[:_WHY_LINES]
    told = [drift_lines.clause(metric) for metric in report.metrics[:_METRICS]]
    rows = math.ceil(len(shown) / _TILES_A_ROW)
    begin = _HEAD_IN + _LINE_IN * (len(why) + len(told)) + (0.1 if why or told else 0)
    tiles = begin + (drift_panels.height_in(history) if history is not None else 0)
    height = tiles + rows * _TILE_IN + 0.3
    figure = Figure(figsize=(_WIDTH_IN, height), dpi=_DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    _draw_head(figure, report, height)
    for index, line in enumerate([*why, *told]):
        color = _STATE_COLORS["alert"] if index < len(why) else palette.INK
        y = 1 - (_HEAD_IN - 0.02 + _LINE_IN * index) / height
        _write(figure, 0.025, y, line, size=8, color=color)
    if history is not None:
        drift_panels.draw(drift_panels.Sheet(figure, height, begin - 0.1), history)
    for index, column in enumerate(shown):
        row, place = divmod(index, _TILES_A_ROW)
        left = 0.025 + place * 0.2425
        bottom = (height - tiles - (row + 1) * _TILE_IN + 0.34) / height
        _draw_tile(figure.add_axes((left, bottom, 0.2225, (_TILE_IN - 0.76) / height)), column)
    left = len(columns) - len(shown)
    note = "grey: training, coloured: window"
    if left:
        note += f"  ·  {left} more features, which differ less"
    _write(figure, 0.025, 0.09 / height, note, size=8, color=palette.MUTED)
    out = BytesIO()
    with warnings.catch_warnings():  # a name in a script that the font lacks is drawn as boxes
        warnings.simplefilter("ignore", UserWarning)
        canvas.draw()
    # A palette of all colours that matter is a third of the size, and notebooks keep every picture.
    drawn = Image.frombuffer("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba()))
    drawn.convert("RGB").quantize(_COLORS, dither=Image.Dither.NONE).save(out, "png", optimize=True)
    return out.getvalue()


def _write(
    figure: Figure, x: float, y: float, words: str, *, size: float, color: str, **more: Any
) -> None:
    # parse_math: a dollar sign in a name is no formula.
    figure.text(x, y, words, fontsize=size, color=color, parse_math=False, **more)


def _draw_head(figure: Figure, report: MonitorReport, height: float) -> None:
    from matplotlib.patches import Rectangle

    def at(inches: float) -> float:
        return 1 - inches / height

    mark = wording.VERDICT_MARKS[report.verdict]
    color = _STATE_COLORS[report.verdict]
    _write(
        figure,
        0.025,
        at(0.36),
        f"{mark} {report.verdict.upper()}",
        size=15,
        color=color,
        fontweight="bold",
    )
    _write(
        figure,
        0.165,
        at(0.36),
        wording.clipped(wording.title(report), 60),
        size=15,
        color=palette.INK,
        fontweight="bold",
    )
    facts = [wording.origin(report), wording.window(report), wording.reference(report)]
    facts_line = wording.clipped("  ·  ".join(fact for fact in facts if fact), 130)
    _write(figure, 0.025, at(0.62), facts_line, size=8.5, color=palette.MUTED)
    for index, (_, asked, answer) in enumerate(wording.answers(report)):
        left = 0.025 + index * 0.2425
        color = _STATE_COLORS[answer.answer]
        edge = Rectangle((left, at(1.95)), 0.003, 1.15 / height, facecolor=color, linewidth=0)
        edge.set_transform(figure.transFigure)
        figure.add_artist(edge)
        _write(
            figure,
            left + 0.012,
            at(0.80),
            _wrapped(asked, 33, 2),
            size=8,
            color=palette.INK,
            va="top",
            fontweight="bold",
        )
        _write(
            figure,
            left + 0.012,
            at(1.27),
            f"{wording.ANSWER_MARKS[answer.answer]} {answer.answer}",
            size=10,
            color=color,
            fontweight="bold",
        )
        _write(
            figure,
            left + 0.012,
            at(1.37),
            _wrapped(answer.reason, 40, 4),
            size=7,
            color=palette.MUTED,
            va="top",
        )


def _wrapped(words: str, width: int, lines: int) -> str:
    wrapped = textwrap.wrap(wording.clean(words), width)
    if len(wrapped) > lines:
        wrapped = [*wrapped[: lines - 1], wording.clipped(wrapped[lines - 1] + " …", width)]
    return "\n".join(wrapped)


def _draw_tile(axes: Axes, column: ColumnReport) -> None:
    drawn = column.distribution
    axes.set_yticks([])
    axes.set_xticks([])
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(palette.PALE)
    value = column.effect.value if column.effect else None
    color = _STATE_COLORS[column.verdict]
    axes.set_title(
        wording.clipped(column.name, 30),
        loc="left",
        fontsize=8.5,
        color=palette.INK,
        fontweight="bold",
        pad=14,
        parse_math=False,
    )
    axes.text(
        0,
        1.06,
        f"{wording.VERDICT_MARKS[column.verdict]} {column.verdict}"
        f"   distance {wording.effect(value)}"
        f"   p {wording.p_value(column.p_value)}",
        transform=axes.transAxes,
        fontsize=7,
        color=color,
        parse_math=False,
    )
    if drawn is None or not drawn.reference:
        axes.text(
            0.5,
            0.4,
            "no values",
            transform=axes.transAxes,
            ha="center",
            fontsize=7,
            color=palette.MUTED,
        )
        return
    places = range(len(drawn.reference))
    axes.bar(places, drawn.reference, width=0.92, color=palette.REFERENCE)
    axes.bar(places, drawn.window, width=0.48, color=_WINDOW_COLORS[column.verdict], alpha=0.85)
    axes.set_xlim(-0.6, len(drawn.reference) - 0.4)
    first, last = _ends(column)
    for x, label, side in ((0, first, "left"), (1, last, "right")):
        axes.text(
            x,
            -0.06,
            label,
            transform=axes.transAxes,
            ha=side,
            va="top",
            fontsize=6.5,
            color=palette.MUTED,
            parse_math=False,
        )


def _ends(column: ColumnReport) -> tuple[str, str]:
    drawn = column.distribution
    if drawn is not None and drawn.edges:
        return wording.number(drawn.edges[0]), wording.number(drawn.edges[-1])
    if drawn is None or not drawn.labels:
        return "", ""
    if len(drawn.labels) == 1:
        return wording.clipped(drawn.labels[0], 18), ""
    return wording.clipped(drawn.labels[0], 18), wording.clipped(drawn.labels[-1], 18)
