from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nbmlops.monitoring.arrays import unpack
from nbmlops.monitoring.columns import NAME_LIMIT
from nbmlops.monitoring.copies import copies_of
from nbmlops.monitoring.profile import (
    HEAD_LIMIT,
    Gauge,
    Profile,
    Tally,
    merge,
    reference_profile,
)
from nbmlops.monitoring.statistics import kolmogorov_smirnov
from nbmlops.records import Prediction, dump, load


def one(values, kind="number", target=None):
    return reference_profile({"x": values}, {"x": kind}, target)


def training(profile, place=0):
    return Gauge(profile).training[place]


def counted(profile, values, place=0):
    gauge = Gauge(profile)
    return gauge.counted(gauge.count(len(values), {"x": values}))[place]


def named(profile, found, place=0):
    names = [*profile.variables[place].names, "other"]
    return {name: count for name, count in zip(names, found.cells.tolist(), strict=True) if count}


def test_a_numeric_column_keeps_counts_range_and_moments():
    values = np.random.default_rng(0).normal(size=1000)
    found = training(one(values))
    assert found.count == 1000
    assert (found.low, found.high) == (values.min(), values.max())
    assert found.mean == pytest.approx(values.mean())
    assert found.m2 == pytest.approx(values.var() * 1000)


def test_training_lies_in_cells_of_equal_mass_and_none_outside():
    cells = training(one(np.random.default_rng(0).normal(size=100_000))).cells
    assert (cells[0], cells[-1]) == (0, 0)
    assert 500 < len(cells) < 530
    assert cells.max() < 2 * 100_000 / 512


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, rows, shift: rng.normal(shift, 1, rows),
        lambda rng, rows, shift: np.exp(3 * rng.normal(shift, 1, rows)),
        lambda rng, rows, shift: rng.standard_cauchy(rows) + shift,
        lambda rng, rows, shift: np.where(rng.random(rows) < 0.5, 0, rng.normal(shift, 1, rows)),
        lambda rng, rows, shift: rng.poisson(50 + 10 * shift, rows).astype(float),
        lambda rng, rows, shift: np.round(rng.normal(shift, 1, rows), 1),
        lambda rng, rows, shift: 1.7e9 + rng.random(rows) * 1e6 + 1e5 * shift,
        lambda rng, rows, shift: 1e15 + rng.integers(0, 1000, rows) + shift,
    ],
)
@pytest.mark.parametrize("shift", [0.0, 0.1, 0.5, 3.0])
def test_kolmogorov_smirnov_from_the_cells_is_the_exact_one_within_0_002(draw, shift):
    rng = np.random.default_rng(4)
    then, now = draw(rng, 100_000, 0.0), draw(rng, 50_000, shift)
    gauge = Gauge(one(then))
    seen = gauge.counted(gauge.count(len(now), {"x": now}))[0]
    told = kolmogorov_smirnov(gauge.training[0].cells.astype(float), seen.cells.astype(float))
    assert told == pytest.approx(stats.ks_2samp(then, now, method="asymp").statistic, abs=0.002)


def test_values_outside_of_the_training_range_fall_into_the_outermost_cells():
    found = counted(one([float(value) for value in range(100)]), [-0.5, 0.0, 99.0, 99.5, 1e9])
    assert (found.cells[0], found.cells[-1]) == (1, 2)


def test_values_between_those_of_a_few_are_told_apart_from_them():
    profile = one([0.0, 1.0] * 50)
    assert training(profile).cells.tolist() == [0, 50, 0, 50, 0]
    assert counted(profile, [0.0, 0.5, 1.0, 2.0]).cells.tolist() == [0, 1, 1, 1, 1]


def test_missing_infinite_and_odd_values_are_told_apart():
    values = [1.0, None, math.nan, pd.NA, pd.NaT, math.inf, -math.inf, "text", [1], Decimal("2.5")]
    found = training(one(values))
    assert (found.count, found.missing, found.non_finite, found.odd) == (2, 4, 2, 2)
    assert found.rows == len(values)


def test_an_integer_beyond_floats_is_not_finite():
    found = training(one([1, 10**400]))
    assert (found.count, found.non_finite) == (1, 1)


@pytest.mark.parametrize(
    "make",
    [
        list,
        np.array,
        pd.Series,
        pa.array,
        lambda values: pa.chunked_array([values[:2], values[2:]]),
        lambda values: pd.Series(values, index=range(10, 10 + len(values))),
        lambda values: pd.Series(values, dtype="Float64"),
    ],
)
def test_numbers_in_any_container_give_the_same_profile(make):
    values = [1.0, 2.0, 2.0, 5.0]
    assert one(make(values)) == one(values)


@pytest.mark.parametrize(
    "make",
    [
        list,
        pd.Series,
        pa.array,
        lambda values: pa.chunked_array([values[:1], values[1:]]),
        lambda values: pd.Series(values, dtype="category"),
        lambda values: pd.Series(values, dtype="object"),
    ],
)
def test_texts_in_any_container_give_the_same_profile(make):
    values = ["a", "b", None, "a"]
    assert one(make(values), "category") == one(values, "category")


def test_one_category_has_one_spelling_whatever_its_type():
    profile = one([1, 1.0, np.int64(1), np.float32(1), "1"], "category")
    assert profile.variables[0].names == ("1",)
    labels = one([0, 1], target=np.array([True, False])).variables[-1]
    assert labels.names == ("false", "true")


def test_zero_and_one_are_booleans_in_a_boolean_column():
    profile = one([True, 0, 1.0, np.bool_(False), None], "boolean")
    found = training(profile)
    assert named(profile, found) == {"false": 2, "true": 2}
    assert found.missing == 1


def test_a_window_counts_known_and_new_categories():
    profile = one(["a"] * 5 + ["b"] * 3, "category")
    found = counted(profile, ["a", "c", "c", None, "d"])
    assert named(profile, found) == {"a": 1, "other": 3}
    assert found.unseen == {"c": 2, "d": 1}
    assert found.missing == 1


@pytest.mark.slow
def test_a_million_categories_stay_small():
    values = [f"category {value}" for value in range(1_000_000)]
    profile = one(values, "category")
    assert profile.variables[0].by == "lengths"
    assert profile.variables[0].distinct == 1_000_000
    gauge = Gauge(profile)
    window = gauge.count(50_000, {"x": values[:50_000]})
    assert gauge.counted(window)[0].count == 50_000
    assert len(dump(profile)) < 30_000
    assert len(dump(window)) < 30_000


def test_the_most_frequent_of_many_categories_are_named():
    values = [f"c{index}" for index in range(HEAD_LIMIT + 100) for _ in range(2)] + ["most"] * 900
    variable = one(values, "category").variables[0]
    assert (variable.by, variable.names[0], variable.closed) == ("names", "most", False)
    assert len(variable.names) == HEAD_LIMIT


def test_a_category_that_occurs_once_among_many_is_not_named():
    assert b"name 1" not in dump(one([f"name {index}" for index in range(1000)], "text"))


def test_a_long_category_is_cut_and_stays_distinct():
    variable = one(["x" * 500 + "a", "x" * 500 + "b"] * 9, "text").variables[0]
    assert len(set(variable.names)) == 2
    assert all(len(name) <= NAME_LIMIT for name in variable.names)


def test_dates_in_a_column_of_texts_are_texts():
    profile = one([datetime(2026, 1, 1, tzinfo=UTC), pd.Timestamp("2026-01-02")] * 2, "text")
    assert profile.variables[0].names == ("2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00")


@pytest.mark.parametrize(
    "make",
    [
        list,
        pd.Series,
        lambda times: pd.Series(times).dt.tz_convert("Asia/Tokyo"),
        lambda times: pd.Series(times).dt.tz_localize(None),
        lambda times: pd.Series(times).dt.tz_localize(None).to_numpy(),
        pa.array,
    ],
)
def test_times_are_seconds_in_any_container(make):
    times = [datetime(2026, 1, day, 12, tzinfo=UTC) for day in range(1, 20)]
    found = training(one(make(times), "datetime"))
    assert (found.low, found.high) == (times[0].timestamp(), times[-1].timestamp())


def test_a_column_that_the_data_lack_is_missing_throughout():
    profile = reference_profile({"x": [1.0, 2.0]}, {"x": "number", "y": "number"}, ["a", "b"])
    assert training(profile, 1).missing == 2


def test_numpy_names_become_plain_ones():
    profile = reference_profile({"x": [1.0]}, {np.str_("x"): "number"}, [1.0], label=False)
    assert load(dump(profile), Profile) == profile


def test_predictions_are_counted_on_the_training_labels():
    gauge = Gauge(one([1.0, 2.0], target=["yes", "no"]))
    predictions = [
        Prediction(label="yes"),
        Prediction(label="maybe", within_bounds=False),
        Prediction(label=None),
    ]
    window = gauge.calls([{"x": 1}, {"x": 2}, {"x": 3}], predictions)
    output = gauge.counted(window)[-1]
    assert (window.predictions, window.out_of_bounds, output.missing) == (3, 1, 1)
    assert output.unseen == {"maybe": 1}


def test_a_profile_survives_json():
    data = {"x": np.random.default_rng(0).normal(size=300), "c": ["a", "b", "c"] * 100}
    profile = reference_profile(data, {"x": "number", "c": "category"}, [0, 1, 1] * 100)
    assert load(dump(profile), Profile) == profile
    window = Gauge(profile).count(300, data, [0] * 300)
    assert load(dump(window), Tally) == window


def test_a_profile_of_thirty_columns_is_tens_of_kilobytes():
    data = np.random.default_rng(0).normal(size=(100_000, 30))
    names = [f"x{index}" for index in range(30)]
    profile = reference_profile(
        {name: data[:, index] for index, name in enumerate(names)},
        dict.fromkeys(names, "number"),
        [0, 1] * 50_000,
    )
    assert len(dump(profile)) < 70_000
    assert (
        len(dump(Gauge(profile).count(1000, dict(zip(names, data[:1000].T, strict=True))))) < 30_000
    )


def test_merged_parts_are_the_whole():
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=300), "c": rng.choice(["a", "b"], 300)}
    kinds = {"x": "number", "c": "category"}
    gauge = Gauge(reference_profile(data, kinds, rng.integers(0, 2, 300)))
    records = [
        {"x": x, "c": c}
        for x, c in zip(rng.normal(size=200).tolist(), rng.choice(["a", "z"], 200), strict=True)
    ]
    records[7]["x"] = None
    answers = [Prediction(label=int(label)) for label in rng.integers(0, 2, 200)]
    whole = gauge.calls(records, answers)
    parts = [(0, 60), (60, 60), (60, 61), (61, 200)]
    merged = merge([gauge.calls(records[a:b], answers[a:b]) for a, b in parts])
    for x, y in zip(gauge.counted(merged), gauge.counted(whole), strict=True):
        assert (x.mean, x.m2) == (
            pytest.approx(y.mean, nan_ok=True),
            pytest.approx(y.m2, nan_ok=True),
        )
        assert x.cells.tolist() == y.cells.tolist()
        assert (x.missing, x.non_finite, x.odd, x.unseen) == (
            y.missing,
            y.non_finite,
            y.odd,
            y.unseen,
        )
        assert (x.low, x.high) == (
            pytest.approx(y.low, nan_ok=True),
            pytest.approx(y.high, nan_ok=True),
        )
    assert merged.row_sample == whole.row_sample
    assert (merged.rows, merged.predictions) == (200, 200)


def test_tallies_of_other_cells_do_not_add_up():
    a, b = Gauge(one([1.0, 2.0])), Gauge(one([1.0, 3.0, 4.0]))
    with pytest.raises(ValueError, match="cells"):
        merge([a.count(1, {"x": [1.0]}), b.count(1, {"x": [1.0]})])
    with pytest.raises(ValueError, match="cells"):
        a.counted(b.count(1, {"x": [1.0]}))


def test_copies_of_rows_are_counted():
    profile = one(np.random.default_rng(0).normal(size=300))
    assert set(copies_of(profile.tally.row_sample)) == {1}
    gauge = Gauge(profile)
    window = gauge.count(41, {"x": [1.5] * 40 + [2.5]})
    assert sorted(copies_of(window.row_sample)) == [1, 40]
    again = merge([window, window, gauge.count(1, {"x": [7.0]})])
    assert sorted(copies_of(again.row_sample)) == [1, 2, 80]


def test_copies_among_many_rows_are_counted_in_a_sample():
    gauge = Gauge(one(np.random.default_rng(0).normal(size=300)))
    values = np.repeat(np.random.default_rng(1).normal(size=20_000), 4)
    copies = copies_of(gauge.count(len(values), {"x": values}).row_sample)
    assert len(copies) == 128
    assert set(copies) == {4}


def test_rows_that_a_sorted_table_has_tell_no_time():
    x = np.random.default_rng(0).normal(size=600)
    by_label = reference_profile({"x": x}, {"x": "number"}, ["a"] * 300 + ["b"] * 300)
    assert not by_label.ordered
    assert by_label.stretches == {}
    mixed = reference_profile({"x": x}, {"x": "number"}, ["a", "b"] * 300)
    assert mixed.ordered
    assert set(mixed.stretches) == {16, 32, 64}


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
KINDS = st.sampled_from(["number", "integer", "boolean", "category", "text", "datetime"])


@settings(max_examples=150, deadline=None)
@given(kind=KINDS, values=st.lists(CELLS, max_size=40), seen=st.lists(JSON_CELLS, max_size=40))
def test_any_content_gives_profiles_that_count_every_row(kind, values, seen):
    profile = one(values, kind, target=values)
    gauge = Gauge(profile)
    window = gauge.calls([{"x": value} for value in seen], [Prediction(label=one) for one in seen])
    assert training(profile).rows == len(values)
    assert {found.rows for found in gauge.counted(window)} == {len(seen)}
    assert load(dump(profile), Profile) == profile
    assert load(dump(window), Tally) == window
    both = merge([window, window])
    assert both.rows == 2 * len(seen)
    assert unpack(both.cells).sum() == 2 * unpack(window.cells).sum()
