"""The whole chain on the example, as a person types it: one project, told in order."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from sources import git

pytestmark = pytest.mark.slow


def typed(folder, *words, code=0, stdin=None):
    """Type a command; return its document, which is all that stands on standard output."""
    result = subprocess.run(
        [sys.executable, "-m", "nbmlops", *words, "--json"],
        cwd=folder,
        capture_output=True,
        check=False,
        input=stdin,
    )
    assert result.returncode == code, (words, result.stdout[-3000:], result.stderr[-3000:])
    assert result.stdout.count(b"\n") == 1
    return json.loads(result.stdout)


def rows(count):
    from sklearn.datasets import load_breast_cancer

    table = load_breast_cancer(as_frame=True).data
    return table.sample(count, random_state=3).to_dict("records")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("story")
    made = typed(folder, "init", "my-project", "--example")
    project = folder / "my-project"
    assert made["pipelines"] == ["train"]
    assert made["commit"] == git(project, "rev-parse", "HEAD")
    assert set(made["created"]) <= set(git(project, "ls-files").splitlines())
    yield project
    subprocess.run(
        [sys.executable, "-m", "nbmlops", "undeploy", "cancer"], cwd=project, check=False
    )


@pytest.fixture(scope="module")
def run(project):
    return typed(project, "train", "train", "-p", "max_depth=6", "--junit", "report.xml")


@pytest.fixture(scope="module")
def served(project, run):
    return typed(project, "deploy", "cancer")


def test_a_run_is_recorded_with_all_that_the_contract_names(project, run):
    assert set(run) >= {
        "run_id", "pipeline", "status", "commit", "base_commit", "dirty", "parameters", "metrics",
        "environment_id", "launcher", "started_at", "finished_at", "attempts", "steps",
        "artifacts", "model_versions", "cause",
    }  # fmt: skip
    assert (run["status"], run["cause"], run["attempts"]) == ("succeeded", None, 1)
    assert run["parameters"]["max_depth"] == 6
    assert run["metrics"]["accuracy"] > 0.9
    assert [(s["name"], s["cells_done"] == s["cells_total"]) for s in run["steps"]] == [
        ("data", True),
        ("train", True),
    ]
    assert run["model_versions"] == ["cancer:1"]
    assert 'failures="0"' in (project / "report.xml").read_text()
    (project / "report.xml").unlink()


def test_models_lists_a_version_with_its_commit(project, run):
    (item,) = typed(project, "models")["items"]
    assert (item["model"], item["version"], item["run_id"]) == ("cancer", 1, run["run_id"])
    assert (item["commit"], item["stage"], item["aliases"]) == (run["commit"], None, [])
    assert len(item["digest"]) == 64


def test_deploying_what_is_served_changes_nothing(project, served):
    assert (served["status"], served["ready"], served["desired"]) == ("running", 1, 1)
    assert served["token_file"] is None
    before = git(project, "rev-parse", "refs/nbmlops/ledger")
    assert typed(project, "deploy", "cancer:1") == served
    assert git(project, "rev-parse", "refs/nbmlops/ledger") == before


def test_a_call_is_traced_to_the_cell_that_trained(project, run, served):
    answer = typed(project, "call", "cancer", json.dumps(rows(1)[0]))
    assert (answer["model"], answer["version"], answer["commit"]) == ("cancer", 1, run["commit"])
    (prediction,) = answer["predictions"]
    assert prediction["label"] in ("malignant", "benign")
    assert sum(prediction["probabilities"].values()) == pytest.approx(1)
    assert prediction["within_bounds"] is True
    trace = typed(project, "trace", f"call/{answer['call_id']}")
    assert trace["complete"] is True
    assert trace["missing"] == []
    assert trace["deployment"]["deployment_id"] == served["deployment_id"]
    assert trace["model_version"]["version"] == 1
    assert trace["run"]["run_id"] == run["run_id"]
    assert "forest.fit(X_train, y_train)" in trace["snapshot"]["source"]
    assert trace["snapshot"]["commit"] == run["commit"]
    blob = git(project, "rev-parse", f"{run['commit']}:notebooks/train.ipynb")
    assert trace["snapshot"]["notebook_blob"] == blob
    assert [data["name"] for data in trace["data"]] == ["data/cancer.csv"]
    assert "scikit-learn" in trace["environment"]["packages"]
    for reference in (
        f"deployment/{served['deployment_id']}",
        "model/cancer:1",
        f"run/{run['run_id']}",
    ):
        below = typed(project, "trace", reference)
        assert below["snapshot"] == trace["snapshot"], reference
        assert below["call"] is None


def test_a_record_that_does_not_fit_is_refused_by_column(project, served):
    record = rows(1)[0]
    record["mean radius"] = "14"
    refused = typed(project, "call", "cancer", json.dumps(record), code=2)
    assert refused["error"]["code"] == "invalid-records"
    assert "mean radius" in refused["error"]["message"]
    assert "JSON" in typed(project, "call", "cancer", "{", code=2)["error"]["message"]


def test_monitor_says_unknown_then_yes_then_no(project, served):
    typed(project, "call", "cancer", json.dumps(rows(1)))
    first = typed(project, "monitor", "cancer")
    assert first["questions"]["features"]["answer"] == "unknown"
    assert first["questions"]["performance"]["answer"] == "unknown"
    typed(project, "call", "cancer", "-", stdin=json.dumps(rows(200)).encode())
    second = typed(project, "monitor", "cancer", "--window", "1h")
    assert second["verdict"] == "ok"
    assert [second["questions"][q]["answer"] for q in ("features", "predictions", "bounds")] == [
        "yes",
        "yes",
        "yes",
    ]
    moved = [{**row, "mean area": row["mean area"] / 100} for row in rows(200)]
    typed(project, "call", "cancer", "-", stdin=json.dumps(moved).encode())
    third = typed(project, "monitor", "cancer", code=3)
    assert third["verdict"] == "alert"
    drifted = [c["name"] for c in third["columns"] if c["verdict"] == "drift"]
    assert drifted == ["mean area"]
    (item,) = typed(project, "deployments")["items"]
    assert (item["endpoint"], item["monitor"]) == ("cancer", "alert")


def test_a_new_version_takes_over_at_the_same_url_without_a_failed_call(project, served):
    run = typed(project, "train", "train", "-p", "max_depth=3")
    assert run["model_versions"] == ["cancer:2"]
    body = json.dumps({"records": rows(1)}).encode()
    answers, failures, over = [], [], threading.Event()

    def call():
        while not over.is_set():
            request = urllib.request.Request(
                f"{served['url']}/predict", body, {"Content-Type": "application/json"}
            )
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    answers.append(json.load(answer)["version"])
            except OSError as error:
                failures.append(error)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    again = typed(project, "deploy", "cancer")
    over.set()
    for caller in callers:
        caller.join()
    assert failures == []
    assert (again["url"], again["version"]) == (served["url"], 2)
    assert set(answers) == {1, 2}
    assert answers == sorted(answers) or answers.index(2) > 0


def test_a_model_with_one_flipped_bit_is_refused_and_the_old_one_serves_on(project, served):
    version = typed(project, "models")["items"][-1]
    assert version["version"] == 1
    digest = version["files"]["model"]["digest"]
    kept = project / ".git" / "nbmlops" / "artifacts" / digest[:2] / digest[2:]
    good = kept.read_bytes()
    kept.chmod(0o644)
    kept.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    try:
        refused = typed(project, "deploy", "cancer:1", code=5)
        assert refused["error"]["code"] == "artifact-corrupt"
        assert typed(project, "call", "cancer", json.dumps(rows(1)))["version"] == 2
        sick = typed(project, "doctor", code=1)
        assert sick["invariants"]["I4"] == "broken"
    finally:
        kept.write_bytes(good)


def kill_worker(item):
    for process in psutil.process_iter():
        try:
            told = process.environ().get("NBMLOPS_INBOX", "")
        except psutil.Error:
            continue
        if item["deployment_id"] in told:
            with contextlib.suppress(psutil.NoSuchProcess):  # one ends with the other
                process.kill()


def test_a_killed_worker_is_seen_and_deploying_again_brings_it_back(project, served):
    (young,) = typed(project, "deployments")["items"]
    assert young["version"] == 2
    kill_worker(young)
    deadline = time.monotonic() + 20
    while (back := typed(project, "deployments")["items"][0])["version"] == 2:
        assert time.monotonic() < deadline
    # It had the traffic for moments only, so the version before has it again.
    assert (back["version"], back["rolled_back_from"]) == (1, 2)
    assert typed(project, "call", "cancer", json.dumps(rows(1)))["version"] == 1
    kill_worker(back)
    deadline = time.monotonic() + 10
    while (seen := typed(project, "deployments")["items"])[0]["ready"]:
        assert time.monotonic() < deadline
    assert (seen[0]["status"], seen[0]["version"]) == ("failed", 1)
    sick = typed(project, "doctor", code=1)
    assert {f["code"] for f in sick["findings"]} == {"deployment-down"}
    failed = typed(project, "call", "cancer", json.dumps(rows(1)), code=1)
    assert failed["error"]["code"] == "call-failed"
    again = typed(project, "deploy", "cancer")
    assert (again["url"], again["status"], again["ready"]) == (served["url"], "running", 1)
    assert typed(project, "call", "cancer", json.dumps(rows(1)))["version"] == 2


def test_the_store_can_be_lost_and_a_call_is_still_traced(project, served):
    answer = typed(project, "call", "cancer", json.dumps(rows(1)))
    reference = f"call/{answer['call_id']}"
    before = typed(project, "trace", reference)
    store = project / ".git" / "nbmlops" / "store.sqlite"
    kept = store.read_bytes()
    store.unlink()
    try:
        typed(project, "models")
        after = typed(project, "trace", reference)
        assert after["complete"] is True
        assert after["snapshot"] == before["snapshot"]
        assert after["run"]["run_id"] == before["run"]["run_id"]
        assert after["deployment"]["deployment_id"] == before["deployment"]["deployment_id"]
    finally:
        store.write_bytes(kept)


def test_undeploy_stops_everything_and_doctor_is_content(project, served):
    stopped = typed(project, "undeploy", "cancer")
    assert stopped["status"] == "stopped"
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{served['url']}/health/live", timeout=5)
    assert typed(project, "deployments")["items"] == []
    assert typed(project, "call", "cancer", "{}", code=2)["error"]["code"] == "unknown-endpoint"
    assert typed(project, "undeploy", "cancer", code=2)["error"]["code"] == "unknown-endpoint"
    health = typed(project, "doctor")
    assert health["findings"] == []
    assert set(health["invariants"].values()) == {"ok"}
    home = str(project / ".git" / "nbmlops")
    for process in psutil.process_iter():
        try:
            assert home not in " ".join(process.environ().values()) or process.pid == os.getpid()
        except psutil.Error:
            continue


def test_init_where_a_project_stands_writes_nothing(project):
    before = git(project, "status", "--porcelain", "--ignored")
    refused = typed(project, "init", ".", "--example", code=2)
    assert refused["error"]["code"] == "project-exists"
    assert git(project, "status", "--porcelain", "--ignored") == before


def test_ctrl_c_stops_watching_and_not_the_run(project):
    notebook = Path(project) / "slow.ipynb"
    document = json.loads((Path(project) / "notebooks" / "prepare.ipynb").read_text())
    document["cells"] = [{**document["cells"][-1], "source": "import time; time.sleep(60)"}]
    notebook.write_text(json.dumps(document))
    command = subprocess.Popen(
        [sys.executable, "-m", "nbmlops", "train", "slow.ipynb", "--json"],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore the interrupt, and hand that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    deadline = time.monotonic() + 60
    while True:
        running = [r for r in typed(project, "runs")["items"] if r["pipeline"] == "slow"]
        if running and running[0]["status"] == "running":
            break
        assert time.monotonic() < deadline
    command.send_signal(signal.SIGINT)
    out, _ = command.communicate(timeout=30)
    assert command.returncode == 130
    told = json.loads(out)["error"]
    assert told["code"] == "interrupted"
    assert f"nbmlops cancel {running[0]['run_id']}" in told["hint"]
    ended = typed(project, "cancel", running[0]["run_id"])
    assert ended["status"] == "cancelled"
