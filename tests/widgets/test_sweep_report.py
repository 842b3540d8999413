"""A sweep's document, the geometry of its pictures, and the text, HTML and PNG made from it."""

from __future__ import annotations

import json

import pytest
from run_samples import NOW, SPACE, hostile_sweep, sweep, trial, wide_space
from samples import PAYLOADS

from nbmlops.records import Dimension, Status, replace
from nbmlops.widgets import progress, sweep_axes
from nbmlops.widgets.sweep_document import TONES, ranked, sweep_document
from nbmlops.widgets.sweep_picture import png
from nbmlops.widgets.sweep_report import history_svg, html, parallel_svg, text


def shown(record, **more):
    return sweep_document(record, now=NOW, **more)


def axes(*space, trials=()):
    return sweep_axes.parameter_axes(sweep(space=space, trials=trials, best=None))


# --- the geometry -------------------------------------------------------------------------------


def test_numeric_choices_lie_at_their_size_with_a_tick_each():
    [axis] = axes(Dimension(name="depth", kind="choices", choices=(2, 4, 8)))
    assert axis.kind == "linear"
    assert [(tick.text, tick.at) for tick in axis.ticks] == [("2", 0.0), ("4", 0.3333), ("8", 1.0)]


def test_choices_over_orders_of_magnitude_lie_on_a_logarithmic_axis():
    [axis] = axes(Dimension(name="rate", kind="choices", choices=(0.001, 0.01, 0.1)))
    assert axis.kind == "log"
    assert [sweep_axes.place(axis, value) for value in (0.001, 0.01, 0.1)] == [0.0, 0.5, 1.0]
    assert sweep_axes.place(axis, 0) is None


def test_a_logarithmic_range_has_its_powers_of_ten_as_ticks():
    [axis] = axes(Dimension(name="rate", kind="numbers", low=1e-4, high=1e-1, log=True))
    assert [tick.text for tick in axis.ticks] == ["0.0001", "0.001", "0.01", "0.1"]
    [short] = axes(Dimension(name="rate", kind="numbers", low=2, high=6, log=True))
    assert [tick.text for tick in short.ticks] == ["2", "6"]


def test_words_booleans_and_none_lie_evenly_as_categories():
    [axis] = axes(Dimension(name="solver", kind="choices", choices=("a", None, True)))
    assert axis.choices == ("a", "None", "True")
    places = [sweep_axes.place(axis, value) for value in ("a", None, True, "b")]
    assert places == [0.0, 0.5, 1.0, None]


def test_round_numbers_are_ticks_and_stay_on_the_axis():
    [axis] = axes(Dimension(name="n", kind="integers", low=50, high=400))
    assert [tick.text for tick in axis.ticks] == ["100", "200", "300", "400"]
    assert all(0 <= tick.at <= 1 for tick in axis.ticks)


@pytest.mark.parametrize("values", [(), (0.5,), (0.5, 0.5), (float("nan"), None)])
def test_a_metric_without_a_spread_has_an_axis_all_the_same(values):
    trials = tuple(
        replace(trial(number), value=value) for number, value in enumerate(values, start=1)
    )
    axis = sweep_axes.metric_axis(sweep(trials=trials, best=None))
    for value in values:
        assert sweep_axes.place(axis, value) in (0.5, None)
    json.dumps(shown(sweep(trials=trials, best=None)), allow_nan=False)


# --- the document -------------------------------------------------------------------------------


def test_trials_are_best_first_and_those_without_a_value_last():
    numbers = [one.number for one in ranked(sweep())]
    assert numbers[:3] == [6, 12, 11]
    assert numbers[-3:] == [5, 13, 14]
    least = sweep(direction="minimize")
    assert ranked(least)[0].number == 7


def test_tones_run_from_the_worst_to_the_best():
    tones = [one["tone"] for one in shown(sweep())["trials"]]
    valued = [tone for tone in tones if tone is not None]
    assert valued == sorted(valued, reverse=True)
    assert (valued[0], valued[-1]) == (TONES - 1, 0)


def test_equal_values_have_one_tone():
    trials = tuple(replace(trial(number), value=0.5) for number in (1, 2, 3))
    assert {one["tone"] for one in shown(sweep(trials=trials, best=1))["trials"]} == {TONES - 1}


def test_the_best_comes_with_its_parameters_and_the_command_that_runs_it_again():
    best = shown(sweep(), prompt="nbmlops")["best"]
    assert (best["number"], best["value"]) == (6, "0.93")
    assert best["given"] == (
        "max_depth=2, learning_rate=0.1, solver=newton-cholesky, n_estimators=85"
    )
    assert best["command"] == "nbmlops rerun train-20261120-093006-aaaa"
    assert shown(sweep(0, 2, 20))["best"] is None


def test_counts_and_history_follow_the_trials():
    document = shown(sweep())
    assert document["counts"]["told"] == "12 of 20 trials done, 2 running, 1 without success"
    history = document["history"]["points"]
    assert [point["number"] for point in history] == [1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12]
    bests = [point["best"] for point in history]
    assert bests == sorted(bests)


def test_a_sweep_of_thousands_stays_a_small_document():
    trials = tuple(replace(trial(number), value=number / 5000) for number in range(1, 5001))
    document = shown(sweep(5000, 0, 5000, trials=trials, best=5000))
    assert document["left"] == "… and 4,500 more trials"
    assert document["trials"][0]["number"] == 5000
    assert len(json.dumps(document)) < 2_000_000
    assert "… and 4,500 more trials" in html(document)


def test_one_line_tells_how_far_a_sweep_is_and_a_new_one_when_a_trial_ends():
    record = sweep()
    line = progress.sweep_line(record)
    assert line == (
        "● running sweep-train-20261120-093000-k3q9: 12 of 20 trials done, 2 running,"
        " best accuracy=0.93 (trial 6)"
    )
    assert progress.sweep_changes(None, record) == [line]
    assert progress.sweep_changes(record, replace(record, parallel=3)) == []
    assert len(progress.sweep_changes(record, sweep(13))) == 1


# --- text, HTML, pictures -----------------------------------------------------------------------


def test_the_text_has_the_best_its_command_and_a_row_for_each_trial():
    told = text(shown(sweep()))
    assert "best: accuracy=0.93 by trial 6: max_depth=2" in told
    assert "run it again: %mlops rerun train-20261120-093006-aaaa" in told
    assert "  6 ★    0.93" in told
    assert "✕ failed" in told
    assert "%mlops cancel sweep-train-20261120-093000-k3q9" in told
    assert "goes on" in text(shown(sweep(), detached=True))


@pytest.mark.parametrize(
    "record",
    [
        sweep(0, 0, 20),
        sweep(0, 1, 20),
        sweep(1, 0, 20),
        sweep(40, 0, 40, SPACE[:1]),
        sweep(40, 0, 40, wide_space(8)),
        sweep(3, 0, 3, metric=None),
        sweep(0, 0, 20, status=Status.FAILED),
    ],
    ids=["none", "one-running", "one", "one-parameter", "eight", "no-metric", "failed"],
)
def test_few_and_many_trials_and_parameters_can_be_drawn(record):
    document = shown(record)
    assert json.loads(json.dumps(document)) == document
    assert record.sweep_id in text(document)
    assert record.sweep_id in html(document)
    assert png(document).startswith(b"\x89PNG")
    lines = parallel_svg(document).count("<polyline")
    assert lines == sum(one.value is not None for one in record.trials)
    assert history_svg(document).count("<circle") in (0, lines)


def test_every_text_of_the_html_and_the_pictures_is_escaped():
    document = shown(hostile_sweep())
    markup = html(document)
    for forbidden in ("<script", "<img", 'onload="', "onmouseover='"):
        assert forbidden not in markup
    assert "&lt;script&gt;window.hacked = 1&lt;/script&gt;" in markup
    assert png(document).startswith(b"\x89PNG")
    assert not [c for c in text(document) if c < " " and c != "\n"]
    assert PAYLOADS[2] in json.dumps(document, ensure_ascii=False).replace("\\", "")
