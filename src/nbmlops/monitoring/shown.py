"""What a version has shown on its test set, and its calls counted in the same units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nbmlops import records
from nbmlops.monitoring import columns, performance
from nbmlops.monitoring.performance import PerformanceReference, PerformanceWindow
from nbmlops.records import CallRecord, ModelSchema

Truths = Mapping[tuple[str, int], Any]
"""What came true, by the call's id and the record's place in it."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a version has shown on its test set, if that was kept, and in which form it answers."""

    reference: PerformanceReference | None
    schema: ModelSchema

    def counted(self, found: Sequence[CallRecord], truths: Truths) -> PerformanceWindow:
        """Count calls beside their truths, as far as those are there."""
        rows = [record for call in found for record in call.records]
        hidden = {name for call in found for name in call.redacted or ()}
        names = [(call.call_id, row) for call in found for row in range(len(call.records))]
        return performance.window(
            self.reference,
            self.schema,
            [prediction for call in found for prediction in call.predictions],
            [truths.get(name) for name in names],
            {
                column.name: columns.of_records(rows, column.name)
                for column in self.schema.columns
                if column.name not in hidden
            },
        )


def beside(expected: PerformanceWindow, came_true: PerformanceWindow) -> PerformanceWindow:
    """Return one window: what came true of some rows, and what was to be expected of all."""
    return records.replace(came_true, rows=expected.rows, strata=expected.strata)
