"""The first process of a run's container: ``python -m nbmlops.entry COMMAND...``.

It hands the secrets that come on its standard input to the command as variables, ends it after
``$NBMLOPS_TIMEOUT_S`` seconds though nobody watches, passes signals on and sees off orphans. Its
exit code is the command's; 128 and more for a signal; those of ``timeout`` and the shell for what
it decides itself. Imports the standard library alone: it stands before every job.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from types import FrameType

SECRETS_VARIABLE = "NBMLOPS_SECRETS"
TIMEOUT_VARIABLE = "NBMLOPS_TIMEOUT_S"
TIME_LIMIT, CANNOT_START = 124, 127
_GRACE_S = 10.0


def main(command: list[str]) -> int:
    """Run the command and return its exit code."""
    timeout_s = float(os.environ.pop(TIMEOUT_VARIABLE, "0"))
    secrets: dict[str, str] = {}
    if os.environ.pop(SECRETS_VARIABLE, ""):
        secrets = json.loads(sys.stdin.readline() or "{}")
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **secrets},
            start_new_session=True,
        )
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr, flush=True)  # noqa: T201 the log
        return CANNOT_START

    def pass_on(number: int, _: FrameType | None) -> None:
        _tell(child.pid, signal.Signals(number))

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    code = _seen_off(child.pid, time.monotonic() + timeout_s if timeout_s else None)
    if code is None:
        _tell(child.pid, signal.SIGTERM)
        if _seen_off(child.pid, time.monotonic() + _GRACE_S) is None:
            _tell(child.pid, signal.SIGKILL)
        return TIME_LIMIT
    return code if code >= 0 else 128 - code


def _tell(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _seen_off(pid: int, deadline_s: float | None) -> int | None:
    """Wait for the child, and for every orphan meanwhile; ``None`` when the time is up."""
    pause_s = 0.002
    while True:
        found, status = os.waitpid(-1, 0 if deadline_s is None else os.WNOHANG)
        if found == pid:
            return os.waitstatus_to_exitcode(status)
        if found:
            continue
        if deadline_s is not None and time.monotonic() >= deadline_s:
            return None
        time.sleep(pause_s)
        pause_s = min(0.05, pause_s * 1.5)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
