from __future__ import annotations

import math
from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer

from nbmlops.monitoring.drift import ROWS_NEEDED
from nbmlops.monitoring.profile import Gauge, reference_profile
from nbmlops.monitoring.reporting import report
from nbmlops.records import Budget, MonitorReport, Prediction, dump, load

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def judged(gauge, window, **options):
    return report(
        gauge,
        [window],
        model="cancer",
        version=1,
        commit=None,
        endpoint=None,
        reference_digest="sha256:0",
        since=None,
        until=None,
        created_at=NOW,
        **options,
    )


def gauge_of(then, *, kind="number", output="label", target=None, answers=None):
    """Return a gauge for one column."""
    labels = ["a", "b"] * (len(then) // 2) if target is None else target
    return Gauge(
        reference_profile(
            {"x": then}, {"x": kind}, labels, label=output == "label", answers=answers
        )
    )


def compared(then, now, *, kind="number", **options):
    """Report on one column."""
    gauge = gauge_of(then, kind=kind)
    window = gauge.calls(
        [{"x": value} for value in now],
        [Prediction(label="ab"[index % 2]) for index in range(len(now))],
    )
    return judged(gauge, window, **options)


def of_arrays(features, labels, calls, answers, *, kind="number"):
    names = [f"x{index}" for index in range(features.shape[1])]
    gauge = Gauge(
        reference_profile(
            {n: features[:, i] for i, n in enumerate(names)}, dict.fromkeys(names, kind), labels
        )
    )
    window = gauge.count(len(calls), {n: calls[:, i] for i, n in enumerate(names)}, answers)
    return judged(gauge, window)


@pytest.fixture(scope="module")
def cancer():
    return load_breast_cancer(return_X_y=True)


# --- false alarms and power -------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "windows"), [(200, 100), (1000, 60), (5000, 20)])
def test_windows_of_the_training_population_alarm_within_the_budget(cancer, rows, windows):
    features, y = cancer
    rng = np.random.default_rng(rows)
    alarms = 0
    for _ in range(windows):
        train, calls = rng.permutation(569)[:400], rng.integers(0, 569, rows)
        alarms += of_arrays(features[train], y[train], features[calls], y[calls]).verdict == "alert"
    assert alarms <= windows / 100


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "windows"), [(40, 150), (200, 150), (1000, 80), (5000, 15)])
def test_windows_of_correlated_normal_columns_alarm_within_the_budget(rows, windows):
    rng = np.random.default_rng(rows)
    mix = rng.normal(size=(30, 30)) * 0.3 + np.eye(30)
    alarms = 0
    for _ in range(windows):
        features, made = rng.normal(size=(400, 30)) @ mix, rng.normal(size=(rows, 30)) @ mix
        alarms += of_arrays(features, features[:, 0] > 0, made, made[:, 0] > 0).verdict == "alert"
    assert alarms <= windows / 100


def test_windows_with_rare_categories_alarm_within_the_budget():
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, 61)
    shares /= shares.sum()
    alarms = 0
    for _ in range(60):
        features, made = (rng.choice(60, p=shares, size=(rows, 10)) for rows in (400, 300))
        alarms += (
            of_arrays(features, features[:, 0], made, made[:, 0], kind="category").verdict
            == "alert"
        )
    assert alarms == 0


NAMES = {
    "ids": lambda rng, rows: rng.integers(0, 10**9, rows),
    "a thousand": lambda rng, rows: rng.integers(0, 1000, rows),
    "ids among twelve": lambda rng, rows: np.where(
        rng.random(rows) < 0.7, rng.integers(0, 12, rows), rng.integers(12, 10**9, rows)
    ),
}


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize(("training", "rows"), [(60, 2000), (200, 200), (200, 5000), (450, 5000)])
def test_new_names_where_names_hardly_repeat_do_not_alarm(kind, training, rows):
    rng = np.random.default_rng(training + rows)
    for _ in range(5):
        # The order of the alphabet is no order of these numbers.
        then, now = (
            [f"{value * 2654435761 % 2**32:08x}" for value in NAMES[kind](rng, size).tolist()]
            for size in (training, rows)
        )
        assert compared(then, now, kind="category").columns[0].verdict != "drift"


def test_calls_that_repeat_held_out_rows_do_not_alarm(cancer):
    features, y = cancer
    rng = np.random.default_rng(0)
    for _ in range(20):
        order = rng.permutation(569)
        calls = rng.choice(order[426:], 2000)
        found = of_arrays(features[order[:426]], y[order[:426]], features[calls], y[calls])
        assert found.questions.features.answer == "yes"
        assert found.questions.features.evidence["independent_rows"] < 200


def test_one_row_over_and_over_is_drift_and_the_reason_says_so():
    answer = compared(NORMAL, [0.5] * 300).questions.features
    assert answer.answer == "no"
    assert "The 300 rows repeat few, and count as 50." in answer.reason


def test_a_shift_of_one_standard_deviation_is_found_in_200_rows(cancer):
    features, y = cancer
    rng = np.random.default_rng(1)
    for column in range(30):
        train, calls = rng.permutation(569)[:400], rng.integers(0, 569, 200)
        made = features[calls]
        made[:, column] += features[:, column].std()
        found = of_arrays(features[train], y[train], made, y[calls])
        assert found.questions.features.evidence["drifted"] == [f"x{column}"]
        assert found.verdict == "alert"


def test_a_small_difference_is_no_drift_however_many_rows_show_it():
    rng = np.random.default_rng(0)
    found = compared(rng.normal(size=50_000), (rng.normal(size=50_000) + 0.1).tolist())
    assert found.columns[0].p_value < 1e-6
    assert found.columns[0].verdict == "ok"


def test_the_effect_is_the_same_for_few_rows_and_many():
    rng = np.random.default_rng(0)
    then = rng.normal(size=5000)
    few, many = (
        compared(then, (rng.normal(size=rows) + 0.7).tolist()).columns[0].effect.value
        for rows in (300, 30_000)
    )
    assert few == pytest.approx(many, abs=0.05)


# --- kinds of change --------------------------------------------------------------------------


NORMAL = np.random.default_rng(7).normal(size=400)
SAME = np.random.default_rng(8).normal(size=300)


@pytest.mark.parametrize(
    ("now", "word"),
    [
        ([None if index % 8 == 0 else value for index, value in enumerate(SAME)], "missing"),
        ([50.0 if index % 15 == 0 else value for index, value in enumerate(SAME)], "above"),
        ([-50.0 if index % 15 == 0 else value for index, value in enumerate(SAME)], "below"),
        (["n/a" if index % 10 == 0 else value for index, value in enumerate(SAME)], "another type"),
        ([math.inf if index % 10 == 0 else value for index, value in enumerate(SAME)], "infinite"),
        ([None] * 300, "missing"),
    ],
)
def test_missing_odd_and_outlying_values_are_drift_and_named(now, word):
    column = compared(NORMAL, now).columns[0]
    assert column.verdict == "drift"
    assert word in column.reason


def test_a_change_of_spread_is_found():
    assert compared(NORMAL, (2 * SAME).tolist()).columns[0].verdict == "drift"


def test_new_categories_are_drift_and_named():
    column = compared(["a", "b"] * 200, ["a", "b", "b", "c", "a"] * 20, kind="category").columns[0]
    assert (column.verdict, column.new_categories) == ("drift", ("c",))
    assert "20.0% in new categories (c)" in column.reason


def test_new_categories_are_counted_however_many_there_are():
    now = [f"new {index}" if index % 2 else "a" for index in range(800)]
    column = compared(["a", "b"] * 200, now, kind="category").columns[0]
    assert column.verdict == "drift"
    assert "50.0% in new categories (new 1, new 101, new 103 and 97 more)" in column.reason


@pytest.mark.parametrize(
    ("share", "verdict"), [(0.02, "ok"), (0.2, "drift"), (0.0, "unknown"), (0.9, "drift")]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_few_values_beside_very_many_zeros_are_told_from_them(share, verdict, sign):
    def visits(seed, rows, share):
        rng = np.random.default_rng(seed)
        return sign * np.where(rng.random(rows) < share, 1 + rng.poisson(3, rows), 0)

    found = compared(visits(1, 4000, 0.02), visits(2, 2000, share).tolist(), kind="integer")
    assert found.columns[0].verdict == verdict


@pytest.mark.parametrize(
    ("then", "share", "new", "verdict"),
    [
        ([0, 1], 0.5, 0.01, "drift"),
        ([101, 102, 205, 999], 0.04, 555, "drift"),
        ([101, 102, 205, 999], 0.0, 555, "ok"),
        (range(18, 90), 1.0, 40.5, "drift"),
    ],
)
def test_values_between_the_few_of_training_are_new_ones(then, share, new, verdict):
    rng = np.random.default_rng(1)
    before, now = (rng.choice(list(then), rows).astype(float) for rows in (3000, 2000))
    now[rng.random(2000) < share] = new
    column = compared(before, now.tolist()).columns[0]
    assert column.verdict == verdict
    assert ("between the values of training" in column.reason) == (verdict == "drift")


def test_values_that_a_small_training_set_lacked_by_chance_are_no_new_ones():
    rng = np.random.default_rng(1)
    for rows in (60, 300, 1000):
        for _ in range(10):
            then, now = (np.round(rng.exponential(20, size)) for size in (rows, 2000))
            assert compared(then, now.tolist()).columns[0].verdict != "drift"


@pytest.mark.parametrize(("kind", "value"), [("number", 1.5), ("category", "a")])
def test_values_where_training_had_none_are_drift_unless_they_are_few(kind, value):
    then = [None] * 1000
    some = compared(then, ([value] * 2 + [None] * 998), kind=kind).columns[0]
    assert (some.verdict, some.reason) == (
        "unknown",
        "the training data have no value in this column",
    )
    many = compared(then, ([value] + [None] * 3) * 250, kind=kind).columns[0]
    assert many.verdict == "drift"
    assert "75.0% missing, 100.0% in training" in many.reason


def test_a_changed_share_of_a_boolean_is_drift():
    column = compared([True, False] * 200, [True] * 90 + [False] * 10, kind="boolean").columns[0]
    assert column.verdict == "drift"


def test_ids_are_compared_by_their_length():
    then = [f"id-{index:06}" for index in range(5000)]
    same = compared(then, [f"id-{index:06}" for index in range(9000, 9500)], kind="text")
    assert same.columns[0].verdict == "ok"
    assert "length of text" in same.columns[0].reason
    other = compared(then, [f"identifier-{index:06}" for index in range(500)], kind="text")
    assert other.columns[0].verdict == "drift"


def test_a_constant_column_is_ok_while_it_stays_and_drifts_when_it_changes():
    assert compared([5.0] * 100, [5.0] * 100).columns[0].verdict == "ok"
    assert compared([5.0] * 100, [5.1] * 100).columns[0].verdict == "drift"


def test_predicted_labels_are_held_against_the_training_labels():
    gauge = gauge_of(NORMAL)
    records = [{"x": value} for value in SAME.tolist()]
    found = judged(gauge, gauge.calls(records, [Prediction(label="a")] * 300))
    assert found.questions.features.answer == "yes"
    assert found.questions.predictions.answer == "no"
    assert found.prediction.kind == "label"


@pytest.mark.parametrize(("shift", "answer"), [(0.0, "yes"), (1.0, "no")])
def test_predicted_values_are_held_against_the_mean_of_the_training_values(shift, answer):
    # Predictions of a regression vary less than what it was trained on.
    gauge = gauge_of(NORMAL, output="value", target=NORMAL)
    records = [{"x": value} for value in SAME.tolist()]
    predictions = [Prediction(value=0.5 * value + shift) for value in SAME.tolist()]
    found = judged(gauge, gauge.calls(records, predictions))
    assert found.questions.predictions.answer == answer
    assert found.prediction.kind == "value"


# --- answers ----------------------------------------------------------------------------------


def test_too_few_rows_are_unknown_and_the_reason_says_how_many_are_needed():
    found = compared(NORMAL, [100.0] * (ROWS_NEEDED - 1))
    answer = found.questions.features
    assert answer.answer == "unknown"
    assert "29 rows" in answer.reason
    assert "30 are needed" in answer.reason
    assert found.columns[0].verdict == "unknown"


def test_an_empty_window_is_unknown_throughout():
    found = compared(NORMAL, [])
    assert found.verdict == "unknown"
    answers = msgspec.to_builtins(found.questions).values()
    assert {item["answer"] for item in answers} == {"unknown"}
    assert "No calls" in found.questions.features.reason


def test_an_all_null_training_column_is_unknown_and_the_others_are_answered():
    kinds = {"x": "number", "empty": "number"}
    gauge = Gauge(reference_profile({"x": NORMAL, "empty": [None] * 400}, kinds, [0] * 400))
    records = [{"x": value, "empty": None} for value in SAME.tolist()]
    found = judged(gauge, gauge.calls(records, []))
    assert [column.verdict for column in found.columns] == ["ok", "unknown"]
    assert found.questions.features.answer == "yes"
    assert found.questions.features.evidence["unknown"] == ["empty"]


def test_one_prediction_out_of_bounds_is_a_no_with_its_share():
    gauge = gauge_of(NORMAL)
    predictions = [Prediction(label="a", within_bounds=index > 0) for index in range(4)]
    found = judged(gauge, gauge.calls([{"x": 0.0}] * 4, predictions))
    assert found.questions.bounds.answer == "no"
    assert found.questions.bounds.evidence["share"] == 0.25
    assert found.verdict == "alert"


def test_performance_is_unknown_without_actuals():
    found = compared(NORMAL, SAME.tolist())
    assert found.questions.performance.answer == "unknown"
    assert found.questions.performance.reason.startswith("no-actuals")
    assert found.verdict == "ok"


def test_a_smaller_budget_asks_for_stronger_evidence():
    now = (SAME[:60] + 0.8).tolist()
    strict = Budget(false_alarms=1, windows=1_000_000_000)
    assert compared(NORMAL, now).columns[0].verdict == "drift"
    assert compared(NORMAL, now, budget=strict).columns[0].verdict == "ok"


def test_the_picture_has_at_most_thirty_bins_with_shares_that_sum_to_one():
    for now in (SAME.tolist(), (SAME * 40).tolist(), (SAME + 1e6).tolist()):
        drawn = compared(NORMAL, now).columns[0].distribution
        assert len(drawn.reference) == len(drawn.window) == len(drawn.edges) - 1 <= 30
        assert sum(drawn.reference) == pytest.approx(1)
        assert sum(drawn.window) == pytest.approx(1)
        assert list(drawn.edges) == sorted(set(drawn.edges))


def test_the_picture_of_many_categories_names_few_and_new_ones():
    then = [f"c{index % 50}" for index in range(1000)]
    drawn = compared(then, [*then, *["new"] * 500], kind="category").columns[0].distribution
    assert len(drawn.labels) == len(drawn.reference) == len(drawn.window) <= 30
    assert "new" in drawn.labels
    assert sum(drawn.window) == pytest.approx(1)


# --- anything at all ----------------------------------------------------------------------------


CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**400), 10**400),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from([1e308, -1e308, 5e-324, 0.0, -0.0, 1.0]),
)
VALUES = st.one_of(
    st.lists(CELLS, max_size=70),
    st.builds(lambda cell, count: [cell] * count, CELLS, st.integers(0, 70)),
    st.lists(st.floats(allow_nan=False), min_size=30, max_size=70),
)


def numbers_in(document):
    if isinstance(document, dict):
        document = list(document.values())
    if isinstance(document, list | tuple):
        for item in document:
            yield from numbers_in(item)
    elif isinstance(document, float):
        yield document


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(["number", "integer", "boolean", "category", "text", "datetime"]),
    output=st.sampled_from(["label", "value"]),
    then=VALUES,
    now=VALUES,
)
def test_any_column_gets_a_verdict_and_never_a_nan(kind, output, then, now):
    gauge = gauge_of(then, kind=kind, output=output, target=then)
    key = "label" if output == "label" else "value"
    numeric = [value if key == "label" or isinstance(value, float) else None for value in now]
    window = gauge.calls(
        [{"x": value} for value in now], [Prediction(**{key: value}) for value in numeric]
    )
    found = judged(gauge, window)
    assert found.columns[0].verdict in {"ok", "drift", "unknown"}
    assert found.columns[0].reason
    assert all(math.isfinite(number) for number in numbers_in(msgspec.to_builtins(found)))
    assert load(dump(found), MonitorReport) == found
