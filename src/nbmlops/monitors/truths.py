"""What came true of a deployment's calls."""

from __future__ import annotations

from datetime import UTC, datetime

from nbmlops import actuals, calllog, calls
from nbmlops.calllog.ids import milliseconds, parsed
from nbmlops.monitoring.shown import Truths
from nbmlops.records import CallRecord
from nbmlops.workspace import Workspace


def arrived(
    workspace: Workspace,
    deployment_id: str,
    since: datetime | None,
    until: datetime | None,
) -> tuple[list[CallRecord], Truths]:
    """Return the calls of a window about which a truth has come, oldest first, and the truths."""
    standing = actuals.standing(workspace, deployment_id)
    wanted = {
        call_id
        for call_id, _ in standing
        if calllog.deployment_of(call_id) == deployment_id
        and _is_inside(_came_at(call_id), since, until)
    }
    if not wanted:
        return [], {}
    found = sorted(calls.find_many(workspace, deployment_id, wanted), key=lambda call: call.at)
    truths = {name: one.actual for name, one in standing.items() if name[0] in wanted}
    return found, truths


def _came_at(call_id: str) -> datetime:
    return datetime.fromtimestamp(milliseconds(parsed(call_id)[0]) / 1000, UTC)


def _is_inside(at: datetime, since: datetime | None, until: datetime | None) -> bool:
    return (since is None or at >= since) and (until is None or at < until)
