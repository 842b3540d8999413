"""Jobs as containers of a Docker engine: no root, a root file system that is read-only, no rights.

A container is found by its name, which follows from the job's, and by the labels of whoever owns
it; nothing that one process knew is needed to adopt it. How an attempt ended, and its log, are kept
in the job's folder before its container is removed, so a job that has ended is known for ever.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from nbmlops import engine, entry, images, layout
from nbmlops.errors import LauncherUnavailable
from nbmlops.launchers import places
from nbmlops.records import Attempt, Cause, JobHandle, JobSpec, JobStatus, Record, Status, replace

if TYPE_CHECKING:
    from docker import APIClient

INBOX, OUTBOX, PORT = images.INBOX, images.OUTBOX, images.PORT
OWNER_LABEL, JOB_LABEL, ATTEMPT_LABEL = (
    f"org.nbmlops.{name}" for name in ("owner", "job", "attempt")
)
_GRACE_S = 15
_RESTARTS = 3  # of a service that crashes; then it has failed
_STEADY_S = 10.0  # a service that has been up for so long has got over its crash
_PIDS = 4096
_LOG_BYTES = "64m"
_POLL_S = 0.1
_BIND_REFUSED = ("port is already allocated", "address already in use")


class Ended(Record, frozen=True, kw_only=True):
    """How an attempt ended; ``reason`` is the code of its cause where the launcher gives one."""

    exit_code: int
    finished_at: datetime
    reason: str | None = None
    message: str = ""


class _Asked(Record, frozen=True, kw_only=True):
    """What an attempt was started as, written before its container is made."""

    spec: JobSpec
    started_at: datetime


def manifest(job: JobSpec, *, owner: str, attempt: str, user: str) -> dict[str, Any]:
    """Return what the engine is asked to create: the body of ``POST /containers/create``. Pure.

    Parameters
    ----------
    owner
        Which project's it is; part of names and labels.
    attempt
        Which start of the job it is: ``a1``.
    user
        ``UID:GID`` of the program; never root's.
    """
    serves = job.port is not None
    environment = {
        **job.environment,
        # Whoever it runs as, it has a name and a home.
        "HOME": "/tmp",  # noqa: S108 the container's own, in memory
        "USER": "nbmlops",
        "LOGNAME": "nbmlops",
    }
    command = list(job.command)
    if job.carrier is None:
        environment |= {
            layout.INBOX_VARIABLE: INBOX,
            layout.OUTBOX_VARIABLE: OUTBOX,
            layout.ATTEMPT_VARIABLE: attempt,
            "PYTHONUNBUFFERED": "1",
        }
        if serves:
            environment[layout.LISTEN_VARIABLE] = f"tcp:0.0.0.0:{PORT}"
    if _is_wrapped(job):
        command = [images.TOOL_PYTHON, "-I", "-m", "nbmlops.entry", *command]
        if job.resources.timeout_s is not None:
            environment[entry.TIMEOUT_VARIABLE] = str(job.resources.timeout_s)
        if job.secrets:
            environment[entry.SECRETS_VARIABLE] = "stdin"
    labels = {
        **{f"org.nbmlops.{name}": value for name, value in job.labels.items()},
        OWNER_LABEL: owner,
        JOB_LABEL: job.name,
        ATTEMPT_LABEL: attempt,
    }
    asked: dict[str, Any] = {"Image": job.image}
    if command:  # an empty one would take an image's own away
        asked |= {"Entrypoint": command[:1], "Cmd": command[1:]}
    if job.carrier is None:
        asked["WorkingDir"] = "/tmp"  # noqa: S108
    return {
        **asked,
        "Env": [f"{name}={value}" for name, value in sorted(environment.items())],
        "User": user,
        "Hostname": "nbmlops",
        "Labels": dict(sorted(labels.items())),
        "OpenStdin": bool(job.secrets),
        "StdinOnce": bool(job.secrets),
        "ExposedPorts": {f"{PORT}/tcp": {}} if serves else {},
        "HostConfig": _host_config(job, owner),
        "NetworkingConfig": {"EndpointsConfig": {network(owner): {"Aliases": [job.name]}}}
        if serves
        else {},
    }


def _host_config(job: JobSpec, owner: str) -> dict[str, Any]:
    serves = job.port is not None
    memory = job.resources.memory_mib * 2**20
    limits: dict[str, Any] = {
        "Memory": memory,
        "MemorySwap": memory,
        "NanoCpus": int(min(job.resources.cpu_cores, os.cpu_count() or 1) * 1e9),
        "PidsLimit": _PIDS,
    }
    if job.resources.gpus:
        limits["DeviceRequests"] = [{"Count": job.resources.gpus, "Capabilities": [["gpu"]]}]
    published = str(job.port) if job.exposed else ""  # for others the engine chooses a port
    return {
        **limits,
        "Mounts": [
            {**_bind(job.inbox, INBOX), "ReadOnly": True},
            *([] if job.carrier else [_bind(job.outbox, OUTBOX)]),
        ],
        "ReadonlyRootfs": True,
        "Tmpfs": {"/tmp": "rw,nosuid,nodev,mode=1777"},  # noqa: S108
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "Init": not _is_wrapped(job),
        "NetworkMode": network(owner) if serves else "bridge",
        "PortBindings": {f"{PORT}/tcp": [{"HostIp": "127.0.0.1", "HostPort": published}]}
        if serves
        else {},
        "RestartPolicy": {"Name": "unless-stopped" if serves else "no"},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": _LOG_BYTES, "max-file": "1"}},
    }


def _is_wrapped(job: JobSpec) -> bool:
    """Return whether a program of ours stands before the job's, for secrets or the time."""
    limited = job.resources.timeout_s is not None
    return job.port is None and (bool(job.secrets) or limited)


def _bind(uri: str, target: str) -> dict[str, Any]:
    return {"Type": "bind", "Source": str(places.folder_of(uri)), "Target": target}


def network(owner: str) -> str:
    """Return the name of the network that a project's services are in, and its runs are not."""
    return f"nbmlops-{owner}"


def container(owner: str, job: str) -> str:
    """Return the name of a job's container; other jobs reach it by the job's own name."""
    return f"nbmlops-{owner}-{layout.checked_job(job)}"


class DockerLauncher:
    """Runs jobs as containers."""

    name = "docker"

    def __init__(self, folder: Path, owner: str, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._owner = owner
        self._environ = environ
        self._connected: APIClient | None = None
        # Files that a container writes belong to whoever submits; root's jobs are nobody's.
        uid, gid = (os.getuid(), os.getgid()) if os.getuid() else (images.USER, images.USER)
        self._user = uid, gid

    @property
    def _client(self) -> APIClient:
        if self._connected is None:
            self._connected = engine.connect(self._environ)
        return self._connected

    def check(self) -> None:
        """Raise when the engine does not answer."""
        client = self._client
        with engine.speaking("answer"):
            client.ping()

    # --- starting ---------------------------------------------------------------------------------

    def launch(self, job: JobSpec) -> JobHandle:
        """Start the job, or adopt the one of that name."""
        folder = self._folder / layout.checked_job(job.name)
        folder.mkdir(parents=True, exist_ok=True)
        handle = JobHandle(launcher=self.name, name=job.name)
        with places.only_one(folder):
            newest = _newest(folder)
            if newest is not None and not self._has_to_begin(newest, job):
                return handle
            began = newest is None or _ended(newest) is not None
            number = 1 if newest is None else int(newest.name[1:]) + began
            attempt = folder / f"a{number}"
            attempt.mkdir(exist_ok=True)
            asked = _Asked(spec=job, started_at=datetime.now(UTC))
            layout.write_file(attempt / "job.json", msgspec.json.encode(asked), mode=0o600)
            self._start(job, attempt)
        return handle

    def _has_to_begin(self, newest: Path, job: JobSpec) -> bool:
        """Return whether a job is to be started: it never was, or it serves and is not up."""
        if _ended(newest) is not None:
            return job.port is not None
        found = self._inspected(job.name)
        if found is None:
            if (newest / "created").exists():  # and somebody has removed it
                self._keep(newest, Ended(exit_code=-1, finished_at=_now(), reason="removed"))
                return job.port is not None
            return True
        if found["State"]["Status"] == "created":
            return True
        if job.port is not None and found["State"]["Status"] in ("exited", "dead"):
            self._collect(job.name, newest, found)
            return True
        return False

    def _start(self, job: JobSpec, attempt: Path) -> None:
        asked = self._as_sent(job, attempt.name)
        name = asked.pop("name")
        self._hand_over(job)
        client = self._client
        try:
            if job.port is not None:
                self._ensure_network()
            self._create(asked, name, attempt)
        except LauncherUnavailable:
            if self._inspected(job.name) is None:
                raise
        except engine.NoSuchImage as error:
            self._refuse(attempt, "image-missing", error.message)
            return
        except engine.EngineRefused as error:
            self._refuse(attempt, "cannot-start", error.message)
            return
        (attempt / "created").touch()
        try:
            with engine.speaking(f"start {job.name}"), self._secrets(job, name):
                client.start(name)
        except engine.EngineRefused as error:
            told = any(words in error.message for words in _BIND_REFUSED)
            self._refuse(attempt, "port-taken" if told else "cannot-start", error.message)
            self._remove(job.name)

    def _create(self, asked: dict[str, Any], name: str, attempt: Path) -> None:
        """Create the container; one of a start that was killed, or timed out, will do."""
        for _ in range(2):
            try:
                with engine.speaking(f"create the container of {attempt.parent.name}"):
                    self._client.create_container_from_config(asked, name)
                    return
            except engine.NameTaken:
                found = self._inspected(attempt.parent.name)
                if found and found["Config"]["Labels"].get(ATTEMPT_LABEL) == attempt.name:
                    return
                self._remove(attempt.parent.name)  # of an attempt whose end has been kept

    def _hand_over(self, job: JobSpec) -> None:
        """Give the job's folders to whom the container runs as, where that is not who asks."""
        for uri in (job.inbox, job.outbox):
            folder = places.folder_of(uri)
            folder.mkdir(parents=True, exist_ok=True)
            if os.getuid() == 0:
                for path in (folder, *folder.rglob("*")):
                    os.chown(path, *self._user, follow_symlinks=False)

    def _ensure_network(self) -> None:
        name = network(self._owner)
        with contextlib.suppress(engine.NameTaken), engine.speaking(f"make the network {name}"):
            if not self._client.networks(names=[f"^{name}$"]):
                self._client.create_network(
                    name, "bridge", check_duplicate=True, labels={OWNER_LABEL: self._owner}
                )

    @contextlib.contextmanager
    def _secrets(self, job: JobSpec, name: str) -> Generator[None, None, None]:
        """Write the secrets to the program's standard input, once it is started.

        So they stand in no file, no manifest, and in nothing that the engine shows.
        """
        if not job.secrets:
            yield
            return
        values = {name: self._environ[name] for name in job.secrets if name in self._environ}
        attached = self._client.attach_socket(name, {"stdin": 1, "stream": 1})
        try:
            yield
            pipe = getattr(attached, "_sock", attached)
            pipe.sendall(msgspec.json.encode(values) + b"\n")
        finally:
            attached.close()

    def _refuse(self, attempt: Path, reason: str, message: str) -> None:
        self._keep(attempt, Ended(exit_code=-1, finished_at=_now(), reason=reason, message=message))

    # --- looking ----------------------------------------------------------------------------------

    def poll(self, handles: Sequence[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        """Return how the jobs fare: one listing for all, and a look at each that has just ended."""
        newest = {h: _newest(self._folder / layout.checked_job(h.name)) for h in handles}
        open_ones = [h for h, attempt in newest.items() if attempt and _ended(attempt) is None]
        listed = self._listed() if open_ones else {}
        self._collect_others(listed, {handle.name for handle in handles})
        return {h: self._status(h, attempt, listed) for h, attempt in newest.items()}

    def _collect_others(self, listed: Mapping[str, dict[str, Any]], asked: set[str]) -> None:
        """Keep the end of jobs that nobody asks for any more, such as of services let go."""
        for name, seen in listed.items():
            if name in asked or seen["State"] not in ("exited", "dead"):
                continue
            attempt = _newest(self._folder / layout.checked_job(name))
            if attempt is not None and _ended(attempt) is None:
                self._now_ended(JobHandle(launcher=self.name, name=name), attempt, seen)

    def _listed(self) -> dict[str, dict[str, Any]]:
        client = self._client
        with engine.speaking("list the containers"):
            found = client.containers(all=True, filters={"label": f"{OWNER_LABEL}={self._owner}"})
        return {one["Labels"].get(JOB_LABEL, ""): one for one in found}

    def _status(
        self, handle: JobHandle, attempt: Path | None, listed: Mapping[str, dict[str, Any]]
    ) -> JobStatus:
        if attempt is None:
            return places.unknown(handle)
        if (ended := _ended(attempt)) is None:
            ended = self._now_ended(handle, attempt, listed.get(handle.name))
        attempts = tuple(_attempt(path) for path in places.attempts(attempt.parent))
        if ended is not None:
            return _final(ended, attempt, attempts)
        job = _asked(attempt).spec
        seen = listed.get(handle.name)
        if seen is None or seen["State"] == "created":
            return JobStatus(status=Status.PENDING, attempts=attempts)
        if job.port is None:
            return JobStatus(status=Status.RUNNING, ready=1, attempts=attempts)
        local = _published(seen)
        ready = local is not None and seen["State"] == "running"
        ready = ready and places.answers(f"tcp:127.0.0.1:{local}", job.ready_path)
        return JobStatus(
            status=Status.RUNNING,
            ready=int(ready),
            address=self._address(job),
            attempts=attempts,
        )

    def _address(self, job: JobSpec) -> str:
        if job.exposed:
            return f"http://127.0.0.1:{job.port}"
        return f"tcp:{job.name}:{PORT}"

    def _now_ended(
        self, handle: JobHandle, attempt: Path, seen: dict[str, Any] | None
    ) -> Ended | None:
        """Return how an attempt ended that no file tells of yet; ``None`` while it goes on."""
        job = _asked(attempt).spec
        if seen is not None and seen["State"] == "running" and not self._is_over_time(attempt, job):
            serves = job.port is not None  # only services are started again by the engine
            return self._crashing(job, attempt) if serves and _is_fresh(seen, attempt) else None
        with places.only_one(attempt.parent):
            if (ended := _ended(attempt)) is not None:  # somebody else has looked meanwhile
                return ended
            found = self._inspected(handle.name)
            if found is None:
                began = (attempt / "created").exists()
                gone = Ended(exit_code=-1, finished_at=_now(), reason="removed")
                return self._keep(attempt, gone) if began else None
            return self._collect(handle.name, attempt, found) if self._is_over(job, found) else None

    def _is_over(self, job: JobSpec, found: Mapping[str, Any]) -> bool:
        """Return whether a container has ended for good."""
        state = found["State"]
        if state.get("Restarting"):
            return int(found["RestartCount"]) >= _RESTARTS
        if state["Running"]:
            self._stop(job.name)  # it is over its time; the next look finds it stopped
            return False
        return bool(state["Status"] != "created")

    def _crashing(self, job: JobSpec, attempt: Path) -> Ended | None:
        """Return the end of a service that the engine has started again too often."""
        found = self._inspected(job.name)
        if found is None or found["RestartCount"] < _RESTARTS:
            return None
        up_s = (_now() - _time(found["State"]["StartedAt"])).total_seconds()
        if up_s > _STEADY_S:
            return None
        with places.only_one(attempt.parent):
            self._stop(job.name)
            found = self._inspected(job.name)
            if found is None or found["State"]["Running"]:
                return None  # the next look finds it stopped
            return self._collect(job.name, attempt, found)

    def _is_over_time(self, attempt: Path, job: JobSpec) -> bool:
        """Return whether a run goes on that its own first process should have ended long ago."""
        limit_s = job.resources.timeout_s
        if limit_s is None or job.port is not None:
            return False
        since_s = (_now() - _asked(attempt).started_at).total_seconds()
        return since_s > limit_s + 2 * _GRACE_S

    def _inspected(self, name: str) -> dict[str, Any] | None:
        client = self._client
        try:
            with engine.speaking(f"look at {name}"):
                found: dict[str, Any] = client.inspect_container(container(self._owner, name))
                return found
        except engine.NoSuchContainer:
            return None

    def _collect(self, name: str, attempt: Path, found: Mapping[str, Any]) -> Ended:
        """Keep the log of a container that has ended, and how; then remove it."""
        state = found["State"]
        if (ended := _ended(attempt)) is not None:
            return ended
        with contextlib.suppress(engine.NoSuchContainer):
            self._keep_log(name, attempt)
        code = int(state["ExitCode"])
        finished = _time(state["FinishedAt"])
        reason: str | None = None
        asked = _asked(attempt)
        took_s = (finished - asked.started_at).total_seconds()
        if (attempt / "cancelled").exists():
            reason = "cancelled"
        elif state.get("OOMKilled"):
            reason = "out-of-memory"
        elif asked.spec.resources.timeout_s is not None and (
            (code == entry.TIME_LIMIT and took_s >= asked.spec.resources.timeout_s)
            or self._is_over_time(attempt, asked.spec)
        ):
            reason = "time-limit"
        elif code in (126, entry.CANNOT_START) and (took_s < _STEADY_S or state.get("Error")):
            reason = "cannot-start"
        message = " ".join(str(state.get("Error") or "").split())[:400]
        ended = Ended(
            exit_code=128 - code if 128 < code <= 128 + 64 else code,
            finished_at=finished,
            reason=reason,
            message=message or _first_line(attempt) if reason == "cannot-start" else message,
        )
        self._keep(attempt, ended)
        self._remove(name, serves=asked.spec.port is not None)
        return ended

    def _keep(self, attempt: Path, ended: Ended) -> Ended:
        layout.write_file(attempt / "exit.json", msgspec.json.encode(ended))
        return ended

    def _keep_log(self, name: str, attempt: Path) -> None:
        temporary = attempt / ".log"
        with temporary.open("wb") as file, engine.speaking(f"tell the log of {name}"):
            for chunk in self._client.logs(container(self._owner, name), stream=True):
                file.write(chunk)
        temporary.replace(attempt / "log")

    def _remove(self, name: str, *, serves: bool = True) -> None:
        client = self._client
        with (
            contextlib.suppress(engine.NoSuchContainer, engine.NameTaken),
            engine.speaking(f"remove the container of {name}"),
        ):
            client.remove_container(container(self._owner, name), force=True, v=True)
        if not serves:
            return
        # The last service takes the network along; while another is in it the engine refuses.
        with (
            contextlib.suppress(engine.EngineRefused, engine.NoSuchContainer, engine.NameTaken),
            engine.speaking("remove the network"),
        ):
            if client.networks(names=[f"^{network(self._owner)}$"]):
                client.remove_network(network(self._owner))

    # --- the rest ---------------------------------------------------------------------------------

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
        if chosen is None or not chosen.is_dir():
            return
        number = since_line
        while True:
            over = not follow or _ended(chosen) is not None
            for line in _from(self._lines(handle, chosen, follow=not over), number):
                number += 1
                yield line
            if over:
                return
            self.poll([handle])  # which keeps the log of one that has ended
            time.sleep(_POLL_S)

    def _lines(self, handle: JobHandle, attempt: Path, *, follow: bool) -> Iterator[str]:
        """Yield all lines that there are: of the kept log, else of the container's."""
        if (attempt / "log").exists():
            with (attempt / "log").open("rb") as file:
                yield from _split(file)
            return
        with contextlib.suppress(engine.NoSuchContainer, engine.NameTaken):
            name = container(self._owner, handle.name)
            with engine.speaking(f"tell the log of {handle.name}"):
                yield from _split(self._client.logs(name, stream=True, follow=follow))

    def scale(self, handle: JobHandle, replicas: int) -> None:
        """Stop the job (0), or start it again as it was asked for (1)."""
        if replicas == 0:
            self.cancel(handle)
            return
        newest = _newest(self._folder / layout.checked_job(handle.name))
        if newest is not None:
            self.launch(_asked(newest).spec)

    def cancel(self, handle: JobHandle) -> None:
        """Ask the job to end; the engine kills it after 15 s."""
        folder = self._folder / layout.checked_job(handle.name)
        newest = _newest(folder)
        if newest is None or _ended(newest) is not None:
            return
        with places.only_one(folder):
            (newest / "cancelled").touch()
            self._stop(handle.name)
            found = self._inspected(handle.name)
            if found is not None and found["State"]["Status"] == "exited":
                self._collect(handle.name, newest, found)

    def _stop(self, name: str) -> None:
        """Have a container stopped: the engine goes on with it though nobody waits."""
        client = self._client

        def stop() -> None:
            with contextlib.suppress(Exception):
                client.stop(container(self._owner, name), timeout=_GRACE_S)

        thread = threading.Thread(target=stop, daemon=True)
        thread.start()
        thread.join(timeout=1.0)

    def jobs(self) -> Sequence[JobHandle]:
        """Return the jobs whose containers are up."""
        listed = self._listed()
        self._collect_others(listed, set())
        return [
            JobHandle(launcher=self.name, name=name)
            for name, seen in sorted(listed.items())
            if seen["State"] in ("running", "restarting", "paused")
        ]

    def gather(self, handle: JobHandle) -> None:
        """Do nothing: jobs write to their outboxes themselves."""

    def ending(self, handle: JobHandle) -> str:
        """Return the command that ends the job's container."""
        return f"docker rm -f {container(self._owner, handle.name)}"

    @contextlib.contextmanager
    def reach(self, handle: JobHandle) -> Generator[str, None, None]:
        """Yield the port of 127.0.0.1 that the engine has published the job's at."""
        seen = self._listed().get(handle.name)
        local = None if seen is None else _published(seen)
        yield "" if local is None else f"tcp:127.0.0.1:{local}"

    def planned(self, job: JobSpec) -> Sequence[Mapping[str, Any]]:
        """Return the container that the engine would be asked to create."""
        newest = _newest(self._folder / layout.checked_job(job.name))
        number = 1 if newest is None else int(newest.name[1:]) + (_ended(newest) is not None)
        return [self._as_sent(job, f"a{number}")]

    def _as_sent(self, job: JobSpec, attempt: str) -> dict[str, Any]:
        user = f"{self._user[0]}:{self._user[1]}"
        asked = manifest(job, owner=self._owner, attempt=attempt, user=user)
        return {"name": container(self._owner, job.name), **asked}

    def live(self, handle: JobHandle) -> Sequence[Mapping[str, Any]]:
        """Return the container of a job that is up, in the fields that we ask for."""
        newest = _newest(self._folder / layout.checked_job(handle.name))
        found = None if newest is None else self._inspected(handle.name)
        if newest is None or found is None:
            return []
        asked = self._as_sent(_asked(newest).spec, newest.name)
        told = {**found, **found["Config"], "name": found["Name"].lstrip("/")}
        ours = {entry.partition("=")[0] for entry in asked["Env"]}  # the rest is the image's
        told["Env"] = sorted(one for one in told["Env"] if one.partition("=")[0] in ours)
        return [_same_fields(told, asked)]


def _same_fields(found: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was found in the fields that were asked for, all the way down."""
    kept: dict[str, Any] = {}
    for key, wanted in asked.items():
        have = found.get(key, wanted)
        both = isinstance(wanted, Mapping) and isinstance(have, Mapping)
        kept[key] = _same_fields(have, wanted) if both and wanted else have
    return kept


def _now() -> datetime:
    return datetime.now(UTC)


def _time(text: str) -> datetime:
    """Return a time of the engine's, which counts nanoseconds."""
    stem, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{stem}.{(fraction + '000000')[:6]}+00:00")


def _published(seen: Mapping[str, Any]) -> int | None:
    ports = [one.get("PublicPort") for one in seen.get("Ports") or ()]
    return next((port for port in ports if port), None)


def _is_fresh(seen: Mapping[str, Any], attempt: Path) -> bool:
    """Return whether a container has been up for seconds, and its attempt for longer."""
    lasted_s = (_now() - _asked(attempt).started_at).total_seconds()
    return lasted_s > 1.0 and "second" in str(seen.get("Status", "")).lower()


def _split(chunks: Any) -> Iterator[str]:
    """Yield the lines of a stream of bytes, without their ends."""
    pending = b""
    for chunk in chunks:
        *whole, pending = (pending + chunk).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")
    if pending:
        yield pending.decode(errors="replace")


def _from(lines: Iterator[str], start: int) -> Iterator[str]:
    for number, line in enumerate(lines):
        if number >= start:
            yield line


def _first_line(attempt: Path) -> str:
    return places.tail(attempt / "log")


def _final(ended: Ended, attempt: Path, attempts: tuple[Attempt, ...]) -> JobStatus:
    if ended.reason == "removed":
        words = places.tail(attempt / "log")
        cause = replace(
            places.lost(words),
            message=f"the job's container was removed; its last words: {words}",
        )
        return JobStatus(status=Status.LOST, desired=0, attempts=attempts, cause=cause)
    if ended.reason == "cancelled":
        status, cause = Status.CANCELLED, places.CAUSES["cancelled"]
    elif ended.reason in places.CAUSES:
        known = places.CAUSES[ended.reason]
        cause = replace(known, message=ended.message or known.message)
        status = Status.FAILED
    elif ended.reason is not None:
        status, cause = (
            Status.FAILED,
            Cause(code=ended.reason, message=ended.message, hint=_HINTS[ended.reason]),
        )
    elif ended.exit_code == 0:
        return JobStatus(status=Status.SUCCEEDED, desired=0, attempts=attempts)
    else:
        status = Status.FAILED
        cause = places.failed(ended.exit_code, places.tail(attempt / "log"))
    return JobStatus(status=status, desired=0, attempts=attempts, cause=cause)


_HINTS = {
    "image-missing": "Make it: `nbmlops build`; then run it again.",
    "port-taken": "End the program that has the port, or undeploy and deploy again.",
}


def _newest(folder: Path) -> Path | None:
    """Return the newest attempt that was asked for."""
    asked = [path for path in places.attempts(folder) if (path / "job.json").exists()]
    return asked[-1] if asked else None


def _attempt(path: Path) -> Attempt:
    ended = _ended(path)
    return Attempt(
        name=path.name,
        started_at=_asked(path).started_at,
        finished_at=ended.finished_at if ended else None,
        exit_code=ended.exit_code if ended else None,
    )


def _asked(attempt: Path) -> _Asked:
    return msgspec.json.decode((attempt / "job.json").read_bytes(), type=_Asked)


def _ended(attempt: Path) -> Ended | None:
    try:
        return msgspec.json.decode((attempt / "exit.json").read_bytes(), type=Ended)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
