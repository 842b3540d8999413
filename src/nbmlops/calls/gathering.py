"""Calls that were logged far from here, brought before somebody reads them."""

from __future__ import annotations

from nbmlops.records import EndpointRecord, JobHandle
from nbmlops.workspace import FAR, Workspace

_ENDPOINT = "endpoint"
_ALL = 10_000


def gather_all(workspace: Workspace) -> None:
    """Bring what the fronts of clusters have logged since the last time.

    Raises
    ------
    LauncherUnavailable
        When a cluster, or the way by which files come from it, does not answer.
    """
    if not workspace.home.cluster_jobs.is_dir():
        return
    for kept in workspace.store.page(_ENDPOINT, EndpointRecord, limit=_ALL):
        found = kept.record
        if found.running and found.launcher in FAR:
            gather(workspace, found)


def gather(workspace: Workspace, endpoint: EndpointRecord) -> None:
    """Bring what one endpoint's front has logged."""
    if workspace.reaches(endpoint.launcher, endpoint.place):
        handle = endpoint.handle or JobHandle(
            launcher=endpoint.launcher, name=f"endpoint-{endpoint.endpoint}"
        )
        workspace.launcher(endpoint.launcher).gather(handle)
