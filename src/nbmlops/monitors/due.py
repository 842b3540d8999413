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

    Where a launcher's job is to look, it is submitted, and taken in by a later call. What goes
    wrong with one endpoint is told, and the others are looked at.
    """
    found = list(jobs.take_in(workspace))
    if workspace.settings.monitoring.every is None:
        return found
    for endpoint in endpoints.every(workspace):
        name = endpoint.deployment_id
        if name is None or not looking.is_ours(workspace, endpoint) or not _is_due(workspace, name):
            continue
        deployment = deployments.recorded(workspace, name)
        try:
            report = _look(workspace, deployment)
        except Exception as error:
            window = workspace.settings.monitoring.window
            jobs.note_failure(workspace, deployment, window, error)
            told = error.message if isinstance(error, NbmlopsError) else repr(error)
            workspace.warn(f"{endpoint.endpoint}: {told}")
        else:
            found += [] if report is None else [report]
    return found


def _look(workspace: Workspace, deployment: DeploymentRecord) -> MonitorReport | None:
    settings = workspace.settings.monitoring
    if settings.on is None:
        return looking.monitor(workspace, deployment.endpoint, window=settings.window)
    asked = jobs.submit(workspace, deployment, settings.on, window=settings.window, wait=False)
    if asked is not None:
        workspace.say(f"{asked.job} looks at the calls of {deployment.endpoint}")
    return None


def _is_due(workspace: Workspace, deployment_id: str) -> bool:
    settings, now = workspace.settings.monitoring, workspace.now()
    seen = looking.latest(workspace, deployment_id)
    asked = jobs.newest(workspace, deployment_id, settings.window)
    if asked is not None and not asked.ended:
        return False  # it is being looked at
    times = [at for at in (seen and seen.created_at, asked and asked.asked_at) if at is not None]
    # What lies ahead was told by a clock that was.
    past = [at for at in times if at <= now]
    return not past or max(past) <= now - length(settings.every or "")
