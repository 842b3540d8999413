"""The table of commands: one function and one row for each capability; every door is made from it.

A function's first parameter is the :class:`Context` of the person who acts; the rest is what they
type. Its docstring is the help. What it returns is a record, or an iterator of lines. Verbs are
imported when a command runs, so that ``--help`` loads none of them.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from nbmlops import records
from nbmlops.errors import Detached, InvalidRecords, UnknownReference, WrongUse, nearest
from nbmlops.records import (
    CallAnswer,
    CheckReport,
    Comparison,
    DeploymentRecord,
    Health,
    Level,
    Listing,
    MonitorReport,
    Parameter,
    RunRecord,
    SweepRecord,
    Trace,
)

if TYPE_CHECKING:
    from nbmlops.pipelines import Pipeline
    from nbmlops.rules import Session
    from nbmlops.workspace import Workspace


def _silent(_: Any) -> None:
    return None


@dataclass
class Context:
    """Who acts, from where, and who watches.

    ``start`` is the folder they stand in, ``notebook`` the notebook if they stand in one;
    ``say`` takes a line of progress, ``warn`` one that stays, ``watch`` a run and ``watch_sweep``
    a sweep each time somebody has looked. ``executed`` is what the notebook's kernel has run, by
    the cell's id, with the time. ``bounds`` is the folder that a person who is not on their own
    terminal cannot leave.
    """

    start: Path
    notebook: Path | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    say: Callable[[str], None] = _silent
    warn: Callable[[str], None] = _silent
    watch: Callable[[RunRecord], None] = _silent
    watch_sweep: Callable[[SweepRecord], None] = _silent
    executed: Mapping[str, tuple[str, datetime]] = field(default_factory=dict)
    bounds: Path | None = None
    stdin: Callable[[], str] | None = None
    _open: Workspace | None = None

    def workspace(self) -> Workspace:
        """Return the project at or above ``start``, opened once."""
        if self._open is None:
            from nbmlops import workspace

            self._open = workspace.open_at(
                self.start, environ=self.environ, say=self.say, warn=self.warn
            )
        return self._open

    def close(self) -> None:
        """Close what was opened."""
        if self._open is not None:
            self._open.close()
            self._open = None


class InitAnswer(records.Record, frozen=True, kw_only=True):
    """The document of ``init``."""

    project: str
    path: str
    commit: str | None
    pipelines: tuple[str, ...]
    created: tuple[str, ...]


class CiAnswer(records.Record, frozen=True, kw_only=True):
    """The document of ``ci``: ``path`` is below the repository's top.

    ``written`` is false where the file was there already, just so.
    """

    kind: Literal["github", "gitlab"]
    path: str
    written: bool
    pipelines: tuple[str, ...]


class NotebookAnswer(records.Record, frozen=True, kw_only=True):
    """What a run of the notebook that one stands in would run."""

    pipeline: str
    step: str | None
    parameters: tuple[Parameter, ...]


class ProjectAnswer(records.Record, frozen=True, kw_only=True):
    """The document of ``project``."""

    project: str
    path: str
    pipelines: tuple[str, ...]
    notebook: NotebookAnswer | None = None


# --- project ------------------------------------------------------------------------------------


def init(context: Context, folder: str = ".", *, example: bool = False) -> InitAnswer:
    """Make a project: nbmlops.toml, a git repository, a first commit.

    In a folder that is a repository already, the files are written and nothing is committed.

    Parameters
    ----------
    folder
        The project's folder; made when it is not there.
    example
        Write the example too: two notebooks that train a classifier of breast cancer.
    """
    from nbmlops import projects

    target = (context.start / folder).resolve()
    if context.bounds is not None and not target.is_relative_to(context.bounds):
        raise WrongUse(f"{folder!r} leads out of {context.bounds}", "Name a folder inside it.")
    return InitAnswer(**projects.init(target, example=example))


def project(context: Context) -> ProjectAnswer:
    """Show the project that you stand in, and what a run of your notebook would run."""
    from nbmlops import pipelines

    workspace = context.workspace()
    answer = ProjectAnswer(
        project=workspace.settings.project.name,
        path=str(workspace.root),
        pipelines=tuple(workspace.settings.pipelines),
    )
    if context.notebook is None:
        return answer
    found = pipelines.find(workspace, str(context.notebook))
    declared = pipelines.declared_parameters(workspace, found)
    notebook = NotebookAnswer(
        pipeline=found.name, step=found.step, parameters=tuple(declared.values())
    )
    return records.replace(answer, notebook=notebook)


def check(
    context: Context, files: tuple[str, ...] = (), *, level: Level = "warn", fix: bool = False
) -> CheckReport:
    """Hold notebooks and files against the rules, each with its level and what mends it.

    A rule's level (off, advise, warn, block) is set in [rules] of nbmlops.toml. Exit code 1 means
    that something of `--level` or above was found and not mended. As a pre-commit hook:
    `nbmlops check --level block`.

    Parameters
    ----------
    files
        Only these notebooks and files; the whole project without them.
    level
        From where on a finding is a failure: advise, warn or block.
    fix
        Mend what can be mended without a change of what the code does: outputs, doubled ids of
        cells, old formats.
    """
    from nbmlops import rules

    return rules.check(
        context.workspace(),
        files=[context.start / file for file in files] or None,
        fix=fix,
        level=level,
        say=context.say,
    )


def ci(context: Context, kind: Literal["github", "gitlab"], *, force: bool = False) -> CiAnswer:
    """Write a workflow for continuous integration: rules, tests, a run of each pipeline.

    The file goes where the service looks for it in the repository. Its jobs hold the project
    against the rules (`check --level block`), run its tests (the folder `tests`, by pytest, with
    the project's own packages) and train each pipeline, and keep the executed notebooks as HTML
    and the JUnit report. Started by hand, it takes a pipeline and parameters.

    Parameters
    ----------
    kind
        The service: github or gitlab.
    force
        Write over another file that is there.
    """
    from nbmlops import layout, workflows

    workspace = context.workspace()
    target = workflows.target(workspace, kind)
    if context.bounds is not None and not target.resolve().is_relative_to(context.bounds):
        raise WrongUse(
            f"{layout.WORKFLOW_FILES[kind]} leads out of {context.bounds}",
            f"Write it from a terminal: `nbmlops ci {kind}`.",
        )
    return CiAnswer(
        kind=kind,
        path=layout.WORKFLOW_FILES[kind],
        written=workflows.write(workspace, kind, force=force),
        pipelines=tuple(workspace.settings.pipelines),
    )


def doctor(context: Context) -> Health:
    """Check that nothing is lost, doubled, damaged or running without an owner."""
    from nbmlops import health, tick

    workspace = context.workspace()
    tick.tick(workspace)
    return health.check(workspace)


# --- runs ---------------------------------------------------------------------------------------


def train(
    context: Context,
    pipeline: str | None = None,
    *,
    param: tuple[str, ...] = (),
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
        The id of a run, a deployment or a sweep.
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


# --- models -------------------------------------------------------------------------------------


def models(context: Context, *, model: str | None = None) -> Listing:
    """List the model versions, newest first.

    Parameters
    ----------
    model
        Only of this model.
    """
    from nbmlops import models as verbs

    workspace = context.workspace()
    verbs.index(workspace)
    return Listing(items=tuple(verbs.versions(workspace, model)))


def deploy(context: Context, model: str) -> DeploymentRecord:
    """Serve a model version as an HTTP service whose URL stays.

    Parameters
    ----------
    model
        `NAME` for the newest version, or `NAME:VERSION`.
    """
    from nbmlops import deployments as verbs

    return verbs.deploy(context.workspace(), model)


def deployments(context: Context, *, every: bool = False) -> Listing:
    """List what is deployed, with its URL and what monitoring found last.

    Parameters
    ----------
    every
        Also those that have been stopped.
    """
    from nbmlops import deployments as verbs
    from nbmlops import monitors

    workspace = context.workspace()
    items: list[DeploymentRecord] = []
    for record in verbs.listed(workspace, every=every):
        report = monitors.latest(workspace, record.deployment_id)
        items.append(records.replace(record, monitor=report.verdict if report else None))
    return Listing(items=tuple(items))


def undeploy(context: Context, endpoint: str) -> DeploymentRecord:
    """Stop serving; the URL stays reserved for the next deployment.

    Parameters
    ----------
    endpoint
        The endpoint's name.
    """
    from nbmlops import deployments as verbs

    return verbs.undeploy(context.workspace(), endpoint)


def call(context: Context, endpoint: str, data: str) -> CallAnswer:
    """Ask an endpoint for predictions.

    Parameters
    ----------
    endpoint
        The endpoint's name.
    data
        One record as JSON, a list of them, or `-` to read it from standard input.
    """
    from nbmlops import endpoints

    if data == "-":
        if context.stdin is None:
            raise WrongUse("there is no standard input here", "Pass the records themselves.")
        data = context.stdin()
    text = data
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise InvalidRecords(
            f"the data is not JSON: {error}",
            "JSON has no NaN: write null where a value is missing."
            if "NaN" in text
            else """Quote it: `nbmlops call NAME '{"column": 1.5}'`; or `call NAME - < FILE`.""",
        ) from error
    return records.load(endpoints.call(context.workspace(), endpoint, text.encode()), CallAnswer)


# --- watch --------------------------------------------------------------------------------------


def trace(context: Context, reference: str) -> Trace:
    """Show the chain from a call down to the commit and the cell.

    Parameters
    ----------
    reference
        `call/ID`, `deployment/ID`, `model/NAME:VERSION` or `run/ID`.
    """
    from nbmlops import traces

    return traces.trace(context.workspace(), reference)


def monitor(context: Context, endpoint: str, *, window: str | None = None) -> MonitorReport:
    """Answer the four questions: are inputs, predictions, bounds, performance as in training.

    Exit code 3 means that an answer is no, 4 that none can be given yet.

    Parameters
    ----------
    endpoint
        The endpoint's name.
    window
        Only the calls of the last so long, such as `24h`; all calls without it.
    """
    from nbmlops import monitors

    return monitors.monitor(context.workspace(), endpoint, window=window)


# --- the table ----------------------------------------------------------------------------------


def _done(_: Any) -> int:
    return 0


def _run_exit(run: RunRecord | SweepRecord) -> int:
    return 1 if run.status.is_final and run.status.value != "succeeded" else 0


def _monitor_exit(report: MonitorReport) -> int:
    return {"ok": 0, "alert": 3, "unknown": 4}[report.verdict]


def _check_exit(report: CheckReport) -> int:
    from nbmlops import rules

    return 1 if any(rules.is_at_least(f.level, report.level) for f in report.findings) else 0


def _health_exit(health: Health) -> int:
    return 1 if health.findings else 0


@dataclass(frozen=True)
class Command:
    """A row: the function, its group in the help, and how the doors treat it.

    ``reads`` says that it changes nothing that a person would call a change (HTTP GET);
    ``streams`` that it returns lines; ``short`` has short options; ``here_only`` names options
    that mean something only on the person's own terminal.
    """

    function: Callable[..., Any]
    group: str
    reads: bool = True
    streams: bool = False
    short: Mapping[str, str] = field(default_factory=dict)
    here_only: tuple[str, ...] = ()
    exit_code: Callable[[Any], int] = _done

    @property
    def name(self) -> str:
        """The word that people type."""
        return self.function.__name__

    @property
    def parameters(self) -> list[inspect.Parameter]:
        """What people type after it, with the types resolved."""
        signature = inspect.signature(self.function, eval_str=True)
        return list(signature.parameters.values())[1:]

    @property
    def summary(self) -> str:
        """The first line of its help."""
        return (inspect.getdoc(self.function) or "").splitlines()[0]


TABLE: tuple[Command, ...] = (
    Command(init, "Project", reads=False),
    Command(project, "Project"),
    Command(check, "Project", reads=False, exit_code=_check_exit),
    Command(ci, "Project", reads=False),
    Command(doctor, "Project", exit_code=_health_exit),
    Command(
        train,
        "Run",
        reads=False,
        short={"param": "-p"},
        here_only=("junit",),
        exit_code=_run_exit,
    ),
    Command(
        sweep,
        "Run",
        reads=False,
        short={"param": "-p"},
        exit_code=_run_exit,
    ),
    Command(runs, "Run"),
    Command(run, "Run", here_only=("save",)),
    Command(logs, "Run", streams=True, short={"follow": "-f"}, here_only=("follow",)),
    Command(compare, "Run"),
    Command(cancel, "Run", reads=False),
    Command(rerun, "Run", reads=False, exit_code=_run_exit),
    Command(models, "Model"),
    Command(deploy, "Model", reads=False),
    Command(deployments, "Model"),
    Command(undeploy, "Model", reads=False),
    Command(call, "Model", reads=False),
    Command(trace, "Watch"),
    Command(monitor, "Watch", exit_code=_monitor_exit),
)


def find(name: str) -> Command:
    """Return the row of that name.

    Raises
    ------
    UnknownReference
        When there is none.
    """
    for command in TABLE:
        if command.name == name:
            return command
    raise UnknownReference(
        f"there is no command `{name[:60]}`", nearest(name, [row.name for row in TABLE])
    )
