"""The tutorial on monitoring in a real JupyterLab: its cells run, and its widgets are drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lab_notebooks import IDLE, change_theme, execute
from lab_server import Lab, until

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

TUTORIAL = Path(__file__).parents[2] / "notebooks" / "monitoring.ipynb"

# The last cell, an assertion, shows nothing: it has run where it has a number.
ENDED = """
() => {
  const shown = window.jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model);
  const cells = shown.filter(cell => cell.type === 'code');
  const outputs = cells.flatMap(cell => cell.outputs.toJSON());
  const error = outputs.find(output => output.output_type === 'error');
  if (error) throw new Error(`${error.ename}: ${error.evalue}`);
  return cells.at(-1).executionCount !== null;
}
"""


def test_the_tutorial_runs_and_its_widget_finds_the_change(
    lab: Lab, page: Any, screenshot: Callable[[str], None]
) -> None:
    (lab.project / "notebooks" / "monitoring.ipynb").write_bytes(TUTORIAL.read_bytes())
    execute(page, "docmanager:open", path=lab.path("monitoring"))
    until(page, IDLE, 60)
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    until(page, ENDED, 180)
    widgets = page.locator(".jp-OutputArea-output .nbm-drift")
    # Before the change, after it, with outcomes; the frames, the files; beside the report.
    assert widgets.count() == 6
    changed = widgets.nth(1)
    changed.locator(".nbm-head", has_text="alert").wait_for()
    for theme in ("Light", "Dark"):
        change_theme(page, f"JupyterLab {theme}", ".nbm-drift >> nth=0")
        for place, name in enumerate(("ok", "changed", "outcomes", "frames")):
            widgets.nth(place).evaluate("node => node.scrollIntoView()")
            screenshot(f"tutorial-{name}-{theme.lower()}")
    change_theme(page, "JupyterLab Light", ".nbm-drift >> nth=0")
