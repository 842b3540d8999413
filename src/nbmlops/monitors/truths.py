"""What came true of a deployment's calls, beside what was expected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from nbmlops import actuals, calllog, calls, models, records
from nbmlops.actuals import Actual
from nbmlops.calllog.ids import milliseconds, parsed
from nbmlops.monitoring import columns, performance
from nbmlops.monitoring.performance import PerformanceReference, PerformanceWindow
from nbmlops.records import CallRecord, ModelSchema, ModelVersion
from nbmlops.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Shown:
    """What a version has shown on its test set, if that was kept, and in which form it answers."""

    reference: PerformanceReference | None
    schema: ModelSchema

    def counted(
        self, found: Sequence[CallRecord], truths: dict[tuple[str, int], Actual]
    ) -> PerformanceWindow:
        """Count calls beside their truths, as far as those are there."""
        rows = [record for call in found for record in call.records]
        hidden = {name for call in found for name in call.redacted or ()}
        names = [(call.call_id, row) for call in found for row in range(len(call.records))]
        known = [truths.get(name) for name in names]
        return performance.window(
            self.reference,
            self.schema,
            [prediction for call in found for prediction in call.predictions],
            [None if one is None else one.actual for one in known],
            {
                column.name: columns.of_records(rows, column.name)
                for column in self.schema.columns
                if column.name not in hidden
            },
        )


def shown(workspace: Workspace, version: ModelVersion) -> Shown:
    """Return what a version has shown on its test set."""
    kept = version.files.get("performance")
    reference = None
    if kept is not None:
        content = workspace.artifacts.get(kept.digest)
        reference = records.load(content, PerformanceReference)
    return Shown(reference, models.schema(workspace, version))


def arrived(
    workspace: Workspace,
    deployment_id: str,
    since: datetime | None,
    until: datetime | None,
) -> tuple[list[CallRecord], dict[tuple[str, int], Actual]]:
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
    return found, standing


def _came_at(call_id: str) -> datetime:
    return datetime.fromtimestamp(milliseconds(parsed(call_id)[0]) / 1000, UTC)


def _is_inside(at: datetime, since: datetime | None, until: datetime | None) -> bool:
    return (since is None or at >= since) and (until is None or at < until)


def beside(expected: PerformanceWindow, came_true: PerformanceWindow) -> PerformanceWindow:
    """Return one window: what came true of some rows, and what was to be expected of all."""
    return records.replace(came_true, rows=expected.rows, strata=expected.strata)
