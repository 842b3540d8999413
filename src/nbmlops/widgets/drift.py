"""Show a monitoring report in a cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbmlops.records import MonitorReport
from nbmlops.widgets import front_end
from nbmlops.widgets.drift_report import text
from nbmlops.widgets.drift_still import mimebundle

if TYPE_CHECKING:
    from nbmlops.widgets.drift_widget import OnSelect, Refresh

__all__ = ["StaticReport", "mimebundle", "show"]


def show(
    report: MonitorReport, *, on_select: OnSelect | None = None, refresh: Refresh | None = None
) -> Any:
    """Return what a cell displays of a report.

    For a front end that shows widgets it is a live one, elsewhere a static object. Both carry the
    report as text, HTML and PNG as well, so a reopened or converted notebook, a git host and a
    mail show the same answers.

    ``on_select`` returns the report of the window that the reader chooses, from its first moment
    up to and without its second; ``refresh`` the report as it would be made now. Without them the
    reader can still look at parts of the time, and the live widget's ``update`` shows another
    report in place. What is static needs neither.
    """
    if not front_end.shows_widgets():
        return StaticReport(report)
    try:
        from nbmlops.widgets.drift_widget import DriftWidget
    except ImportError:
        return StaticReport(report)
    return DriftWidget(report, on_select=on_select, refresh=refresh)


class StaticReport:
    """A report that displays itself as text, HTML and PNG."""

    def __init__(self, report: MonitorReport) -> None:
        self.report = report

    def __repr__(self) -> str:
        return text(self.report)

    def update(self, report: MonitorReport) -> None:
        """Show another report, below: what is displayed of this one stays."""
        from IPython.display import display

        self.report = report
        display(self)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return mimebundle(self.report)
