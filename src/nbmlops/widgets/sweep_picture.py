"""A sweep's parallel coordinates as a PNG: what is left where neither a browser nor HTML is."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any

from nbmlops.widgets import progress, wording

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TONES = ("#c3ccd6", "#a3b9d3", "#7fa4d2", "#568bcf", "#2b6fc4", "#0b4fa0")
_INK, _MUTED, _BEST = "#1f2328", "#59636e", "#c2410c"
_WIDTH_IN, _HEIGHT_IN, _DPI = 10.0, 3.6, 110


def png(document: Mapping[str, Any]) -> bytes:
    """Draw the sweep's state, its best trial and the parallel coordinates."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    axes = document["axes"]
    width = max(_WIDTH_IN, 1.2 * len(axes))
    figure = Figure(figsize=(width, _HEIGHT_IN), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    # parse_math: a dollar sign in a name is no formula.
    title = f"{document['sweep_id']}  {document['counts']['told']}"
    figure.text(0.03, 0.93, wording.clipped(title, 110), fontsize=11, color=_INK, parse_math=False)
    if document["best"]:
        best = document["best"]
        value = f"{document['metric'] or 'value'}={best['value']}"
        told = f"best {value} by trial {best['number']}: {best['given']}"
        shown = wording.clipped(told, 130)
        figure.text(0.03, 0.86, shown, fontsize=8.5, color=_BEST, parse_math=False)
    _draw(figure.add_axes((0.07, 0.06, 0.88, 0.66)), document)
    out = BytesIO()
    with warnings.catch_warnings():  # a name in a script that the font lacks is drawn as boxes
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(out, format="png")
    return out.getvalue()


def _draw(plot: Axes, document: Mapping[str, Any]) -> None:
    axes = document["axes"]
    plot.set_axis_off()
    plot.set_xlim(0, max(1, len(axes) - 1))
    plot.set_ylim(-0.03, 1.03)
    trials = [trial for trial in document["trials"] if trial["tone"] is not None]
    for trial in sorted(trials, key=lambda trial: (trial["best"], trial["tone"])):
        places = [(index, y) for index, y in enumerate(trial["points"]) if y is not None]
        plot.plot(
            [x for x, _ in places],
            [y for _, y in places],
            color=_BEST if trial["best"] else _TONES[trial["tone"]],
            linewidth=2.2 if trial["best"] else 1.2,
        )
    for index, axis in enumerate(axes):
        plot.plot([index, index], [0, 1], color=_MUTED, linewidth=0.8, clip_on=False)
        name = progress.squeezed(axis["name"], 15)
        plot.text(
            index,
            1.06,
            name,
            ha="center",
            fontsize=8.5,
            color=_INK,
            parse_math=False,
            weight="bold",
        )
        for tick in axis["ticks"]:
            label = wording.clipped(tick["text"], 12)
            plot.annotate(
                label,
                (index, tick["at"]),
                (4 if axis["metric"] else -4, 0),
                textcoords="offset points",
                ha="left" if axis["metric"] else "right",
                va="center",
                fontsize=7,
                color=_MUTED,
                parse_math=False,
                annotation_clip=False,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5},
            )
