"""A command that is killed between any two steps leaves what the next one completes or undoes."""

import json
import time
import urllib.request

import pytest

from nbmlops import (
    deployments,
    endpoints,
    health,
    layout,
    ledger,
    models,
    pipelines,
    runs,
    submission,
    tick,
    workers,
)
from nbmlops import workspace as workspaces
from nbmlops.errors import DeploymentFailed
from nbmlops.records import DeploymentStatus
from sources import git, notebook_text

pytestmark = pytest.mark.slow

TRAIN = """
import nbmlops as mlops
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
found = load_iris(as_frame=True)
model = LogisticRegression(C=strength, max_iter=500).fit(found.data, found.target)
mlops.log_model(model, name="iris", train=(found.data, found.target))
"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    top = tmp_path_factory.mktemp("deployments") / "flowers"
    top.mkdir()
    (top / "nbmlops.toml").write_text(
        "[project]\nname = 'flowers'\n[pipelines.train]\nsteps = [{notebook = 'train.ipynb'}]\n"
    )
    (top / "train.ipynb").write_text(notebook_text(("parameters", "strength = 1.0"), TRAIN))
    git(top, "init", "--quiet", "--initial-branch=main")
    git(top, "add", ".")
    git(top, "commit", "--quiet", "-m", "start")
    made = workspaces.open_at(top)
    for strength in ("1.0", "2.0"):
        run = submission.submit(made, pipelines.find(made, "train"), {"strength": strength})
        for seen in runs.watch(made, run.run_id):
            run = seen
        assert run.status.value == "succeeded", run.cause
    assert [v.name for v in models.versions(made)] == ["iris:2", "iris:1"]
    yield made
    if (found := endpoints.find(made, "iris")) is not None and found.running:
        deployments.undeploy(made, "iris")
    made.close()


class Killed(BaseException):
    """Ends a command as a kill would: no handler of ours runs."""


def answered(opened):
    endpoint = endpoints.running(opened, "iris")
    version = models.find(opened, "iris:1")
    record = models.schema(opened, version).example
    request = urllib.request.Request(
        f"{endpoint.url}/predict", json.dumps(record).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)["version"]


STEPS = [
    (deployments, "_keep"),
    (endpoints, "until_ready"),
    (deployments, "_decide"),
    (endpoints, "point"),
    (endpoints, "serve"),
    (deployments, "_route"),
    (deployments, "_stop"),
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("module", "step"), STEPS, ids=lambda value: getattr(value, "__name__", value)
)
def test_a_deploy_that_is_killed_is_completed_or_undone(opened, monkeypatch, module, step, after):
    deployments.deploy(opened, "iris:1")
    original = getattr(module, step)

    def killed(*arguments, **options):
        if after:
            original(*arguments, **options)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module, step, killed)
        with pytest.raises(Killed):
            deployments.deploy(opened, "iris:2")
    # The endpoint answers all the while, and after the next look the records agree with it.
    assert answered(opened) in (1, 2)
    tick.tick(opened)
    version = answered(opened)
    (record,) = deployments.listed(opened)
    assert (record.version, record.status, record.ready) == (
        version,
        DeploymentStatus.RUNNING,
        1,
    )
    findings = [f for f in health.check(opened).findings if f.code != "job-orphaned"]
    assert findings == []
    decided = [
        (entry.kind, entry.body["version"])
        for entry in ledger.entries(opened.repo)
        if entry.kind != "version"
    ]
    standing = next(v for kind, v in reversed(decided) if kind == "deployed")
    undone = ("undeployed", standing) == decided[-1]
    assert version == (1 if undone else standing)
    assert deployments.deploy(opened, "iris:2").version == answered(opened) == 2


@pytest.mark.parametrize("step", ["_settle", "_decide", "_stop"])
def test_an_undeploy_that_is_killed_is_completed(opened, monkeypatch, step):
    deployments.deploy(opened, "iris:1")

    def killed(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        # The settling at the start of an undeploy is not there: it begins with the pointing.
        patch.setattr(deployments, step, killed)
        with pytest.raises(Killed):
            deployments.undeploy(opened, "iris")
    tick.tick(opened)
    assert deployments.listed(opened) == []
    deadline = time.monotonic() + 20
    while opened.launcher("local").jobs():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert list(ledger.entries(opened.repo))[-1].kind == "undeployed"


def test_a_worker_that_never_gets_ready_leaves_the_old_version_its_traffic(opened, monkeypatch):
    deployments.deploy(opened, "iris:1")
    original = workers.job

    def broken(*arguments):
        job = original(*arguments)
        inbox = opened.home.job(job.name).inbox
        (inbox / "model.skops").write_bytes(b"other bytes")
        return job

    monkeypatch.setattr(workers, "job", broken)
    with pytest.raises(DeploymentFailed) as caught:
        deployments.deploy(opened, "iris:2")
    assert "digest" in caught.value.message
    assert "nbmlops logs iris-" in caught.value.hint
    assert answered(opened) == 1
    assert [d.version for d in deployments.listed(opened)] == [1]


def test_a_front_that_hangs_is_replaced_by_the_next_deploy(opened):
    import psutil

    deployments.deploy(opened, "iris:1")
    endpoint = endpoints.running(opened, "iris")
    inbox = str(opened.home.job(endpoints.handle(endpoint).name).inbox)
    for process in psutil.process_iter():
        try:
            if process.environ().get(layout.INBOX_VARIABLE) == inbox:
                process.kill()
        except psutil.Error:
            continue
    assert deployments.deploy(opened, "iris:2").url == endpoint.url
    assert answered(opened) == 2
