from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nbmlops.monitoring import statistics
from nbmlops.monitoring.statistics import (
    Moments,
    difference_p_value,
    excess_p_value,
    holm,
    homogeneity_p_value,
    jensen_shannon_distance,
    mean_difference_p_value,
)

COUNTS = st.lists(
    st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)), min_size=1, max_size=20
)


def test_the_examples_of_the_docstrings_run():
    assert doctest.testmod(statistics).failed == 0


@given(COUNTS)
def test_the_distance_is_between_0_and_1_and_symmetric(counts):
    r, w = (np.array(side, dtype=float) for side in zip(*counts, strict=True))
    distance = jensen_shannon_distance(r, w)
    if r.sum() == 0 or w.sum() == 0:
        assert distance is None
    else:
        assert 0 <= distance <= 1
        assert distance == pytest.approx(jensen_shannon_distance(w, r), abs=1e-6)


def test_the_distance_does_not_grow_or_shrink_with_the_rows():
    rng = np.random.default_rng(0)
    p, q = np.full(10, 0.1), np.array([0.02, 0.04, 0.06, 0.08, 0.1, 0.1, 0.12, 0.14, 0.16, 0.18])
    means = [
        np.mean(
            [
                jensen_shannon_distance(
                    rng.multinomial(400, p).astype(float), rng.multinomial(m, q).astype(float)
                )
                for _ in range(300)
            ]
        )
        for m in (100, 1000, 100_000)
    ]
    assert max(means) - min(means) < 0.02


@given(COUNTS)
def test_p_values_are_probabilities(counts):
    r, w = (np.array(side, dtype=float) for side in zip(*counts, strict=True))
    p_value = homogeneity_p_value(r, w)
    assert p_value is None or 0 <= p_value <= 1


def test_the_homogeneity_test_is_the_lesser_of_two_known_statistics():
    r, w = np.array([50.0, 60, 90]), np.array([80.0, 60, 60])
    pearson = stats.chi2_contingency([r, w], correction=False).pvalue
    ratio = stats.chi2_contingency([r, w], correction=False, lambda_="log-likelihood").pvalue
    assert homogeneity_p_value(r, w) == pytest.approx(max(pearson, ratio))


def test_small_cells_are_merged_until_both_sides_expect_five():
    assert homogeneity_p_value(np.array([400.0, 3]), np.array([40.0, 3])) is None


@pytest.mark.parametrize(
    ("k", "n", "w", "m"), [(0, 400, 5, 200), (3, 100, 9, 120), (7, 30, 2, 40), (0, 50, 50, 50)]
)
def test_the_exact_test_is_fisher_s(k, n, w, m):
    table = [[w, m - w], [k, n - k]]
    assert excess_p_value(k, n, w, m) == pytest.approx(
        stats.fisher_exact(table, alternative="greater").pvalue
    )
    less = stats.fisher_exact(table, alternative="less").pvalue
    greater = stats.fisher_exact(table, alternative="greater").pvalue
    assert difference_p_value(k, n, w, m) == pytest.approx(min(1, 2 * less, 2 * greater))


def test_the_test_of_means_is_welch_s():
    a, b = np.random.default_rng(0).normal(size=(2, 50)) * [[1], [3]]
    expected = stats.ttest_ind(a, b, equal_var=False).pvalue
    moments = [Moments(side.mean(), side.var(ddof=1), len(side)) for side in (a, b)]
    assert mean_difference_p_value(*moments) == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), max_size=30))
def test_adjusted_p_values_keep_their_order_and_are_not_less(p_values):
    adjusted = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert list(np.array(adjusted)[order]) == sorted(adjusted)
