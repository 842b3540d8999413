"""Differences between two samples that were counted on the same cells.

Every function takes two vectors of counts, reference and window, of the same length. Counts may
be fractions: repeated rows weigh less than rows that differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.float64]

LEAST_EXPECTED = 5.0
"""Cells are merged until both samples expect as many in each: Cochran, "Some methods for
strengthening the common chi-square tests", Biometrics 10 (1954)."""


def jensen_shannon_distance(reference: Counts, window: Counts) -> float | None:
    """Return the Jensen-Shannon distance, base 2, between 0 (the same) and 1 (disjoint).

    The divergence of two samples of one population is not 0 but about
    ``(cells - 1) (1/n + 1/m) / (8 ln 2)``; that much is taken off before the root, so that the
    value does not depend on the numbers of rows. ``None`` when a sample is empty. A shift of a
    normal variable by ``d`` standard deviations gives about ``0.42 d``; a share ``q`` of values
    that the other sample has not at all gives ``sqrt(q / 2)`` at least.

    Sources: Lin, "Divergence measures based on the Shannon entropy", IEEE Trans. Inf. Theory 37
    (1991); Endres & Schindelin, "A new metric for probability distributions", ibid. 49 (2003);
    the bias from Grosse et al., "Analysis of symbolic sequences using the Jensen-Shannon
    divergence", Phys. Rev. E 65, 041905 (2002).

    >>> jensen_shannon_distance(np.array([50.0, 0]), np.array([0, 50.0]))
    1.0
    >>> jensen_shannon_distance(np.array([50.0, 50]), np.array([500.0, 500]))
    0.0
    """
    n, m = float(reference.sum()), float(window.sum())
    if n <= 0 or m <= 0:
        return None
    p, q = reference / n, window / m
    middle = (p + q) / 2
    divergence = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    cells = int((middle > 0).sum())
    bias = (cells - 1) * (1 / n + 1 / m) / (8 * np.log(2))
    # Two samples that share no cell are as far apart as can be: there is no noise to take off.
    if divergence > 1 - 1e-12:
        bias = 0.0
    return float(np.sqrt(np.clip(divergence - bias, 0.0, 1.0)))


def _relative_entropy(p: Counts, q: Counts) -> float:
    there = p > 0
    return float((p[there] * np.log2(p[there] / q[there])).sum())


def homogeneity_p_value(reference: Counts, window: Counts) -> float | None:
    """Return the p-value of a two-sample chi-square test of homogeneity.

    The greater of Pearson's and of the likelihood ratio's. In the far tails, where many columns
    are tested at once, Pearson's finds too much when the reference is the smaller sample (9 times
    too often at 3e-4 for 100 rows against 1,000) and the likelihood ratio when the window is
    (twice for 60 rows); each is close to its level where the other is not.

    Neighbouring cells are merged first (:data:`LEAST_EXPECTED`); which ones depends on both
    samples together alone, so the test keeps its level. ``None`` when fewer than two cells are
    left, that is with too few rows or one value throughout.
    """
    from scipy import special

    n, m = float(reference.sum()), float(window.sum())
    if n <= 0 or m <= 0:
        return None
    groups = _merged_cells(reference + window, least=LEAST_EXPECTED * (n + m) / min(n, m))
    if len(groups) < 2:
        return None
    r, w = np.add.reduceat(reference, groups), np.add.reduceat(window, groups)
    pooled = (r + w) / (n + m)
    pearson = float((((r - n * pooled) ** 2 / n + (w - m * pooled) ** 2 / m) / pooled).sum())
    ratio = 2 * float(special.rel_entr(r, n * pooled).sum() + special.rel_entr(w, m * pooled).sum())
    return float(special.chdtrc(len(groups) - 1, max(0.0, min(pearson, ratio))))


def _merged_cells(pooled: Counts, least: float) -> list[int]:
    """Return where groups of neighbouring cells start, each with at least ``least`` in all."""
    starts = [0]
    total = 0.0
    for position, count in enumerate(pooled):
        if total >= least:
            starts.append(position)
            total = 0.0
        total += float(count)
    if total < least and len(starts) > 1:
        starts.pop()  # the rest is too little for a group of its own
    return starts


def excess_p_value(among_n: float, n: float, among_m: float, m: float) -> float:
    """Return how probable it is that the window has as many marked rows as this, or more.

    Fisher's exact test, one-sided. It is exact as well for values above the greatest of the
    reference: of the ``k`` greatest rows of both samples, all to be the window's.

    Parameters
    ----------
    among_n, n
        Marked rows and all rows of the reference.
    among_m, m
        The same of the window; rounded, since repeated rows weigh fractions.
    """
    from scipy import special

    drawn, marked_drawn = round(m), min(round(among_m), round(m))
    marked, rows = round(among_n) + marked_drawn, round(n) + drawn
    if not marked_drawn:
        return 1.0
    least = max(marked_drawn, marked - (rows - drawn))  # fewer than that are impossible
    k = np.arange(least, min(marked, drawn) + 1, dtype=np.float64)

    def log_choose(total: float | Counts, part: float | Counts) -> Counts:
        return np.asarray(
            special.gammaln(np.asarray(total) + 1.0)
            - special.gammaln(np.asarray(part) + 1.0)
            - special.gammaln(np.asarray(total) - np.asarray(part) + 1.0)
        )

    logs = log_choose(marked, k) + log_choose(rows - marked, drawn - k) - log_choose(rows, drawn)
    return float(min(1.0, np.exp(logs).sum()))


def difference_p_value(among_n: float, n: float, among_m: float, m: float) -> float:
    """Return the two-sided p-value of Fisher's exact test, twice its lesser tail."""
    more = excess_p_value(among_n, n, among_m, m)
    less = excess_p_value(n - among_n, n, m - among_m, m)
    return min(1.0, 2 * more, 2 * less)


class Moments(NamedTuple):
    """Mean and variance of some rows."""

    mean: float
    variance: float
    rows: float


def mean_difference_p_value(reference: Moments, window: Moments) -> float:
    """Return the two-sided p-value of Welch's test of equal means.

    Source: Welch, "The generalization of Student's problem when several different population
    variances are involved", Biometrika 34 (1947).
    """
    from scipy import special

    a, b = reference.variance / reference.rows, window.variance / window.rows
    apart = abs(reference.mean - window.mean)
    if a + b <= 0:
        return float(apart == 0)
    # Shares of the variance, not its square, which may be beyond the range of floats.
    u, v = a / (a + b), b / (a + b)
    freedom = 1 / (u * u / max(reference.rows - 1, 1.0) + v * v / max(window.rows - 1, 1.0))
    return float(2 * special.stdtr(freedom, -min(apart / math.sqrt(a + b), 1e9)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for being looked at together.

    Comparing each with ``alpha`` keeps the chance of any false alarm at ``alpha``, however the
    columns hang together: Holm, "A simple sequentially rejective multiple test procedure",
    Scand. J. Statist. 6 (1979).

    >>> holm([0.01, 0.04, 0.5])
    [0.03, 0.08, 0.5]
    """
    adjusted = [1.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = running
    return adjusted


def independent_share(
    reference_copies: Sequence[int], window_copies: Sequence[int], window_rows: int, *, least: int
) -> float:
    """Return which share of a window's rows counts as independent observations.

    Calls that repeat a few rows look like many observations and are not: Kish's effective sample
    size, ``(sum c)^2 / sum c^2`` for rows that occur ``c`` times each, says how many they are
    worth (Kish, "Survey Sampling", 1965, 8.2). Only where the reference's rows are nearly all
    different; elsewhere repetition is in the nature of the data. Never fewer than ``least``
    rows: a window that repeats fewer is unlike training in itself.
    """
    if window_rows <= least or not reference_copies or not window_copies:
        return 1.0
    if _mean_copies(reference_copies) > 1.1:
        return 1.0
    rows = max(window_rows / _mean_copies(window_copies), float(least))
    return min(1.0, rows / window_rows)


def _mean_copies(copies: Sequence[int]) -> float:
    return sum(count * count for count in copies) / sum(copies)
