"""The four questions about a deployment's calls, answered from what was collected of them.

Nothing here opens a file: whoever answers for a project, and the program of a job that answers far
from it, collect the same and ask here.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from operator import attrgetter
from typing import Literal

from nbmlops import records
from nbmlops.errors import NbmlopsError
from nbmlops.monitoring import changes, drift, performance, profile, reporting, spans
from nbmlops.monitoring.performance import PerformanceReference
from nbmlops.monitoring.profile import Gauge
from nbmlops.monitoring.shown import Shown, Truths, beside
from nbmlops.monitoring.spans import Against, Span
from nbmlops.records import (
    Answer,
    Budget,
    CallRecord,
    Coincidence,
    DeploymentRecord,
    Explanation,
    Judgement,
    Metric,
    ModelSchema,
    ModelVersion,
    MonitorReport,
    Record,
    Slice,
)

SLICES = 60
"""Into how many parts a window is divided for a look at its course, at most."""

NEW_CLIENT_SHARE = 0.05
"""What share of the calls a new client makes at least, for it to be named."""

KNOWN_CLIENT_SHARE = 0.01
"""With what share of the calls before a change a client is none that is new."""

NEW_CLIENTS = 3
"""How many new clients are named."""


class ProfileTooOld(NbmlopsError):
    """A version's profile is in a form that this nbmlops does not read."""

    code = "profile-too-old"


class Inquiry(Record, frozen=True, kw_only=True):
    """What is asked: about the calls of a deployment from ``since`` up to ``until``.

    ``version`` is the one that answered them, by the ``schema``.
    """

    deployment: DeploymentRecord
    version: ModelVersion
    schema: ModelSchema
    budget: Budget
    since: datetime | None
    until: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Collected:
    """What was collected: the spans of the calls, in order, and what came true of some.

    ``calls`` are those about which a truth has come, oldest first.
    """

    spans: list[Span]
    calls: list[CallRecord] = field(default_factory=list)
    truths: Truths = field(default_factory=dict)


def against(inquiry: Inquiry, made: bytes, tested: bytes | None) -> Against:
    """Return what calls are held against: a version's profile, and what its test set has shown.

    Raises
    ------
    ProfileTooOld
        When the version was trained by an older nbmlops.
    """
    reference = None if tested is None else records.load(tested, PerformanceReference)
    name = reference_name(inquiry.version)
    return Against(_gauge(made), Shown(reference, inquiry.schema), name)


def reference_name(version: ModelVersion) -> str:
    """Return what is another name for another profile or test set."""
    kept = version.files.get("performance")
    return f"{version.files['profile'].digest}/{kept.digest if kept else ''}"


@lru_cache(maxsize=4)
def _gauge(content: bytes) -> Gauge:
    """Return a version's profile made ready; whoever looks every minute makes it once."""
    if records.load(content, _Form).format != profile.FORMAT:
        raise ProfileTooOld(
            "the profile of this version is in a form that is not read any more",
            "Train again: `nbmlops train`, and deploy what comes out.",
        )
    return Gauge(records.load(content, profile.Profile))


class _Form(Record, frozen=True):
    format: int = 1


def answer(inquiry: Inquiry, held: Against, collected: Collected) -> MonitorReport:
    """Answer the four questions from what was collected."""
    found, deployment, version = collected.spans, inquiry.deployment, inquiry.version
    whole = spans.merged(found) if found else None
    hidden = frozenset(whole.redacted if whole else ())
    report = reporting.report(
        held.gauge,
        [span.tally for span in found],
        model=version.model,
        version=version.version,
        commit=version.commit,
        endpoint=deployment.endpoint,
        reference_digest=version.files["profile"].digest,
        since=inquiry.since or (whole.since if whole else None),
        until=inquiry.until or (whole.until if whole else None),
        created_at=inquiry.created_at,
        budget=inquiry.budget,
        hidden=hidden,
        performance=_performance(inquiry, held, collected, found),
    )
    if whole is None:
        return report
    explained = _explanation(held.gauge, found, report, deployment, version.name)
    return records.replace(
        report,
        history=_history(inquiry, held, collected, hidden),
        explanation=explained,
        changed_since=explained.since if explained else None,
        traffic=spans.traffic(whole),
    )


def _performance(
    inquiry: Inquiry, held: Against, collected: Collected, part: list[Span]
) -> tuple[tuple[Metric, ...], Answer]:
    """Hold the metrics of some spans, which follow each other, against the test set's."""
    expected = performance.merge([span.expected for span in part])
    mine: list[CallRecord] = []
    if part and collected.calls:
        begins = bisect_left(collected.calls, part[0].since, key=attrgetter("at"))
        ends = bisect_right(collected.calls, max(one.until for one in part), key=attrgetter("at"))
        mine = collected.calls[begins:ends]
    both = beside(expected, held.shown.counted(mine, collected.truths))
    return performance.compare(held.shown.reference, both, level=drift.level(inquiry.budget))


def _history(
    inquiry: Inquiry, held: Against, collected: Collected, hidden: frozenset[str]
) -> tuple[Slice, ...]:
    """Return the course of a window, in at most sixty slices of about as many spans."""
    found, budget = collected.spans, inquiry.budget
    if len(found) < 2:
        return ()
    size = -(-len(found) // SLICES)
    slices: list[Slice] = []
    for first in range(0, len(found), size):
        of_slice = found[first : first + size]
        part = spans.merged(of_slice)
        judged = drift.judge(held.gauge, part.tally, budget=budget, pictures=False, hidden=hidden)
        slices.append(
            Slice(
                since=part.since,
                until=part.until,
                rows=part.tally.rows,
                verdict=_verdict(judged, part),
                columns={one.name: _judgement(one) for one in judged.columns},
                prediction=_judgement(judged.prediction) if judged.prediction else None,
                out_of_bounds=part.tally.out_of_bounds,
                metrics=_performance(inquiry, held, collected, of_slice)[0],
                traffic=spans.traffic(part),
            )
        )
    return tuple(slices)


def _verdict(judged: drift.Judged, part: Span) -> Literal["ok", "alert", "unknown"]:
    verdicts = {column.verdict for column in judged.columns}
    answered = judged.prediction is not None and judged.prediction.verdict == "drift"
    if "drift" in verdicts or answered or part.tally.out_of_bounds:
        return "alert"
    return "ok" if "ok" in verdicts else "unknown"


def _judgement(column: records.ColumnReport) -> Judgement:
    value = column.effect.value if column.effect else None
    return Judgement(verdict=column.verdict, effect=value)


def _explanation(
    gauge: Gauge,
    found: list[Span],
    report: MonitorReport,
    deployment: DeploymentRecord,
    version: str,
) -> Explanation | None:
    """Say since when which columns differ, and what else happened then."""
    tallies = [span.tally for span in found]
    changed = changes.changed(gauge, tallies, report.columns, report.prediction)
    if changed is None:
        return None
    when = changed.when
    since = found[when.split].since
    if not when.split:
        other = [_from_the_start(deployment)]
    else:
        after = spans.merged(found[when.begins : when.ends])
        other = [*_new_clients(found, when.split, after)]
    return Explanation(
        since=since,
        suspects=tuple(
            records.replace(suspect, since=found[own.split].since)
            for suspect, own in zip(changed.suspects, changed.times, strict=True)
        ),
        coincidences=(*changes.coincidences(changed, since), *other),
        commit=deployment.commit,
        version=version,
    )


def _new_clients(found: list[Span], split: int, after: Span) -> Iterator[Coincidence]:
    """Yield the programs that make calls after a change and made none, or hardly any, before it.

    Where nobody said before what he is, as in the calls of an older nbmlops, nobody is known to be
    new. A span next to the change may hold both sides of it.
    """
    before = found[: split - 1] or found[:split]
    then = spans.merged(before)
    if not then.clients:
        return
    since = found[len(before) :]
    new = [
        (count / after.calls, client)
        for client, count in after.clients.items()
        if count >= NEW_CLIENT_SHARE * after.calls
        and then.clients.get(client, 0) < KNOWN_CLIENT_SHARE * then.calls
    ]
    for share, client in sorted(new, reverse=True)[:NEW_CLIENTS]:
        known = then.clients.get(client, 0) / then.calls
        yield Coincidence(
            kind="client",
            at=next(one.since for one in since if client in one.clients),
            message=f"`{client}` makes {share:.0%} of the calls since then, and made"
            f" {f'{known:.1%} of them' if known else 'none'} before",
        )


def _from_the_start(deployment: DeploymentRecord) -> Coincidence:
    return Coincidence(
        kind="release",
        at=deployment.created_at,
        message=f"the calls have differed since {deployment.model}:{deployment.version} was"
        f" deployed as {deployment.deployment_id}",
    )
