"""The few cells on which a window is judged, each with a share of training that can be told.

So few that 500 rows tell a difference that matters from none, and the same for any number of rows:
what is compared must not change with the window.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nbmlops.monitoring.columns import Codes, Floats

GROUPS = 6
"""Into how many groups of about equal mass the training numbers are put."""

NAME_SHARE = 0.05
"""A category of that share of training stands alone; rarer ones share a cell until it has it."""

FREQUENT = 10
"""How often training must have had a category among too many to name, for it to count as known."""

NEW_SHARE = 0.005
"""How many new values are to be expected at most, for them to have a cell of their own."""

MISSING, LOST = -2, -1
"""The places of the two last cells: values that are missing, and those that are none."""


class Coarse(NamedTuple):
    """The coarse cell of each cell, and training's counts in them.

    ``of_cell`` has two items more than there are cells: missing, and lost. Of numbers the first
    coarse cell lies below all training, the last but two above; of names that is the cell of what
    was not named. ``scores`` are the places of the cells in their order, as training's mean ranks
    from 0 to 1, by which a shift is told. Rare names share cells in the order of the alphabet,
    which no sample has a say in: ``tails`` are the first names of these cells, of which
    ``first_tail`` is the first.

    Where numbers are few, those between them that training never had count as lost. As many rows as
    training has may hold ``new`` of them.
    """

    of_cell: Codes
    size: int
    training: Floats
    shares: Floats
    scores: Floats
    tails: tuple[str, ...] = ()
    first_tail: int = 0
    new: float = 0.0

    def counts(self, cells: NDArray[np.int64], missing: int, lost: int) -> Floats:
        """Add counts up."""
        weights = np.concatenate([cells, [missing, lost]])
        return np.bincount(self.of_cell, weights, self.size).astype(np.float64)

    def tail_of(self, name: str) -> int:
        """Return the cell in which a rare name would be."""
        return self.first_tail + max(0, bisect_right(self.tails, name) - 1)


def of_numbers(cells: NDArray[np.int64], missing: int, lost: int) -> Coarse:
    """Group the cells of a variable of numbers by what training had in them."""
    if len(cells) <= 2:
        return _coarse(np.arange(len(cells)), cells, missing, lost)
    inner = _grouped(cells[1:-1], int(cells.sum()) / GROUPS)
    groups = np.concatenate([[0], inner + 1, [inner[-1] + 2]])
    made = _coarse(groups, cells, missing, lost)
    between, new = np.flatnonzero(cells[1:-1] == 0) + 1, expected_new(cells)
    if not len(between) or new > NEW_SHARE * int(cells.sum()):
        return made
    made.of_cell[between] = made.size + LOST
    return made._replace(new=new)


def expected_new(cells: NDArray[np.int64]) -> float:
    """Return how many rows with new values as many rows as training's would have, at most.

    A value that occurred once in training would have been new without that row: so much is to be
    expected, with a variance that adds the values that occurred twice. Four deviations are
    granted. Source: Good, "The population frequencies of species and the estimation of
    population parameters", Biometrika 40 (1953).
    """
    once, twice = (int((cells == times).sum()) for times in (1, 2))
    return once + 4 * (once + 2 * twice) ** 0.5


def of_names(
    cells: NDArray[np.int64], missing: int, lost: int, names: Sequence[str], *, closed: bool
) -> Coarse:
    """Group the cells of a variable of names by what training had in them."""
    counts = cells[:-1].tolist()
    least = NAME_SHARE * int(cells.sum())
    groups = np.zeros(len(cells), dtype=np.intp)
    heads = [place for place, count in enumerate(counts) if count >= least]
    groups[heads] = np.arange(len(heads))
    # Of too many names, those that training had rarely were kept by luck.
    rare = set() if closed else {place for place, count in enumerate(counts) if count < FREQUENT}
    tail = sorted(set(range(len(counts))) - set(heads) - rare, key=names.__getitem__)
    shared = _grouped(np.array([counts[place] for place in tail], dtype=np.int64), least)
    groups[tail] = shared + len(heads)
    last = len(heads) + (int(shared[-1]) + 1 if tail else 0)
    groups[[*rare, len(cells) - 1]] = last
    begins = [
        place for place, group in enumerate(shared) if not place or group != shared[place - 1]
    ]
    return _coarse(
        groups,
        cells,
        missing,
        lost,
        tails=tuple(names[tail[place]] for place in begins),
        first_tail=len(heads),
    )


def _coarse(
    groups: Codes, cells: NDArray[np.int64], missing: int, lost: int, **named: Any
) -> Coarse:
    size = int(groups.max(initial=-1)) + 3
    of_cell = np.concatenate([groups, [size + MISSING, size + LOST]]).astype(np.intp)
    counts = np.concatenate([cells, [missing, lost]])
    training = np.bincount(of_cell, counts, size).astype(np.float64)
    shares = (training + 0.5) / (training.sum() + 0.5 * size)
    return Coarse(of_cell, size, training, shares, np.cumsum(shares) - shares / 2, **named)


def _grouped(counts: NDArray[np.int64], least: float) -> Codes:
    """Return the group of each cell: neighbours, until a group has ``least``.

    The last group may have half of it, and any share behind a cell that alone has ``least``: the
    few values that are not zero are no part of the zeros.
    """
    before = np.concatenate([[0.0], np.cumsum(counts, dtype=np.float64)])
    middles = (before[:-1] + before[1:]) / 2
    begins = np.zeros(len(counts), dtype=np.intp)
    first, held = 0, 0.0
    while True:
        # A cell that would overfill the group begins the next one, if the group has any.
        place = max(
            int(np.searchsorted(middles - held, least, side="right")),
            int(np.searchsorted(before, held, side="right")),
        )
        place = min(place, len(counts))
        left = float(before[-1] - before[place])
        is_heavy = bool((counts[first:place] >= least).any())
        if not left or (left < least / 2 and not is_heavy):
            return np.cumsum(begins)
        begins[place] = 1
        first, held = place, float(before[place])
