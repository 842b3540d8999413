"""The monitoring report in a real JupyterLab: what is chosen in it reaches the kernel and back."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lab_notebooks import FINISHED, change_theme, drag_along, reopen, run_all, without_errors
from lab_server import Lab, until

from nbmlops.records import dump, replace

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

SHOW = """
from pathlib import Path
from nbmlops.records import MonitorReport, Window, load, replace
from nbmlops.widgets.drift import show
report = load(Path('report.json').read_bytes(), MonitorReport)
def between(since, until):
    window = Window(since=since, until=until, rows=77)
    return replace(report, window=window, history=())
widget = show(report, on_select=between, refresh=lambda: replace(report, model='newer'))
widget
"""


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the report of a day, in 48 slices."""
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "widgets"), *sys.path])
    from samples import watched

    return watched()


def test_a_report_is_explored_renewed_and_lasts(
    lab: Lab, page: Any, screenshot: Callable[[str], None], report: Any
) -> None:
    hostile = (
        "<img src=x onerror='window.hacked=1' data-commandlinker-command='terminal:create-new'>"
    )
    columns = tuple(
        replace(one, name=hostile) if one.name == "feature 3" else one for one in report.columns
    )
    (lab.project / "notebooks" / "report.json").write_bytes(dump(replace(report, columns=columns)))
    run_all(page, lab, "watch", [SHOW])
    until(page, FINISHED, 60)
    widget = page.locator(".jp-OutputArea-output .nbm-drift")
    axis = widget.locator("[data-key=axis]")
    axis.wait_for()
    screenshot("monitoring-live")

    drag_along(page, axis, 24.5, 35.5, slices=48)
    widget.get_by_text("77 rows").wait_for()
    assert (
        "2026-11-19 21:30 UTC to 2026-11-20 03:30 UTC" in widget.locator(".nbm-head").inner_text()
    )
    assert "waiting" not in widget.locator(".nbm-choice").inner_text()
    screenshot("monitoring-window")
    widget.get_by_role("button", name="All", exact=True).click()
    widget.get_by_text("200 rows, 2026-11-19 09:30").wait_for()

    # Enter opens a feature here; the notebook's own shortcuts do not see the key.
    widget.locator("[data-key='column:feature 7']").click()
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    widget.get_by_role("region", name="clinic").wait_for()
    widget.get_by_role("button", name="Refresh").click()
    widget.locator(".nbm-title", has_text="newer:3").wait_for()
    assert widget.get_by_role("region", name="clinic").is_visible()
    change_theme(page, "JupyterLab Dark", ".nbm-drift")
    screenshot("monitoring-dark")
    change_theme(page, "JupyterLab Light", ".nbm-drift")
    assert page.evaluate("() => window.hacked === undefined")
    assert page.locator(".nbm-drift [data-commandlinker-command]").count() == 0

    page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    reopen(page, lab, "watch")
    static = page.locator(".jp-OutputArea-output.jp-RenderedHTML .nbm-drift")
    static.get_by_text("Metrics beside the test set").wait_for()
    without_errors(page)
    screenshot("monitoring-reopened")
    assert page.evaluate("() => window.hacked === undefined")
    assert page.locator(".nbm-drift [data-commandlinker-command]").count() == 0
