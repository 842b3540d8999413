import json
import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest

from nbmlops import collection, pipelines, runs, submission
from nbmlops import workspace as workspaces
from nbmlops.errors import WrongUse
from nbmlops.records import (
    Attempt,
    Event,
    JobStatus,
    RunResult,
    Status,
    StepRecord,
    utc_now,
)
from sources import git, notebook_text

pytestmark = pytest.mark.slow


def start(workspace, name="train", **given):
    return submission.submit(workspace, pipelines.find(workspace, name), given)


def end(workspace, run_id, patience_s=60):
    deadline = time.monotonic() + patience_s
    for seen in runs.watch(workspace, run_id, every_s=0.05):
        assert time.monotonic() < deadline, seen
    return runs.get(workspace, run_id)


def test_a_run_ends_with_its_metrics_notebook_log_and_parameters(workspace, folder):
    run = start(workspace, depth="7")
    assert run.status in (Status.PENDING, Status.RUNNING)
    done = end(workspace, run.run_id)
    assert done.status is Status.SUCCEEDED, done.cause
    assert done.metrics == {"accuracy": 0.7}
    assert done.parameters == {"depth": 7, "name": "a"}
    assert done.commit == git(folder, "rev-parse", "HEAD")
    assert [(s.cells_done, s.cells_total) for s in done.steps] == [(3, 3)]
    assert "hello from a" in list(runs.logs(workspace, run.run_id))
    names = {artifact.name: artifact for artifact in done.artifacts}
    executed = json.loads(workspace.artifacts.get(names["train.ipynb"].digest))
    sources = ["".join(cell["source"]) for cell in executed["cells"]]
    assert any("depth = 7" in source for source in sources)
    assert git(folder, "status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("declared", "sent", "seen"),
    [
        ("x: str = ''", "quote ' \" and \\ and \n and ünï {} %s", None),
        ("x: float = 0.5", "1e-3", 0.001),
        ("x: int | None = 3", "None", None),
        ("x: bool = False", "true", True),
        ("x: list = []", '[1, "a", null, {"b": [true]}]', [1, "a", None, {"b": [True]}]),
    ],
)
def test_what_the_notebook_sees_equals_what_was_sent(workspace, folder, declared, sent, seen):
    (folder / "train.ipynb").write_text(
        notebook_text(("parameters", declared), "import json\nprint('=>' + json.dumps(x))")
    )
    done = end(workspace, start(workspace, x=sent).run_id)
    assert done.status is Status.SUCCEEDED, done.cause
    line = next(line for line in runs.logs(workspace, done.run_id) if line.startswith("=>"))
    wanted = sent if declared.startswith("x: str") else seen
    assert json.loads(line[2:]) == wanted
    assert done.parameters == {"x": wanted}


def test_a_dirty_tree_runs_what_the_person_sees(workspace, folder):
    (folder / "local_module.py").write_text("ANSWER = 42\n")
    (folder / "train.ipynb").write_text(
        notebook_text("import local_module\nprint('answer', local_module.ANSWER)")
    )
    before = git(folder, "status", "--porcelain")
    done = end(workspace, start(workspace).run_id)
    assert done.status is Status.SUCCEEDED, done.cause
    assert done.dirty
    assert "answer 42" in list(runs.logs(workspace, done.run_id))
    assert git(folder, "show", f"{done.commit}:local_module.py") == "ANSWER = 42"
    assert git(folder, "status", "--porcelain") == before


def test_what_a_run_logged_can_be_saved_and_hostile_names_stay_inside(workspace, folder):
    (folder / "train.ipynb").write_text(
        notebook_text(
            "import nbmlops as mlops, pathlib\npathlib.Path('a.txt').write_text('abc')\n"
            "mlops.log_artifact('a.txt', name='tables/a.txt')"
        )
    )
    done = end(workspace, start(workspace).run_id)
    runs.save(workspace, done, folder.parent / "saved")
    assert (folder.parent / "saved" / "tables" / "a.txt").read_text() == "abc"
    (artifact, *_) = done.artifacts
    for name in ("../out.txt", "/etc/x", "a/../../x"):
        hostile = runs.replace(done, artifacts=(runs.replace(artifact, name=name),))
        with pytest.raises(WrongUse):
            runs.save(workspace, hostile, folder.parent / "other")
        assert not (folder.parent / "other").exists()


FORGED = """
log = pathlib.Path(f'/proc/{os.getppid()}/fd/1').resolve().read_text()
print(log.splitlines()[0].split()[1] + ' {not json')
"""


@pytest.mark.parametrize(
    "attack",
    [
        "shutil.rmtree(out / 'files', ignore_errors=True); (out / 'files').write_text('x')",
        "(out / 'result.json').mkdir()",
        FORGED,
        "mlops.log_artifact(sys.executable, name='environment.json')",
        "mlops.log_artifact(sys.executable, name='log.txt')",
    ],
)
def test_whatever_a_cell_does_to_its_job_ends_that_run_alone(workspace, folder, attack):
    program = (
        "import nbmlops as mlops, os, pathlib, shutil, sys\n"
        "out = pathlib.Path(os.environ['NBMLOPS_TRACKING']).parent\n"
    )
    (folder / "train.ipynb").write_text(notebook_text(program + attack))
    done = end(workspace, start(workspace).run_id)
    assert done.status in (Status.SUCCEEDED, Status.FAILED, Status.LOST)
    assert done.status is Status.SUCCEEDED or done.cause is not None
    assert len(runs.page(workspace, limit=10, cursor=None)[0]) == 1
    assert runs.unfinished(workspace) == []


def test_a_notebook_that_ends_its_kernel_has_not_succeeded(workspace, folder):
    (folder / "train.ipynb").write_text(notebook_text("import sys; sys.exit(0)", "print('never')"))
    done = end(workspace, start(workspace).run_id)
    assert done.status is Status.FAILED
    assert done.cause is not None
    assert (done.cause.code, done.cause.cell) == ("cell-failed", 1)


def test_a_secret_that_looks_like_a_number_breaks_nothing(folder, monkeypatch):
    monkeypatch.setenv("PIN", "2026")
    settings = folder / "nbmlops.toml"
    settings.write_text(settings.read_text().replace("[pipe", 'secrets = ["PIN"]\n[pipe'))
    opened = workspaces.open_at(folder)
    done = end(opened, start(opened).run_id)
    assert done.status is Status.SUCCEEDED, done.cause


def test_the_same_submission_at_once_is_one_run(workspace, folder):
    import threading

    (folder / "train.ipynb").write_text(notebook_text("import time; time.sleep(60)"))
    pipeline = pipelines.find(workspace, "train")
    started = []

    def submit():
        opened = workspaces.open_at(folder)
        started.append(submission.submit(opened, pipeline, {}).run_id)

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(started) == 4
    assert len(set(started)) == 1
    runs.cancel(workspace, started[0])


def test_a_failing_cell_is_named_and_the_partial_notebook_is_kept(workspace, folder):
    (folder / "train.ipynb").write_text(notebook_text("print('before')", "1 / 0", "print('after')"))
    done = end(workspace, start(workspace).run_id)
    assert done.status is Status.FAILED
    assert done.cause is not None
    assert (done.cause.code, done.cause.cell, done.cause.cell_id) == ("cell-failed", 2, "cell-1")
    assert "ZeroDivisionError" in done.cause.message
    assert (done.steps[0].status, done.steps[0].cells_done) == (Status.FAILED, 1)
    assert "train.ipynb" in {artifact.name for artifact in done.artifacts}
    log = list(runs.logs(workspace, done.run_id))
    assert "before" in log
    assert "after" not in log
    assert any("1 / 0" in line for line in log), "the traceback is in the log"


def test_a_file_that_git_ignores_is_named_with_what_to_do(workspace, folder):
    (folder / "data").mkdir()
    (folder / "data" / "raw.csv").write_text("a\n1\n")
    (folder / "train.ipynb").write_text(notebook_text("open('data/raw.csv')"))
    done = end(workspace, start(workspace).run_id)
    assert done.cause is not None
    assert 'raw = "data/raw.csv"' in (done.cause.hint or "")


def test_steps_hand_files_on_and_a_missing_output_fails_the_step(workspace, folder):
    (folder / "a.ipynb").write_text(notebook_text("open('made.txt', 'w').write('from a')"))
    (folder / "b.ipynb").write_text(notebook_text("print('read:', open('made.txt').read())"))
    steps = '[{notebook = "a.ipynb", outputs = ["%s"]}, {notebook = "b.ipynb"}]'
    settings = folder / "nbmlops.toml"
    settings.write_text(f'[project]\nname = "x"\n[pipelines.p]\nsteps = {steps % "made.txt"}\n')
    opened = workspaces.open_at(folder)
    done = end(opened, start(opened, "p").run_id)
    assert "read: from a" in list(runs.logs(opened, done.run_id))
    settings.write_text(f'[project]\nname = "x"\n[pipelines.p]\nsteps = {steps % "other.txt"}\n')
    opened = workspaces.open_at(folder)
    done = end(opened, start(opened, "p").run_id)
    assert done.cause is not None
    assert done.cause.code == "output-missing"
    assert done.steps[1].status is Status.PENDING


def test_a_cell_cannot_forge_an_event(workspace, folder):
    (folder / "train.ipynb").write_text(
        notebook_text(
            'print(\'nbmlops-events aa\')\nprint(\'aa {"kind": "metric", "at":'
            ' "2026-01-01T00:00:00Z", "values": {"accuracy": 1.0}}\')'
        )
    )
    done = end(workspace, start(workspace).run_id)
    assert done.status is Status.SUCCEEDED
    assert done.metrics == {}


def test_the_same_unfinished_run_is_followed_and_force_starts_another(workspace, folder):
    (folder / "train.ipynb").write_text(notebook_text("import time; time.sleep(60)"))
    pipeline = pipelines.find(workspace, "train")
    first = submission.submit(workspace, pipeline, {})
    assert submission.submit(workspace, pipeline, {}).run_id == first.run_id
    other = submission.submit(workspace, pipeline, {}, force=True)
    assert other.run_id != first.run_id
    for run in (first, other):
        assert runs.cancel(workspace, run.run_id).status is Status.CANCELLED


def test_secrets_are_taken_out_of_what_is_kept(folder, monkeypatch):
    monkeypatch.setenv("API_KEY", "canary-5ecret")
    settings = folder / "nbmlops.toml"
    settings.write_text(settings.read_text().replace("[pipe", 'secrets = ["API_KEY"]\n[pipe'))
    (folder / "train.ipynb").write_text(
        notebook_text("import os\nprint('key', os.environ['API_KEY'])\nos.environ['API_KEY']")
    )
    opened = workspaces.open_at(folder)
    done = end(opened, start(opened).run_id)
    assert done.status is Status.SUCCEEDED, done.cause
    assert "key [secret]" in list(runs.logs(opened, done.run_id))
    for path in opened.home.root.rglob("*"):
        if path.is_file():
            assert b"canary-5ecret" not in path.read_bytes(), path


def test_a_run_outlives_a_killed_command_line(folder, workspace):
    (folder / "train.ipynb").write_text(
        notebook_text("import time; time.sleep(2)", "print('went on')")
    )
    command = subprocess.Popen(
        [sys.executable, "-m", "nbmlops", "train"],
        cwd=folder,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (begun := runs.unfinished(workspace)) or begun[0].status is Status.PENDING:
        assert command.poll() is None, "the command ended before the run began"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(command.pid, signal.SIGKILL)
    command.wait()
    run_id = begun[0].run_id
    done = end(workspace, run_id)
    assert done.status is Status.SUCCEEDED, done.cause
    assert "went on" in list(runs.logs(workspace, run_id))


def processes_of(run_id):
    """Return the processes that carry a run: the launcher's, the runner's, the kernel's."""
    found = {}
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
            told = process.environ()
        except psutil.Error:
            continue
        if "nbmlops.runner" in line and run_id in told.get("NBMLOPS_INBOX", ""):
            found["runner"] = process
        elif "ipykernel_launcher" in line and told.get("NBMLOPS_JOB") == run_id:
            found["kernel"] = process
        elif "local_shim.py" in line and run_id in line:
            found["parent"] = process
    return found


def test_whatever_is_killed_the_run_ends_with_a_cause_and_nothing_stays(workspace, folder):
    (folder / "train.ipynb").write_text(
        notebook_text("print('partial')", "import time; time.sleep(600)")
    )
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for victim in ("kernel", "runner", "parent"):
        run = start(workspace)
        deadline = time.monotonic() + 60
        while runs.get(workspace, run.run_id).steps[0].cells_done < 1:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(chance.random() * 0.5)
        carriers = processes_of(run.run_id)
        assert set(carriers) == {"kernel", "runner", "parent"}
        killed_at = time.monotonic()
        carriers[victim].kill()
        done = end(workspace, run.run_id, patience_s=20)
        assert time.monotonic() - killed_at < 10, "noticed within 10 s"
        assert done.status in (Status.FAILED, Status.LOST), (victim, done.status)
        assert done.cause is not None, victim
        assert "partial" in "\n".join(runs.logs(workspace, run.run_id)), victim
        _, alive = psutil.wait_procs(list(carriers.values()), timeout=10)
        assert alive == [], victim


# --- advance is pure ----------------------------------------------------------------------------


def test_advance_folds_events_and_takes_the_result(workspace):
    run = start(workspace)
    run = end(workspace, run.run_id)
    fresh = runs.replace(
        run,
        status=Status.PENDING,
        metrics={},
        cause=None,
        steps=(StepRecord(name="train", notebook="t.ipynb", notebook_blob="b", cells_total=3),),
    )
    now = utc_now()
    running = JobStatus(status=Status.RUNNING, attempts=(Attempt(name="a1", started_at=now),))
    events = [
        Event(kind="step", at=now, step="train", status="running"),
        Event(kind="cell", at=now, step="train", values={"done": 2, "total": 3}),
        Event(kind="cell", at=now, step="other", values={"done": 9}),
        Event(kind="metric", at=now, values={"loss": 0.5}),
    ]
    seen = collection.advance(fresh, running, None, events)
    assert (seen.status, seen.steps[0].cells_done, seen.metrics) == (
        Status.RUNNING,
        2,
        {"loss": 0.5},
    )
    over = JobStatus(status=Status.SUCCEEDED, attempts=running.attempts)
    lost = collection.advance(fresh, over, None, events)
    assert lost.status is Status.LOST, "an exit code of 0 without a result says nothing"
    assert lost.cause is not None
    result = RunResult(
        run_id=run.run_id,
        attempt="a1",
        status=Status.SUCCEEDED,
        started_at=now,
        finished_at=now,
        steps=fresh.steps,
    )
    assert collection.advance(fresh, over, result).status is Status.SUCCEEDED
    cancelled = JobStatus(status=Status.CANCELLED, attempts=running.attempts)
    assert collection.advance(fresh, cancelled, result).status is Status.CANCELLED
