"""The one function that advances everything that is due; every command ticks what it touches."""

from __future__ import annotations

import os
import socket

from nbmlops import deployments, runs, shipping, stints, sweeps
from nbmlops.workspace import Workspace

_LEASE = "tick"
_LEASE_S = 30.0


def tick(workspace: Workspace) -> bool:
    """Collect runs, go on with sweeps, settle deployments, ship sealed calls.

    Return whether it was our turn.

    A lease in the store lets one tick at a time; whoever does not get it loses nothing, since
    somebody else does the same work.
    """
    holder = f"{socket.gethostname()}:{os.getpid()}"
    if not workspace.store.lease(_LEASE, holder, workspace.now().timestamp(), _LEASE_S):
        return False
    try:
        runs.unfinished(workspace)
        sweeps.unfinished(workspace)
        deployments.settle(workspace)
        stints.settle(workspace)
        shipping.ship(workspace)
    finally:
        workspace.store.release(_LEASE, holder)
    return True
