"""What no decision names may go; what one names stays whole, whatever is killed when."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from nbmlops import (
    calllog,
    calls,
    cleaning,
    comparisons,
    deployments,
    health,
    layout,
    models,
    rebuilding,
    records,
    runs,
    shipping,
    snapshot,
    submission,
    traces,
)
from nbmlops import workspace as workspaces
from nbmlops.calllog import CallLog
from nbmlops.commands import Context, running
from nbmlops.errors import RunFreed, UnknownCall, WrongUse
from nbmlops.project import CallSettings
from nbmlops.records import DeploymentRecord, DeploymentStatus, Prediction, Status
from registered import deployed
from sources import notebook_text
from teams import ran, trained
from test_calllog import DEPLOYMENT, HOUR_MS, ROUTE, START_MS, Clock

TRAIN = """
import nbmlops as mlops
import pandas as pd
from sklearn.linear_model import LinearRegression
table = pd.DataFrame({"x": [size * n for n in range(30)]})
target = [2.0 * n + n % 3 for n in range(30)]
print("fitting")
mlops.log_model(LinearRegression().fit(table, target), name="lines", train=(table, target))
"""


def later(workspace, days):
    """Let so many days go by for this project."""
    real = records.utc_now
    workspace.now = lambda: real() + timedelta(days=days)


def everything(workspace):
    """Return all files of home with their bytes' sizes, without locks, and all refs."""
    home = workspace.home.root
    files = {
        str(path.relative_to(home)): path.stat().st_size
        for path in home.rglob("*")
        if path.is_file() and path.parts[len(home.parts)] not in ("locks", "store.sqlite-wal")
        and "store.sqlite" not in path.name
    }  # fmt: skip
    return files, workspace.repo.text("for-each-ref")


def told(report, kind):
    return [item.name for item in report.freed if item.kind == kind]


@pytest.fixture
def grown(workspace):
    """A project with three old runs, two versions of which one serves, and a young run."""
    old = [ran(workspace, f"old {number}") for number in range(3)]
    versions = [trained(workspace, f"version {number}") for number in range(2)]
    models.set_alias(workspace, "iris:1", "best")
    deployed(workspace, versions[0], "iris-d1")
    deployed(workspace, versions[0], "iris-d1", "undeployed")
    rebuilding.repair(workspace)
    later(workspace, 99)
    young = ran(workspace, "young")
    later(workspace, 100)
    workspace.old, workspace.young, workspace.made = old, young, versions
    return workspace


def test_what_decisions_name_stays_and_old_runs_go(grown):
    before = [traces.trace(grown, f"model/iris:{number}") for number in (1, 2)]
    assert all(trace.complete for trace in before)
    report = cleaning.clean(grown)
    assert sorted(told(report, "run")) == sorted(run.run_id for run in grown.old)
    assert sorted(told(report, "snapshot")) == sorted(run.snapshot for run in grown.old)
    assert set(told(report, "job")) == {run.run_id for run in grown.old}
    own = {
        artifact.digest
        for run in grown.old
        for artifact in run.artifacts
        if artifact.name not in ("shared.txt", "environment.json")
    }
    assert own <= set(told(report, "artifact"))
    assert report.bytes == sum(item.bytes for item in report.freed) > 0
    assert report.kept["runs: made a version"] == 2
    assert report.kept["runs: younger"] == 1
    for run in grown.old:
        assert not any(grown.artifacts.has(digest) for digest in own)
        assert not grown.home.job(run.run_id).root.exists()
        assert not snapshot.is_held(grown.repo, run.snapshot, run.commit)
    # The young run has these very bytes too.
    shared = next(item for item in grown.young.artifacts if item.name == "shared.txt")
    assert grown.artifacts.has(shared.digest)
    assert [traces.trace(grown, f"model/iris:{number}") for number in (1, 2)] == before
    assert traces.trace(grown, f"run/{grown.young.run_id}").complete
    assert health.check(grown).findings == ()
    again = cleaning.clean(grown)
    assert again.freed == ()


def test_a_dry_run_changes_nothing_and_lists_the_same(grown):
    before = everything(grown)
    would = cleaning.clean(grown, dry_run=True)
    assert everything(grown) == before
    assert would.dry_run
    did = cleaning.clean(grown)
    assert records.replace(would, dry_run=False) == did
    assert did.freed


def test_what_is_left_of_a_freed_run_is_its_record(grown, tmp_path):
    cleaning.clean(grown)
    run_id = grown.old[0].run_id
    record = runs.get(grown, run_id)
    assert record.freed_at == record.freed_at.replace(tzinfo=record.freed_at.tzinfo)
    assert record.metrics == {"accuracy": 0.5}
    assert run_id in {run.run_id for run in runs.page(grown, limit=50)[0]}
    for refused in (
        lambda: list(runs.logs(grown, run_id)),
        lambda: runs.save(grown, record, tmp_path / "out"),
        lambda: runs.artifact(grown, run_id, "log.txt"),
        lambda: submission.rerun(grown, run_id),
    ):
        with pytest.raises(RunFreed, match="was freed on") as caught:
            refused()
        assert "nbmlops train" in caught.value.hint
    trace = traces.trace(grown, f"run/{run_id}")
    assert trace.missing
    assert not trace.complete
    compared = comparisons.compare(grown, (run_id, grown.young.run_id))
    assert len(compared.runs) == 2


def test_nothing_goes_of_what_is_unfinished_or_young(workspace):
    going_on = ran(workspace, "going on", status=Status.CANCELLED)
    workspace.store.swap(
        runs.KIND, going_on.run_id,
        records.replace(going_on, status=Status.PENDING, finished_at=None, handle=None),
        expected=1, key="again", status="pending",
    )  # fmt: skip
    young = ran(workspace, "young")
    before = everything(workspace)
    assert cleaning.clean(workspace).freed == ()
    assert everything(workspace) == before
    later(workspace, 100)
    assert told(cleaning.clean(workspace), "run") == [young.run_id]
    assert workspace.artifacts.has(going_on.artifacts[0].digest)
    assert snapshot.is_held(workspace.repo, going_on.snapshot, going_on.commit)


@pytest.mark.parametrize("keep", ["", "soon", "-1d", "90", "1e9d", "90 d"])
def test_what_is_no_length_of_time_is_refused(workspace, keep):
    with pytest.raises(WrongUse, match="no length of time"):
        cleaning.clean(workspace, keep=keep)


def test_with_no_time_at_all_what_has_ended_goes_at_once(workspace):
    run = ran(workspace, "just now")
    kept = trained(workspace, "a version")
    report = cleaning.clean(workspace, keep="0d")
    assert told(report, "run") == [run.run_id]
    assert not workspace.artifacts.has(run.artifacts[0].digest)
    assert traces.trace(workspace, kept.name and f"model/{kept.name}").complete


def test_bytes_that_nothing_names_go_only_after_a_day(workspace):
    orphan = workspace.artifacts.put(b"of a write that was killed")
    left = workspace.home.artifacts / ".incoming-1-00000000"
    left.write_bytes(b"half")
    report = cleaning.clean(workspace, keep="0d")
    assert report.freed == ()
    assert workspace.artifacts.has(orphan)
    later(workspace, 1.01)
    report = cleaning.clean(workspace, keep="0d")
    assert {(item.kind, item.name) for item in report.freed} == {
        ("artifact", orphan),
        ("partial", left.name),
    }
    assert not left.exists()


def test_what_is_kept_again_is_young_again(workspace):
    digest = workspace.artifacts.put(b"twice")
    path = workspace.home.artifacts / digest[:2] / digest[2:]
    os.utime(path, (0, 0))
    assert workspace.artifacts.put(b"twice") == digest
    assert cleaning.clean(workspace, keep="0d").freed == ()


def test_in_a_place_that_others_share_nothing_goes_unless_asked(workspace, tmp_path):
    environ = {**os.environ, "NBMLOPS_ARTIFACTS_URL": f"file://{tmp_path}/shared"}
    opened = workspaces.open_at(workspace.root, environ=environ)
    run = ran(opened, "old")
    later(opened, 100)
    report = cleaning.clean(opened)
    assert told(report, "run") == [run.run_id]
    assert told(report, "artifact") == []
    assert report.kept["artifacts: in a place that others may share"] > 0
    assert opened.artifacts.has(run.artifacts[0].digest)
    report = cleaning.clean(opened, shared=True)
    assert run.artifacts[0].digest in told(report, "artifact")
    opened.close()


def test_a_run_that_got_a_version_meanwhile_stays(grown, monkeypatch):
    """Names are looked at again just before anything goes."""
    run = grown.old[0]
    planned = cleaning._Cleaning.stages

    def then(self):
        stages = planned(self)
        version = records.replace(
            grown.made[0], version=3, digest="9" * 64, run_id=run.run_id, snapshot=run.snapshot,
            commit=run.commit, run_digest=run.artifacts[0].digest,
        )  # fmt: skip
        from nbmlops import decisions

        decisions.decide(grown, "version", lambda _: records.plain(version))
        return stages

    monkeypatch.setattr(cleaning._Cleaning, "stages", then)
    report = cleaning.clean(grown)
    assert run.run_id not in told(report, "run") + told(report, "job")
    assert run.snapshot not in told(report, "snapshot")
    assert all(grown.artifacts.has(artifact.digest) for artifact in run.artifacts)


def test_jobs_of_services_that_have_ended_go(workspace):
    version = trained(workspace, "served")
    for name, status in (("iris-up", "running"), ("iris-down", "stopped")):
        record = DeploymentRecord(
            endpoint="iris", url="http://127.0.0.1:9", deployment_id=name, model="iris", version=1,
            commit=version.commit, launcher="local", author="Ada", created_at=workspace.now(),
            status=DeploymentStatus(status),
            stopped_at=workspace.now() if status == "stopped" else None,
        )  # fmt: skip
        workspace.store.swap(
            deployments.KIND, name, record, expected=0, key=name, status=record.status.value
        )
        workspace.home.job(name).inbox.mkdir(parents=True)
        (workspace.home.job(name).inbox / "model.skops").write_bytes(b"x" * 1000)
    later(workspace, 100)
    report = cleaning.clean(workspace)
    assert [(item.kind, item.name, item.bytes) for item in report.freed] == [
        ("job", "iris-down", 1000)
    ]
    assert workspace.home.job("iris-up").root.exists()


def test_environments_that_nothing_has_any_more_go(workspace, tmp_path):
    opened = workspaces.open_at(
        workspace.root, environ={**os.environ, "NBMLOPS_CACHE": str(tmp_path / "cache")}
    )
    for name in ("e-old", "e-kept", "e-of-others", "e-in-use"):
        (opened.cache / "environments" / name).mkdir(parents=True)
        (opened.cache / "environments" / name / "file").write_bytes(b"x" * 10)
    ran(opened, "one", environment_id="e-old")
    ran(opened, "two", environment_id="e-in-use")
    ran(opened, "three", environment_id="e-kept")
    later(opened, 99)
    ran(opened, "four", environment_id="e-kept")
    later(opened, 100)
    path = opened.cache / "environments" / "e-in-use" / "program"
    program = subprocess.Popen([sys.executable, "-c", "input()", str(path)], stdin=subprocess.PIPE)
    report = cleaning.clean(opened)
    assert told(report, "environment") == ["e-old"]
    assert not (opened.cache / "environments" / "e-old").exists()
    program.communicate(b"\n")
    assert told(cleaning.clean(opened), "environment") == ["e-in-use"]
    opened.close()


def hours_of_calls(workspace, hours):
    """Log two calls in each hour from midnight of a day on, and seal and ship their segments."""
    clock = Clock()
    log = CallLog(workspace.home.calls, "cancer", now_ms=clock)
    made = []
    for _ in range(2 * hours):
        made.append(log.write(ROUTE, [{"x": 1.0}], (Prediction(value=1.0),), latency_ms=1.0))
        clock.now_ms += HOUR_MS // 2
    log.close()
    shipping.ship(workspace)
    return made


def test_calls_go_only_as_the_project_says(workspace):
    made = hours_of_calls(workspace, 4)
    segments = {
        f"{DEPLOYMENT}/{path.name}": path.stat().st_size
        for path in sorted((workspace.home.calls / DEPLOYMENT).glob("*.jsonl"))
    }
    shipped = {path.name: one.digest for path, one in shipping.shipments(workspace.home.calls)}
    assert len(segments) == len(shipped) == 4
    later(workspace, 10_000)
    assert cleaning.clean(workspace).freed == ()  # kept for ever
    assert list(calls.window(workspace, DEPLOYMENT)) == made
    # The first two hours have been over for a day, the others not yet.
    now = datetime.fromtimestamp((START_MS + 26.5 * HOUR_MS) / 1000, UTC)
    workspace.now = lambda: now
    workspace.settings = records.replace(workspace.settings, calls=CallSettings(keep="1d"))
    old = list(segments)[:2]
    before = everything(workspace)
    would = cleaning.clean(workspace, dry_run=True)
    assert everything(workspace) == before
    report = cleaning.clean(workspace)
    assert records.replace(would, dry_run=False) == report
    freed = {item.name: item for item in report.freed if item.kind == "calls"}
    assert {name: item.bytes for name, item in freed.items()} == {n: segments[n] for n in old}
    assert all("older than 1d" in item.why for item in freed.values())
    gone = {shipped[name.partition("/")[2]] for name in old}
    assert {item.name for item in report.freed if item.kind == "artifact"} == gone
    assert not any(workspace.artifacts.has(digest) for digest in gone)
    assert list(calls.window(workspace, DEPLOYMENT)) == made[4:]
    with pytest.raises(UnknownCall):
        calls.find(workspace, made[0].call_id)
    found = calllog.verify(workspace.home.calls, DEPLOYMENT)
    assert (found.problems, found.answered, found.records, found.expired) == ((), 8, 4, 4)
    assert cleaning.clean(workspace).freed == ()


def test_calls_of_a_log_that_was_changed_stay_to_be_told(workspace):
    hours_of_calls(workspace, 2)
    first = min((workspace.home.calls / DEPLOYMENT).glob("*.jsonl"))
    first.chmod(0o600)
    first.write_bytes(b"nonsense\n" + first.read_bytes().partition(b"\n")[2] + b"nonsense\n")
    first.chmod(0o400)
    workspace.settings = records.replace(workspace.settings, calls=CallSettings(keep="1d"))
    later(workspace, 10_000)
    assert told(cleaning.clean(workspace), "calls") == []
    assert first.exists()
    assert calllog.verify(workspace.home.calls, DEPLOYMENT).problems


def test_second_copies_of_runs_that_stay_go_and_only_where_there_is_a_first(workspace):
    version = trained(workspace, "a version")
    run = runs.get(workspace, version.run_id)
    digest = version.files["model"].digest
    files = workspace.home.job(run.run_id).outbox / "a1" / "files"
    files.mkdir(parents=True)
    (files / digest).write_bytes(workspace.artifacts.get(digest))
    (files / ("0" * 64)).write_bytes(b"nowhere else")
    (files.parent / "result.json").write_bytes(b"{}")
    later(workspace, 89)
    assert cleaning.clean(workspace).freed == ()
    later(workspace, 91)
    report = cleaning.clean(workspace)
    assert [(item.kind, item.name, item.bytes) for item in report.freed] == [
        ("job", f"{run.run_id}/outbox", version.files["model"].bytes)
    ]
    assert [path.name for path in files.iterdir()] == ["0" * 64]
    assert (files.parent / "result.json").exists()
    assert workspace.artifacts.has(digest)
    assert cleaning.clean(workspace).freed == ()
    assert health.check(workspace).findings == ()


@pytest.mark.slow
def test_a_run_whose_second_copies_went_is_read_traced_saved_and_run_again(workspace, tmp_path):
    (workspace.root / "train.ipynb").write_text(notebook_text(("parameters", "size = 1.0"), TRAIN))
    context = Context(workspace.root)
    run = running.train(context)
    assert run.model_versions == ("lines:1",)
    outbox = workspace.home.job(run.run_id).outbox
    before = traces.trace(workspace, "model/lines:1")
    said = list(runs.logs(workspace, run.run_id))
    report = cleaning.clean(workspace, keep="0d")
    assert told(report, "job") == [f"{run.run_id}/outbox"]
    assert list(outbox.glob("a1/files/*")) == []
    assert traces.trace(workspace, "model/lines:1") == before
    assert before.complete
    assert list(runs.logs(workspace, run.run_id)) == said != []
    runs.save(workspace, run, tmp_path / "saved")
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {
        Path(artifact.name).parts[0] for artifact in run.artifacts
    }
    # The same once more takes its steps over; and by its number, it is run anew.
    assert running.train(context).run_id == run.run_id
    again = running.rerun(context, run.run_id)
    assert again.status is Status.SUCCEEDED
    assert again.run_id != run.run_id
    assert health.check(workspace).findings == ()
    context.close()


def test_sockets_on_which_nobody_listens_go(workspace, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = layout.socket_dir()
    live, dead = folder / "live.sock", folder / "dead.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(live))
        listening.listen()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(dead))
        later(workspace, 2)
        assert told(cleaning.clean(workspace), "socket") == ["dead.sock"]
        assert live.exists()


@pytest.mark.slow
def test_the_same_once_more_runs_anew_when_its_files_are_gone(workspace):
    context = Context(workspace.root)
    first = running.train(context)
    assert running.train(context).run_id == first.run_id
    report = cleaning.clean(workspace, keep="0d")
    assert first.run_id in told(report, "run")
    again = running.train(context)
    assert again.run_id != first.run_id
    assert again.status is Status.SUCCEEDED
    assert [step.cached for step in again.steps] == [False]
    assert health.check(workspace).findings == ()
    context.close()


BESIDE = """
import sys, time
from pathlib import Path
from nbmlops import cleaning, workspace
opened = workspace.open_at(Path(sys.argv[1]))
freed = 0
while not Path(sys.argv[2]).exists():
    freed += len(cleaning.clean(opened, keep="0d").freed)
print(freed)
"""


@pytest.mark.slow
def test_beside_submissions_nothing_goes_that_a_run_names(workspace, tmp_path):
    context = Context(workspace.root)
    over = tmp_path / "over"
    beside = subprocess.Popen(
        [sys.executable, "-c", BESIDE, str(workspace.root), str(over)],
        cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        for number in range(8):
            # The same contents come back: cached where they are still there, else run anew.
            run = running.train(context, param=(f"depth={number % 2}",))
            assert run.status is Status.SUCCEEDED
            record = runs.get(workspace, run.run_id)
            gone = [a.name for a in record.artifacts if not workspace.artifacts.has(a.digest)]
            assert not gone or runs.get(workspace, run.run_id).freed_at is not None
    finally:
        over.touch()
        out, _ = beside.communicate(timeout=60)
    assert int(out) > 0
    assert health.check(workspace).findings == ()
    context.close()


KILLED = """
import sys
from datetime import timedelta
from nbmlops import cleaning, records, workspace
opened = workspace.open_at(__import__("pathlib").Path(sys.argv[1]))
opened.now = lambda: records.utc_now() + timedelta(days=100)
print("begun", flush=True)
cleaning.clean(opened)
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_gc_that_is_killed_leaves_nothing_half_and_is_completed(workspace, request):
    seed = request.config.getoption("--seed")
    seed = random.randrange(10**9) if seed is None else seed
    rounds = request.config.getoption("--kills") or 12
    print(f"seed {seed}, {rounds} kills")
    chance = random.Random(seed)
    versions = [trained(workspace, f"version {number}") for number in range(2)]
    before = [traces.trace(workspace, f"model/{version.name}") for version in versions]
    real = workspace.now
    midway = 0
    span_s = 0.0
    for turn in range(rounds):
        old = [ran(workspace, f"{turn} {number}") for number in range(4)]
        killed = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(workspace.root)],
            cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert killed.stdout.readline() == "begun\n"
        began = time.monotonic()
        if turn == 0:  # the first one goes through, and tells how long that takes here
            killed.wait(timeout=60)
            span_s = time.monotonic() - began
        else:
            time.sleep(chance.random() * span_s)
            os.kill(killed.pid, signal.SIGKILL)
        killed.communicate()
        assert health.check(workspace).findings == ()
        marked = [runs.get(workspace, run.run_id).freed_at is not None for run in old]
        midway += any(marked) and old[-1].snapshot in snapshot.held(workspace.repo)
        for run in old:
            record = runs.get(workspace, run.run_id)
            if record.freed_at is None:
                assert all(workspace.artifacts.has(item.digest) for item in record.artifacts)
        later(workspace, 100)
        cleaning.clean(workspace)
        workspace.now = real
        assert health.check(workspace).findings == ()
        for run in old:
            assert runs.get(workspace, run.run_id).freed_at is not None
            assert not workspace.artifacts.has(run.artifacts[0].digest)
            assert run.snapshot not in snapshot.held(workspace.repo)
            assert not workspace.home.job(run.run_id).root.exists()
        assert not list(workspace.home.scratch.glob("gc-*"))
    print(f"{midway} of {rounds} were killed midway")
    assert [traces.trace(workspace, f"model/{version.name}") for version in versions] == before
