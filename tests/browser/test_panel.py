"""What a data scientist does without leaving JupyterLab, in a real browser."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from lab_notebooks import FINISHED, IDLE, execute, reopen, run_all, without_errors
from lab_server import READY, Lab, until, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(420)]

A_RUN_MS = 180_000
A_DEPLOYMENT_MS = 90_000


def run_from_panel(page: Any, screenshot: Callable[[str], None]) -> str:
    """Run the open notebook with one parameter set, watch it to its end, and return its id."""
    page.get_by_test_id("parameters").click()
    page.get_by_test_id("parameter-max_depth").fill("6")
    screenshot("1-parameters")
    page.get_by_test_id("run").click()
    run = page.locator("[data-testid^=run-][data-status=running]").first
    run.wait_for(timeout=60_000)
    run_id = run.get_attribute("data-testid").removeprefix("run-")
    row = page.get_by_test_id(f"run-{run_id}")
    page.get_by_role("progressbar", name=f"Cells of run {run_id}").wait_for()
    row.get_by_text(re.compile(r"cell \d+ of \d+")).wait_for(timeout=60_000)
    screenshot("2-running")
    page.locator(f"[data-testid=run-{run_id}][data-status=succeeded]").wait_for(timeout=A_RUN_MS)
    return run_id


def test_a_notebook_is_run_deployed_called_and_undeployed_from_the_panel(
    lab: Lab, page: Any, screenshot: Callable[[str], None]
) -> None:
    execute(page, "nbmlops:open")
    page.get_by_test_id("no-project").wait_for()
    screenshot("0-no-project")
    execute(page, "docmanager:open", path=lab.path("train"))
    page.get_by_test_id("run").wait_for()
    assert page.get_by_test_id("project").inner_text() == lab.name
    until(page, IDLE, 60)

    run_id = run_from_panel(page, screenshot)

    row = page.get_by_test_id(f"run-{run_id}")
    row.locator(".jp-nbmlops-rowHead").first.click()
    row.get_by_text("accuracy").first.wait_for()
    assert row.locator("dt", has_text="max_depth").locator("+ dd").inner_text() == "6"
    page.get_by_test_id(f"logs-{run_id}").click()
    page.get_by_label(f"Log of run {run_id}").wait_for()
    row.locator("[aria-label=Steps] li[data-status=succeeded]").nth(1).wait_for()
    screenshot("3-succeeded")
    row.locator(".jp-nbmlops-rowHead").first.click()

    page.get_by_test_id("deploy-cancer:1").click()
    page.get_by_test_id("deploy-cancer:1").get_by_text("Deploying").wait_for()
    screenshot("4-deploying")
    deployment = page.locator("[data-testid=deployment-cancer][data-status=running]")
    deployment.wait_for(timeout=A_DEPLOYMENT_MS)
    url = page.get_by_test_id("url-cancer").inner_text().strip()
    answer = predict(url)
    assert answer["model"] == "cancer"
    assert answer["version"] == 1
    assert answer["predictions"][0]["label"] in {"malignant", "benign"}

    page.get_by_test_id("monitor-cancer").click()
    questions = page.get_by_role("region", name="Monitor report of cancer").locator("li")
    questions.first.wait_for(timeout=60_000)
    assert questions.count() == 4
    page.locator("[data-testid^=trace-deployment]").click()
    trace = page.locator("[aria-label^='Trace of deployment/']")
    trace.get_by_text("notebooks/train.ipynb").wait_for(timeout=60_000)
    page.get_by_test_id("deployment-cancer").scroll_into_view_if_needed()
    screenshot("5-deployed")

    page.get_by_test_id("undeploy-cancer").click()
    page.locator(".jp-Dialog").get_by_role("button", name="Undeploy").click()
    page.get_by_text("Nothing serves now.").wait_for(timeout=60_000)
    screenshot("6-undeployed")
    wait_until(lambda: is_refused(url), 30, lambda: f"{url} still answers")


def test_a_wrong_parameter_is_refused_in_the_panel_and_starts_nothing(lab: Lab, page: Any) -> None:
    execute(page, "nbmlops:open")
    execute(page, "docmanager:open", path=lab.path("train"))
    page.get_by_test_id("parameters").click()
    page.get_by_test_id("parameter-max_depth").fill("<b>deep</b>")
    page.get_by_test_id("run").click()
    problem = page.get_by_role("alert")
    problem.wait_for()
    assert problem.get_attribute("data-code") == "invalid-parameter"
    assert "max_depth" in problem.inner_text()
    assert page.locator("[data-testid^=run-train-]").count() == 0


def test_the_magics_run_deploy_and_show_the_monitor_widget(
    lab: Lab, page: Any, screenshot: Callable[[str], None]
) -> None:
    run_all(
        page, lab, "release", ["%load_ext nbmlops", "%mlops train train", "%mlops deploy cancer"]
    )
    until(page, FINISHED, (A_RUN_MS + A_DEPLOYMENT_MS) / 1000)
    screenshot("7-magics")
    run = lab.nbmlops("runs")["items"][0]
    assert run["status"] == "succeeded"
    deployment = lab.nbmlops("deployments")["items"][0]
    predict(deployment["url"], rows=60)

    run_all(page, lab, "watch", ["%load_ext nbmlops", "%mlops monitor cancer"])
    until(page, FINISHED, 60)
    page.evaluate("() => window.jupyterapp.shell.currentWidget.content.scrollToItem(1, 'start')")
    widget = page.locator(".jp-OutputArea-output .nbm-drift")
    widget.locator(".nbm-filter").wait_for()  # the live widget alone has it
    widget.get_by_text("mean radius").first.wait_for()
    screenshot("8-monitor")
    execute(page, "nbmlops:open")
    page.get_by_test_id("undeploy-cancer").wait_for()
    screenshot("9-both")

    # The page is loaded again and the kernel lives on: the live report comes back.
    execute(page, "docmanager:save")
    page.reload()
    until(page, READY, 60)
    widget.locator(".nbm-filter").wait_for()
    assert page.locator(".jp-OutputArea-output .nbm-drift:visible").count() == 1

    reopen(page, lab, "watch")
    static = page.locator(".jp-OutputArea-output.jp-RenderedHTML .nbm-drift")
    static.get_by_text("mean radius").first.wait_for()
    without_errors(page)
    screenshot("10-reopened")
    assert page.locator(".jp-OutputArea-output .nbm-drift:visible").count() == 1


def is_refused(url: str) -> bool:
    """Whether nobody listens at a URL any more."""
    try:
        predict(url)
    except urllib.error.HTTPError:
        return False
    except urllib.error.URLError as error:
        return isinstance(error.reason, ConnectionRefusedError)
    return False


def predict(url: str, *, rows: int = 1) -> dict[str, Any]:
    """Call a service with rows of the data set that its model was trained on."""
    from sklearn.datasets import load_breast_cancer

    records = load_breast_cancer(as_frame=True).data.head(rows).to_dict("records")
    request = urllib.request.Request(
        f"{url}/predict",
        data=json.dumps({"records": records}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)
