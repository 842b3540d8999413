"""The report that ``monitor`` answers with."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from nbmlops.monitoring import course, drift, profile, questions
from nbmlops.monitoring.profile import Gauge, Tally
from nbmlops.records import Answer, Budget, Metric, MonitorReport, Reference, Window, replace


def report(
    gauge: Gauge,
    parts: Sequence[Tally],
    *,
    model: str,
    version: int | None,
    commit: str | None,
    endpoint: str | None,
    reference_digest: str,
    since: datetime | None,
    until: datetime | None,
    created_at: datetime,
    budget: Budget = drift.DEFAULT_BUDGET,
    performance: tuple[tuple[Metric, ...], Answer] | None = None,
    asked: frozenset[str] = questions.ALL,
    hidden: frozenset[str] = frozenset(),
) -> MonitorReport:
    """Answer the four questions of monitoring for one window.

    ``parts`` of it were counted by ``gauge``, in the order in which they came. ``performance`` is
    what was found about the fourth question; ``asked`` names the questions that count, ``hidden``
    columns whose values are kept out of the log.
    """
    window = profile.merge(parts) if parts else gauge.count(0, {})
    found = course.judge(gauge, parts, window, budget=budget, hidden=hidden)
    if performance is not None and any(one.verdict == "drift" for one in found.columns):
        performance = performance[0], _of_estimates(*performance)
    answers = questions.answers(
        found.columns,
        found.prediction,
        window,
        found.independent_rows,
        undecided=found.undecided,
        needed=drift.ROWS_NEEDED,
        performance=performance[1] if performance else None,
        asked=asked,
    )
    return MonitorReport(
        verdict=questions.verdict(answers),
        model=model,
        window=Window(since=since, until=until, rows=window.rows),
        reference=Reference(rows=gauge.reference.rows, digest=reference_digest),
        questions=answers,
        columns=found.columns,
        prediction=found.prediction,
        budget=budget,
        created_at=created_at,
        version=version,
        commit=commit,
        endpoint=endpoint,
        metrics=performance[0] if performance else (),
    )


def _of_estimates(metrics: tuple[Metric, ...], answer: Answer) -> Answer:
    """Say that estimates are of rows like the test set's, where features have left it."""
    if answer.answer != "unknown" or not any(one.estimated for one in metrics):
        return answer
    told = f"{answer.reason} The features differ from training, and estimates know nothing of that."
    return replace(answer, reason=told)
