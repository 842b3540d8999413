"""``python -m nbmlops.exchange -- COMMAND...``: run a job's program between inbox and outbox.

``python -m nbmlops.exchange courier FOLDER PORT`` hands out what jobs have left on a claim;
``python -m nbmlops.exchange lay`` brings the inbox for a program that has nothing of ours before
it, and ends.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import MutableMapping, Sequence
from pathlib import Path

import msgspec

from nbmlops import layout, parcels
from nbmlops.exchange import programs, ways
from nbmlops.exchange.courier import Courier
from nbmlops.parcels import Outcome, Plan
from nbmlops.records import replace


def main(arguments: Sequence[str], environ: MutableMapping[str, str]) -> int:
    """Do what the plan says; return the exit code of the program, 128 and the signal's number."""
    if arguments[:1] == ["courier"]:
        Courier(Path(arguments[1]), int(arguments[2])).serve_for_a_while()
        return 0
    if arguments[:1] == ["lay"]:
        return _lay(environ)
    if "--" not in arguments:
        sys.stderr.write("usage: python -m nbmlops.exchange -- COMMAND...\n")
        return 2
    command = list(arguments[list(arguments).index("--") + 1 :])
    programs.keep_from_being_read()
    plan = msgspec.json.decode(environ[parcels.PLAN_VARIABLE], type=Plan)
    marker = environ.pop(parcels.MARKER_VARIABLE, "")
    work = Path(plan.work)
    index = environ.get("JOB_COMPLETION_INDEX")
    attempt = plan.attempt if index is None else f"i{index}"
    given = _environment(environ, work, attempt, plan.port)
    way = ways.of(plan, attempt, marker)
    begun_s = time.time()
    try:
        way.bring(Path(given[layout.INBOX_VARIABLE]))
        outbox = way.outbox(Path(given[layout.OUTBOX_VARIABLE]))
        given[layout.OUTBOX_VARIABLE] = str(outbox)
    except ways.FAILURES as error:
        outcome = Outcome(exit_code=1, reason="inbox-missing", message=ways.told(error))
    else:
        with way.shipping(outbox):
            outcome = programs.run(command, given, plan.timeout_s, plan.drain_s)
        outcome = _shipped(way, outbox, outcome)
    outcome = replace(outcome, started_s=begun_s, finished_s=time.time())
    Path(plan.message).write_bytes(parcels.message(outcome))
    return outcome.exit_code if outcome.exit_code >= 0 else 128 - outcome.exit_code


def _lay(environ: MutableMapping[str, str]) -> int:
    """Bring the inbox; return 0, or 1 with the reason in the pod's message."""
    plan = msgspec.json.decode(environ[parcels.PLAN_VARIABLE], type=Plan)
    _open_store(environ)
    begun_s = time.time()
    try:
        ways.of(plan, plan.attempt, "").bring(Path(plan.work) / "inbox")
    except ways.FAILURES as error:
        outcome = Outcome(
            exit_code=1,
            reason="inbox-missing",
            message=ways.told(error),
            started_s=begun_s,
            finished_s=time.time(),
        )
        sys.stderr.write(f"{outcome.message}\n")
        Path(plan.message).write_bytes(parcels.message(outcome))
        return 1
    return 0


def _open_store(environ: MutableMapping[str, str]) -> None:
    """Give what opens the object store the names that its library knows."""
    for name in [name for name in environ if name.startswith(parcels.CREDENTIALS_PREFIX)]:
        environ[name.removeprefix(parcels.CREDENTIALS_PREFIX)] = environ.pop(name)


def _environment(
    environ: MutableMapping[str, str], work: Path, attempt: str, port: int | None
) -> dict[str, str]:
    """Return the program's environment; what opens the object store stays with this program."""
    ours = {name for name in environ if name.startswith(parcels.CREDENTIALS_PREFIX)}
    given = {
        name: value
        for name, value in environ.items()
        if name not in ours and name != parcels.PLAN_VARIABLE
    }
    _open_store(environ)
    given |= {
        layout.INBOX_VARIABLE: str(work / "inbox"),
        layout.OUTBOX_VARIABLE: str(work / "outbox"),
        layout.ATTEMPT_VARIABLE: attempt,
        "PYTHONUNBUFFERED": "1",
    }
    if port is not None:
        given[layout.LISTEN_VARIABLE] = f"tcp:0.0.0.0:{port}"
    return given


def _shipped(way: ways.Way, outbox: Path, outcome: Outcome) -> Outcome:
    """Ship the outbox; what keeps it from being sent makes a failure of a success."""
    try:
        return way.ship(outbox, outcome)
    except ways.FAILURES as error:
        reason = outcome.reason or ways.reason_of(error)
        said = outcome.message or ways.told(error)
        return replace(outcome, exit_code=outcome.exit_code or 1, reason=reason, message=said)


if __name__ == "__main__":
    exit_code = main(sys.argv[1:], os.environ)
    sys.stdout.flush()
    os._exit(exit_code)
