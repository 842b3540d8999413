"""Runs: submitted from a snapshot, watched through their events, collected exactly once."""

from __future__ import annotations

import errno
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from nbmlops import (
    collection,
    layout,
    records,
)
from nbmlops.errors import (
    Conflict,
    GitFailed,
    LauncherUnavailable,
    NoGit,
    RunFreed,
    StorageFailed,
    StoreTooNew,
    StoreUnavailable,
    UnknownReference,
    UnknownRun,
    WrongUse,
    nearest,
)
from nbmlops.records import (
    ArtifactRecord,
    Cause,
    JobHandle,
    JobSpec,
    JobStatus,
    ModelVersion,
    Resources,
    RunRecord,
    RunResult,
    Status,
    replace,
)
from nbmlops.runner.console import MARKER_LINE, parse_events
from nbmlops.store import Kept, RecordT
from nbmlops.workspace import FAR, IN_CONTAINERS, NAMING, StartedElsewhere, Workspace

KIND = "run"
_UNFINISHED = (Status.PENDING.value, Status.RUNNING.value)
_LAUNCH_PATIENCE_S = 10.0
_FAR_EVERY_S = 1.0
_LOG_EVERY_S = 0.5
_AWAY_PATIENCE_S, _AWAY_PAUSE_S = 60.0, 2.0
_OUTSIDE = (StoreUnavailable, StoreTooNew, LauncherUnavailable, GitFailed, NoGit)
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


# --- watching -----------------------------------------------------------------------------------


def observe(
    workspace: Workspace,
    kept: Kept[RunRecord],
    *,
    patience_s: float = _LAUNCH_PATIENCE_S,
    statuses: Mapping[JobHandle, JobStatus] | None = None,
    progress: bool = True,
) -> RunRecord:
    """Return the run as it is now, and keep what has become final or begun.

    Progress by cell is read from the job's events and is not kept; a status is. A job that nobody
    has launched after ``patience_s`` seconds is launched: its submitter was killed.

    ``statuses`` are what the launcher has said of many jobs at once. Without ``progress`` no log is
    read for what has been done so far.

    A run of another clone whose job cannot be seen from here is shown as it was written last.
    """
    record = kept.record
    if not workspace.reaches(record.launcher, record.place):
        return replace(record, elsewhere=True)
    if record.status.is_final or record.handle is None:
        return record
    launcher = workspace.launcher(record.launcher)
    if statuses is None:
        statuses = launcher.poll([record.handle])
    status = statuses[record.handle]
    unknown = status.cause is not None and status.cause.code == "job-unknown"
    if unknown or status.status is Status.PENDING:
        return _relaunched(workspace, record, patience_s, known=not unknown)
    attempt = status.attempts[-1] if status.attempts else None
    result = (
        collection.result_of(workspace, record, attempt)
        if attempt and status.status.is_final
        else None
    )
    ended = status.status.is_final
    reads = result is None and (progress or ended)
    events = parse_events(launcher.logs(record.handle))[0] if reads else ()
    seen = collection.advance(record, status, result, events)
    if seen.status == record.status:
        return seen
    return _advanced(workspace, kept, seen, result)


def observe_all(workspace: Workspace, kept: Iterable[Kept[RunRecord]]) -> list[RunRecord]:
    """Return runs as they are now: one look at each launcher, however many they are.

    Those whose launcher does not answer are shown as they were written last, with a warning.
    """
    kept = list(kept)
    waiting: dict[str, list[JobHandle]] = {}
    for item in kept:
        record = item.record
        here = workspace.reaches(record.launcher, record.place)
        if here and not record.status.is_final and record.handle is not None:
            waiting.setdefault(record.launcher, []).append(record.handle)
    found: dict[JobHandle, JobStatus] = {}
    away: set[str] = set()
    for name, handles in waiting.items():
        try:
            found.update(workspace.launcher(name).poll(handles))
        except LauncherUnavailable as error:
            away.add(name)
            workspace.warn(f"warning: {len(handles)} runs may have gone on: {error.message}")
    return [
        item.record
        if item.record.launcher in away and not item.record.status.is_final
        else observe(
            workspace,
            item,
            statuses=found if item.record.handle in found else None,
            # Logs that are not at hand are not read for how far each of many is.
            progress=item.record.launcher not in FAR or len(kept) == 1,
        )
        for item in kept
    ]


def seen(workspace: Workspace, run_ids: Sequence[str]) -> dict[str, RunRecord]:
    """Return some runs as they are now, by their ids, with one look at each launcher."""
    kept = [workspace.store.get(KIND, run_id, RunRecord) for run_id in run_ids]
    found = observe_all(workspace, [item for item in kept if item is not None])
    return {run.run_id: run for run in found}


def _advanced(
    workspace: Workspace, kept: Kept[RunRecord], seen: RunRecord, result: RunResult | None
) -> RunRecord:
    """Keep that a run has begun, or collect it once it has ended."""
    try:
        if seen.status.is_final:
            with workspace.exclusively(NAMING, shared=True):
                final = collection.collect(workspace, seen, result)
                # The swap accepts one attempt; whoever comes second gets what the first has kept.
                keep(workspace, final, kept.revision, f"collect:{seen.run_id}:{seen.attempts}")
            return final
        # Only that it has begun is kept; progress is told by the events.
        begun = replace(kept.record, status=seen.status, started_at=seen.started_at)
        keep(workspace, begun, kept.revision, f"begin:{seen.run_id}:{seen.attempts}")
    except Conflict:
        return get(workspace, seen.run_id)
    except Exception as error:
        if _is_outside(error, collection.paths(workspace, seen).root):
            raise  # the next look collects
        # Whatever a job has left behind ends that job alone, and breaks no list of runs.
        return _refused(workspace, seen, error, kept.revision)
    return seen


def _is_outside(error: Exception, job: Path) -> bool:
    """Return whether the outside failed (store, disk, git, launcher), not what the job has left."""
    if isinstance(error, _OUTSIDE):
        return True
    refused = error.__cause__ if isinstance(error, StorageFailed) else error
    if not isinstance(refused, OSError):
        return isinstance(error, StorageFailed)
    # A job can take its own folders away, or leave in them what cannot be read.
    own = isinstance(refused.filename, str) and Path(refused.filename).is_relative_to(job)
    return not own or refused.errno in _DISK


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
    keep(workspace, refused, revision, f"refuse:{seen.run_id}:{seen.attempts}")
    return refused


def _relaunched(
    workspace: Workspace, record: RunRecord, patience_s: float, *, known: bool
) -> RunRecord:
    """Launch a run whose submitter died before it could; the name makes it one job."""
    inbox = collection.paths(workspace, record).inbox
    if record.status is Status.PENDING and (inbox / layout.JOB_FILE).exists():
        age_s = (workspace.now() - record.created_at).total_seconds()
        if abs(age_s) >= patience_s:  # below zero where the clock was set back
            job = records.load((inbox / layout.JOB_FILE).read_bytes(), JobSpec)
            workspace.launcher(record.launcher).launch(job)
        return record
    if known:
        return record
    cause = Cause(code="job-lost", message="nothing is left of the job", hint="Run it again.")
    lost = replace(record, status=Status.LOST, cause=cause, finished_at=workspace.now())
    kept = workspace.store.get(KIND, record.run_id, RunRecord)
    keep(workspace, lost, kept.revision if kept else 0, f"lost:{record.run_id}:{record.attempts}")
    return lost


def keep(workspace: Workspace, record: RunRecord, revision: int, key: str) -> None:
    """Write the next revision of a run; the key makes it once."""
    record = replace(record, elsewhere=False)  # which follows from who looks
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
    name = run_id.removeprefix("run/")
    return named(workspace, KIND, RunRecord, name, lambda record: record.run_id)


def named(
    workspace: Workspace,
    kind: str,
    form: type[RecordT],
    name: str,
    id_of: Callable[[RecordT], str],
) -> Kept[RecordT]:
    """Return the record of a kind whose id is ``name``, or alone begins so.

    Raises
    ------
    UnknownRun
        When there is none, or more than one.
    """
    found: list[Kept[RecordT]] = []
    if layout.is_id(name):
        exact = workspace.store.get(kind, name, form)
        if exact is not None:
            return exact
        found = workspace.store.find(kind, name, form)
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(id_of(kept.record) for kept in found[:5])
        raise UnknownRun(f"`{name}` begins more than one {kind}", f"Choose: {names}.")
    known = [id_of(kept.record) for kept in workspace.store.page(kind, form, limit=5)]
    shown = " ".join(name.split())[:80]
    raise UnknownRun(f"there is no {kind} `{shown}`", nearest(name, known), run_id=name[:200])


def get(workspace: Workspace, run_id: str, *, progress: bool = True) -> RunRecord:
    """Return the run as it is now; see :func:`observe`."""
    return observe(workspace, find(workspace, run_id), progress=progress)


def resources_of(workspace: Workspace, version: ModelVersion) -> Resources:
    """Return what the pipeline of the run that made a version asks for, else the default."""
    kept = workspace.store.get(KIND, version.run_id, RunRecord)
    pipeline = kept and workspace.settings.pipelines.get(kept.record.pipeline)
    return pipeline.resources if pipeline else Resources()


def page(
    workspace: Workspace,
    *,
    limit: int,
    cursor: str | None = None,
    best: str | None = None,
    lowest: str | None = None,
    status: str | None = None,
    pipeline: str | None = None,
) -> tuple[list[RunRecord], str]:
    """Return runs newest first as they are now, and the cursor of the next page or ``""``.

    With ``best`` (or ``lowest``), a metric, those with its highest (or lowest) values instead.

    Raises
    ------
    WrongUse
        When the cursor or the status has no meaning, or what is asked contradicts itself.
    """
    before = parse_cursor(cursor)
    wanted = None if status is None else (parse_status(status).value,)
    if status is not None or best or lowest:
        unfinished(workspace)  # what has just ended must be found by how it ended
    if not best and not lowest:
        kept = workspace.store.page(
            KIND, RunRecord, limit=limit + 1, before=before, status=wanted, pipeline=pipeline
        )
        shown = observe_all(workspace, kept[:limit])
        return shown, str(kept[limit - 1].sequence) if len(kept) > limit else ""
    if cursor or (best and lowest):
        raise WrongUse(
            "the best runs by one metric are one list", "Give --best or --lowest, and no --cursor."
        )
    kept = workspace.store.best(
        KIND,
        RunRecord,
        best or lowest or "",
        lowest=not best,
        limit=limit,
        status=wanted,
        pipeline=pipeline,
    )
    return observe_all(workspace, kept), ""


def parse_cursor(cursor: str | None) -> int | None:
    """Return the sequence that a cursor stands for; of none, ``None``.

    Raises
    ------
    WrongUse
        When the cursor has no meaning.
    """
    if not cursor:
        return None
    if not re.fullmatch("[0-9]{1,18}", cursor):
        raise WrongUse(f"`{cursor[:40]}` is no cursor", "Take `next` of the page before.")
    return int(cursor)


def parse_status(status: str) -> Status:
    """Return the status of that name.

    Raises
    ------
    WrongUse
        When there is none.
    """
    known = [one.value for one in Status]
    if status not in known:
        raise WrongUse(f"`{status[:40]}` is no status", nearest(status, known))
    return Status(status)


def unfinished(workspace: Workspace) -> list[RunRecord]:
    """Return the runs that have not ended, as they are now (some may end as we look)."""
    kept = workspace.store.page(KIND, RunRecord, limit=1000, status=_UNFINISHED)
    return observe_all(workspace, kept)


def watch(
    workspace: Workspace, run_id: str, *, every_s: float = 0.1, every_look: bool = False
) -> Iterator[RunRecord]:
    """Yield the run each time that something changed, until it has ended.

    With ``every_look`` also when nothing has: its log may have grown.
    """
    last: RunRecord | None = None
    away_since_s: float | None = None
    read_s = -math.inf
    while True:
        # An engine is asked for a log less often than for whether the run has ended.
        is_dear = last is not None and last.launcher in IN_CONTAINERS
        reads = not is_dear or time.monotonic() - read_s >= _LOG_EVERY_S
        try:
            seen = get(workspace, run_id, progress=reads)
            away_since_s = None
        except LauncherUnavailable as error:
            # An engine or a cluster that restarts: the job is there again in a moment, or its end.
            away_since_s = away_since_s or time.monotonic()
            if time.monotonic() - away_since_s > _AWAY_PATIENCE_S:
                raise
            workspace.say(f"{error.message}; trying again")
            time.sleep(_AWAY_PAUSE_S)
            continue
        if reads:
            read_s = time.monotonic()
        if (reads or seen.status.is_final) and (every_look or seen != last):
            yield seen
            last = seen
        if seen.status.is_final:
            return
        time.sleep(max(every_s, _FAR_EVERY_S) if seen.launcher in FAR else every_s)


def logs(workspace: Workspace, run_id: str, *, follow: bool = False) -> Iterator[str]:
    """Yield the lines that the run wrote, without the events between them."""
    record = find(workspace, run_id).record
    refuse_freed(record)
    kept = next((a for a in record.artifacts if a.kind == "log"), None)
    if record.handle is None:
        for step in record.steps:
            source = step.cached_from
            yield f"{step.name}: taken from {source}; its log: nbmlops logs {source}"
        return
    if kept is not None:
        yield from workspace.artifacts.get(kept.digest).decode(errors="replace").splitlines()
        return
    refuse_elsewhere(workspace, record)
    prefix: str | None = None
    lines = workspace.launcher(record.launcher).logs(collection.handle(record), follow=follow)
    for number, line in enumerate(lines):
        if number == 0 and line.startswith(MARKER_LINE):
            prefix = line.removeprefix(MARKER_LINE) + " "
        elif prefix is None or not line.startswith(prefix):
            yield line


def refuse_freed(record: RunRecord) -> None:
    """Refuse a run whose files are not kept any more.

    Raises
    ------
    RunFreed
        When ``gc`` has freed them.
    """
    if record.freed_at is not None:
        raise RunFreed(
            f"what {record.run_id} left was freed on {record.freed_at:%Y-%m-%d} by `nbmlops gc`",
            f"Its record stays: `nbmlops run {record.run_id}`. To have it again:"
            f" `nbmlops train {record.pipeline}`.",
            run_id=record.run_id,
        )


def refuse_elsewhere(workspace: Workspace, record: RunRecord) -> None:
    """Refuse a run whose job is seen by the clone that started it alone.

    Raises
    ------
    StartedElsewhere
        When another clone did.
    """
    if not workspace.reaches(record.launcher, record.place):
        raise StartedElsewhere(
            f"{record.run_id} was started in another clone, by {record.author.partition(' <')[0]}",
            f"Ask there; here it can be seen: `nbmlops run {record.run_id}`.",
            run_id=record.run_id,
            place=record.place,
        )


def artifact(
    workspace: Workspace, run_id: str, name: str, *, attempt: int | None = None
) -> ArtifactRecord:
    """Return what is known of a file that a run left, its last attempt unless another is named.

    Raises
    ------
    UnknownReference
        When it left no file of that name.
    """
    record = get(workspace, run_id)
    earlier = {one.attempt: one.artifacts for one in record.earlier}
    refuse_freed(record)
    left = record.artifacts if attempt is None else earlier.get(attempt, ())
    for item in left:
        if item.name == name:
            return item
    raise UnknownReference(
        f"{record.run_id} left no `{name[:200]}`", nearest(name, [item.name for item in left])
    )


def register(workspace: Workspace, run_id: str) -> RunRecord:
    """Register the models of a sweep's trial, which do not become versions by themselves."""
    kept = find(workspace, run_id)
    if not workspace.reaches(kept.record.launcher, kept.record.place):
        return replace(kept.record, elsewhere=True)  # its versions are for that clone to make
    seen = collection.registered(workspace, kept.record)
    if seen != kept.record:
        try:
            keep(workspace, seen, kept.revision, f"versions:{seen.run_id}:{seen.attempts}")
        except Conflict:
            return find(workspace, run_id).record
    return seen


def save(workspace: Workspace, record: RunRecord, folder: Path) -> None:
    """Write a run's artifacts below a folder that is not there yet, each checked by its digest.

    Raises
    ------
    WrongUse
        When the folder is there, or a name would lead out of it.
    """
    refuse_freed(record)
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


def cancel_all(workspace: Workspace, run_ids: Sequence[str]) -> None:
    """End the trials of a sweep; those that are parts of one job end with it."""
    batches: set[JobHandle] = set()
    for run_id in run_ids:
        handle = collection.handle(find(workspace, run_id).record)
        if handle.index is None:
            cancel(workspace, run_id)
        else:
            batches.add(replace(handle, index=None))
    for handle in batches:
        workspace.launcher(handle.launcher).cancel(handle)


def cancel(workspace: Workspace, run_id: str, *, patience_s: float = 20.0) -> RunRecord:
    """End the run, and return it once it has ended; one that has ended stays as it is.

    Raises
    ------
    StartedElsewhere
        When another clone started it: nothing of it can be ended from here.
    """
    record = get(workspace, run_id)
    if record.status.is_final:
        return record
    refuse_elsewhere(workspace, record)
    if collection.handle(record).index is not None:
        raise WrongUse(
            f"{record.run_id} is a part of one job with the other trials of its sweep",
            f"End the sweep: `nbmlops cancel {record.sweep}`.",
            run_id=record.run_id,
        )
    workspace.launcher(record.launcher).cancel(collection.handle(record))
    deadline = time.monotonic() + patience_s
    while not record.status.is_final and time.monotonic() < deadline:
        time.sleep(0.1)
        record = get(workspace, record.run_id)
    return record
