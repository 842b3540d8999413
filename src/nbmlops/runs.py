"""Runs: submitted from a snapshot, watched through their events, collected exactly once."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from nbmlops import environment, layout, models, pipelines, records, snapshot
from nbmlops.artifacts import digest_of
from nbmlops.errors import (
    ArtifactCorrupt,
    Conflict,
    GitFailed,
    LauncherUnavailable,
    StoreUnavailable,
    UnknownRun,
    WrongUse,
    nearest,
)
from nbmlops.launchers import Launcher
from nbmlops.pipelines import Pipeline
from nbmlops.records import (
    ArtifactRecord,
    Attempt,
    Cause,
    Environment,
    Event,
    JobHandle,
    JobSpec,
    JobStatus,
    OutboxFile,
    RunRecord,
    RunResult,
    RunSpec,
    Snapshot,
    Status,
    StepSpec,
    replace,
)
from nbmlops.runner import MARKER_LINE, parse_events
from nbmlops.store import Kept
from nbmlops.workspace import Workspace

KIND = "run"
_UNFINISHED = (Status.PENDING.value, Status.RUNNING.value)
_LAUNCH_PATIENCE_S = 10.0
_RESULT_LIMIT_BYTES = 64 * 2**20


def submit(
    workspace: Workspace,
    pipeline: Pipeline,
    given: dict[str, Any],
    *,
    launcher: str = "local",
    force: bool = False,
) -> RunRecord:
    """Start a run and return its record; it is durable, and goes on without us.

    An unfinished run of the same sources, parameters and environment is returned as it is, unless
    ``force`` asks for another one.

    Raises
    ------
    NbmlopsError
        When the work tree, a notebook, a parameter or the environment is not fit to run; nothing
        has been started then.
    """
    place = workspace.launcher(launcher)
    place.check()
    now = workspace.now()
    taken = snapshot.take(workspace.repo, workspace.home.scratch, now)
    steps, parameters = pipelines.steps(workspace, taken.commit, pipeline, given)
    snapshot.hold(workspace.repo, taken)
    lock = snapshot.read(
        workspace.repo,
        taken.commit,
        (Path(workspace.project_dir) / environment.LOCK_FILE).as_posix(),
    )
    wanted = environment.plan(lock[1] if lock else None)
    made = environment.ensure(wanted, workspace.cache, workspace.say)
    content_key = digest_of(
        msgspec.json.encode(
            [pipeline.name, taken.tree, steps, made.environment_id, launcher], order="sorted"
        )
    )
    with workspace.exclusively(f"submit-{content_key[:16]}"):
        if not force and (same := _unfinished(workspace, content_key)) is not None:
            return same
        return _started(workspace, pipeline, taken, steps, parameters, made, content_key, place)


def _started(
    workspace: Workspace,
    pipeline: Pipeline,
    taken: Snapshot,
    steps: tuple[StepSpec, ...],
    parameters: dict[str, Any],
    made: Environment,
    content_key: str,
    place: Launcher,
) -> RunRecord:
    now = workspace.now()
    launcher = place.name
    run_id = layout.new_id(pipeline.name, now.timestamp())
    record = RunRecord(
        run_id=run_id,
        pipeline=pipeline.name,
        status=Status.PENDING,
        commit=taken.commit,
        base_commit=taken.base_commit,
        dirty=taken.dirty,
        parameters=parameters,
        environment_id=made.environment_id,
        launcher=launcher,
        created_at=now,
        steps=tuple(records.planned(step) for step in steps),
        snapshot=taken.id,
        author=workspace.repo.author(),
        project_dir=workspace.project_dir,
        content_key=content_key,
        handle=JobHandle(launcher=launcher, name=run_id),
    )
    spec = RunSpec(
        run_id=run_id,
        pipeline=pipeline.name,
        project_dir=workspace.project_dir,
        commit=taken.commit,
        steps=steps,
        python=made.python,
        environment=made,
        secrets=workspace.settings.project.secrets,
    )
    job = _job(workspace, spec, pipeline)
    inbox = workspace.home.job(run_id).inbox
    inbox.mkdir(parents=True)
    snapshot.export(workspace.repo, taken.commit, inbox / layout.SOURCE_FILE)
    layout.write_file(inbox / layout.SPEC_FILE, records.dump(spec))
    layout.write_file(inbox / "job.json", records.dump(job))
    workspace.store.swap(
        KIND, run_id, record, expected=0, key=f"submit:{run_id}", status=record.status.value
    )
    place.launch(job)
    return observe(workspace, Kept(record, 1, 0))


def _job(workspace: Workspace, spec: RunSpec, pipeline: Pipeline) -> JobSpec:
    paths = workspace.home.job(spec.run_id)
    return JobSpec(
        name=spec.run_id,
        command=(sys.executable, "-m", "nbmlops.runner"),
        inbox=paths.inbox.as_uri(),
        outbox=paths.outbox.as_uri(),
        secrets=spec.secrets,
        resources=pipeline.settings.resources,
    )


def _unfinished(workspace: Workspace, content_key: str) -> RunRecord | None:
    for kept in workspace.store.page(KIND, RunRecord, limit=1000, status=_UNFINISHED):
        if kept.record.content_key == content_key:
            seen = observe(workspace, kept)
            if not seen.status.is_final:
                return seen
    return None


# --- watching -----------------------------------------------------------------------------------


def observe(workspace: Workspace, kept: Kept[RunRecord]) -> RunRecord:
    """Return the run as it is now, and keep what has become final or begun.

    Progress by cell is read from the job's events and is not kept; a status is.
    """
    record = kept.record
    if record.status.is_final or record.handle is None:
        return record
    launcher = workspace.launcher(record.launcher)
    status = launcher.poll([record.handle])[record.handle]
    unknown = status.cause is not None and status.cause.code == "job-unknown"
    if unknown or status.status is Status.PENDING:
        return _relaunched(workspace, record, known=not unknown)
    attempt = status.attempts[-1] if status.attempts else None
    result = _result(workspace, record, attempt) if attempt and status.status.is_final else None
    events = () if result else parse_events(launcher.logs(record.handle))[0]
    seen = advance(record, status, result, events)
    if seen.status == record.status:
        return seen
    return _advanced(workspace, kept, seen, result)


def _advanced(
    workspace: Workspace, kept: Kept[RunRecord], seen: RunRecord, result: RunResult | None
) -> RunRecord:
    """Keep that a run has begun, or collect it once it has ended."""
    try:
        if seen.status.is_final:
            return _collect(workspace, seen, result, kept.revision)
        # Only that it has begun is kept; progress is told by the events.
        begun = replace(kept.record, status=seen.status, started_at=seen.started_at)
        _keep(workspace, begun, kept.revision, f"begin:{seen.run_id}:{seen.attempts}")
    except Conflict:
        return get(workspace, seen.run_id)
    except (StoreUnavailable, LauncherUnavailable, GitFailed, OSError):
        raise  # the outside is not there: the next look collects
    except Exception as error:
        # Whatever a job has left behind ends that job alone, and breaks no list of runs.
        return _refused(workspace, seen, error, kept.revision)
    return seen


def _refused(workspace: Workspace, seen: RunRecord, error: Exception, revision: int) -> RunRecord:
    """Keep a run whose result cannot be taken as failed."""
    cause = Cause(
        code="result-refused",
        message=f"what the job left behind was not taken: {type(error).__name__}: {error}"[:2000],
        hint=f"See its log: `nbmlops logs {seen.run_id}`.",
    )
    refused = replace(
        seen,
        status=Status.FAILED,
        cause=cause,
        finished_at=seen.finished_at or workspace.now(),
        artifacts=(),
        model_versions=(),
    )
    _keep(workspace, refused, revision, f"refuse:{seen.run_id}")
    return refused


def _relaunched(workspace: Workspace, record: RunRecord, *, known: bool) -> RunRecord:
    """Launch a run whose submitter died before it could; the name makes it one job."""
    inbox = workspace.home.job(record.run_id).inbox
    if record.status is Status.PENDING and (inbox / "job.json").exists():
        age_s = (workspace.now() - record.created_at).total_seconds()
        if age_s > _LAUNCH_PATIENCE_S:
            job = records.load((inbox / "job.json").read_bytes(), JobSpec)
            workspace.launcher(record.launcher).launch(job)
        return record
    if known:
        return record
    cause = Cause(code="job-lost", message="nothing is left of the job", hint="Run it again.")
    lost = replace(record, status=Status.LOST, cause=cause, finished_at=workspace.now())
    kept = workspace.store.get(KIND, record.run_id, RunRecord)
    _keep(workspace, lost, kept.revision if kept else 0, f"lost:{record.run_id}")
    return lost


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
        attempts=max(1, len(status.attempts)),
    )
    if result is not None:
        cancelled = status.status is Status.CANCELLED
        return replace(
            seen,
            status=Status.CANCELLED if cancelled else result.status,
            started_at=result.started_at,
            finished_at=result.finished_at,
            metrics=result.metrics,
            steps=result.steps,
            data=result.data,
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


# --- collecting ---------------------------------------------------------------------------------


def _result(workspace: Workspace, record: RunRecord, attempt: Attempt) -> RunResult | None:
    path = workspace.home.job(record.run_id).result(attempt.name)
    try:
        if path.stat().st_size > _RESULT_LIMIT_BYTES:
            return None
        result = records.load(path.read_bytes(), RunResult)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return None
    genuine = result.run_id == record.run_id and result.attempt == attempt.name
    return result if genuine and result.status.is_final else None


def _collect(
    workspace: Workspace, seen: RunRecord, result: RunResult | None, revision: int
) -> RunRecord:
    """Take a finished attempt's files, register its models, and keep the final record.

    The swap accepts one attempt; whoever comes second gets what the first has kept.
    """
    attempt = result.attempt if result else f"a{seen.attempts}"
    outbox = workspace.home.job(seen.run_id).outbox / attempt
    files = result.files if result else _left_behind(outbox)
    artifacts = [_taken(workspace, outbox, file) for file in files]
    artifacts.append(_log(workspace, seen))
    if result is not None:
        spec = records.load(
            (workspace.home.job(seen.run_id).inbox / layout.SPEC_FILE).read_bytes(), RunSpec
        )
        body = records.dump(spec.environment)
        artifacts.append(
            ArtifactRecord(
                name="environment.json",
                digest=workspace.artifacts.put(body),
                bytes=len(body),
                kind="environment",
                media_type="application/json",
            )
        )
    final = replace(seen, artifacts=tuple(artifacts))
    run_digest = workspace.artifacts.put(records.dump(final))
    versions: tuple[str, ...] = ()
    if result is not None and final.status is Status.SUCCEEDED:
        versions = models.register(workspace, final, result, run_digest)
    final = replace(final, model_versions=versions, record_digest=run_digest)
    _keep(workspace, final, revision, f"collect:{seen.run_id}:{attempt}")
    for left in ("work", "jupyter", "tracking"):  # of an attempt that could not tidy up itself
        shutil.rmtree(outbox / left, ignore_errors=True)
    return final


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
        digest = digest_of(data)
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
    lines = workspace.launcher(seen.launcher).logs(_handle(seen))
    text = "".join(f"{line}\n" for line in parse_events(lines)[1]).encode()
    return ArtifactRecord(
        name="log.txt",
        digest=workspace.artifacts.put(text),
        bytes=len(text),
        kind="log",
        media_type="text/plain",
    )


def _handle(record: RunRecord) -> JobHandle:
    return record.handle or JobHandle(launcher=record.launcher, name=record.run_id)


def _keep(workspace: Workspace, record: RunRecord, revision: int, key: str) -> None:
    workspace.store.swap(
        KIND, record.run_id, record, expected=revision, key=key, status=record.status.value
    )


# --- what people ask for ------------------------------------------------------------------------


def find(workspace: Workspace, run_id: str) -> Kept[RunRecord]:
    """Return the run of that id, or of the only id that begins so.

    Raises
    ------
    UnknownRun
        When there is none, or more than one.
    """
    run_id = run_id.removeprefix("run/")
    exact = workspace.store.get(KIND, run_id, RunRecord)
    if exact is not None:
        return exact
    found = workspace.store.find(KIND, run_id, RunRecord) if run_id else []
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(kept.record.run_id for kept in found[:5])
        raise UnknownRun(f"`{run_id}` begins more than one run", f"Choose: {names}.")
    known = [kept.record.run_id for kept in workspace.store.page(KIND, RunRecord, limit=5)]
    raise UnknownRun(f"there is no run `{run_id}`", nearest(run_id, known), run_id=run_id)


def get(workspace: Workspace, run_id: str) -> RunRecord:
    """Return the run as it is now."""
    return observe(workspace, find(workspace, run_id))


def page(workspace: Workspace, *, limit: int, cursor: str | None) -> tuple[list[RunRecord], str]:
    """Return runs newest first as they are now, and the cursor of the next page or ``""``."""
    before = int(cursor) if cursor and re.fullmatch("[0-9]{1,18}", cursor) else None
    if cursor and before is None:
        raise WrongUse(f"`{cursor[:40]}` is no cursor", "Take `next` of the page before.")
    kept = workspace.store.page(KIND, RunRecord, limit=limit + 1, before=before)
    shown = [observe(workspace, item) for item in kept[:limit]]
    return shown, str(kept[limit - 1].sequence) if len(kept) > limit else ""


def unfinished(workspace: Workspace) -> list[RunRecord]:
    """Return the runs that have not ended, as they are now (some may end as we look)."""
    kept = workspace.store.page(KIND, RunRecord, limit=1000, status=_UNFINISHED)
    return [observe(workspace, item) for item in kept]


def watch(workspace: Workspace, run_id: str, *, every_s: float = 0.3) -> Iterator[RunRecord]:
    """Yield the run each time that something changed, until it has ended."""
    last: RunRecord | None = None
    while True:
        seen = get(workspace, run_id)
        if seen != last:
            yield seen
            last = seen
        if seen.status.is_final:
            return
        time.sleep(every_s)


def logs(workspace: Workspace, run_id: str, *, follow: bool = False) -> Iterator[str]:
    """Yield the lines that the run wrote, without the events between them."""
    record = find(workspace, run_id).record
    kept = next((a for a in record.artifacts if a.kind == "log"), None)
    if kept is not None:
        yield from workspace.artifacts.get(kept.digest).decode(errors="replace").splitlines()
        return
    prefix: str | None = None
    lines = workspace.launcher(record.launcher).logs(_handle(record), follow=follow)
    for number, line in enumerate(lines):
        if number == 0 and line.startswith(MARKER_LINE):
            prefix = line.removeprefix(MARKER_LINE) + " "
        elif prefix is None or not line.startswith(prefix):
            yield line


def save(workspace: Workspace, record: RunRecord, folder: Path) -> None:
    """Write a run's artifacts below a folder that is not there yet, each checked by its digest.

    Raises
    ------
    WrongUse
        When the folder is there, or a name would lead out of it.
    """
    if folder.exists():
        raise WrongUse(f"{folder} is there already", "Name a folder that is not.")
    for artifact in record.artifacts:
        parts = Path(artifact.name).parts
        if Path(artifact.name).is_absolute() or ".." in parts or "\0" in artifact.name:
            raise WrongUse(
                f"the artifact {artifact.name!r} has a name that leads out of {folder}",
                "Log it under another name, and run it again.",
            )
    for artifact in record.artifacts:
        workspace.artifacts.copy_to(artifact.digest, folder / artifact.name)


def cancel(workspace: Workspace, run_id: str, *, patience_s: float = 20.0) -> RunRecord:
    """End the run, and return it once it has ended; one that has ended stays as it is."""
    record = get(workspace, run_id)
    if record.status.is_final:
        return record
    workspace.launcher(record.launcher).cancel(_handle(record))
    deadline = time.monotonic() + patience_s
    while not record.status.is_final and time.monotonic() < deadline:
        time.sleep(0.1)
        record = get(workspace, record.run_id)
    return record
