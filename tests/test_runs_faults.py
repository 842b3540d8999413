"""Runs whose processes, disk, store or clock fail."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta

import psutil
import pytest

from nbmlops import collection, health, models, records, runs, stepcache
from nbmlops import workspace as workspaces
from nbmlops.errors import StorageFailed, StoreUnavailable
from nbmlops.records import CachedStep, ModelVersion, RunRecord, Status, utc_now
from nbmlops.store import Store, sqlite, tables
from sources import SETTINGS, git, notebook_text
from terminal import refused, typed
from test_runs import end, processes_of, start
from test_store_faults import small_disk  # noqa: F401  # fixture

pytestmark = pytest.mark.slow


def limited(folder, limits):
    (folder / "nbmlops.toml").write_text(f"{SETTINGS}resources = {{ {limits} }}\n")


def kept_of(workspace, run):
    return {artifact.name: artifact for artifact in run.artifacts}


# --- F1, F2: processes --------------------------------------------------------------------------


def test_a_kernel_that_does_not_start_is_told_with_what_it_said(folder):
    (folder / "ipykernel_launcher.py").write_text("raise SystemExit('shadowed by this file')\n")
    workspace = workspaces.open_at(folder)
    done = end(workspace, start(workspace).run_id)
    assert done.status is Status.FAILED
    assert (done.cause.code, done.cause.notebook) == ("kernel-died", "train.ipynb")
    assert "did not start" in done.cause.message
    assert done.cause.hint == f"See what it said: `nbmlops logs {done.run_id}`."
    assert "shadowed by this file" in "\n".join(runs.logs(workspace, done.run_id))


TELLS = "import nbmlops as mlops\nmlops.log_metrics(loss=0.5)\nprint('partial')"


@pytest.mark.parametrize(
    ("limits", "fault", "code"),
    [
        ("memory_mib = 600", "hoard = bytearray(b'x') * 2**30\ntime.sleep(60)", "out-of-memory"),
        ("timeout_s = 4", "time.sleep(60)", "time-limit"),
        ("", "os._exit(3)", "kernel-died"),
        ("", "os.kill(os.getpid(), 9)", "kernel-died"),
        ("", "os.kill(os.getppid(), 9)", "job-killed"),
    ],
    ids=["memory", "time", "exit", "kernel", "runner"],
)
def test_what_ends_a_run_is_named_its_parts_are_kept_and_it_can_be_tried_again(
    folder, limits, fault, code
):
    limited(folder, limits)
    flag = folder.parent / "mended"
    (folder / "train.ipynb").write_text(
        notebook_text(
            TELLS,
            f"import os, pathlib, sys, time\nif not pathlib.Path({str(flag)!r}).exists():\n    "
            + fault.replace("\n", "\n    "),
        )
    )
    workspace = workspaces.open_at(folder)
    run = start(workspace)
    began = time.monotonic()
    deadline = began + 60
    while runs.get(workspace, run.run_id).steps[0].cells_done < 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    began = time.monotonic()
    done = end(workspace, run.run_id)
    assert time.monotonic() - began < 10 + (4 if code == "time-limit" else 0)
    assert done.status is Status.FAILED
    assert done.cause is not None
    assert (done.cause.code, bool(done.cause.hint)) == (code, True), done.cause
    assert done.metrics == {"loss": 0.5}
    assert "partial" in list(runs.logs(workspace, run.run_id))
    kept = kept_of(workspace, done)
    assert {"log.txt", "train.ipynb"} <= set(kept), code
    assert b"partial" in workspace.artifacts.get(kept["train.ipynb"].digest)
    flag.write_text("")
    again = end(workspace, start(workspace).run_id)
    assert (again.run_id, again.attempts) == (run.run_id, 2)
    assert again.status is Status.SUCCEEDED, again.cause
    assert again.earlier[0].cause == done.cause
    assert health.check(workspace).findings == ()
    workspace.close()


def test_a_killed_command_line_typed_again_follows_the_same_run(folder):
    (folder / "train.ipynb").write_text(notebook_text("import time; time.sleep(2)"))
    command = subprocess.Popen(
        [sys.executable, "-m", "nbmlops", "train"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    workspace = workspaces.open_at(folder)
    deadline = time.monotonic() + 30
    while not (begun := runs.unfinished(workspace)) or begun[0].status is not Status.RUNNING:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(command.pid, signal.SIGKILL)
    command.wait()
    (begun,) = runs.unfinished(workspace)
    document, code, _ = typed(folder, "train")
    assert (code, document["run_id"], document["status"]) == (0, begun.run_id, "succeeded")
    assert document["attempts"] == 1
    assert len(typed(folder, "runs")[0]["items"]) == 1
    workspace.close()


def test_a_kernel_killed_while_it_trains_leaves_the_run_to_the_next_kernel(folder, workspace):
    from jupyter_client.manager import KernelManager

    (folder / "train.ipynb").write_text(
        notebook_text("import time; time.sleep(3)", "print('went on')")
    )

    @contextlib.contextmanager
    def kernel():
        manager = KernelManager()
        manager.start_kernel(cwd=str(folder))
        client = manager.client()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        try:
            yield manager, client
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)

    with kernel() as (manager, client):
        client.execute("%load_ext nbmlops\n%mlops train train")
        deadline = time.monotonic() + 60
        while not (begun := runs.unfinished(workspace)) or begun[0].status is Status.PENDING:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(manager.provisioner.pid, signal.SIGKILL)
    with kernel() as (_, client):
        told = []
        client.execute_interactive(
            "%load_ext nbmlops\n%mlops train train\nprint('RUN', _mlops.run_id, _mlops.status)",
            timeout=60,
            output_hook=lambda message: told.append(message["content"].get("text", "")),
        )
    assert f"RUN {begun[0].run_id} succeeded" in "".join(told)
    assert len(workspace.store.page(runs.KIND, RunRecord)) == 1
    assert "went on" in list(runs.logs(workspace, begun[0].run_id))


def test_a_job_that_takes_its_own_folders_away_ends_that_run_alone(folder, workspace):
    (folder / "train.ipynb").write_text(
        notebook_text(
            "import os, pathlib, shutil\n"
            "job = pathlib.Path(os.environ['NBMLOPS_TRACKING']).parents[2]\n"
            "shutil.rmtree(job, ignore_errors=True)"
        )
    )
    done = end(workspace, start(workspace).run_id)
    assert done.status in (Status.FAILED, Status.LOST)
    assert done.cause is not None
    assert typed(folder, "runs")[1] == 0


# --- F4: disks ----------------------------------------------------------------------------------


@pytest.fixture
def full(folder, small_disk, monkeypatch):  # noqa: F811
    """A project whose home is on a disk of 1 MiB; gives functions to fill it and to make room."""
    subprocess.run(["mount", "-o", "remount,size=3m", str(small_disk)], check=True)
    monkeypatch.setenv("NBMLOPS_HOME", str(small_disk / "home"))
    filler = small_disk / "filler"

    def fill():
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)

    return fill, lambda: filler.unlink(missing_ok=True)


def half_files(home):
    """Files that whoever was interrupted has left under their own name, not a temporary one."""
    return [
        path
        for path in home.rglob("*")
        if path.is_file() and path.stat().st_size == 0 and path.suffix in (".json", ".tar")
    ]


def test_a_full_disk_stops_a_submission_with_one_error_and_it_works_when_space_returns(
    folder,
    full,
    small_disk,  # noqa: F811
):
    fill, make_room = full
    typed(folder, "runs")
    fill()
    error = refused(folder, "train", "--detach", code=5)
    assert error["code"] in ("storage-failed", "store-unavailable")
    assert "room" in error["hint"]
    assert half_files(small_disk / "home") == []
    make_room()
    document, code, _ = typed(folder, "train")
    assert (code, document["status"]) == (0, "succeeded"), document["cause"]
    assert len(typed(folder, "runs")[0]["items"]) == 1
    assert typed(folder, "doctor")[1] == 0


def test_a_full_temporary_folder_is_told(folder, small_disk, monkeypatch):  # noqa: F811
    import tempfile

    with contextlib.suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    error = refused(folder, "train", "--detach", code=5)
    assert error["code"] == "storage-failed"
    (small_disk / "filler").unlink()
    assert typed(folder, "train")[0]["status"] == "succeeded"


def test_a_disk_that_gets_full_in_the_job_is_its_cause_and_a_new_attempt_works(
    folder,
    full,
    small_disk,  # noqa: F811
):
    (folder / "train.ipynb").write_text(
        notebook_text(
            TELLS,
            "import os\nopen('large.bin', 'wb').write(os.urandom(10))\n"
            "with open('large.bin', 'r+b') as file:\n    file.truncate(4 * 2**20)\n"
            "mlops.log_artifact('large.bin')",
        )
    )
    document, code, _ = typed(folder, "train")
    assert code == 1, document
    assert document["status"] == "failed"
    assert "No space left" in document["cause"]["message"], document["cause"]
    subprocess.run(["mount", "-o", "remount,size=40m", str(small_disk)], check=True)
    again, code, _ = typed(folder, "train")
    assert (code, again["run_id"], again["attempts"]) == (0, document["run_id"], 2), again["cause"]
    assert "large.bin" in {artifact["name"] for artifact in again["artifacts"]}
    assert typed(folder, "doctor")[1] == 0


def test_a_disk_that_is_full_while_collecting_costs_nothing_but_time(folder, full):
    fill, make_room = full
    workspace = workspaces.open_at(folder)
    run = start(workspace)
    deadline = time.monotonic() + 60
    launcher = workspace.launcher("local")
    while not launcher.poll([run.handle])[run.handle].status.is_final:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    fill()
    error = refused(folder, "run", run.run_id, code=5)
    assert error["code"] in ("storage-failed", "store-unavailable")
    kept = workspace.store.get(runs.KIND, run.run_id, RunRecord)
    assert not kept.record.status.is_final, "a full disk is not the run's failure"
    make_room()
    done = runs.get(workspace, run.run_id)
    assert (done.status, done.attempts) == (Status.SUCCEEDED, 1), done.cause
    assert health.check(workspace).findings == ()
    workspace.close()


def test_storage_that_fails_while_collecting_leaves_the_run_to_the_next_look(
    workspace, monkeypatch
):
    run = start(workspace)
    launcher = workspace.launcher("local")
    deadline = time.monotonic() + 60
    while not launcher.poll([run.handle])[run.handle].status.is_final:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for error in (
        StorageFailed("the bucket does not answer", "Try again."),
        StoreUnavailable("the database is away", "Try again."),
        OSError(28, "No space left on device"),
    ):
        with monkeypatch.context() as patch:

            def fail(*_, error=error, **__):
                raise error

            patch.setattr(stepcache, "keep", fail)
            with pytest.raises(type(error)):
                runs.get(workspace, run.run_id)
    assert runs.get(workspace, run.run_id).status is Status.SUCCEEDED


def test_a_read_only_home_can_be_read_and_says_so_when_written(
    folder,
    full,
    small_disk,  # noqa: F811
):
    done = typed(folder, "train")[0]
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    shown, code, _ = typed(folder, "run", done["run_id"])
    assert (code, shown["status"]) == (0, "succeeded")
    assert typed(folder, "runs")[1] == 0
    error = refused(folder, "train", "--force", code=5)
    assert error["code"] in ("storage-failed", "store-unavailable")
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert typed(folder, "train", "--force")[0]["status"] == "succeeded"


# --- F5: the store ------------------------------------------------------------------------------


def test_an_older_client_refuses_to_write_a_newer_store_whatever_is_typed(folder):
    done = typed(folder, "train")[0]
    store = Store(folder / ".git" / "nbmlops" / "store.sqlite")
    store._database.write(
        lambda connection: connection.exec_driver_sql(
            f"UPDATE {tables.VERSION_TABLE} SET version_num = '9999'"
        )
    )
    store.close()
    for words in (["train", "--force"], ["rerun", done["run_id"]], ["runs"], ["doctor"]):
        error = refused(folder, *words, code=5)
        assert error["code"] == "store-too-new", words
        assert "--upgrade" in error["hint"]


def test_a_command_names_the_process_that_holds_the_store(folder, monkeypatch):
    import fcntl

    typed(folder, "runs")
    monkeypatch.setattr(sqlite, "_LOCK_PATIENCE_S", 0.3)
    with (folder / ".git" / "nbmlops" / "store.lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.pwrite(lock.fileno(), f"{os.getpid():<12}".encode(), 0)
        error = refused(folder, "train", "--detach", code=5)
    assert f"process {os.getpid()} has held" in error["message"]
    assert typed(folder, "train")[0]["status"] == "succeeded"


# --- F19: clocks, upgrades ----------------------------------------------------------------------


def test_a_clock_that_jumps_neither_reorders_nor_stops_anything(folder):
    jumps = [0, -86_400 * 400, 86_400 * 3000]
    made = []
    for number, jump in enumerate(jumps):
        workspace = workspaces.open_at(folder)
        workspace.now = lambda jump=jump: utc_now() + timedelta(seconds=jump)
        run = start(workspace, depth=str(number))
        # ... and again before it has ended.
        workspace.now = lambda jump=jump: utc_now() - timedelta(seconds=jump)
        made.append(end(workspace, run.run_id))
        workspace.close()
    workspace = workspaces.open_at(folder)
    assert {run.status for run in made} == {Status.SUCCEEDED}
    shown, _ = runs.page(workspace, limit=10)
    assert [run.run_id for run in shown] == [run.run_id for run in reversed(made)]
    assert health.check(workspace).findings == ()
    workspace.close()


def test_a_run_that_nobody_launched_is_launched_whatever_the_clock_says(
    folder, workspace, monkeypatch
):
    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    from nbmlops.launchers.local import LocalLauncher

    with monkeypatch.context() as patch:
        patch.setattr(LocalLauncher, "launch", killed)
        with pytest.raises(Killed):
            start(workspace)
    (record,) = (kept.record for kept in workspace.store.page(runs.KIND, RunRecord))
    assert runs.get(workspace, record.run_id).status is Status.PENDING
    later = workspaces.open_at(folder)
    later.now = lambda: utc_now() - timedelta(days=30)  # set back since
    assert end(later, record.run_id).status is Status.SUCCEEDED
    later.close()


def test_the_newest_version_is_told_by_its_number_and_not_by_its_date(workspace):
    now = utc_now()
    for number, days in ((1, 0), (2, -900), (3, -5)):
        version = ModelVersion(
            model="m",
            version=number,
            digest=f"{number}" * 64,
            run_id="r",
            commit="c",
            created_at=now + timedelta(days=days),
            metrics={},
            format="skops",
            files={},
            environment_id="e",
            notebook="n",
            notebook_blob="b",
            cell_id=None,
            cell=None,
            snapshot="s",
            run_digest="d",
            author="a",
        )
        models.keep(workspace, version)
    assert [version.version for version in models.versions(workspace, "m")] == [3, 2, 1]
    assert models.find(workspace, "m").version == 3


# A record as it was written before steps had keys, runs had attempts, and sweeps were there.
OLD_RUN = b"""{"run_id":"train-1mzk9qhs00ab","pipeline":"train","status":"%s","commit":"%s",
"base_commit":"%s","dirty":false,"parameters":{"depth":3},"metrics":{"accuracy":0.3},
"environment_id":"current-abc","launcher":"local","created_at":"2026-10-01T10:00:00Z",
"started_at":"2026-10-01T10:00:01Z","finished_at":null,"attempts":1,
"steps":[{"name":"train","notebook":"train.ipynb","status":"succeeded","cached":false,
"notebook_blob":"%s","cells_done":3,"cells_total":3,"started_at":null,"finished_at":null}],
"artifacts":[],"data":[],"model_versions":[],"cause":null,"snapshot":"s-1mzk9qhs00aa",
"author":"Ada <ada@example.org>","project_dir":".","content_key":"k",
"handle":{"launcher":"local","name":"train-1mzk9qhs00ab"},"record_digest":null%s}"""


@pytest.mark.parametrize("status", ["succeeded", "running"])
@pytest.mark.parametrize("more", [b"", b',"of_tomorrow":{"a":[1]},"another":"text"'])
def test_records_of_another_version_stay_readable(folder, workspace, status, more):
    commit = git(folder, "rev-parse", "HEAD").encode()
    blob = git(folder, "rev-parse", "HEAD:train.ipynb").encode()
    git(folder, "update-ref", "refs/nbmlops/snapshots/s-1mzk9qhs00aa", commit.decode())
    body = OLD_RUN % (status.encode(), commit, commit, blob, more)
    assert records.load(body, RunRecord).earlier == ()
    run = records.load(body, RunRecord)
    workspace.store.swap(runs.KIND, run.run_id, run, expected=0, key="old", status=status)
    workspace.store._database.write(
        lambda connection: connection.exec_driver_sql(
            "UPDATE nbmlops_heads SET body = ? WHERE kind = 'run'", (body,)
        )
    )
    workspace.store._database.write(
        lambda connection: connection.exec_driver_sql(
            "UPDATE nbmlops_revisions SET body = ? WHERE kind = 'run'", (body,)
        )
    )
    shown, code, _ = typed(folder, "runs")
    assert code == 0
    assert [item["run_id"] for item in shown["items"]] == [run.run_id]
    one, code, _ = typed(folder, "run", run.run_id)
    assert code == 0
    # A live run of the other version whose job has gone is ended with a cause.
    assert one["status"] == ("succeeded" if status == "succeeded" else "lost")
    assert (one["cause"] is None) == (status == "succeeded")
    assert typed(folder, "trace", f"run/{run.run_id}")[1] == 0
    error = refused(folder, "rerun", run.run_id)
    assert "nbmlops train" in error["hint"]
    assert typed(folder, "doctor")[1] == 0


def test_a_live_run_of_a_newer_version_is_collected_all_the_same(folder, workspace):
    """Its inbox, its result and its record have keys that this version does not know."""
    import json

    run = start(workspace)
    launcher = workspace.launcher("local")
    deadline = time.monotonic() + 60
    while not launcher.poll([run.handle])[run.handle].status.is_final:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    paths = collection.paths(workspace, run)
    for path in (paths.inbox / "spec.json", paths.inbox / "job.json", paths.result("a1")):
        document = json.loads(path.read_text())
        document["of_tomorrow"] = {"a": [1, 2]}
        path.write_text(json.dumps(document))
    done = runs.get(workspace, run.run_id)
    assert done.status is Status.SUCCEEDED, done.cause
    assert workspace.store.page(stepcache.KIND, CachedStep)


def test_a_stopped_parent_notices_late_but_notices(workspace, folder):
    (folder / "train.ipynb").write_text(notebook_text("import time; time.sleep(60)"))
    run = start(workspace)
    deadline = time.monotonic() + 60
    while set(found := processes_of(run.run_id)) != {"kernel", "runner", "parent"}:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    found["parent"].send_signal(signal.SIGSTOP)  # nobody watches the job any more
    found["runner"].kill()
    found["parent"].send_signal(signal.SIGCONT)
    done = end(workspace, run.run_id, patience_s=15)
    assert done.status is Status.FAILED
    assert psutil.wait_procs(list(found.values()), timeout=10)[1] == []
