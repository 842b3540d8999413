"""Commands that look back: from a call to its commit, from traffic to training."""

from __future__ import annotations

from nbmlops.commands.answers import SourceAnswer
from nbmlops.commands.context import Context
from nbmlops.records import (
    MonitorReport,
    Trace,
)


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
