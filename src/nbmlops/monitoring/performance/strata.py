"""What a metric would be, of rows whose truth is not known yet.

The test set's rows are put into strata by what is known without the truth: the probability of the
label that was predicted, or the leaf of a small tree on features and prediction. Of each stratum
the mean loss is kept. A window's estimate is the mean over its own shares of the strata, so it
follows a shift of the inputs, and cannot see that the same inputs have other truths now.

With probabilities this is histogram calibration (Zadrozny & Elkan, "Obtaining calibrated
probability estimates from decision trees and naive Bayesian classifiers", ICML 2001;
Niculescu-Mizil & Caruana, "Predicting good probabilities with supervised learning", ICML 2005), of
each predicted label on its own (Gupta & Ramdas, "Top-label calibration", ICLR 2022). NannyML calls
the estimate confidence-based. The strata are made without the truth, so their means are those of
rows that nothing was fitted to. The window's mean is what survey sampling calls post-stratified
(Holt & Smith, "Post stratification", J. R. Statist. Soc. A 142, 1979).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nbmlops.monitoring.performance.intervals import Floats, area, placements
from nbmlops.records import Record

Cells = NDArray[np.int64]

CELL_ROWS = 25
"""How many rows of the test set a stratum has at the least, where there are as many."""

AREA_STRATA = 8
"""How many strata an area under the ROC curve is estimated from at the least."""

_CELLS = 20
_LABELS = 50


class Strata(Record, frozen=True, kw_only=True):
    """Rows of the test set in each stratum, with mean and variance of what is expected of them."""

    rows: tuple[int, ...]
    means: dict[str, tuple[float, ...]]
    variances: dict[str, tuple[float, ...]]


class Calibration(Record, frozen=True, kw_only=True):
    """Strata of the predicted label's probability, closed on the right, for each label.

    ``edges`` has an item more than ``labels`` where rare labels share strata.
    """

    labels: tuple[str, ...]
    edges: tuple[tuple[float, ...], ...]
    strata: Strata


class Expected(NamedTuple):
    """What a metric is expected to be, and by how much it differs from the test set's.

    ``error`` is the standard error of what truths of these very rows would show,
    ``difference_error`` that of the difference between what both sets of rows came from.
    """

    value: float
    error: float
    difference: float
    difference_error: float


# --- strata of probabilities --------------------------------------------------------------------


def calibration(
    labels: Sequence[str | None], confidences: Floats, outcomes: Mapping[str, Floats]
) -> Calibration | None:
    """Make strata of the predicted label's probability; ``None`` where they would say nothing.

    ``outcomes`` has for each row what is expected of its like, such as whether it was right.
    """
    codes, names = _coded(labels)
    known = np.isfinite(confidences) & (codes >= 0)
    counts = np.bincount(codes[known], minlength=len(names))
    ordered = np.argsort(-counts, kind="stable")[:_LABELS]
    frequent = [int(code) for code in ordered if counts[code] >= CELL_ROWS]
    groups = [known & (codes == code) for code in frequent]
    rest = known & ~np.isin(codes, frequent)
    if rest.any():
        groups.append(rest)
    edges = tuple(_edges(confidences[group]) for group in groups)
    if sum(len(inner) + 1 for inner in edges) < 2:
        return None
    made = Calibration(
        labels=tuple(names[code] for code in frequent),
        edges=edges,
        strata=Strata(rows=(), means={}, variances={}),
    )
    places = calibration_cells(made, labels, confidences)
    count = sum(len(inner) + 1 for inner in edges)
    return Calibration(labels=made.labels, edges=edges, strata=strata_of(places, count, outcomes))


def calibration_cells(
    made: Calibration, labels: Sequence[str | None], confidences: Floats
) -> Cells:
    """Return each row's stratum, -1 where it has no label or no probability."""
    codes, names = _coded(labels)
    places = np.full(len(codes), -1, dtype=np.int64)
    known = np.isfinite(confidences) & (codes >= 0)
    position = {name: code for code, name in enumerate(names)}
    own = [position.get(label, -2) for label in made.labels]
    groups = [known & (codes == code) for code in own]
    if len(made.edges) > len(made.labels):
        groups.append(known & ~np.isin(codes, own))
    start = 0
    for group, edges in zip(groups, made.edges, strict=True):
        places[group] = start + np.searchsorted(edges, confidences[group], side="left")
        start += len(edges) + 1
    return places


def _coded(labels: Sequence[str | None]) -> tuple[Cells, list[str]]:
    known: dict[str | None, int] = {None: -1}
    for label in labels:
        if label not in known:
            known[label] = len(known) - 1
    names = [name for name in known if name is not None]
    return np.array([known[label] for label in labels], dtype=np.int64), names


def _edges(values: Floats) -> tuple[float, ...]:
    cells = min(max(len(values) // CELL_ROWS, 1), _CELLS)
    ordered = np.sort(values)
    inner = np.unique(ordered[np.arange(1, cells) * len(values) // cells - 1])
    return tuple(inner[inner < ordered[-1]].tolist())


def strata_of(places: Cells, count: int, outcomes: Mapping[str, Floats]) -> Strata:
    """Return means and variances, each drawn towards those of all rows as by one more row."""
    inside = places >= 0
    rows = np.bincount(places[inside], minlength=count)
    means: dict[str, tuple[float, ...]] = {}
    variances: dict[str, tuple[float, ...]] = {}
    for name, values in outcomes.items():
        found = np.nan_to_num(values[inside], nan=0.0, posinf=0.0, neginf=0.0)
        overall = float(found.mean()) if len(found) else 0.0
        spread = float(found.var()) if len(found) else 0.0
        sums = np.bincount(places[inside], weights=found, minlength=count)
        mean = (sums + overall) / (rows + 1)
        apart = np.bincount(
            places[inside], weights=(found - mean[places[inside]]) ** 2, minlength=count
        )
        means[name] = tuple(mean.tolist())
        variances[name] = tuple(((apart + spread) / (rows + 1)).tolist())
    return Strata(rows=tuple(rows.tolist()), means=means, variances=variances)


# --- what is expected of a window ---------------------------------------------------------------


def expected(
    strata: Strata, name: str, window: Floats, reference: Floats, share: float = 1.0
) -> Expected:
    """Return the mean of ``name`` that rows with these counts in the strata would have.

    ``share`` is which part of the window's rows counts as independent observations.
    """
    means = np.array(strata.means[name])
    here, there = window / window.sum(), reference / reference.sum()
    value, before = float(here @ means), float(there @ means)
    errors = _errors(
        strata,
        name,
        (here, means - value, np.ones_like(means), share * float(window.sum())),
        (there, means - before, np.ones_like(means), float(reference.sum())),
    )
    return Expected(value, errors[0], value - before, errors[1])


def expected_area(
    strata: Strata, window: Floats, reference: Floats, share: float = 1.0
) -> Expected | None:
    """Return the area under the ROC curve in the same way; ``None`` where it has none."""
    if len(strata.rows) < AREA_STRATA:
        return None
    order = np.argsort(np.array(strata.means["score"]), kind="stable")
    chances = np.array(strata.means["positive"])
    sides: list[tuple[Floats, Floats, Floats, float]] = []
    values: list[float] = []
    for counts, worth in ((window, share), (reference, 1.0)):
        shares = counts / counts.sum()
        positives, negatives = shares * chances, shares * (1 - chances)
        p, n = float(positives.sum()), float(negatives.sum())
        if p <= 0 or n <= 0:
            return None
        found = area(negatives[order], positives[order])
        below, above = np.empty_like(shares), np.empty_like(shares)
        below[order], above[order] = placements(negatives[order], positives[order])
        pull, push = (below - found) / p, (above - found) / n
        sides.append(
            (shares, chances * pull + (1 - chances) * push, pull - push, worth * counts.sum())
        )
        values.append(found)
    errors = _errors(strata, "positive", *sides)
    return Expected(values[0], errors[0], values[0] - values[1], errors[1])


_Side = tuple[Floats, Floats, Floats, float]


def _errors(strata: Strata, name: str, window: _Side, reference: _Side) -> tuple[float, float]:
    """Return both standard errors, by the delta method.

    Of either side: shares of the strata; what one more row of a stratum, and a greater mean of it,
    would change; and how many rows there are.
    """
    spread = np.array(strata.variances[name])
    sure = spread / np.maximum(np.array(strata.rows, dtype=np.float64), 1.0)
    (here, moved, pull, rows), (there, moved_then, pull_then, rows_then) = window, reference
    own = ((here * pull) ** 2 * sure).sum() + (here * pull**2 * spread).sum() / rows
    apart = ((here * pull - there * pull_then) ** 2 * sure).sum()
    apart += (here * moved**2).sum() / rows + (there * moved_then**2).sum() / rows_then
    return math.sqrt(max(float(own), 0.0)), math.sqrt(max(float(apart), 0.0))
