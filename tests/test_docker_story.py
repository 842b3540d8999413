"""The whole chain in containers, as a person types it: one project, told in order.

Attack A7 on the way: the tokens and a secret that are in use are planted canaries, and stand
neither in what the engine shows nor in a list of processes.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

import engines
from nbmlops import layout, monitors, records, sites
from nbmlops import workspace as workspaces
from nbmlops.launchers import docker as docker_launcher
from nbmlops.monitors import jobs
from nbmlops.records import MonitorReport
from serving import until
from sources import git, notebook_text
from terminal import typed
from test_front import Callers
from test_story import rows

pytestmark = [pytest.mark.docker, pytest.mark.slow]

SECRET = "canary-0f-the-5tory"
SMALL = ("-p", "n_estimators=5")
DEADLINE_S = 90


def said(folder, *words, code=0):
    """Type a command; return its document."""
    document, ended, err = typed(folder, *words)
    assert ended == code, (words, document, err)
    return document


def docker(*words):
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def project(_engine, tmp_path_factory):
    with _engine.held(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORY_SECRET", SECRET)
        folder = tmp_path_factory.mktemp("docker-story")
        said(folder, "init", "my-project", "--example")
        made = folder / "my-project"
        bundle = f'ca_bundle = "{engines.CA_BUNDLE}"\n' if Path(engines.CA_BUNDLE).exists() else ""
        settings = (made / "nbmlops.toml").read_text()
        settings = settings.replace("[project]\n", '[project]\nsecrets = ["STORY_SECRET"]\n', 1)
        (made / "nbmlops.toml").write_text(
            f'{settings}\n[images]\nbase = "{engines.BASE}"\n{bundle}'
        )
        (made / "slow.ipynb").write_text(
            notebook_text(
                "import os, time\nprint('secret of', len(os.environ['STORY_SECRET']), flush=True)",
                "time.sleep(600)",
            )
        )
        git(made, "add", ".")
        git(made, "commit", "--quiet", "-m", "in containers")
        yield made
        opened = workspaces.open_at(made)
        left = docker("ps", "-aq", "--filter", f"label={of(opened)}").split()
        if left:
            docker("rm", "-f", *left)
        network = docker_launcher.network(opened.owner)
        subprocess.run(["docker", "network", "rm", network], capture_output=True, check=False)
        opened.close()


def of(opened):
    return f"{docker_launcher.OWNER_LABEL}={opened.owner}"


@pytest.fixture
def opened(project):
    made = workspaces.open_at(project)
    yield made
    made.close()


@pytest.fixture(scope="module")
def run(project):
    return said(project, "train", "train", "--on", "docker", "-p", "max_depth=6", *SMALL)


@pytest.fixture(scope="module")
def served(project, run):
    return said(project, "deploy", "cancer", "--on", "docker")


def containers_of(deployment):
    label = f"{docker_launcher.JOB_LABEL}={deployment['deployment_id']}"
    return docker("ps", "-q", "--filter", f"label={label}").split()


def shown(opened):
    """Return all that the engine and the system show of the project's containers."""
    names = docker("ps", "-aq", "--filter", f"label={of(opened)}").split()
    assert names
    images = {one["Image"] for one in json.loads(docker("inspect", *names))}
    listed = subprocess.run(["ps", "axww"], capture_output=True, text=True, check=True).stdout
    history = "".join(docker("history", "--no-trunc", image) for image in images)
    return docker("inspect", *names, *images) + history + listed


def test_a_run_in_a_container_is_recorded_as_one_that_is_not(project, run):
    assert (run["launcher"], run["status"], run["cause"]) == ("docker", "succeeded", None)
    assert run["attempts"] == 1
    assert run["parameters"]["max_depth"] == 6
    assert run["metrics"]["accuracy"] > 0.9
    assert run["model_versions"] == ["cancer:1"]
    assert [(s["name"], s["cells_done"] == s["cells_total"]) for s in run["steps"]] == [
        ("data", True),
        ("train", True),
    ]


def test_the_same_once_more_is_taken_from_the_cache(project, run, opened):
    again = said(project, "train", "train", "--on", "docker", "-p", "max_depth=6", *SMALL)
    assert again["run_id"] == run["run_id"]
    assert all(step["cached"] for step in again["steps"])
    assert docker("ps", "-aq", "--filter", f"label={of(opened)}").split() == []


def test_a_call_is_traced_to_the_cell_and_to_the_image(project, run, served):
    answer = said(project, "call", "cancer", json.dumps(rows(1)[0]))
    assert (answer["model"], answer["version"], answer["commit"]) == ("cancer", 1, run["commit"])
    trace = said(project, "trace", f"call/{answer['call_id']}")
    assert (trace["complete"], trace["missing"]) == (True, [])
    assert trace["deployment"]["deployment_id"] == served["deployment_id"]
    assert trace["deployment"]["launcher"] == "docker"
    assert trace["run"]["run_id"] == run["run_id"]
    assert "forest.fit(X_train, y_train)" in trace["snapshot"]["source"]
    image = docker("inspect", "--format", "{{.Image}}", *containers_of(served)).strip()
    assert trace["deployment"]["image"] == image
    assert "scikit-learn" in trace["environment"]["packages"]


def test_deploying_what_is_served_starts_nothing(project, served, opened):
    before = docker("ps", "-aq", "--no-trunc", "--filter", f"label={of(opened)}")
    assert said(project, "deploy", "cancer:1", "--on", "docker") == served
    assert docker("ps", "-aq", "--no-trunc", "--filter", f"label={of(opened)}") == before


def test_calls_are_replayed_green(project, served):
    replayed = said(project, "replay", "cancer", "--last", "5")
    assert replayed["verdict"] == "green"


def looked(project, *words):
    """Look at the calls, and return the report without what no two of them share."""
    report, code, err = typed(project, "monitor", "cancer", *words)
    assert "verdict" in report, (report, err)
    assert code == {"ok": 0, "alert": 3, "unknown": 4}[report["verdict"]]
    return {name: told for name, told in report.items() if name not in ("created_at", "window")}


def test_a_container_looks_at_the_calls_as_one_does_here(project, served, opened):
    records = [one | {"mean radius": one["mean radius"] * 1000} for one in rows(60)]
    said(project, "call", "cancer", json.dumps(records))
    here = looked(project)
    assert here["verdict"] == "alert"
    assert here["explanation"]["suspects"][0]["column"] == "mean radius"
    assert looked(project, "--on", "docker") == here
    with urllib.request.urlopen(f"{served['url']}/metrics") as answer:
        told = answer.read().decode()
    sizes = re.findall(r'nbmlops_feature_effect\{.*column="mean radius".*\} (\S+)', told)
    assert [float(size) > 0.5 for size in sizes] == [True], "live, in the container that answers"


def test_what_is_due_is_looked_at_by_a_container(project, served, opened):
    path = project / "nbmlops.toml"
    settings = path.read_text()
    path.write_text(
        settings.replace("[monitoring]\n", '[monitoring]\nevery = "1h"\non = "docker"\n', 1)
    )
    try:
        assert said(project, "scheduler", "--once")["looked"] == []  # it is not due
        waiting = opened.store.get(monitors.KIND, served["deployment_id"], MonitorReport)
        path.write_text(path.read_text().replace('"1h"', '"1s"', 1))
        assert said(project, "scheduler", "--once")["looked"] == []  # the job has begun
        (report,) = until(lambda: said(project, "scheduler", "--once")["looked"], DEADLINE_S)
    finally:
        path.write_text(settings)
    until(lambda: said(project, "scheduler", "--once") and not list(jobs.standing(opened)))
    assert (report["endpoint"], report["verdict"]) == ("cancer", "alert")
    assert records.utc_now() > waiting.record.created_at


def test_tokens_in_use_are_shown_to_nobody(project, served, opened):
    worker = sites.worker_token(opened, served["deployment_id"])
    given = opened.home.job(served["deployment_id"]).inbox / layout.TOKEN_FILE
    assert given.read_text() == worker
    assert given.stat().st_mode & 0o077 == 0
    control = opened.home.control_token("cancer").read_text()
    told = shown(opened)
    assert served["deployment_id"] in told
    for canary in (worker, control):
        assert len(canary) >= 32
        assert canary not in told


def test_a_service_is_reached_on_this_machine_alone(project, served, opened):
    names = docker("ps", "-q", "--filter", f"label={of(opened)}").split()
    found = json.loads(docker("inspect", *names))
    assert len(found) == 2
    for one in found:
        bound = [port for ports in one["NetworkSettings"]["Ports"].values() for port in ports or ()]
        assert {port["HostIp"] for port in bound} == {"127.0.0.1"}
        assert one["HostConfig"]["ReadonlyRootfs"] is True
        assert one["Config"]["User"].partition(":")[0] not in ("", "0", "root")


def test_a_new_version_takes_over_under_fifty_connections_without_a_failed_call(project, served):
    second = said(project, "train", "train", "--on", "docker", "-p", "max_depth=3", *SMALL)
    assert second["model_versions"] == ["cancer:2"]
    callers = Callers(served["url"].replace("http://", "tcp:"), rows(1)[0], count=50)
    try:
        until(lambda: len(callers.answers) > 200)
        again = said(project, "deploy", "cancer:2", "--on", "docker")
        before = len(callers.answers)
        until(lambda: len(callers.answers) > before + 200)
        back = said(project, "rollback", "cancer")
        after = len(callers.answers)
        until(lambda: len(callers.answers) > after + 200)
    finally:
        callers.stop()
    assert callers.failures == []
    assert (again["url"], again["version"], again["launcher"]) == (served["url"], 2, "docker")
    assert (back["version"], back["rolled_back_from"]) == (1, 2)
    assert callers.answers[-1]["version"] == 1
    assert {answer["version"] for answer in callers.answers} == {1, 2}


def test_logs_are_those_of_the_container(project, served, run):
    (item,) = said(project, "deployments")["items"]
    assert (item["launcher"], item["ready"]) == ("docker", 1)
    assert said(project, "logs", run["run_id"])["items"] == []  # its cells print nothing
    (name,) = containers_of(item)
    told = subprocess.run(["docker", "logs", name], capture_output=True, text=True, check=True)
    lines = (told.stdout + told.stderr).splitlines()
    assert lines
    assert said(project, "logs", item["deployment_id"])["items"] == lines


def started(project, *words):
    """Start a command as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "nbmlops", *words, "--json"],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def of_pipeline(project, name):
    return [item for item in said(project, "runs")["items"] if item["pipeline"] == name]


def test_a_run_that_goes_on_is_cancelled_and_its_secret_was_shown_to_nobody(project, opened):
    running = said(project, "train", "slow.ipynb", "--on", "docker", "--detach")
    deadline = time.monotonic() + DEADLINE_S
    words = f"secret of {len(SECRET)}"
    while words not in "".join(said(project, "logs", running["run_id"])["items"]):
        assert time.monotonic() < deadline
    told = shown(opened)
    assert running["run_id"] in told
    assert SECRET not in told
    for path in opened.home.root.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path
    ended = said(project, "cancel", running["run_id"])
    assert ended["status"] == "cancelled"
    names = docker("ps", "-a", "--format", "{{.Names}}", "--filter", f"label={of(opened)}")
    assert running["run_id"] not in names


def test_a_command_that_is_killed_and_typed_again_gives_one_run(project, opened, request):
    seed = request.config.getoption("--seed") or random.SystemRandom().randrange(2**32)
    print(f"--seed {seed}")
    within_s = random.Random(seed).uniform(0.5, 6.0)
    words = ("train", "train", "--on", "docker", "-p", "max_depth=9", *SMALL)
    command = started(project, *words)
    try:
        command.wait(within_s)
    except subprocess.TimeoutExpired:
        os.kill(command.pid, signal.SIGKILL)
    command.communicate(timeout=30)

    def mine():
        return [
            item for item in of_pipeline(project, "train") if item["parameters"]["max_depth"] == 9
        ]

    before = {item["run_id"] for item in mine()}
    assert len(before) <= 1
    run = said(project, *words)
    assert (run["status"], run["attempts"]) == ("succeeded", 1)
    assert before <= {run["run_id"]}
    assert [item["run_id"] for item in mine()] == [run["run_id"]]


def test_at_the_end_nothing_is_left_and_doctor_is_content(project, served, opened):
    stopped = said(project, "undeploy", "cancer")
    assert stopped["status"] == "stopped"
    health = said(project, "doctor")
    assert health["findings"] == []
    assert set(health["invariants"].values()) == {"ok"}
    assert docker("ps", "-aq", "--filter", f"label={of(opened)}").split() == []
    assert docker("network", "ls", "-q", "--filter", f"label={of(opened)}").split() == []
