"""Sweeps: many runs of one pipeline over a space of parameters, from one snapshot.

A sweep goes on in a process of its own, which outlives whoever asked for it; any look at the sweep
starts that process again if it was killed. All it does is :func:`advance` again and again.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Literal

from nbmlops import (
    decisions,
    layout,
    notebook,
    pipelines,
    records,
    runs,
    search,
    snapshot,
    stepcache,
    submission,
)
from nbmlops.errors import (
    Conflict,
    InvalidParameter,
    NbmlopsError,
    UnknownParameter,
    WrongUse,
    nearest,
)
from nbmlops.pipelines import Pipeline
from nbmlops.project import PipelineSettings
from nbmlops.records import (
    Cause,
    Dimension,
    JobHandle,
    JobSpec,
    JobStatus,
    Record,
    RunRecord,
    Status,
    SweepRecord,
    Trial,
    replace,
)
from nbmlops.rules import Session
from nbmlops.store import Kept
from nbmlops.workspace import FAR, StartedElsewhere, Workspace

KIND = "sweep"
_FAR_EVERY_S = 2.0  # a cluster is asked less often than this machine
Search = Literal["grid", "random", "bayes"]
_UNFINISHED = (Status.PENDING.value, Status.RUNNING.value)
_TRIALS_LIMIT = 100_000
# What log_model says of a model on its test data, where nobody names another metric.
_USUAL_METRICS = ("accuracy", "r2")
# A sweep most of whose first trials fail is stopped: the rest would fail the same way.
_FAILURES_IN_A_ROW = 5
_DRIVERS_LIMIT = 5


class _Plan(Record, frozen=True, kw_only=True):
    """What the driver needs besides the record: the pipeline as it was, and the data."""

    settings: PipelineSettings
    basis: submission.Basis


def submit(
    workspace: Workspace,
    pipeline: Pipeline,
    given: dict[str, str],
    *,
    how: Search = "grid",
    trials: int | None = None,
    parallel: int = 1,
    metric: str | None = None,
    direction: Literal["maximize", "minimize"] | None = None,
    seed: int | None = None,
    launcher: str = "local",
    force: bool = False,
    sessions: Mapping[str, Session] | None = None,
) -> SweepRecord:
    """Start a sweep and return its record; it is durable, and goes on without us.

    Raises
    ------
    NbmlopsError
        When the space, the work tree, a notebook or the environment is not fit; nothing has been
        started then.
    """
    workspace.launcher(launcher).check()
    if parallel < 1:
        raise WrongUse(f"{parallel} trials at a time are none", "Try `--parallel 2`.")
    submission.refuse_secrets(workspace, given)
    taken = submission.capture(workspace)
    space, fixed = _space(workspace, taken.commit, pipeline, given)
    total = _total(space, how, trials)
    # Values at the space's ends are refused before anything is kept or made.
    pipelines.steps(workspace, taken.commit, pipeline, {**fixed, **_corner(space)})
    submission.enforce(workspace, taken, pipeline, sessions)
    snapshot.hold(workspace.repo, taken)
    now = workspace.now()
    sweep_id = layout.new_id(f"sweep-{pipeline.name}"[:40], now.timestamp())
    basis = replace(
        submission.basis(workspace, taken, launcher),
        source=str(workspace.home.job(sweep_id).inbox / layout.SOURCE_FILE),
    )
    record = SweepRecord(
        sweep_id=sweep_id,
        pipeline=pipeline.name,
        status=Status.PENDING,
        search=how,
        metric=metric or pipeline.settings.metric,
        direction=direction or pipeline.settings.direction,
        space=space,
        fixed=fixed,
        trials_total=total,
        parallel=min(parallel, total),
        seed=secrets.randbelow(2**31) if seed is None else seed,
        commit=taken.commit,
        base_commit=taken.base_commit,
        dirty=taken.dirty,
        environment_id=basis.environment.environment_id,
        launcher=launcher,
        created_at=now,
        author=workspace.repo.author(),
        force=force,
        snapshot=taken,
        environment=basis.environment,
        handle=JobHandle(launcher="local", name=sweep_id),
        place=decisions.place(workspace),
    )
    plan = _Plan(settings=pipeline.settings, basis=basis)
    inbox = workspace.home.job(sweep_id).inbox
    inbox.mkdir(parents=True)
    snapshot.export(workspace.repo, taken.commit, inbox / layout.SOURCE_FILE)
    layout.write_file(inbox / layout.SPEC_FILE, records.dump(plan))
    _keep(workspace, record, 0, f"submit:{sweep_id}")
    _drive(workspace, record)
    return record


def _space(
    workspace: Workspace, commit: str, pipeline: Pipeline, given: dict[str, str]
) -> tuple[tuple[Dimension, ...], dict[str, Any]]:
    """Return the parameters that vary, and the values of those that do not."""
    declared = pipelines.parameters(workspace, commit, pipeline)
    space: list[Dimension] = []
    fixed: dict[str, Any] = {}
    for name, text in given.items():
        if name not in declared:
            raise UnknownParameter(
                f"pipeline `{pipeline.name}` has no parameter `{name}`",
                nearest(name, declared),
                parameter=name,
            )
        found = search.dimension(declared[name], text)
        if found is None:
            fixed[name] = notebook.coerced(declared[name], text)
        else:
            space.append(found)
    if not space:
        raise InvalidParameter(
            "no parameter varies",
            "Give one some values, `-p max_depth=2,4,8`, or a range, `-p n_estimators=50..400`.",
        )
    return tuple(space), fixed


def _total(space: tuple[Dimension, ...], how: Search, trials: int | None) -> int:
    if trials is not None and not 1 <= trials <= _TRIALS_LIMIT:
        raise WrongUse(f"{trials} trials cannot be run", f"Name 1 to {_TRIALS_LIMIT:,}.")
    if how == "grid":
        size = len(search.grid(space))
        return size if trials is None else min(size, trials)
    if trials is None:
        raise WrongUse("how many trials?", f"Say it: `--search {how} --trials 20`.")
    return trials


def _corner(space: tuple[Dimension, ...]) -> dict[str, Any]:
    return {
        one.name: one.choices[0]
        if one.kind == "choices"
        else int(one.low or 0)
        if one.kind == "integers"
        else one.low
        for one in space
    }


# --- going on -----------------------------------------------------------------------------------


def _drive(workspace: Workspace, record: SweepRecord) -> None:
    """Start the process that goes on with the sweep, or adopt the one that does."""
    paths = workspace.home.job(record.sweep_id)
    launcher = workspace.launcher("local")
    handle = record.handle or JobHandle(launcher="local", name=record.sweep_id)
    job = JobSpec(
        name=handle.name,
        command=(sys.executable, "-m", "nbmlops.driver", str(workspace.root), record.sweep_id),
        inbox=paths.inbox.as_uri(),
        outbox=paths.outbox.as_uri(),
        secrets=workspace.settings.project.secrets,
    )
    launcher.launch(job)


def observe(workspace: Workspace, kept: Kept[SweepRecord]) -> SweepRecord:
    """Return the sweep as it is now; one whose process was killed is taken up again."""
    record = kept.record
    if record.status.is_final or record.handle is None:
        return record
    if not workspace.reaches("local", record.place):
        return record  # the clone that started it goes on with it
    status = workspace.launcher("local").poll([record.handle])[record.handle]
    if status.status.is_final:
        again = _taken_up(record, record.handle, workspace.now(), status)
        try:
            _keep(workspace, again, kept.revision, f"driver:{kept.revision}:{again.sweep_id}")
        except Conflict:
            return find(workspace, record.sweep_id).record
        if not again.status.is_final:
            _drive(workspace, again)
        return again
    return record


def _taken_up(
    record: SweepRecord, handle: JobHandle, now: datetime, status: JobStatus
) -> SweepRecord:
    """Return the sweep with another process to go on with it, or given up after many."""
    counted = handle.name.removeprefix(record.sweep_id).removeprefix("-r")
    tried = int(counted or 1)
    if tried < _DRIVERS_LIMIT:
        return replace(record, handle=replace(handle, name=f"{record.sweep_id}-r{tried + 1}"))
    told = status.cause.message if status.cause else "it ended without a word"
    cause = Cause(
        code="driver-failed",
        message=f"the process that goes on with the sweep ended {tried} times: {told}",
        hint=f"See its log: `nbmlops logs {record.sweep_id}`.",
    )
    return replace(record, status=Status.FAILED, cause=cause, finished_at=now)


def drive(workspace: Workspace, sweep_id: str, *, every_s: float = 0.1) -> SweepRecord:
    """Go on with a sweep until it has ended; what the sweep's own process does.

    Where another process does so already, return at once.
    """
    with workspace.exclusively(f"drive-{sweep_id}", wait=False) as alone:
        while alone:
            record = advance(workspace, sweep_id)
            if record.status.is_final:
                return record
            time.sleep(max(every_s, _FAR_EVERY_S) if record.launcher in FAR else every_s)
    return find(workspace, sweep_id).record


def advance(workspace: Workspace, sweep_id: str) -> SweepRecord:
    """Take in the trials that have ended, and start as many as may run; return the sweep.

    A trial is written into the record before its run is started, with the parameters that follow
    from the record; its run is found again by its content, so that a kill between any two steps
    neither loses nor doubles one.
    """
    kept = find(workspace, sweep_id)
    record = kept.record
    if record.status.is_final:
        return record
    plan = records.load((workspace.home.job(sweep_id).inbox / layout.SPEC_FILE).read_bytes(), _Plan)
    seen = _judged(_looked_at(workspace, plan, record))
    if not seen.status.is_final and not _hopeless(seen):
        under_way = sum(not trial.status.is_final for trial in seen.trials)
        room = _room(workspace, plan, seen) - under_way
        if record.launcher in FAR and room > 1 and record.search != "bayes":
            room = seen.trials_total  # the cluster keeps so many at a time as may run
        elif record.launcher in FAR and under_way and record.parallel > 1:
            room = 0  # a Bayesian search goes on in rounds
        for _ in range(max(0, min(room, seen.trials_total - len(seen.trials)))):
            trial = Trial(
                number=len(seen.trials) + 1,
                parameters=search.propose(seen),
                status=Status.PENDING,
            )
            seen = replace(seen, status=Status.RUNNING, trials=(*seen.trials, trial))
    if seen == record:
        return record
    if seen.status.is_final:
        seen = replace(
            seen, finished_at=workspace.now(), model_versions=_registered(workspace, seen)
        )
    key = f"sweep:{sweep_id}:{kept.revision}"
    _keep(workspace, seen, kept.revision, key)
    return seen


def _registered(workspace: Workspace, record: SweepRecord) -> tuple[str, ...]:
    """Make versions of the best trial's models, and return them; again changes nothing."""
    best = next((trial for trial in record.trials if trial.number == record.best), None)
    if record.status is not Status.SUCCEEDED or best is None or best.run_id is None:
        return ()
    return runs.register(workspace, best.run_id).model_versions


def _room(workspace: Workspace, plan: _Plan, record: SweepRecord) -> int:
    """Return how many trials may be under way: one, while a step that all share has not run."""
    if record.parallel == 1 or len(plan.settings.steps) == 1 or record.force:
        return record.parallel
    if any(trial.status is Status.SUCCEEDED for trial in record.trials):
        return record.parallel
    corner = _corner(record.space)
    first = _requested(workspace, plan, record, {**record.fixed, **corner})
    varying = {one.name for one in record.space}
    declared = pipelines.parameters_by_step(workspace, record.commit, _pipeline(plan, record))
    shared: list[records.StepSpec] = []
    names: set[str] = set()
    for step in first.steps:
        if not varying & declared[step.name] and set(step.after) <= names:
            names.add(step.name)
            shared.append(step)
    missing = len(stepcache.find(workspace, shared)) < len(shared)
    return 1 if missing else record.parallel


def _pipeline(plan: _Plan, record: SweepRecord) -> Pipeline:
    return Pipeline(name=record.pipeline, settings=plan.settings)


def _requested(
    workspace: Workspace, plan: _Plan, record: SweepRecord, given: dict[str, Any]
) -> submission.Request:
    pipeline = _pipeline(plan, record)
    checked = pipelines.steps(workspace, record.commit, pipeline, given)
    return submission.request(workspace, pipeline, checked, plan.basis, record.launcher)


def _looked_at(workspace: Workspace, plan: _Plan, record: SweepRecord) -> SweepRecord:
    """Return the sweep with each trial as its run is now; one that has no run yet gets it."""
    if record.launcher in FAR:
        record = _start_round(workspace, plan, record)
    under_way = [trial.run_id for trial in record.trials if not trial.status.is_final]
    known = runs.seen(workspace, [run_id for run_id in under_way if run_id is not None])
    trials: list[Trial] = []
    for trial in record.trials:
        if trial.status.is_final:
            trials.append(trial)
            continue
        try:
            run = known.get(trial.run_id or "") or _run_of(workspace, plan, record, trial)
        except NbmlopsError as error:
            if error.exit_code == 5:
                raise  # the outside is not there: the next look tries again
            trials.append(replace(trial, status=Status.FAILED, finished_at=workspace.now()))
            record = replace(
                record, cause=Cause(code=error.code, message=error.message, hint=error.hint)
            )
            continue
        trials.append(_filled(trial, run))
    return replace(record, trials=tuple(trials))


def _start_round(workspace: Workspace, plan: _Plan, record: SweepRecord) -> SweepRecord:
    """Start the trials that have no run yet as one indexed job, where they are several.

    The job's name follows from the record, which has the runs only when all of them are started:
    a round that was killed is found by it and gone on with.
    """
    waiting = [trial for trial in record.trials if trial.run_id is None]
    waiting = [trial for trial in waiting if not trial.status.is_final]
    if not waiting:
        return record
    asked = [_asked_for(workspace, plan, record, trial) for trial in waiting]
    started = submission.start_all(
        workspace,
        asked,
        name=f"{record.sweep_id}-b{waiting[0].number}",
        launcher=record.launcher,
        at_once=record.parallel,
        force=record.force,
    )
    trials = [
        _filled(trial, started[trial.number]) if trial.number in started else trial
        for trial in record.trials
    ]
    return replace(record, trials=tuple(trials))


def _asked_for(
    workspace: Workspace, plan: _Plan, record: SweepRecord, trial: Trial
) -> submission.Request:
    asked = _requested(workspace, plan, record, {**record.fixed, **trial.parameters})
    return replace(asked, sweep=record.sweep_id, trial=trial.number)


def _run_of(workspace: Workspace, plan: _Plan, record: SweepRecord, trial: Trial) -> RunRecord:
    if trial.run_id is not None:
        return runs.get(workspace, trial.run_id)
    asked = _asked_for(workspace, plan, record, trial)
    return submission.start(workspace, asked, launcher=record.launcher, force=record.force)


def _filled(trial: Trial, run: RunRecord) -> Trial:
    return replace(
        trial,
        run_id=run.run_id,
        status=run.status,
        metrics=run.metrics,
        started_at=run.started_at,
        finished_at=run.finished_at,
    )


def _judged(record: SweepRecord) -> SweepRecord:
    """Return the sweep with its metric, each trial's value, the best trial, and whether it is over.

    Pure. The metric is the one that was asked for, else a usual one, else the first.
    """
    ended = [trial for trial in record.trials if trial.status is Status.SUCCEEDED]
    metric = record.metric
    if metric is None and ended:
        known = [name for trial in ended for name in trial.metrics]
        metric = next(
            (name for name in _USUAL_METRICS if name in known), known[0] if known else None
        )
    trials = tuple(
        replace(trial, value=trial.metrics.get(metric) if metric else None)
        if trial.status is Status.SUCCEEDED
        else trial
        for trial in record.trials
    )
    valued = [trial for trial in trials if trial.value is not None]
    sign = 1 if record.direction == "maximize" else -1
    best = max(valued, key=lambda trial: sign * (trial.value or 0.0), default=None)
    record = replace(record, trials=trials, metric=metric, best=best.number if best else None)
    return _ended(record)


def _hopeless(record: SweepRecord) -> bool:
    """Return whether so many trials have failed, and none succeeded, that no more are started."""
    final = [trial.status for trial in record.trials if trial.status.is_final]
    failed = len(final) >= min(_FAILURES_IN_A_ROW, record.trials_total)
    return failed and Status.SUCCEEDED not in final


def _ended(record: SweepRecord) -> SweepRecord:
    final = [trial for trial in record.trials if trial.status.is_final]
    bad = [trial for trial in final if trial.status is not Status.SUCCEEDED]
    under_way = len(record.trials) - len(final)
    if under_way or not (len(final) == record.trials_total or _hopeless(record)):
        return record
    if len(bad) == len(final):
        ids = next((trial.run_id for trial in bad if trial.run_id), None)
        cause = record.cause or Cause(
            code="trials-failed",
            message=f"none of the {len(final)} trials succeeded",
            hint=f"See the first: `nbmlops run {ids}`." if ids else None,
        )
        return replace(record, status=Status.FAILED, cause=cause)
    if record.metric is None or record.best is None:
        what = f"`{record.metric}`" if record.metric else "a metric"
        known = sorted({name for trial in final for name in trial.metrics})
        cause = Cause(
            code="metric-missing",
            message=f"no trial logged {what}, which the sweep is to {record.direction}",
            hint=f"They logged: {', '.join(known) or 'nothing'}. Name one: `--metric NAME`.",
        )
        return replace(record, status=Status.FAILED, cause=cause)
    return replace(record, status=Status.SUCCEEDED, cause=None)


def _keep(workspace: Workspace, record: SweepRecord, revision: int, key: str) -> None:
    workspace.store.swap(
        KIND, record.sweep_id, record, expected=revision, key=key, status=record.status.value
    )


# --- what people ask for ------------------------------------------------------------------------


def find(workspace: Workspace, sweep_id: str) -> Kept[SweepRecord]:
    """Return the sweep of that id, or of the only id that begins so.

    Raises
    ------
    UnknownRun
        When there is none, or more than one.
    """
    return runs.named(workspace, KIND, SweepRecord, sweep_id, lambda record: record.sweep_id)


def is_one(workspace: Workspace, record_id: str) -> bool:
    """Return whether the id, or its beginning, is a sweep's and not a run's."""
    if not record_id.startswith("sweep-") or not layout.is_id(record_id):
        return False
    return bool(workspace.store.find(KIND, record_id, SweepRecord))


def get(workspace: Workspace, sweep_id: str) -> SweepRecord:
    """Return the sweep as it is now."""
    return observe(workspace, find(workspace, sweep_id))


def page(
    workspace: Workspace,
    *,
    limit: int,
    cursor: str | None = None,
    status: Status | None = None,
    pipeline: str | None = None,
) -> tuple[list[SweepRecord], str]:
    """Return sweeps newest first as they are now, and the cursor of the next page or ``""``.

    Raises
    ------
    WrongUse
        When the cursor has no meaning.
    """
    before = runs.parse_cursor(cursor)
    if status is not None:
        unfinished(workspace)  # one that was just given up must be found as such
    kept = workspace.store.page(
        KIND,
        SweepRecord,
        limit=limit + 1,
        before=before,
        status=None if status is None else (status.value,),
        pipeline=pipeline,
    )
    shown = [observe(workspace, item) for item in kept[:limit]]
    return shown, str(kept[limit - 1].sequence) if len(kept) > limit else ""


def unfinished(workspace: Workspace) -> list[SweepRecord]:
    """Return the sweeps that have not ended, each with a process that goes on with it."""
    kept = workspace.store.page(KIND, SweepRecord, limit=1000, status=_UNFINISHED)
    return [observe(workspace, item) for item in kept]


def watch(workspace: Workspace, sweep_id: str, *, every_s: float = 0.2) -> Iterator[SweepRecord]:
    """Yield the sweep each time that something changed, until it has ended."""
    last: SweepRecord | None = None
    while True:
        seen = get(workspace, sweep_id)
        if seen != last:
            yield seen
            last = seen
        if seen.status.is_final:
            return
        time.sleep(every_s)


def cancel(workspace: Workspace, sweep_id: str, *, patience_s: float = 20.0) -> SweepRecord:
    """End a sweep with all its trials that are under way; one that has ended stays as it is.

    Raises
    ------
    StartedElsewhere
        When another clone started it: its trials cannot be ended from here.
    """
    record = find(workspace, sweep_id).record
    if not record.status.is_final and not workspace.reaches("local", record.place):
        raise StartedElsewhere(
            f"{record.sweep_id} was started in another clone",
            f"Ask there; here it can be seen: `nbmlops run {record.sweep_id}`.",
            sweep_id=record.sweep_id,
            place=record.place,
        )
    deadline = time.monotonic() + patience_s
    while not record.status.is_final:
        kept = find(workspace, record.sweep_id)
        stopped = replace(
            kept.record,
            status=Status.CANCELLED,
            finished_at=workspace.now(),
            cause=Cause(code="cancelled", message="the sweep was cancelled"),
            trials=tuple(
                trial if trial.status.is_final else replace(trial, status=Status.CANCELLED)
                for trial in kept.record.trials
            ),
        )
        try:
            _keep(workspace, stopped, kept.revision, f"cancel:{record.sweep_id}:{kept.revision}")
        except Conflict:
            if time.monotonic() > deadline:
                raise
            continue
        runs.cancel_all(
            workspace,
            [t.run_id for t in kept.record.trials if t.run_id and not t.status.is_final],
        )
        record = stopped
    return record


def logs(workspace: Workspace, sweep_id: str, *, follow: bool = False) -> Iterator[str]:
    """Yield what the trials wrote, one after the other, each line behind its trial's number."""
    record = get(workspace, sweep_id)
    shown = 0
    while True:
        for trial in record.trials[shown:]:
            if trial.run_id is None or not (follow or trial.status.is_final):
                break
            for line in runs.logs(workspace, trial.run_id, follow=follow):
                yield f"{trial.number}: {line}"
            shown += 1
        if record.status.is_final or not follow:
            return
        time.sleep(0.2)
        record = get(workspace, sweep_id)
