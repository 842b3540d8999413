"""What happened to a column, and since when."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from nbmlops.monitoring import changes
from nbmlops.monitoring.profile import Gauge, reference_profile
from nbmlops.monitoring.reporting import report

ROWS = 2000
NUMBERS = {
    "ages": lambda rng, rows: rng.integers(18, 90, rows),
    "incomes": lambda rng, rows: np.exp(rng.normal(8, 1, rows)),
    "shares": lambda rng, rows: rng.beta(2, 5, rows),
    "percent": lambda rng, rows: np.round(100 * rng.beta(2, 2, rows)),
    "visits": lambda rng, rows: rng.poisson(5, rows),
    "debts": lambda rng, rows: -np.exp(rng.normal(3, 1, rows)),
    "claims": lambda rng, rows: np.where(rng.random(rows) < 0.8, 0, 1 + rng.poisson(20, rows)),
    "flags": lambda rng, rows: rng.integers(0, 2, rows),
    "heights": lambda rng, rows: rng.normal(170, 10, rows),
}


def found(then, now, *, kind="number", parts=1, name="x", target=None):
    """Return the gauge, the parts of a window, and the report on its one column."""
    gauge = Gauge(reference_profile({name: then}, {name: kind}, target))
    size = -(-len(now) // parts)
    counted = [
        gauge.count(len(now[first : first + size]), {name: now[first : first + size]})
        for first in range(0, len(now), size)
    ]
    told = report(
        gauge,
        counted,
        model="m",
        version=1,
        commit=None,
        endpoint=None,
        reference_digest="sha256:0",
        since=None,
        until=None,
        created_at=datetime(2026, 11, 1, tzinfo=UTC),
    )
    return gauge, counted, told


def changed(then, now, **options):
    gauge, parts, told = found(then, now, **options)
    return changes.changed(gauge, parts, told.columns, told.prediction)


def suspect(then, now, **options):
    (one,) = changed(then, now, **options).suspects
    return one


def drawn(name, seed, rows=ROWS):
    return NUMBERS[name](np.random.default_rng(seed), rows).astype(float)


# --- units ------------------------------------------------------------------------------------


FACTORS = [1000, 100, 38.67, 12, 0.01, 0.0254]
# Of values below the least that is not 0 neither size nor deviation tells.
UNITS = [(name, one) for name in NUMBERS for one in FACTORS if name != "claims" or one > 1]


@pytest.mark.parametrize(("name", "factor"), UNITS)
def test_a_change_of_unit_is_told_with_its_factor(name, factor):
    one = suspect(drawn(name, 1), drawn(name, 2) * factor)
    assert one.change == "unit"
    assert one.factor == pytest.approx(factor, rel=0.08)


def test_the_factor_is_that_of_all_values_not_of_the_least_and_greatest():
    now = drawn("shares", 2) * 38.67
    now[:2] = 1e-9, 1e9
    one = suspect(drawn("shares", 1), now)
    assert one.change == "unit"
    assert one.factor == pytest.approx(38.67, rel=0.08)


def test_parts_tell_the_same_factor_as_the_whole():
    then, now = drawn("ages", 1), drawn("ages", 2) * 38.67
    assert suspect(then, now, parts=8).factor == suspect(then, now).factor


@pytest.mark.parametrize(
    "now",
    [
        drawn("heights", 2) + 90,
        drawn("heights", 2) * 9 / 5 + 320,
        170 + 5 * (drawn("heights", 2) - 170),
        -2 * drawn("heights", 2),
        drawn("heights", 2) * np.where(np.arange(ROWS) % 2, 100, 1),
        np.where(np.arange(ROWS) % 5, drawn("heights", 2), -999),
        np.where(np.arange(ROWS) % 5, drawn("heights", 2) * 2, 0),
        170 + (drawn("heights", 2) - 170) / 1000,
    ],
    ids=["shifted", "affine", "spread", "negated", "half", "sentinel", "zeros", "narrow"],
)
def test_other_changes_are_no_change_of_unit(now):
    assert suspect(drawn("heights", 1), now).change in {"range", "shift"}


# --- names and constants ----------------------------------------------------------------------


def test_values_between_those_of_training_lie_beyond_them_and_rare_new_names_are_few():
    rng = np.random.default_rng(1)
    codes = rng.choice([101, 102, 205, 999], 2000)
    assert suspect(codes, np.where(rng.random(ROWS) < 0.1, 555, codes)).change == "range"
    cities = [[f"city {place}" for place in rng.integers(0, 140, 840)] for _ in range(2)]
    cities[1] = ["nowhere" if rng.random() < 0.15 else city for city in cities[1]]
    assert suspect(*cities, kind="category").change == "new-categories"


@pytest.mark.parametrize(
    ("now", "change"),
    [
        (["yes", "no"], "new-categories"),
        (["A", "B", "C"], "new-categories"),
        (["a"], "constant"),
        (["unknown"], "constant"),
        (["a", "a", "a", "b"], "shift"),
        ([None, "a", "b"], "missing"),
    ],
)
def test_new_names_are_no_constant(now, change):
    assert suspect(["a", "b"] * 500, now * 300, kind="category").change == change


def test_new_names_beside_too_many_to_know_are_no_constant():
    cities = [f"city {index * index % 400}" for index in range(4000)]
    one = suspect(cities, [city.upper() for city in cities], kind="category")
    assert one.change == "new-categories"


@pytest.mark.parametrize(("now", "change"), [("", "constant"), ("0123456789", "range")])
def test_texts_of_one_length_are_one_only_where_they_are_empty(now, change):
    notes = [f"{index:0{20 + index % 30}}" for index in range(1000)]
    texts = [now and f"{index:010}" for index in range(600)]
    assert suspect(notes, texts, kind="text").change == change


# --- since when -------------------------------------------------------------------------------


@pytest.mark.parametrize(("begins", "ends"), [(0, 300), (900, 1200), (1000, 2000), (1800, 2000)])
def test_the_time_of_a_change_is_that_of_the_rows_that_differ(begins, ends):
    now = drawn("heights", 2)
    now[begins:ends] *= 100
    gauge, parts, told = found(drawn("heights", 1), now, parts=20)
    when = changes.changed(gauge, parts, told.columns, None).when
    assert when.split == begins // 100
    assert (when.begins, when.ends) == (
        when.split + (begins > 0),
        ends // 100 - (ends < 2000),
    )
    assert suspect(drawn("heights", 1), now, parts=20).change == "unit"


def test_a_change_that_comes_in_steps_began_with_the_first():
    now = drawn("heights", 2)
    now[800:1400] += 10
    now[1400:] += 30
    assert changed(drawn("heights", 1), now, parts=20).when.split == 8


def test_columns_that_changed_one_after_the_other_have_their_own_times():
    names = ["one", "other"]
    then = {name: drawn("heights", place) for place, name in enumerate(names)}
    now = {name: drawn("heights", place + 5) for place, name in enumerate(names)}
    now["one"][500:] *= 100
    now["other"][1500:] *= 0.01
    gauge = Gauge(reference_profile(then, dict.fromkeys(names, "number")))
    parts = [
        gauge.count(100, {name: now[name][first : first + 100] for name in names})
        for first in range(0, ROWS, 100)
    ]
    options = {"since": None, "until": None, "created_at": datetime(2026, 11, 1, tzinfo=UTC)}
    options |= dict.fromkeys(["version", "commit", "endpoint"])
    told = report(gauge, parts, model="m", reference_digest="", **options)
    seen = changes.changed(gauge, parts, told.columns, None)
    assert {
        one.column: when.split for one, when in zip(seen.suspects, seen.times, strict=True)
    } == {"one": 5, "other": 15}
    assert seen.when.split == 5


@pytest.mark.parametrize(
    ("begins", "ends", "words"),
    [
        (1900, 2000, "in the last 100 rows: 100.0% above"),
        (400, 600, "in rows 401 to 600: 100.0% above"),
        (1000, 2000, "from about row 1,001 on"),
    ],
)
def test_a_constant_that_changes_in_the_midst_of_a_window_is_found_there(begins, ends, words):
    now = np.full(ROWS, 3.0)
    now[begins:ends] = 4.0
    _, _, told = found(np.full(ROWS, 3.0), now, parts=20)
    assert told.columns[0].verdict == "drift"
    assert words in told.columns[0].reason


def test_a_feature_that_is_called_prediction_is_not_the_output():
    labels = ["a", "b"] * (ROWS // 2)
    now = drawn("heights", 2)
    now[1000:] *= 100
    one = suspect(drawn("heights", 1), now, parts=20, name="prediction", target=labels)
    assert (one.column, one.change, one.factor) == ("prediction", "unit", 100.0)
