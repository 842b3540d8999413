"""Collection: what an attempt of a run tells while it goes on, and leaves when it ends."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from nbmlops import digests, layout, models, records, stepcache
from nbmlops.errors import ArtifactCorrupt
from nbmlops.records import (
    ArtifactRecord,
    Attempt,
    CachedStep,
    Cause,
    DataRecord,
    Event,
    JobHandle,
    JobStatus,
    OutboxFile,
    RunRecord,
    RunResult,
    RunSpec,
    Status,
    replace,
)
from nbmlops.runner.console import parse_events
from nbmlops.workspace import Workspace

_RESULT_LIMIT_BYTES = 64 * 2**20


def handle(record: RunRecord) -> JobHandle:
    """Return the job that carries the run's newest attempt."""
    return record.handle or JobHandle(launcher=record.launcher, name=record.run_id)


def paths(workspace: Workspace, record: RunRecord) -> layout.JobPaths:
    """Return the folders of the run's newest attempt."""
    return workspace.home.job(handle(record).name)


def spec(workspace: Workspace, record: RunRecord) -> RunSpec:
    """Return what the run's newest attempt was asked to do.

    Raises
    ------
    OSError
        When its inbox is gone.
    """
    file = layout.spec_of(paths(workspace, record).inbox, handle(record).part)
    return records.load(file.read_bytes(), RunSpec)


# --- while it goes on -----------------------------------------------------------------------------


def advance(
    record: RunRecord,
    status: JobStatus,
    result: RunResult | None,
    events: Iterable[Event] = (),
) -> RunRecord:
    """Return the record that follows from what the launcher sees, the result and the events.

    Pure: the same arguments give the same answer.
    """
    first, last = _span(status.attempts)
    seen = replace(
        record,
        started_at=record.started_at or first,
        attempts=record.attempts + max(0, len(status.attempts) - 1),
    )
    if result is not None:
        cancelled = status.status is Status.CANCELLED
        return replace(
            seen,
            status=Status.CANCELLED if cancelled else result.status,
            started_at=result.started_at,
            finished_at=result.finished_at,
            metrics={**record.metrics, **result.metrics},
            steps=result.steps,
            data=_joined_data(record.data, result.data),
            cause=status.cause if cancelled else result.cause,
        )
    seen = _folded(seen, events)
    if not status.status.is_final:
        return replace(seen, status=status.status)
    # It ended without a result: whatever the exit code says, nobody knows what it did.
    final = status.status if status.status is not Status.SUCCEEDED else Status.LOST
    cause = status.cause or Cause(
        code="job-lost", message="the job ended without a result", hint="Run it again."
    )
    steps = tuple(
        replace(step, status=final) if step.status is Status.RUNNING else step
        for step in seen.steps
    )
    return replace(seen, status=final, cause=cause, finished_at=last, steps=steps)


def _span(attempts: tuple[Attempt, ...]) -> tuple[Any, Any]:
    if not attempts:
        return None, None
    return attempts[0].started_at, attempts[-1].finished_at


def _folded(record: RunRecord, events: Iterable[Event]) -> RunRecord:
    steps = {step.name: step for step in record.steps}
    metrics = dict(record.metrics)
    for event in events:
        step = steps.get(event.step or "")
        if event.kind == "metric":
            metrics.update(event.values)
        if step is None:
            continue
        if event.kind == "step" and event.status == "running":
            steps[step.name] = replace(step, status=Status.RUNNING, started_at=event.at)
        elif event.kind == "step":
            steps[step.name] = replace(step, status=Status(event.status), finished_at=event.at)
        elif event.kind == "cell" and isinstance(done := event.values.get("done"), int):
            steps[step.name] = replace(step, cells_done=min(done, step.cells_total))
    return replace(record, steps=tuple(steps.values()), metrics=metrics)


def _joined_data(
    earlier: tuple[DataRecord, ...], later: tuple[DataRecord, ...]
) -> tuple[DataRecord, ...]:
    """Return what was declared and what was read, each name once."""
    return tuple({item.name: item for item in (*earlier, *later)}.values())


# --- at the end ---------------------------------------------------------------------------------


def result_of(workspace: Workspace, record: RunRecord, attempt: Attempt) -> RunResult | None:
    """Return the result that an attempt left, or ``None`` where there is no genuine one."""
    path = paths(workspace, record).result(attempt.name)
    try:
        if path.stat().st_size > _RESULT_LIMIT_BYTES:
            return None
        result = records.load(path.read_bytes(), RunResult)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return None
    genuine = result.run_id == record.run_id and result.attempt == attempt.name
    return result if genuine and result.status.is_final else None


def taken_over(run: RunRecord, cached: Iterable[CachedStep]) -> RunRecord:
    """Return the run with what its cached steps left before: metrics, data, artifacts."""
    for step in cached:
        run = replace(
            run,
            metrics={**run.metrics, **step.metrics},
            data=_joined_data(run.data, step.data),
            artifacts=_joined(run.artifacts, step.artifacts),
        )
    return run


def _joined(
    earlier: Iterable[ArtifactRecord], later: Iterable[ArtifactRecord]
) -> tuple[ArtifactRecord, ...]:
    return tuple({item.name: item for item in (*earlier, *later)}.values())


def collect(workspace: Workspace, seen: RunRecord, result: RunResult | None) -> RunRecord:
    """Take an ended attempt's files, register its models, and return the final record.

    Everything done here can be done again with the same outcome; the record counts once its swap
    has succeeded.
    """
    attempt = result.attempt if result else handle(seen).part or "a1"
    outbox = paths(workspace, seen).outbox / attempt
    asked = spec(workspace, seen)
    files = result.files if result else _left_behind(outbox)
    artifacts = [_taken(workspace, outbox, file) for file in files]
    artifacts.append(_log(workspace, seen))
    cached = _cached(workspace, asked)
    final = replace(seen, artifacts=_joined(seen.artifacts, artifacts))
    if result is not None:
        stepcache.keep(workspace, final, asked.steps, result, artifacts)
        logged = (*(model for step in cached for model in step.models), *result.models)
        result = replace(result, models=logged)
    else:
        result = RunResult(
            run_id=seen.run_id,
            attempt=attempt,
            status=seen.status,
            started_at=seen.started_at or seen.created_at,
            finished_at=seen.finished_at or workspace.now(),
            steps=seen.steps,
        )
    final = finished(workspace, replace(final, cause=_explained(workspace, final)), asked, result)
    for left in ("work", "jupyter", "tracking"):  # of an attempt that could not tidy up itself
        shutil.rmtree(outbox / left, ignore_errors=True)
    return final


def _cached(workspace: Workspace, asked: RunSpec) -> list[CachedStep]:
    return [
        found
        for step in asked.steps
        if step.cached_from and (found := stepcache.get(workspace, step.key)) is not None
    ]


def finished(workspace: Workspace, run: RunRecord, asked: RunSpec, result: RunResult) -> RunRecord:
    """Return an ended run with its environment kept and its models registered.

    Of a sweep only the best trial's models become versions, when the sweep ends: what is newest is
    never just what came last.
    """
    ran_in = asked.environment
    if not ran_in.packages:  # of an image that nobody here could look into
        ran_in = replace(ran_in, packages=result.packages)
    body = records.dump(ran_in)
    about = ArtifactRecord(
        name="environment.json",
        digest=workspace.artifacts.put(body),
        bytes=len(body),
        kind="environment",
        media_type="application/json",
    )
    run = replace(run, artifacts=_joined(run.artifacts, [about]))
    run_digest = workspace.artifacts.put(records.dump(run))
    versions: tuple[str, ...] = ()
    if run.status is Status.SUCCEEDED and run.sweep is None:
        versions = models.register(workspace, run, result, run_digest)
    return replace(run, model_versions=versions, record_digest=run_digest)


def registered(workspace: Workspace, run: RunRecord) -> RunRecord:
    """Return a run that succeeded with its models registered, if they are not yet."""
    if run.model_versions or run.record_digest is None:
        return run
    steps = [stepcache.get(workspace, step.key) for step in spec(workspace, run).steps]
    result = RunResult(
        run_id=run.run_id,
        attempt="a1",
        status=run.status,
        started_at=run.started_at or run.created_at,
        finished_at=run.finished_at or workspace.now(),
        steps=run.steps,
        models=tuple(model for step in steps if step is not None for model in step.models),
    )
    versions = models.register(workspace, run, result, run.record_digest)
    return replace(run, model_versions=versions)


def _explained(workspace: Workspace, run: RunRecord) -> Cause | None:
    """Return the cause, with the line to add for a file that is in the user's folder alone."""
    cause = run.cause
    if cause is None or not cause.notebook or "FileNotFoundError" not in cause.message:
        return cause
    quoted = re.findall(r"""['"]([^'"]+)['"]""", cause.message)
    if not quoted:
        return cause
    missed = re.sub(r"^.*/outbox/a\d+/work/[^/]+/", "", quoted[-1])
    relative = missed == quoted[-1]
    above = (workspace.root / cause.notebook).parent if relative else workspace.repo.top
    place = above / missed
    place = Path(*place.parts[:1], *_without_dots(place.parts[1:]))
    if not place.exists() or not place.is_relative_to(workspace.root):
        return cause
    path = place.relative_to(workspace.root).as_posix()
    name = re.sub(r"[^a-z0-9]+", "-", place.stem.lower()).strip("-")[:40] or "data"
    return replace(
        cause,
        hint=f"{path} is in your folder and not in the commit."
        f' Add it under [data] in {layout.SETTINGS_FILE}: {name} = "{path}"',
    )


def _without_dots(parts: Iterable[str]) -> list[str]:
    """Return the parts of a path with each ``..`` taken back; links are not followed."""
    found: list[str] = []
    for part in parts:
        if part == "..":
            found = found[:-1]
        elif part != ".":
            found.append(part)
    return found


def _taken(workspace: Workspace, outbox: Path, file: OutboxFile) -> ArtifactRecord:
    # The name of the file in the outbox is its digest: a job cannot point elsewhere.
    source = outbox / "files" / layout.checked_digest(file.digest)
    if source.is_symlink() or not source.is_file():
        raise ArtifactCorrupt(
            f"the job says that it left {file.name}, and did not",
            f"See its log: `nbmlops logs {outbox.parent.parent.name}`.",
        )
    return ArtifactRecord(
        name=file.name,
        digest=workspace.artifacts.put_file(source, expected=file.digest),
        bytes=file.bytes,
        kind=file.kind,
        media_type=file.media_type,
    )


def _left_behind(outbox: Path) -> tuple[OutboxFile, ...]:
    """Return the partial notebooks of an attempt that ended without a result."""
    found: list[OutboxFile] = []
    for path in sorted(outbox.glob("*.ipynb")):
        if path.is_symlink():
            continue
        data = path.read_bytes()
        digest = digests.of_bytes(data)
        layout.write_file(outbox / "files" / digest, data)
        found.append(
            OutboxFile(
                name=path.name,
                path=f"files/{digest}",
                digest=digest,
                bytes=len(data),
                kind="executed",
                media_type="application/x-ipynb+json",
            )
        )
    return tuple(found)


def _log(workspace: Workspace, seen: RunRecord) -> ArtifactRecord:
    lines = workspace.launcher(seen.launcher).logs(handle(seen))
    text = "".join(f"{line}\n" for line in parse_events(lines)[1]).encode()
    return ArtifactRecord(
        name="log.txt",
        digest=workspace.artifacts.put(text),
        bytes=len(text),
        kind="log",
        media_type="text/plain",
    )
