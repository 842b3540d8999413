"""Looks that a launcher's jobs make: submitted here, answered there, taken in by any look later.

The job is given copies of what it needs, the reference and the calls that nobody has counted yet,
and what it leaves is a report: it reaches no store, and writes no history. So it runs wherever
jobs run, and whoever is killed in between leaves a job that the next tick takes in.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from nbmlops import deployments, digests, endpoints, layout, models, records, runs, sites
from nbmlops.calllog.segments import segments_of
from nbmlops.errors import Conflict, NbmlopsError
from nbmlops.monitoring import spans
from nbmlops.monitoring.answering import Inquiry, against, reference_name
from nbmlops.monitoring.errands import Errand, Outcome
from nbmlops.monitoring.spans import Span
from nbmlops.monitors import hours, looking, truths
from nbmlops.project import length
from nbmlops.records import (
    Cause,
    DeploymentRecord,
    JobHandle,
    JobSpec,
    JobStatus,
    LookJob,
    MonitorReport,
    Status,
)
from nbmlops.workspace import FAR, Workspace

KIND = "look"
HERE = "here"
"""What stands for a launcher in the note of a look that failed without one."""

TIMEOUT_S = 3600
PATIENCE_S = 10.0
LIMIT_BYTES = 64 * 2**20
_OPEN, _ENDED = "open", "ended"
_ALL = 10_000
_LOOK_EVERY_S = 0.2
_FAR_EVERY_S = 2.0


class LookFailed(NbmlopsError):
    """A job that was to look at calls has left no report."""

    code = "look-failed"
    exit_code = 1


def follow(
    workspace: Workspace, endpoint: str, launcher: str, *, window: str | None = None
) -> MonitorReport:
    """Answer the four questions for an endpoint's calls by a job, and follow it to its end.

    One that looks at the same calls already is followed instead.

    Raises
    ------
    UnknownEndpoint
        When no such endpoint is up.
    LauncherUnavailable
        When the launcher is not there.
    LookFailed
        When the job leaves no report.
    """
    asked = submit(workspace, looking.served(workspace, endpoint), launcher, window=window)
    assert asked is not None  # noqa: S101 who waits gets one
    workspace.say(f"{asked.job} looks at the calls of {endpoint}")
    said, status = "", _pushed(workspace, asked)
    try:
        while not status.status.is_final:
            if status.cause is not None and status.cause.message != said:
                said = status.cause.message
                workspace.say(f"{asked.job} waits: {said}")
            time.sleep(_FAR_EVERY_S if asked.launcher in FAR else _LOOK_EVERY_S)
            status = _pushed(workspace, asked)
    except KeyboardInterrupt:
        workspace.warn(f"{asked.job} goes on; the same command follows it, and a tick takes it in")
        raise
    with workspace.exclusively(_lock(asked.key)):
        kept = workspace.store.get(KIND, asked.key, LookJob)
        if kept is not None and kept.record == asked:
            outcome = _take_in(workspace, asked, kept.revision, status)
        else:  # a tick has taken it in
            outcome = _outcome(workspace, asked, status)
    if outcome.report is None:
        raise _failure(asked, outcome)
    return outcome.report


def submit(
    workspace: Workspace,
    deployment: DeploymentRecord,
    launcher: str,
    *,
    window: str | None = None,
    wait: bool = True,
) -> LookJob | None:
    """Have a job look at a deployment's calls of the last ``window``; return at once.

    Where somebody else asks for the same look at this moment, wait for that, or return ``None``.

    Raises
    ------
    LauncherUnavailable
        When the launcher is not there.
    ProfileTooOld
        When the version was trained by an older nbmlops.
    """
    workspace.launcher(launcher).check()
    tool = sites.tool(workspace, launcher)  # nobody waits at the lock while an image is built
    key = key_of(deployment.deployment_id, window)
    with workspace.exclusively(_lock(key), wait=wait) as ours:
        if not ours:
            return None
        kept = workspace.store.get(KIND, key, LookJob)
        if kept is not None and _is_ours(workspace, kept.record):
            if not kept.record.ended:
                status = _pushed(workspace, kept.record)
                if not status.status.is_final:
                    return kept.record
                # It ended, or whoever asked was killed before it began.
                _take_in(workspace, kept.record, kept.revision, status)
            _forget(workspace, kept.record.job)
            kept = workspace.store.get(KIND, key, LookJob)
        made = _made(workspace, deployment, launcher, window)
        revision = _keep(workspace, made, kept.revision if kept else 0)
        try:
            job = _filled(workspace, made, deployment, tool)
            layout.write_file(_file(workspace, made), records.dump(job))
            workspace.launcher(launcher).launch(job)
        except Exception as error:
            _called_off(workspace, made, revision, error)
            raise
        return made


def _made(
    workspace: Workspace, deployment: DeploymentRecord, launcher: str, window: str | None
) -> LookJob:
    now = workspace.now()
    return LookJob(
        key=key_of(deployment.deployment_id, window),
        job=layout.new_id(f"look-{deployment.endpoint}"[:40], now.timestamp()),
        launcher=launcher,
        deployment_id=deployment.deployment_id,
        window=window,
        asked_at=now,
        place=workspace.place(),
    )


def _called_off(workspace: Workspace, made: LookJob, revision: int, error: Exception) -> None:
    """Note that a look could not be asked for, so that it is due in its time and not at once."""
    _keep(workspace, records.replace(made, ended=True, cause=_cause(error)), revision)
    with contextlib.suppress(NbmlopsError, OSError):
        handle = JobHandle(launcher=made.launcher, name=made.job)
        workspace.launcher(made.launcher).cancel(handle)
    _forget(workspace, made.job)


def note_failure(
    workspace: Workspace, deployment: DeploymentRecord, window: str | None, error: Exception
) -> None:
    """Note that a look that was made here failed: the next one is due in its time."""
    made = _made(workspace, deployment, HERE, window)
    kept = workspace.store.get(KIND, made.key, LookJob)
    if kept is None or kept.record.ended:
        with contextlib.suppress(Conflict):
            failed = records.replace(made, ended=True, cause=_cause(error))
            _keep(workspace, failed, kept.revision if kept else 0)


def _cause(error: Exception) -> Cause:
    if isinstance(error, NbmlopsError):
        return Cause(code=error.code, message=error.message, hint=error.hint or None)
    return Cause(code="look-failed", message=f"{type(error).__name__}: {error}")


def _keep(workspace: Workspace, asked: LookJob, revision: int) -> int:
    return workspace.store.swap(
        KIND,
        asked.key,
        asked,
        expected=revision,
        key=f"{KIND}:{asked.job}:{_ENDED if asked.ended else _OPEN}",
        status=_ENDED if asked.ended else _OPEN,
    )


def _forget(workspace: Workspace, job: str) -> None:
    """Remove what a job that has ended left: the next one of its kind is there to be read."""
    places = (place / job for place in workspace.home.launcher_folders)
    for folder in (workspace.home.job(job).root, *places):
        shutil.rmtree(folder, ignore_errors=True)


def take_in(workspace: Workspace) -> Iterator[MonitorReport]:
    """Take in and yield what jobs that have ended found; tell of those that have left nothing.

    One that cannot be asked about keeps nobody from the others.
    """
    for asked in list(standing(workspace)):
        try:
            report = _taken_in(workspace, asked)
        except Exception as error:
            workspace.warn(f"{asked.job} may have ended: {_cause(error).message}")
        else:
            if report is not None:
                yield report


def _taken_in(workspace: Workspace, asked: LookJob) -> MonitorReport | None:
    with workspace.exclusively(_lock(asked.key), wait=False) as ours:
        kept = workspace.store.get(KIND, asked.key, LookJob) if ours else None
        if kept is None or kept.record != asked:
            return None
        status = _pushed(workspace, asked)
        if not status.status.is_final:
            return None
        outcome = _take_in(workspace, asked, kept.revision, status)
        if outcome.report is None:
            workspace.warn(str(_failure(asked, outcome)))
        return outcome.report


def newest(workspace: Workspace, deployment_id: str, window: str | None) -> LookJob | None:
    """Return the look at these calls that was asked for last, if any was."""
    kept = workspace.store.get(KIND, key_of(deployment_id, window), LookJob)
    return None if kept is None else kept.record


def standing(workspace: Workspace) -> Iterator[LookJob]:
    """Yield the jobs of this clone whose reports were not taken in yet."""
    for kept in workspace.store.page(KIND, LookJob, limit=_ALL, status=(_OPEN,)):
        if _is_ours(workspace, kept.record):
            yield kept.record


def every(workspace: Workspace) -> Iterator[LookJob]:
    """Yield the newest job of each kind of look of this clone."""
    for kept in workspace.store.page(KIND, LookJob, limit=_ALL):
        if _is_ours(workspace, kept.record):
            yield kept.record


def logs(workspace: Workspace, name: str, *, follow: bool = False) -> Iterator[str] | None:
    """Return the lines that a job which looks wrote; ``None`` if it is none of this clone."""
    for asked in every(workspace):
        if asked.job == name and asked.launcher != HERE:
            handle = JobHandle(launcher=asked.launcher, name=name)
            return workspace.launcher(asked.launcher).logs(handle, follow=follow)
    return None


def key_of(deployment_id: str, window: str | None) -> str:
    """Return the name of a kind of look: at these calls of this deployment."""
    return f"{deployment_id}-{window or 'all'}"


def _lock(key: str) -> str:
    return f"{KIND}-{digests.of_bytes(key.encode())[:32]}"


def _is_ours(workspace: Workspace, asked: LookJob) -> bool:
    return workspace.reaches(asked.launcher, asked.place)


def _file(workspace: Workspace, asked: LookJob) -> Path:
    return workspace.home.job(asked.job).inbox / layout.JOB_FILE


def _pushed(workspace: Workspace, asked: LookJob) -> JobStatus:
    """Return how a job fares; one that has not begun after a while is launched again.

    Whoever asked may have been killed in the midst of it. The name makes it one job.
    """
    launcher = workspace.launcher(asked.launcher)
    handle = JobHandle(launcher=asked.launcher, name=asked.job)
    status = launcher.poll([handle])[handle]
    unknown = status.cause is not None and status.cause.code == "job-unknown"
    waits = unknown or status.status is Status.PENDING
    age_s = (workspace.now() - asked.asked_at).total_seconds()
    if waits and not asked.ended and abs(age_s) >= PATIENCE_S:
        with contextlib.suppress(FileNotFoundError):  # killed before that: it has left nothing
            launcher.launch(records.load(_file(workspace, asked).read_bytes(), JobSpec))
            return launcher.poll([handle])[handle]
    return status


# --- what the job is given ----------------------------------------------------------------------


def _filled(
    workspace: Workspace, made: LookJob, deployment: DeploymentRecord, tool: tuple[str, str | None]
) -> JobSpec:
    """Return the job of a look, its inbox filled."""
    since = made.asked_at - length(made.window) if made.window else None
    inquiry = looking.inquiry(
        workspace, deployment, since=since, until=None, created_at=made.asked_at
    )
    profile, tested = looking.references(workspace, inquiry.version)
    held = against(inquiry, profile, tested)
    paths = workspace.home.job(made.job)
    segments = paths.inbox / layout.SEGMENTS_FOLDER
    segments.mkdir(parents=True)
    layout.write_file(paths.inbox / layout.PROFILE_FILE, profile)
    if tested is not None:
        layout.write_file(paths.inbox / layout.PERFORMANCE_FILE, tested)
    found: list[Span] = []
    sealed: list[str] = []
    for segment, kept in hours.of_segments(
        workspace, deployment.deployment_id, held.name, inquiry.since, inquiry.until
    ):
        inside = [] if kept is None else spans.within(kept, inquiry.since, inquiry.until)
        if kept is not None and len(inside) == len(kept):
            found += inside
            continue
        with contextlib.suppress(FileNotFoundError):  # its time was over
            if segment.is_sealed:
                sealed.append(segment.path.name)
            # A copy of one that is being written may end in half a line, which does not count.
            shutil.copyfile(segment.path, segments / segment.path.name)
    calls, true = truths.arrived(workspace, deployment.deployment_id, inquiry.since, inquiry.until)
    errand = Errand(
        inquiry=inquiry,
        spans=tuple(found),
        sealed=tuple(sealed),
        calls=tuple(calls),
        truths=tuple((call_id, row, truth) for (call_id, row), truth in true.items()),
    )
    layout.write_file(paths.inbox / layout.SPEC_FILE, records.dump(errand))
    return _job(workspace, made, inquiry, tool)


def _job(
    workspace: Workspace, made: LookJob, inquiry: Inquiry, tool: tuple[str, str | None]
) -> JobSpec:
    python, image = tool
    paths = workspace.home.job(made.job)
    asks = runs.resources_of(workspace, inquiry.version)
    return JobSpec(
        name=made.job,
        command=_program(python),
        inbox=paths.inbox.as_uri(),
        outbox=paths.outbox.as_uri(),
        image=image,
        # Where the version was made there is room to look at it; nothing is computed on a GPU.
        resources=records.replace(asks, gpus=0, timeout_s=TIMEOUT_S),
        labels={
            "look": made.job,
            "model": f"{inquiry.version.model}.{inquiry.version.version}",
            "commit": inquiry.version.commit,
        },
    )


def _program(python: str) -> tuple[str, ...]:
    return (python, "-m", "nbmlops.looker")


# --- what it leaves -----------------------------------------------------------------------------


def _take_in(workspace: Workspace, asked: LookJob, revision: int, status: JobStatus) -> Outcome:
    """Keep what a job found, and only then that it has ended; the caller holds the lock.

    Alerts follow where the deployment has the traffic still: of another nobody wants to hear.
    """
    outcome = _outcome(workspace, asked, status)
    if outcome.report is not None:
        deployment = deployments.recorded(workspace, asked.deployment_id)
        _keep_counted(workspace, asked, outcome)
        endpoint = endpoints.find(workspace, deployment.endpoint)
        if endpoint and endpoint.running and endpoint.deployment_id == asked.deployment_id:
            looking.take(workspace, deployment, outcome.report)
        else:
            looking.keep(workspace, asked.deployment_id, outcome.report)
    _keep(workspace, records.replace(asked, ended=True, cause=outcome.cause), revision)
    return outcome


def _keep_counted(workspace: Workspace, asked: LookJob, outcome: Outcome) -> None:
    """Keep the spans of segments that nothing is written to any more, if they can be read."""
    if outcome.format != spans.FORMAT:
        return
    for segment in segments_of(workspace.home.calls / asked.deployment_id):
        found = list(outcome.counted.get(segment.path.name, ()))
        with contextlib.suppress(Exception):  # they are counted again, then
            if found and segment.is_sealed:
                spans.merged([*found, *found])  # which reads each, also where there is but one
                name = segment.path.name
                hours.keep(workspace, asked.deployment_id, name, outcome.reference, found)


def _outcome(workspace: Workspace, asked: LookJob, status: JobStatus) -> Outcome:
    """Return what a job has left, or why it has left nothing."""
    paths = workspace.home.job(asked.job)
    for attempt in reversed(status.attempts):
        path = paths.result(attempt.name)
        try:
            if path.stat().st_size > LIMIT_BYTES:
                continue
            found = records.load(path.read_bytes(), Outcome)
        except (OSError, msgspec.MsgspecError, RecursionError):
            continue
        if found.report is None or _is_genuine(workspace, asked, found):
            return found
    seen = status.cause
    if seen is not None and (seen.hint or "").endswith("`nbmlops logs`."):
        seen = records.replace(seen, hint=None)  # the log of this job is meant
    return Outcome(cause=seen)


def _is_genuine(workspace: Workspace, asked: LookJob, found: Outcome) -> bool:
    """Return whether a report is about what was asked."""
    deployment = deployments.recorded(workspace, asked.deployment_id)
    report = found.report
    assert report is not None  # noqa: S101 the caller has looked
    version = models.find(workspace, f"{deployment.model}:{deployment.version}")
    told = (report.created_at, report.endpoint, report.model, report.version, found.reference)
    return told == (
        asked.asked_at,
        deployment.endpoint,
        version.model,
        version.version,
        reference_name(version),
    )


def _failure(asked: LookJob, outcome: Outcome) -> LookFailed:
    why = outcome.cause or Cause(code="look-failed", message="it has left no report")
    return LookFailed(
        f"{asked.job} could not look at the calls of {asked.deployment_id}: {why.message}",
        why.hint or f"See what it wrote: `nbmlops logs {asked.job}`; or look here, without --on.",
        job=asked.job,
        reason=why.code,
    )
