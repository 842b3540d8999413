"""Commands that look back: from a call to its commit, from traffic to training."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path

from nbmlops.commands.answers import SourceAnswer
from nbmlops.commands.context import Context, inside
from nbmlops.errors import WrongUse
from nbmlops.records import Budget, MonitorReport, Trace, utc_now


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
        The column of the predictions, in the file that is looked at.
    every
        Look again every so long, such as `15m`, until it is interrupted; with `--json` one
        document a line.
    """
    pause_s = _pause_s(every)
    if pause_s is None:
        return _monitored(context, endpoint, window, from_, reference, target, prediction)
    while True:
        if endpoint is None and from_ is None and reference is None:
            from nbmlops import monitors

            reports = monitors.monitor_all(context.workspace(), window=window)
        else:
            reports = [_monitored(context, endpoint, window, from_, reference, target, prediction)]
        for report in reports:
            context.show(report)
        try:
            context.sleep(pause_s)
        except KeyboardInterrupt:
            return reports[-1]


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


def _monitored(
    context: Context,
    endpoint: str | None,
    window: str | None,
    from_: str | None,
    reference: str | None,
    target: str | None,
    prediction: str | None,
) -> MonitorReport:
    from nbmlops import monitors

    if endpoint is not None:
        if from_ or reference or target or prediction:
            raise WrongUse(
                "an endpoint and a file are two things to look at",
                f"`nbmlops monitor {endpoint}`, or `nbmlops monitor --from FILE --reference FILE`.",
            )
        return monitors.monitor(context.workspace(), endpoint, window=window)
    if not from_ or not reference:
        raise WrongUse(
            "monitor wants an endpoint, or two files",
            "`nbmlops monitor ENDPOINT`, or `nbmlops monitor --from FILE --reference FILE`.",
        )
    if window is not None:
        raise WrongUse("a file is looked at as a whole", "Leave `--window` out.")
    return monitors.compare(
        inside(context, from_),
        inside(context, reference),
        target=target,
        prediction=prediction,
        budget=_budget(context),
        created_at=utc_now(),
    )


def _budget(context: Context) -> Budget:
    """Return the budget of the project one stands in, if any."""
    from nbmlops import layout, project
    from nbmlops.monitoring.drift import DEFAULT_BUDGET

    root = layout.project_root(context.start)
    if root is None:
        return DEFAULT_BUDGET
    told = project.read(root).monitoring
    return Budget(false_alarms=told.false_alarms, windows=told.windows)


def _pause_s(every: str | None) -> float | None:
    from nbmlops.project import length

    if every is None:
        return None
    pause_s = length(every).total_seconds()
    if pause_s < 1:
        raise WrongUse(f"`--every {every}` is no pause", "Wait a second at least: `--every 1s`.")
    return pause_s
