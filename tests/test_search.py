from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbmlops import search
from nbmlops.errors import InvalidParameter
from nbmlops.records import (
    Environment,
    Parameter,
    Snapshot,
    Status,
    SweepRecord,
    Trial,
    replace,
)

NOW = datetime(2026, 11, 23, tzinfo=UTC)
INT = Parameter(name="depth", type="int", default=3)
FLOAT = Parameter(name="rate", type="float", default=0.1)
TEXT = Parameter(name="kind", type="str", default="a")


def sweep(*space, how="bayes", trials=(), seed=7, total=20, direction="maximize"):
    return SweepRecord(
        sweep_id="sweep-train-1",
        pipeline="train",
        status=Status.RUNNING,
        search=how,
        metric="score",
        direction=direction,
        space=space,
        trials_total=total,
        parallel=2,
        seed=seed,
        trials=tuple(trials),
        commit="c",
        base_commit=None,
        dirty=False,
        environment_id="e",
        launcher="local",
        created_at=NOW,
        author="a",
        snapshot=Snapshot(
            id="s", commit="c", tree="t", base_commit=None, dirty=False, branch=None, created_at=NOW
        ),
        environment=Environment(
            environment_id="e",
            python="python",
            python_version="3",
            platform="p",
            source=None,
            packages={},
        ),
    )


@pytest.mark.parametrize(
    ("parameter", "text", "choices"),
    [
        (INT, "2,4,8", (2, 4, 8)),
        (INT, "[2, 4]", (2, 4)),
        (FLOAT, "0.1, 1e-3", (0.1, 0.001)),
        (TEXT, "gini,entropy", ("gini", "entropy")),
        (TEXT, '["a,b", "c"]', ("a,b", "c")),
        (Parameter(name="x", type="int | None"), "None,3", (None, 3)),
        (Parameter(name="x", type="bool"), "true,false", (True, False)),
    ],
)
def test_choices_are_of_the_declared_type(parameter, text, choices):
    assert search.dimension(parameter, text).choices == choices


def test_ranges_are_whole_where_the_parameter_is():
    found = search.dimension(INT, "50..400")
    assert (found.kind, found.low, found.high, found.step) == ("integers", 50, 400, None)
    assert search.dimension(INT, "50..400:50").step == 50
    found = search.dimension(FLOAT, "1e-4..1e-1:log")
    assert (found.kind, found.low, found.high, found.log) == ("numbers", 1e-4, 0.1, True)
    assert search.dimension(FLOAT, "-1.5..-0.5").low == -1.5


@pytest.mark.parametrize("text", ["3", "none", "a..", "..b", "true"])
def test_one_value_is_no_dimension(text):
    assert search.dimension(TEXT, text) is None


@pytest.mark.parametrize(
    ("parameter", "text", "why"),
    [
        (INT, "400..50", "does not rise"),
        (INT, "2,4.5", "wants int"),
        (INT, "2,2", "twice"),
        (INT, "1..4:9", "does not fit"),
        (FLOAT, "0..1:log", "above 0"),
        (FLOAT, "0..1:often", "wants float"),
        (TEXT, "a..z", "no number"),
    ],
)
def test_what_has_no_meaning_is_refused_with_the_reason(parameter, text, why):
    with pytest.raises(InvalidParameter, match=why):
        search.dimension(parameter, text)


def test_a_grid_has_every_combination_once():
    space = [search.dimension(INT, "1..3"), search.dimension(FLOAT, "0..1:0.5")]
    found = search.grid(space)
    assert len(found) == 9
    assert found[0] == {"depth": 1, "rate": 0.0}
    assert found[-1] == {"depth": 3, "rate": 1.0}
    assert all(isinstance(one["depth"], int) for one in found)
    with pytest.raises(InvalidParameter, match="not a range"):
        search.grid([search.dimension(FLOAT, "0..1")])
    with pytest.raises(InvalidParameter, match="combinations"):
        search.grid([search.dimension(INT, "1..101"), search.dimension(FLOAT, "0..1:0.01")])


@given(
    st.integers(-50, 50),
    st.integers(1, 60),
    st.sampled_from([None, 1, 3, 7]),
    st.sampled_from(["random", "bayes"]),
    st.integers(0, 2**40),
)
def test_proposals_stay_in_the_space_and_follow_from_the_record(low, width, step, how, seed):
    text = f"{low}..{low + width}" + (f":{step}" if step and step <= width else "")
    space = (search.dimension(INT, text), search.dimension(TEXT, "a,b"))
    record = sweep(*space, how=how, seed=seed)
    for number in range(1, 4):
        drawn = search.propose(record)
        assert drawn == search.propose(record)
        assert low <= drawn["depth"] <= low + width
        assert (drawn["depth"] - low) % (space[0].step or 1) == 0
        assert drawn["kind"] in ("a", "b")
        trial = Trial(
            number=number, parameters=drawn, status=Status.SUCCEEDED, value=float(drawn["depth"])
        )
        record = replace(record, trials=(*record.trials, trial))


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_bayesian_search_beats_random_search_on_a_bowl(direction):
    sign = 1 if direction == "minimize" else -1
    space = (
        search.dimension(FLOAT, "-5..5"),
        search.dimension(Parameter(name="y", type="float"), "-5..5"),
    )

    def best(how, seed):
        record = sweep(*space, how=how, seed=seed, total=40, direction=direction)
        for number in range(1, 41):
            drawn = search.propose(record)
            value = sign * ((drawn["rate"] - 1) ** 2 + (drawn["y"] + 2) ** 2)
            trial = Trial(number=number, parameters=drawn, status=Status.SUCCEEDED, value=value)
            record = replace(record, trials=(*record.trials, trial))
        return min(sign * trial.value for trial in record.trials)

    seeds = range(5)
    assert sum(best("bayes", s) for s in seeds) < sum(best("random", s) for s in seeds)


def test_trials_that_failed_or_are_under_way_are_told_to_the_search():
    space = (search.dimension(INT, "1..9"), search.dimension(TEXT, "a,b"))
    trials = [
        Trial(number=1, parameters={"depth": 2, "kind": "a"}, status=Status.FAILED),
        Trial(number=2, parameters={"depth": 3, "kind": "b"}, status=Status.RUNNING),
        Trial(number=3, parameters={"depth": 4, "kind": "b"}, status=Status.SUCCEEDED, value=1.0),
        Trial(number=4, parameters={"depth": 5, "kind": "b"}, status=Status.SUCCEEDED, value=None),
    ]
    assert set(search.propose(sweep(*space, trials=trials))) == {"depth", "kind"}
