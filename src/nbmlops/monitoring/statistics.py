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

CONFIDENCE = 2.33
"""So many standard errors to either side make an interval of 98 %."""

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
    if reference.sum() <= 0 or window.sum() <= 0:
        return None
    return float(jensen_shannon_distances(reference, window[None, :])[0])


def jensen_shannon_distances(reference: Counts, windows: Counts) -> Counts:
    """Return the distance of each row of ``windows``, of shape (windows, cells)."""
    n, m = float(reference.sum()), windows.sum(axis=1)
    p, q = reference / n, windows / m[:, None]
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * np.log2(p / middle), 0.0)
        terms += np.where(q > 0, q * np.log2(q / middle), 0.0)
    divergence = terms.sum(axis=1) / 2
    cells = (middle > 0).sum(axis=1)
    bias = (cells - 1) * (1 / n + 1 / m) / (8 * np.log(2))
    # Two samples that share no cell are as far apart as can be: there is no noise to take off.
    bias = np.where(divergence > 1 - 1e-12, 0.0, bias)
    return np.sqrt(np.clip(divergence - bias, 0.0, 1.0))


def distance_error(n: float, m: float) -> float:
    """Return the standard error of the Jensen-Shannon distance of ``n`` rows and ``m``, at most.

    Near a common distribution the divergence is a quadratic form, chi-square / (8 ln 2), so the
    root has about the same error at any small distance: ``sqrt((1/n + 1/m) / (8 ln 2))``.

    >>> round(distance_error(1e9, 500), 4)
    0.019
    """
    return math.sqrt((1 / max(n, 1.0) + 1 / max(m, 1.0)) / (8 * math.log(2)))


def distance_error_at(reference: Counts, window: Counts, distance: float) -> float:
    """Return the standard error of a Jensen-Shannon distance where it is, by the delta method.

    The divergence changes with the share of a cell by half the logarithm of that share over the
    mean of both; so a few values that the other sample has not at all tell more surely than a
    slight change of all. No more than :func:`distance_error`.
    """
    n, m = float(reference.sum()), float(window.sum())
    most = distance_error(n, m)
    if distance <= 0:
        return most
    p, q = reference / n, window / m
    middle = (p + q) / 2
    variance = 0.0
    for share, rows in ((p, n), (q, m)):
        there = share > 0
        slope = np.log2(share[there] / middle[there]) / 2
        mean = float((share[there] * slope).sum())
        variance += float((share[there] * np.square(slope - mean)).sum()) / rows
    return min(most, math.sqrt(variance) / (2 * distance))


def kolmogorov_smirnov(reference: Counts, window: Counts) -> float | None:
    """Return the two-sample statistic of samples counted on common, ordered cells.

    The greatest difference between the distribution functions at the cells' borders: below the
    exact statistic by no more than the greatest share of a cell. ``None`` when a sample is empty.

    >>> kolmogorov_smirnov(np.array([1.0, 1, 2]), np.array([0.0, 0, 4]))
    0.5
    """
    n, m = float(reference.sum()), float(window.sum())
    if n <= 0 or m <= 0:
        return None
    return float(np.abs(np.cumsum(reference) / n - np.cumsum(window) / m).max())


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


def kolmogorov_p_value(distance: float, n: float, m: float) -> float:
    """Return the two-sided p-value of the two-sample Kolmogorov-Smirnov statistic.

    The asymptotic one, with Stephens' correction for small samples ("Use of the Kolmogorov-Smirnov,
    Cramer-von Mises and related statistics without extensive tables", J. R. Statist. Soc. B 32,
    1970). Ties, and a statistic that was computed on cells, make it too large, never too small.
    """
    from scipy import special

    root = math.sqrt(n * m / (n + m))
    return float(special.kolmogorov((root + 0.12 + 0.11 / root) * distance))


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


def difference_p_value(
    among_n: float, n: float, among_m: float, m: float, *, new: float = 0.0
) -> float:
    """Return the two-sided p-value of Fisher's exact test, twice its lesser tail.

    By chance ``new`` more marked rows of the reference may have been.
    """
    more = excess_p_value(min(among_n + new, n), n, among_m, m)
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
