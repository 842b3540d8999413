"""Look at the calls of a deployment, and keep what was found."""

from __future__ import annotations

import contextlib
from datetime import datetime

from nbmlops import alerts, deployments, endpoints, layout, models, records
from nbmlops.errors import Conflict
from nbmlops.monitoring import answering
from nbmlops.monitoring.answering import Collected, Inquiry
from nbmlops.monitors import hours, truths
from nbmlops.project import length
from nbmlops.records import (
    Budget,
    DeploymentRecord,
    EndpointRecord,
    ModelVersion,
    MonitorReport,
)
from nbmlops.workspace import Workspace

KIND = "report"


def monitor(workspace: Workspace, endpoint: str, *, window: str | None = None) -> MonitorReport:
    """Answer the four questions for an endpoint's calls of the last ``window``, in this process.

    Raises
    ------
    UnknownEndpoint
        When no such endpoint is up.
    ProfileTooOld
        When the version was trained by an older nbmlops.
    """
    current = served(workspace, endpoint)
    now = workspace.now()
    since = now - length(window) if window else None
    report = look(workspace, current, since=since, until=None, created_at=now)
    take(workspace, current, report)
    return report


def between(workspace: Workspace, endpoint: str, since: datetime, until: datetime) -> MonitorReport:
    """Answer the four questions for the calls of a window that somebody chose; nothing is kept.

    Raises
    ------
    UnknownEndpoint
        When no such endpoint is up.
    """
    current = served(workspace, endpoint)
    return look(workspace, current, since=since, until=until, created_at=workspace.now())


def is_ours(workspace: Workspace, endpoint: EndpointRecord) -> bool:
    """Return whether an endpoint is up, and its calls are logged where this clone reads them."""
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
    asked = inquiry(workspace, deployment, since=since, until=until, created_at=created_at)
    held = answering.against(asked, *references(workspace, asked.version))
    found = hours.of_deployment(workspace, deployment.deployment_id, held, since, until)
    true = truths.arrived(workspace, deployment.deployment_id, since, until)
    return answering.answer(asked, held, Collected(found, *true))


def inquiry(
    workspace: Workspace,
    deployment: DeploymentRecord,
    *,
    since: datetime | None,
    until: datetime | None,
    created_at: datetime,
) -> Inquiry:
    """Return what is asked about a deployment's calls, at the project's budget."""
    version = models.find(workspace, f"{deployment.model}:{deployment.version}")
    settings = workspace.settings.monitoring
    return Inquiry(
        deployment=deployment,
        version=version,
        schema=models.schema(workspace, version),
        budget=Budget(false_alarms=settings.false_alarms, windows=settings.windows),
        since=since,
        until=until,
        created_at=created_at,
    )


def references(workspace: Workspace, version: ModelVersion) -> tuple[bytes, bytes | None]:
    """Return a version's profile, and what its test set has shown if that was kept."""
    tested = version.files.get("performance")
    return (
        workspace.artifacts.get(version.files["profile"].digest),
        None if tested is None else workspace.artifacts.get(tested.digest),
    )


def served(workspace: Workspace, name: str) -> DeploymentRecord:
    """Return the deployment that answers the calls of an endpoint.

    Raises
    ------
    UnknownEndpoint
        When no such endpoint is up.
    """
    endpoint = endpoints.running(workspace, name)
    endpoints.refuse_elsewhere(workspace, name)  # its calls are logged there
    return deployments.get(workspace, endpoint.deployment_id or "")


def take(workspace: Workspace, deployment: DeploymentRecord, report: MonitorReport) -> None:
    """Keep a report and raise what alerts follow; the same report again changes nothing.

    One that is older than what was kept since is history: no alert follows from it.
    """
    if keep(workspace, deployment.deployment_id, report):
        alerts.take(workspace, deployment.endpoint, report)


def keep(workspace: Workspace, name: str, report: MonitorReport) -> bool:
    """Keep a report without its history and its pictures, which follow from the calls.

    One that is newer stays, unless a clock that was ahead has made it. Return whether this one is
    the newest.
    """
    report = records.replace(
        report,
        history=(),
        columns=tuple(records.replace(one, distribution=None) for one in report.columns),
    )
    while True:
        kept = workspace.store.get(KIND, name, MonitorReport)
        newest = kept.record.created_at if kept else None
        if newest is not None and report.created_at <= newest <= workspace.now():
            return report.created_at == newest
        with contextlib.suppress(Conflict):
            workspace.store.swap(
                KIND,
                name,
                report,
                expected=kept.revision if kept else 0,
                key=f"{KIND}:{name}:{layout.new_id('m', report.created_at.timestamp())}",
                status=report.verdict,
                metrics={one.name: one.value for one in report.metrics},
            )
            return True


def latest(workspace: Workspace, deployment_id: str) -> MonitorReport | None:
    """Return the newest report about a deployment, or ``None`` when nobody has looked yet."""
    kept = workspace.store.get(KIND, deployment_id, MonitorReport)
    return None if kept is None else kept.record
