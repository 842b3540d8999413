"""What is due: the endpoints whose calls are to be looked at again, and jobs that have done so."""

from __future__ import annotations

from nbmlops import deployments, endpoints
from nbmlops.errors import NbmlopsError
from nbmlops.monitors import jobs, looking
from nbmlops.project import length
from nbmlops.records import DeploymentRecord, MonitorReport
from nbmlops.workspace import Workspace


def look_at_due(workspace: Workspace) -> list[MonitorReport]:
    """Look at the endpoints whose time has come, as ``[monitoring]`` says; return what was found.

    Where a launcher's job is to look, it is submitted, and taken in by a later call.
    """
    found = list(jobs.take_in(workspace))
    if workspace.settings.monitoring.every is None:
        return found
    for endpoint in endpoints.every(workspace):
        if not looking.is_ours(workspace, endpoint) or endpoint.deployment_id is None:
            continue
        try:
            deployment = deployments.get(workspace, endpoint.deployment_id)
            report = _look(workspace, deployment) if _is_due(workspace, deployment) else None
        except NbmlopsError as error:  # the others are looked at all the same
            workspace.warn(f"{endpoint.endpoint}: {error.message}")
        else:
            found += [] if report is None else [report]
    return found


def _look(workspace: Workspace, deployment: DeploymentRecord) -> MonitorReport | None:
    settings = workspace.settings.monitoring
    if settings.on is None:
        return looking.monitor(workspace, deployment.endpoint, window=settings.window)
    asked = jobs.submit(workspace, deployment, settings.on, window=settings.window)
    workspace.say(f"{asked.job} looks at the calls of {deployment.endpoint}")
    return None


def _is_due(workspace: Workspace, deployment: DeploymentRecord) -> bool:
    settings = workspace.settings.monitoring
    seen = looking.latest(workspace, deployment.deployment_id)
    asked_at = jobs.asked_at(workspace, deployment, settings.window) if settings.on else None
    times = [at for at in (seen and seen.created_at, asked_at) if at is not None]
    return not times or max(times) <= workspace.now() - length(settings.every or "")
