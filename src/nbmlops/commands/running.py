"""Commands that start, follow, compare and stop runs and sweeps."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nbmlops import records
from nbmlops.commands.context import Context, Launchers
from nbmlops.errors import Detached, WrongUse
from nbmlops.records import (
    Comparison,
    Listing,
    RunRecord,
    SweepRecord,
)

if TYPE_CHECKING:
    from nbmlops.pipelines import Pipeline
    from nbmlops.rules import Session


def train(
    context: Context,
    pipeline: str | None = None,
    *,
    param: tuple[str, ...] = (),
    on: Launchers = "local",
    detach: bool = False,
    force: bool = False,
    junit: Path | None = None,
) -> RunRecord:
    """Run a pipeline: snapshot, environment, job, record, model version.

    The same once more, with nothing changed, is not run again: a run under way is followed, one
    that succeeded is shown, one that did not gets a new attempt. Steps that have not changed are
    taken from the cache.

    Parameters
    ----------
    pipeline
        A pipeline of nbmlops.toml, or a notebook. Without it: the notebook you stand in, or the
        only pipeline.
    param
        A parameter, as `name=value`; may be repeated.
    on
        Where it runs: as a process of this machine, in a container of its Docker engine, or in a
        Kubernetes cluster.
    detach
        Return as soon as the run is durable; it goes on by itself.
    force
        Run every step anew, though the same run is under way or was done before.
    junit
        Write a JUnit XML report to this file when the run has ended.
    """
    from nbmlops import pipelines, reports, submission

    if junit is not None and detach:
        raise WrongUse(
            "--junit needs the run's end, and --detach does not wait for it", "Leave one out."
        )
    workspace = context.workspace()
    found = _pipeline(context, pipeline)
    run = submission.submit(
        workspace,
        found,
        pipelines.assignments(param),
        launcher=on,
        force=force,
        sessions=_sessions(context, found),
    )
    if detach:
        return run
    run = _followed(context, run)
    if junit is not None:
        reports.write_junit(run, context.start / junit)
    return run


def _pipeline(context: Context, name: str | None) -> Pipeline:
    """Return the pipeline of that name; without one that of the notebook, or the only one."""
    from nbmlops import pipelines

    if name is None and context.notebook is not None:
        name = str(context.notebook)
    return pipelines.find(context.workspace(), name, start=context.start)


def _sessions(context: Context, pipeline: Pipeline) -> dict[str, Session]:
    """Return what the kernel has executed of the notebook that one stands in."""
    from nbmlops.rules import Session

    if context.notebook is None or not context.executed:
        return {}
    root = context.workspace().root
    if not context.notebook.is_relative_to(root):
        return {}
    path = context.notebook.relative_to(root).as_posix()
    saved_at = datetime.fromtimestamp(context.notebook.stat().st_mtime, UTC)
    mine = any(step.notebook == path for step in pipeline.settings.steps)
    return {path: Session(executed=context.executed, saved_at=saved_at)} if mine else {}


def _followed(context: Context, run: RunRecord) -> RunRecord:
    from nbmlops import runs

    if run.status.is_final:  # it was done before, and its steps say so: the store's do not
        return run
    try:
        for seen in runs.watch(context.workspace(), run.run_id, every_look=True):
            context.watch(seen)
            run = seen
    except KeyboardInterrupt:
        raise Detached(
            f"you stopped watching; {run.run_id} goes on",
            f"Follow it: `nbmlops logs {run.run_id} --follow`."
            f" End it: `nbmlops cancel {run.run_id}`.",
            run_id=run.run_id,
        ) from None
    return run


def runs(
    context: Context,
    *,
    limit: int = 20,
    cursor: str | None = None,
    best: str | None = None,
    lowest: str | None = None,
    status: str | None = None,
    pipeline: str | None = None,
    sweeps: bool = False,
) -> Listing:
    """List the runs, newest first, or the best by a metric; or the sweeps.

    Parameters
    ----------
    limit
        How many.
    cursor
        Where to go on: `next` of the page before.
    best
        Those with the highest values of this metric, the highest first.
    lowest
        Those with the lowest values of this metric, the lowest first.
    status
        Only those that are `succeeded`, `failed`, `running`, and so on.
    pipeline
        Only those of this pipeline.
    sweeps
        List the sweeps instead, newest first, each with its trials.
    """
    from nbmlops import runs as verbs

    if sweeps:
        return _sweeps(context, limit, cursor, best or lowest, status, pipeline)
    shown, following = verbs.page(
        context.workspace(),
        limit=max(1, min(limit, 1000)),
        cursor=cursor,
        best=best,
        lowest=lowest,
        status=status,
        pipeline=pipeline,
    )
    items = tuple(records.replace(run, steps=()) for run in shown)
    return Listing(items=items, next=following or None)


def _sweeps(
    context: Context,
    limit: int,
    cursor: str | None,
    metric: str | None,
    status: str | None,
    pipeline: str | None,
) -> Listing:
    from nbmlops import runs as verbs
    from nbmlops import sweeps

    if metric:
        raise WrongUse(
            "sweeps are not ordered by a metric", "Leave --best and --lowest out; a sweep has one."
        )
    shown, following = sweeps.page(
        context.workspace(),
        limit=max(1, min(limit, 1000)),
        cursor=cursor,
        status=None if status is None else verbs.parse_status(status),
        pipeline=pipeline,
    )
    # A list says which environment it was; `run SWEEP` says what is in it.
    items = tuple(
        records.replace(one, environment=records.replace(one.environment, packages={}))
        for one in shown
    )
    return Listing(items=items, next=following or None)


def rerun(context: Context, run_id: str, *, detach: bool = False) -> RunRecord:
    """Run a run again, from its own snapshot, data, parameters and environment.

    One that did not succeed gets a new attempt, which takes over the steps that did; of one that
    succeeded a new run is made, whose steps all run.

    Parameters
    ----------
    run_id
        Its id, or the beginning of it.
    detach
        Return as soon as the run is durable; it goes on by itself.
    """
    from nbmlops import submission

    started = submission.rerun(context.workspace(), run_id)
    return started if detach else _followed(context, started)


def sweep(
    context: Context,
    pipeline: str | None = None,
    *,
    param: tuple[str, ...] = (),
    search: Literal["grid", "random", "bayes"] = "grid",
    trials: int | None = None,
    parallel: int = 1,
    metric: str | None = None,
    minimize: bool = False,
    seed: int | None = None,
    on: Launchers = "local",
    detach: bool = False,
    force: bool = False,
) -> SweepRecord:
    """Run a pipeline many times over a space of parameters, and find the best.

    A parameter varies with several values, `-p max_depth=2,4,8`, or a range with both ends,
    `-p n_estimators=50..400`; behind a range `:50` makes steps, `:log` orders of magnitude. All
    trials start from one snapshot; each is a run.

    Parameters
    ----------
    pipeline
        A pipeline of nbmlops.toml, or a notebook. Without it: the notebook you stand in, or the
        only pipeline.
    param
        A parameter, as `name=values`, `name=low..high` or `name=value`; may be repeated.
    search
        All combinations, random ones, or Bayesian search (tree-structured Parzen estimator).
    trials
        How many; a grid has as many as there are combinations.
    parallel
        How many at a time.
    metric
        The metric to maximize. Without it: the pipeline's in nbmlops.toml, else accuracy or r2.
    minimize
        Minimize it instead.
    seed
        Makes the search repeatable; drawn and recorded unless given.
    on
        Where the trials run: as processes of this machine, in containers of its Docker engine, or
        in a Kubernetes cluster.
    detach
        Return as soon as the sweep is durable; it goes on by itself.
    force
        Run every step anew, though a trial was run before.
    """
    from nbmlops import pipelines, sweeps

    workspace = context.workspace()
    found = _pipeline(context, pipeline)
    record = sweeps.submit(
        workspace,
        found,
        pipelines.assignments(param),
        how=search,
        trials=trials,
        parallel=parallel,
        metric=metric,
        direction="minimize" if minimize else None,
        seed=seed,
        launcher=on,
        force=force,
        sessions=_sessions(context, found),
    )
    if detach:
        return record
    try:
        for seen in sweeps.watch(workspace, record.sweep_id):
            context.watch_sweep(seen)
            record = seen
    except KeyboardInterrupt:
        raise Detached(
            f"you stopped watching; {record.sweep_id} goes on",
            f"See it: `nbmlops run {record.sweep_id}`. End it: `nbmlops cancel {record.sweep_id}`.",
            sweep_id=record.sweep_id,
        ) from None
    return record


def run(context: Context, run_id: str, *, save: Path | None = None) -> RunRecord | SweepRecord:
    """Show a run: its steps, metrics, artifacts, and the cause if it failed; or a sweep.

    Parameters
    ----------
    run_id
        The id of a run or a sweep, or the beginning of it.
    save
        Write a run's artifacts (executed notebooks, figures, models, logs) below this folder.
    """
    from nbmlops import runs as verbs
    from nbmlops import sweeps

    workspace = context.workspace()
    if sweeps.is_one(workspace, run_id):
        if save is not None:
            raise WrongUse(
                f"{run_id} is a sweep; its trials have artifacts",
                f"Name a trial; they are listed by `nbmlops run {run_id}`.",
            )
        return sweeps.get(workspace, run_id)
    found = verbs.get(workspace, run_id)
    if save is not None:
        verbs.save(workspace, found, context.start / save)
    return found


def compare(context: Context, run_ids: tuple[str, ...], *, now: bool = False) -> Comparison:
    """Hold runs side by side: parameters, metrics, data, packages, and the cells that differ.

    Parameters
    ----------
    run_ids
        The ids of two runs or more, or the beginnings of them.
    now
        Also show what has changed in the saved notebooks since the first of them; one is enough.
    """
    from nbmlops import comparisons

    return comparisons.compare(context.workspace(), run_ids, now=now)


def logs(
    context: Context, run_id: str, *, follow: bool = False, lines: int | None = None
) -> Iterator[str]:
    """Show what a run, a deployment or an endpoint's job wrote.

    Parameters
    ----------
    run_id
        The id of a run, a deployment, a sweep, or a job that looks at calls.
    follow
        Go on until it has ended.
    lines
        Only the last so many.
    """
    from collections import deque

    from nbmlops import deployments, sweeps
    from nbmlops import runs as verbs

    workspace = context.workspace()
    found = deployments.logs(workspace, run_id, follow=follow)
    if found is None and sweeps.is_one(workspace, run_id):
        found = sweeps.logs(workspace, run_id, follow=follow)
    if found is None and run_id.startswith("look-"):  # a run's log needs no numpy
        from nbmlops.monitors import jobs as looks

        found = looks.logs(workspace, run_id, follow=follow)
    if found is None:
        found = verbs.logs(workspace, run_id, follow=follow)
    return iter(deque(found, max(0, lines))) if lines is not None and not follow else found


def cancel(context: Context, run_id: str) -> RunRecord | SweepRecord:
    """End a run, or a sweep with all its trials; one that has ended stays as it is.

    Parameters
    ----------
    run_id
        Its id, or the beginning of it.
    """
    from nbmlops import runs as verbs
    from nbmlops import sweeps

    workspace = context.workspace()
    if sweeps.is_one(workspace, run_id):
        return sweeps.cancel(workspace, run_id)
    return verbs.cancel(workspace, run_id)
