from __future__ import annotations

import numpy as np
import pytest

from nbmlops.monitoring.columns import Numbers
from nbmlops.monitoring.copies import RowDigests, copies_of, independent_share, merge


def sample(values):
    digests = RowDigests(len(values))
    digests.add(Numbers(np.array(values, dtype=float), None))
    return digests.sample()


UNIQUE = sample(range(1000))


@pytest.mark.parametrize(
    ("values", "share"), [(range(1000), 1.0), (list(range(100)) * 10, 0.1), ([7] * 1000, 0.05)]
)
def test_a_window_that_repeats_rows_counts_for_fewer(values, share):
    assert independent_share(UNIQUE, sample(values), 1000, least=50) == pytest.approx(share)


def test_repetition_in_the_nature_of_the_data_is_no_repetition():
    twice = sample([1, 2] * 500)
    assert independent_share(twice, twice, 1000, least=50) == 1


def test_parts_of_a_window_know_the_rows_that_they_share():
    rows = np.random.default_rng(0).normal(size=140)
    parts = [sample(np.random.default_rng(one).choice(rows, 500)) for one in range(8)]
    both = merge(parts)
    assert both.rows == 4000
    assert copies_of(both).sum() == pytest.approx(4000 * 128 / 140, rel=0.1)
    assert independent_share(UNIQUE, both, 4000, least=50) == pytest.approx(140 / 4000, rel=0.15)


def test_a_missing_value_and_the_order_of_columns_tell_rows_apart():
    a, b = RowDigests(2), RowDigests(2)
    for digests, order in ((a, (0, 1)), (b, (1, 0))):
        columns = [np.array([1.0, np.nan]), np.array([2.0, 2.0])]
        for place in order:
            digests.add(Numbers(columns[place], None))
    assert sorted(copies_of(a.sample())) == [1, 1]
    assert a.sample() != b.sample()
