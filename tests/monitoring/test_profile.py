from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbmlops.monitoring.profile import (
    HEAD_LIMIT,
    NAME_LIMIT,
    Profile,
    merge,
    reference_profile,
    regrid,
    window_profile,
)
from nbmlops.records import Column, ModelSchema, OutputSchema, Prediction, dump, load


def schema(**kinds):
    columns = tuple(Column(name=name, kind=kind) for name, kind in kinds.items())
    return ModelSchema(columns=columns, output=OutputSchema(kind="label"))


def one(values, kind="number", target=()):
    return reference_profile({"x": values}, schema(x=kind), target)


def rows(values):
    return [{"x": value} for value in values]


def test_a_numeric_column_keeps_counts_range_and_moments():
    values = np.random.default_rng(0).normal(size=1000)
    numbers = one(values).columns[0].numbers
    assert sum(numbers.counts) == 1000
    assert len(numbers.counts) == len(numbers.edges) + 1
    assert (numbers.low, numbers.high) == (values.min(), values.max())
    assert numbers.mean == pytest.approx(values.mean())
    assert numbers.m2 == pytest.approx(values.var() * 1000)


def test_counts_on_the_cuts_are_tenths_of_the_reference_with_nothing_outside():
    numbers = one(np.random.default_rng(0).normal(size=1000)).columns[0].numbers
    assert regrid(numbers, numbers.cuts) == (0, *[100] * 10, 0)


def test_values_outside_of_the_training_range_fall_into_the_outermost_cells():
    reference = one([float(value) for value in range(100)])
    window = window_profile(rows([-0.5, 0.0, 99.0, 99.5, 1e9]), [], reference)
    numbers = window.columns[0].numbers
    counts = regrid(numbers, numbers.cuts)
    assert (counts[0], counts[-1]) == (1, 2)


def test_missing_infinite_and_odd_values_are_told_apart():
    values = [1.0, None, math.nan, pd.NA, pd.NaT, math.inf, -math.inf, "text", [1], Decimal("2.5")]
    column = one(values).columns[0]
    assert (column.count, column.missing, column.non_finite, column.odd) == (2, 4, 2, 2)
    assert column.rows == len(values)


def test_an_integer_beyond_floats_is_not_finite():
    column = one([1, 10**400]).columns[0]
    assert (column.count, column.non_finite) == (1, 1)


@pytest.mark.parametrize(
    "make",
    [
        list,
        np.array,
        pd.Series,
        lambda values: pd.Series(values, index=range(10, 10 + len(values))),
        lambda values: pd.Series(values, dtype="Float64"),
    ],
)
def test_lists_arrays_and_series_give_the_same_profile(make):
    values = [1.0, 2.0, 2.0, 5.0]
    assert one(make(values)) == one(values)


@pytest.mark.parametrize(
    "make", [list, pd.Series, lambda values: pd.Series(values, dtype="category")]
)
def test_texts_in_any_container_give_the_same_profile(make):
    values = ["a", "b", None, "a"]
    assert one(make(values), "category") == one(values, "category")


def test_one_category_has_one_spelling_whatever_its_type():
    column = one([1, 1.0, np.int64(1), np.float32(1), "1"], "category").columns[0]
    assert column.categories.names == ("1",)
    labels = one([0], target=np.array([True, False])).output
    assert labels.categories.names == ("false", "true")


def test_zero_and_one_are_booleans_in_a_boolean_column():
    column = one([True, 0, 1.0, np.bool_(False), None], "boolean").columns[0]
    assert dict(zip(column.categories.names, column.categories.counts, strict=True)) == {
        "false": 2,
        "true": 2,
    }
    assert column.missing == 1


def test_a_window_counts_known_and_new_categories():
    reference = one(["a"] * 5 + ["b"] * 3, "category")
    window = window_profile(rows(["a", "c", "c", None, "d"]), [], reference)
    categories = window.columns[0].categories
    assert categories.names == ("a", "b")
    assert categories.counts == (1, 0)
    assert categories.unseen == {"c": 2, "d": 1}
    assert window.columns[0].missing == 1


@pytest.mark.slow
def test_a_million_categories_stay_small():
    values = [f"category {value}" for value in range(1_000_000)]
    profile = one(values, "category")
    categories = profile.columns[0].categories
    assert len(categories.names) <= HEAD_LIMIT
    assert categories.distinct == 1_000_000
    assert categories.other + sum(categories.counts) == 1_000_000
    window = window_profile(rows(reversed(values[:50_000])), [], profile)
    assert len(dump(profile)) < 30_000
    assert len(dump(window)) < 30_000


def test_a_category_that_occurs_once_among_many_is_not_named():
    profile = one([f"name {index}" for index in range(1000)], "text")
    assert b"name 1" not in dump(profile)


def test_a_long_category_is_cut_and_stays_distinct():
    column = one(["x" * 500 + "a", "x" * 500 + "b"], "text").columns[0]
    assert len(set(column.categories.names)) == 2
    assert all(len(name) <= NAME_LIMIT for name in column.categories.names)


def test_dates_are_texts():
    column = one([datetime(2026, 1, 1, tzinfo=UTC), pd.Timestamp("2026-01-02")], "text").columns[0]
    assert column.categories.names == ("2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00")


def test_a_column_that_the_data_lack_is_missing_throughout():
    profile = reference_profile({"x": [1.0, 2.0]}, schema(x="number", y="number"), ["a", "b"])
    assert profile.columns[1].missing == 2


def test_numpy_names_become_plain_ones():
    columns = (Column(name=np.str_("x"), kind="number"),)
    profile = reference_profile(
        {"x": [1.0]}, ModelSchema(columns=columns, output=OutputSchema(kind="value")), [1.0]
    )
    assert load(dump(profile), Profile) == profile


def test_predictions_are_counted_on_the_training_labels():
    reference = one([1.0, 2.0], target=["yes", "no"])
    predictions = [
        Prediction(label="yes"),
        Prediction(label="maybe", within_bounds=False),
        Prediction(label=None),
    ]
    window = window_profile(rows([1, 2, 3]), predictions, reference)
    assert (window.predictions, window.out_of_bounds, window.output.missing) == (3, 1, 1)
    assert window.output.categories.unseen == {"maybe": 1}


def test_a_profile_survives_json():
    data = {"x": np.random.default_rng(0).normal(size=300), "c": ["a", "b", "c"] * 100}
    profile = reference_profile(data, schema(x="number", c="category"), [0, 1, 1] * 100)
    assert load(dump(profile), Profile) == profile


def test_a_profile_of_thirty_columns_is_tens_of_kilobytes():
    data = np.random.default_rng(0).normal(size=(10_000, 30))
    names = [f"x{index}" for index in range(30)]
    profile = reference_profile(
        {name: data[:, index] for index, name in enumerate(names)},
        schema(**dict.fromkeys(names, "number")),
        [0, 1] * 5000,
    )
    assert len(dump(profile)) < 60_000


def test_merged_halves_are_the_whole():
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=300), "c": rng.choice(["a", "b"], 300)}
    reference = reference_profile(data, schema(x="number", c="category"), rng.integers(0, 2, 300))
    records = [
        {"x": x, "c": c}
        for x, c in zip(rng.normal(size=200).tolist(), rng.choice(["a", "z"], 200), strict=True)
    ]
    records[7]["x"] = None
    answers = [Prediction(label=int(label)) for label in rng.integers(0, 2, 200)]
    whole = window_profile(records, answers, reference)
    merged = merge(
        window_profile(records[:60], answers[:60], reference),
        window_profile(records[60:], answers[60:], reference),
    )
    x, y = merged.columns[0].numbers, whole.columns[0].numbers
    assert (x.mean, x.m2) == (pytest.approx(y.mean), pytest.approx(y.m2))
    assert (x.counts, x.low, x.high) == (y.counts, y.low, y.high)
    assert merged.columns[1] == whole.columns[1]
    assert merged.row_sample == whole.row_sample
    assert merged.output == whole.output
    assert (merged.rows, merged.predictions) == (200, 200)


def test_profiles_on_other_bins_do_not_merge():
    with pytest.raises(ValueError, match="bins"):
        merge(one([1.0, 2.0]), one([1.0, 3.0]))
    with pytest.raises(ValueError, match="columns"):
        merge(one([1.0]), reference_profile({}, schema(y="number"), []))


def test_copies_of_rows_are_counted():
    reference = one(np.random.default_rng(0).normal(size=300))
    assert set(reference.row_sample.copies) == {1}
    window = window_profile(rows([1.5] * 40 + [2.5]), [], reference)
    assert sorted(window.row_sample.copies) == [1, 40]


CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.datetimes(),
    st.sampled_from([10**400, -1e308, 1e308, 5e-324, "nan", math.inf, Decimal("NaN"), pd.NA]),
)
JSON_CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**400), 10**400),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(), max_size=2),
)
KINDS = st.sampled_from(["number", "integer", "boolean", "category", "text"])


@settings(max_examples=150, deadline=None)
@given(kind=KINDS, values=st.lists(CELLS, max_size=40), seen=st.lists(JSON_CELLS, max_size=40))
def test_any_content_gives_profiles_that_count_every_row_and_hold_finite_numbers(
    kind, values, seen
):
    reference = one(values, kind, target=values)
    window = window_profile(rows(seen), [Prediction(label=label) for label in seen], reference)
    for profile, count in ((reference, len(values)), (window, len(seen))):
        column = profile.columns[0]
        assert column.rows == count
        assert load(dump(profile), Profile) == profile  # NaN and infinity would come back as null
    assert merge(window, window).rows == 2 * len(seen)
