"""The Docker launcher, against a real engine."""

import json
import os
import subprocess
import time
import uuid

import contract
import pytest

from nbmlops import images
from nbmlops.launchers import docker as docker_launcher
from nbmlops.launchers.docker import DockerLauncher
from nbmlops.records import JobHandle, JobSpec, Resources, Status, replace

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@pytest.fixture
def owner():
    return uuid.uuid4().hex[:10]


@pytest.fixture
def launcher(engine, tmp_path, owner):
    made = DockerLauncher(tmp_path / "docker", owner, os.environ)
    yield made
    for name in containers(owner):
        subprocess.run(["docker", "rm", "-f", name], check=False, capture_output=True)
    network = docker_launcher.network(owner)
    subprocess.run(["docker", "network", "rm", network], check=False, capture_output=True)


@pytest.fixture
def place(engine, tmp_path):
    return contract.Place(tmp_path, images.TOOL_PYTHON, engine.image)


def containers(owner):
    told = subprocess.run(
        ["docker", "ps", "-aq", "--filter", f"label={docker_launcher.OWNER_LABEL}={owner}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return told.stdout.split()


def inspected(owner):
    """Return all that the engine shows of a project's containers."""
    names = containers(owner)
    told = subprocess.run(["docker", "inspect", *names], capture_output=True, text=True, check=True)
    return told.stdout


@pytest.mark.parametrize("promise", contract.CONTRACT, ids=lambda promise: promise.__name__)
def test_a_launcher_keeps_its_contract(launcher, place, promise):
    promise(launcher, place)


def test_what_has_ended_leaves_no_container_and_is_known_all_the_same(launcher, place, owner):
    handle = launcher.launch(place.job("gone", "print('bye')"))
    contract.until(launcher, handle, Status.SUCCEEDED)
    assert containers(owner) == []
    again = DockerLauncher(launcher._folder, owner, os.environ)
    assert again.poll([handle])[handle].status is Status.SUCCEEDED
    assert list(again.logs(handle)) == ["bye"]


def test_secrets_reach_the_job_and_nothing_that_the_engine_shows(
    launcher, place, owner, monkeypatch
):
    monkeypatch.setenv("API_KEY", "canary-5ecret-value")
    program = "import os, time; print(len(os.environ['API_KEY']), flush=True); time.sleep(3)"
    handle = launcher.launch(place.job("quiet", program, secrets=("API_KEY",)))
    deadline = time.monotonic() + contract.DEADLINE_S
    while not (lines := list(launcher.logs(handle))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert lines == ["19"]
    assert "canary-5ecret-value" not in inspected(owner)
    listed = subprocess.run(["ps", "axww"], capture_output=True, text=True, check=True).stdout
    assert "canary-5ecret-value" not in listed
    contract.until(launcher, handle, Status.SUCCEEDED)
    for path in place.folder.rglob("*"):
        if path.is_file():
            assert b"canary-5ecret-value" not in path.read_bytes(), path


ATTACK = """
import json, os, pathlib
def tried(action):
    try:
        action()
        return "done"
    except OSError as error:
        return type(error).__name__
status = dict(
    line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
print(json.dumps({
    "uid": os.getuid(),
    "capabilities": status["CapEff"].strip(),
    "bounding": status["CapBnd"].strip(),
    "no new privileges": status["NoNewPrivs"].strip(),
    "root": tried(lambda: pathlib.Path("/x").touch()),
    "tool": tried(lambda: pathlib.Path("/opt/nbmlops/x").touch()),
    "inbox": tried(lambda: pathlib.Path(os.environ["NBMLOPS_INBOX"], "x").touch()),
    "outbox": tried(lambda: pathlib.Path(os.environ["NBMLOPS_OUTBOX"], "x").touch()),
    "socket": os.path.exists("/var/run/docker.sock"),
    "others": sorted(os.listdir("/nbmlops")),
}))
"""


def test_a_job_sees_its_inbox_and_outbox_and_has_no_rights(launcher, place):
    handle = launcher.launch(place.job("attack", ATTACK))
    contract.until(launcher, handle, Status.SUCCEEDED)
    found = json.loads(next(iter(launcher.logs(handle))))
    assert found.pop("uid") != 0
    assert found == {
        "capabilities": "0000000000000000",
        "bounding": "0000000000000000",
        "no new privileges": "1",
        "root": "OSError",
        "tool": "OSError",
        "inbox": "OSError",
        "outbox": "done",
        "socket": False,
        "others": ["inbox", "outbox"],
    }


def test_a_service_is_published_on_loopback_and_known_by_its_name_to_others(launcher, place):
    served = place.job("served", contract.SERVER, port=8080, ready_path="/ready")
    handle = launcher.launch(served)
    deadline = time.monotonic() + contract.DEADLINE_S
    while not launcher.poll([handle])[handle].ready:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with launcher.reach(handle) as address:
        assert address.startswith("tcp:127.0.0.1:")
    told = json.loads(inspected(launcher._owner))[0]
    bound = told["NetworkSettings"]["Ports"]["8080/tcp"]
    assert {one["HostIp"] for one in bound} == {"127.0.0.1"}
    status = launcher.poll([handle])[handle]
    assert status.address == "tcp:served:8080"
    asking = place.job(
        "asks",
        "import urllib.request, sys; sys.exit(urllib.request.urlopen("
        "'http://served:8080/ready').status != 200)",
    )
    told = subprocess.run(
        ["docker", "run", "--rm", "--network", docker_launcher.network(launcher._owner),
         "--entrypoint", place.python, place.image, *asking.command[1:]],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    launcher.cancel(handle)
    contract.until(launcher, handle, Status.CANCELLED)


def test_a_service_that_crashes_again_and_again_has_failed_with_its_last_words(launcher, place):
    handle = launcher.launch(place.job("crash", "raise SystemExit('no model')", port=8080))
    seen = contract.until(launcher, handle, *contract.FINAL)
    assert seen.status is Status.FAILED
    assert seen.cause is not None
    assert "no model" in seen.cause.message


# --- faults --------------------------------------------------------------------------------------


def test_a_container_that_somebody_removes_is_lost(launcher, place, owner):
    handle = launcher.launch(place.job("removed", "import time; time.sleep(600)"))
    contract.until(launcher, handle, Status.RUNNING)
    subprocess.run(["docker", "rm", "-f", *containers(owner)], check=True, capture_output=True)
    seen = contract.until(launcher, handle, *contract.FINAL)
    assert seen.cause is not None
    assert (seen.status, seen.cause.code) == (Status.LOST, "job-lost")


STARTS = (
    "import os, pathlib;pathlib.Path(os.environ['NBMLOPS_OUTBOX'], 'starts').open('a').write('x')"
)


@pytest.mark.parametrize("method", ["create_container_from_config", "start"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_launch_that_is_killed_is_taken_up_once(
    launcher, place, owner, monkeypatch, method, when
):
    class Killed(BaseException):
        pass

    client = launcher._client
    real = getattr(client, method)

    def killed(*args, **kwargs):
        if when == "after":
            real(*args, **kwargs)
        raise Killed

    monkeypatch.setattr(client, method, killed)
    asked = place.job("taken-up", STARTS)
    with pytest.raises(Killed):
        launcher.launch(asked)
    again = DockerLauncher(launcher._folder, owner, os.environ)
    handle = JobHandle(launcher="docker", name="taken-up")
    assert again.launch(asked) == handle
    contract.until(again, handle, Status.SUCCEEDED)
    assert (place.outbox("taken-up") / "starts").read_text() == "x"
    assert containers(owner) == []


def test_a_create_that_times_out_and_succeeds_is_adopted(launcher, place, monkeypatch):
    import requests

    client = launcher._client
    real = client.create_container_from_config

    def late(*args, **kwargs):
        real(*args, **kwargs)
        raise requests.exceptions.ReadTimeout("read timed out")

    monkeypatch.setattr(client, "create_container_from_config", late)
    handle = launcher.launch(place.job("late", STARTS))
    contract.until(launcher, handle, Status.SUCCEEDED)
    assert (place.outbox("late") / "starts").read_text() == "x"


def test_an_image_that_is_not_there_has_a_code_and_a_remedy(launcher, place):
    handle = launcher.launch(place.job("bare", "", image="nbmlops/none:e-0"))
    seen = contract.until(launcher, handle, *contract.FINAL)
    assert seen.cause is not None
    assert (seen.status, seen.cause.code) == (Status.FAILED, "image-missing")
    assert "nbmlops build" in (seen.cause.hint or "")


def test_an_engine_that_is_not_there_is_told_in_words(tmp_path):
    from nbmlops.errors import LauncherUnavailable

    away = DockerLauncher(tmp_path, "o", {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"})
    with pytest.raises(LauncherUnavailable, match="does not answer") as told:
        away.check()
    assert "DOCKER_HOST" in told.value.hint


def test_a_restarted_engine_brings_services_back_and_tells_of_runs(engine_alone, tmp_path, owner):
    launcher = DockerLauncher(tmp_path / "docker", owner, os.environ)
    place = contract.Place(tmp_path, images.TOOL_PYTHON, engine_alone.image)
    service = launcher.launch(place.job("service", contract.SERVER, port=8080, ready_path="/ready"))
    run = launcher.launch(place.job("run", "import time; time.sleep(600)"))
    contract.until(launcher, run, Status.RUNNING)
    engine_alone.restart()
    again = DockerLauncher(tmp_path / "docker", owner, os.environ)
    seen = contract.until(again, run, *contract.FINAL)
    assert seen.cause is not None
    assert seen.cause.code in ("job-killed", "job-failed")
    deadline = time.monotonic() + contract.DEADLINE_S
    while not again.poll([service])[service].ready:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    again.cancel(service)
    contract.until(again, service, Status.CANCELLED)


# --- what would be sent --------------------------------------------------------------------------


def test_what_is_live_is_what_was_planned(launcher, place):
    asked = place.job("planned", "import time; time.sleep(600)", labels={"commit": "abc"})
    handle = launcher.launch(asked)
    contract.until(launcher, handle, Status.RUNNING)
    assert launcher.live(handle) == launcher.planned(asked)
    launcher.cancel(handle)
    contract.until(launcher, handle, Status.CANCELLED)
    assert launcher.live(handle) == []


def test_one_listing_tells_of_many_jobs(launcher, place, monkeypatch):
    handles = [
        launcher.launch(place.job(f"many-{n}", "import time; time.sleep(600)")) for n in range(5)
    ]
    asked = []
    real = launcher._client.get

    def counted(url, **options):
        asked.append(url)
        return real(url, **options)

    monkeypatch.setattr(launcher._client, "get", counted)
    assert {s.status for s in launcher.poll(handles).values()} == {Status.RUNNING}
    assert len(asked) == 1, asked
    for handle in handles:
        launcher.cancel(handle)


def test_a_run_that_has_gone_on_for_seconds_is_still_looked_at_by_a_listing_alone(
    launcher, place, monkeypatch
):
    handle = launcher.launch(place.job("goes-on", "import time; time.sleep(600)"))
    contract.until(launcher, handle, Status.RUNNING)
    monkeypatch.setattr(docker_launcher, "_is_fresh", lambda *_: True)
    monkeypatch.setattr(launcher, "_inspected", lambda name: pytest.fail(f"looked at {name}"))
    assert launcher.poll([handle])[handle].status is Status.RUNNING
    monkeypatch.undo()
    launcher.cancel(handle)


def test_what_was_never_started_is_known_not_to_be_live_without_an_engine(tmp_path):
    away = DockerLauncher(tmp_path, "o", {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"})
    assert away.live(JobHandle(launcher="docker", name="never")) == []


def test_limits_are_part_of_what_is_sent():
    job = JobSpec(
        name="j",
        command=("p",),
        inbox="/in",
        outbox="/out",
        image="i",
        resources=Resources(cpu_cores=0.5, memory_mib=256, gpus=2, timeout_s=60),
    )
    sent = docker_launcher.manifest(job, owner="o", attempt="a1", user="7:7")
    limits = sent["HostConfig"]
    assert limits["Memory"] == limits["MemorySwap"] == 256 * 2**20
    assert limits["NanoCpus"] == 500_000_000
    assert limits["DeviceRequests"] == [{"Count": 2, "Capabilities": [["gpu"]]}]
    assert "NBMLOPS_TIMEOUT_S=60" in sent["Env"]
    assert sent["User"] == "7:7"


def test_a_program_in_an_image_of_its_own_is_told_what_it_is_told_and_runs_as_the_image_says():
    job = JobSpec(
        name="j",
        command=(),
        inbox="/in",
        outbox="/out",
        image="i",
        carrier="c",
        environment={"A": "1"},
        port=8080,
    )
    sent = docker_launcher.manifest(job, owner="o", attempt="a1", user="7:7")
    assert not {"Entrypoint", "Cmd", "WorkingDir"} & {*sent}
    assert sent["Image"] == "i"
    assert sent["Env"] == ["A=1", "HOME=/tmp", "LOGNAME=nbmlops", "USER=nbmlops"]
    host = sent["HostConfig"]
    (mount,) = host["Mounts"]
    assert (mount["Target"], mount["ReadOnly"]) == (images.INBOX, True)
    assert (host["ReadonlyRootfs"], host["CapDrop"], sent["User"]) == (True, ["ALL"], "7:7")
    own = replace(job, command=("/serve", "--port", "8080"))
    sent = docker_launcher.manifest(own, owner="o", attempt="a1", user="7:7")
    assert (sent["Entrypoint"], sent["Cmd"]) == (["/serve"], ["--port", "8080"])
