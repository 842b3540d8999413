"""The widgets in a real Notebook 7: the same packages, nothing installed beside them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_notebooks import drag_along, notebook
from lab_server import TOKEN, Lab, picture
from test_lab_monitoring import SHOW

from nbmlops.records import dump

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

THEIRS = "static/notebook/notebook_core"

TRAIN = "%load_ext nbmlops\n%mlops train train -p n_estimators=5"
MONITOR = "%load_ext nbmlops\n%mlops monitor cancer"


@pytest.fixture
def classic(
    lab: Lab, browser: Any, request: pytest.FixtureRequest
) -> Iterator[Callable[[str, list[str]], Any]]:
    """Return what opens cells in Notebook 7 and runs them; an error in a page fails the test."""
    errors: list[str] = []
    context = browser.new_context(viewport={"width": 1200, "height": 1000})

    def run(name: str, cells: list[str]) -> Any:
        (lab.project / "notebooks" / f"{name}.ipynb").write_text(notebook(cells))
        page = context.new_page()
        page.set_default_timeout(60_000)
        # Its own plugin of shortcuts may be told of another's settings before it has its own.
        page.on("pageerror", lambda error: THEIRS in error.stack or errors.append(str(error)))
        page.goto(f"{lab.url}notebooks/{lab.path(name)}?token={TOKEN}")
        page.locator(".jp-Notebook .jp-CodeCell").first.click()
        page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for()
        page.get_by_text("Run", exact=True).first.click()
        page.get_by_text("Run All Cells", exact=True).click()
        return page

    yield run
    for number, page in enumerate(context.pages):
        picture(page, f"last-of-{request.node.name}-{number}")
    context.close()
    assert errors == []


def test_a_report_is_explored_in_notebook_7(
    lab: Lab, classic: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "widgets"), *sys.path])
    from samples import watched

    (lab.project / "notebooks" / "report.json").write_bytes(dump(watched()))
    page = classic("watch", [SHOW])
    widget = page.locator(".jp-OutputArea-output .nbm-drift")
    axis = widget.locator("[data-key=axis]")
    axis.wait_for()
    picture(page, "notebook7-report")
    drag_along(page, axis, 24.5, 35.5, slices=48)
    widget.get_by_text("77 rows").wait_for()
    # The notebook's own shortcuts do not see the key.
    widget.locator("[data-key='column:feature 7']").click()
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    widget.get_by_role("region", name="clinic").wait_for()
    picture(page, "notebook7-feature")
    widget.get_by_role("button", name="All", exact=True).click()
    widget.get_by_role("button", name="Refresh").click()
    widget.locator(".nbm-title", has_text="newer:3").wait_for()


def test_a_run_and_a_monitor_are_shown_in_notebook_7(lab: Lab, classic: Any) -> None:
    page = classic("go", [TRAIN])
    page.locator(".jp-OutputArea-output", has_text="cancer:1").first.wait_for(timeout=120_000)
    picture(page, "notebook7-run")
    lab.nbmlops("deploy", "cancer")
    page = classic("look", [MONITOR])
    widget = page.locator(".jp-OutputArea-output .nbm-drift")
    widget.locator(".nbm-head", has_text="cancer:1").wait_for()
    picture(page, "notebook7-monitor")
