"""A loss that is learned on the test set: strata that are leaves of small trees.

They look at features and prediction, so the estimate follows where the model is known to err, which
NannyML calls direct loss estimation. Trees are cross-fitted: one half of the test set says where
the leaves are, the other what the loss in them is (Athey & Imbens, "Recursive partitioning for
heterogeneous causal effects", PNAS 113, 2016).

What lies beyond the test set is taken for its outermost leaf, so a far shift to where a model errs
more is told too small: by about 3 % where the inputs move by half a standard deviation, 10 % where
they move by a whole one and the error grows exponentially with them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nbmlops.monitoring.performance.intervals import Floats
from nbmlops.monitoring.performance.items import flat, numbers, texts
from nbmlops.monitoring.performance.strata import CELL_ROWS, Cells, Strata, strata_of
from nbmlops.records import ModelSchema, Record

_LEAVES = 32
_LEAF_ROWS = 15
_BINS = 64
_CATEGORIES = 32
_LEARNED_ROWS = 20_000
_ROUNDING = 1e-20  # of variances, in squares of the mean


class Input(Record, frozen=True, kw_only=True):
    """What a tree looks at: a column, or the prediction; ``order`` places categories."""

    column: str | None = None
    order: dict[str, float] | None = None


class LossTree(Record, frozen=True, kw_only=True):
    """A binary tree as arrays: to the left what is missing or not above the threshold.

    ``inputs`` is -1 at a leaf, whose ``left`` is then its stratum.
    """

    looked_at: tuple[Input, ...]
    inputs: tuple[int, ...]
    thresholds: tuple[float, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    strata: Strata


def learned(
    schema: ModelSchema,
    features: Mapping[str, Any],
    predictions: Floats | Sequence[str | None],
    loss: Floats,
    outcomes: Mapping[str, Floats],
) -> tuple[LossTree, ...]:
    """Learn where the loss is greater, by two trees, each on one half of the rows.

    Empty where no row's features tell anything about its loss. At most 20,000 rows are looked at,
    drawn by a fixed seed, so that the same data make the same trees.
    """
    rows = np.flatnonzero(np.isfinite(loss))
    chosen = np.random.default_rng(0).permutation(rows)[:_LEARNED_ROWS]
    halves = np.sort(chosen[::2]), np.sort(chosen[1::2])
    if len(chosen) < 4 * CELL_ROWS:
        return ()
    columns: list[tuple[str | None, Any]] = [(None, predictions)]
    columns += [(c.name, features[c.name]) for c in schema.columns if c.name in features]
    kinds = {column.name: column.kind for column in schema.columns}
    read: list[tuple[str | None, Floats | list[str | None]]] = []
    for name, items in columns:
        numeric = kinds.get(name or "") in ("number", "integer", "boolean")
        if name is None:
            numeric = isinstance(predictions, np.ndarray)
        part = flat(items)
        if len(part) == len(loss):
            read.append((name, numbers(part) if numeric else texts(part)))
    most = float(np.quantile(loss[chosen], 0.99))
    aim = np.minimum(loss, most)
    trees: list[LossTree] = []
    for one, other in (halves, halves[::-1]):
        tree = _grown(read, one, aim)
        if tree is None:
            return ()
        places = _leaves(tree, [_placed(made, read) for made in tree.looked_at], len(loss))
        aside = np.full(len(places), -1, dtype=np.int64)
        aside[other] = places[other]
        leaves = sum(at < 0 for at in tree.inputs)
        trees.append(
            LossTree(
                looked_at=tree.looked_at,
                inputs=tree.inputs,
                thresholds=tree.thresholds,
                left=tree.left,
                right=tree.right,
                strata=strata_of(aside, leaves, outcomes),
            )
        )
    return tuple(trees)


def tree_cells(
    tree: LossTree, features: Mapping[str, Any], predictions: Floats | Sequence[str | None]
) -> Cells:
    """Return each row's stratum; -1 for all where a column that the tree looks at is not there."""
    rows = len(predictions)
    values: list[Floats] = []
    for one in tree.looked_at:
        items = predictions if one.column is None else features.get(one.column)
        part = flat(items) if items is not None else ()
        if len(part) != rows:
            return np.full(rows, -1, dtype=np.int64)
        values.append(numbers(part) if one.order is None else _in_order(texts(part), one.order))
    return _leaves(tree, values, rows)


def _placed(one: Input, read: Sequence[tuple[str | None, Floats | list[str | None]]]) -> Floats:
    values = next(values for name, values in read if name == one.column)
    if isinstance(values, np.ndarray):
        return values
    return _in_order(values, one.order or {})


def _in_order(values: Sequence[str | None], order: Mapping[str, float]) -> Floats:
    middle = float(np.median(list(order.values()))) if order else 0.0
    places = [math.nan if value is None else order.get(value, middle) for value in values]
    return np.array(places, dtype=np.float64)


def _leaves(tree: LossTree, values: Sequence[Floats], rows: int) -> Cells:
    inputs, left, right = (np.array(part) for part in (tree.inputs, tree.left, tree.right))
    at = np.zeros(rows, dtype=np.int64)
    for node, place in enumerate(tree.inputs):  # children come after their parents
        if place >= 0:
            here = at == node
            above = values[place][here] > tree.thresholds[node]  # what is missing is not
            at[here] = np.where(above, right[node], left[node])
    return np.where(inputs[at] < 0, left[at], -1)


def _grown(
    read: Sequence[tuple[str | None, Floats | list[str | None]]], rows: Cells, aim: Floats
) -> LossTree | None:
    """Grow a regression tree on cells of each input, the best split first.

    A split has to explain about as much as the best of as many splits on noise would (the risk
    inflation of Foster & George, Ann. Statist. 22, 1994, is twice that), so that a loss without
    structure has few leaves. Those that noise has made do no harm: other rows say what is in them.
    """
    y = aim[rows]
    if y.var() <= _ROUNDING * y.mean() ** 2:
        return None
    looked = [_input(name, values, rows, y) for name, values in read]
    columns = [_placed(one, read)[rows] for one in looked]
    cuts = [_cuts(column) for column in columns]
    codes = np.stack(
        [
            np.searchsorted(cut, np.where(np.isnan(column), -np.inf, column), side="left")
            for cut, column in zip(cuts, columns, strict=True)
        ],
        axis=1,
    )
    least = max(_LEAF_ROWS, len(rows) // (8 * _LEAVES))
    needed = math.log(max(sum(map(len, cuts)), 2)) * float(y.var())
    inputs, thresholds, left, right = [-1], [0.0], [0], [0]
    members = {0: np.arange(len(rows))}
    best = {0: _best(codes, y, members[0], least)}
    while len(best) < _LEAVES:
        node = max(best, key=lambda at: best[at][0])
        gain, column, place = best[node]
        if not gain > needed:
            break
        here = members.pop(node)
        del best[node]
        inputs[node], thresholds[node] = column, float(cuts[column][place])
        goes_left = codes[here, column] <= place
        left[node], right[node] = len(inputs), len(inputs) + 1
        for part in (here[goes_left], here[~goes_left]):
            members[len(inputs)] = part
            best[len(inputs)] = _best(codes, y, part, least)
            inputs.append(-1)
            thresholds.append(0.0)
            left.append(0)
            right.append(0)
    if len(inputs) == 1:
        return None
    for stratum, node in enumerate(sorted(members)):
        left[node] = stratum
    used = sorted({place for place in inputs if place >= 0})
    return LossTree(
        looked_at=tuple(looked[place] for place in used),
        inputs=tuple(used.index(place) if place >= 0 else -1 for place in inputs),
        thresholds=tuple(thresholds),
        left=tuple(left),
        right=tuple(right),
        strata=Strata(rows=(), means={}, variances={}),
    )


def _best(codes: Cells, y: Floats, here: Cells, least: int) -> tuple[float, int, int]:
    """Return how much the best split explains, of which input, and after which cell."""
    if len(here) < 2 * least:
        return 0.0, 0, 0
    width = codes.shape[1]
    flat = (codes[here] + np.arange(width) * _BINS).ravel()
    size = width * _BINS
    counts = np.bincount(flat, minlength=size).reshape(width, _BINS).cumsum(axis=1)
    weights = np.repeat(y[here] - y[here].mean(), width)
    sums = np.bincount(flat, weights=weights, minlength=size).reshape(width, _BINS).cumsum(axis=1)
    rest = len(here) - counts
    allowed = (counts >= least) & (rest >= least)
    gains = np.where(allowed, sums**2 * len(here) / np.maximum(counts * rest, 1), 0.0)
    place = int(gains.argmax())
    return float(gains.flat[place]), place // _BINS, place % _BINS


def _cuts(values: Floats) -> Floats:
    ordered = np.sort(values[np.isfinite(values)])
    if not len(ordered):
        return np.array([0.0])
    ranks = np.arange(1, _BINS) * len(ordered) // _BINS
    return np.unique(ordered[ranks])


def _input(name: str | None, values: Floats | list[str | None], rows: Cells, y: Floats) -> Input:
    if isinstance(values, np.ndarray):
        return Input(column=name)
    seen: dict[str, list[float]] = {}
    for row, loss in zip(rows.tolist(), y.tolist(), strict=True):
        value = values[row]
        if value is not None:
            seen.setdefault(value, []).append(loss)
    most = sorted(seen, key=lambda value: (-len(seen[value]), value))[:_CATEGORIES]
    return Input(column=name, order={value: sum(seen[value]) / len(seen[value]) for value in most})
