import os
import signal
import subprocess
import sys
import time

import contract
import psutil
import pytest

from nbmlops.launchers.local import LocalLauncher
from nbmlops.records import Status


@pytest.fixture
def launcher(tmp_path):
    made = LocalLauncher(tmp_path / "local")
    yield made
    for handle in made.jobs():
        made.cancel(handle)
        contract.until(made, handle, *contract.FINAL)


@pytest.mark.parametrize("promise", contract.CONTRACT, ids=lambda promise: promise.__name__)
def test_a_launcher_keeps_its_contract(launcher, tmp_path, promise):
    promise(launcher, contract.Place(tmp_path))


def test_secrets_reach_the_job_and_no_file(launcher, tmp_path, monkeypatch):
    contract.secrets_reach_the_job_and_no_file(launcher, contract.Place(tmp_path), monkeypatch)


def pids(launcher, handle):
    from nbmlops.launchers import local

    newest = local._newest(launcher._folder / handle.name)
    found = local._pids(newest) if newest else None
    assert found is not None
    return found


def gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def until_gone(pid):
    deadline = time.monotonic() + 10
    while not gone(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_parent_is_noticed_and_takes_the_job_along(launcher, tmp_path):
    handle = launcher.launch(contract.Place(tmp_path).job("orphan", "import time; time.sleep(600)"))
    contract.until(launcher, handle, Status.RUNNING)
    found = pids(launcher, handle)
    os.kill(found["pid"], signal.SIGKILL)
    seen = contract.until(launcher, handle, *contract.FINAL)
    assert seen.cause is not None
    assert (seen.status, seen.cause.code) == (Status.LOST, "job-lost")
    until_gone(found["child"])


def test_a_killed_job_has_failed_by_the_signal_and_leaves_no_children(launcher, tmp_path):
    program = (
        "import subprocess, sys, time;"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
        " start_new_session=True); print(p.pid, flush=True); time.sleep(600)"
    )
    handle = launcher.launch(contract.Place(tmp_path).job("shot", program))
    deadline = time.monotonic() + 10
    while not (lines := list(launcher.logs(handle))) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(pids(launcher, handle)["child"], signal.SIGKILL)
    seen = contract.until(launcher, handle, *contract.FINAL)
    assert seen.cause is not None
    assert (seen.status, seen.cause.code) == (Status.FAILED, "job-killed")
    until_gone(int(lines[0]))


def test_a_job_outlives_the_process_that_asked_for_it(launcher, tmp_path):
    program = f"""
import sys; sys.path.insert(0, {os.path.dirname(contract.__file__)!r})
import contract, pathlib
from nbmlops.launchers.local import LocalLauncher
tmp = pathlib.Path({str(tmp_path)!r})
LocalLauncher(tmp / "local").launch(
    contract.Place(tmp).job("outlives", "import time; time.sleep(1); print('done')"))
import os, signal; os.killpg(os.getpgid(0), signal.SIGKILL)
"""
    asker = subprocess.run(
        [sys.executable, "-c", program], check=False, start_new_session=True, timeout=60
    )
    assert asker.returncode == -signal.SIGKILL
    from nbmlops.records import JobHandle

    handle = JobHandle(launcher="local", name="outlives")
    contract.until(launcher, handle, Status.SUCCEEDED)
    assert list(launcher.logs(handle)) == ["done"]
