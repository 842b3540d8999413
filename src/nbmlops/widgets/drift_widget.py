"""The live drift widget; imported only where anywidget is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets

from nbmlops import records
from nbmlops.records import MonitorReport
from nbmlops.widgets import drift, wording
from nbmlops.widgets.assets import module

_STATIC = Path(__file__).parent / "static"


class DriftWidget(anywidget.AnyWidget):
    """Draws one report; ``document`` is the report as JSON with its words."""

    _esm = module("drift")
    _css = _STATIC / "drift.css"
    document = traitlets.Dict().tag(sync=True)

    def __init__(self, report: MonitorReport) -> None:
        self._report = report
        super().__init__(document=_document(report))

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        live = super()._repr_mimebundle_(**kwargs)
        if live is None:
            return None
        data, metadata = live
        return {**data, **drift.mimebundle(self._report)}, metadata


def _document(report: MonitorReport) -> dict[str, Any]:
    """Return the report with the lines that are worded here alone, columns in order."""
    shown = records.replace(report, columns=tuple(wording.ordered(report)))
    return {
        "report": records.plain(shown),
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
    }
