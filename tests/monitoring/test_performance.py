"""Metrics on the actuals against those on the test set, by simulation and at their edges."""

import doctest
import math
import subprocess
import sys
import warnings
from typing import NamedTuple

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from nbmlops.monitoring.performance import (
    LEVEL,
    PerformanceReference,
    PerformanceWindow,
    compare,
    intervals,
    merge,
    outcomes,
    performance_reference,
    testsets,
    window,
)
from nbmlops.monitoring.performance.findings import MATTERS
from nbmlops.records import (
    Column,
    ModelSchema,
    OutputSchema,
    Prediction,
    dump,
    load,
)

LABELS = OutputSchema(kind="label", classes=("0", "1"), class_kind="integer", probabilities=True)
VALUES = OutputSchema(kind="value")
COLUMNS = (Column(name="x", kind="number"), Column(name="where", kind="category"))


def schema_of(output):
    return ModelSchema(columns=COLUMNS, output=output)


class Rows(NamedTuple):
    """What a model was asked, what it answered, and what was true."""

    output: OutputSchema
    features: dict
    truth: np.ndarray
    found: np.ndarray
    shares: np.ndarray | None = None


def labelled(random, rows, *, shift=0.0, noise=0.0):
    """Return answers of a calibrated classifier; ``noise`` is how many truths are turned over."""
    x = random.normal(shift, 1, rows)
    share = 1 / (1 + np.exp(-2.5 * x))
    truth = (random.random(rows) < share) ^ (random.random(rows) < noise)
    features = {"x": x, "where": random.choice(["a", "b"], rows)}
    shares = np.stack([1 - share, share], axis=1)
    return Rows(LABELS, features, truth.astype(int), (share > 0.5).astype(int), shares)


def valued(random, rows, *, shift=0.0, noise=0.0):
    """Return answers of a regression whose errors grow with x, and with ``noise`` everywhere."""
    x = random.normal(shift, 1, rows)
    where = random.choice(["a", "b"], rows)
    size = np.exp(0.5 * x) * np.where(where == "a", 1.0, 1.5) * (1 + noise)
    return Rows(VALUES, {"x": x, "where": where}, 3 * x + size * random.normal(size=rows), 3 * x)


MAKERS = {"labels": labelled, "values": valued}


def reference_of(rows):
    return performance_reference(
        schema_of(rows.output), rows.truth, rows.found, rows.shares, rows.features
    )


def predictions_of(rows):
    if rows.shares is None:
        return [Prediction(value=value) for value in rows.found.tolist()]
    return [
        Prediction(label=label, probabilities=dict(zip(("0", "1"), shares, strict=True)))
        for label, shares in zip(rows.found.tolist(), rows.shares.tolist(), strict=True)
    ]


def window_of(reference, rows, known=None):
    truth = rows.truth.tolist()
    if known is not None:
        truth = [one if index < known else None for index, one in enumerate(truth)]
    features = {name: values.tolist() for name, values in rows.features.items()}
    return window(reference, schema_of(rows.output), predictions_of(rows), truth, features)


def judged(reference, rows, known=None, **options):
    return compare(reference, window_of(reference, rows, known), **options)


def quickly(reference, rows):
    """Count a window from arrays, for simulations."""
    read = outcomes.read_arrays(schema_of(rows.output), rows.truth, rows.found, rows.shares)
    cells = testsets._cells(reference.calibration, reference.learned, read, rows.features)
    second = "1" if rows.shares is not None else None
    return outcomes.counted(read, reference.scales, second, cells)


def without_actuals(counts):
    return PerformanceWindow(rows=counts.rows, strata=counts.strata)


def by_name(found):
    return {metric.name: metric for metric in found}


@pytest.fixture
def random():
    return np.random.default_rng(7)


# --- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [300, 20_000])
def test_metrics_of_labels_are_those_of_scikit_learn(random, rows):
    made = labelled(random, rows)
    score = made.shares[:, 1]
    expected = {
        "accuracy": sklearn.accuracy_score(made.truth, made.found),
        "log_loss": sklearn.log_loss(made.truth, made.shares),
        "roc_auc": sklearn.roc_auc_score(made.truth, score),
    }
    reference = reference_of(made)
    now, _ = judged(reference, made)
    exactly = 1e-5 if rows > 512 else 1e-12  # so many distinct scores are kept as they are
    for found in (reference.metrics, now):
        assert {one.name: one.value for one in found} == pytest.approx(expected, abs=exactly)


def test_metrics_of_values_are_those_of_scikit_learn(random):
    made = valued(random, 2000)
    expected = {
        "mean_absolute_error": sklearn.mean_absolute_error(made.truth, made.found),
        "root_mean_squared_error": sklearn.mean_squared_error(made.truth, made.found) ** 0.5,
        "r2": sklearn.r2_score(made.truth, made.found),
    }
    reference = reference_of(made)
    other = valued(random, 500, shift=3)
    now, _ = judged(reference, other)
    assert {one.name: one.value for one in reference.metrics} == pytest.approx(expected)
    assert by_name(now)["r2"].value == pytest.approx(sklearn.r2_score(other.truth, other.found))


def test_many_classes_have_accuracy_and_logarithmic_loss(random):
    shares = random.dirichlet([1, 2, 3], 600)
    truth = np.array(["a", "b", "c"])[[random.choice(3, p=row) for row in shares]]
    found = np.array(["a", "b", "c"])[shares.argmax(axis=1)]
    output = OutputSchema(kind="label", classes=("a", "b", "c"), probabilities=True)
    reference = performance_reference(schema_of(output), truth, found, shares)
    assert {one.name: one.value for one in reference.metrics} == pytest.approx(
        {
            "accuracy": sklearn.accuracy_score(truth, found),
            "log_loss": sklearn.log_loss(truth, shares),
        }
    )
    assert len(reference.calibration.labels) == 3


def test_a_label_that_is_none_of_the_classes_was_not_right():
    schema = schema_of(LABELS)
    counts = window(None, schema, [Prediction(label=None), Prediction(label=1)], [1, 1])
    assert (counts.judged, counts.right) == (2, 1)


# --- intervals ----------------------------------------------------------------------------------


def covered(random, make, truth, repeats=600):
    """Return how often a 95 % interval holds what is true, and how often it lies above that."""
    z = intervals.quantile(0.025)
    ends = np.array([make().limits(z) for _ in range(repeats)])
    return float(((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean())


@pytest.mark.parametrize(("share", "rows"), [(0.98, 60), (0.9, 400), (0.6, 50)])
def test_the_interval_of_an_accuracy_covers_it(random, share, rows):
    def made():
        right = int(random.binomial(rows, share))
        return intervals.Measured(
            right / rows, rows, lambda z: intervals.share_limits(right, rows, z)
        )

    assert covered(random, made, share) >= 0.94


def test_the_exact_interval_of_a_share_is_the_quantile_of_a_beta_distribution():
    from scipy.stats import beta

    for marked, rows in [(0, 50), (7, 100), (199, 100_000), (93, 100), (50, 50), (2.5, 33.3)]:
        low = 0 if marked == 0 else beta.ppf(0.0025, marked, rows - marked + 1)
        high = 1 if marked == rows else beta.ppf(0.9975, marked + 1, rows - marked)
        found = intervals.share_limits(marked, rows, intervals.quantile(0.0025))
        assert found == pytest.approx((low, high), abs=1e-7)


def test_the_intervals_of_values_cover_them(random):
    big = by_name(reference_of(valued(random, 100_000)).metrics)
    found = [by_name(reference_of(valued(random, 400)).metrics) for _ in range(150)]
    inside = {
        name: np.mean([one[name].low <= big[name].value <= one[name].high for one in found])
        for name in big
    }
    assert inside["mean_absolute_error"] >= 0.92
    assert min(inside.values()) >= 0.88  # heavy tails; these decide nothing


@pytest.mark.parametrize("rows", [60, 500])
def test_the_interval_of_an_area_covers_it(random, rows):
    big = by_name(reference_of(labelled(random, 100_000)).metrics)["roc_auc"].value
    found = [by_name(reference_of(labelled(random, rows)).metrics)["roc_auc"] for _ in range(150)]
    assert np.mean([one.low <= big <= one.high for one in found]) >= 0.92


def test_the_examples_of_the_docstrings_hold():
    assert doctest.testmod(intervals).failed == 0


def test_a_perfect_test_set_is_not_taken_for_certainty():
    z = intervals.quantile(0.025)
    assert intervals.share_limits(40, 40, z)[0] == pytest.approx(0.912, abs=1e-3)
    apart = np.array([20.0, 0.0]), np.array([0.0, 20.0])
    low, high = intervals.area_limits(*apart, z)
    assert 0.7 < low < 0.95
    assert high == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(("rows", "calls"), [(150, 400), (500, 1000)])
def test_a_thousand_clean_windows_raise_no_more_alarms_than_the_level_allows(kind, rows, calls):
    random = np.random.default_rng(rows)
    make, alarms, estimated = MAKERS[kind], 0, 0
    for _ in range(1000):
        reference = reference_of(make(random, rows))
        counts = quickly(reference, make(random, calls))
        alarms += compare(reference, counts, level=0.01)[1].answer == "no"
        estimated += compare(reference, without_actuals(counts), level=0.01)[1].answer == "no"
    # Ten are expected at the most; 99 of 100 such counts are up to 18.
    assert alarms <= 18
    assert estimated <= 18


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "calls", "noise"),
    [
        # The smallest changes that four of five windows show, with a large test set.
        ("labels", 500, 0.085),  # accuracy -0.053, area -0.068
        ("labels", 5000, 0.047),  # -0.029, -0.037
        ("labels", 50_000, 0.037),  # -0.023, -0.029
        ("values", 500, 0.3),
        ("values", 5000, 0.16),
        ("values", 50_000, 0.12),
    ],
)
def test_the_smallest_change_that_is_documented_is_found(random, kind, calls, noise):
    make = MAKERS[kind]
    reference = reference_of(make(random, 20_000))
    answers = [
        compare(reference, quickly(reference, make(random, calls, noise=noise)))[1].answer
        for _ in range(15)
    ]
    assert answers.count("no") >= 9
    assert "yes" not in answers


@pytest.mark.slow
@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.05, 0.2])
def test_windows_of_any_size_never_contradict_each_other(random, kind, noise):
    make = MAKERS[kind]
    for rows in (150, 5000):
        reference = reference_of(make(random, rows))
        answers = {
            compare(reference, quickly(reference, make(random, calls, noise=noise)))[1].answer
            for calls in (500, 5000, 50_000)
        }
        assert not {"yes", "no"} <= answers


# --- answers ------------------------------------------------------------------------------------


def test_metrics_as_on_the_test_set_are_answered_with_yes(random):
    found, told = judged(reference_of(labelled(random, 30_000)), labelled(random, 30_000))
    assert told.answer == "yes"
    assert told.reason.startswith("Accuracy is 0.8")
    assert told.reason.endswith("; a fall by 0.02 is excluded.")
    assert told.evidence["actuals"] == told.evidence["rows"] == 30_000
    assert not any(metric.worse or metric.estimated for metric in found)


def test_worse_metrics_are_answered_with_no_and_by_how_much(random):
    found, told = judged(reference_of(valued(random, 5000)), valued(random, 5000, noise=0.3))
    assert told.answer == "no"
    assert told.reason.startswith("Mean absolute error rose from 1.")
    assert told.evidence["worse"] == ["mean_absolute_error"]
    metric = by_name(found)["mean_absolute_error"]
    assert metric.worse
    assert not metric.greater_is_better
    assert metric.difference_low > 0


def test_too_few_actuals_say_how_many_more_are_needed(random):
    reference = reference_of(labelled(random, 30_000))
    _, told = judged(reference, labelled(random, 1000), known=200)
    assert told.answer == "unknown"
    assert "more actuals are needed" in told.reason
    more = told.evidence["actuals_needed"]
    assert 1000 < more < 5000
    enough = [judged(reference, labelled(random, 2 * more))[1].answer for _ in range(5)]
    assert enough.count("yes") >= 3


def test_a_small_test_set_is_named_as_what_is_missing(random):
    _, told = judged(reference_of(labelled(random, 100)), labelled(random, 3000))
    assert told.answer == "unknown"
    assert told.reason.endswith("the test set is too small to exclude a fall by 0.02.")
    assert told.evidence["actuals_needed"] is None


def test_a_version_without_a_test_set_says_how_one_is_kept(random):
    rows = labelled(random, 100)
    found, told = compare(None, window_of(None, rows))
    assert told.answer == "unknown"
    assert "log_model(..., test=(X, y))" in told.reason
    assert by_name(found)["accuracy"].value == float((rows.truth == rows.found).mean())
    assert by_name(found)["accuracy"].difference is None
    _, told = compare(None, window_of(None, rows, known=0))
    assert told.reason.startswith("no-actuals: ")
    assert "log_model(..., test=(X, y))" in told.reason


def test_nothing_to_estimate_from_is_no_actuals(random):
    reference = performance_reference(schema_of(VALUES), [1.0, 2.0] * 50, [1.1, 2.1] * 50)
    counts = window(reference, schema_of(VALUES), [Prediction(value=1.0)] * 100, [])
    found, told = compare(reference, counts)
    assert found == ()
    assert told.reason == "no-actuals: 0 actuals of 100 rows have come, 30 are needed."
    _, told = compare(reference, PerformanceWindow())
    assert told.reason == "no-actuals: no calls in the window."


def test_a_rare_class_is_not_judged_by_accuracy_alone(random):
    reference = reference_of(labelled(random, 20_000))
    rows = labelled(random, 20_000)
    same = rows.truth == 1
    ones = Rows(
        LABELS,
        {name: values[same] for name, values in rows.features.items()},
        rows.truth[same],
        rows.found[same],
        rows.shares[same],
    )
    found, told = judged(reference, ones)
    assert told.answer == "unknown"
    assert told.reason.endswith("needs 10 actuals of either class.")
    assert by_name(found)["roc_auc"].estimated


def test_repeated_rows_count_as_fewer(random):
    reference = reference_of(valued(random, 5000))
    counts = window_of(reference, valued(random, 3000, noise=0.16))
    whole, _ = compare(reference, counts)
    tenth, _ = compare(reference, counts, independent_share=0.1)
    assert whole[0].value == tenth[0].value
    assert tenth[0].high - tenth[0].low > 2.5 * (whole[0].high - whole[0].low)


def test_a_lower_level_takes_more_to_say_no(random):
    reference = reference_of(labelled(random, 1000))
    counts = quickly(reference, labelled(random, 500, noise=0.12))
    assert compare(reference, counts)[1].answer == "no"
    assert compare(reference, counts, level=1e-12)[1].answer == "unknown"
    assert LEVEL == 0.0025
    assert set(MATTERS) == {"accuracy", "roc_auc", "mean_absolute_error"}


# --- estimates ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [-1.0, 0.0, 0.7])
def test_calibrated_probabilities_follow_a_shift_of_the_inputs(random, shift):
    reference = reference_of(labelled(random, 5000))
    later = labelled(random, 5000, shift=shift)
    realised = by_name(judged(reference, later)[0])
    found, told = judged(reference, later, known=10)
    assert told.answer == "unknown"
    assert told.reason.endswith("10 actuals of 5,000 rows have come, 30 are needed.")
    for name, estimated in by_name(found).items():
        assert estimated.estimated
        assert estimated.rows == 5000
        assert estimated.low <= realised[name].value <= estimated.high
        assert estimated.value == pytest.approx(realised[name].value, abs=0.02)


def test_probabilities_that_are_too_sure_are_calibrated_first(random):
    made = labelled(random, 5000)
    sure = made._replace(shares=made.shares**4 / (made.shares**4).sum(axis=1, keepdims=True))
    later = labelled(random, 5000, shift=0.5)
    sure_later = later._replace(
        shares=later.shares**4 / (later.shares**4).sum(axis=1, keepdims=True)
    )
    found, _ = judged(reference_of(sure), sure_later, known=0)
    right = float((later.truth == later.found).mean())
    assert by_name(found)["accuracy"].value == pytest.approx(right, abs=0.015)
    assert sure_later.shares.max(axis=1).mean() > right + 0.05


def test_calibrated_probabilities_find_that_inputs_became_harder(random):
    made = labelled(random, 20_000)
    easy = np.abs(made.features["x"]) > 0.8
    clear = Rows(
        LABELS,
        {name: values[easy] for name, values in made.features.items()},
        made.truth[easy],
        made.found[easy],
        made.shares[easy],
    )
    mixed = reference_of(Rows(*(clear[:1]), *(_joined(clear, labelled(random, 2000))[1:])))
    _, told = judged(mixed, labelled(random, 5000, shift=0.0), known=0)
    assert told.answer == "no"
    assert told.reason.startswith("Accuracy is estimated to have fallen from 0.9")
    assert told.evidence["estimated"]


def _joined(one, other):
    return Rows(
        one.output,
        {name: np.concatenate([one.features[name], other.features[name]]) for name in one.features},
        *(np.concatenate([one[at], other[at]]) for at in (2, 3, 4)),
    )


@pytest.mark.parametrize("shift", [-1.0, -0.5, 0.0, 0.5])
def test_the_learned_loss_follows_a_shift_of_the_inputs(random, shift):
    reference = reference_of(valued(random, 5000))
    later = valued(random, 5000, shift=shift)
    realised = by_name(judged(reference, later)[0])
    found = by_name(judged(reference, later, known=0)[0])
    assert set(found) == {"mean_absolute_error", "root_mean_squared_error"}
    for name, metric in found.items():
        assert metric.estimated
        assert metric.value == pytest.approx(realised[name].value, rel=0.12)
    if shift:
        first = found["mean_absolute_error"]
        assert (first.difference > 0) == (shift > 0)
        assert first.difference_low * first.difference_high > 0


def test_the_learned_loss_looks_at_categories(random):
    where = random.choice(["near", "far"], 4000)
    errors = random.normal(size=4000) * np.where(where == "far", 5.0, 1.0)
    schema = schema_of(VALUES)
    found = np.zeros(4000)
    reference = performance_reference(schema, errors, found, features={"where": where})
    far = window(reference, schema, [Prediction(value=0.0)] * 500, [], {"where": ["far"] * 500})
    metric = compare(reference, far)[0][0]
    assert metric.value == pytest.approx(5 * math.sqrt(2 / math.pi), rel=0.1)


def test_labels_without_probabilities_are_estimated_by_a_learned_loss(random):
    made = labelled(random, 4000)._replace(shares=None)
    schema = schema_of(OutputSchema(kind="label", classes=("0", "1"), class_kind="integer"))
    reference = performance_reference(schema, made.truth, made.found, None, made.features)
    later = labelled(random, 3000, shift=1.5)
    answers = [Prediction(label=label) for label in later.found.tolist()]
    counts = window(reference, schema, answers, [], later.features)
    (metric,) = compare(reference, counts)[0]
    right = float((later.truth == later.found).mean())
    assert metric.name == "accuracy"
    assert metric.value == pytest.approx(right, abs=0.03)


def test_a_column_that_is_kept_out_of_the_log_is_not_estimated_from(random):
    reference = reference_of(valued(random, 5000))
    later = valued(random, 500)
    hidden = later._replace(features={"x": later.features["x"]})
    found, told = judged(reference, hidden, known=0)
    assert found == ()
    assert told.reason.startswith("no-actuals")


@pytest.mark.slow
def test_intervals_of_estimates_hold_what_the_actuals_show_later(random):
    inside = []
    for _ in range(200):
        reference = reference_of(labelled(random, 2000))
        counts = quickly(reference, labelled(random, 1000, shift=0.5))
        realised = by_name(compare(reference, counts)[0])
        found = by_name(compare(reference, without_actuals(counts))[0])
        inside.append(
            [found[name].low <= realised[name].value <= found[name].high for name in found]
        )
    assert np.mean(inside, axis=0).min() >= 0.9


# --- keeping ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKERS)
def test_parts_of_a_window_add_up_to_the_whole(random, kind):
    reference = reference_of(MAKERS[kind](random, 2000))
    rows = MAKERS[kind](random, 999)
    whole = window_of(reference, rows, known=600)
    answers, truth = predictions_of(rows), rows.truth.tolist()
    truth = [one if index < 600 else None for index, one in enumerate(truth)]
    parts = [
        window(
            reference,
            schema_of(rows.output),
            answers[start : start + 100],
            truth[start : start + 100],
            {name: values[start : start + 100] for name, values in rows.features.items()},
        )
        for start in range(0, 999, 100)
    ]
    one, other = compare(reference, whole), compare(reference, merge([*parts, PerformanceWindow()]))
    assert one[1].answer == other[1].answer
    assert msgspec.to_builtins(merge(parts))["strata"] == msgspec.to_builtins(whole)["strata"]
    for a, b in zip(one[0], other[0], strict=True):
        assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), rel=1e-9)
    assert merge([]) == PerformanceWindow()


@pytest.mark.parametrize("kind", MAKERS)
def test_what_is_kept_is_small_and_the_same_for_the_same_data(kind):
    def made(rows):
        return reference_of(MAKERS[kind](np.random.default_rng(3), rows))

    reference = made(30_000)
    assert dump(reference) == dump(made(30_000))
    assert len(dump(reference)) < 40_000
    assert load(dump(reference), PerformanceReference) == reference
    counts = window_of(reference, MAKERS[kind](np.random.default_rng(4), 500))
    assert load(dump(counts), PerformanceWindow) == counts
    assert len(dump(counts)) < 10_000


def test_columns_of_pandas_are_taken_as_they_come(random):
    made = valued(random, 500)
    table = pd.DataFrame(made.features | {"gap": pd.array([1, None] * 250, dtype="Int64")})
    schema = ModelSchema(
        columns=(*COLUMNS, Column(name="gap", kind="integer", nullable=True)), output=VALUES
    )
    table["where"] = table["where"].astype("category")
    features = {name: table[name] for name in table.columns}
    truth = pd.Series(made.truth)
    reference = performance_reference(schema, truth, pd.Series(made.found), None, features)
    plain = performance_reference(schema, made.truth, made.found, None, made.features)
    assert reference.metrics == plain.metrics


def test_importing_it_brings_numpy_alone():
    code = (
        "import sys, nbmlops.monitoring.performance; print([m for m in ('pandas', 'scipy',"
        " 'sklearn', 'matplotlib', 'plotly') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- bad input ----------------------------------------------------------------------------------

odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([10**400, -(2**70), 1e308, -1e308, math.inf, -math.inf, math.nan, 1e-320]),
    st.floats(),
    st.sampled_from(["0", "1", "a", "", "nan"]),
    st.just(msgspec.UNSET),
    st.just([1]),
    st.just({"a": 1}),
)
number = st.one_of(st.none(), st.floats(), st.sampled_from([0.0, 1.0, 1e308, -1e308, 5e-324]))
answers = st.one_of(
    st.builds(
        Prediction,
        label=odd,
        probabilities=st.one_of(
            st.none(),
            st.dictionaries(st.sampled_from(["0", "1", "a"]), number),
            st.fixed_dictionaries({"0": number, "1": number}),
        ),
    ),
    st.builds(Prediction, value=number),
    st.just(Prediction()),
)
outputs = st.sampled_from(
    [
        LABELS,
        VALUES,
        OutputSchema(kind="label"),
        OutputSchema(kind="label", classes=("a",), probabilities=True),
        OutputSchema(kind="label", classes=("false", "true"), class_kind="boolean"),
        OutputSchema(kind="label", classes=("0.0", "1.0"), class_kind="number", probabilities=True),
    ]
)


def finite(document):
    if isinstance(document, dict):
        return all(map(finite, document.values()))
    if isinstance(document, list | tuple):
        return all(map(finite, document))
    return not isinstance(document, float) or math.isfinite(document)


@settings(max_examples=300, deadline=None)
@given(
    output=outputs,
    test=st.lists(st.tuples(odd, odd, number), max_size=40),
    copies=st.integers(1, 5),
    calls=st.lists(st.tuples(answers, odd, odd), max_size=40),
    needed=st.sampled_from([0, 1, 30]),
    lengths=st.sampled_from([0, 1, 40]),
)
def test_no_input_raises_or_becomes_a_nan(output, test, copies, calls, needed, lengths):
    schema = schema_of(output)
    test, calls = test * copies, calls * copies
    shares = np.array([[0.0 if one is None else one, 0.5] for *_, one in test]).reshape(-1, 2)
    truth, found = np.empty(len(test), dtype=object), np.empty(len(test), dtype=object)
    for index, (one, other, _) in enumerate(test):
        truth[index], found[index] = one, other
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reference = performance_reference(
            schema, truth, found, shares, {"x": [one for *_, one in test], "where": list(found)}
        )
        assert finite(msgspec.to_builtins(reference))
        features = {"x": [one for *_, one in calls], "where": [one for _, one, _ in calls]}
        predictions, actuals = [one for one, *_ in calls], [one for _, one, _ in calls]
        for kept in (reference, None):
            parts = [
                window(kept, schema, predictions, actuals[:lengths], features),
                window(kept, schema, predictions, actuals),
                window(kept, schema, [], []),
            ]
            counts = merge(parts)
            assert load(dump(counts), PerformanceWindow) == counts
            metrics, told = compare(kept, counts, rows_needed=needed)
            assert finite(msgspec.to_builtins((metrics, told)))
            assert all(metric.value is not None for metric in metrics)
            assert told.reason
