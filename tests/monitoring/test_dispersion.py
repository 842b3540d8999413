from __future__ import annotations

import numpy as np
import pytest

from nbmlops.monitoring import dispersion
from nbmlops.monitoring.arrays import unpack
from nbmlops.monitoring.coarse import of_numbers


def test_variables_that_are_summed_up_at_once_are_summed_up_as_if_alone():
    draw = np.random.default_rng(0)
    coarse = [of_numbers(draw.integers(1, 90, cells), 0, 0) for cells in (512, 2, 40)] * 7
    rows = [1003] * 20 + [77]  # the last one has fewer answers than rows
    coded = [draw.integers(0, one.size, count) for one, count in zip(coarse, rows, strict=True)]
    together = dispersion.sums(coded, coarse)
    alone = [dispersion.sums([codes], [one]) for codes, one in zip(coded, coarse, strict=True)]
    for column in ("blocks", "squares", "totals"):
        expected = np.concatenate([unpack(getattr(one, column)) for one in alone])
        assert unpack(getattr(together, column)) == pytest.approx(expected, rel=1e-12)


def test_sums_of_squares_are_those_of_the_blocks_of_each_size():
    draw = np.random.default_rng(1)
    coarse = of_numbers(np.full(512, 20), 0, 0)
    codes = draw.integers(0, coarse.size, 150)
    found = dispersion.sums([codes], [coarse])
    squares = unpack(found.squares).reshape(2, -1)
    for level, size in enumerate(dispersion.SIZES):
        blocks = [codes[start : start + size] for start in range(0, len(codes), size)]
        counts = [np.bincount(block, minlength=coarse.size) for block in blocks]
        cells = sum((one**2 / coarse.shares).sum() / one.sum() for one in counts)
        scores = sum((one @ coarse.scores) ** 2 / one.sum() for one in counts)
        assert squares[:, level] == pytest.approx([cells, scores])
        assert unpack(found.blocks)[level] == len(blocks)


def test_the_farthest_part_of_each_size_is_told_from_the_whole():
    coarse = of_numbers(np.full(512, 20), 0, 0)
    codes = np.tile(np.arange(1, 7), 500)
    codes[640:1280] = 1
    found = dispersion.stretches(codes, coarse)
    assert list(found) == [16, 32, 64, 128, 256]
    assert found[256] > 0.5
    assert dispersion.stretches(codes[:100], coarse) == {}
