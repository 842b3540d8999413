"""Look at the calls of a deployment, and keep what was found."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from operator import attrgetter
from typing import Literal

from nbmlops import alerts, deployments, endpoints, layout, models, records
from nbmlops.actuals import Actual
from nbmlops.errors import NbmlopsError, UnknownEndpoint
from nbmlops.monitoring import changes, drift, performance, profile, reporting
from nbmlops.monitoring.profile import Gauge
from nbmlops.monitors import spans, truths
from nbmlops.monitors.spans import Against, Span
from nbmlops.monitors.truths import Shown
from nbmlops.project import length
from nbmlops.records import (
    Answer,
    Budget,
    CallRecord,
    Coincidence,
    DeploymentRecord,
    EndpointRecord,
    Explanation,
    Judgement,
    Metric,
    MonitorReport,
    Slice,
)
from nbmlops.workspace import Workspace

KIND = "report"

SLICES = 60
"""Into how many parts a window is divided for a look at its course, at most."""

NEW_CLIENT_SHARE = 0.05
"""What share of the calls a new client makes at least, for it to be named."""

KNOWN_CLIENT_SHARE = 0.01
"""With what share of the calls before a change a client is none that is new."""

NEW_CLIENTS = 3
"""How many new clients are named."""

_FORMATS = (profile.FORMAT,)


class ProfileTooOld(NbmlopsError):
    """A version's profile is in a form that this nbmlops does not read."""

    code = "profile-too-old"


def monitor(workspace: Workspace, endpoint: str, *, window: str | None = None) -> MonitorReport:
    """Answer the four questions for the calls that an endpoint's deployment has answered.

    ``window`` is a length such as ``24h``, counted back from now; without it, all calls count.

    Raises
    ------
    UnknownEndpoint
        When no such endpoint is up.
    ProfileTooOld
        When the version was trained by an older nbmlops.
    """
    current = _served(workspace, endpoint)
    now = workspace.now()
    since = now - length(window) if window else None
    report = look(workspace, current, since=since, until=None, created_at=now)
    _keep(workspace, current, report)
    alerts.take(workspace, endpoint, report)
    return report


def between(workspace: Workspace, endpoint: str, since: datetime, until: datetime) -> MonitorReport:
    """Answer the four questions for the calls of a window that somebody chose; nothing is kept.

    Raises
    ------
    UnknownEndpoint
        When no such endpoint is up.
    """
    current = _served(workspace, endpoint)
    return look(workspace, current, since=since, until=until, created_at=workspace.now())


def monitor_all(workspace: Workspace, *, window: str | None = None) -> list[MonitorReport]:
    """Answer the four questions for each endpoint that is up and was started from here.

    Raises
    ------
    UnknownEndpoint
        When none is up.
    """
    names = [one.endpoint for one in endpoints.every(workspace) if _is_ours(workspace, one)]
    if not names:
        raise UnknownEndpoint(
            "no endpoint is up",
            "Deploy a model: `nbmlops deploy NAME`; see them: `nbmlops models`.",
        )
    return [monitor(workspace, name, window=window) for name in names]


def look_at_due(workspace: Workspace) -> None:
    """Look at the endpoints whose time has come, as ``every`` of ``[monitoring]`` says."""
    settings = workspace.settings.monitoring
    if settings.every is None:
        return
    due = workspace.now() - length(settings.every)
    for endpoint in endpoints.every(workspace):
        if not _is_ours(workspace, endpoint) or endpoint.deployment_id is None:
            continue
        seen = latest(workspace, endpoint.deployment_id)
        if seen is None or seen.created_at <= due:
            try:
                monitor(workspace, endpoint.endpoint, window=settings.window)
            except NbmlopsError as error:  # the others are looked at all the same
                workspace.warn(f"{endpoint.endpoint}: {error.message}")


def _is_ours(workspace: Workspace, endpoint: EndpointRecord) -> bool:
    return endpoint.running and endpoints.is_here(workspace, endpoint)


def look(
    workspace: Workspace,
    deployment: DeploymentRecord,
    *,
    since: datetime | None,
    until: datetime | None,
    created_at: datetime,
) -> MonitorReport:
    """Answer the four questions for a deployment's calls from ``since`` up to ``until``."""
    version = models.find(workspace, f"{deployment.model}:{deployment.version}")
    digest = version.files["profile"].digest
    gauge = _gauge(workspace.artifacts.get(digest))
    shown = truths.shown(workspace, version)
    tested = version.files.get("performance")
    against = Against(gauge, shown, f"{digest}/{tested.digest if tested else ''}")
    found = spans.of_deployment(workspace, deployment.deployment_id, against, since, until)
    true = _CameTrue(shown, *truths.arrived(workspace, deployment.deployment_id, since, until))
    whole = spans.merged(found) if found else None
    hidden = frozenset(whole.redacted if whole else ())
    settings = workspace.settings.monitoring
    budget = Budget(false_alarms=settings.false_alarms, windows=settings.windows)
    report = reporting.report(
        gauge,
        [span.tally for span in found],
        model=version.model,
        version=version.version,
        commit=version.commit,
        endpoint=deployment.endpoint,
        reference_digest=digest,
        since=since or (whole.since if whole else None),
        until=until or (whole.until if whole else None),
        created_at=created_at,
        budget=budget,
        hidden=hidden,
        performance=true.compared(found, budget),
    )
    if whole is None:
        return report
    explained = _explanation(gauge, found, report, deployment, version.name)
    return records.replace(
        report,
        history=_history(gauge, found, budget, hidden, true),
        explanation=explained,
        changed_since=explained.since if explained else None,
        traffic=spans.traffic(whole),
    )


@dataclass(frozen=True, slots=True)
class _CameTrue:
    """The calls about which a truth has come, and the truths."""

    shown: Shown
    calls: list[CallRecord]
    truths: dict[tuple[str, int], Actual]

    def compared(self, found: list[Span], budget: Budget) -> tuple[tuple[Metric, ...], Answer]:
        """Hold the metrics of some spans, which follow each other, against the test set's."""
        expected = performance.merge([span.expected for span in found])
        mine = []
        if found and self.calls:
            begins = bisect_left(self.calls, found[0].since, key=attrgetter("at"))
            ends = bisect_right(self.calls, max(one.until for one in found), key=attrgetter("at"))
            mine = self.calls[begins:ends]
        both = truths.beside(expected, self.shown.counted(mine, self.truths))
        return performance.compare(self.shown.reference, both, level=drift.level(budget))


@lru_cache(maxsize=4)
def _gauge(content: bytes) -> Gauge:
    """Return a version's profile made ready; whoever looks every minute makes it once."""
    told = records.load(content, _Form)
    if told.format not in _FORMATS:
        raise ProfileTooOld(
            "the profile of this version is in a form that is not read any more",
            "Train again: `nbmlops train`, and deploy what comes out.",
        )
    return Gauge(records.load(content, profile.Profile))


class _Form(records.Record, frozen=True):
    format: int = 1


def _served(workspace: Workspace, name: str) -> DeploymentRecord:
    endpoint = endpoints.running(workspace, name)
    endpoints.refuse_elsewhere(workspace, name)  # its calls are logged there
    return deployments.get(workspace, endpoint.deployment_id or "")


def _history(
    gauge: Gauge,
    found: list[Span],
    budget: Budget,
    hidden: frozenset[str],
    true: _CameTrue,
) -> tuple[Slice, ...]:
    """Return the course of a window, in at most sixty slices of about as many spans."""
    if len(found) < 2:
        return ()
    size = -(-len(found) // SLICES)
    slices: list[Slice] = []
    for first in range(0, len(found), size):
        of_slice = found[first : first + size]
        part = spans.merged(of_slice)
        judged = drift.judge(gauge, part.tally, budget=budget, pictures=False, hidden=hidden)
        slices.append(
            Slice(
                since=part.since,
                until=part.until,
                rows=part.tally.rows,
                verdict=_verdict(judged, part),
                columns={one.name: _judgement(one) for one in judged.columns},
                prediction=_judgement(judged.prediction) if judged.prediction else None,
                out_of_bounds=part.tally.out_of_bounds,
                metrics=true.compared(of_slice, budget)[0],
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


def _keep(workspace: Workspace, deployment: DeploymentRecord, report: MonitorReport) -> None:
    """Keep a report without its history and its pictures, which follow from the calls."""
    report = records.replace(
        report,
        history=(),
        columns=tuple(records.replace(one, distribution=None) for one in report.columns),
    )
    name = deployment.deployment_id
    kept = workspace.store.get(KIND, name, MonitorReport)
    workspace.store.swap(
        KIND,
        name,
        report,
        expected=kept.revision if kept else 0,
        key=f"{KIND}:{name}:{layout.new_id('m', report.created_at.timestamp())}",
        status=report.verdict,
        metrics={one.name: one.value for one in report.metrics},
    )


def latest(workspace: Workspace, deployment_id: str) -> MonitorReport | None:
    """Return the newest report about a deployment, or ``None`` when nobody has looked yet."""
    kept = workspace.store.get(KIND, deployment_id, MonitorReport)
    return None if kept is None else kept.record
