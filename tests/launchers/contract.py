"""The contract of launchers, as functions that every implementation is crossed with."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from nbmlops.records import JobSpec, Resources, Status

DEADLINE_S = 30.0


@dataclass(frozen=True)
class Place:
    """Where the jobs of a test have their folders, and what runs Python there."""

    folder: Path
    python: str = sys.executable
    image: str | None = None
    deadline_s: float = DEADLINE_S

    def inbox(self, name):
        return self.folder / name / "in"

    def outbox(self, name):
        return self.folder / name / "out"

    def job(self, name, program, **changes):
        """Return a job that runs a Python program with an inbox and an outbox."""
        for folder in (self.inbox(name), self.outbox(name)):
            folder.mkdir(parents=True, exist_ok=True)
        asked = {
            "command": (self.python, "-c", program),
            "inbox": self.inbox(name).as_uri(),
            "outbox": self.outbox(name).as_uri(),
            "image": self.image,
            **changes,
        }
        return JobSpec(name=name, **asked)


def until(launcher, handle, *wanted):
    """Poll until the job has one of the statuses, and return how it stands then."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        seen = launcher.poll([handle])[handle]
        if seen.status in wanted:
            return seen
        assert time.monotonic() < deadline, f"{handle} is {seen}, not {wanted}"
        time.sleep(0.02)


FINAL = tuple(status for status in Status if status.is_final)


def a_job_that_ends_well_has_succeeded_and_filled_its_outbox(launcher, place):
    program = (
        "import os, pathlib;"
        "pathlib.Path(os.environ['NBMLOPS_OUTBOX'], 'f').write_text(os.environ['GREETING']);"
        "print('one');print('two')"
    )
    handle = launcher.launch(place.job("good", program, environment={"GREETING": "hi"}))
    seen = until(launcher, handle, *FINAL)
    assert seen.status is Status.SUCCEEDED, seen
    assert (place.outbox("good") / "f").read_text() == "hi"
    assert list(launcher.logs(handle)) == ["one", "two"]
    assert list(launcher.logs(handle, since_line=1)) == ["two"]
    assert seen.attempts[-1].exit_code == 0


def a_job_that_ends_badly_has_failed_with_its_last_words(launcher, place):
    handle = launcher.launch(place.job("bad", "import sys; sys.exit('the reason')"))
    seen = until(launcher, handle, *FINAL)
    assert seen.status is Status.FAILED
    assert seen.cause is not None
    assert seen.cause.code == "job-failed"
    assert "the reason" in seen.cause.message


def the_same_name_again_adopts_and_never_starts_a_second(launcher, place):
    program = (
        "import os, pathlib, time;"
        "p = pathlib.Path(os.environ['NBMLOPS_OUTBOX'], 'starts');"
        "p.open('a').write('x'); time.sleep(1)"
    )
    one = place.job("same", program)
    handles = {launcher.launch(one) for _ in range(3)}
    assert len(handles) == 1
    handle = handles.pop()
    until(launcher, handle, *FINAL)
    assert launcher.launch(one) == handle
    assert launcher.poll([handle])[handle].status is Status.SUCCEEDED
    assert (place.outbox("same") / "starts").read_text() == "x"


def a_cancelled_job_ends_and_cancelling_again_changes_nothing(launcher, place):
    handle = launcher.launch(place.job("long", "import time; time.sleep(600)"))
    until(launcher, handle, Status.RUNNING)
    assert handle in launcher.jobs()
    launcher.cancel(handle)
    seen = until(launcher, handle, *FINAL)
    assert seen.status is Status.CANCELLED
    launcher.cancel(handle)
    assert launcher.poll([handle])[handle].status is Status.CANCELLED
    assert handle not in launcher.jobs()


def a_job_over_its_time_has_failed_by_the_time_limit(launcher, place):
    slow = place.job("slow", "import time; time.sleep(600)", resources=Resources(timeout_s=1))
    seen = until(launcher, launcher.launch(slow), *FINAL)
    assert seen.cause is not None
    assert (seen.status, seen.cause.code) == (Status.FAILED, "time-limit")


def a_job_over_its_memory_has_failed_by_the_memory_limit(launcher, place):
    program = "import time; x = bytearray(300 * 2**20); time.sleep(600)"
    big = place.job("big", program, resources=Resources(memory_mib=100))
    seen = until(launcher, launcher.launch(big), *FINAL)
    assert seen.cause is not None
    assert (seen.status, seen.cause.code) == (Status.FAILED, "out-of-memory")


def logs_are_followed_to_the_end(launcher, place):
    program = "import time\nfor n in range(4): print(n, flush=True); time.sleep(0.2)"
    handle = launcher.launch(place.job("talk", program))
    assert list(launcher.logs(handle, follow=True)) == ["0", "1", "2", "3"]


def a_program_that_cannot_start_has_failed_with_the_reason(launcher, place):
    handle = launcher.launch(place.job("none", "", command=("/no/such/program",)))
    seen = until(launcher, handle, *FINAL)
    assert seen.cause is not None
    assert (seen.status, seen.cause.code) == (Status.FAILED, "cannot-start")


def a_job_that_nobody_launched_is_unknown(launcher, place):
    from nbmlops.records import JobHandle

    handle = JobHandle(launcher=launcher.name, name="never")
    seen = launcher.poll([handle])[handle]
    assert seen.cause is not None
    assert (seen.status, seen.cause.code) == (Status.LOST, "job-unknown")


SERVER = """
import http.server, os, socketserver
kind, _, place = os.environ['NBMLOPS_LISTEN'].partition(':')
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == '/ready' else 404)
        self.end_headers()
    def address_string(self): return 'x'
if kind == 'tcp':
    host, port = place.rsplit(':', 1)
    http.server.HTTPServer((host, int(port)), Handler).serve_forever()
else:
    if os.path.exists(place): os.unlink(place)
    socketserver.UnixStreamServer(place, Handler).serve_forever()
"""


def a_job_with_a_port_gets_ready_stops_and_starts_again(launcher, place):
    served = place.job("serve", SERVER, port=8080, ready_path="/ready")
    handle = launcher.launch(served)
    for _ in range(2):
        deadline = time.monotonic() + DEADLINE_S
        while not (seen := launcher.poll([handle])[handle]).ready:
            assert time.monotonic() < deadline, seen
            time.sleep(0.05)
        assert seen.address
        assert launcher.launch(served) == handle
        launcher.scale(handle, 0)
        until(launcher, handle, Status.CANCELLED)
        launcher.scale(handle, 1)
        until(launcher, handle, Status.RUNNING)
    launcher.cancel(handle)
    until(launcher, handle, Status.CANCELLED)


def secrets_reach_the_job_and_no_file(launcher, place, monkeypatch):
    monkeypatch.setenv("API_KEY", "canary-5ecret-value")
    program = "import os; print(len(os.environ['API_KEY']))"
    handle = launcher.launch(place.job("quiet", program, secrets=("API_KEY",)))
    until(launcher, handle, Status.SUCCEEDED)
    assert list(launcher.logs(handle)) == ["19"]
    for path in place.folder.rglob("*"):
        if path.is_file():
            assert b"canary-5ecret-value" not in path.read_bytes(), path


CONTRACT = (
    a_job_that_ends_well_has_succeeded_and_filled_its_outbox,
    a_job_that_ends_badly_has_failed_with_its_last_words,
    the_same_name_again_adopts_and_never_starts_a_second,
    a_cancelled_job_ends_and_cancelling_again_changes_nothing,
    a_job_over_its_time_has_failed_by_the_time_limit,
    a_job_over_its_memory_has_failed_by_the_memory_limit,
    logs_are_followed_to_the_end,
    a_program_that_cannot_start_has_failed_with_the_reason,
    a_job_that_nobody_launched_is_unknown,
    a_job_with_a_port_gets_ready_stops_and_starts_again,
)
