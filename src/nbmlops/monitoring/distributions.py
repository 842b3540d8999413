"""Training and a window of a column as shares on a few common bins, for a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nbmlops.monitoring.columns import Floats
from nbmlops.monitoring.profile import Counted, Gauge
from nbmlops.records import Distribution

_BARS = 20
_NAMED_BARS = 14
_NEW_BARS = 6
_OUTER = 0.01
_NOTHING = 1e-300


def distribution(gauge: Gauge, place: int, window: Counted) -> Distribution | None:
    """Return both distributions of the values that are there, missing ones left out.

    The outermost bins of numbers also hold what lies beyond them. The shares of a side without
    values are all 0. ``None`` when neither side has a value.
    """
    training, measure = gauge.training[place], gauge.measures[place]
    if not training.count and not window.count:
        return None
    if measure.ruler is not None:
        return _number_bins(measure.ruler.borders, training, window)
    return _category_bins(measure.variable.names, training, window)


def _number_bins(borders: Floats, training: Counted, window: Counted) -> Distribution | None:
    if not len(borders):
        return None
    edges, taken = _edges(borders, training)
    r, w = (np.add.reduceat(counted.cells, [0, *taken]).tolist() for counted in (training, window))
    step = (edges[-1] - edges[0]) / max(len(edges) - 1, 1) or abs(edges[0]) or 1.0
    low = edges[0] - step if r[0] or w[0] else None
    high = edges[-1] + step if r[-1] or w[-1] else None
    # Empty bins at the ends tell nothing.
    if low is None:
        r, w = r[1:], w[1:]
    else:
        edges = [low, *edges]
    if high is None:
        r, w = r[:-1], w[:-1]
    else:
        edges = [*edges, high]
    if not r or len(edges) != len(r) + 1 or not all(map(math.isfinite, edges)):
        return None
    # The border just below 0 is no number that anybody wants to read.
    edges = [0.0 if abs(edge) < _NOTHING else edge for edge in edges]
    return Distribution(edges=tuple(edges), reference=_shares(r), window=_shares(w))


def _edges(borders: Floats, training: Counted) -> tuple[list[float], list[int]]:
    """Return bins' borders among the cells', about evenly spaced, and the cell after each."""
    if len(borders) <= _BARS:
        return _distinct(borders, range(len(borders)))
    shares = np.cumsum(training.cells)[:-1] / max(training.count, 1)
    near, far = (
        float(borders[np.searchsorted(shares, s).clip(0, len(borders) - 1)])
        for s in (_OUTER, 1 - _OUTER)
    )
    low, high = float(borders[0]), float(borders[-1])
    width = (far - near) or (high - low) or 1.0
    low, high = max(low, near - width / 2), min(high, far + width / 2)
    wanted = np.linspace(low, high, _BARS + 1)
    return _distinct(borders, np.searchsorted(borders, wanted).clip(0, len(borders) - 1).tolist())


def _distinct(borders: Floats, places: Sequence[int]) -> tuple[list[float], list[int]]:
    edges: list[float] = []
    taken: list[int] = []
    for place in sorted(set(places)):
        edge = float(borders[place])
        # A border just below a value is drawn at the value: no eye tells them apart.
        near = max(1e-9 * max(abs(edge), abs(edges[-1])), _NOTHING) if edges else 0.0
        if edges and edge - edges[-1] <= near:
            continue
        edges.append(edge)
        taken.append(place + 1)
    return edges, taken


def _category_bins(names: Sequence[str], training: Counted, window: Counted) -> Distribution:
    counts = dict(
        zip(names, zip(training.cells.tolist(), window.cells.tolist(), strict=False), strict=False)
    )
    most = set(sorted(counts, key=lambda name: -max(counts[name]))[:_NAMED_BARS])
    shown = [name for name in names if name in most]
    new = list(window.unseen)[:_NEW_BARS]
    r = [*(counts[name][0] for name in shown), *(0 for _ in new)]
    w = [*(counts[name][1] for name in shown), *(window.unseen[name] for name in new)]
    labels = [*shown, *new]
    rest_r, rest_w = training.count - sum(r), window.count - sum(w)
    if rest_r or rest_w:
        labels.append("… all others")
        r.append(rest_r)
        w.append(rest_w)
    return Distribution(labels=tuple(labels), reference=_shares(r), window=_shares(w))


def _shares(counts: Sequence[int]) -> tuple[float, ...]:
    total = sum(counts)
    return tuple(count / total if total else 0.0 for count in counts)
