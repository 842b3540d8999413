"""Two clones with one store: what one has started the other shows, and leaves alone."""

import os

import pytest

from nbmlops import (
    cleaning,
    deployments,
    endpoints,
    health,
    models,
    pipelines,
    rebuilding,
    records,
    remotes,
    render,
    runs,
    submission,
    sweeps,
    tick,
)
from nbmlops import workspace as workspaces
from nbmlops.commands import Context, running
from nbmlops.errors import Conflict
from nbmlops.records import (
    DeploymentRecord,
    DeploymentStatus,
    EndpointRecord,
    Listing,
    RunRecord,
    Status,
    SweepRecord,
)
from nbmlops.workspace import StartedElsewhere
from registered import version
from sources import git, notebook_text
from teams import ran
from test_cleaning import TRAIN, later


@pytest.fixture
def clones(folder, tmp_path):
    """Two clones of a project, opened, with one store and one place for artifacts."""
    (folder / "train.ipynb").write_text(notebook_text(("parameters", "size = 1.0"), TRAIN))
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "lines")
    git(tmp_path, "clone", "--quiet", "--bare", str(folder), "origin.git")
    environ = {
        **os.environ,
        "NBMLOPS_STORE_URL": f"sqlite:///{tmp_path}/shared.sqlite",
        "NBMLOPS_ARTIFACTS_URL": f"file://{tmp_path}/artifacts",
    }
    opened = []
    for name in ("ada", "bob"):
        git(tmp_path, "clone", "--quiet", "origin.git", name)
        opened.append(workspaces.open_at(tmp_path / name, environ=environ))
    yield opened
    for one in opened:
        one.close()


def everything(workspace):
    """Return all records of runs, sweeps, endpoints and deployments, as they are kept."""
    return [
        (kept.record, kept.revision)
        for kind, form in (
            (runs.KIND, RunRecord),
            (sweeps.KIND, SweepRecord),
            (endpoints.KIND, EndpointRecord),
            (deployments.KIND, DeploymentRecord),
        )
        for kept in workspace.store.page(kind, form, limit=100)
    ]


def look_around(workspace):
    """Do what every command does on its way, and what reads most."""
    tick.tick(workspace)
    rebuilding.repair(workspace)
    health.check(workspace)
    runs.page(workspace, limit=50)
    sweeps.page(workspace, limit=50)
    deployments.listed(workspace, every=True)


def up(workspace, made):
    """Record a deployment that is up, without starting one."""
    endpoint = endpoints.made(workspace, made.model, "local")
    record = DeploymentRecord(
        endpoint=made.model, url=endpoint.url, deployment_id=f"{made.model}-d1", model=made.model,
        version=made.version, commit=made.commit, launcher="local", author="Ada <ada@example.org>",
        status=DeploymentStatus.RUNNING, ready=1, created_at=workspace.now(), place=endpoint.place,
    )  # fmt: skip
    workspace.store.swap(
        deployments.KIND, record.deployment_id, record, expected=0, key="up", status="running"
    )
    endpoints.point(workspace, made.model, record.deployment_id)
    return record


def test_a_run_of_another_clone_is_shown_as_it_was_written_and_never_ended(clones):
    ada, bob = clones
    taken = ran(ada, "hers")
    going_on = records.replace(
        taken, run_id="train-0v5m3k2q9xyz", status=Status.RUNNING, finished_at=None,
        handle=records.JobHandle(launcher="local", name="train-0v5m3k2q9xyz"), place="a" * 32,
        artifacts=(), record_digest=None,
    )  # fmt: skip
    runs.keep(ada, going_on, 0, "hers")
    before = everything(bob)
    look_around(bob)
    assert everything(bob) == before
    seen = runs.get(bob, going_on.run_id)
    assert (seen.status, seen.elsewhere, seen.place) == (Status.RUNNING, True, "a" * 32)
    shown = render.text(render.view(Listing(items=(seen,))), 200)
    assert "running elsewhere" in shown
    with pytest.raises(StartedElsewhere, match="in another clone") as caught:
        runs.cancel(bob, going_on.run_id)
    assert caught.value.exit_code == 5
    with pytest.raises(StartedElsewhere):
        list(runs.logs(bob, going_on.run_id))
    assert everything(bob) == before
    # One's own, and those from before there were places, are looked at as ever.
    runs.keep(bob, records.replace(going_on, place=None), 1, "old")
    assert runs.get(bob, going_on.run_id).status is Status.LOST


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hers", "answers"),
    [
        ({"status": Status.SUCCEEDED, "model_versions": ("lines:1",)}, True),
        ({"status": Status.SUCCEEDED}, True),
        ({"status": Status.SUCCEEDED, "sweep": "sweep-train-1", "trial": 1}, False),
        ({"status": Status.FAILED}, False),
        ({"status": Status.LOST}, False),
        ({"status": Status.RUNNING}, True),
    ],
)
def test_a_run_of_another_clone_answers_where_it_can(clones, monkeypatch, hers, answers):
    ada, bob = clones
    begun = []
    monkeypatch.setattr(
        submission, "_begin", lambda _, record, *rest, **more: begun.append(record) or record
    )
    for one in clones:
        (one.root / "params.txt").write_text("the same")
    first = submission.submit(ada, pipelines.find(ada, "train"), {})
    runs.keep(ada, records.replace(first, **hers), 0, "hers")
    said = []
    bob.warn = said.append
    found = submission.submit(bob, pipelines.find(bob, "train"), {})
    assert (found.run_id == first.run_id) is answers
    assert found.elsewhere is answers
    assert len(begun) == 2 - answers
    assert any("goes on in another clone" in text for text in said) is (
        hers["status"] is Status.RUNNING
    )
    forced = submission.submit(bob, pipelines.find(bob, "train"), {}, force=True)
    assert forced.run_id != first.run_id
    assert forced.place == bob.home.place.read_text()


def test_gc_frees_nothing_of_what_another_clone_has_run(clones):
    ada, bob = clones
    hers = ran(ada, "hers")
    runs.keep(ada, records.replace(hers, place="a" * 32), 1, "hers")
    ours = ran(bob, "ours")
    later(bob, 100)
    report = cleaning.clean(bob, shared=True)
    assert [item.name for item in report.freed if item.kind == "run"] == [ours.run_id]
    assert all(bob.artifacts.has(artifact.digest) for artifact in hers.artifacts)
    assert runs.get(bob, hers.run_id).freed_at is None


def test_a_sweep_of_another_clone_is_neither_taken_up_nor_given_up(clones):
    ada, bob = clones
    made = sweeps.submit(ada, pipelines.find(ada, "train"), {"size": "1.0,2.0"})
    assert made.place == ada.home.place.read_text()
    try:
        for _ in range(sweeps._DRIVERS_LIMIT + 1):
            look_around(bob)
        assert list(bob.launcher("local").jobs()) == []
        assert not sweeps.find(bob, made.sweep_id).record.status.is_final
        with pytest.raises(StartedElsewhere):
            sweeps.cancel(bob, made.sweep_id)
    finally:
        sweeps.cancel(ada, made.sweep_id)


def test_an_endpoint_of_another_clone_is_listed_and_left_alone(clones):
    ada, bob = clones
    made = version(ada, 1)
    hers = up(ada, made)
    version(bob, 1)
    rebuilding.repair(bob)
    before = everything(bob)
    look_around(bob)
    (shown,) = deployments.listed(bob)
    assert (shown.status.value, shown.ready, shown.elsewhere) == ("running", 1, True)
    assert "running elsewhere" in render.text(render.view(Listing(items=(shown,))), 200)
    for refused in (
        lambda: deployments.deploy(bob, "iris:1"),
        lambda: deployments.undeploy(bob, "iris"),
        lambda: deployments.rollback(bob, "iris"),
        lambda: endpoints.made(bob, "iris", "local"),
        lambda: endpoints.point(bob, "iris", None),
    ):
        with pytest.raises(StartedElsewhere, match="`iris` is up in another clone") as caught:
            refused()
        assert "--endpoint NAME" in caught.value.hint
    assert everything(bob) == before
    assert hers.elsewhere is False


def test_two_clones_that_make_one_endpoint_at_once_do_not_write_over_each_other(clones):
    ada, bob = clones
    looked = endpoints.found_again
    # Both looked before either wrote.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(endpoints, "found_again", late_for(ada, looked))
        with pytest.raises(Conflict):
            endpoints.made(bob, "tulip", "local")
    assert endpoints.find(bob, "tulip").place == ada.home.place.read_text()


def late_for(first, looked):
    """Return a look at an endpoint after which another clone is quicker."""

    def found_again(workspace, name, launcher):
        record = looked(workspace, name, launcher)
        if workspace is not first:
            endpoints.made(first, name, launcher)
        return record

    return found_again


def test_an_endpoint_that_is_not_up_any_more_may_become_anothers(clones):
    ada, bob = clones
    endpoints.made(ada, "iris", "local")
    endpoints.point(ada, "iris", "iris-d1")
    endpoints.point(ada, "iris", None)
    taken = endpoints.made(bob, "iris", "local")
    assert taken.place == bob.home.place.read_text()
    assert not taken.running
    endpoints.point(bob, "iris", "iris-d2")
    with pytest.raises(StartedElsewhere):
        endpoints.made(ada, "iris", "local")
    endpoints.point(bob, "iris", None)  # as its former owner has done at that very count
    assert not endpoints.find(bob, "iris").running


def test_each_clone_ticks_for_itself(clones):
    ada, bob = clones
    at = ada.now().timestamp()
    assert tick.tick(ada).ours
    hers = f"tick-{ada.home.place.read_text()}"
    assert ada.store.lease(hers, "another command of hers", at, 30.0)
    assert not tick.tick(ada).ours
    assert tick.tick(bob).ours


@pytest.mark.slow
def test_a_training_and_a_deployment_outlive_what_another_clone_does(clones):
    ada, bob = clones
    for one in clones:
        (one.root / ".gitignore").write_text("/data/\n")
    run = submission.submit(ada, pipelines.find(ada, "train"), {})
    while not run.status.is_final:
        look_around(bob)
        assert runs.find(bob, run.run_id).record.status is not Status.LOST
        run = runs.get(ada, run.run_id)
    assert run.status is Status.SUCCEEDED
    assert run.model_versions == ("lines:1",)
    remotes.sync(ada)
    remotes.sync(bob)
    hers = deployments.deploy(ada, "lines:1")
    try:
        look_around(bob)
        assert {finding.code for finding in health.check(ada).findings} == set()
        assert {finding.code for finding in health.check(bob).findings} == set()
        with pytest.raises(StartedElsewhere):
            deployments.deploy(bob, "lines:1")
        own = deployments.deploy(bob, "lines:1", endpoint="lines-of-bob")
        look_around(ada)
        assert endpoints.call(ada, "lines", b'{"x": 3.0}')
        assert endpoints.call(bob, "lines-of-bob", b'{"x": 3.0}')
        told = {one.deployment_id: one.elsewhere for one in deployments.listed(bob)}
        assert told == {hers.deployment_id: True, own.deployment_id: False}
        deployments.undeploy(bob, "lines-of-bob")
        assert deployments.get(ada, hers.deployment_id).ready == 1
    finally:
        deployments.undeploy(ada, "lines")
    taken = deployments.deploy(bob, "lines:1")
    try:
        assert taken.url
        look_around(ada)
        with pytest.raises(StartedElsewhere):
            deployments.deploy(ada, "lines:1")
        assert endpoints.call(bob, "lines", b'{"x": 3.0}')
    finally:
        deployments.undeploy(bob, "lines")
    assert list(bob.launcher("local").jobs()) == []
    # What answered one clone's question answers the other's, as it is the same.
    context = Context(bob.root, environ=bob.environ)
    again = running.train(context)
    assert (again.run_id, again.status) == (run.run_id, Status.SUCCEEDED)
    context.close()
    assert models.find(bob, "lines").name == "lines:1"
