"""Runs seen, compared, swept and checked without leaving JupyterLab, in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from lab_notebooks import change_theme, execute, notebook
from lab_server import Lab, until, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(420)]

A_RUN_MS = 60_000
# In a name, a value, an output and a file: none of them may become an element or run.
HOSTILE = "<img src=x onerror='window.hacked=1'>"
SETTINGS = """
[pipelines.quick]
steps = [
  { name = "first", notebook = "notebooks/first.ipynb" },
  { name = "second", notebook = "notebooks/second.ipynb" },
]
"""
PARAMETERS = f"depth: int = 3  # {HOSTILE}\nlabel: str = 'a'\nfails: bool = False"
SECOND = f"""
import pathlib, time
import nbmlops as mlops
from IPython.display import HTML, display
display(HTML("<b>from the notebook</b><script>parent.hacked = 1</script>{HOSTILE}"))
mlops.log_metrics(**{{"score": depth / 10, {HOSTILE!r}: 1.0}})
pathlib.Path("left.txt").write_text("left by the run")
mlops.log_artifact("left.txt", {HOSTILE + ".txt"!r})
if label == "slow":
    time.sleep(60)
if fails:
    raise ValueError({HOSTILE!r})
"""


@pytest.fixture
def quick(lab: Lab, page: Any) -> Lab:
    """A pipeline of two fast notebooks; the second is open, and the panel beside it."""
    made = json.loads(notebook([PARAMETERS, SECOND]))
    made["cells"][0]["metadata"]["tags"] = ["parameters"]
    folder = lab.project / "notebooks"
    (folder / "first.ipynb").write_text(notebook(["print('first')"]))
    (folder / "second.ipynb").write_text(json.dumps(made))
    with (lab.project / "nbmlops.toml").open("a") as settings:
        settings.write(SETTINGS)
    execute(page, "nbmlops:open")
    execute(page, "docmanager:open", path=lab.path("second"))
    page.get_by_test_id("run").wait_for()
    return lab


def run(page: Any, ending: str = "succeeded", **parameters: str) -> str:
    """Run the open notebook from the panel, and return the run's id when it has ended so."""
    before = set(rows(page))
    if parameters:
        form = page.get_by_role("form", name="Parameters")
        if not form.is_visible():
            page.get_by_test_id("parameters").click()
        for name, value in parameters.items():
            field = page.get_by_test_id(f"parameter-{name}")
            field.select_option(value) if name == "fails" else field.fill(value)
    page.get_by_test_id("run").click()
    wait_until(lambda: set(rows(page)) > before, 60, lambda: f"no run beside {before}")
    [run_id] = set(rows(page)) - before
    row(page, run_id, ending).wait_for(timeout=A_RUN_MS)
    return run_id


def rows(page: Any) -> list[str]:
    found = page.locator("li.jp-nbmlops-row[data-testid^=run-]").all()
    return [item.get_attribute("data-testid").removeprefix("run-") for item in found]


def row(page: Any, run_id: str, status: str) -> Any:
    return page.locator(f"[data-testid=run-{run_id}][data-status={status}]")


def narrowed(page: Any, width: int) -> None:
    """Make the left side as narrow as that, as a person does with the mouse."""
    edge = page.locator("#jp-left-stack").bounding_box()
    page.mouse.move(edge["x"] + edge["width"] + 1, 450)
    page.mouse.down()
    page.mouse.move(edge["x"] + width, 450, steps=4)
    page.mouse.up()


def is_harmless(page: Any) -> bool:
    return page.evaluate(
        "() => window.hacked === undefined"
        " && document.querySelector('.jp-nbmlops-panel img, .jp-nbmlops-panel script') === null"
    )


def test_runs_are_seen_and_compared_without_leaving_jupyterlab(
    quick: Lab, page: Any, screenshot: Callable[[str], None]
) -> None:
    first = run(page)
    # Only what has changed is run: the first step of the second run comes from the cache.
    second = run(page, label=HOSTILE)
    page.get_by_test_id(f"run-{second}").locator(".jp-nbmlops-rowHead").first.click()
    steps = page.get_by_test_id(f"run-{second}").get_by_role("list", name="Steps")
    cached = steps.locator("li[data-cached=true]")
    cached.get_by_text("cached", exact=True).wait_for()
    cached.get_by_text(f"from {first}").wait_for()
    assert steps.locator("li").count() == 2
    screenshot("runs-1-cached")

    # The executed notebook opens in a tab, where what a job wrote can do nothing.
    page.get_by_test_id(f"report-{second}-second").click()
    frame = page.locator(".jp-nbmlops-file iframe")
    frame.wait_for()
    assert frame.get_attribute("sandbox") == ""
    inside = page.frame_locator(".jp-nbmlops-file iframe")
    inside.locator("b", has_text="from the notebook").wait_for()
    screenshot("runs-2-report")
    left = page.get_by_test_id(f"run-{second}").get_by_role("button", name=re.compile("img src"))
    left.click()
    page.locator(".jp-nbmlops-file pre", has_text="left by the run").wait_for()
    assert is_harmless(page)

    # What has changed in the notebook since, cell by cell.
    execute(page, "docmanager:open", path=quick.path("second"))
    page.evaluate(
        "() => window.jupyterapp.shell.currentWidget.content.widgets[1].model.sharedModel"
        ".setSource('import nbmlops as mlops\\nmlops.log_metrics(score=depth / 5)')"
    )
    execute(page, "docmanager:save")
    page.get_by_test_id("changes").click()
    change = page.get_by_role("region", name="Changes of notebooks/second.ipynb")
    change.locator("[data-sign=added]", has_text="score=depth / 5").wait_for()
    change.locator("[data-sign=removed]", has_text="time.sleep(60)").wait_for()
    screenshot("runs-3-changes")

    # Two runs are chosen and compared by the keyboard alone.
    execute(page, "docmanager:open", path=quick.path("second"))
    third = run(page, depth="7")
    for run_id in (first, third):
        page.get_by_test_id(f"select-{run_id}").focus()
        page.keyboard.press("Space")
    page.get_by_test_id("compare").focus()
    page.keyboard.press("Enter")
    table = page.get_by_role("region", name="Runs side by side")
    table.wait_for()
    depth = table.locator("tr[data-differs=true]", has_text=re.compile(r"^≠\s*depth"))
    assert depth.locator("td").all_inner_texts() == ["3", "7"]
    score = table.locator("tr[data-differs=true]", has_text="score")
    assert score.locator("td").all_inner_texts() == ["0.3", "1.4"]
    change = page.get_by_role("region", name="Changes of notebooks/second.ipynb")
    change.last.locator("[data-sign=added]", has_text="score=depth / 5").wait_for()
    assert table.locator("tr", has_text="environment").get_attribute("data-differs") == "false"
    screenshot("runs-4-compared")
    change_theme(page, "JupyterLab Dark", "[aria-label='Runs side by side']")
    screenshot("runs-5-compared-dark")
    page.get_by_label("Only what differs").check()
    assert table.locator("tr", has_text="environment").count() == 0
    change_theme(page, "JupyterLab Light", "[aria-label='Runs side by side']")
    change.last.get_by_role("button", name="Cell 2").click()
    page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Cell.jp-mod-active").wait_for()
    assert page.evaluate("() => window.jupyterapp.shell.currentWidget.content.activeCellIndex") == 1
    assert is_harmless(page)


def test_a_run_that_failed_gets_another_attempt_and_the_first_stays_in_sight(
    quick: Lab, page: Any, screenshot: Callable[[str], None]
) -> None:
    run_id = run(page, "failed", fails="true", depth="5")
    assert quick.nbmlops("run", run_id)["cause"]["message"].startswith("ValueError")
    item = page.get_by_test_id(f"run-{run_id}")
    item.get_by_role("button", name="Cell 2 of notebooks/second.ipynb").wait_for()
    item.locator(".jp-nbmlops-rowHead").first.click()
    page.get_by_test_id(f"rerun-{run_id}").click()
    item.get_by_text("attempt 2").wait_for(timeout=A_RUN_MS)
    row(page, run_id, "failed").wait_for(timeout=A_RUN_MS)
    earlier = item.get_by_role("group", name="Attempt 1")
    earlier.get_by_text("Attempt 1: failed").wait_for()
    earlier.get_by_role("button", name="second.html").click()
    page.frame_locator(".jp-nbmlops-file iframe").get_by_text("ValueError").first.wait_for()
    narrowed(page, 250)
    screenshot("attempts-narrow")
    assert is_harmless(page)


def test_a_sweep_is_started_followed_and_cancelled_from_the_panel(
    quick: Lab, page: Any, screenshot: Callable[[str], None]
) -> None:
    page.get_by_test_id("sweep").click()
    page.get_by_test_id("start-sweep").click()
    problem = page.get_by_role("form", name="Sweep").get_by_role("alert")
    problem.wait_for()
    assert problem.get_attribute("data-code") == "invalid-parameter"
    page.get_by_test_id("parameter-depth").fill("2,9")
    page.get_by_test_id("parameter-label").fill(HOSTILE.replace("'", ""))
    page.get_by_test_id("sweep-metric").fill("score")
    screenshot("sweep-1-form")
    page.get_by_test_id("start-sweep").click()
    item = page.locator("[data-testid^=sweep-sweep-]").first
    item.wait_for()
    item.locator(".jp-nbmlops-rowHead").first.click()
    item.get_by_text(re.compile("[012] of 2 trials done")).wait_for(timeout=A_RUN_MS)
    screenshot("sweep-2-running")
    page.locator("[data-testid^=sweep-sweep-][data-status=succeeded]").wait_for(timeout=A_RUN_MS)
    best = item.locator("[data-testid^=best-]").inner_text()
    assert "best score 0.9 depth=9" in best
    trials = item.locator("[data-testid^=trial-] .jp-nbmlops-rowEnd")
    assert [one.strip("★ ") for one in trials.all_inner_texts()] == ["0.9", "0.2"]
    assert rows(page) == []  # a sweep's runs stand under it
    item.get_by_test_id("trial-2").locator(".jp-nbmlops-rowHead").first.click()
    item.get_by_test_id("trial-2").get_by_role("list", name="Steps").wait_for()
    narrowed(page, 250)
    screenshot("sweep-3-done-narrow")

    page.get_by_test_id("parameter-label").fill("slow")
    page.get_by_test_id("start-sweep").click()
    running = page.locator("[data-testid^=sweep-sweep-][data-status=running]")
    running.wait_for(timeout=A_RUN_MS)
    running.get_by_role("button", name=re.compile("^Cancel")).click()
    page.locator("[data-testid^=sweep-sweep-][data-status=cancelled]").wait_for(timeout=A_RUN_MS)
    ended = {one["status"] for one in quick.nbmlops("runs")["items"]}
    assert not ended & {"pending", "running"}
    assert is_harmless(page)


def test_what_breaks_the_rules_is_listed_opened_and_mended(
    quick: Lab, page: Any, screenshot: Callable[[str], None]
) -> None:
    made = json.loads(notebook(["from os import *", f"x = 1  # {HOSTILE}"]))
    output = {"output_type": "stream", "name": "stdout", "text": ["left behind"]}
    made["cells"][1] |= {"outputs": [output], "execution_count": 1}
    (quick.project / "notebooks" / f"{HOSTILE.replace('/', '')}.ipynb").write_text(json.dumps(made))
    (quick.project / "notebooks" / "untidy.ipynb").write_text(json.dumps(made))
    execute(page, "docmanager:open", path=quick.path("untidy"))
    page.locator(".jp-OutputArea-output", has_text="left behind").wait_for()
    page.get_by_test_id("check").click()
    section = page.get_by_test_id("section-check")
    mine = section.get_by_role("region", name="notebooks/untidy.ipynb")
    mine.locator("li").first.wait_for(timeout=60_000)
    screenshot("check-1-found")
    change_theme(page, "JupyterLab Dark", ".jp-nbmlops-findings:has-text('untidy')")
    narrowed(page, 250)
    screenshot("check-2-narrow-dark")
    change_theme(page, "JupyterLab Light", ".jp-nbmlops-findings:has-text('untidy')")

    execute(page, "docmanager:open", path=quick.path("second"))
    mine.get_by_role("button", name="Cell 1, line 1:").first.click()
    wait_until(
        lambda: (
            page.evaluate("() => window.jupyterapp.shell.currentWidget.context?.path")
            == quick.path("untidy")
        ),
        30,
        lambda: "the finding's notebook was not opened",
    )
    page.get_by_test_id("fix").click()
    page.locator(".jp-Dialog").get_by_role("button", name="Fix").click()
    section.get_by_text(re.compile(r"\d+ fixed")).wait_for(timeout=60_000)
    shown = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
    until(
        page,
        "() => window.jupyterapp.shell.currentWidget.content.widgets[1].model.outputs.length === 0",
        30,
    )
    assert shown.get_by_text("left behind").count() == 0
    assert not page.evaluate("() => window.jupyterapp.shell.currentWidget.context.model.dirty")
    assert is_harmless(page)
