"""A monitoring report as the one JSON document that its live view is drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nbmlops import records
from nbmlops.records import MonitorReport, Slice
from nbmlops.widgets import wording
from nbmlops.widgets.drift_history import LEVELS, timeline


def drift_document(
    report: MonitorReport, *, history: Sequence[Slice] | None = None
) -> dict[str, Any]:
    """Return the report with its words and its geometry, columns in order.

    ``history`` stands in for the report's own: a report of a part of the time is shown below the
    whole of it.
    """
    if history is not None:
        report = records.replace(report, history=tuple(history))
    shown = timeline(report)
    plain = records.plain(
        records.replace(report, columns=tuple(wording.ordered(report)), history=(), metrics=())
    )
    return {
        "report": plain,
        "title": wording.title(report),
        "facts": [
            fact
            for fact in (
                wording.origin(report),
                wording.window(report),
                f"against {wording.reference(report)}",
            )
            if fact
        ],
        "questions": [{"name": name, "asked": asked} for name, asked in wording.QUESTIONS],
        "why": records.plain(wording.explanation(report)),
        "metrics": {
            "heads": list(wording.METRIC_HEADS),
            "rows": [
                {"cells": list(wording.metric_cells(metric)), "worse": metric.worse}
                for metric in report.metrics
            ],
        },
        "traffic": wording.traffic(report.traffic) if report.traffic else None,
        "levels": list(LEVELS),
        "timeline": None
        if shown is None
        else {
            **records.plain(shown),
            "rows": [{**records.plain(row), "told": row.told} for row in shown.rows],
        },
    }
