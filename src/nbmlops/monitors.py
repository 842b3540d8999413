"""Monitors: collect the calls of a deployment, hold them against the training, keep the report."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from nbmlops import calllog, deployments, endpoints, layout, models, records
from nbmlops.errors import WrongUse
from nbmlops.monitoring import drift, profile
from nbmlops.records import (
    Budget,
    CallRecord,
    DeploymentRecord,
    MonitorReport,
)
from nbmlops.workspace import Workspace

KIND = "report"
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


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
    since = now - _length(window) if window else None
    calls = list(calllog.window(workspace.home.calls, current.deployment_id, since, None))
    schema = models.schema(workspace, version)
    digest = version.files["profile"].digest
    reference = records.load(workspace.artifacts.get(digest), profile.Profile)
    seen = profile.window_profile(
        [record for call in calls for record in call.records],
        [prediction for call in calls for prediction in call.predictions],
        reference,
    )
    first, last = _span(calls)
    settings = workspace.settings.monitoring
    report = drift.report(
        reference,
        seen,
        schema,
        model=version.model,
        version=version.version,
        commit=version.commit,
        endpoint=endpoint,
        reference_digest=digest,
        since=since or first,
        until=last,
        created_at=now,
        budget=Budget(false_alarms=settings.false_alarms, windows=settings.windows),
    )
    _keep(workspace, current, report)
    return report


def _served(workspace: Workspace, name: str) -> DeploymentRecord:
    endpoint = endpoints.running(workspace, name)
    return deployments.get(workspace, endpoint.deployment_id or "")


def _length(text: str) -> timedelta:
    found = re.fullmatch(r"([1-9][0-9]{0,4})([mhd])", text)
    if not found:
        raise WrongUse(
            f"`{text[:40]}` is no length of time", "Write it as 30m, 24h or 7d: `--window 24h`."
        )
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _span(calls: list[CallRecord]) -> tuple[datetime | None, datetime | None]:
    times = [call.at for call in calls]
    return (min(times), max(times)) if times else (None, None)


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
