"""The one function that advances everything that is due; every command ticks what it touches."""

from __future__ import annotations

import os
import secrets
import socket

from nbmlops import alerts, decisions, deployments, monitors, runs, shipping, stints, sweeps
from nbmlops.records import Ticked
from nbmlops.workspace import Workspace

_LEASE = "tick"
_LEASE_S = 30.0


def tick(workspace: Workspace, *, recovers: bool = True) -> Ticked:
    """Advance runs, sweeps, deployments; ship sealed calls; look at calls, tell of alerts.

    Without ``recovers`` no version is started in another's place.

    A lease in the store lets one tick at a time in each clone, whose jobs are its own; whoever does
    not get it loses nothing, since somebody else does the same work.
    """
    holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    lease = f"{_LEASE}-{decisions.place(workspace)}"
    if not workspace.store.lease(lease, holder, workspace.now().timestamp(), _LEASE_S):
        return Ticked(at=workspace.now(), ours=False)
    try:
        runs.unfinished(workspace)
        sweeps.unfinished(workspace)
        deployments.settle(workspace)
        if recovers:
            deployments.recover(workspace)
        deployments.rest(workspace)
        stints.settle(workspace)
        shipping.ship(workspace)
        try:
            looked = monitors.look_at_due(workspace)
        finally:
            alerts.deliver(workspace)
    finally:
        workspace.store.release(lease, holder)
    return Ticked(at=workspace.now(), ours=True, looked=tuple(looked))
