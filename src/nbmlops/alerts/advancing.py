"""When an alert is raised, changed, repeated and over: a pure function of the windows."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from nbmlops import digests, records
from nbmlops.project import AlertSettings
from nbmlops.records import (
    Alert,
    AlertQuestion,
    AlertState,
    MonitorReport,
    Question,
    Streak,
    replace,
)

_BEFORE = timedelta(0)


def advance(
    state: AlertState, report: MonitorReport, settings: AlertSettings, now: datetime
) -> tuple[AlertState, tuple[Alert, ...]]:
    """Return the state after a window, and what people are to be told of it.

    A question alerts after its answer was no in ``settings.after`` windows in a row, and no longer
    after it was yes in ``settings.recover``. The endpoint's alert is raised with the first that
    alerts and over with the last. A window that cannot be judged counts for neither, and the same
    window that says the same counts once. Another version begins to count anew, and what alerts
    already goes on until it is over.

    Times are told, and nothing but ``repeat`` follows from them: a clock that is set back may delay
    a reminder.
    """
    # Not its beginning, which moves with the clock where it is so many hours back.
    known = digests.of_bytes(
        records.dump((report.window.until, report.window.rows, report.questions))
    )
    streaks: dict[Question, Streak] = {
        question: _counted(
            state.streaks.get(question, Streak()),
            report,
            question,
            settings,
            now,
            fresh=known != state.seen,
            anew=(state.model, state.version) != (report.model, report.version),
        )
        for question in dict.fromkeys(settings.questions)
    }
    counts = any(_answer(report, question) != "unknown" for question in streaks)
    moved = replace(
        state,
        streaks=streaks,
        seen=known if counts else state.seen,
        model=report.model,
        version=report.version,
    )
    event = _event(state, moved, settings, now)
    if event is None:
        if moved.told_at is not None and moved.told_at > now:
            moved = replace(moved, told_at=now)  # by a clock that was ahead
        return moved, ()
    event_id = f"{state.series}-{state.count + 1}"
    raised_at = now if event == "raised" else state.raised_at or now
    alert_id = event_id if event == "raised" else state.alert_id or event_id
    stands = event != "recovered"
    alerting = moved if stands else state
    alert = Alert(
        event_id=event_id,
        alert_id=alert_id,
        event=event,
        at=now,
        since=min((s.since for s in _alerting(alerting).values() if s.since), default=None),
        raised_at=raised_at,
        endpoint=state.endpoint,
        model=report.model,
        version=report.version,
        commit=report.commit,
        verdict=report.verdict,
        questions=tuple(_told(report, question) for question in _alerting(alerting)),
        window=report.window,
        explanation=report.explanation,
        place=state.place,
    )
    return (
        replace(
            moved,
            count=state.count + 1,
            alert_id=alert_id if stands else None,
            raised_at=raised_at if stands else None,
            told_at=now if stands else None,
        ),
        (alert,),
    )


def _counted(
    streak: Streak,
    report: MonitorReport,
    question: Question,
    settings: AlertSettings,
    now: datetime,
    *,
    fresh: bool,
    anew: bool,
) -> Streak:
    """Return how it stands with a question after a window."""
    if anew:
        since = streak.since if streak.alerting else None
        streak = replace(streak, bad=0, good=0, since=since)
    answer = _answer(report, question)
    if not fresh or answer == "unknown":
        return streak
    if answer == "no":
        bad = streak.bad + 1
        return Streak(
            bad=bad,
            alerting=streak.alerting or bad >= settings.after,
            since=streak.since or _begun(report, now),
        )
    good = streak.good + 1
    alerting = streak.alerting and good < settings.recover
    return Streak(good=good, alerting=alerting, since=streak.since if alerting else None)


def _begun(report: MonitorReport, now: datetime) -> datetime:
    """Return since when the calls of a window are not as in training, as far as it is known."""
    explained = report.explanation.since if report.explanation else None
    return explained or report.changed_since or report.window.since or now


def _answer(report: MonitorReport, question: Question) -> Literal["yes", "no", "unknown"]:
    return getattr(report.questions, question).answer


def _event(
    before: AlertState, after: AlertState, settings: AlertSettings, now: datetime
) -> Literal["raised", "changed", "repeated", "recovered"] | None:
    was, now_alerting = _alerting(before), _alerting(after)
    if before.alert_id is None:
        return "raised" if now_alerting else None
    if not now_alerting:
        return "recovered"
    if now_alerting.keys() - was.keys():
        return "changed"
    told_at, every = before.told_at, settings.repeated_after
    if every is not None and told_at is not None and max(now - told_at, _BEFORE) >= every:
        return "repeated"
    return None


def _alerting(state: AlertState) -> dict[Question, Streak]:
    return {question: one for question, one in state.streaks.items() if one.alerting}


def _told(report: MonitorReport, question: Question) -> AlertQuestion:
    """Return a question's answer without its evidence, which may have values of calls."""
    found = getattr(report.questions, question)
    return AlertQuestion(question=question, answer=found.answer, reason=found.reason)
