"""The four questions, asked here or by a launcher's job, about one endpoint or all."""

from __future__ import annotations

from nbmlops import endpoints
from nbmlops.errors import UnknownEndpoint
from nbmlops.monitors import jobs, looking
from nbmlops.records import MonitorReport
from nbmlops.workspace import Workspace


def monitor(
    workspace: Workspace, endpoint: str, *, window: str | None = None, on: str | None = None
) -> MonitorReport:
    """Answer the four questions for the calls that an endpoint's deployment has answered.

    ``window`` is a length such as ``24h``, counted back from now; without it, all calls count.
    ``on`` names a launcher whose job does it, and is followed to its end.

    Raises
    ------
    UnknownEndpoint
        When no such endpoint is up.
    ProfileTooOld
        When the version was trained by an older nbmlops.
    LauncherUnavailable
        When the launcher is not there.
    LookFailed
        When the job leaves no report.
    """
    if on is None:
        return looking.monitor(workspace, endpoint, window=window)
    return jobs.follow(workspace, endpoint, on, window=window)


def monitor_all(
    workspace: Workspace, *, window: str | None = None, on: str | None = None
) -> list[MonitorReport]:
    """Answer the four questions for each endpoint that is up and was started from here.

    Raises
    ------
    UnknownEndpoint
        When none is up.
    """
    names = [one.endpoint for one in endpoints.every(workspace) if looking.is_ours(workspace, one)]
    if not names:
        raise UnknownEndpoint(
            "no endpoint is up",
            "Deploy a model: `nbmlops deploy NAME`; see them: `nbmlops models`.",
        )
    return [monitor(workspace, name, window=window, on=on) for name in names]
