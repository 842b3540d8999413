"""The cards of runs and sweeps in a real JupyterLab, while their cell runs and after it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from lab_notebooks import (
    FINISHED,
    change_theme,
    execute,
    notebook,
    reopen,
    run_all,
    without_errors,
)
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
            f"for epoch in range(100):\n    print('epoch', epoch)\n    time.sleep({seconds / 100})",
        ]
    )


def frames_seen(page: Any) -> dict[str, Any]:
    """Stop looking at the frames, and return what was seen in them."""
    page.evaluate("() => { window.frames_stop = true; }")
    return page.evaluate("() => window.frames_seen")


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
    put(lab, 9)
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
    change_theme(page, "JupyterLab Dark", CARD)
    screenshot("run-card-live-dark")
    change_theme(page, "JupyterLab Light", CARD)

    page.evaluate(WATCH_FRAMES)
    page.locator(f"{CARD}[data-state=succeeded]").wait_for(timeout=A_RUN_MS)
    until(page, FINISHED, 30)
    until(page, DRAWN_BY_HTML, 30)
    frames = frames_seen(page)
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
    reopen(page, lab, "watch")
    page.locator(f"{CARD}[data-state=succeeded]").get_by_text(run["run_id"]).first.wait_for()
    screenshot("run-card-reopened")
    assert page.evaluate("() => window.hacked === undefined")


def test_a_sweep_is_live_while_its_cell_runs_and_can_be_explored_when_it_has_ended(
    lab: Lab, page: Any, screenshot: Callable[[str], None]
) -> None:
    source = [
        "depth: int = 3\nrate: float = 0.1\nsolver: str = 'a'",
        "import nbmlops as mlops\nimport time\ntime.sleep(1)\n"
        "mlops.log_metrics(**{'accuracy': depth / 10 + rate, HOSTILE: 1.0})".replace(
            "HOSTILE", repr(HOSTILE)
        ),
    ]
    made = json.loads(notebook(source))
    made["cells"][0]["metadata"]["tags"] = ["parameters"]
    (lab.project / "notebooks" / "trial.ipynb").write_text(json.dumps(made))
    line = (
        "%mlops sweep notebooks/trial.ipynb -p depth=2,8 -p rate=0.1"
        f' -p "solver=a,{HOSTILE}" --metric accuracy --parallel 2'
    )
    run_all(page, lab, "search", ["%load_ext nbmlops", line])
    widget = page.locator(".jp-OutputArea-output .nbm-sweep")
    widget.locator("tbody tr[data-trial='4']").wait_for(timeout=A_RUN_MS)
    assert widget.get_attribute("data-state") == "running"
    widget.locator(".nbm-line").nth(1).wait_for()
    screenshot("sweep-live")
    page.evaluate(WATCH_FRAMES)
    page.locator(".nbm-sweep[data-state=succeeded]").wait_for(timeout=A_RUN_MS)
    until(page, FINISHED, 30)

    widget = page.locator(".jp-OutputArea-output .nbm-sweep")
    widget.locator(".nbm-line").nth(3).wait_for()  # drawn anew, and live
    frames = frames_seen(page)
    assert (frames["loading"], frames["lowest"] > 60) == (0, True), frames
    best = widget.locator("tbody tr").first
    best.focus()
    assert widget.locator(".nbm-line.nbm-over").get_attribute("data-tone") == "best"
    screenshot("sweep-ended")
    hit = widget.locator("[data-axis='0']")
    hit.focus()
    page.keyboard.press("ArrowUp")
    assert widget.locator("tbody tr:visible").count() == 2
    screenshot("sweep-brushed")
    change_theme(page, "JupyterLab Dark", ".nbm-sweep")
    screenshot("sweep-dark")
    change_theme(page, "JupyterLab Light", ".nbm-sweep")
    assert page.evaluate("() => window.hacked === undefined")

    [output] = saved(lab, page, "search")
    assert set(output["data"]) == {"text/plain", "text/html", "image/png", LIVE}
    assert "4 of 4 trials done" in "".join(output["data"]["text/plain"])
    command = widget.locator(".nbm-best code").inner_text()
    assert command.startswith("%mlops rerun trial-")
    best_run = lab.nbmlops("run", command.split()[-1])
    assert (best_run["parameters"]["depth"], best_run["parameters"]["rate"]) == (8, 0.1)

    # Its kernel restarts: what is live becomes the table that was left beside it, at once.
    page.evaluate(
        "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()"
    )
    static = page.locator(".jp-OutputArea-output.jp-RenderedHTML .nbm-sweep")
    static.get_by_text("4 of 4 trials done").wait_for()
    assert page.locator(".jp-OutputArea-output .nbm-sweep:visible").count() == 1
    reopen(page, lab, "search")
    static.get_by_text("4 of 4 trials done").wait_for()
    without_errors(page)
    screenshot("sweep-reopened")
    assert page.locator(".jp-OutputArea-output .nbm-sweep:visible").count() == 1
    assert page.evaluate("() => window.hacked === undefined")


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
