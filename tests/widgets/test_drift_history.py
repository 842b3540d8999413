from __future__ import annotations

import json
import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import BEGIN, SLICES, hostile, metric, sample, watched

from nbmlops.records import Judgement, Metric, Slice, Traffic, replace
from nbmlops.widgets.drift_document import drift_document
from nbmlops.widgets.drift_history import timeline
from nbmlops.widgets.drift_report import html, text
from nbmlops.widgets.drift_timeline import line, steps


@pytest.fixture(scope="module")
def shown():
    return timeline(watched())


def chart(shown, name):
    return next(one for one in shown.charts if one.name == name)


def slices(count, each=timedelta(hours=1), **more):
    return tuple(
        Slice(
            since=BEGIN + index * each,
            until=BEGIN + (index + 1) * each,
            rows=10,
            verdict="ok",
            **more,
        )
        for index in range(count)
    )


def test_without_a_history_there_is_no_timeline():
    assert timeline(sample()) is None


def test_the_prediction_comes_first_and_then_the_features_that_drift_most(shown):
    names = [row.name for row in shown.rows]
    assert names[:4] == ["prediction", "feature 7", "clinic", "feature 12"]
    assert names[-1] == "empty"
    assert len(names) == 33


def test_levels_count_in_thresholds_of_the_column(shown):
    row = shown.rows[1]
    assert row.threshold == 0.1
    assert set(row.levels[: SLICES // 2]) <= {0, 1, None}
    assert set(row.levels[SLICES // 2 :]) == {5}
    assert row.told == "drift in 24 of 48 slices"


def test_what_drifts_without_a_size_is_over_any_threshold():
    report = replace(sample(), history=slices(1, columns={"feature 7": Judgement(verdict="drift")}))
    row = next(row for row in timeline(report).rows if row.name == "feature 7")
    assert row.levels == (5,)


def test_a_column_of_which_a_slice_says_nothing_is_blank_there():
    report = replace(sample(), history=slices(2))
    assert {row.verdicts for row in timeline(report).rows} == {(None, None)}


def test_the_axis_tells_the_day_where_it_changes(shown):
    assert [(tick.time, tick.day) for tick in shown.ticks if tick.day and not tick.again] == [
        ("09:30", "2026-11-19"),
        ("00:30", "2026-11-20"),
    ]
    # The tick of 00:30 has no room in a narrow picture: there the next one tells its day.
    assert [tick.time for tick in shown.ticks if tick.again and tick.day] == ["03:30"]
    days = replace(
        watched(),
        history=tuple(
            replace(
                one,
                since=BEGIN.replace(hour=0, minute=0) + timedelta(days=index),
                until=BEGIN.replace(hour=0, minute=0) + timedelta(days=index + 1),
            )
            for index, one in enumerate(watched().history)
        ),
    )
    assert {tick.time for tick in timeline(days).ticks} == {""}


def test_a_metric_has_what_is_realised_what_is_estimated_and_the_test_set(shown):
    accuracy = chart(shown, "accuracy")
    assert [(one.name, one.mark, len(one.points)) for one in accuracy.series] == [
        ("estimated", "hollow", 47),
        ("realised", "solid", 39),
    ]
    assert accuracy.band.text == "0.95 (0.93 to 0.97)"
    assert accuracy.band.low < accuracy.band.at < accuracy.band.high
    assert [key.text for key in accuracy.keys] == [
        "realised 0.871",
        "estimated 0.889",
        "test set 0.95",
    ]


def test_traffic_has_rows_errors_answers_out_of_bounds_and_latencies(shown):
    names = [one.name for one in shown.charts if one.kind == "traffic"]
    assert names == ["rows", "failed calls", "out of bounds", "latency, ms"]
    assert [tick.text for tick in chart(shown, "rows").ticks] == ["0", "250"]
    assert [one.name for one in chart(shown, "latency, ms").series] == ["p99", "p50"]


def test_what_is_not_known_of_traffic_has_no_chart():
    report = replace(sample(), history=slices(3, traffic=Traffic(calls=1, rows=10)))
    assert [one.name for one in timeline(report).charts] == ["rows"]


def test_a_line_of_text_has_the_worst_slice_of_each_cell(shown):
    assert line(shown.rows[1], 48)[20:28] == "▁▁▁▁████"
    assert line(shown.rows[1], 2) == "▂█"
    assert "?" in line(shown.rows[-1], 48)
    assert len(steps(chart(shown, "rows").series[0], SLICES, 24)) == 24


def test_a_part_of_the_time_is_shown_below_the_whole_of_it():
    whole = watched()
    part = replace(sample(), metrics=whole.metrics)
    document = drift_document(part, history=whole.history)
    assert len(document["timeline"]["pieces"]) == SLICES
    assert document["report"]["verdict"] == part.verdict
    json.dumps(document, allow_nan=False)


numbers = st.none() | st.floats() | st.integers(-5, 5).map(float)


@st.composite
def metrics(draw):
    name = draw(st.text(max_size=8))
    ends = {field: draw(numbers) for field in Metric.__struct_fields__[1:10]}
    flags = {field: draw(st.booleans()) for field in ("estimated", "worse", "greater_is_better")}
    return Metric(name=name, rows=draw(st.integers(0, 10**12)), **ends, **flags)


@given(
    st.lists(metrics(), max_size=3),
    st.lists(numbers, min_size=1, max_size=4),
    st.lists(st.integers(0, 10**9), min_size=1, max_size=4),
)
def test_any_numbers_have_places_between_0_and_1_and_every_form(some, effects, counts):
    history = tuple(
        replace(
            one,
            rows=counts[index % len(counts)],
            columns={"feature 7": Judgement(verdict="ok", effect=effects[index % len(effects)])},
            metrics=tuple(some),
            traffic=Traffic(
                calls=1, rows=1, failed=counts[0], latency_p50_ms=effects[0], latency_p99_ms=1.0
            ),
        )
        for index, one in enumerate(slices(5))
    )
    report = replace(PLAIN, history=history, metrics=tuple(some))
    for one in timeline(report).charts:
        places = [tick.at for tick in one.ticks]
        for point in (point for series in one.series for point in series.points):
            places += [point.at, *(end for end in (point.low, point.high) if end is not None)]
        if one.band:
            places += [one.band.low, one.band.at, one.band.high]
        assert all(math.isfinite(place) and 0 <= place <= 1 for place in places)
    json.dumps(drift_document(report)["timeline"], allow_nan=False)
    assert text(report)
    assert html(report)


PLAIN = hostile()


def test_one_slice_and_two_hundred_have_every_form():
    for count in (1, 200):
        report = replace(sample(), history=slices(count, metrics=(metric("accuracy", 0.9),)))
        assert text(report)
        assert html(report).count("nbm-cells") > 30
