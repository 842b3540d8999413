"""One attempt of a run: what has become of it so far, and its result at the end."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec

from nbmlops import images, layout, records
from nbmlops.records import (
    Cause,
    DataRecord,
    Event,
    LoggedModel,
    OutboxFile,
    Probe,
    RunResult,
    RunSpec,
    Status,
    StepOutcome,
    StepRecord,
    StepSpec,
    utc_now,
)
from nbmlops.runner.console import Console, Redaction
from nbmlops.runner.report import Pages

_FILE_LIMIT_BYTES = 2 * 2**30
_OWN_NAMES = {"log.txt", "environment.json"}
_TYPES = {
    "model": "application/octet-stream",
    "executed": "application/x-ipynb+json",
    "report": "text/html",
}


class Attempt:
    """The state of one attempt while it runs."""

    def __init__(self, spec: RunSpec, outbox: Path, attempt: str) -> None:
        self.spec = spec
        self.redacted = Redaction(os.environ.get(name, "") for name in spec.secrets)
        console = Console(sys.stdout, outbox / layout.EVENTS_FILE, self.redacted)
        self.pages = Pages()
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
        # What each step that ran has left.
        self.outcomes: dict[str, StepOutcome] = {}
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
            for line in content[: content.rfind(b"\n") + 1].splitlines(keepends=True):
                event = records.load(line, Event)
                self._take(records.replace(event, values=self.redacted.within(event.values)))
                self._read_to += len(line)  # only now: what could not be taken is not lost

    def _take(self, event: Event) -> None:
        if self.current is None:
            return
        step, cell, cell_id = self.current
        values = event.values
        if event.kind == "metric":
            self.metrics.update(values)
            earlier = self.outcome(step).metrics
            self._left(step, metrics={**earlier, **values})
        elif event.kind == "data":
            read = DataRecord(name=values["name"], digest=values["digest"])
            self.data[read.name] = read
            self._left(step, data=(*self.outcome(step).data, read))
        elif event.kind == "artifact":
            source = self.tracking / "files" / Path(values["file"]).name
            self.add(step, values["name"], source, values["kind"], values.get("media_type"))
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
                probe=msgspec.convert(values.get("probe", {}), Probe),
                loader=values.get("loader"),
                command=tuple(values.get("command") or ()),
                image=values.get("image"),
            )
        self.emit(event.kind, step=step.name, cell=cell, cell_id=cell_id, values=values)

    def outcome(self, step: StepSpec) -> StepOutcome:
        """Return what the step has left so far."""
        return self.outcomes.get(step.name, StepOutcome(step=step.name))

    def _left(self, step: StepSpec, **changes: Any) -> None:
        self.outcomes[step.name] = records.replace(self.outcome(step), **changes)

    def add(
        self, step: StepSpec, name: str, source: Path, kind: str, media_type: str | None = None
    ) -> None:
        """Take a file into the outbox, under a file name of our own; a name is given once."""
        own = {f"{s.name}{end}" for s in self.spec.steps for end in (".ipynb", ".html")}
        own |= _OWN_NAMES
        taken = self.files.get(name)
        if (name in own and kind not in ("executed", "report")) or (
            taken is not None and taken.kind != kind
        ):
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
        self._left(step, files=(*self.outcome(step).files, name))

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
            packages=self.spec.environment.packages or _packages_of_the_image(),
            cause=self.cause,
            outcomes=tuple(self.outcomes.values()),
        )


class StepFailed(Exception):
    """A step that did not succeed, with the cause."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.message)
        self.cause = cause


def _packages_of_the_image() -> dict[str, str]:
    """Return what the project's side of this image holds; outside of one nothing."""
    try:
        told = msgspec.json.decode(Path(images.ABOUT_FILE).read_bytes())
        return {str(name): str(version) for name, version in told["packages"].items()}
    except (OSError, msgspec.DecodeError, KeyError, TypeError, AttributeError):
        return {}
