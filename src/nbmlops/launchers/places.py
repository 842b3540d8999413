"""What launchers share: where a job's folders are, its last words, whether it answers."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import re
import socket
from collections.abc import Generator, Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from nbmlops.records import Cause, JobHandle, JobStatus, Status

# A line that a program writes for other programs, behind a marker: nobody's last words.
_EVENT = re.compile(r"(nbmlops-events )?[0-9a-f]{32}( \{|$)")
_PATIENCE_S = 2.0

CAUSES = {
    "out-of-memory": Cause(
        code="out-of-memory",
        message="the job used more memory than it may",
        hint="Raise `resources.memory_mib` of the pipeline in nbmlops.toml.",
    ),
    "time-limit": Cause(
        code="time-limit",
        message="the job took longer than it may",
        hint="Raise `resources.timeout_s` of the pipeline in nbmlops.toml.",
    ),
    "cannot-start": Cause(
        code="cannot-start",
        message="the job's program cannot be started",
        hint="Run `nbmlops doctor`.",
    ),
    "cancelled": Cause(code="cancelled", message="the job was cancelled"),
}


def attempts(folder: Path) -> list[Path]:
    """Return the folders ``a1``, ``a2`` and so on of a job's attempts, in their order."""
    return sorted(
        (path for path in folder.glob("a*") if path.name[1:].isdigit()),
        key=lambda path: int(path.name[1:]),
    )


@contextlib.contextmanager
def only_one(folder: Path) -> Generator[int, None, None]:
    """Keep other processes from the job of a folder meanwhile; yield the lock's descriptor."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def folder_of(uri: str) -> Path:
    """Return the folder of this machine that a ``file:`` URI, or a path, names."""
    return Path(unquote(urlsplit(uri).path) if uri.startswith("file:") else uri)


def unknown(handle: JobHandle) -> JobStatus:
    """Return how a job stands that a launcher has never heard of."""
    cause = Cause(code="job-unknown", message=f"no job {handle.name} is known here")
    return JobStatus(status=Status.LOST, cause=cause)


def lost(words: str) -> Cause:
    """Return the cause of a job that is gone and has not told how it ended."""
    message = f"the job's process is gone; its last words: {words}"
    return Cause(code="job-lost", message=message, hint="Run it again.")


def failed(exit_code: int, words: str) -> Cause:
    """Return the cause of a job whose program ended badly; below zero a signal ended it."""
    how = f"killed by signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
    return Cause(
        code="job-killed" if exit_code < 0 else "job-failed",
        message=f"the job ended ({how}); its last words: {words}",
        hint="See all of them: `nbmlops logs`.",
    )


def last_words(lines: Iterable[str]) -> str:
    """Return the last lines that were meant for people, in one short line.

    >>> last_words(["one", "", "Traceback", "ValueError: no"])
    'one | Traceback | ValueError: no'
    """
    said = [line.strip() for line in lines if line.strip() and not _EVENT.match(line)]
    return " | ".join(said[-3:])[-400:] or "none"


def tail(path: Path, limit_bytes: int = 2000) -> str:
    """Return the last words of a log file; one that is not there had none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - limit_bytes))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        lines = []
    return last_words(lines)


class Connection(http.client.HTTPConnection):
    """An HTTP connection to ``http://HOST:PORT``, ``tcp:HOST:PORT`` or ``unix:/path``."""

    def __init__(self, address: str, timeout_s: float) -> None:
        self._unix = address.removeprefix("unix:") if address.startswith("unix:") else None
        host = "localhost" if self._unix else address.removeprefix("http://").removeprefix("tcp:")
        super().__init__(host, timeout=timeout_s)

    def connect(self) -> None:
        """Connect, on TCP or the Unix socket."""
        if self._unix is None:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._unix)


def answers(address: str, ready_path: str | None) -> bool:
    """Return whether a job with a port answers 200 at its ready path."""
    connection = Connection(address, _PATIENCE_S)
    try:
        connection.request("GET", ready_path or "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
