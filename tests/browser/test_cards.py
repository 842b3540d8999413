"""The cards of runs and sweeps in a real JupyterLab, while their cell runs and after it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lab_notebooks import FINISHED, execute, notebook, run_all
from lab_server import Lab, until, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(420)]

A_RUN_MS = 180_000
LIVE = "application/vnd.jupyter.widget-view+json"
CARD = ".jp-OutputArea-output .nbm-run"
HOSTILE = "<img src=x onerror='window.hacked=1'>"

# From now on, look at every frame that is painted.
WATCH_FRAMES = """
() => {
  const cell = window.jupyterapp.shell.currentWidget.content.widgets.at(-1);
  const area = cell.node.querySelector('.jp-OutputArea');
  window.frames_seen = { loading: 0, lowest: Infinity, count: 0 };
  const look = () => {
    const seen = window.frames_seen;
    seen.count += 1;
    if (area.textContent.includes('Loading widget')) seen.loading += 1;
    seen.lowest = Math.min(seen.lowest, area.getBoundingClientRect().height);
    if (!window.frames_stop) requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}
"""
DRAWN_BY_HTML = "() => document.querySelector('.jp-RenderedHTML .nbm-run') !== null"


def slow_notebook(seconds: float) -> str:
    """Return a notebook that logs, prints and takes its time in its last cell."""
    return notebook(
        [
            f"import time\nimport nbmlops as mlops\nmlops.log_metrics(**{{{HOSTILE!r}: 0.25}})",
            f"print({HOSTILE!r})",
            "for epoch in range(100):\n"
            "    print(f'epoch {epoch}', flush=True)\n"
            f"    time.sleep({seconds / 100})",
        ]
    )


def put(lab: Lab, seconds: float) -> None:
    (lab.project / "notebooks" / "slow.ipynb").write_text(slow_notebook(seconds))


def saved(lab: Lab, page: Any, name: str) -> dict[str, Any]:
    """Save the open notebook and return the data of its last cell's last output."""
    execute(page, "docmanager:save")
    kept = json.loads((lab.project / "notebooks" / f"{name}.ipynb").read_text())
    return kept["cells"][-1]["outputs"]


def test_a_run_card_is_live_while_its_cell_runs_and_lasts_when_the_notebook_is_reopened(
    lab: Lab, page: Any, screenshot: Callable[[str], None]
) -> None:
    put(lab, 12)
    run_all(page, lab, "watch", ["%load_ext nbmlops", "%mlops train notebooks/slow.ipynb"])
    card = page.locator(CARD)
    card.locator("[role=progressbar][aria-valuenow='2']").wait_for(timeout=A_RUN_MS)
    assert page.locator(f".jp-RenderedHTML {CARD}").count() == 0  # the widget, not the HTML
    card.get_by_text("running, cell 3 of 3").wait_for()
    card.locator("summary", has_text="Log").click()
    line = card.locator(".nbm-log").get_by_text("epoch")
    line.wait_for()
    first = card.locator(".nbm-log").inner_text()
    # Nothing of the record changes while a cell goes on; the log and the clock do.
    wait_until(lambda: card.locator(".nbm-log").inner_text() != first, 20, lambda: first)
    clock = card.locator(".nbm-title .nbm-clock")
    told = clock.inner_text()
    wait_until(lambda: clock.inner_text() != told, 10, lambda: f"the clock stands at {told}")
    assert card.locator(".nbm-log").is_visible()  # it was opened, and stays so
    screenshot("run-card-live")
    change_theme(page, "JupyterLab Dark")
    screenshot("run-card-live-dark")
    change_theme(page, "JupyterLab Light")

    page.evaluate(WATCH_FRAMES)
    page.locator(f"{CARD}[data-state=succeeded]").wait_for(timeout=A_RUN_MS)
    until(page, FINISHED, 30)
    until(page, DRAWN_BY_HTML, 30)
    page.evaluate("() => { window.frames_stop = true; }")
    frames = page.evaluate("() => window.frames_seen")
    assert frames["count"] > 0
    assert frames["loading"] == 0, frames
    assert frames["lowest"] > 60, frames
    screenshot("run-card-ended")
    assert page.locator(CARD).count() == 1
    assert page.evaluate("() => window.hacked === undefined")

    [output] = saved(lab, page, "watch")
    assert set(output["data"]) == {"text/plain", "text/html"}
    run = lab.nbmlops("runs")["items"][0]
    assert f"✓ succeeded  {run['run_id']}" in "".join(output["data"]["text/plain"])
    reopen(page, "watch")
    page.locator(f"{CARD}[data-state=succeeded]").get_by_text(run["run_id"]).first.wait_for()
    screenshot("run-card-reopened")
    assert page.evaluate("() => window.hacked === undefined")


def change_theme(page: Any, name: str) -> None:
    """Change the theme, and wait until Lab's splash, which covers the change, has gone."""
    execute(page, "apputils:change-theme", theme=name)
    page.locator(f"body[data-jp-theme-name='{name}']").wait_for(state="attached")
    page.locator("#jupyterlab-splash").wait_for(state="detached")
    page.locator(CARD).wait_for()


def reopen(page: Any, name: str) -> None:
    """Shut the kernel down, close the notebook, open it again."""
    page.evaluate(
        "async () => { const shown = window.jupyterapp.shell.currentWidget;"
        " await shown.sessionContext.shutdown(); shown.close(); }"
    )
    execute(page, "docmanager:open", path=f"my-project/notebooks/{name}.ipynb")


def test_an_interrupt_stops_watching_and_the_card_says_how_to_follow_and_to_cancel(
    lab: Lab, page: Any, screenshot: Callable[[str], None]
) -> None:
    put(lab, 120)
    cells = ["%load_ext nbmlops", "%mlops train notebooks/slow.ipynb"]
    run_all(page, lab, "interrupted", cells)
    card = page.locator(CARD)
    card.get_by_text("running, cell 3 of 3").wait_for(timeout=A_RUN_MS)
    page.evaluate(
        "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.interrupt()"
    )
    card.get_by_text("You stopped watching; the run goes on.").wait_for(timeout=5_000)
    screenshot("run-card-interrupted")
    run = lab.nbmlops("runs")["items"][0]
    assert run["status"] == "running"
    assert card.get_by_text(f"%mlops logs {run['run_id']} --follow").is_visible()
    assert card.get_by_text(f"%mlops cancel {run['run_id']}").is_visible()
    assert lab.nbmlops("cancel", run["run_id"])["status"] == "cancelled"
