"""The store can be lost: ledger, artifacts, call logs and what is still up tell the same again."""

import contextlib
import json
import random
import signal
import subprocess
import sys
import time
import urllib.request
from datetime import timedelta

import pytest

from nbmlops import (
    calllog,
    deployments,
    endpoints,
    health,
    layout,
    ledger,
    models,
    pipelines,
    rebuilding,
    records,
    runs,
    submission,
    tick,
    traces,
)
from nbmlops import workspace as workspaces
from nbmlops.commands import Context, project
from nbmlops.records import DeploymentRecord, DeploymentStatus, Route, RouteTable, RunRecord
from registered import deployed, version
from sources import git, notebook_text
from teams import trained
from test_deployments import TRAIN

pytestmark = pytest.mark.slow  # ledgers of many entries, and whole jobs


def lost(workspace):
    """Return the project opened anew, its store deleted."""
    root = workspace.root
    workspace.close()
    for path in workspace.home.root.glob("store.sqlite*"):
        path.unlink()
    return workspaces.open_at(root)


def plain(items):
    return [records.plain(item) for item in items]


# --- what the ledger tells ----------------------------------------------------------------------


@pytest.fixture
def decided(workspace):
    """A project with three versions, an alias, and deployments of which none was ever started."""
    one, two, three = (version(workspace, number) for number in (1, 2, 3))
    models.set_alias(workspace, "iris:2", "best")
    deployed(workspace, one, "iris-d1")
    deployed(workspace, two, "iris-d2", replaces="iris-d1")
    deployed(workspace, three, "iris-d3", replaces="iris-d2")
    deployed(workspace, three, "iris-d3", "undeployed")
    rebuilding.repair(workspace)
    return workspace


def test_without_repair_nothing_changes_and_what_is_missing_is_told(decided):
    opened = lost(decided)
    context = Context(opened.root)
    first = project.doctor(context)
    assert first.repaired == ()
    assert first.invariants["I1"] == "broken"
    assert [finding.code for finding in first.findings] == [
        *["version-not-indexed"] * 3,
        *["run-not-indexed"] * 3,
        "endpoint-not-indexed",
        *["deployment-not-indexed"] * 3,
    ]
    assert {finding.fix for finding in first.findings} == {"nbmlops doctor --repair"}
    assert project.doctor(context) == first
    context.close()


def test_a_repair_says_what_it_did_and_twice_is_as_once(decided):
    before = plain(models.versions(decided)), plain(deployments.listed(decided, every=True))
    opened = lost(decided)
    found = health.check(opened).findings
    context = Context(opened.root)
    first = project.doctor(context, repair=True)
    assert [item.code for item in first.repaired] == [item.code for item in found]
    assert (first.findings, set(first.invariants.values())) == ((), {"ok"})
    again = project.doctor(context, repair=True)
    assert (again.findings, again.repaired) == ((), ())
    opened = context.workspace()
    after = plain(models.versions(opened)), plain(deployments.listed(opened, every=True))
    assert after == before
    assert models.find(opened, "iris@best").version == 2
    assert runs.get(opened, "train-iris-2").model_versions == ("iris:2",)
    assert endpoints.find(opened, "iris").url == "http://127.0.0.1:9"
    context.close()


def test_a_trace_before_the_repair_is_the_same_as_after(decided):
    references = ("deployment/iris-d1", "deployment/iris-d3", "model/iris@best")
    before = [traces.trace(decided, one) for one in references]
    opened = lost(decided)
    assert [traces.trace(opened, one) for one in references] == before
    rebuilding.repair(opened)
    assert [traces.trace(opened, one) for one in references] == before
    opened.close()


def test_the_same_model_trained_again_by_a_lost_run_keeps_its_number(decided):
    opened = lost(decided)
    rebuilding.repair(opened)
    digests = {item.version: item.digest for item in models.versions(opened)}
    assert digests == {number: f"{number:064x}" for number in (1, 2, 3)}
    assert models.index(opened) == 0
    opened.close()


def test_a_run_whose_record_is_lost_is_named_and_the_rest_is_made(decided):
    digest = models.find(decided, "iris:2").run_digest
    (decided.home.artifacts / digest[:2] / digest[2:]).unlink()
    opened = lost(decided)
    rebuilding.repair(opened)
    (finding,) = health.check(opened).findings
    assert (finding.code, finding.message) == (
        "artifact-gone",
        "the run of iris:2 is not there any more",
    )
    assert opened.store.get(runs.KIND, "train-iris-3", RunRecord) is not None
    opened.close()


def test_the_rest_that_is_safe_is_put_right_too(decided):
    left = decided.home.scratch / "index-1"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.touch()
    ledger.lock_file(decided.repo).touch()
    then = decided.now
    decided.now = lambda: then() + timedelta(hours=1)
    git(decided.root, "update-ref", "-d", "refs/nbmlops/snapshots/train-iris-1")
    assert {f.code for f in health.check(decided).findings} == {
        "index-left",
        "snapshot-gone",
        "ledger-locked",
    }
    assert left.exists()
    assert [f.code for f in rebuilding.repair(decided)] == [
        "snapshot-gone",
        "index-left",
        "ledger-locked",
    ]
    assert health.check(decided).findings == ()
    assert rebuilding.repair(decided) == ()


def test_a_decision_that_was_not_handed_over_yet_is_one_that_starts(workspace):
    one, two = (version(workspace, number) for number in (1, 2))
    deployed(workspace, one, "iris-d1")
    deployed(workspace, two, "iris-d2", replaces="iris-d1")
    route = Route(
        deployment_id="iris-d1",
        role="champion",
        share=100.0,
        address="unix:/x",
        model="iris",
        version=1,
        commit="c",
        schema=models.schema(workspace, one),
    )
    inbox = workspace.home.job("endpoint-iris").inbox
    table = RouteTable(endpoint="iris", revision=41, routes=(route,))
    layout.write_file(inbox / layout.ROUTES_FILE, records.dump(table))
    for item in rebuilding.missing(workspace):
        item.mend()
    endpoint = endpoints.find(workspace, "iris")
    assert (endpoint.deployment_id, endpoint.revision, endpoint.running) == ("iris-d1", 41, True)
    kept = workspace.store.page(deployments.KIND, DeploymentRecord)
    assert {item.record.deployment_id: item.record.status for item in kept} == {
        "iris-d1": DeploymentStatus.RUNNING,
        "iris-d2": DeploymentStatus.STARTING,
    }
    # Nothing of it is up, so the next look takes the decision back.
    tick.tick(workspace)
    assert list(ledger.entries(workspace.repo))[-1].kind == "undeployed"


def test_two_models_of_the_same_bytes_are_told_apart_by_their_names(workspace):
    made = [trained(workspace, name, name, made=b"same") for name in ("old-name", "new-name")]
    before = [traces.trace(workspace, f"run/{version.run_id}") for version in made]
    assert [trace.model_version["model"] for trace in before] == ["old-name", "new-name"]
    opened = lost(workspace)
    rebuilding.repair(opened)
    assert [traces.trace(opened, f"run/{version.run_id}") for version in made] == before
    opened.close()


def test_models_of_a_loader_are_told_apart_by_their_code(workspace):
    made = [trained(workspace, text, made=b"same", loader="load:load") for text in ("one", "two")]
    assert [version.name for version in made] == ["iris:1", "iris:2"]
    before = [traces.trace(workspace, f"run/{version.run_id}") for version in made]
    opened = lost(workspace)
    rebuilding.repair(opened)
    assert [traces.trace(opened, f"run/{version.run_id}") for version in made] == before
    assert runs.get(opened, made[1].run_id).model_versions == ("iris:2",)
    opened.close()


# --- with all that is up ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    """Three versions, each deployed in turn and called."""
    top = tmp_path_factory.mktemp("rebuilding") / "flowers"
    top.mkdir()
    (top / "nbmlops.toml").write_text(
        "[project]\nname = 'flowers'\n[pipelines.train]\nsteps = [{notebook = 'train.ipynb'}]\n"
    )
    (top / "train.ipynb").write_text(notebook_text(("parameters", "strength = 1.0"), TRAIN))
    git(top, "init", "--quiet", "--initial-branch=main")
    git(top, "add", ".")
    git(top, "commit", "--quiet", "-m", "start")
    made = workspaces.open_at(top)
    calls = []
    for strength in ("1.0", "2.0", "3.0"):
        run = submission.submit(made, pipelines.find(made, "train"), {"strength": strength})
        for seen in runs.watch(made, run.run_id):
            run = seen
        assert run.status.value == "succeeded", run.cause
        deployments.deploy(made, run.model_versions[0])
        calls.append(called(made)["call_id"])
    made.close()
    yield top, calls
    made = workspaces.open_at(top)
    with contextlib.suppress(Exception):
        deployments.undeploy(made, "iris")
    made.close()


def called(workspace):
    record = models.schema(workspace, models.find(workspace, "iris:1")).example
    return json.loads(endpoints.call(workspace, "iris", json.dumps(record).encode()))


def typed(folder, *words, code=0):
    """Type a command and return its document."""
    result = subprocess.run(
        [sys.executable, "-m", "nbmlops", *words, "--json"],
        cwd=folder,
        capture_output=True,
        check=False,
    )
    assert result.returncode == code, (words, result.stdout[-3000:], result.stderr[-3000:])
    return json.loads(result.stdout)


def told(top, calls):
    """Return all that must be the same again."""
    deployed = typed(top, "deployments", "--every")["items"]
    versions = typed(top, "models")["items"]
    references = [
        *(f"call/{one}" for one in calls),
        *(f"deployment/{one['deployment_id']}" for one in deployed),
        *(f"model/iris:{one['version']}" for one in versions),
        *(f"run/{one['run_id']}" for one in versions),
    ]
    opened = workspaces.open_at(top)
    with contextlib.closing(opened):
        traced = {one: records.plain(traces.trace(opened, one)) for one in references}
    return {
        "models": versions,
        "deployments": deployed,
        "runs": typed(top, "runs")["items"],
        "model": typed(top, "model", "iris@best"),
        "endpoint": typed(top, "deployments")["items"],
        "trace": typed(top, "trace", references[0]),
        **traced,
    }


def delete_store(top):
    for path in (top / ".git" / "nbmlops").glob("store.sqlite*"):
        path.unlink()


def test_a_lost_store_is_made_again_with_the_same_answers(flowers):
    top, calls = flowers
    typed(top, "alias", "iris:2", "best")
    before = told(top, calls)
    assert [one["call"]["version"] for one in (before[f"call/{c}"] for c in calls)] == [1, 2, 3]
    assert all(before[name]["complete"] for name in before if "/" in name)
    delete_store(top)
    sick = typed(top, "doctor", code=1)
    assert {f["fix"] for f in sick["findings"]} == {"nbmlops doctor --repair"}
    well = typed(top, "doctor", "--repair")
    assert (well["findings"], set(well["invariants"].values())) == ([], {"ok"})
    assert len(well["repaired"]) == len(sick["findings"]) == 3 + 3 + 1 + 3
    assert typed(top, "doctor", "--repair")["repaired"] == []
    after = told(top, calls)
    for name, document in before.items():
        assert after[name] == document, name
    # What is up goes on: calls, another version at the same URL, the way back.
    opened = workspaces.open_at(top)
    assert called(opened)["version"] == 3
    url = endpoints.running(opened, "iris").url
    back = typed(top, "rollback", "iris")
    assert (back["version"], back["url"], back["rolled_back_from"]) == (2, url, 3)
    assert called(opened)["version"] == 2
    assert typed(top, "rollback", "iris")["version"] == 1
    refused = typed(top, "rollback", "iris", code=2)
    assert refused["error"]["code"] == "no-earlier-version"
    assert typed(top, "deploy", "iris@best")["version"] == 2
    assert typed(top, "rollback", "iris", "--to", "3")["version"] == 3
    before = list(ledger.entries(opened.repo))
    assert typed(top, "rollback", "iris", "--to", "3")["version"] == 3
    assert list(ledger.entries(opened.repo)) == before
    opened.close()


def test_no_call_fails_while_it_is_rolled_back(flowers):
    top, _ = flowers
    typed(top, "doctor", "--repair")
    typed(top, "deploy", "iris:1")
    url = typed(top, "deploy", "iris:2")["url"]
    record = models.schema(opened := workspaces.open_at(top), models.find(opened, "iris")).example
    opened.close()
    body = json.dumps(record).encode()
    command = subprocess.Popen(
        [sys.executable, "-m", "nbmlops", "rollback", "iris", "--json"],
        cwd=top,
        stdout=subprocess.PIPE,
    )
    seen = set()
    while command.poll() is None or 1 not in seen:
        request = urllib.request.Request(
            f"{url}/predict", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            seen.add(json.load(answer)["version"])
    assert command.wait() == 0
    command.stdout.close()
    assert seen == {1, 2}


def test_a_repair_that_is_killed_is_completed_by_the_next(flowers, pytestconfig):
    top, calls = flowers
    seed = pytestconfig.getoption("seed") or random.randrange(2**32)
    print(f"--seed {seed}")
    chance = random.Random(seed)
    typed(top, "doctor", "--repair")
    typed(top, "deploy", "iris:3")
    typed(top, "alias", "iris:2", "best")
    before = told(top, calls)
    killed = 0
    for number in range(4):
        if number % 2 == 0:
            delete_store(top)
        process = subprocess.Popen(
            [sys.executable, "-m", "nbmlops", "doctor", "--repair"],
            cwd=top,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(chance.uniform(0.2, 1.6))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        if number % 2:
            assert typed(top, "doctor", "--repair")["findings"] == []
            after = told(top, calls)
            for name, document in before.items():
                assert after[name] == document, (name, seed)
    assert killed


STAGES = ["_versions", "_runs", "_endpoints", "_deployments", "_snapshots", "_unowned"]


class Killed(BaseException):
    """Ends a command as a kill would: no handler of ours runs."""


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("after", [0, 1])
def test_a_repair_that_ends_at_any_stage_is_completed(decided, monkeypatch, stage, after):
    before = plain(models.versions(decided)), plain(deployments.listed(decided, every=True))
    opened = lost(decided)
    original = getattr(rebuilding, stage)

    def killed(*arguments):
        for number, item in enumerate(original(*arguments)):
            if number == after:
                raise Killed
            yield item
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(rebuilding, stage, killed)
        with pytest.raises(Killed):
            rebuilding.repair(opened)
    tick.tick(opened)
    rebuilding.repair(opened)
    assert health.check(opened).findings == ()
    assert before == (
        plain(models.versions(opened)),
        plain(deployments.listed(opened, every=True)),
    )
    assert [e.kind for e in ledger.entries(opened.repo)].count("undeployed") == 1
    opened.close()


def test_what_runs_without_an_owner_is_ended_and_an_endpoint_keeps_its_url(flowers):
    top, calls = flowers
    typed(top, "doctor", "--repair")
    up = typed(top, "deploy", "iris:3")
    # The decision is lost with the store: nobody wants what is up.
    opened = workspaces.open_at(top)
    head = ledger.head(opened.repo)
    delete_store(top)
    git(top, "update-ref", "-d", layout.LEDGER_REF)
    sick = typed(top, "doctor", code=1)
    assert {(f["code"], f["fix"]) for f in sick["findings"]} == {
        ("job-orphaned", "nbmlops doctor --repair")
    }
    assert len(sick["findings"]) == 2
    well = typed(top, "doctor", "--repair")
    assert [f["code"] for f in well["repaired"]] == ["job-orphaned"] * 2
    assert opened.launcher("local").jobs() == []
    git(top, "update-ref", layout.LEDGER_REF, head)
    sick = typed(top, "doctor", "--repair", code=1)
    assert [f["code"] for f in sick["findings"]] == ["deployment-down"]
    again = typed(top, "deploy", "iris:3")
    assert (again["url"], again["ready"]) == (up["url"], 1)
    assert typed(top, "trace", f"call/{calls[0]}")["complete"] is True
    assert calllog.verify(opened.home.calls, again["deployment_id"]).problems == ()
    assert typed(top, "undeploy", "iris")["status"] == "stopped"
    delete_store(top)
    assert typed(top, "doctor", "--repair")["findings"] == []
    assert typed(top, "deploy", "iris")["url"] == up["url"]
    assert typed(top, "undeploy", "iris")["status"] == "stopped"
    assert typed(top, "doctor")["findings"] == []
    opened.close()
