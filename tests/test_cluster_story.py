"""The whole chain in a real cluster, as a person types it: one project, told in order.

``make test-cluster`` runs it. The namespace's calls are kept where ``NBMLOPS_TEST_EXCHANGE`` says;
with ``secret`` they are ephemeral, and their trace begins with the deployment.
"""

import json
import os
import time
from pathlib import Path

import pytest

import cluster_variables
from nbmlops import endpoints, images, models
from nbmlops import workspace as workspaces
from serving import until
from sources import git, notebook_text
from terminal import typed
from test_custom_models import GO_TRAIN, served_by_files
from test_front import Callers
from test_story import rows

SMALL = ("-p", "n_estimators=5")
ON = ("--on", "kubernetes")
CONNECTIONS = 50

pytestmark = cluster_variables.MARKS


def said(folder, *words, code=0):
    """Type a command; return its document."""
    document, ended, err = typed(folder, *words)
    assert ended == code, (words, document, err)
    return document


def is_ephemeral():
    return os.environ["NBMLOPS_TEST_EXCHANGE"] == "secret"


def allowed():
    return ("--ephemeral-calls",) if is_ephemeral() else ()


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    cluster_variables.require()
    folder = tmp_path_factory.mktemp("cluster-story")
    said(folder, "init", "my-project", "--example")
    made = folder / "my-project"
    exchange = os.environ["NBMLOPS_TEST_EXCHANGE"]
    secret = f'exchange_secret = "{os.environ["NBMLOPS_TEST_SECRET"]}"\n'
    settings = made / "nbmlops.toml"
    settings.write_text(
        f"{settings.read_text()}\n"
        f'[images]\nimage = "{os.environ["NBMLOPS_TEST_IMAGE"]}"\n\n'
        f'[kubernetes]\nnamespace = "{os.environ["NBMLOPS_TEST_NAMESPACE"]}"\n'
        f'exchange = "{exchange}"\n{secret if "://" in exchange else ""}'
    )
    (made / "sugar.ipynb").write_text(
        notebook_text(("parameters", "error = 0.0"), served_by_files(GO_TRAIN))
    )
    # The image has Python; its program is the model's own file, and knows nothing of nbmlops.
    settings.write_text(
        f'{settings.read_text()}\n[models.sugar]\nimage = "{os.environ["NBMLOPS_TEST_IMAGE"]}"\n'
        f'command = ["{images.PROJECT_PYTHON}", "-I", "{{files}}/serve.py", "{{host}}:{{port}}"]\n'
    )
    (made / "slow.ipynb").write_text(
        notebook_text("print('one', flush=True)", "import time; time.sleep(600)")
    )
    # Small, so that a node of two cores holds all of it.
    text = settings.read_text()
    settings.write_text(text + "\n[pipelines.train.resources]\ncpu_cores = 0.5\nmemory_mib = 768\n")
    git(made, "add", ".")
    git(made, "commit", "--quiet", "-m", "in a cluster")
    yield made
    opened = workspaces.open_at(made)
    launcher = opened.launcher("kubernetes")
    for handle in launcher.jobs():
        launcher.cancel(handle)
    opened.close()


@pytest.fixture
def opened(project):
    made = workspaces.open_at(project)
    yield made
    made.close()


@pytest.fixture(scope="module")
def run(project):
    return said(project, "train", "train", *ON, "-p", "max_depth=6", *SMALL)


@pytest.fixture(scope="module")
def served(project, run):
    return said(project, "deploy", "cancer", *ON, *allowed())


def test_a_run_in_a_cluster_is_recorded_as_one_that_is_not(run):
    assert (run["launcher"], run["status"], run["cause"]) == ("kubernetes", "succeeded", None)
    assert run["metrics"]["accuracy"] > 0.9
    assert run["model_versions"] == ["cancer:1"]
    assert [(s["name"], s["cells_done"] == s["cells_total"]) for s in run["steps"]] == [
        ("data", True),
        ("train", True),
    ]


def test_the_same_once_more_is_taken_from_the_cache(project, run):
    again = said(project, "train", "train", *ON, "-p", "max_depth=6", *SMALL)
    assert again["run_id"] == run["run_id"]
    assert all(step["cached"] for step in again["steps"])


def test_what_keeps_no_calls_is_refused_unless_it_is_allowed(project, run):
    if not is_ephemeral():
        pytest.skip("the exchange keeps the calls")
    refused = said(project, "deploy", "cancer", *ON, code=2)
    assert refused["error"]["code"] == "calls-ephemeral"


def test_a_call_is_answered_and_traced_to_the_cell(project, run, served):
    answer = said(project, "call", "cancer", json.dumps(rows(1)[0]))
    assert (answer["model"], answer["version"], answer["commit"]) == ("cancer", 1, run["commit"])
    begins = f"deployment/{served['deployment_id']}"
    if not is_ephemeral():
        begins = f"call/{answer['call_id']}"
        deadline = time.monotonic() + 60
        while typed(project, "trace", begins)[1] != 0:
            assert time.monotonic() < deadline, "the call did not come"
            time.sleep(1)
    trace = said(project, "trace", begins)
    assert (trace["complete"], trace["missing"]) == (True, [])
    assert trace["run"]["run_id"] == run["run_id"]
    assert "forest.fit(X_train, y_train)" in trace["snapshot"]["source"]
    assert trace["deployment"]["image"] == os.environ["NBMLOPS_TEST_IMAGE"].partition("@")[2]
    assert "scikit-learn" in trace["environment"]["packages"]


def looked(project, *words):
    """Look at the calls, and return the report without what no two of them share."""
    report, code, err = typed(project, "monitor", "cancer", *words)
    assert "verdict" in report, (report, err)
    assert code == {"ok": 0, "alert": 3, "unknown": 4}[report["verdict"]]
    return {name: told for name, told in report.items() if name not in ("created_at", "window")}


def test_a_pod_looks_at_the_calls_as_one_does_here(project, served):
    records = [one | {"mean radius": one["mean radius"] * 1000} for one in rows(60)]
    said(project, "call", "cancer", json.dumps(records))
    here = looked(project)
    assert here["verdict"] == ("unknown" if is_ephemeral() else "alert")
    assert looked(project, *ON) == here


def test_beyond_loopback_a_token_is_asked_for(project, served, opened):
    token = Path(served["token_file"])
    assert token.stat().st_mode & 0o077 == 0
    endpoint = endpoints.running(opened, "cancer")
    with endpoints._reached(opened, endpoint) as place:
        callers = Callers(f"tcp:{place}", rows(1)[0], count=1)
        until(lambda: callers.failures)
        callers.stop()
    assert {status for status, _ in callers.failures} == {401}
    assert callers.answers == []


def test_a_new_version_takes_over_under_fifty_connections_without_a_failed_call(
    project, served, opened
):
    second = said(project, "train", "train", *ON, "-p", "max_depth=3", *SMALL)
    assert second["model_versions"] == ["cancer:2"]
    endpoint = endpoints.running(opened, "cancer")
    headers = {"Authorization": f"Bearer {Path(served['token_file']).read_text().strip()}"}
    with endpoints._reached(opened, endpoint) as place:
        callers = Callers(f"tcp:{place}", rows(1)[0], count=CONNECTIONS, headers=headers)
        try:
            until(lambda: len(callers.answers) > 2 * CONNECTIONS, within_s=60)
            again = said(project, "deploy", "cancer:2")
            before = len(callers.answers)
            until(lambda: len(callers.answers) > before + CONNECTIONS, within_s=60)
            back = said(project, "rollback", "cancer")
            after = len(callers.answers)
            until(lambda: len(callers.answers) > after + CONNECTIONS, within_s=60)
        finally:
            callers.stop()
    assert callers.failures == []
    assert (again["url"], again["version"], again["launcher"]) == (served["url"], 2, "kubernetes")
    assert (back["version"], back["rolled_back_from"]) == (1, 2)
    assert {answer["version"] for answer in callers.answers} == {1, 2}


def test_a_service_that_nobody_calls_sleeps_and_a_call_wakes_it(project, served):
    settings = project / "nbmlops.toml"
    before = settings.read_text()
    settings.write_text(before.replace("[kubernetes]\n", "[kubernetes]\nidle_s = 5\n"))
    try:
        deadline = time.monotonic() + 90
        while not said(project, "deployments")["items"][0]["asleep_since"]:
            assert time.monotonic() < deadline
            time.sleep(1)
        (item,) = said(project, "deployments")["items"]
        assert (item["status"], item["ready"], item["desired"]) == ("running", 0, 0)
        assert said(project, "doctor")["findings"] == []
    finally:
        settings.write_text(before)
    assert said(project, "call", "cancer", json.dumps(rows(1)[0]))["model"] == "cancer"
    (item,) = said(project, "deployments")["items"]
    assert (item["ready"], item["asleep_since"]) == (1, None)


def test_a_grid_is_one_indexed_job(project, run):
    swept = said(
        project, "sweep", "train", *ON, "-p", "max_depth=2,4", "-p", "n_estimators=5,7",
        "--parallel", "2",
    )  # fmt: skip
    assert (swept["status"], len(swept["trials"])) == ("succeeded", 4)
    runs = [said(project, "run", trial["run_id"]) for trial in swept["trials"]]
    handles = {(one["handle"]["name"], one["handle"]["index"]) for one in runs if one["handle"]}
    together = [index for _, index in handles if index is not None]
    assert len(together) >= 2
    assert sorted(together) == list(range(len(together)))


def test_many_files_are_answered_by_one_indexed_job_as_on_this_machine(project, run, tmp_path):
    folder = tmp_path / "days"
    folder.mkdir()
    for number in range(3):
        lines = [",".join(str(one[name]) for name in rows(1)[0]) for one in rows(20 + number)]
        (folder / f"day-{number}.csv").write_text("\n".join([",".join(rows(1)[0]), *lines]))
    (folder / "bad.csv").write_text(",".join(rows(1)[0]) + "\n" + ",".join(["x"] * len(rows(1)[0])))
    far, here = tmp_path / "far", tmp_path / "here"
    report = said(project, "predict", "cancer:1", str(folder), "--out", str(far), *ON, code=1)
    assert "files" in report, report
    assert (len(report["files"]), report["rows"], report["launcher"]) == (3, 63, "kubernetes")
    (failed,) = report["failed"]
    assert "bad.csv row 1, column" in failed["message"]
    (folder / "bad.csv").unlink()
    again = said(project, "predict", "cancer:1", str(folder), "--out", str(far), *ON)
    assert (again["already"], again["files"]) == (3, [])
    same = said(project, "predict", "cancer:1", str(folder), "--out", str(here))
    assert {one["out_digest"] for one in same["files"]} == {
        one["out_digest"] for one in report["files"]
    }


def test_a_run_that_goes_on_is_followed_and_cancelled(project, opened):
    running = said(project, "train", "slow.ipynb", *ON, "--detach")
    deadline = time.monotonic() + 90
    while "one" not in said(project, "logs", running["run_id"])["items"]:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert said(project, "cancel", running["run_id"])["status"] == "cancelled"


def test_at_the_end_nothing_is_left_and_doctor_is_content(project, served, opened):
    assert said(project, "undeploy", "cancer")["status"] == "stopped"
    assert list(opened.launcher("kubernetes").jobs()) == []
    health = said(project, "doctor")
    assert health["findings"] == []
    assert set(health["invariants"].values()) == {"ok"}


def test_a_program_in_an_image_of_its_own_is_served_called_and_traced(project, opened):
    run = said(project, "train", "sugar.ipynb", *ON)
    assert run["model_versions"] == ["sugar:1"]
    try:
        served = said(project, "deploy", "sugar", *ON, *allowed())
        assert served["image"] == os.environ["NBMLOPS_TEST_IMAGE"].partition("@")[2]
        sample = models.sample(opened, models.find(opened, "sugar:1"))
        answer = said(project, "call", "sugar", json.dumps(sample.records[0]))
        assert answer["predictions"][0]["value"] == pytest.approx(sample.predictions[0].value)
        trace = said(project, "trace", f"deployment/{served['deployment_id']}")
        assert (trace["complete"], trace["run"]["run_id"]) == (True, run["run_id"])
        lines = said(project, "logs", served["deployment_id"])["items"]
        assert lines == ["sugar listens on 0.0.0.0:8080"]
    finally:
        said(project, "undeploy", "sugar")
    assert list(opened.launcher("kubernetes").jobs()) == []
