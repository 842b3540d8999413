"""The budget of false alarms, and what is found within it, on streams with a known truth."""

from __future__ import annotations

import numpy as np
import pytest
import streams

from nbmlops.monitoring import course, profile
from nbmlops.monitoring.profile import Gauge, reference_profile

PARTS = 10


def gauge_of(stream, rows, *, shuffled=False):
    train = stream.rows(rows)
    if shuffled:
        order = stream.rng.permutation(rows)
        train = {name: column[order] for name, column in train.items()}
    return Gauge(reference_profile(train, dict.fromkeys(train, stream.kind)))


def looked(gauge, rows):
    """Look at a window as `monitor` does: in parts, as a whole and by its stretches."""
    count = len(rows["x0"])
    size = -(-count // PARTS)
    parts = [
        gauge.count(
            len(rows["x0"][start : start + size]),
            {name: column[start : start + size] for name, column in rows.items()},
        )
        for start in range(0, count, size)
    ]
    return course.judge(gauge, parts, profile.merge(parts))


def alarmed(found):
    return any(column.verdict == "drift" for column in found.columns)


CLEAN = [
    (streams.Independent, 10_000, 500, False),
    (streams.Correlated, 5_000, 1000, False),
    (streams.HeavyTailed, 10_000, 1000, False),
    (streams.Categories, 10_000, 1000, False),
    (streams.Autoregressive, 20_000, 1000, False),
    (streams.Autoregressive, 20_000, 1000, True),
    (streams.LongMemory, 20_000, 1000, False),
    (streams.LongMemory, 20_000, 1000, True),
    (streams.Weekly, 28_000, 1000, False),
    (streams.Weekly, 70_000, 500, False),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "training", "rows", "shuffled"), CLEAN)
def test_clean_windows_alarm_within_the_budget(kind, training, rows, shuffled, request):
    windows = request.config.getoption("--clean-windows")
    stream = kind(1)
    gauge = gauge_of(stream, training, shuffled=shuffled)
    alarms = sum(alarmed(looked(gauge, stream.rows(rows))) for _ in range(windows))
    assert alarms <= max(1, windows // 100)


# What is found in one of two windows, in standard deviations of the first column; of categories
# a third of it is the share of values that turn into one.
SMALLEST = [
    (streams.Independent, 500, 0.45),
    (streams.Independent, 5_000, 0.32),
    (streams.Independent, 50_000, 0.28),
    (streams.HeavyTailed, 1_000, 0.65),
    (streams.Categories, 1_000, 0.45),
    (streams.Autoregressive, 2_000, 0.9),
    (streams.Weekly, 1_000, 2.0),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "rows", "shift"), SMALLEST)
def test_a_change_of_the_documented_size_is_found_within_two_windows(kind, rows, shift):
    stream = kind(2)
    gauge = gauge_of(stream, 28_000)
    missed = 0
    for _ in range(20):
        found = [looked(gauge, stream.rows(rows, shift)) for _ in range(2)]
        missed += not any(one.columns[0].verdict == "drift" for one in found)
        stream.rows(137)
    assert missed == 0


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 0.05, 0.1, 0.15, 0.2, 0.24, 0.28, 0.35, 0.5, 1.0])
def test_few_rows_and_many_never_contradict_each_other(shift):
    stream = streams.Independent(3)
    gauge = gauge_of(stream, 50_000)
    many = {looked(gauge, stream.rows(50_000, shift)).columns[0].verdict for _ in range(3)}
    assert len(many - {"unknown"}) <= 1
    for rows, windows in ((500, 40), (5_000, 15)):
        few = [looked(gauge, stream.rows(rows, shift)).columns[0].verdict for _ in range(windows)]
        assert not {"ok", "drift"} <= {*few, *many}, (rows, few, many)


@pytest.mark.slow
def test_what_begins_late_in_a_window_is_found_and_so_is_what_ended():
    stream = streams.Independent(4)
    gauge = gauge_of(stream, 10_000)
    calm, moved = stream.rows(1600), stream.rows(400, 1.5)
    late = {name: np.concatenate([calm[name], moved[name]]) for name in calm}
    column = looked(gauge, late).columns[0]
    assert column.verdict == "drift"
    assert column.reason.startswith("in the last 400 rows")
    past = [calm, stream.rows(1000, 1.5), stream.rows(1400)]
    found = looked(gauge, {name: np.concatenate([one[name] for one in past]) for name in calm})
    assert [one.name for one in found.columns if one.verdict == "drift"] == ["x0"]


def test_a_stream_whose_rows_hang_together_for_ever_is_unknown_and_says_why():
    stream = streams.LongMemory(5)
    gauge = gauge_of(stream, 20_000)
    found = [looked(gauge, stream.rows(600)) for _ in range(5)]
    reasons = {column.reason for one in found for column in one.columns}
    assert any("hang together" in reason for reason in reasons)
    assert not any(map(alarmed, found))
