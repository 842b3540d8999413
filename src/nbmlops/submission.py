"""Submission: runs begin here, from a snapshot; once for each request, attempt by attempt."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from nbmlops import (
    collection,
    datasets,
    decisions,
    digests,
    layout,
    pipelines,
    records,
    rules,
    runs,
    sites,
    snapshot,
    stepcache,
)
from nbmlops.datasets import Gathered
from nbmlops.errors import InvalidParameter, WrongUse
from nbmlops.pipelines import Pipeline
from nbmlops.records import (
    CachedStep,
    EarlierAttempt,
    Environment,
    InboxFile,
    JobHandle,
    JobSpec,
    Record,
    Resources,
    RunRecord,
    RunResult,
    RunSpec,
    Snapshot,
    Status,
    StepSpec,
    replace,
)
from nbmlops.rules import Session
from nbmlops.store import Kept
from nbmlops.workspace import NAMING, Workspace

_LOOKED_THROUGH_BYTES = 4 * 2**20
_SHORTEST_SECRET = 4  # shorter ones would be found in chance text
_BATCH_AT_LEAST = 2
_REQUEST = "request"  # leads from what was asked for to the run that answers it


class Basis(Record, frozen=True, kw_only=True):
    """What runs start from, and runs of one sweep share: the code, the data, the environment.

    ``source`` is an archive of the snapshot's files where one has been made already.
    """

    snapshot: Snapshot
    environment: Environment
    gathered: Gathered
    source: str | None = None


class Request(Record, frozen=True, kw_only=True):
    """A run that is fit to start; ``content_key`` covers all that it follows from."""

    pipeline: str
    steps: tuple[StepSpec, ...]
    parameters: dict[str, Any]
    basis: Basis
    resources: Resources
    content_key: str
    sweep: str | None = None
    trial: int | None = None


class _Answer(Record, frozen=True, kw_only=True):
    """The run that answers a request."""

    run_id: str


def basis(workspace: Workspace, taken: Snapshot, launcher: str) -> Basis:
    """Return the data and the environment that belong to a snapshot, as they are now."""
    gathered = datasets.gather(workspace)
    made = sites.prepare(workspace, launcher, taken.commit)
    return Basis(snapshot=taken, environment=made, gathered=gathered)


def capture(workspace: Workspace) -> Snapshot:
    """Capture the work tree as the commit that a run starts from."""
    return snapshot.take(
        workspace.repo,
        workspace.home.scratch,
        workspace.now(),
        untracked_limit_mib=workspace.settings.project.untracked_limit_mib,
    )


def request(
    workspace: Workspace,
    pipeline: Pipeline,
    checked: tuple[tuple[StepSpec, ...], dict[str, Any]],
    on: Basis,
    launcher: str,
) -> Request:
    """Return the run of a pipeline whose steps and parameters :func:`pipelines.steps` checked."""
    steps, parameters = checked
    steps = stepcache.keyed(
        workspace,
        on.snapshot.commit,
        steps,
        pipeline.settings.steps,
        on.environment.environment_id,
        on.gathered.data,
    )
    covered = [pipeline.name, on.snapshot.tree, [step.key for step in steps], launcher]
    return Request(
        pipeline=pipeline.name,
        steps=steps,
        parameters=parameters,
        basis=on,
        resources=pipeline.settings.resources,
        content_key=digests.of_bytes(msgspec.json.encode(covered)),
    )


def submit(
    workspace: Workspace,
    pipeline: Pipeline,
    given: dict[str, Any],
    *,
    launcher: str = "local",
    force: bool = False,
    sessions: Mapping[str, Session] | None = None,
) -> RunRecord:
    """Start a run and return its record; it is durable, and goes on without us.

    The same once more, of the same sources, data, parameters and environment: an unfinished run is
    returned as it is, one that succeeded is returned with its steps shown as taken from the cache,
    and one that did not succeed gets a new attempt. With ``force`` it is a new run whose steps all
    run. ``sessions`` is what a kernel has executed of the notebooks, by their paths.

    Raises
    ------
    NbmlopsError
        When the work tree, a notebook, a parameter, the data or the environment is not fit to run;
        nothing has been started then.
    """
    workspace.launcher(launcher).check()
    taken = capture(workspace)
    refuse_secrets(workspace, given)
    # Parameters are refused before data are read and environments made.
    checked = pipelines.steps(workspace, taken.commit, pipeline, given)
    enforce(workspace, taken, pipeline, sessions)
    snapshot.hold(workspace.repo, taken)
    with workspace.exclusively(NAMING, shared=True):
        asked = request(workspace, pipeline, checked, basis(workspace, taken, launcher), launcher)
        return start(workspace, asked, launcher=launcher, force=force)


def refuse_secrets(workspace: Workspace, given: Mapping[str, Any]) -> None:
    """Refuse parameters that hold a secret's value: they are recorded, and shown to everybody.

    Raises
    ------
    InvalidParameter
        When one does; the value is not told.
    """
    for secret in workspace.settings.project.secrets:
        value = workspace.environ.get(secret, "")
        for name, told in given.items():
            if len(value) >= _SHORTEST_SECRET and value in str(told):
                raise InvalidParameter(
                    f"the parameter `{name}` holds the value of the secret `{secret}`",
                    f"Leave it out; a notebook reads it by its name: `os.environ['{secret}']`.",
                    parameter=name,
                )


def enforce(
    workspace: Workspace,
    taken: Snapshot,
    pipeline: Pipeline,
    sessions: Mapping[str, Session] | None = None,
) -> None:
    """Hold what is about to run against the project's rules; say what they warn of.

    Raises
    ------
    RuleBroken
        When a rule that blocks is broken.
    """
    warnings = rules.enforce(
        workspace,
        [step.notebook for step in pipeline.settings.steps],
        sessions=sessions,
        changed=snapshot.changed(workspace.repo, taken, _LOOKED_THROUGH_BYTES),
    )
    for found in warnings:
        where = found.path if found.cell is None else f"{found.path}, cell {found.cell}"
        workspace.warn(f"warning: {where}: {found.message} [{found.code}]")


def lock(content_key: str) -> str:
    """Return the name of the lock that whoever starts a run of that content holds."""
    return f"submit-{content_key[:16]}"


def start(
    workspace: Workspace, asked: Request, *, launcher: str = "local", force: bool = False
) -> RunRecord:
    """Start what was asked for, or return the run that answers it already (see :func:`submit`)."""
    key = asked.content_key[:32]
    with (
        workspace.exclusively(NAMING, shared=True),
        workspace.exclusively(lock(asked.content_key)),
    ):
        pointer = workspace.store.get(_REQUEST, key, _Answer)
        earlier = pointer and workspace.store.get(runs.KIND, pointer.record.run_id, RunRecord)
        if earlier and earlier.record.freed_at is not None:
            earlier = None  # nothing is left of it that could answer
        if earlier and not force and _has_to_be_left(workspace, earlier.record, asked):
            earlier = None
        if earlier and (not force or _is_trial(earlier.record, asked)):
            # Whoever began it held this lock: if its job was not launched, nobody is about to.
            seen = runs.observe(workspace, earlier, patience_s=0)
            if not seen.status.is_final:
                return seen
            if seen.status is Status.SUCCEEDED:
                return as_cached(
                    runs.register(workspace, seen.run_id) if asked.sweep is None else seen
                )
            return attempt_again(workspace, runs.find(workspace, seen.run_id))
        record, spec = _planned(workspace, asked, launcher, force=force)
        # The pointer first: without its record it leads nowhere, and is written anew.
        workspace.store.swap(
            _REQUEST,
            key,
            _Answer(run_id=record.run_id),
            expected=pointer.revision if pointer else 0,
            key=f"request:{record.run_id}",
        )
        return _begin(
            workspace, record, spec, asked.resources, revision=0, source=asked.basis.source
        )


def start_all(
    workspace: Workspace,
    asked: Sequence[Request],
    *,
    name: str,
    launcher: str,
    at_once: int,
    force: bool = False,
) -> dict[int, RunRecord]:
    """Start many runs as one indexed job; those that an earlier run answers are left out.

    The job's inbox comes first, whole; what was begun and killed is found in it and gone on with,
    so that no run is started twice. Return the runs by the numbers of their trials.
    """
    folders = workspace.home.job(name)
    with workspace.exclusively(NAMING, shared=True), workspace.exclusively(f"batch-{name}"[:63]):
        job_file = folders.inbox / layout.JOB_FILE
        if not job_file.exists():
            waiting = [one for one in asked if force or not _is_answered(workspace, one)]
            if len(waiting) < _BATCH_AT_LEAST:
                return {}
            planned = [_planned(workspace, one, launcher, force=force) for one in waiting]
            _fill(workspace, name, planned, waiting[0], at_once=at_once)
        job = records.load(job_file.read_bytes(), JobSpec)
        by_trial = {one.trial: one for one in asked}
        started: dict[int, RunRecord] = {}
        for index in range(job.parallel or 0):
            file = folders.root / layout.PARTS_FOLDER / f"{index}.json"
            record = records.load(file.read_bytes(), RunRecord)
            one = by_trial.get(record.trial)
            if one is None or record.trial is None:
                continue
            started[record.trial] = record
            if workspace.store.get(runs.KIND, record.run_id, RunRecord) is not None:
                continue
            key = one.content_key[:32]
            pointer = workspace.store.get(_REQUEST, key, _Answer)
            workspace.store.swap(
                _REQUEST,
                key,
                _Answer(run_id=record.run_id),
                expected=pointer.revision if pointer else 0,
                key=f"request:{record.run_id}",
            )
            runs.keep(workspace, record, 0, f"submit:{record.run_id}:{record.attempts}")
        workspace.launcher(launcher).launch(job)
        return started


def _is_answered(workspace: Workspace, asked: Request) -> bool:
    """Return whether no job is needed: the same run is there, or all of its steps have run."""
    pointer = workspace.store.get(_REQUEST, asked.content_key[:32], _Answer)
    earlier = pointer and workspace.store.get(runs.KIND, pointer.record.run_id, RunRecord)
    if earlier is not None and earlier.record.freed_at is None:
        return True
    return len(stepcache.find(workspace, asked.steps)) == len(asked.steps)


def _fill(
    workspace: Workspace,
    name: str,
    planned: Sequence[tuple[RunRecord, RunSpec]],
    first: Request,
    *,
    at_once: int,
) -> None:
    """Fill the inbox of a batch: a spec and a record for each part, the files of all."""
    folders = workspace.home.job(name)
    folders.inbox.mkdir(parents=True, exist_ok=True)
    folders.outbox.mkdir(parents=True, exist_ok=True)
    parts = folders.inbox / layout.PARTS_FOLDER
    for index, (record, spec) in enumerate(planned):
        own = replace(record, handle=JobHandle(launcher=record.launcher, name=name, index=index))
        layout.write_file(parts / f"{index}.json", records.dump(spec))
        own_file = folders.root / layout.PARTS_FOLDER / f"{index}.json"
        layout.write_file(own_file, records.dump(own))
    spec = planned[0][1]
    _export(workspace, spec.commit, folders.inbox / layout.SOURCE_FILE, first.basis.source)
    for digest in {file.digest for _, one in planned for file in one.files}:
        workspace.artifacts.copy_to(digest, folders.inbox / "files" / digest)
    job = described(workspace, name, spec, first.resources)
    labels = {"sweep": str(first.sweep), "commit": spec.commit, "pipeline": spec.pipeline}
    job = replace(job, parallel=len(planned), at_once=min(at_once, len(planned)), labels=labels)
    layout.write_file(folders.inbox / layout.JOB_FILE, records.dump(job))


def _has_to_be_left(workspace: Workspace, run: RunRecord, asked: Request) -> bool:
    """Return whether a run of another clone cannot answer here.

    What it was asked to do lies there, so it gets no new attempt here, and none of its models
    become versions here. Steps of it that are cached are taken over all the same.
    """
    if workspace.reaches(run.launcher, run.place):
        return False
    if asked.sweep is not None:
        return True
    if not run.status.is_final:
        workspace.warn(
            f"{run.run_id} answers this and goes on in another clone: it is shown as that clone has"
            " written it last. To run it here as well: --force"
        )
        return False
    return run.status is not Status.SUCCEEDED or bool(run.sweep and not run.model_versions)


def _is_trial(run: RunRecord, asked: Request) -> bool:
    """Return whether the run is that very trial, started by a process that was killed since."""
    return asked.sweep is not None and (run.sweep, run.trial) == (asked.sweep, asked.trial)


def as_cached(run: RunRecord) -> RunRecord:
    """Return a run that succeeded as the answer to the same question once more."""
    steps = tuple(
        replace(step, cached=True, cached_from=step.cached_from or run.run_id) for step in run.steps
    )
    return replace(run, steps=steps)


def _planned(
    workspace: Workspace, asked: Request, launcher: str, *, force: bool
) -> tuple[RunRecord, RunSpec]:
    """Return the record and the job's description of a run that has not begun."""
    now = workspace.now()
    taken, made = asked.basis.snapshot, asked.basis.environment
    run_id = layout.new_id(asked.pipeline, now.timestamp())
    cached = {} if force else stepcache.find(workspace, asked.steps)
    spec = RunSpec(
        run_id=run_id,
        pipeline=asked.pipeline,
        project_dir=workspace.project_dir,
        commit=taken.commit,
        steps=_marked(asked.steps, cached),
        python=made.python,
        environment=made,
        secrets=workspace.settings.project.secrets,
        files=(*asked.basis.gathered.files, *_outputs(asked.steps, cached)),
        data={name: entry.path for name, entry in workspace.settings.data_settings().items()},
    )
    record = RunRecord(
        run_id=run_id,
        pipeline=asked.pipeline,
        status=Status.PENDING,
        commit=taken.commit,
        base_commit=taken.base_commit,
        dirty=taken.dirty,
        parameters=asked.parameters,
        environment_id=made.environment_id,
        launcher=launcher,
        created_at=now,
        data=asked.basis.gathered.data,
        snapshot=taken.id,
        author=workspace.repo.author(),
        project_dir=workspace.project_dir,
        content_key=asked.content_key,
        handle=JobHandle(launcher=launcher, name=run_id),
        sweep=asked.sweep,
        trial=asked.trial,
        place=decisions.place(workspace),
    )
    return _with_cached(record, spec, cached), spec


def _with_cached(record: RunRecord, spec: RunSpec, cached: dict[str, CachedStep]) -> RunRecord:
    steps = tuple(
        replace(cached[step.name].record, cached=True, cached_from=step.cached_from)
        if step.cached_from
        else records.planned(step)
        for step in spec.steps
    )
    return collection.taken_over(replace(record, steps=steps), cached.values())


def _marked(steps: Iterable[StepSpec], cached: dict[str, CachedStep]) -> tuple[StepSpec, ...]:
    return tuple(
        replace(step, cached_from=cached[step.name].run_id if step.name in cached else None)
        for step in steps
    )


def _outputs(steps: Iterable[StepSpec], cached: dict[str, CachedStep]) -> tuple[InboxFile, ...]:
    """Return the outputs of cached steps, which later steps find at the same path."""
    return tuple(
        InboxFile(path=artifact.name, digest=artifact.digest, step=step.name)
        for step in steps
        if step.name in cached
        for artifact in cached[step.name].artifacts
        if artifact.kind == "output"
    )


def _begin(
    workspace: Workspace,
    record: RunRecord,
    spec: RunSpec,
    resources: Resources,
    *,
    revision: int,
    source: str | None = None,
) -> RunRecord:
    """Fill the job's inbox, keep the record, and launch the job."""
    folders = collection.paths(workspace, record)
    folders.inbox.mkdir(parents=True, exist_ok=True)  # a killed submission may have begun it
    job = described(workspace, collection.handle(record).name, spec, resources)
    layout.write_file(folders.inbox / layout.SPEC_FILE, records.dump(spec))
    layout.write_file(folders.inbox / layout.JOB_FILE, records.dump(job))
    if all(step.cached_from for step in spec.steps):
        return _all_cached(workspace, record, spec, revision)
    _export(workspace, spec.commit, folders.inbox / layout.SOURCE_FILE, source)
    for digest in {file.digest for file in spec.files}:
        workspace.artifacts.copy_to(digest, folders.inbox / "files" / digest)
    runs.keep(workspace, record, revision, f"submit:{record.run_id}:{record.attempts}")
    workspace.launcher(record.launcher).launch(job)
    return runs.observe(workspace, Kept(record, revision + 1, 0))


def described(workspace: Workspace, name: str, spec: RunSpec, resources: Resources) -> JobSpec:
    """Return the job of a run, as a launcher is told it."""
    folders = workspace.home.job(name)
    return JobSpec(
        name=name,
        command=(sites.tool_of(spec.environment), "-m", "nbmlops.runner"),
        inbox=folders.inbox.as_uri(),
        outbox=folders.outbox.as_uri(),
        image=spec.environment.image,
        secrets=spec.secrets,
        resources=resources,
        labels={"run": spec.run_id, "commit": spec.commit, "pipeline": spec.pipeline},
    )


def _export(workspace: Workspace, commit: str, target: Path, made: str | None) -> None:
    """Put the archive of the commit's files into an inbox: a link to one that has been made."""
    if made is not None and Path(made).is_file():
        target.unlink(missing_ok=True)
        try:
            os.link(made, target)
            return
        except OSError:  # a file system without links
            pass
    snapshot.export(workspace.repo, commit, target)


def _all_cached(workspace: Workspace, record: RunRecord, spec: RunSpec, revision: int) -> RunRecord:
    """Return a run that was over before it began: each of its steps has run before."""
    now = workspace.now()
    found = [stepcache.get(workspace, step.key) for step in spec.steps]
    result = RunResult(
        run_id=record.run_id,
        attempt="a1",
        status=Status.SUCCEEDED,
        started_at=now,
        finished_at=now,
        steps=record.steps,
        models=tuple(model for step in found if step is not None for model in step.models),
    )
    ended = replace(record, status=Status.SUCCEEDED, started_at=now, finished_at=now, handle=None)
    ended = collection.finished(workspace, ended, spec, result)
    runs.keep(workspace, ended, revision, f"cached:{record.run_id}:{record.attempts}")
    return ended


def attempt_again(workspace: Workspace, kept: Kept[RunRecord]) -> RunRecord:
    """Give a run that did not succeed a new attempt, from the same snapshot.

    Steps that succeeded are taken from the cache.

    Raises
    ------
    WrongUse
        When what the run was asked to do is gone, or it has not ended.
    """
    record = kept.record
    if not record.status.is_final:
        raise WrongUse(f"{record.run_id} has not ended", f"See it: `nbmlops run {record.run_id}`.")
    spec, resources = _asked_before(workspace, record)
    cached = stepcache.find(workspace, spec.steps)
    number = record.attempts + 1
    again = replace(
        record,
        status=Status.PENDING,
        attempts=number,
        started_at=None,
        finished_at=None,
        metrics={},
        artifacts=(),
        cause=None,
        record_digest=None,
        handle=JobHandle(launcher=record.launcher, name=f"{record.run_id}-r{number}"),
        earlier=(
            *record.earlier,
            EarlierAttempt(
                attempt=record.attempts,
                status=record.status,
                cause=record.cause,
                started_at=record.started_at,
                finished_at=record.finished_at,
                artifacts=record.artifacts,
            ),
        ),
    )
    spec = replace(
        spec,
        steps=_marked(spec.steps, cached),
        files=(
            *(file for file in spec.files if file.step is None),
            *_outputs(spec.steps, cached),
        ),
    )
    again = _with_cached(again, spec, cached)
    return _begin(workspace, again, spec, resources, revision=kept.revision)


def rerun(workspace: Workspace, run_id: str) -> RunRecord:
    """Run a run again: a new attempt where it did not succeed, else a new run of all its steps.

    Both start from the snapshot, the data, the parameters and the environment of that run.
    """
    name = f"rerun-{runs.find(workspace, run_id).record.run_id}"
    with workspace.exclusively(NAMING, shared=True), workspace.exclusively(name):
        run = runs.get(workspace, run_id)
        runs.refuse_freed(run)
        kept = runs.find(workspace, run.run_id)
        if not run.status.is_final:
            return run
        runs.refuse_elsewhere(workspace, run)
        if run.status is not Status.SUCCEEDED:
            return attempt_again(workspace, kept)
        spec, resources = _asked_before(workspace, run)
        now = workspace.now()
        again = layout.new_id(run.pipeline, now.timestamp())
        spec = replace(
            spec,
            run_id=again,
            steps=_marked(spec.steps, {}),
            files=tuple(file for file in spec.files if file.step is None),
        )
        record = replace(
            run,
            run_id=again,
            status=Status.PENDING,
            created_at=now,
            started_at=None,
            finished_at=None,
            attempts=1,
            metrics={},
            artifacts=(),
            model_versions=(),
            record_digest=None,
            earlier=(),
            sweep=None,
            trial=None,
            steps=tuple(records.planned(step) for step in spec.steps),
            author=workspace.repo.author(),
            handle=JobHandle(launcher=run.launcher, name=again),
            place=decisions.place(workspace),
        )
        return _begin(workspace, record, spec, resources, revision=0)


def _asked_before(workspace: Workspace, record: RunRecord) -> tuple[RunSpec, Resources]:
    """Return what a run was asked to do, with an environment that is there."""
    try:
        spec = collection.spec(workspace, record)
        body = (collection.paths(workspace, record).inbox / layout.JOB_FILE).read_bytes()
    except FileNotFoundError:
        raise WrongUse(
            f"what {record.run_id} was asked to do is not kept any more",
            f"Start it anew: `nbmlops train {record.pipeline}`.",
        ) from None
    made = sites.again(workspace, record.launcher, spec.commit, spec.environment)
    spec = replace(spec, environment=made, python=made.python)
    return spec, records.load(body, JobSpec).resources
