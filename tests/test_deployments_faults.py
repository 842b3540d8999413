"""Deployments that go wrong, under load; and two versions whose environments differ.

F13: a worker that never gets ready, one that dies as soon as it is or as soon as it has the
traffic, a model file of which one bit was flipped. The version before keeps the traffic, and no
call fails.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest

from nbmlops import (
    deployments,
    endpoints,
    environment,
    layout,
    ledger,
    models,
    pipelines,
    runs,
    submission,
    traces,
    workers,
)
from nbmlops import workspace as workspaces
from nbmlops.errors import DeploymentFailed, EnvironmentFailed, InvalidName, NbmlopsError
from nbmlops.records import DeploymentStatus
from serving import ask, until
from sources import git, notebook_text
from terminal import refused, typed
from test_front import Callers

pytestmark = pytest.mark.slow

SETTINGS = """
[project]
name = "flowers"
[pipelines.train]
steps = [{ notebook = "train.ipynb" }]
"""
TRAIN = """
import nbmlops as mlops
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
x, y = load_iris(return_X_y=True)
mlops.log_model(LogisticRegression(C=strength, max_iter=500).fit(x, y), name="iris", train=(x, y))
"""
ROW = {"x0": 5.1, "x1": 3.5, "x2": 1.4, "x3": 0.2}


def project(top, notebook=TRAIN):
    top.mkdir()
    (top / "nbmlops.toml").write_text(SETTINGS)
    (top / "train.ipynb").write_text(notebook_text(("parameters", "strength = 1.0"), notebook))
    git(top, "init", "--quiet", "--initial-branch=main")
    git(top, "add", ".")
    git(top, "commit", "--quiet", "-m", "start")
    return workspaces.open_at(top)


def train(opened, **parameters):
    run = submission.submit(opened, pipelines.find(opened, "train"), parameters)
    for seen in runs.watch(opened, run.run_id):
        run = seen
    assert run.status.value == "succeeded", run.cause
    return run


def stop_all(opened):
    for endpoint in endpoints.every(opened):
        if endpoint.running:
            deployments.undeploy(opened, endpoint.endpoint)
    opened.close()


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    made = project(tmp_path_factory.mktemp("faults") / "flowers")
    for strength in ("1.0", "2.0"):
        train(made, strength=strength)
    yield made
    stop_all(made)


def processes_of(opened, deployment_id):
    """Return the processes of a job, by the inbox that they were given."""
    inbox = str(opened.home.job(deployment_id).inbox)
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(layout.INBOX_VARIABLE) == inbox:
                found.append(process)
        except psutil.Error:
            continue
    return found


def workers_of(opened, deployment_id):
    """Return the processes that are the worker itself, not who watches over it."""
    return [
        process
        for process in processes_of(opened, deployment_id)
        if "nbmlops.worker" in process.cmdline()
    ]


@pytest.fixture
def loaded(opened):
    """Keep fifty connections calling while version 1 is replaced, or is not."""
    deployments.deploy(opened, "iris:1")
    url = endpoints.running(opened, "iris").url
    callers = Callers(url.replace("http://", "tcp:"), ROW, count=50)
    until(lambda: len(callers.answers) > 200)
    yield callers
    callers.stop()


def settled(opened, callers, version):
    """Hold that no call has failed, and that the version has the traffic and the records."""
    before = len(callers.answers)
    until(lambda: len(callers.answers) > before + 200)
    assert {answer["version"] for answer in callers.answers[-100:]} == {version}
    callers.stop()
    assert callers.failures == []
    (record,) = deployments.listed(opened)
    assert (record.version, record.status, record.ready) == (version, DeploymentStatus.RUNNING, 1)


def test_deploying_to_and_fro_under_fifty_connections_fails_no_call(opened, loaded):
    for version in (2, 1, 2):
        assert deployments.deploy(opened, f"iris:{version}").version == version
        before = len(loaded.answers)
        until(lambda before=before: len(loaded.answers) > before + 100)
        assert loaded.answers[-1]["version"] == version
    settled(opened, loaded, 2)
    assert {answer["version"] for answer in loaded.answers} == {1, 2}


def failing(opened, monkeypatch, spoil):
    """Deploy version 2 with an inbox that ``spoil`` has had its way with."""
    original = workers.job

    def spoiled(workspace, version, deployment_id, *where):
        made = original(workspace, version, deployment_id, *where)
        spoil(opened.home.job(deployment_id).inbox)
        return made

    monkeypatch.setattr(workers, "job", spoiled)
    with pytest.raises(DeploymentFailed) as caught:
        deployments.deploy(opened, "iris:2")
    monkeypatch.undo()
    return caught.value


def test_one_flipped_bit_is_refused_before_the_load_and_the_old_version_keeps_the_traffic(
    opened, loaded, monkeypatch
):
    def flip(inbox):
        path = inbox / "model.skops"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.chmod(0o600)
        path.unlink()
        path.write_bytes(content)

    failure = failing(opened, monkeypatch, flip)
    assert "digest" in failure.message
    settled(opened, loaded, 1)


def test_a_worker_that_never_gets_ready_is_given_up_at_the_deadline(opened, loaded, monkeypatch):
    monkeypatch.setattr(endpoints, "READY_S", 3.0)
    original = workers.job

    def endless(workspace, version, deployment_id, *where):
        made = original(workspace, version, deployment_id, *where)
        wait = "import time; time.sleep(600)"
        return type(made)(
            **{name: getattr(made, name) for name in made.__struct_fields__}
            | {"command": (made.command[0], "-c", wait)}
        )

    monkeypatch.setattr(workers, "job", endless)
    began = time.monotonic()
    with pytest.raises(DeploymentFailed) as caught:
        deployments.deploy(opened, "iris:2")
    assert time.monotonic() - began < 30
    assert "not ready within 3 s" in caught.value.message
    newest = deployments.listed(opened, every=True)[0]
    assert (newest.version, newest.status) == (2, DeploymentStatus.FAILED)
    until(lambda: not processes_of(opened, newest.deployment_id))
    settled(opened, loaded, 1)


@pytest.mark.parametrize("moment", ["before the traffic", "with the traffic"])
def test_a_worker_that_dies_right_after_it_was_ready_gives_the_traffic_back(
    opened, loaded, monkeypatch, moment
):
    def kill():
        newest = deployments.listed(opened, every=True)[0]
        assert newest.version == 2
        for process in workers_of(opened, newest.deployment_id):
            process.kill()
        handle = deployments._handle(newest)
        until(lambda: opened.launcher("local").poll([handle])[handle].status.is_final)

    if moment == "before the traffic":
        original = endpoints.until_ready

        def ready_then_dead(workspace, job, what, remedy=""):
            found = original(workspace, job, what, remedy)
            if job.name.startswith("iris-"):
                kill()
            return found

        monkeypatch.setattr(endpoints, "until_ready", ready_then_dead)
    else:
        serve = endpoints.serve

        def served_then_dead(workspace, endpoint, routes):
            serve(workspace, endpoint, routes)
            if routes and routes[0].version == 2:
                kill()

        monkeypatch.setattr(endpoints, "serve", served_then_dead)
    with pytest.raises(DeploymentFailed) as caught:
        deployments.deploy(opened, "iris:2")
    monkeypatch.undo()
    assert "did not stay up" in caught.value.message
    until(lambda: loaded.answers[-1]["version"] == 1)
    if moment == "with the traffic":
        # Its own calls are told to come again, until the version before has them back.
        failures, loaded.failures = loaded.failures, []
        assert {status for status, _ in failures} <= {502, 503}
    settled(opened, loaded, 1)
    entries = [e for e in ledger.entries(opened.repo) if e.kind in {"deployed", "undeployed"}]
    decided = [(entry.kind, entry.body["version"]) for entry in entries]
    assert decided[-1] in {("undeployed", 2), ("deployed", 1)}


def kill_worker(opened, record):
    for process in workers_of(opened, record.deployment_id):
        process.kill()
    handle = deployments._handle(record)
    until(lambda: opened.launcher("local").poll([handle])[handle].status.is_final)


def test_a_worker_that_dies_young_gives_the_traffic_back_at_the_next_look(opened, loaded):
    second = deployments.deploy(opened, "iris:2")
    until(lambda: loaded.answers[-1]["version"] == 2)
    kill_worker(opened, second)
    deployments.recover(opened)
    until(lambda: loaded.answers[-1]["version"] == 1)
    # Between the two they are told to come again.
    assert {status for status, _ in loaded.failures} <= {502, 503}
    loaded.failures = []
    settled(opened, loaded, 1)
    back = deployments.pointed(opened, "iris")
    assert back.rolled_back_from == 2
    *_, last = [e for e in ledger.entries(opened.repo) if e.kind == "deployed"]
    assert (last.body["version"], last.body["reason"]) == (1, "rollback")
    kill_worker(opened, back)
    deployments.recover(opened)  # what was gone back to has nothing to go back to by itself
    assert deployments.pointed(opened, "iris").deployment_id == back.deployment_id
    assert deployments.look(opened, back).status is DeploymentStatus.FAILED


def test_a_worker_that_dies_old_or_has_none_before_it_is_left_as_it_is(opened, monkeypatch):
    first = deployments.deploy(opened, "iris:1", endpoint="alone")
    kill_worker(opened, first)
    deployments.recover(opened)
    assert deployments.pointed(opened, "alone").deployment_id == first.deployment_id
    second = deployments.deploy(opened, "iris:2", endpoint="alone")
    kill_worker(opened, second)
    monkeypatch.setattr(deployments, "PROBATION_S", 0.0)
    deployments.recover(opened)
    assert deployments.pointed(opened, "alone").deployment_id == second.deployment_id
    monkeypatch.undo()
    deployments.recover(opened)
    assert deployments.pointed(opened, "alone").version == 1
    deployments.undeploy(opened, "alone")


# --- endpoints of another name --------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["..", "../iris", "Iris", "a b", "a/b", "-a", "a-", "x" * 41, "%2e%2e", "iris\n", "ünï", "."],
)
def test_an_endpoint_of_an_odd_name_is_refused_and_nothing_is_written(opened, name):
    before = sorted(opened.home.root.rglob("*"))
    with pytest.raises(InvalidName):
        deployments.deploy(opened, "iris:1", endpoint=name)
    assert sorted(opened.home.root.rglob("*")) == before
    if name != "iris\n":
        error = refused(opened.root, "deploy", "iris:1", "--endpoint", name)
        assert error["hint"]


def test_two_versions_are_served_side_by_side_each_at_its_endpoint(opened):
    deployments.deploy(opened, "iris:1")
    document, code, _ = typed(opened.root, "deploy", "iris:2", "--endpoint", "iris-next")
    assert (code, document["endpoint"], document["version"]) == (0, "iris-next", 2)
    assert document["url"] != endpoints.running(opened, "iris").url
    for name, version in (("iris", 1), ("iris-next", 2)):
        answer = json.loads(endpoints.call(opened, name, json.dumps(ROW).encode()))
        assert (answer["model"], answer["version"]) == ("iris", version)
        about = json.loads(asked(opened, name, "GET", f"/v2/models/{name}")[1])
        assert (about["name"], about["versions"]) == (name, [str(version)])
        found = traces.trace(opened, f"call/{answer['call_id']}")
        assert found.complete, found.missing
    assert asked(opened, "iris-next", "GET", "/v2/models/iris")[0] == 404
    assert len(deployments.listed(opened)) == 2
    deployments.undeploy(opened, "iris-next")
    assert [one.endpoint for one in deployments.listed(opened)] == ["iris"]


def asked(opened, name, method, path):
    address = endpoints.running(opened, name).url.replace("http://", "tcp:")
    status, _, content = ask(address, method, path)
    return status, content


# --- tokens (A7) ----------------------------------------------------------------------------------


def test_the_control_token_is_in_its_private_file_and_nowhere_else(opened):
    deployments.deploy(opened, "iris:1")
    file = opened.home.control_token("iris")
    token = file.read_bytes()
    assert file.stat().st_mode & 0o077 == 0
    assert len(token) >= 43, "256 bits"
    places = [
        path
        for path in opened.home.root.rglob("*")
        if path.is_file() and path != file and token in path.read_bytes()
    ]
    assert places == []
    for process in psutil.process_iter():
        try:
            words = "\0".join(process.cmdline()).encode()
            environ = "\0".join(process.environ().values()).encode()
        except psutil.Error:
            continue
        assert token not in words, "in `ps`"
        assert token not in environ
    said = [typed(opened.root, *words)[0] for words in (["deployments"], ["deploy", "iris:1"])]
    said += [*deployments.logs(opened, "endpoint-iris")]
    said += [refused(opened.root, "call", "iris", "{", code=2)]
    assert token.decode() not in json.dumps(said)


# --- two environments at once (E1) ----------------------------------------------------------------

RELEASES = ("1.5.2", "1.6.1")


def sklearn_of(process):
    """Return which scikit-learn's files a process has mapped into its memory."""
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    folders = {
        Path(found[1]) for found in re.finditer(r"(/\S+/site-packages)/sklearn/\S+\.so", maps)
    }
    return {
        info.name.removeprefix("scikit_learn-").removesuffix(".dist-info")
        for folder in folders
        for info in folder.glob("scikit_learn-*.dist-info")
    }


@pytest.mark.timeout(400)
def test_two_versions_with_different_releases_of_scikit_learn_are_served_at_once(
    tmp_path, monkeypatch
):
    if not Path("/proc/self/maps").exists():
        pytest.skip("what a process has loaded is read from /proc")
    monkeypatch.setenv("NBMLOPS_CACHE", os.environ.get("NBMLOPS_TEST_CACHE", str(tmp_path / "c")))
    # A plain logistic regression is served as arrays, without scikit-learn.
    as_given = TRAIN.replace("LogisticRegression(C", "BernoulliNB(alpha").replace(
        "max_iter=500", "fit_prior=True"
    )
    as_given = as_given.replace(
        "linear_model import LogisticRegression", "naive_bayes import BernoulliNB"
    )
    opened = project(tmp_path / "flowers", as_given)
    try:
        for number, release in enumerate(RELEASES):
            lock = f"scikit-learn=={release}\nnumpy==2.2.6\nscipy==1.15.3\n"
            (opened.root / "requirements.txt").write_text(lock)
            git(opened.root, "add", ".")
            git(opened.root, "commit", "--quiet", "-m", f"scikit-learn {release}")
            try:
                plan = environment.plan({"requirements.txt": lock.encode()})
                environment.ensure(plan, opened.cache, opened.say)
            except EnvironmentFailed as error:
                pytest.skip(f"scikit-learn {release} cannot be had here: {error.message[:300]}")
            train(opened, strength=str(1.0 + number))
        served = {}
        for number, release in enumerate(RELEASES, start=1):
            made = models.environment(opened, models.find(opened, f"iris:{number}"))
            assert made.packages["scikit-learn"] == release
            record = deployments.deploy(opened, f"iris:{number}", endpoint=f"iris-v{number}")
            served[release] = record
        assert len(deployments.listed(opened)) == 2
        for number, (release, record) in enumerate(served.items(), start=1):
            answer = json.loads(
                endpoints.call(opened, record.endpoint, json.dumps([ROW] * 3).encode())
            )
            assert (answer["version"], len(answer["predictions"])) == (number, 3)
            found = traces.trace(opened, f"call/{answer['call_id']}")
            assert found.environment.packages["scikit-learn"] == release
            # What is written down is what runs.
            (process,) = workers_of(opened, record.deployment_id)
            assert sklearn_of(process) == {release}
            process.send_signal(signal.SIGCONT)
        interpreters = {workers_of(opened, one.deployment_id)[0].exe() for one in served.values()}
        environments = {models.find(opened, f"iris:{n}").environment_id for n in (1, 2)}
        assert len(environments) == 2
        assert interpreters
        with pytest.raises(NbmlopsError):
            endpoints.call(opened, "iris", b"{}")
    finally:
        stop_all(opened)
