"""Cells on which the numbers of a column are counted, in training and ever after.

About 512 cells of equal mass in training, so that a distribution function is known to 1/512 at
every place, and so is the Kolmogorov-Smirnov statistic of two samples. Most borders lie on a
*lattice* of 4,096 evenly spaced places between outer quantiles, where a value's cell is found by
one multiplication and one look into a table; where many training values lie within one step of the
lattice (ties, heavy tails, few distinct values) there are exact borders, and values there are
searched for. So correctness does not depend on the data, only speed does.

The first cell lies below the least training value, the last one above the greatest.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from nbmlops.monitoring.arrays import pack, unpack
from nbmlops.records import Record

CELLS = 512
"""Into how many parts of equal mass training values are divided, if there are enough."""

VALUES_A_CELL = 4
"""So many training values a cell holds at least, so that no single value can be read off."""

FINITE_LIMIT = 1e300
"""Numbers beyond this count as not finite, so that no width or sum overflows."""

_LATTICE = 4096
_DISTINCT_AS_CELLS = 128
_OUTER = 0.005
_CHUNK = 1 << 16
_SEARCHED = -1  # no cell
_COMPARED = 16  # so many steps are sooner compared than looked up
_DRAWN = 25_000

Floats = NDArray[np.float64]
Places = NDArray[np.intp]
Steps = NDArray[np.int16]


class Grid(Record, frozen=True, kw_only=True):
    """Where the borders are: ``marks`` count lattice steps from ``low``, ``exact`` are values.

    ``steps`` is how many steps the lattice has; 0 when there is none. A value ``x`` is past mark
    ``k`` when ``floor(x * per_step - low * per_step) >= k``, and past an exact border ``e`` when it
    is greater.
    """

    low: float = 0.0
    per_step: float = 0.0
    steps: int = 0
    marks: bytes = msgspec.field(default_factory=lambda: pack(np.empty(0, dtype=np.int64)))
    exact: bytes = msgspec.field(default_factory=lambda: pack(np.empty(0)))


def grid(values: Floats, *, whole: bool = False) -> Grid:
    """Return the cells for training values, finite ones; ``whole`` if all are whole numbers.

    Of more than 25,000 values as many are drawn, always the same ones.
    """
    if not len(values):
        return Grid()
    first, last = float(values.min()), float(values.max())
    if len(values) > _DRAWN:
        values = values[_drawn(len(values))]
    ordered = np.sort(np.concatenate([values, [first, last]]))
    changes = np.flatnonzero(ordered[1:] > ordered[:-1])
    if len(changes) < _DISTINCT_AS_CELLS:
        distinct = ordered[np.concatenate([[0], changes + 1])]
        # Between two training values lies a cell for what training never had.
        return Grid(exact=pack(np.unique([np.nextafter(distinct, -np.inf), distinct])))
    cells = max(2, min(CELLS, len(ordered) // VALUES_A_CELL))
    wanted = _distinct(ordered[(np.arange(1, cells) * len(ordered)) // cells])
    near, far = (float(ordered[int(share * (len(ordered) - 1))]) for share in (_OUTER, 1 - _OUTER))
    steps = _LATTICE
    if whole and last - first < _LATTICE:  # each number in a step of its own
        near, far, steps = first - 0.5, last + 0.5, int(last - first) + 1
    per_step = steps / (far - near) if far > near else 0.0
    if not math.isfinite(per_step) or per_step <= 0 or near + 1 / per_step <= near:
        steps, per_step = 0, 0.0
    outer = [np.nextafter(first, -np.inf), last]
    if not steps:
        return Grid(exact=pack(np.unique([*outer, *_tied(ordered, wanted, cells)])))
    lattice = Grid(low=near, per_step=per_step, steps=steps)
    at = _on_lattice(lattice, ordered).astype(np.intp)
    held = np.bincount(at, minlength=steps + 2)
    crowded = held > max(1.0, len(ordered) / cells / 2)
    if whole and steps < _LATTICE:
        crowded[1:-1] = False
    crowded[[0, -1]] = True
    places = _on_lattice(lattice, wanted).astype(np.intp)
    inside = crowded[places]
    marks = _distinct(places[~inside])  # the border after the step in which the quantile lies
    exact = np.unique([*outer, *_tied(ordered, wanted[inside], cells)])
    return Grid(
        low=near,
        per_step=per_step,
        steps=steps,
        marks=pack(np.diff(marks, prepend=0), deflate=True),
        exact=pack(exact),
    )


def _distinct(ordered: NDArray[Any]) -> NDArray[Any]:
    return ordered[np.append(True, ordered[1:] > ordered[:-1])[: len(ordered)]]


@lru_cache(maxsize=1)  # columns have as many rows each
def _drawn(count: int) -> Places:
    return np.sort(np.random.default_rng(0).integers(0, count, _DRAWN))


def _tied(ordered: Floats, wanted: Floats, cells: int) -> Floats:
    """Return exact borders, on both sides of a value that alone fills a cell."""
    count = np.searchsorted(ordered, wanted, "right") - np.searchsorted(ordered, wanted, "left")
    tied = wanted[count > len(ordered) / cells]
    return np.unique(np.concatenate([wanted, np.nextafter(tied, -np.inf)]))


def _on_lattice(
    lattice: Grid,
    values: Floats,
    *,
    beyond: int = 0,
    low: float = -math.inf,
    high: float = math.inf,
) -> Floats:
    """Return 0 below the lattice, 1 in its first step, and so on, ``steps + 1`` above.

    That is what comes before the point. Steps ``beyond`` the ends are told apart as well. All
    values lie between ``low`` and ``high``.
    """
    # The same arithmetic as ever, since profiles were counted so.
    per_step, offset = lattice.per_step, 1 - lattice.low * lattice.per_step
    with np.errstate(over="ignore", invalid="ignore"):
        at = values * per_step
        at += offset
    least, greatest = -beyond, lattice.steps + 1 + beyond
    if not least <= low * per_step + offset <= high * per_step + offset <= greatest:
        np.clip(at, least, greatest, out=at)
    return at


class Ruler:
    """A grid made ready for counting.

    Its lattice is continued at both ends by as many steps as it has. So nearly all values lie in
    steps without an exact border, and how many each step holds tells which are to be searched.

    Attributes
    ----------
    cells
        How many there are.
    borders
        The value at which each but the last cell ends.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        exact = unpack(grid.exact).astype(np.float64)
        marks = np.cumsum(unpack(grid.marks)).astype(np.intp)
        self._exact = exact
        if not grid.steps:
            self.borders = exact
            self.cells = len(exact) + 1
            return
        # Lattice step of each border: marks end a step, exact ones lie within it.
        self._marks = marks + grid.steps
        searched = self._steps(exact)
        self._searched = _distinct(searched)
        size = 3 * grid.steps + 2
        past = np.sort(np.concatenate([self._marks, searched])) + 1
        starts = _distinct(np.concatenate([[0], past]))
        self._starts = starts[starts < size]
        self._cells = np.searchsorted(past, self._starts, side="right")
        # Short numbers, so that the tables of many columns stay in the processor's cache.
        cell = np.repeat(self._cells.astype(np.int16), np.diff(self._starts, append=size))
        cell[self._searched] = _SEARCHED
        self._cell = cell
        ends = grid.low + marks / grid.per_step
        places = np.argsort(np.concatenate([self._marks + 0.5, searched]), kind="stable")
        self.borders = np.concatenate([ends, exact])[places]
        self.cells = len(self.borders) + 1

    def count(self, values: Floats, low: float, high: float) -> Places:
        """Return how many finite values there are in each cell; they lie in ``low`` to ``high``."""
        if not self._grid.steps:
            return np.bincount(self.places(values), minlength=self.cells)
        steps = np.zeros(len(self._cell), dtype=np.intp)
        found = np.zeros(self.cells, dtype=np.intp)
        for start in range(0, len(values), _CHUNK):  # what fits into a processor's cache
            part = values[start : start + _CHUNK]
            at = self._steps(part, low, high)
            held = np.bincount(at, minlength=len(steps))
            steps += held
            searched = self._searched[held[self._searched] > 0]
            if len(searched):
                sought = self._sought(part, at, self._within(at, searched.tolist()))
                found += np.bincount(sought, minlength=self.cells)
        steps[self._searched] = 0
        found[self._cells] += np.add.reduceat(steps, self._starts)
        return found

    def places(self, values: Floats, low: float = -math.inf, high: float = math.inf) -> Places:
        """Return the cell of each finite value; they lie in ``low`` to ``high``."""
        if not self._grid.steps:
            return np.searchsorted(self._exact, values, side="left")
        found = np.empty(len(values), dtype=np.intp)
        for start in range(0, len(values), _CHUNK):
            part = values[start : start + _CHUNK]
            at = self._steps(part, low, high)
            cells = self._cell[at.astype(np.intp)]
            searched = np.flatnonzero(cells == _SEARCHED)
            cells[searched] = self._sought(part, at, searched)
            found[start : start + len(part)] = cells
        return found

    def _steps(self, values: Floats, low: float = -math.inf, high: float = math.inf) -> Steps:
        """Return the step of the continued lattice in which each value lies."""
        beyond = self._grid.steps
        at = _on_lattice(self._grid, values, beyond=beyond, low=low, high=high).astype(np.int16)
        at += beyond
        return at

    def _within(self, at: Steps, searched: list[int]) -> Places:
        """Return which values lie in one of some steps that are searched."""
        if len(searched) > _COMPARED:
            return np.flatnonzero(self._cell[at.astype(np.intp)] == _SEARCHED)
        found = at == searched[0]
        for step in searched[1:]:
            found |= at == step
        return np.flatnonzero(found)

    def _sought(self, values: Floats, at: Steps, searched: Places) -> Places:
        """Return the cells of the values that lie in a step with exact borders."""
        marks = np.searchsorted(self._marks, at[searched], side="left")
        return marks + np.searchsorted(self._exact, values[searched], side="left")
