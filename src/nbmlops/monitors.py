"""Monitors: collect the calls of a deployment, hold them against the training, keep the report."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from nbmlops import calls, deployments, endpoints, layout, models, records
from nbmlops.monitoring import drift, profile
from nbmlops.project import length
from nbmlops.records import (
    Budget,
    ColumnReport,
    DeploymentRecord,
    ModelSchema,
    MonitorReport,
)
from nbmlops.workspace import Workspace

KIND = "report"


def monitor(workspace: Workspace, endpoint: str, *, window: str | None = None) -> MonitorReport:
    """Answer the four questions for the calls that an endpoint's deployment has answered.

    ``window`` is a length such as ``24h``, counted back from now; without it, all calls count.

    Raises
    ------
    UnknownEndpoint
        When no such endpoint is up.
    """
    current = _served(workspace, endpoint)
    version = models.find(workspace, f"{current.model}:{current.version}")
    now = workspace.now()
    since = now - length(window) if window else None
    schema = models.schema(workspace, version)
    digest = version.files["profile"].digest
    reference = records.load(workspace.artifacts.get(digest), profile.Profile)
    looked = _looked(calls.window(workspace, current.deployment_id, since), reference)
    hidden = looked.redacted
    settings = workspace.settings.monitoring
    report = drift.report(
        _without(reference, hidden),
        _without(looked.profile, hidden),
        records.replace(
            schema, columns=tuple(one for one in schema.columns if one.name not in hidden)
        ),
        model=version.model,
        version=version.version,
        commit=version.commit,
        endpoint=endpoint,
        reference_digest=digest,
        since=since or looked.first,
        until=looked.last,
        created_at=now,
        budget=Budget(false_alarms=settings.false_alarms, windows=settings.windows),
    )
    report = records.replace(report, columns=(*report.columns, *_kept_out(schema, hidden)))
    _keep(workspace, current, report)
    return report


def _served(workspace: Workspace, name: str) -> DeploymentRecord:
    endpoint = endpoints.running(workspace, name)
    endpoints.refuse_elsewhere(workspace, name)  # its calls are logged there
    return deployments.get(workspace, endpoint.deployment_id or "")


@dataclass(frozen=True, slots=True)
class _Looked:
    """What a window of calls looks like, and which columns are not in the log as they were sent."""

    profile: profile.Profile
    first: datetime | None
    last: datetime | None
    redacted: frozenset[str]


def _looked(window: calls.Calls, reference: profile.Profile) -> _Looked:
    """Summarise a window, a batch of calls at a time."""
    seen = profile.window_profile([], [], reference)
    times: set[datetime] = set()
    redacted: set[str] = set()
    for batch in window.batches():
        part = profile.window_profile(
            [record for call in batch for record in call.records],
            [prediction for call in batch for prediction in call.predictions],
            reference,
        )
        seen = profile.merge(seen, part) if seen.rows else part
        found = [call.at for call in batch]
        times = {min(*times, *found), max(*times, *found)} if times else {min(found), max(found)}
        redacted.update(*(call.redacted for call in batch if call.redacted))
    first, last = (min(times), max(times)) if times else (None, None)
    return _Looked(seen, first, last, frozenset(redacted))


def _without(whole: profile.Profile, hidden: frozenset[str]) -> profile.Profile:
    kept = tuple(column for column in whole.columns if column.name not in hidden)
    return records.replace(whole, columns=kept)


def _kept_out(schema: ModelSchema, hidden: frozenset[str]) -> tuple[ColumnReport, ...]:
    """Return the columns that nobody can watch, since their values are kept out of the log."""
    return tuple(
        ColumnReport(
            name=column.name,
            kind=column.kind,
            verdict="unknown",
            reason="its values are kept out of the call log: [calls] of nbmlops.toml",
        )
        for column in schema.columns
        if column.name in hidden
    )


def _keep(workspace: Workspace, deployment: DeploymentRecord, report: MonitorReport) -> None:
    name = deployment.deployment_id
    kept = workspace.store.get(KIND, name, MonitorReport)
    workspace.store.swap(
        KIND,
        name,
        report,
        expected=kept.revision if kept else 0,
        key=f"{KIND}:{name}:{layout.new_id('m', report.created_at.timestamp())}",
        status=report.verdict,
    )


def latest(workspace: Workspace, deployment_id: str) -> MonitorReport | None:
    """Return the newest report about a deployment, or ``None`` when nobody has looked yet."""
    kept = workspace.store.get(KIND, deployment_id, MonitorReport)
    return None if kept is None else kept.record
