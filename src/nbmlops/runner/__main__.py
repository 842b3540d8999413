"""The program of a run's job: ``python -m nbmlops.runner``."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shutil
import sys
import threading
import traceback
import warnings
from collections.abc import Generator, Iterable
from pathlib import Path, PurePosixPath

from nbmlops import archives, digests, layout, records
from nbmlops.records import Cause, OutboxFile, RunSpec, Status, StepSpec, utc_now
from nbmlops.runner import cells, checkout, report
from nbmlops.runner.attempt import Attempt, StepFailed

_HEARTBEAT_S = 2.0
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def main() -> int:
    """Run what the inbox describes; return the exit code of the job."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # the log is UTF-8, whatever the locale says
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    warnings.simplefilter("ignore")  # of libraries; a user's own warnings show in the notebook
    inbox = Path(os.environ.pop(layout.INBOX_VARIABLE))
    name = layout.checked_name(os.environ.pop(layout.ATTEMPT_VARIABLE), "attempt")
    outbox = Path(os.environ.pop(layout.OUTBOX_VARIABLE)) / name
    outbox.mkdir(parents=True, exist_ok=True)
    spec = records.load(layout.spec_of(inbox, name).read_bytes(), RunSpec)
    run = Attempt(spec, outbox, name)
    run.emit("started", values={"attempt": name, "run_id": spec.run_id})
    status = Status.FAILED
    with _heartbeat(run):
        try:
            cells.describe_kernel(outbox / "jupyter", spec)
            for step in spec.steps:
                if step.cached_from is None:
                    _run_step(run, step, inbox)
            status = Status.SUCCEEDED
        except StepFailed as failure:
            run.cause = failure.cause
        except Exception as error:
            run.cause = _of_ours(run, error)
    shutil.rmtree(outbox / "work", ignore_errors=True)
    shutil.rmtree(outbox / "jupyter", ignore_errors=True)
    with contextlib.suppress(OSError):  # a full disk; the result says the same
        run.emit("finished", status=status.value)
    layout.write_file(outbox / layout.RESULT_FILE, records.dump(run.result(status)))
    shutil.rmtree(run.tracking, ignore_errors=True)
    return 0 if status is Status.SUCCEEDED else 1


def _of_ours(run: Attempt, error: Exception) -> Cause:
    """Return the cause of a failure that no cell made: a full disk, or a fault of the runner."""
    if isinstance(error, OSError) and error.errno in _DISK:
        return Cause(
            code="storage-failed",
            message=run.redacted(f"the file system refused {error.filename or run.outbox}: ")
            + os.strerror(error.errno or 0),
            hint="See that the disk has room and is writable; then run it again.",
        )
    with contextlib.suppress(OSError):
        run.console.write(traceback.format_exc())
    return Cause(
        code="runner-failed",
        message=run.redacted(f"{type(error).__name__}: {error}")[:2000],
        hint=f"See the log: `nbmlops logs {run.spec.run_id}`.",
    )


@contextlib.contextmanager
def _heartbeat(run: Attempt) -> Generator[None, None, None]:
    over = threading.Event()

    def beat() -> None:
        while not over.wait(_HEARTBEAT_S):
            # What cannot be taken now is met again by the thread that runs the cells, and told.
            with contextlib.suppress(Exception):
                run.drain()
                run.emit("heartbeat")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _prepare(run: Attempt, step: StepSpec, inbox: Path) -> Path:
    """Make the folder that a step runs in, and return the project's folder in it.

    Each step starts from a clean checkout with what the steps before it listed as outputs, so a
    step whose forerunner came from the cache finds the same files as one whose did not.
    """
    work = run.outbox / "work" / step.name
    archives.unpack(inbox / layout.SOURCE_FILE, work)
    project = PurePosixPath(run.spec.project_dir)
    before = _before(step, run.spec.steps)
    for file in run.spec.files:
        if file.step is None or file.step in before:
            checkout.lay(checkout.content_of(inbox, file.digest), work, project / file.path)
    for file in _outputs_of(run, before):
        checkout.lay(run.outbox / file.path, work, project / file.name)
    return work / project


def _before(step: StepSpec, steps: Iterable[StepSpec]) -> set[str]:
    """Return the names of all steps that come before, near and far."""
    after = {other.name: other.after for other in steps}
    found: set[str] = set()
    waiting = list(step.after)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += after[name]
    return found


def _outputs_of(run: Attempt, steps: set[str]) -> list[OutboxFile]:
    return [
        run.files[name]
        for step, outcome in run.outcomes.items()
        if step in steps
        for name in outcome.files
        if run.files[name].kind == "output"
    ]


def _run_step(run: Attempt, step: StepSpec, inbox: Path) -> None:
    project = _prepare(run, step, inbox)
    os.environ.update(
        {
            layout.JOB_VARIABLE: run.spec.run_id,
            layout.TRACKING_VARIABLE: str(run.tracking),
            layout.PIPELINE_VARIABLE: run.spec.pipeline,
            layout.PROJECT_VARIABLE: str(project.resolve()),
            layout.DATA_VARIABLE: json.dumps(run.spec.data),
        }
    )
    begun = records.replace(run.steps[step.name], status=Status.RUNNING, started_at=utc_now())
    run.steps[step.name] = begun
    run.emit("step", step=step.name, status="running")
    executed = run.outbox / f"{step.name}.ipynb"
    cause: Cause | None = None
    try:
        cells.execute(run, step, project / step.notebook, executed)
        _take_outputs(run, step, project)
    except StepFailed as failure:
        cause = failure.cause
    finally:
        run.drain()
        run.current = None
    status = Status.FAILED if cause else Status.SUCCEEDED
    run.steps[step.name] = records.replace(
        run.steps[step.name], status=status, finished_at=utc_now()
    )
    if executed.exists():
        _report(run, step, executed)
    run.emit("step", step=step.name, status=status.value)
    shutil.rmtree(run.outbox / "work" / step.name, ignore_errors=True)
    if cause:
        raise StepFailed(cause)


def _report(run: Attempt, step: StepSpec, executed: Path) -> None:
    """Keep the executed notebook, and the same as a page."""
    report.tidy(executed, run.redacted)
    run.add(step, f"{step.name}.ipynb", executed, "executed")
    page = executed.with_suffix(".html")
    try:
        page.write_bytes(run.pages.html(executed, f"{step.name} of {run.spec.run_id}"))
        run.add(step, f"{step.name}.html", page, "report")
    except Exception as error:  # the run is what counts, and its notebook is kept
        run.console.write(f"nbmlops: no HTML report of {step.name}: {error}\n")
    page.unlink(missing_ok=True)
    executed.unlink()


def _take_outputs(run: Attempt, step: StepSpec, project: Path) -> None:
    for name in step.outputs:
        source = project / name
        if source.is_dir() and not source.is_symlink():
            for within, file in digests.files_below(source):
                run.add(step, f"{name.rstrip('/')}/{within}", file, "output")
            continue
        if not source.is_file() or source.is_symlink():
            raise StepFailed(
                Cause(
                    code="output-missing",
                    message=f"step `{step.name}` left no file {name}",
                    notebook=step.notebook,
                    hint=f"Write it in {step.notebook}, or take it out of `outputs`.",
                )
            )
        run.add(step, name, source, "output")


if __name__ == "__main__":
    exit_code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # The result is written; taking the libraries down one by one would only take time.
    os._exit(exit_code)
