"""The live drift widget; imported only where anywidget is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import anywidget
import traitlets

from nbmlops.errors import NbmlopsError
from nbmlops.records import MonitorReport
from nbmlops.widgets import drift_still
from nbmlops.widgets.assets import module, sheet
from nbmlops.widgets.drift_document import drift_document

OnSelect = Callable[[datetime, datetime], MonitorReport]
"""Returns the report of the calls from the first moment up to and without the second."""

Refresh = Callable[[], MonitorReport]
"""Returns the report as it would be made now."""


class DriftWidget(anywidget.AnyWidget):
    """Draws one report, and asks for another when the reader chooses a window.

    ``document`` is what :mod:`~nbmlops.widgets.drift_document` makes of the report. The browser
    sets ``selection`` to ``{"since": ..., "until": ...}`` or ``None``, and counts ``asked`` up to
    be told the news; ``hooks`` tells it what can be asked for and what was answered.
    """

    _esm = module("drift")
    _css = sheet("drift")
    document = traitlets.Dict().tag(sync=True)
    selection = traitlets.Dict(allow_none=True, default_value=None).tag(sync=True)
    asked = traitlets.Int(0).tag(sync=True)
    hooks = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        report: MonitorReport,
        *,
        on_select: OnSelect | None = None,
        refresh: Refresh | None = None,
    ) -> None:
        self._report = report
        self._on_select, self._refresh = on_select, refresh
        super().__init__(
            document=drift_document(report), selection=None, hooks=self._hooks(selected=None)
        )
        self.observe(lambda _: self._select(), "selection")
        self.observe(lambda _: self._ask(), "asked")

    def update(self, report: MonitorReport) -> None:
        """Show another report in place; what the reader has opened and chosen stays."""
        self._report = report
        self._select()

    def _select(self) -> None:
        """Show the report of the window that is chosen, below the whole history."""
        chosen: dict[str, str] | None = self.selection
        on_select = self._on_select
        if not chosen or on_select is None:
            self._show(self._report, selected=None)
            return

        def looked() -> MonitorReport:
            since, until = (datetime.fromisoformat(chosen[end]) for end in ("since", "until"))
            return on_select(since, until)

        self._answer(looked, selected=chosen)

    def _ask(self) -> None:
        if self._refresh is not None:
            refresh = self._refresh
            self._answer(refresh, selected=None)

    def _answer(
        self, make: Callable[[], MonitorReport], *, selected: dict[str, str] | None
    ) -> None:
        """Show a report that is asked for, or why there is none: this is a door to the browser."""
        try:
            report = make()
        except Exception as error:
            told = str(error) if isinstance(error, NbmlopsError) else f"{error!r}"
            shown = self.hooks.get("selected")
            self.hooks = self._hooks(selected=shown, problem=told)
            if not isinstance(error, NbmlopsError):
                raise
            return
        if selected is None:
            self.update(report)
        else:
            self._show(report, selected=selected)

    def _show(self, report: MonitorReport, *, selected: dict[str, str] | None) -> None:
        with self.hold_sync():
            self.document = drift_document(report, history=self._report.history)
            self.hooks = self._hooks(selected=selected)

    def _hooks(
        self, *, selected: dict[str, str] | None, problem: str | None = None
    ) -> dict[str, Any]:
        return {
            "selectable": self._on_select is not None,
            "refreshable": self._refresh is not None,
            "selected": selected,
            "problem": problem,
            "answered": self.asked,
        }

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        live = super()._repr_mimebundle_(**kwargs)
        if live is None:
            return None
        data, metadata = live
        return {**data, **drift_still.mimebundle(self._report)}, metadata
