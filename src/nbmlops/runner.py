"""The tool side of a run, inside the job: steps through papermill, events out, result last.

Reads ``spec.json`` and ``source.tar`` from the inbox. Each notebook runs in a kernel of the
project's environment. Events are lines on standard output behind a marker that is drawn at random
and told in the first line, before any cell runs, so that no cell can forge one; ``events.jsonl``
is the runner's own copy. ``result.json`` is written last, by rename.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import sys
import tarfile
import threading
import traceback
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import msgspec

from nbmlops import layout, records
from nbmlops.records import (
    Cause,
    DataRecord,
    Event,
    LoggedModel,
    OutboxFile,
    RunResult,
    RunSpec,
    Status,
    StepRecord,
    StepSpec,
    utc_now,
)

MARKER_LINE = "nbmlops-events "
KERNEL = "nbmlops-project"
_HEARTBEAT_S = 2.0
_FILE_LIMIT_BYTES = 2 * 2**30
_LOG_LIMIT_CHARACTERS = 32 * 2**20
_OWN_NAMES = {"log.txt", "environment.json"}
_TYPES = {"model": "application/octet-stream", "executed": "application/x-ipynb+json"}


class Redaction:
    """Takes the values of secrets out of whatever is written; short ones would hit chance text."""

    def __init__(self, values: Iterable[str]) -> None:
        spelled = {s for v in values if len(v) >= 4 for s in (v, json.dumps(v)[1:-1])}
        self._spelled = sorted(spelled, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return the text with ``[secret]`` in their places."""
        for value in self._spelled:
            text = text.replace(value, "[secret]")
        return text

    def within(self, value: Any) -> Any:
        """Return JSON with the values of secrets taken out of every text in it, keys included."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, dict):
            return {self(str(key)): self.within(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.within(item) for item in value]
        return value


class Console:
    """Standard output, shared by the cells' text and the events between its lines."""

    def __init__(self, stream: TextIO, copy: Path, redacted: Redaction) -> None:
        self._stream = stream
        self._redacted = redacted
        self._lock = threading.Lock()
        self._at_line_start = True
        self._written = 0
        self._marker = secrets.token_hex(16)
        self._copy = copy.open("ab")
        self.write(f"{MARKER_LINE}{self._marker}\n")

    def write(self, text: str) -> int:
        """Write what a cell printed."""
        if text and self._written <= _LOG_LIMIT_CHARACTERS:
            self._written += len(text)
            if self._written > _LOG_LIMIT_CHARACTERS:
                text = "\n[nbmlops: the log ends here; what follows is in the notebook]\n"
            with self._lock:
                self._stream.write(self._redacted(text))
                self._stream.flush()
                self._at_line_start = text.endswith("\n")
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        self._stream.flush()

    def event(self, event: Event) -> None:
        """Write an event as a line of its own, and to the runner's copy."""
        line = records.dump(self._redacted.within(records.plain(event))).decode()
        with self._lock:
            self._stream.write(f"{'' if self._at_line_start else chr(10)}{self._marker} {line}\n")
            self._stream.flush()
            self._at_line_start = True
            self._copy.write(line.encode() + b"\n")
            self._copy.flush()


def parse_events(lines: Iterator[str]) -> tuple[list[Event], list[str]]:
    """Split a job's log into its events and the rest, by the marker of its first line.

    >>> parse_events(iter(["hello"]))
    ([], ['hello'])
    """
    events: list[Event] = []
    rest: list[str] = []
    prefix: str | None = None
    for line in lines:
        if prefix is None and line.startswith(MARKER_LINE):
            prefix = line.removeprefix(MARKER_LINE) + " "
        elif prefix is not None and line.startswith(prefix):
            try:
                events.append(records.load(line.removeprefix(prefix), Event))
            except (msgspec.DecodeError, msgspec.ValidationError):
                rest.append(line)  # torn, or not ours
        else:
            rest.append(line)
    return events, rest


class Run:
    """The state of one attempt while it runs."""

    def __init__(self, spec: RunSpec, outbox: Path, attempt: str) -> None:
        self.spec = spec
        self.redacted = Redaction(os.environ.get(name, "") for name in spec.secrets)
        console = Console(sys.stdout, outbox / layout.EVENTS_FILE, self.redacted)
        self.outbox = outbox
        self.attempt = attempt
        self.console = console
        self.started_at = utc_now()
        self.tracking = outbox / "tracking"
        self.tracking.mkdir()
        self.steps: dict[str, StepRecord] = {
            step.name: records.planned(step) for step in spec.steps
        }
        self.metrics: dict[str, float | None] = {}
        self.files: dict[str, OutboxFile] = {}
        self.data: dict[str, DataRecord] = {}
        self.models: dict[str, LoggedModel] = {}
        self.cause: Cause | None = None
        # The step with the place of the cell that runs: position and id.
        self.current: tuple[StepSpec, int, str] | None = None
        # The cell tagged `train` of each step, by the step's name.
        self.training: dict[str, tuple[int, str]] = {}
        self._read_to = 0
        self._lock = threading.Lock()

    def emit(self, kind: str, **fields: Any) -> None:
        """Tell the world what happened."""
        self.console.event(Event(kind=kind, at=utc_now(), **fields))

    def drain(self) -> None:
        """Take what the notebook has recorded since the last look."""
        path = self.tracking / layout.EVENTS_FILE
        with self._lock:
            try:
                with path.open("rb") as file:
                    file.seek(self._read_to)
                    content = file.read()
            except FileNotFoundError:
                return
            whole = content[: content.rfind(b"\n") + 1]
            self._read_to += len(whole)
            for line in whole.splitlines():
                event = records.load(line, Event)
                self._take(records.replace(event, values=self.redacted.within(event.values)))

    def _take(self, event: Event) -> None:
        if self.current is None:
            return
        step, cell, cell_id = self.current
        values = event.values
        if event.kind == "metric":
            self.metrics.update(values)
        elif event.kind == "data":
            self.data[values["name"]] = DataRecord(name=values["name"], digest=values["digest"])
        elif event.kind == "artifact":
            source = self.tracking / "files" / Path(values["file"]).name
            self.add(values["name"], source, values["kind"], values.get("media_type"))
        elif event.kind == "model":
            tagged = step.name in self.training
            trained_in, trained_in_id = self.training.get(step.name, (cell, cell_id))
            self.models[values["name"]] = LoggedModel(
                name=values["name"],
                format=values["format"],
                files=values["files"],
                metrics=values["metrics"],
                step=step.name,
                notebook=step.notebook,
                notebook_blob=step.notebook_blob,
                cell_id=trained_in_id,
                cell=trained_in,
                tagged=tagged,
            )
        self.emit(event.kind, step=step.name, cell=cell, cell_id=cell_id, values=values)

    def add(self, name: str, source: Path, kind: str, media_type: str | None = None) -> None:
        """Take a file into the outbox, under a file name of our own; a name is given once."""
        own = {f"{step.name}.ipynb" for step in self.spec.steps} | _OWN_NAMES
        taken = self.files.get(name)
        if (name in own and kind != "executed") or (taken is not None and taken.kind != kind):
            name = f"logged/{name}"
        size = source.stat().st_size
        if size > _FILE_LIMIT_BYTES:
            raise ValueError(f"{name} is larger than {_FILE_LIMIT_BYTES} bytes")
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        target = self.outbox / "files" / digest
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(source, target)
        self.files[name] = OutboxFile(
            name=name,
            path=f"files/{digest}",
            digest=digest,
            bytes=size,
            kind=kind,
            media_type=media_type or _TYPES.get(kind),
        )

    def result(self, status: Status) -> RunResult:
        """Return the attempt's result."""
        return RunResult(
            run_id=self.spec.run_id,
            attempt=self.attempt,
            status=status,
            started_at=self.started_at,
            finished_at=utc_now(),
            steps=tuple(self.steps.values()),
            metrics=self.metrics,
            files=tuple(self.files.values()),
            data=tuple(self.data.values()),
            models=tuple(self.models.values()),
            packages=self.spec.environment.packages,
            cause=self.cause,
        )


def main() -> int:
    """Run what the inbox describes; return the exit code of the job."""
    warnings.simplefilter("ignore")  # of libraries; a user's own warnings show in the notebook
    inbox = Path(os.environ.pop(layout.INBOX_VARIABLE))
    attempt = layout.checked_name(os.environ.pop(layout.ATTEMPT_VARIABLE), "attempt")
    outbox = Path(os.environ.pop(layout.OUTBOX_VARIABLE)) / attempt
    outbox.mkdir(parents=True, exist_ok=True)
    spec = records.load((inbox / layout.SPEC_FILE).read_bytes(), RunSpec)
    run = Run(spec, outbox, attempt)
    run.emit("started", values={"attempt": attempt, "run_id": spec.run_id})
    work = outbox / "work"
    status = Status.FAILED
    with _heartbeat(run):
        try:
            _unpack(inbox / layout.SOURCE_FILE, work)
            _describe_kernel(work.parent / "jupyter", spec)
            for step in spec.steps:
                _run_step(run, step, work / spec.project_dir)
            status = Status.SUCCEEDED
        except _StepFailed as failure:
            run.cause = failure.cause
        except Exception as error:
            traceback.print_exc()
            run.cause = Cause(
                code="runner-failed",
                message=f"{type(error).__name__}: {error}",
                hint=f"See the log: `nbmlops logs {spec.run_id}`.",
            )
    shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(outbox / "jupyter", ignore_errors=True)
    run.emit("finished", status=status.value)
    layout.write_file(outbox / layout.RESULT_FILE, records.dump(run.result(status)))
    shutil.rmtree(run.tracking, ignore_errors=True)
    return 0 if status is Status.SUCCEEDED else 1


@contextlib.contextmanager
def _heartbeat(run: Run) -> Generator[None, None, None]:
    over = threading.Event()

    def beat() -> None:
        while not over.wait(_HEARTBEAT_S):
            run.drain()
            run.emit("heartbeat")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _unpack(archive: Path, work: Path) -> None:
    """Lay out the files of a snapshot; links come last, so that nothing is written through one."""
    work.mkdir()
    inside = work.resolve()
    links: list[tuple[Path, str]] = []
    with tarfile.open(archive) as source:
        for member in source:
            path = inside / member.name
            if not path.parent.resolve().is_relative_to(inside) or ".." in path.parts:
                raise ValueError(f"{member.name} leads out of the snapshot")
            path.parent.mkdir(parents=True, exist_ok=True)
            content = source.extractfile(member) if member.isreg() else None
            if content is not None:
                with path.open("xb") as target:
                    shutil.copyfileobj(content, target)
                path.chmod(0o755 if member.mode & 0o100 else 0o644)
            elif member.issym():
                links.append((path, member.linkname))
            else:
                raise ValueError(f"{member.name} is neither a file nor a link")
    for path, target in links:
        path.symlink_to(target)


def _describe_kernel(folder: Path, spec: RunSpec) -> None:
    """Name the project's interpreter as a Jupyter kernel that only this job sees."""
    kernel = folder / "kernels" / KERNEL
    kernel.mkdir(parents=True)
    # Errors only: ipykernel warns of its unencrypted sockets, on this machine alone, each time.
    command = [spec.python, "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "--log-level=ERROR"]
    document = {
        "argv": [*command, "-f", "{connection_file}"],
        "display_name": "nbmlops project",
        "language": "python",
        "interrupt_mode": "signal",
    }
    (kernel / "kernel.json").write_text(json.dumps(document))
    earlier = os.environ.get("JUPYTER_PATH")
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [str(folder), earlier]))


class _StepFailed(Exception):
    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.message)
        self.cause = cause


def _run_step(run: Run, step: StepSpec, project: Path) -> None:
    notebook = project / step.notebook
    os.environ.update(
        {
            layout.JOB_VARIABLE: run.spec.run_id,
            layout.TRACKING_VARIABLE: str(run.tracking),
            layout.PIPELINE_VARIABLE: run.spec.pipeline,
            layout.PROJECT_VARIABLE: str(project.resolve()),
        }
    )
    begun = records.replace(run.steps[step.name], status=Status.RUNNING, started_at=utc_now())
    run.steps[step.name] = begun
    run.emit("step", step=step.name, status="running")
    executed = run.outbox / f"{step.name}.ipynb"
    cause: Cause | None = None
    try:
        _execute(run, step, notebook, executed)
        _take_outputs(run, step, project)
    except _StepFailed as failure:
        cause = failure.cause
    finally:
        run.drain()
        run.current = None
    if executed.exists():
        _tidy(executed, run.redacted)
        run.add(f"{step.name}.ipynb", executed, "executed")
        executed.unlink()
    status = Status.FAILED if cause else Status.SUCCEEDED
    run.steps[step.name] = records.replace(
        run.steps[step.name], status=status, finished_at=utc_now()
    )
    run.emit("step", step=step.name, status=status.value)
    if cause:
        raise _StepFailed(cause)


def _execute(run: Run, step: StepSpec, notebook: Path, executed: Path) -> None:
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.engines import NBClientEngine, papermill_engines
    from papermill.exceptions import PapermillExecutionError

    logging.getLogger("papermill").setLevel(logging.ERROR)

    class Engine(NBClientEngine):
        """Papermill's own engine, with each cell's start and end told."""

        @classmethod
        def execute_managed_notebook(  # pyright: ignore[reportIncompatibleMethodOverride]
            cls, nb_man: Any, kernel_name: str, **options: Any
        ) -> Any:
            _tell_cells(run, step, nb_man)
            return super().execute_managed_notebook(nb_man, kernel_name, **options)

    papermill_engines.register("nbmlops", Engine)
    if run.spec.environment.source is not None:
        for name in ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP"):
            os.environ.pop(name, None)  # of the tool's side
    try:
        papermill.execute_notebook(
            _literal(notebook),
            _literal(executed),
            parameters=step.parameters,
            engine_name="nbmlops",
            kernel_name=KERNEL,
            language="python",
            progress_bar=False,
            stdout_file=run.console,
            stderr_file=run.console,
            cwd=str(notebook.parent),
        )
    except PapermillExecutionError as error:
        lines = "\n".join(error.traceback or ())
        run.console.write(re.sub(r"\x1b\[[0-9;]*m", "", lines) + "\n")
        raise _cell_failed(run, step, error) from error
    except DeadKernelError as error:
        hint = "It may have run out of memory, or its process was ended."
        raise _failed_here(run, step, "kernel-died", "the kernel died", hint) from error
    except asyncio.CancelledError as error:
        raise _failed_here(run, step, "cancelled", "the run was cancelled", "") from error
    done = run.steps[step.name]
    if done.cells_done < done.cells_total:
        message = f"the notebook ended after {done.cells_done} of {done.cells_total} cells"
        hint = "A cell ended the kernel, such as by `sys.exit()`; leave that out."
        raise _failed_here(run, step, "cell-failed", message, hint)


def _failed_here(run: Run, step: StepSpec, code: str, message: str, hint: str) -> _StepFailed:
    """Return the failure of a step in the cell that runs now."""
    cell, cell_id = run.current[1:3] if run.current else (None, None)
    return _StepFailed(
        Cause(
            code=code,
            message=message,
            cell=cell,
            cell_id=cell_id,
            notebook=step.notebook,
            hint=hint or None,
        )
    )


def _literal(path: Path) -> str:
    """Return a path in which papermill finds no parameters of its own."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _tell_cells(run: Run, step: StepSpec, manager: Any) -> None:
    """Make papermill's notebook manager tell each code cell's start and end as events."""
    places: dict[str, int] = {}
    for cell in manager.nb.cells:
        tags = cell.metadata.get("tags", [])
        if "injected-parameters" not in tags:
            places[str(cell.get("id", ""))] = len(places) + 1
            if "train" in tags:
                run.training.setdefault(step.name, (len(places), str(cell.get("id", ""))))

    def telling(status: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def told(cell: Any, cell_index: int | None = None, **options: Any) -> Any:
            answer = original(cell, cell_index, **options)
            if cell.cell_type == "code" and str(cell.get("id", "")) in places:
                _tell_cell(run, step, cell, places, status)
            return answer

        return told

    manager.cell_start = telling("running", manager.cell_start)
    manager.cell_complete = telling("done", manager.cell_complete)
    manager.cell_exception = telling("failed", manager.cell_exception)


def _tell_cell(run: Run, step: StepSpec, cell: Any, places: dict[str, int], status: str) -> None:
    position = places[str(cell.get("id", ""))]
    run.drain()
    if status == "running":
        run.current = (step, position, str(cell.get("id", "")))
    if status == "done" and not any(o.output_type == "error" for o in cell.get("outputs", ())):
        record = run.steps[step.name]
        done = min(record.cells_done + 1, record.cells_total)
        run.steps[step.name] = records.replace(record, cells_done=done)
    run.emit(
        "cell",
        step=step.name,
        cell=position,
        cell_id=str(cell.get("id", "")),
        status=status,
        values={
            "done": run.steps[step.name].cells_done,
            "total": run.steps[step.name].cells_total,
        },
    )


def _cell_failed(run: Run, step: StepSpec, error: Any) -> _StepFailed:
    cell = run.current[1] if run.current else None
    hint = f"Correct cell {cell} of {step.notebook}, then run it again."
    if error.ename == "ModuleNotFoundError":
        hint = "Add the package to requirements.txt, then run it again."
    elif error.ename == "FileNotFoundError":
        hint = (
            "A job sees what git sees: a file that .gitignore names is not in it."
            " Commit the file, or write it in an earlier step and list it under its `outputs`."
        )
    message = run.redacted(f"{error.ename}: {error.evalue}")[:2000]
    return _failed_here(run, step, "cell-failed", message, hint)


def _tidy(executed: Path, redacted: Redaction) -> None:
    """Take secrets out of an executed notebook, and the widgets' state.

    Without the state every viewer shows the text, HTML and picture that widgets leave behind;
    with it, viewers without a kernel show nothing, from a file many times as large.
    """
    document = redacted.within(json.loads(executed.read_text(encoding="utf-8")))
    document["metadata"].pop("widgets", None)
    text = json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    executed.write_text(text, encoding="utf-8")


def _take_outputs(run: Run, step: StepSpec, project: Path) -> None:
    for name in step.outputs:
        source = project / name
        if not source.is_file() or source.is_symlink():
            raise _StepFailed(
                Cause(
                    code="output-missing",
                    message=f"step `{step.name}` left no file {name}",
                    notebook=step.notebook,
                    hint=f"Write it in {step.notebook}, or take it out of `outputs`.",
                )
            )
        run.add(name, source, "output")


if __name__ == "__main__":
    sys.exit(main())
