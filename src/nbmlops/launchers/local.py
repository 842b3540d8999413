"""Jobs as processes of this machine, detached: they outlive whoever asked for them.

Each job has a folder; each attempt in it holds what was asked (``job.json``), the log, the pid of
its parent with its start time and the boot (``pid.json``), and how it ended (``exit.json``). Alive
means: that very process is there. Ended without ``exit.json`` means: lost.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from nbmlops import layout
from nbmlops.errors import LauncherUnavailable
from nbmlops.launchers import places
from nbmlops.records import Attempt, Cause, JobHandle, JobSpec, JobStatus, Status, replace

_LOG = "log"
_SHIM = Path(__file__).with_name("local_shim.py")
_POLL_S = 0.1


class LocalLauncher:
    """Runs jobs as processes of this machine."""

    name = "local"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def check(self) -> None:
        """Raise when this system has no POSIX processes."""
        if not hasattr(os, "fork"):
            raise LauncherUnavailable(
                "jobs on this machine need Linux or macOS", "On Windows, use WSL 2."
            )

    def launch(self, job: JobSpec) -> JobHandle:
        """Start the job, or adopt the one of that name."""
        self.check()
        folder = self._folder / layout.checked_job(job.name)
        folder.mkdir(parents=True, exist_ok=True)
        handle = JobHandle(launcher=self.name, name=job.name)
        with places.only_one(folder) as lock:
            newest = _newest(folder)
            if newest is not None:
                state = _state(newest)
                restart = job.port is not None and state is not _ALIVE
                never_began = state is _NEVER_BEGAN
                if not (restart or never_began):
                    return handle
            self._start(job, folder, lock)
        return handle

    def _start(self, job: JobSpec, folder: Path, lock: int) -> None:
        number = 1 + sum(1 for _ in folder.glob("a*"))
        attempt = folder / f"a{number}"
        attempt.mkdir()
        asked = {
            "spec": msgspec.to_builtins(job),
            "command": list(job.command),
            "timeout_s": job.resources.timeout_s if job.port is None else None,
            "memory_mib": job.resources.memory_mib,
            "started_s": time.time(),
        }
        layout.write_file(attempt / "job.json", msgspec.json.encode(asked), mode=0o600)
        environment = {
            **os.environ,
            **job.environment,
            **{name: os.environ[name] for name in job.secrets if name in os.environ},
            layout.INBOX_VARIABLE: str(places.folder_of(job.inbox)),
            layout.OUTBOX_VARIABLE: str(places.folder_of(job.outbox)),
            layout.ATTEMPT_VARIABLE: attempt.name,
            "PYTHONUNBUFFERED": "1",
        }
        if job.port is not None:
            environment[layout.LISTEN_VARIABLE] = _listen(job)
        with (attempt / _LOG).open("ab") as log:
            starter = subprocess.run(
                # It holds the lock until its pid is written: if we are killed before, nobody
                # takes the job for one that has not begun.
                [sys.executable, "-I", str(_SHIM), str(attempt), str(lock)],
                pass_fds=(lock,),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
                check=False,
            )
        if starter.returncode != 0 and not (attempt / "exit.json").exists():
            raise LauncherUnavailable(
                f"the job {job.name} could not be started: {places.tail(attempt / _LOG)}",
                "Run `nbmlops doctor`.",
            )

    def poll(self, handles: Sequence[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        """Return how the jobs fare, from their folders and processes."""
        return {handle: self._status(handle) for handle in handles}

    def _status(self, handle: JobHandle) -> JobStatus:
        folder = self._folder / layout.checked_job(handle.name)
        newest = _newest(folder)
        if newest is None:
            return places.unknown(handle)
        attempts = tuple(_attempt(path) for path in places.attempts(folder))
        job = _job(newest)
        state = _state(newest)
        if state is _ALIVE:
            if job.port is None:
                return JobStatus(status=Status.RUNNING, ready=1, attempts=attempts)
            ready = int(places.answers(_address(job), job.ready_path))
            return JobStatus(
                status=Status.RUNNING, ready=ready, address=_address(job), attempts=attempts
            )
        if state is _NEVER_BEGAN:
            return JobStatus(status=Status.PENDING, attempts=attempts)
        if state is _DEAD:
            return JobStatus(
                status=Status.LOST,
                attempts=attempts,
                cause=places.lost(places.tail(newest / _LOG)),
            )
        return JobStatus(
            status=_ended(state), attempts=attempts, cause=_cause(state, newest), desired=0
        )

    def logs(
        self,
        handle: JobHandle,
        *,
        attempt: str | None = None,
        since_line: int = 0,
        follow: bool = False,
    ) -> Iterator[str]:
        """Yield the log's lines; with ``follow`` until the job has ended."""
        folder = self._folder / layout.checked_job(handle.name)
        chosen = folder / layout.checked_name(attempt, "attempt") if attempt else _newest(folder)
        if chosen is None or not (chosen / _LOG).exists():
            return
        with (chosen / _LOG).open(encoding="utf-8", errors="replace", newline="\n") as file:
            number = 0
            pending = ""
            while True:
                over = not follow or _state(chosen) not in (_ALIVE, _NEVER_BEGAN)
                while chunk := file.readline():
                    pending += chunk
                    if not pending.endswith("\n"):
                        continue
                    number += 1
                    if number > since_line:
                        yield pending[:-1]
                    pending = ""
                if over:
                    break
                time.sleep(_POLL_S)
            if pending and number >= since_line:
                yield pending

    def scale(self, handle: JobHandle, replicas: int) -> None:
        """Stop the job (0), or start it again as it was asked for (1)."""
        if replicas == 0:
            self.cancel(handle)
            return
        newest = _newest(self._folder / layout.checked_job(handle.name))
        if newest is not None:
            self.launch(_job(newest))

    def cancel(self, handle: JobHandle) -> None:
        """Ask the job to end; after 15 s it is killed with all its children."""
        folder = self._folder / layout.checked_job(handle.name)
        newest = _newest(folder)
        if newest is None:
            return
        pids = _pids(newest)
        if _state(newest) is _ALIVE and pids is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pids["pid"], signal.SIGTERM)

    def jobs(self) -> Sequence[JobHandle]:
        """Return the jobs whose processes are there."""
        return [
            JobHandle(launcher=self.name, name=folder.name)
            for folder in sorted(self._folder.glob("*"))
            if (newest := _newest(folder)) is not None and _state(newest) is _ALIVE
        ]

    def gather(self, handle: JobHandle) -> None:
        """Do nothing: jobs write to their outboxes themselves."""

    def ending(self, handle: JobHandle) -> str:
        """Return the command that ends the job's process."""
        return f"pkill -f 'local/{layout.checked_job(handle.name)}/'"

    @contextlib.contextmanager
    def reach(self, handle: JobHandle) -> Generator[str, None, None]:
        """Yield where the job listens."""
        newest = _newest(self._folder / layout.checked_job(handle.name))
        yield "" if newest is None else _listen(_job(newest))

    def planned(self, job: JobSpec) -> Sequence[Mapping[str, Any]]:
        """Return the process that would be started."""
        return [
            {
                "process": list(job.command),
                "environment": dict(job.environment),
                "inbox": str(places.folder_of(job.inbox)),
                "outbox": str(places.folder_of(job.outbox)),
                "resources": msgspec.to_builtins(job.resources),
            }
        ]

    def live(self, handle: JobHandle) -> Sequence[Mapping[str, Any]]:
        """Return the process of a job that is up, as it was asked for."""
        newest = _newest(self._folder / layout.checked_job(handle.name))
        return [] if newest is None or _state(newest) is not _ALIVE else self.planned(_job(newest))


# An attempt's state is one of these, or the content of its exit.json.
_ALIVE = "alive"
_DEAD = "dead"
_NEVER_BEGAN = "never-began"


def _state(attempt: Path) -> str | dict[str, Any]:
    if (ended := _json(attempt / "exit.json")) is not None:
        return ended
    pids = _pids(attempt)
    if pids is None:
        asked = _json(attempt / "job.json")
        if asked is None:
            return _NEVER_BEGAN  # whoever launched it was killed before it could
        if asked["spec"].get("port") is None:
            return _NEVER_BEGAN  # the same; a run is launched again by whoever looks at it
        return _NEVER_BEGAN if abs(time.time() - float(asked["started_s"])) < 10 else _DEAD
    if _is_there(pids):
        return _ALIVE
    # It may have ended between the two looks.
    return _json(attempt / "exit.json") or _DEAD


def _is_there(pids: dict[str, Any]) -> bool:
    import psutil

    from nbmlops.launchers.local_shim import boot_id, started

    try:
        same = started(pids["pid"]) == pids["started"] and pids["boot"] == boot_id()
        return same and psutil.Process(pids["pid"]).status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, OSError):
        return False


def _ended(ended: str | dict[str, Any]) -> Status:
    if isinstance(ended, dict) and ended.get("reason") == "cancelled":
        return Status.CANCELLED
    good = isinstance(ended, dict) and ended["exit_code"] == 0 and not ended.get("reason")
    return Status.SUCCEEDED if good else Status.FAILED


def _cause(ended: str | dict[str, Any], attempt: Path) -> Cause | None:
    if not isinstance(ended, dict):
        return None
    reason = ended.get("reason")
    if reason in places.CAUSES:
        cause = places.CAUSES[reason]
        return replace(cause, message=ended.get("message") or cause.message)
    if ended["exit_code"] == 0:
        return None
    return places.failed(ended["exit_code"], places.tail(attempt / _LOG))


def _newest(folder: Path) -> Path | None:
    attempts = places.attempts(folder)
    return attempts[-1] if attempts else None


def _attempt(path: Path) -> Attempt:
    asked = _json(path / "job.json") or {"started_s": path.stat().st_mtime}
    ended = _json(path / "exit.json")
    return Attempt(
        name=path.name,
        started_at=datetime.fromtimestamp(asked["started_s"], UTC),
        finished_at=datetime.fromtimestamp(ended["finished_s"], UTC) if ended else None,
        exit_code=ended["exit_code"] if ended else None,
    )


def _job(attempt: Path) -> JobSpec:
    asked = _json(attempt / "job.json")
    if asked is None:
        return JobSpec(name=attempt.parent.name, command=(), inbox="", outbox="")
    return msgspec.convert(asked["spec"], JobSpec)


def _pids(attempt: Path) -> dict[str, Any] | None:
    return _json(attempt / "pid.json")


def _json(path: Path) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _listen(job: JobSpec) -> str:
    on_tcp = job.exposed or job.tcp
    return f"tcp:127.0.0.1:{job.port}" if on_tcp else f"unix:{_socket_path(job)}"


def _socket_path(job: JobSpec) -> Path:
    """Return a short path: it covers the inbox, so that two projects never meet on one socket."""
    digest = hashlib.sha256(f"{job.inbox}\0{job.name}".encode()).hexdigest()
    return layout.socket_dir() / f"{digest[:24]}.sock"


def _address(job: JobSpec) -> str:
    return f"http://127.0.0.1:{job.port}" if job.exposed else _listen(job)
