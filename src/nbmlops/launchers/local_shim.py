"""The parent of a local job: starts it, watches its time and memory, writes down how it ended.

Started by path in isolated mode by :mod:`nbmlops.launchers.local`, in a session of its own, so it
outlives the kernel, the server and the terminal that asked for the job. Standard library and
psutil only. What it writes, in the attempt's folder: ``pid.json`` first, ``exit.json`` last.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

_GRACE_S = 15.0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_WATCH_S = 0.2


def main() -> None:
    """Run the job that ``job.json`` in the folder of the first argument describes."""
    folder = Path(sys.argv[1])
    job: dict[str, Any] = json.loads((folder / "job.json").read_bytes())
    reading, writing = os.pipe()
    if os.fork():
        # The caller waits for this process only until the job's parent has its pid written down.
        os.close(writing)
        ready = os.read(reading, 1)
        os._exit(0 if ready else 1)
    os.close(reading)
    signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    child = _start(job, folder)
    own = psutil.Process()
    _write(
        folder / "pid.json",
        {"pid": own.pid, "started": started(own.pid), "child": child.pid, "boot": boot_id()},
    )
    os.close(int(sys.argv[2]))  # the lock under which jobs are launched
    os.write(writing, b"1")
    os.close(writing)
    reason = _watch(child, job, signals)
    code = child.wait()
    _end(own.children(recursive=True))
    _write(folder / "exit.json", {"exit_code": code, "reason": reason, "finished_s": time.time()})


def _start(job: dict[str, Any], folder: Path) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            job["command"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            # A parent that is killed takes the job along: nothing runs that is believed dead.
            preexec_fn=lambda: _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509
        )
    except OSError as error:
        _write(
            folder / "exit.json",
            {
                "exit_code": 127,
                "reason": "cannot-start",
                "message": str(error),
                "finished_s": time.time(),
            },
        )
        sys.exit(1)


def _watch(child: subprocess.Popen[bytes], job: dict[str, Any], signals: list[int]) -> str | None:
    """Return why the job was ended from outside, or ``None`` when it ended by itself."""
    limit_s = job.get("timeout_s")
    limit_bytes = (job.get("memory_mib") or 0) * 2**20
    started = time.monotonic()
    memory_checked = started
    while not _ended_within(child, _WATCH_S):
        now = time.monotonic()
        if signals:
            return _stop(child, "cancelled")
        if limit_s is not None and now - started > limit_s:
            return _stop(child, "time-limit")
        if limit_bytes and now - memory_checked > 1.0:
            memory_checked = now
            if _resident_bytes(child.pid) > limit_bytes:
                _end(_tree(child.pid))
                return "out-of-memory"
    return "cancelled" if signals else None


def _ended_within(child: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait for the job's end; on Linux its end is noticed at once."""
    if hasattr(os, "pidfd_open"):
        descriptor = os.pidfd_open(child.pid)
        try:
            select.select([descriptor], [], [], seconds)
        finally:
            os.close(descriptor)
        return child.poll() is not None
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _stop(child: subprocess.Popen[bytes], reason: str) -> str:
    child.terminate()
    try:
        child.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        _end(_tree(child.pid))
    return reason


def _tree(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _resident_bytes(pid: int) -> int:
    total = 0
    for process in _tree(pid):
        try:
            total += process.memory_info().rss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=5)


def started(pid: int) -> str:
    """Return what tells this process from a later one with its number.

    On Linux in ticks since the boot, which no correction of the clock moves.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return f"{psutil.Process(pid).create_time():.1f}"
    return text.rpartition(")")[2].split()[19]


def boot_id() -> str:
    """Return what tells this boot of the machine from another."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"{psutil.boot_time():.0f}"


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _write(path: Path, document: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}")
    with temporary.open("w") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


if __name__ == "__main__":
    main()
