"""How far live calls lie from training, as sizes."""

from __future__ import annotations

import numpy as np
import pytest

from nbmlops.monitoring import drift
from nbmlops.monitoring.effects import DISTANCE, MEANS, effects
from nbmlops.monitoring.profile import Gauge, Profile, merge, narrowed, packed, reference_profile
from nbmlops.records import Prediction, dump, load

CHANCE = np.random.default_rng(7)
ROWS = 4000
FEATURES = {
    "age": CHANCE.normal(40, 10, ROWS),
    "city": CHANCE.choice(["Bern", "Rome", "Oslo"], ROWS),
    "at": np.arange(ROWS, dtype=np.float64),
}
KINDS = {"age": "number", "city": "category", "at": "number"}
LABELS = CHANCE.choice(["yes", "no"], ROWS)


def profile(target=LABELS, *, label=True):
    return reference_profile(FEATURES, KINDS, target, label=label)


def window(gauge, rows=1000, label="yes", **changes):
    """Count training's first rows, some columns changed, all answered alike."""
    features = {name: column[:rows] for name, column in FEATURES.items()} | changes
    columns = {name: list(column) for name, column in features.items()}
    records = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return gauge.calls(records, [Prediction(label=label)] * rows)


def sizes(gauge, tally):
    return {size.name: size for size in effects(gauge, tally).columns}


def test_calls_like_training_are_near_and_others_far():
    gauge = Gauge(profile())
    same = sizes(gauge, window(gauge))
    assert same["age"].value < 0.05
    assert same["city"].value < 0.05
    shifted = sizes(gauge, window(gauge, age=FEATURES["age"][:1000] + 10.0))
    assert 0.3 < shifted["age"].value < 0.5, "about 0.42 for a standard deviation"
    assert shifted["age"].effect == DISTANCE
    assert shifted["city"].value < 0.05


def test_a_size_is_the_one_that_a_report_names_where_rows_are_independent():
    gauge = Gauge(profile())
    tally = window(gauge, age=FEATURES["age"][:1000] + 5.0)
    judged = drift.judge(gauge, tally)
    live = sizes(gauge, tally)
    for column in judged.columns[:2]:
        assert live[column.name].value == pytest.approx(column.effect.value, abs=0.01)


def test_shares_of_missing_values_and_new_categories_are_told():
    gauge = Gauge(profile())
    city = ["Paris"] * 100 + [None] * 250 + ["Rome"] * 650
    found = sizes(gauge, window(gauge, city=city))
    assert found["city"].new_category_share == 0.1
    assert found["city"].missing_share == 0.25
    assert found["age"].new_category_share is None
    assert found["age"].missing_share == 0.0


def test_of_a_clock_and_of_few_rows_no_size_is_told():
    gauge = Gauge(profile())
    later = sizes(gauge, window(gauge, at=np.arange(1000) + 1e6))
    assert later["at"].value is None
    few = effects(gauge, window(gauge, rows=drift.ROWS_NEEDED - 1))
    assert few.rows == drift.ROWS_NEEDED - 1
    assert [size.value for size in (*few.columns, few.prediction)] == [None] * 4
    assert few.columns[0].missing_share == 0.0


def test_predicted_labels_have_a_distance_and_values_a_difference_of_means():
    gauge = Gauge(profile())
    answered = effects(gauge, window(gauge)).prediction
    assert answered.effect == DISTANCE
    assert answered.value > 0.4, "all are answered alike"
    values = Gauge(profile(FEATURES["age"], label=False))
    features = {name: list(column[:1000]) for name, column in FEATURES.items()}
    tally = values.count(1000, features, FEATURES["age"][:1000] + 20.0)
    answered = effects(values, tally).prediction
    assert answered.effect == MEANS
    assert answered.value == pytest.approx(2.0, abs=0.15)


def test_a_constant_in_training_is_left_by_any_other_value():
    gauge = Gauge(reference_profile({}, {}, [3.0] * 100, label=False))
    assert effects(gauge, gauge.count(50, {}, [3.0] * 50)).prediction.value == 0.0
    assert effects(gauge, gauge.count(50, {}, [4.0] * 50)).prediction.value == 1.0


def test_a_profile_without_an_output_has_no_prediction():
    gauge = Gauge(profile(None))
    found = effects(gauge, window(gauge))
    assert found.prediction is None
    assert [size.name for size in found.columns] == ["age", "city", "at"]


# --- narrowed profiles --------------------------------------------------------------------------


def test_a_narrowed_profile_tells_the_same_of_the_columns_that_it_has():
    whole = profile()
    few = load(dump(narrowed(whole, hidden=frozenset({"city"}))), Profile)
    assert [one.name for one in few.variables] == ["age", "at", "prediction"]
    assert b"Bern" not in dump(few)
    before, after = Gauge(whole), Gauge(few)
    changed = {"age": FEATURES["age"][:1000] + 3.0}
    told = effects(before, merge([window(before, **changed)] * 3))
    again = effects(after, merge([window(after, **changed)] * 3))
    assert again.columns == (told.columns[0], told.columns[2])
    assert again.prediction == told.prediction
    assert narrowed(few) is few


@pytest.mark.parametrize("target", [LABELS, None])
def test_a_profile_is_narrowed_to_its_first_columns(target):
    few = narrowed(profile(target), limit=2)
    assert [one.name for one in few.variables][:2] == ["age", "city"]
    assert len(few.variables) == 2 + few.has_output
    none = narrowed(profile(target), hidden=frozenset(KINDS))
    assert len(none.variables) == none.has_output


def test_what_is_sent_along_is_bounded():
    names = [f"x{number}" for number in range(300)]
    column = CHANCE.normal(0, 1e9, ROWS)
    wide = reference_profile(dict.fromkeys(names, column), dict.fromkeys(names, "number"), LABELS)
    content = packed(wide, frozenset())
    assert len(content) <= 256 * 1024
    assert 50 <= len(load(content, Profile).variables) <= 201
