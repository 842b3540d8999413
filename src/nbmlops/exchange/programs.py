"""A program as a child: signals are forwarded, orphans reaped, its time is limited."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from pathlib import Path

from nbmlops.parcels import Outcome

GRACE_S = 15.0
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
# Where the kernel counts what it has killed for want of memory, by version of cgroups.
_MEMORY_EVENTS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")


def keep_from_being_read() -> None:
    """Keep programs of the same user from reading this one's environment and memory."""
    _prctl(_PR_SET_DUMPABLE, 0)


def run(
    command: Sequence[str],
    environ: dict[str, str],
    timeout_s: float | None = None,
    drain_s: float = 0.0,
) -> Outcome:
    """Run a program to its end, and whatever it has started.

    On SIGTERM it is told after ``drain_s``, in which others learn to call elsewhere, and killed
    when it goes on for 15 s.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    killed_before = _killed_for_memory()
    with _waking() as (awake, signals):
        try:
            child = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL)
        except (OSError, ValueError) as error:
            return Outcome(exit_code=127, reason="cannot-start", message=str(error)[:1000])
        code, reason = _watch(child, awake, signals, timeout_s, drain_s)
    _end_all()
    if code == -signal.SIGKILL and reason is None and _killed_for_memory() > killed_before:
        reason = "out-of-memory"
    elif code != 0 and reason is None and _killed_for_memory() > killed_before:
        reason = "out-of-memory"  # a child of the program, such as a notebook's kernel
    return Outcome(exit_code=code, reason=reason)


def _watch(
    child: subprocess.Popen[bytes],
    awake: int,
    signals: list[int],
    timeout_s: float | None,
    drain_s: float,
) -> tuple[int, str | None]:
    """Return the program's exit code, and why it was ended from outside."""
    limit = None if timeout_s is None else time.monotonic() + timeout_s
    reason: str | None = None
    terminate_at = kill_at = None
    while True:
        if (code := _reaped(child.pid)) is not None:
            child.returncode = code  # reaped here, so that its object does not wait for it
            return code, reason
        now = time.monotonic()
        if reason is None and signals:
            reason, terminate_at = "cancelled", now + drain_s
        if reason is None and limit is not None and now >= limit:
            reason, terminate_at = "time-limit", now
        if terminate_at is not None and now >= terminate_at:
            child.send_signal(signal.SIGTERM)
            terminate_at, kill_at = None, now + GRACE_S
        if kill_at is not None and now >= kill_at:
            child.kill()
            kill_at = None
        waits = [at - now for at in (terminate_at, kill_at) if at is not None]
        if reason is None and limit is not None:
            waits.append(limit - now)
        select.select([awake], [], [], max(0.0, min(waits)) if waits else None)
        with contextlib.suppress(BlockingIOError):
            os.read(awake, 4096)


def _reaped(wanted: int) -> int | None:
    """Reap all that have ended; return the exit code of the wanted one if it is among them."""
    found: int | None = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == wanted:
            found = os.waitstatus_to_exitcode(status)


@contextlib.contextmanager
def _waking() -> Generator[tuple[int, list[int]], None, None]:
    """Yield a descriptor that is readable after a signal, and the signals that ask for the end."""
    signals: list[int] = []
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    handlers = {
        number: signal.signal(number, lambda got, _: signals.append(got))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda _, __: None)
    try:
        yield reading, signals
    finally:
        signal.set_wakeup_fd(before)
        # A second SIGTERM does not end this program while it ships.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, handlers[signal.SIGCHLD])
        os.close(reading)
        os.close(writing)


def _end_all() -> None:
    """Kill what the program has left behind: nothing writes into the log any more."""
    deadline = time.monotonic() + 5
    while (pids := _children()) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _reaped(0)
        time.sleep(0.01)


def _children() -> list[int]:
    found: list[int] = []
    for file in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(pid) for pid in file.read_text().split()]
    return found


def _killed_for_memory() -> int:
    for name in _MEMORY_EVENTS:
        with contextlib.suppress(OSError):
            for line in Path(name).read_text().splitlines():
                key, _, count = line.partition(" ")
                if key == "oom_kill":
                    return int(count)
    return 0


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
