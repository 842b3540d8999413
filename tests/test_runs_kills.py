"""Whole runs that are killed: between any two steps, and at any moment.

`--kills 1000` (or NBMLOPS_TEST_KILLS) is the full number, `--seed` repeats a loop by its seed.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from nbmlops import (
    datasets,
    environment,
    health,
    layout,
    ledger,
    models,
    pipelines,
    records,
    runs,
    snapshot,
    stepcache,
    submission,
    sweeps,
    tick,
)
from nbmlops import workspace as workspaces
from nbmlops.artifacts import Artifacts
from nbmlops.launchers.local import LocalLauncher
from nbmlops.records import Status
from nbmlops.store import Store
from sources import SETTINGS, git, notebook_text
from test_snapshot import users_state

pytestmark = pytest.mark.slow

SHARE = 8
FULL = 1000


# --- named failpoints ---------------------------------------------------------------------------


def _kind(kind):
    return lambda arguments: arguments[1] == kind


def _file(name):
    return lambda arguments: arguments[0].name == name


def _of_launcher(arguments):
    return arguments[0].parent.parent.parent.name == "local"


# A step by its name: whose function it is, and which of its calls. What `submit` does, in order:
SUBMIT = {
    "snapshot": (snapshot, "take", None),
    "rules": (submission, "enforce", None),
    "ref": (snapshot, "hold", None),
    "data": (datasets, "gather", None),
    "environment": (environment, "ensure", None),
    "pointer": (Store, "swap", _kind("request")),
    "spec": (layout, "write_file", _file(layout.SPEC_FILE)),
    "job": (layout, "write_file", _file(layout.JOB_FILE)),
    "source": (snapshot, "export", None),
    "inbox": (Artifacts, "copy_to", None),
    "record": (Store, "swap", _kind("run")),
    "attempt": (layout, "write_file", _of_launcher),
    "launch": (LocalLauncher, "launch", None),
}
AGAIN = ("spec", "job", "source", "record", "launch")
CACHED = {
    **{name: SUBMIT[name] for name in ("snapshot", "ref", "pointer", "spec", "job")},
    "bytes": (Artifacts, "put", None),
    "end": (Store, "swap", _kind("run")),
}
# What `collect` does, in order.
COLLECT = {
    "files": (Artifacts, "put_file", None),
    "log": (Artifacts, "put", None),
    "cache": (Store, "swap", _kind("step")),
    "cached": (stepcache, "keep", None),
    "entry": (ledger, "appended", None),
    "moved": (ledger, "move", None),
    "numbered": (ledger, "append", None),
    "version": (Store, "swap", _kind("version")),
    "registered": (models, "register", None),
    "end": (Store, "swap", _kind("run")),
}


def killed(act, point, *, after=True):
    """Do something in a process of its own that dies by SIGKILL at a point; return whether."""
    owner, name, wanted = point
    pid = os.fork()
    if pid == 0:
        try:
            original = getattr(owner, name)

            def replaced(*arguments, **options):
                mine = wanted is None or wanted(arguments)
                if mine and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
                answer = original(*arguments, **options)
                if mine:
                    os.kill(os.getpid(), signal.SIGKILL)
                return answer

            setattr(owner, name, replaced)
            act()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


@contextlib.contextmanager
def opened(folder):
    workspace = workspaces.open_at(folder)
    try:
        yield workspace
    finally:
        workspace.close()


def submit(folder, **given):
    with opened(folder) as workspace:
        return submission.submit(workspace, pipelines.find(workspace, "train"), given)


def finish(folder, run_id, patience_s=90):
    deadline = time.monotonic() + patience_s
    with opened(folder) as workspace:
        for seen in runs.watch(workspace, run_id, every_s=0.05):
            assert time.monotonic() < deadline, seen
        return seen


def every_run(folder):
    with opened(folder) as workspace:
        return [kept.record for kept in workspace.store.page(runs.KIND, runs.RunRecord, limit=1000)]


def look(folder, state):
    """Hold what a kill has left against the invariants, as the next command finds it."""
    with opened(folder) as workspace:
        tick.tick(workspace)
        report = health.check(workspace)
        assert report.findings == (), report.findings
    assert users_state(folder) == state
    left = [path.name for path in (folder / ".git").rglob("*.lock") if "nbmlops" in str(path)]
    assert set(left) <= {"store.lock"}


@pytest.fixture
def project(folder):
    """A project with data, edits that are not committed, and a notebook that needs a flag."""
    (folder / "data").mkdir()
    (folder / "data" / "raw.csv").write_text("a\n1\n")
    with (folder / "nbmlops.toml").open("a") as file:
        file.write('\n[data]\nraw = "data/raw.csv"\n')
    flag = folder.parent / "flag"
    (folder / "train.ipynb").write_text(
        notebook_text(
            ("parameters", "depth: int = 3"),
            f"import pathlib, nbmlops\nassert pathlib.Path({str(flag)!r}).exists()\n"
            "nbmlops.log_metrics(accuracy=depth)",
        )
    )
    (folder / "README.md").write_text("not committed\n")
    flag.write_text("")
    return folder


def test_a_submission_that_is_killed_after_any_step_is_completed_by_the_same_command(project):
    state = users_state(project)
    under_way = []
    points = [("snapshot", False), *((name, True) for name in SUBMIT)]
    for depth, (name, after) in enumerate(points, 1):
        died = killed(lambda d=depth: submit(project, depth=d), SUBMIT[name], after=after)
        assert died, f"nothing was killed at {name}"
        look(project, state)
        run = submit(project, depth=depth)
        assert submit(project, depth=depth).run_id == run.run_id, name
        under_way.append((name, depth, run.run_id))
        if len(under_way) % 3 == 0:  # not all at once: this is a small machine
            for _, _, earlier in under_way[-3:]:
                finish(project, earlier)
    for name, depth, run_id in under_way:
        done = finish(project, run_id)
        assert done.status is Status.SUCCEEDED, (name, done.cause)
        assert done.metrics == {"accuracy": float(depth)}, name
    found = every_run(project)
    assert sorted(run.parameters["depth"] for run in found) == list(range(1, len(points) + 1))
    look(project, state)


def test_a_new_attempt_that_is_killed_after_any_step_stays_one_run(project):
    flag = project.parent / "flag"
    flag.unlink()
    first = finish(project, submit(project).run_id)
    assert first.status is Status.FAILED
    flag.write_text("")
    state = users_state(project)
    for name in AGAIN:
        assert killed(lambda: submit(project), SUBMIT[name]) or name == "launch", name
        look(project, state)
        assert [run.run_id for run in every_run(project)] == [first.run_id], name
    done = finish(project, submit(project).run_id)
    assert (done.run_id, done.status, done.attempts) == (first.run_id, Status.SUCCEEDED, 2)
    assert len(done.earlier) == 1
    look(project, state)


def test_a_run_whose_steps_were_all_cached_is_there_once_whenever_it_is_killed(project):
    first = finish(project, submit(project).run_id)
    for number, name in enumerate(CACHED):
        (project / "README.md").write_text(f"a document, version {number}\n")
        state = users_state(project)
        assert killed(lambda: submit(project), CACHED[name]), name
        look(project, state)
        done = submit(project)
        assert done.status is Status.SUCCEEDED, name
        assert [step.cached_from for step in done.steps] == [first.run_id], name
        assert submit(project).run_id == done.run_id, name
    found = every_run(project)
    assert len(found) == len({run.commit for run in found}) == len(CACHED) + 1
    look(project, state)


MODEL = """
import nbmlops as mlops
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
found = load_iris(as_frame=True)
model = LogisticRegression(C=strength, max_iter=500).fit(found.data, found.target)
mlops.log_model(model, name="iris", train=(found.data, found.target))
mlops.log_metrics(accuracy=1)
"""


def test_a_collection_that_is_killed_after_any_step_is_done_once(folder):
    (folder / "train.ipynb").write_text(notebook_text(("parameters", "strength = 1.0"), MODEL))
    run = submit(folder)
    state = users_state(folder)
    with opened(folder) as workspace:
        deadline = time.monotonic() + 90
        launcher = workspace.launcher("local")
        while not launcher.poll([run.handle])[run.handle].status.is_final:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def collect():
        with opened(folder) as workspace:
            runs.get(workspace, run.run_id)

    for name in ("files", *COLLECT):
        died = killed(collect, COLLECT[name], after=name != "files")
        assert died, name
        (stands,) = every_run(folder)
        assert stands.status.is_final == (name == "end"), name
    done = finish(folder, run.run_id)
    assert done.status is Status.SUCCEEDED, done.cause
    assert done.model_versions == ("iris:1",)
    with opened(folder) as workspace:
        assert [version.name for version in models.versions(workspace)] == ["iris:1"]
        assert [entry.sequence for entry in ledger.entries(workspace.repo)] == [1]
        (kept,) = workspace.store.page("step", records.CachedStep)
        assert kept.record.run_id == run.run_id
    look(folder, state)


def test_a_sweep_whose_process_is_killed_after_any_step_runs_each_trial_once(project, monkeypatch):
    monkeypatch.setattr(sweeps, "_drive", lambda *_: None)  # nobody but us goes on with it
    state = users_state(project)
    with opened(project) as workspace:
        pipeline = pipelines.find(workspace, "train")
        record = sweeps.submit(workspace, pipeline, {"depth": "1,2,3"}, parallel=3)

    def advance():
        with opened(project) as workspace:
            while not sweeps.advance(workspace, record.sweep_id).status.is_final:
                time.sleep(0.05)

    steps = {
        "trials": (Store, "swap", _kind("sweep")),
        **{name: SUBMIT[name] for name in ("pointer", "spec", "job", "record", "attempt")},
        "launch": SUBMIT["launch"],
        "end": COLLECT["end"],
    }
    for name, point in steps.items():
        for after in (False, True):
            assert killed(advance, point, after=after) or name in ("pointer", "attempt", "job"), (
                name,
                after,
            )
    with opened(project) as workspace:
        done = sweeps.drive(workspace, record.sweep_id)
    assert done.status is Status.SUCCEEDED, done.cause
    assert [(t.status, t.value) for t in done.trials] == [
        (Status.SUCCEEDED, float(depth)) for depth in (1, 2, 3)
    ]
    found = every_run(project)
    assert {run.run_id for run in found} == {trial.run_id for trial in done.trials}
    assert sorted(run.trial for run in found) == [1, 2, 3]
    look(project, state)


def test_a_job_whose_launcher_is_killed_while_it_starts_is_never_started_twice(project):
    """The lock of a launch is held until the job's parent has its pid written down."""

    class Slow(subprocess.Popen):
        def __init__(self, *words, **options):
            super().__init__(*words, **options)
            os.kill(os.getpid(), signal.SIGKILL)  # the parent is on its way, and nobody waits

    for depth in range(1, 4):
        pid = os.fork()
        if pid == 0:
            try:
                original = LocalLauncher._start

                def start(*arguments, original=original):
                    subprocess.Popen = Slow
                    original(*arguments)

                LocalLauncher._start = start
                submit(project, depth=depth)
            finally:
                os._exit(0)
        assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        run = submit(project, depth=depth)
        done = finish(project, run.run_id)
        assert done.status is Status.SUCCEEDED, done.cause
        with opened(project) as workspace:
            attempts = workspace.home.local_jobs / run.handle.name
        assert [path.name for path in attempts.glob("a*")] == ["a1"], "one parent, not two"


# --- at any moment ------------------------------------------------------------------------------


class Victims:
    """The processes of the newest run of a project, by what they are."""

    def __init__(self, folder, command):
        self._home = folder / ".git" / "nbmlops"
        self._command = command

    def pid(self, what):
        if what == "cli":
            return self._command.pid
        jobs = sorted((self._home / "local").glob("*/a*/pid.json"), key=os.path.getmtime)
        if not jobs:
            return None
        with contextlib.suppress(psutil.Error, OSError, ValueError):
            told = json.loads(jobs[-1].read_bytes())
            parent = psutil.Process(told["pid"])
            if what == "parent":
                return parent.pid
            if what == "runner":
                return told["child"]
            for child in psutil.Process(told["child"]).children():
                if "ipykernel_launcher" in " ".join(child.cmdline()):
                    return child.pid
        return None


def small_project(top):
    top.mkdir()
    (top / "nbmlops.toml").write_text(SETTINGS)
    (top / "train.ipynb").write_text(
        notebook_text(
            ("parameters", "depth: int = 3"),
            "import nbmlops, time\nnbmlops.log_metrics(accuracy=depth)",
            "time.sleep(0.3)\nprint('done', depth)",
        )
    )
    git(top, "init", "--quiet", "--initial-branch=main")
    git(top, "add", ".")
    git(top, "commit", "--quiet", "-m", "start")
    (top / "README.md").write_text("not committed\n")
    return top


def kill_once(folder, depth, chance):
    """Type a command, kill something of it at a moment, type it again until it is done."""
    command = subprocess.Popen(
        [sys.executable, "-m", "nbmlops", "train", "-p", f"depth={depth}"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    what = chance.choice(("cli", "cli", "parent", "runner", "kernel"))
    time.sleep(chance.random() * (1.6 if what == "cli" else 2.4))  # the point of the kill
    pid = Victims(folder, command).pid(what)
    hit = pid is not None and command.poll() is None
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            if what == "cli":
                os.killpg(pid, signal.SIGKILL)
            else:
                os.kill(pid, signal.SIGKILL)
    command.wait(60)
    mended = 0
    while True:
        done = finish(folder, submit(folder, depth=depth).run_id, patience_s=60)
        if done.status is Status.SUCCEEDED:
            break
        assert done.cause is not None, (what, done)
        mended += 1
        assert mended < 3, (what, done.cause)
    assert done.metrics == {"accuracy": float(depth)}, what
    assert len(done.earlier) <= 1, (what, done.earlier)
    return hit


@pytest.mark.timeout(14400)
def test_whatever_is_killed_at_any_moment_the_same_command_ends_with_one_run(tmp_path, request):
    kills = min(request.config.getoption("--kills") or SHARE, FULL)
    given = request.config.getoption("--seed")
    seed = random.randrange(10**9) if given is None else given
    print(f"seed {seed}, {kills} kills of whole runs")
    faults, hits = [], []

    def work(number):
        folder = small_project(tmp_path / f"p{number}")
        state = users_state(folder)
        chance = random.Random(seed + number)
        try:
            for depth in range(number, kills, 2):
                hits.append(kill_once(folder, depth, chance))
                if depth % 20 < 2:
                    look(folder, state)
            look(folder, state)
            found = every_run(folder)
            wanted = list(range(number, kills, 2))
            assert sorted(run.parameters["depth"] for run in found) == wanted
        except BaseException as error:
            faults.append(error)
            raise

    workers = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if faults:
        raise faults[0]
    print(f"{sum(hits)} of {kills} hit a process of the run while it was up")
    stray = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(tmp_path) in process.environ().get(layout.INBOX_VARIABLE, ""):
                stray.append(process)
    _, alive = psutil.wait_procs(stray, timeout=10)
    assert alive == [], "I8: nothing runs on that its owner believes dead"
