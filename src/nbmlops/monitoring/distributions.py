"""Two profiles of a column as shares on a few common bins, for a picture."""

from __future__ import annotations

from nbmlops.monitoring.profile import CategoryCounts, ColumnProfile, NumberSummary, regrid
from nbmlops.records import Distribution

BARS_LIMIT = 30
"""The most bins of a picture."""

_NAMED_BARS = 14
_NEW_BARS = 6


def distribution(reference: ColumnProfile, window: ColumnProfile) -> Distribution | None:
    """Return both distributions of the values that are there, missing ones left out.

    The outermost bins of numbers also hold what lies beyond them. The shares of a side without
    values are all 0. ``None`` when neither side has a value.
    """
    if not reference.count and not window.count:
        return None
    if reference.numbers is not None and window.numbers is not None:
        return _number_bins(reference.numbers, window.numbers)
    if reference.categories is None or window.categories is None:
        return None
    if not reference.categories.names and reference.lengths and window.lengths:
        return _number_bins(reference.lengths, window.lengths)
    return _category_bins(reference.categories, window.categories)


def _number_bins(reference: NumberSummary, window: NumberSummary) -> Distribution | None:
    grid = reference.ticks or reference.cuts
    if not grid:
        return None
    first, last = grid[0], grid[-1]
    step = (last - first) / max(len(grid) - 1, 1) or 1.0
    edges = [first - step, *grid, last + step]
    r, w = list(regrid(reference, grid)), list(regrid(window, grid))
    # Bins are closed on the right: a least value on an edge stands alone in the bin below it.
    lowest = min((low for low in (reference.low, window.low) if low is not None), default=None)
    if lowest in grid[:-1]:
        place = grid.index(lowest)
        r[place + 1], r[place] = r[place + 1] + r[place], 0
        w[place + 1], w[place] = w[place + 1] + w[place], 0
    # Empty bins at the ends tell nothing.
    while len(r) > 1 and not r[0] and not w[0]:
        r, w, edges = r[1:], w[1:], edges[1:]
    while len(r) > 1 and not r[-1] and not w[-1]:
        r, w, edges = r[:-1], w[:-1], edges[:-1]
    return Distribution(edges=tuple(edges), reference=_shares(r), window=_shares(w))


def _category_bins(reference: CategoryCounts, window: CategoryCounts) -> Distribution:
    counts = {
        name: (r, w)
        for name, r, w in zip(reference.names, reference.counts, window.counts, strict=True)
    }
    most = sorted(counts, key=lambda name: -max(counts[name]))[:_NAMED_BARS]
    shown = [name for name in reference.names if name in set(most)]
    new = list(window.unseen)[:_NEW_BARS]
    labels = [*shown, *new]
    r = [*(counts[name][0] for name in shown), *(0 for _ in new)]
    w = [*(counts[name][1] for name in shown), *(window.unseen[name] for name in new)]
    rest_r = reference.other + sum(reference.counts) - sum(r)
    rest_w = window.other + sum(window.counts) + sum(window.unseen.values()) - sum(w)
    if rest_r or rest_w:
        labels.append("… all others")
        r.append(rest_r)
        w.append(rest_w)
    return Distribution(labels=tuple(labels), reference=_shares(r), window=_shares(w))


def _shares(counts: list[int]) -> tuple[float, ...]:
    total = sum(counts)
    return tuple(count / total if total else 0.0 for count in counts)
