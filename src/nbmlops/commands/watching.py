"""Commands that look back: from a call to its commit, from traffic to training."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from nbmlops.commands.answers import SourceAnswer
from nbmlops.commands.context import Context, Launchers, inside
from nbmlops.errors import WrongUse
from nbmlops.records import MonitorReport, Ticked, Trace, utc_now


def trace(context: Context, reference: str, *, source: bool = False) -> Trace:
    """Show the chain from a call down to the commit and the cell.

    Parameters
    ----------
    reference
        `call/ID`, `deployment/ID`, `model/NAME:VERSION` or `run/ID`; or the bare id or version.
    source
        Show only the cell that trained the model, with where it stands; `--json` has all.
    """
    from nbmlops import traces

    found = traces.trace(context.workspace(), reference)
    if not source:
        return found
    return SourceAnswer(**{name: getattr(found, name) for name in found.__struct_fields__})


def monitor(
    context: Context,
    endpoint: str | None = None,
    *,
    window: str | None = None,
    from_: str | None = None,
    reference: str | None = None,
    target: str | None = None,
    prediction: str | None = None,
    every: str | None = None,
    notebook: str | None = None,
    on: Launchers | None = None,
) -> MonitorReport:
    """Answer the four questions: are inputs, predictions, bounds, performance as in training.

    Exit code 3 means that an answer is no, 4 that none can be given yet. With `--from` and
    `--reference` it does so for bare files, without any deployment or project; there only the
    features are asked about, unless `--prediction` and `--target` name columns.

    Parameters
    ----------
    endpoint
        The endpoint's name. With `--every` it may be left out: all that are up are looked at.
    window
        Only the calls of the last so long, such as `24h`; all calls without it.
    from_
        A file of rows to look at: Parquet, CSV or JSON lines, by its name.
    reference
        A file of rows that they are held against, the training data.
    target
        The column of the truths, in both files or in one.
    prediction
        The column of the predictions, in the file that is looked at: labels, values, or the
        probability of the second of two classes.
    every
        Look again every so long, such as `15m`, until it is interrupted; with `--json` one
        document a line.
    notebook
        Write the report as a notebook too, such as `report.ipynb`, which runs again where it is;
        one that was written before is replaced. `[monitoring] template` names a team's own form.
    on
        Have a job of this launcher look, instead of doing it here.
    """
    asked = _Asked(endpoint, window, from_, reference, target, prediction, on)
    pause_s = _pause_s(every)
    if pause_s is None:
        return _look(context, asked, notebook)
    reports: list[MonitorReport] = []
    try:
        while True:
            reports = _look_at_all(context, asked, notebook)
            for report in reports:
                context.show(report)
            context.sleep(pause_s)
    except KeyboardInterrupt:
        if not reports:
            raise
        return reports[-1]


@dataclass(frozen=True)
class _Asked:
    """What is looked at: the calls of an endpoint, or a file against another."""

    endpoint: str | None = None
    window: str | None = None
    from_: str | None = None
    reference: str | None = None
    target: str | None = None
    prediction: str | None = None
    on: Launchers | None = None


def _look_at_all(context: Context, asked: _Asked, notebook: str | None) -> list[MonitorReport]:
    """Look at what is asked about, or at every endpoint that is up."""
    if asked != _Asked(window=asked.window, on=asked.on):
        return [_look(context, asked, notebook)]
    from nbmlops import monitors

    if notebook is not None:
        raise WrongUse(
            "a notebook is about one endpoint",
            "Name it: `nbmlops monitor ENDPOINT --every 15m --notebook report.ipynb`.",
        )
    return monitors.monitor_all(context.workspace(), window=asked.window, on=asked.on)


def _look(context: Context, asked: _Asked, notebook: str | None) -> MonitorReport:
    return _monitored(context, asked) if notebook is None else _written(context, asked, notebook)


def scheduler(context: Context, *, every: str = "2s", once: bool = False) -> Ticked:
    """Do what is due again and again: collect runs, restart what is down, look, tell of alerts.

    Every command does some of it; this one does all of it as long as it runs, and the Jupyter
    server does so while it is up. One process at a time is at it in each clone.

    Parameters
    ----------
    every
        Pause so long in between.
    once
        Do it once and end, as a job of cron or a cluster's schedule does.
    """
    from nbmlops import tick

    pause_s = _pause_s(every)
    workspace = context.workspace()
    done = tick.tick(workspace)
    # Whoever is not on their own terminal, which they could interrupt, gets it done once.
    if once or pause_s is None or context.bounds is not None:
        return done
    context.say(f"{workspace.root.name}: doing what is due every {every}, until interrupted")
    try:
        while True:
            if done.looked:
                context.show(done)
            context.sleep(pause_s)
            try:
                done = tick.tick(workspace)
            except Exception as error:
                done = Ticked(at=utc_now(), ours=True)
                context.warn(f"{utc_now():%Y-%m-%d %H:%M:%S} UTC: {error or repr(error)}")
    except KeyboardInterrupt:
        return done


def looking_again(
    start: Path, endpoint: str, window: str | None
) -> tuple[Callable[[datetime, datetime], MonitorReport], Callable[[], MonitorReport]]:
    """Return what looks at another window of an endpoint's calls, and what looks once more."""
    from nbmlops import monitors

    def on_select(since: datetime, until: datetime) -> MonitorReport:
        with closing(Context(start=start)) as context:
            return monitors.between(context.workspace(), endpoint, since, until)

    def refresh() -> MonitorReport:
        with closing(Context(start=start)) as context:
            return monitors.monitor(context.workspace(), endpoint, window=window)

    return on_select, refresh


def _monitored(context: Context, asked: _Asked) -> MonitorReport:
    from nbmlops import monitors
    from nbmlops.monitors.files import budget_at

    if asked.endpoint is not None:
        if asked.from_ or asked.reference or asked.target or asked.prediction:
            raise WrongUse(
                "an endpoint and a file are two things to look at",
                f"`nbmlops monitor {asked.endpoint}`, or"
                " `nbmlops monitor --from FILE --reference FILE`.",
            )
        workspace, window = context.workspace(), asked.window
        return monitors.monitor(workspace, asked.endpoint, window=window, on=asked.on)
    if asked.on is not None:
        raise WrongUse(
            "a job looks at the calls of an endpoint, and not at files", "Leave `--on` out."
        )
    if not asked.from_ or not asked.reference:
        raise WrongUse(
            "monitor wants an endpoint, or two files",
            "`nbmlops monitor ENDPOINT`, or `nbmlops monitor --from FILE --reference FILE`.",
        )
    if asked.window is not None:
        raise WrongUse("a file is looked at as a whole", "Leave `--window` out.")
    return monitors.compare(
        inside(context, asked.from_),
        inside(context, asked.reference),
        target=asked.target,
        prediction=asked.prediction,
        budget=budget_at(context.start),
        created_at=utc_now(),
    )


def _written(context: Context, asked: _Asked, notebook: str) -> MonitorReport:
    """Look once, and write the notebook of it; what cannot be written is told before."""
    from nbmlops.monitors import notebooks

    if asked.on is not None:
        raise WrongUse(
            "a notebook is executed here, and not by a job", "Leave `--on` or `--notebook` out."
        )
    out = inside(context, notebook)
    notebooks.refuse_to_overwrite(out, context.start)
    report = _monitored(context, asked)
    context.say(f"executing {out.name}")
    told = asdict(asked)
    del told["on"]
    notebooks.write(report, out, context.start, told)
    return report


def _pause_s(every: str | None) -> float | None:
    from nbmlops.project import length

    if every is None:
        return None
    pause_s = length(every).total_seconds()
    if pause_s < 1:
        raise WrongUse(f"`--every {every}` is no pause", "Wait a second at least: `--every 1s`.")
    return pause_s
