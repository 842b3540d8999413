"""Looks that a launcher's jobs make: submitted here, answered there, taken in by any look later.

The job is given copies of what it needs, the reference and the calls that nobody has counted yet,
and what it leaves is a report: it reaches no store, and writes no history. So it runs wherever
jobs run, and whoever is killed in between leaves a job that the next tick takes in.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from datetime import datetime

import msgspec

from nbmlops import deployments, layout, records, runs, sites
from nbmlops.calllog.segments import segments_of
from nbmlops.errors import NbmlopsError
from nbmlops.monitoring import spans
from nbmlops.monitoring.answering import Inquiry, against
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
)
from nbmlops.workspace import FAR, Workspace

KIND = "look"
TIMEOUT_S = 3600
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
    workspace.say(f"{asked.job} looks at the calls of {endpoint}")
    said, status = "", _status(workspace, asked)
    try:
        while not status.status.is_final:
            if status.cause is not None and status.cause.message != said:
                said = status.cause.message
                workspace.say(f"{asked.job} waits: {said}")
            time.sleep(_FAR_EVERY_S if asked.launcher in FAR else _LOOK_EVERY_S)
            status = _status(workspace, asked)
    except KeyboardInterrupt:
        workspace.warn(f"{asked.job} goes on; the same command follows it, and a tick takes it in")
        raise
    with workspace.exclusively(_lock(asked.key)):
        kept = workspace.store.get(KIND, asked.key, LookJob)
        if kept is not None and kept.record == asked:
            _take_in(workspace, asked, kept.revision, status)
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
) -> LookJob:
    """Have a job look at a deployment's calls of the last ``window``; return at once.

    Raises
    ------
    LauncherUnavailable
        When the launcher is not there.
    """
    workspace.launcher(launcher).check()
    key = key_of(deployment, window)
    with workspace.exclusively(_lock(key)):
        kept = workspace.store.get(KIND, key, LookJob)
        if kept is not None and _is_ours(workspace, kept.record):
            if not kept.record.ended:
                status = _status(workspace, kept.record)
                if not status.status.is_final:
                    return kept.record
                # It ended, or whoever asked was killed before it began.
                _take_in(workspace, kept.record, kept.revision, status)
            _forget(workspace, kept.record.job)
            kept = workspace.store.get(KIND, key, LookJob)
        now = workspace.now()
        made = LookJob(
            key=key,
            job=layout.new_id(f"look-{deployment.endpoint}"[:40], now.timestamp()),
            launcher=launcher,
            deployment_id=deployment.deployment_id,
            window=window,
            asked_at=now,
            place=workspace.place(),
        )
        spec = _filled(workspace, made, deployment)
        workspace.store.swap(
            KIND,
            key,
            made,
            expected=kept.revision if kept else 0,
            key=f"{KIND}:{made.job}",
            status=_OPEN,
        )
        workspace.launcher(launcher).launch(spec)
        return made


def _forget(workspace: Workspace, job: str) -> None:
    """Remove what a job that has ended left: the next one of its kind is there to be read."""
    places = (place / job for place in workspace.home.launcher_folders)
    for folder in (workspace.home.job(job).root, *places):
        shutil.rmtree(folder, ignore_errors=True)


def take_in(workspace: Workspace) -> Iterator[MonitorReport]:
    """Take in and yield what jobs that have ended found; tell of those that have left nothing."""
    for asked in standing(workspace):
        with workspace.exclusively(_lock(asked.key), wait=False) as ours:
            kept = workspace.store.get(KIND, asked.key, LookJob) if ours else None
            if kept is None or kept.record != asked:
                continue
            status = _status(workspace, asked)
            if not status.status.is_final:
                continue
            outcome = _take_in(workspace, asked, kept.revision, status)
            if outcome.report is None:
                workspace.warn(str(_failure(asked, outcome)))
            else:
                yield outcome.report


def asked_at(
    workspace: Workspace, deployment: DeploymentRecord, window: str | None
) -> datetime | None:
    """Return when a job was last asked to look at these calls; never: ``None``."""
    kept = workspace.store.get(KIND, key_of(deployment, window), LookJob)
    return None if kept is None else kept.record.asked_at


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
        if asked.job == name:
            handle = JobHandle(launcher=asked.launcher, name=name)
            return workspace.launcher(asked.launcher).logs(handle, follow=follow)
    return None


def key_of(deployment: DeploymentRecord, window: str | None) -> str:
    """Return the name of a kind of look: at these calls of this deployment."""
    return f"{deployment.deployment_id}-{window or 'all'}"


def _lock(key: str) -> str:
    return f"{KIND}-{key}"


def _is_ours(workspace: Workspace, asked: LookJob) -> bool:
    return workspace.reaches(asked.launcher, asked.place)


def _status(workspace: Workspace, asked: LookJob) -> JobStatus:
    handle = JobHandle(launcher=asked.launcher, name=asked.job)
    return workspace.launcher(asked.launcher).poll([handle])[handle]


# --- what the job is given ----------------------------------------------------------------------


def _filled(workspace: Workspace, made: LookJob, deployment: DeploymentRecord) -> JobSpec:
    """Return the job of a look, its inbox filled."""
    since = made.asked_at - length(made.window) if made.window else None
    inquiry = looking.inquiry(
        workspace, deployment, since=since, until=None, created_at=made.asked_at
    )
    profile, tested = looking.references(workspace, inquiry.version)
    paths = workspace.home.job(made.job)
    segments = paths.inbox / layout.SEGMENTS_FOLDER
    segments.mkdir(parents=True)
    layout.write_file(paths.inbox / layout.PROFILE_FILE, profile)
    if tested is not None:
        layout.write_file(paths.inbox / layout.PERFORMANCE_FILE, tested)
    held = against(inquiry, profile, tested)
    found: list[Span] = []
    sealed: list[str] = []
    for segment, kept in hours.of_segments(
        workspace, deployment.deployment_id, held.name, inquiry.since, inquiry.until
    ):
        inside = [] if kept is None else spans.within(kept, inquiry.since, inquiry.until)
        if kept is not None and len(inside) == len(kept):
            found += inside
            continue
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
    return _job(workspace, made, inquiry)


def _job(workspace: Workspace, made: LookJob, inquiry: Inquiry) -> JobSpec:
    python, image = sites.tool(workspace, made.launcher)
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
    """Keep what a job found, and only then that it has ended; the caller holds the lock."""
    outcome = _outcome(workspace, asked, status)
    if outcome.report is not None:
        deployment = deployments.get(workspace, asked.deployment_id)
        folder = workspace.home.calls / deployment.deployment_id
        for name in outcome.counted.keys() & {one.path.name for one in segments_of(folder)}:
            found = list(outcome.counted[name])
            hours.keep(workspace, deployment.deployment_id, name, outcome.reference, found)
        looking.take(workspace, deployment, outcome.report)
    workspace.store.swap(
        KIND,
        asked.key,
        records.replace(asked, ended=True, cause=outcome.cause),
        expected=revision,
        key=f"{KIND}:{asked.job}:ended",
        status=_ENDED,
    )
    return outcome


def _outcome(workspace: Workspace, asked: LookJob, status: JobStatus) -> Outcome:
    """Return what a job has left, or why it has left nothing."""
    paths = workspace.home.job(asked.job)
    for attempt in reversed(status.attempts):
        try:
            return records.load(paths.result(attempt.name).read_bytes(), Outcome)
        except (OSError, msgspec.MsgspecError):
            continue
    seen = status.cause
    if seen is not None and (seen.hint or "").endswith("`nbmlops logs`."):
        seen = records.replace(seen, hint=None)  # the log of this job is meant
    return Outcome(cause=seen)


def _failure(asked: LookJob, outcome: Outcome) -> LookFailed:
    why = outcome.cause or Cause(code="look-failed", message="it has left no report")
    return LookFailed(
        f"{asked.job} could not look at the calls of {asked.deployment_id}: {why.message}",
        why.hint or f"See what it wrote: `nbmlops logs {asked.job}`; or look here, without --on.",
        job=asked.job,
        reason=why.code,
    )
