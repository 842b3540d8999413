"""When an alert is raised, changed, repeated and over."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbmlops.alerts import advance
from nbmlops.project import QUESTIONS, AlertSettings
from nbmlops.records import (
    AlertState,
    Answer,
    Budget,
    MonitorReport,
    Questions,
    Reference,
    Window,
    dump,
    load,
    replace,
)

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
FRESH = AlertState(endpoint="churn", series="churn-0001")
USUAL = AlertSettings()
YES, NO, UNKNOWN = "yes", "no", "unknown"


def report(number=1, *, version=3, **answers):
    """Return the report of a window of its own; what is not named is as in training."""
    at = NOON + timedelta(hours=number)
    return MonitorReport(
        verdict="ok",
        model="churn",
        version=version,
        commit="c" * 40,
        endpoint="churn",
        window=Window(since=at - timedelta(hours=1), until=at, rows=100 + number),
        reference=Reference(rows=100, digest="d"),
        questions=Questions(
            **{
                name: Answer(answer=answers.get(name, YES), reason=f"{name} of {number}.")
                for name in QUESTIONS
            }
        ),
        columns=(),
        budget=Budget(false_alarms=1, windows=100),
        created_at=at,
    )


def told(reports, settings=USUAL, state=FRESH, every=timedelta(hours=1)):
    """Return what is told of windows that are looked at in turn, and the state that is left."""
    events = []
    for number, one in enumerate(reports):
        state, found = advance(state, one, settings, NOON + number * every)
        events += found
    return events, state


def names(events):
    return [alert.event for alert in events]


def test_an_alert_is_raised_after_so_many_windows_and_over_after_so_many():
    answers = [NO, YES, NO, NO, NO, YES, NO, YES, YES, YES, NO]
    events, state = told([report(n, features=answer) for n, answer in enumerate(answers)])
    assert [(one.event, one.window.rows) for one in events] == [("raised", 103), ("recovered", 108)]
    assert state.alert_id is None
    raised, over = events
    assert raised.alert_id == over.alert_id == raised.event_id != over.event_id
    assert [one.question for one in raised.questions] == ["features"]
    assert [(one.question, one.answer) for one in over.questions] == [("features", YES)]
    assert raised.since == report(2).window.since
    assert over.since == raised.since
    assert (raised.commit, raised.version) == ("c" * 40, 3)


def test_another_alert_has_another_id():
    settings = AlertSettings(after=1, recover=1)
    events, _ = told([report(n, bounds=NO if n % 2 else YES) for n in range(6)], settings)
    assert names(events) == ["raised", "recovered"] * 2 + ["raised"]
    assert len({one.alert_id for one in events}) == 3
    assert len({one.event_id for one in events}) == 5


def test_another_question_changes_an_alert_and_it_is_over_with_the_last():
    settings = AlertSettings(after=1, recover=1)
    answers = [{"features": NO}, {"features": NO, "bounds": NO}, {"bounds": NO}]
    answers += [{"bounds": UNKNOWN}, {}]
    events, _ = told([report(n, **one) for n, one in enumerate(answers)], settings)
    assert names(events) == ["raised", "changed", "recovered"]
    assert [one.question for one in events[1].questions] == ["features", "bounds"]
    assert [one.question for one in events[2].questions] == ["bounds"]


def test_two_questions_that_take_turns_are_no_row_of_windows():
    reports = [report(n, **{QUESTIONS[n % 2]: NO}) for n in range(8)]
    assert told(reports)[0] == []


def test_the_same_window_that_says_the_same_counts_once():
    bad = report(1, features=NO)
    events, state = told([bad, replace(bad, created_at=NOON), bad, bad])
    assert events == []
    moved = replace(bad, window=replace(bad.window, since=NOON - timedelta(days=1)))
    assert advance(state, moved, AlertSettings(), NOON) == (state, ())
    later = replace(bad, questions=replace(bad.questions, performance=Answer(answer=NO, reason="")))
    assert names(told([later], state=state)[0]) == ["raised"]


def test_windows_that_cannot_be_judged_count_for_nothing():
    blind = dict.fromkeys(QUESTIONS, UNKNOWN)
    first, state = told([report(1, features=NO), report(2, **blind)])
    assert first == []
    assert names(told([report(3, features=NO)], state=state)[0]) == ["raised"]
    events, _ = told([report(n, features=NO) for n in range(2)] + [report(9, **blind)] * 9)
    assert names(events) == ["raised"]


def test_questions_that_were_not_asked_for_raise_nothing_and_no_longer_hold():
    settings = AlertSettings(questions=("bounds",), after=1)
    events, _ = told([report(n, features=NO) for n in range(5)], settings)
    assert events == []
    _, state = told([report(1, features=NO), report(2, features=NO)])
    assert names(told([report(3, features=NO)], settings, state)[0]) == ["recovered"]


def test_another_version_counts_anew_and_ends_no_alert_by_itself():
    events, state = told([report(1, features=NO), report(2, version=4, features=NO)])
    assert events == []
    assert names(told([report(3, version=4, features=NO)], state=state)[0]) == ["raised"]
    events, state = told([report(1, features=NO), report(2, features=NO), report(3)])
    assert names(events) == ["raised"]
    events, state = told([report(4, version=4)], state=state)
    assert events == []
    over, _ = told([report(5, version=4)], state=state)
    assert names(over) == ["recovered"]
    assert over[0].version == 4


def test_people_are_reminded_as_long_as_it_stands():
    bad = [report(n, features=NO) for n in range(60)]
    events, _ = told(bad, AlertSettings(repeat="24h"))
    assert names(events) == ["raised", "repeated", "repeated"]
    assert len({one.alert_id for one in events}) == 1
    assert [one.at for one in events] == [NOON + timedelta(hours=h) for h in (1, 25, 49)]
    assert names(told(bad, AlertSettings(repeat="never"))[0]) == ["raised"]


def test_a_clock_that_is_set_back_delays_a_reminder_and_nothing_else():
    settings = AlertSettings(after=1)
    ahead = NOON + timedelta(days=365)
    state, events = advance(FRESH, report(1, features=NO), settings, ahead)
    assert names(events) == ["raised"]
    state, events = advance(state, report(2, features=NO), settings, NOON)
    assert events == ()
    state, events = advance(state, report(3, features=NO), settings, NOON + timedelta(hours=25))
    assert names(events) == ["repeated"]


def test_the_evidence_of_an_answer_is_not_told():
    one = report(1, features=NO)
    secret = Answer(answer=NO, reason="they differ", evidence={"new_categories": ["Ada Lovelace"]})
    one = replace(one, questions=replace(one.questions, features=secret))
    _, events = advance(FRESH, one, AlertSettings(after=1), NOON)
    assert b"Ada" not in dump(events[0])
    assert b"they differ" in dump(events[0])


ANSWERS = st.sampled_from([YES, NO, UNKNOWN])
STEPS = st.lists(
    st.tuples(
        st.tuples(ANSWERS, ANSWERS, ANSWERS, ANSWERS),
        st.integers(-72, 72),  # hours by which the clock goes on
        st.booleans(),  # whether the window before is looked at again
        st.sampled_from([3, 3, 3, 4]),
    ),
    max_size=40,
)
SETTINGS = st.builds(
    AlertSettings,
    questions=st.lists(st.sampled_from(QUESTIONS), min_size=1, max_size=4).map(tuple),
    after=st.integers(1, 4),
    recover=st.integers(1, 4),
    repeat=st.sampled_from(["never", "24h"]),
)


@given(STEPS, SETTINGS)
def test_whatever_windows_come_raised_and_recovered_take_turns(steps, settings):
    state, now, number = FRESH, NOON, 0
    stands, ids, last = False, set(), None
    for answers, hours, again, version in steps:
        now += timedelta(hours=hours)
        number += not again
        one = report(number, version=version, **dict(zip(QUESTIONS, answers, strict=True)))
        blind = all(answers[QUESTIONS.index(name)] == UNKNOWN for name in settings.questions)
        before = state
        state, events = advance(state, one, settings, now)
        assert len(events) <= 1
        for alert in events:
            assert alert.event_id not in ids
            ids.add(alert.event_id)
            assert (alert.event == "raised") is not stands
            assert not blind or alert.event == "repeated"
            stands = alert.event != "recovered"
            assert {item.question for item in alert.questions} <= {*settings.questions}
            assert alert.questions
            if alert.event == "raised":
                last = alert.alert_id
            assert alert.alert_id == last
        assert stands is (state.alert_id is not None)
        assert stands is any(streak.alerting for streak in state.streaks.values())
        assert load(dump(state), AlertState) == state
        for name, streak in state.streaks.items():
            was = before.streaks.get(name)
            if streak.alerting and not (was and was.alerting):
                assert streak.bad >= settings.after
            if was and was.alerting and not streak.alerting:
                assert streak.good >= settings.recover
        # The same once more, at the same moment, is nothing new.
        assert advance(state, one, settings, now) == (state, ())


@pytest.mark.parametrize("after", [1, 2, 5])
def test_a_row_of_bad_windows_raises_one_alert_at_its_place(after):
    settings = AlertSettings(after=after, repeat="never")
    events, _ = told([report(n, performance=NO) for n in range(1, 20)], settings)
    assert [(one.event, one.window.rows) for one in events] == [("raised", 100 + after)]
