from __future__ import annotations

import numpy as np
import pytest

from nbmlops.monitoring.arrays import unpack
from nbmlops.monitoring.cells import Ruler, grid

DRAW = np.random.default_rng(0)
TRAINING = {
    "normal": DRAW.normal(size=30_000),
    "far from zero": DRAW.normal(1.7e9, 1e3, 30_000),
    "heavy tails": DRAW.standard_cauchy(30_000),
    "one value often": np.where(DRAW.random(30_000) < 0.6, 0.0, DRAW.normal(size=30_000)),
    "whole numbers": DRAW.integers(0, 3000, 30_000).astype(float),
    "few values": DRAW.integers(0, 7, 30_000).astype(float),
    "next to nothing": DRAW.normal(size=30_000) * 1e-300,
}


def by_definition(made, values):
    """Tell the cell of each value as the grid defines it, border by border."""
    past = np.zeros(len(values), dtype=int)
    for exact in unpack(made.exact):
        past += values > exact
    with np.errstate(over="ignore"):
        steps = np.floor(values * made.per_step + (1 - made.low * made.per_step))
    for mark in np.cumsum(unpack(made.marks)):
        past += steps > mark
    return past


@pytest.mark.parametrize("name", TRAINING)
@pytest.mark.parametrize("moved", [0.0, 1.0, -40.0])
def test_values_lie_in_the_cells_that_the_grid_defines(name, moved):
    training = TRAINING[name]
    made = grid(training, whole=name == "whole numbers")
    ruler = Ruler(made)
    borders = ruler.borders[::7]
    values = np.concatenate(
        [
            training[:3000] + moved * training.std(),
            borders,
            np.nextafter(borders, np.inf),
            np.nextafter(borders, -np.inf),
        ]
    )
    places = by_definition(made, values)
    assert ruler.places(values).tolist() == places.tolist()
    counts = ruler.count(values, values.min(), values.max())
    assert counts.tolist() == np.bincount(places, minlength=ruler.cells).tolist()


def test_values_beyond_all_measure_lie_in_the_outer_cells():
    ruler = Ruler(grid(TRAINING["normal"]))
    counts = ruler.count(np.array([-1e300, 0.0, 1e300, 1e300]), -1e300, 1e300)
    assert (counts[0], counts[-1], counts.sum()) == (1, 2, 4)
